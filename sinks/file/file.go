// Package file keeps a token in a file of its own: the token and a newline, or whatever a template
// makes of it. In rotation.yaml:
//
//	file:
//	  path: ./portal.token        # relative to rotation.yaml; its folder must exist
//	  mode: "0640"                # the default is "0600"
//	  owner: portal               # optional, like group: the default is to leave them
//	  group: portal
//	  template: '{"token": "{{.Token}}", "expires_at": "{{.ExpiresAt}}"}'
//
// A template is Go's text/template with Name, Label, ID, Token and ExpiresAt (RFC 3339, UTC). It is
// tried when the configuration is read. What it writes must hold the token as it is, neither
// encoded nor with other letters around it, because that is how the token is found again.
//
// The whole file is ours: a push replaces it. A change of the template alone is not written before
// the next token is.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"text/template"
	"time"
	"unicode"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/atomicfile"
	"github.com/rotatord/rotatord/rotator/field"
)

// Kind is the name of this kind of sink in rotation.yaml.
const Kind = "file"

// DefaultMode is the file's mode where none is given.
const DefaultMode field.Mode = 0o600

// Config is the file block of a sink.
type Config struct {
	Path     string     `yaml:"path"`               // the file
	Mode     field.Mode `yaml:"mode,omitempty"`     // of the file
	Owner    string     `yaml:"owner,omitempty"`    // name or number; missing: left as it is
	Group    string     `yaml:"group,omitempty"`    // name or number; missing: left as it is
	Template string     `yaml:"template,omitempty"` // what stands in the file, with {{.Token}} in it; missing: the bare token and a newline
}

// Resolve makes the path absolute, relative to dir, the folder of the configuration, and fills in
// the defaults.
func (c *Config) Resolve(dir string) {
	c.Path = field.Absolute(dir, c.Path)
	if c.Mode == 0 {
		c.Mode = DefaultMode
	}
}

// Validate reports what is wrong with c, resolved or not.
func (c *Config) Validate(p field.Problems) {
	field.ValidateFile(p, c.Path, c.Mode)
	if err := try(c.Template); err != nil {
		p.At("template").Errorf("%v", err)
	}
}

// Place is the key of the sink's state: the file. c has to be resolved.
func (c *Config) Place() string { return Kind + ":" + c.Path }

// Shares returns the file, and what everybody who writes to it must agree on: it has one writer,
// whom nobody can agree with. c has to be resolved.
func (c *Config) Shares() (what, traits string) {
	return "file " + c.Path, field.FileTraits(c.Mode, c.Owner, c.Group) + ", as a whole"
}

// data is what a template can name.
type data struct {
	Name      string // of the entry
	Label     string // the token's name at SiteGPT
	ID        string // the token's id at SiteGPT
	Token     string
	ExpiresAt string // RFC 3339, UTC
}

func parse(text string) (*template.Template, error) {
	return template.New("template").Option("missingkey=error").Parse(text)
}

// try parses a template and executes it with sample values, so that mistakes come to light before
// a token depends on it. Its errors are about the sample values only.
func try(text string) error {
	if text == "" {
		return nil
	}
	t, err := parse(text)
	if err != nil {
		return err
	}
	const sample = "sgpt_Sample-0123456789_abcdefghij"
	var out strings.Builder
	err = t.Execute(&out, data{
		Name: "sample", Label: "rotatord/sample/sample#1", ID: "tok_sample", Token: sample, ExpiresAt: "2030-01-02T03:04:05Z",
	})
	if err != nil {
		return err
	}
	switch found := tokens(out.String()); {
	case len(found) == 0:
		return errors.New("must hold the token as it is, by {{.Token}}: what it writes could not be read back")
	case len(found) > 1:
		return errors.New("holds something else that looks like a token (sgpt_…): which one is used could not be told")
	case found[0] != sample:
		return errors.New("must hold the token alone: letters, digits, - and _ right behind it, or a part of it, could not be read back")
	}
	return nil
}

var tokenShape = regexp.MustCompile(`sgpt_[A-Za-z0-9_-]+`)

// tokens returns the distinct tokens in text.
func tokens(text string) []string {
	var found []string
	seen := map[string]bool{}
	for _, s := range tokenShape.FindAllString(text, -1) {
		if !seen[s] {
			seen[s] = true
			found = append(found, s)
		}
	}
	return found
}

// Sink keeps a token in a file of its own.
type Sink struct {
	config   Config
	options  atomicfile.Options
	template *template.Template // nil: the bare token
	err      error              // why the template cannot be used
}

// New returns the sink that c declares. It touches nothing. A template that Validate refuses is
// refused by Check and Push.
func New(c Config) *Sink {
	c.Resolve("")
	s := &Sink{config: c, options: atomicfile.Options{Mode: fs.FileMode(c.Mode), Owner: c.Owner, Group: c.Group}}
	if c.Template == "" {
		return s
	}
	if s.err = try(c.Template); s.err == nil {
		s.template, s.err = parse(c.Template)
	}
	if s.err != nil {
		s.err = fmt.Errorf("template of %s: %w", c.Path, s.err)
	}
	return s
}

var _ rotator.Sink = (*Sink)(nil)

// Check says whether the file could be replaced.
func (s *Sink) Check(ctx context.Context) error {
	if s.err != nil {
		return s.err
	}
	return atomicfile.Check(ctx, s.config.Path, s.options)
}

// Push replaces the file. It refuses, and writes nothing, where the value could not be read back.
func (s *Sink) Push(ctx context.Context, g rotator.Generation, secret rotator.Secret) error {
	if s.err != nil {
		return s.err
	}
	text, err := s.render(g, secret)
	if err != nil {
		return err
	}
	return atomicfile.Update(ctx, s.config.Path, s.options, func([]byte, bool) ([]byte, error) {
		return []byte(text), nil
	})
}

// render returns the file's content. Errors of the template are not passed on: they may quote what
// it was given.
func (s *Sink) render(g rotator.Generation, secret rotator.Secret) (string, error) {
	if secret.IsZero() {
		return "", errors.New("there is no value to write")
	}
	text := secret.Reveal() + "\n"
	if s.template != nil {
		var out strings.Builder
		err := s.template.Execute(&out, data{
			Name: g.Entry, Label: g.Label, ID: g.ID, Token: secret.Reveal(), ExpiresAt: g.Expires.UTC().Format(time.RFC3339),
		})
		if err != nil {
			return "", fmt.Errorf("the template of %s does not work with this token, though it does with a sample", s.config.Path)
		}
		text = out.String()
	}
	if back, err := s.find(text); err != nil || back != secret.Reveal() {
		return "", fmt.Errorf("the value could not be read back from %s: it is no SiteGPT token, or the template changes it or writes something like it beside it", s.config.Path)
	}
	return text, nil
}

// Read returns the only token in the file, the zero Secret where the file is missing or empty, and
// the whole content, without the white space around it, where it holds no token. Several different
// tokens are an error.
func (s *Sink) Read(ctx context.Context) (rotator.Secret, error) {
	if err := ctx.Err(); err != nil {
		return rotator.Secret{}, fmt.Errorf("read %s: %w", s.config.Path, err)
	}
	text, err := atomicfile.Read(s.config.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return rotator.Secret{}, nil
	}
	if err != nil {
		return rotator.Secret{}, err
	}
	value, err := s.find(string(text))
	if err != nil {
		return rotator.Secret{}, fmt.Errorf("%s: %w", s.config.Path, err)
	}
	return rotator.NewSecret(value), nil
}

// find returns the value in text. One word alone is the value, whatever it is.
func (s *Sink) find(text string) (string, error) {
	text = strings.TrimSpace(text)
	if s.template == nil && !strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(`"'{}<>=:,`, r)
	}) {
		return text, nil
	}
	switch found := tokens(text); len(found) {
	case 0:
		return text, nil
	case 1:
		return found[0], nil
	default:
		return "", fmt.Errorf("holds %d different tokens, of which rotatord writes one: somebody else writes to this file; remove it, or give the sink a path of its own", len(found))
	}
}
