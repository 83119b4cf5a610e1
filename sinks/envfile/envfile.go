// Package envfile keeps a token on one line of an env file, KEY=token, and leaves every other line
// as it is. In rotation.yaml:
//
//	env_file:
//	  path: ./portal.env          # relative to rotation.yaml; its folder must exist
//	  key: SITEGPT_API_TOKEN
//	  mode: "0640"                # the default is "0600"
//	  owner: portal               # optional, like group: the default is to leave them
//	  group: portal
//	  format: portable            # or the file's one reader: systemd, docker, shell
//
// A portable line means the same to systemd's EnvironmentFile=, docker's --env-file and every
// shell, so nothing in it is quoted, and a file that they read differently around our line is
// refused, with the line's number. The other formats mind one reader only, and systemd and shell
// values are quoted where they need it. A shell file may hold commands beside its assignments, as
// long as none of them touches the key; it is read as text, and never run.
//
// The line is replaced where it stands, or appended. Of several lines for one key readers take the
// last: that is the one replaced, and those before it are removed, because they would keep an old
// plaintext. Where the line above would swallow ours (a backslash at its end, in a comment too for
// systemd before version 254), a blank line is put between them.
//
// Several tokens may share a file: a push reads, changes and replaces it under one lock, which
// other processes may take too (flock on .NAME.lock beside it).
package envfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/atomicfile"
	"github.com/rotatord/rotatord/rotator/field"
)

// Kind is the name of this kind of sink in rotation.yaml.
const Kind = "env_file"

// DefaultMode is the file's mode where none is given.
const DefaultMode field.Mode = 0o600

// Format says who reads a file.
type Format string

// The formats, as they stand in rotation.yaml.
const (
	Portable Format = "portable" // everybody
	Systemd  Format = "systemd"  // EnvironmentFile= of a unit
	Docker   Format = "docker"   // docker run --env-file
	Shell    Format = "shell"    // a shell: set -a; . ./file
)

// Config is the env_file block of a sink.
type Config struct {
	Path   string     `yaml:"path"`             // the file
	Key    string     `yaml:"key"`              // the variable's name
	Mode   field.Mode `yaml:"mode,omitempty"`   // of the file
	Owner  string     `yaml:"owner,omitempty"`  // name or number; missing: left as it is
	Group  string     `yaml:"group,omitempty"`  // name or number; missing: left as it is
	Format Format     `yaml:"format,omitempty"` // who reads the file, and how values are quoted for that
}

// Resolve makes the path absolute, relative to dir, the folder of the configuration, and fills in
// the defaults.
func (c *Config) Resolve(dir string) {
	c.Path = field.Absolute(dir, c.Path)
	if c.Mode == 0 {
		c.Mode = DefaultMode
	}
	if c.Format == "" {
		c.Format = Portable
	}
}

var keyShape = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Validate reports what is wrong with c, resolved or not.
func (c *Config) Validate(p field.Problems) {
	field.ValidateFile(p, c.Path, c.Mode)
	at := p.At("key")
	switch {
	case c.Key == "":
		at.Errorf("is missing: the name of the variable, like SITEGPT_API_TOKEN")
	case strings.Contains(c.Key, "sgpt_"): // not repeated: it may be the secret itself
		at.Errorf("looks like a token: it must be the name of the variable")
	case !keyShape.MatchString(c.Key):
		at.Errorf("%q cannot be the name of a variable: it takes letters, digits and underscores, and does not begin with a digit", c.Key)
	}
	switch c.Format {
	case "", Portable, Systemd, Docker, Shell:
	default:
		p.At("format").Errorf("%q is not one of portable, systemd, docker, shell", string(c.Format))
	}
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// Place is the key of the sink's state: the file and the key in it. c has to be resolved.
func (c *Config) Place() string { return Kind + ":" + c.Path + "#" + c.Key }

// Shares returns the file, and what everybody who writes to it must agree on. c has to be resolved.
func (c *Config) Shares() (what, traits string) {
	return "file " + c.Path, field.FileTraits(c.Mode, c.Owner, c.Group) + ", format " + string(c.Format)
}

// Sink keeps a token on one line of a file.
type Sink struct {
	config  Config
	options atomicfile.Options
}

// New returns the sink that c declares. It touches nothing.
func New(c Config) *Sink {
	c.Resolve("")
	return &Sink{config: c, options: atomicfile.Options{Mode: fs.FileMode(c.Mode), Owner: c.Owner, Group: c.Group}}
}

var _ rotator.Sink = (*Sink)(nil)

// Check says whether the file could be replaced, and whether our line would have a place in it.
func (s *Sink) Check(ctx context.Context) error {
	if err := atomicfile.Check(ctx, s.config.Path, s.options); err != nil {
		return err
	}
	text, err := s.text()
	if err != nil {
		return err
	}
	_, err = s.change(text, "sgpt_check")
	return err
}

// Push puts the value on its line. It refuses, and writes nothing, where the format's reader would
// not see exactly that value.
func (s *Sink) Push(ctx context.Context, _ rotator.Generation, secret rotator.Secret) error {
	if secret.IsZero() {
		return errors.New("there is no value to write")
	}
	return atomicfile.Update(ctx, s.config.Path, s.options, func(old []byte, _ bool) ([]byte, error) {
		return s.change(old, secret.Reveal())
	})
}

func (s *Sink) change(old []byte, value string) ([]byte, error) {
	text, err := edit(s.config.Format, string(old), s.config.Key, value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.config.Path, err)
	}
	return []byte(text), nil
}

// Read returns the value of the key as the format's reader sees it: the zero Secret where the
// file, the key or its value is missing. Where the readers of a portable file differ, it is what
// one of them sees and that is no portable value; a value that a shell computes is its source text.
func (s *Sink) Read(ctx context.Context) (rotator.Secret, error) {
	if err := ctx.Err(); err != nil {
		return rotator.Secret{}, fmt.Errorf("read %s: %w", s.config.Path, err)
	}
	text, err := s.text()
	if err != nil {
		return rotator.Secret{}, err
	}
	value, err := lookup(s.config.Format, string(text), s.config.Key)
	if err != nil {
		return rotator.Secret{}, fmt.Errorf("%s: %w", s.config.Path, err)
	}
	return rotator.NewSecret(value), nil
}

// text returns the file's content, empty where there is no file.
func (s *Sink) text() ([]byte, error) {
	text, err := atomicfile.Read(s.config.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}
