// Package command hands a token to a program of your own: whatever rotatord has no sink for, a
// script of a few lines can be. In rotation.yaml:
//
//	exec:
//	  command: [./push.sh, prod]       # the token is on its standard input, without a newline
//	  check: [./push.sh, --check]      # optional: exits 0 when a push would work, and changes nothing
//	  read: [./push.sh, --read]        # optional: prints what is held now, and nothing where nothing is
//	  env: {REGION: eu-west-1}         # optional: no secrets
//	  log_output: true                 # optional: what command and check print goes to the log, redacted
//	  id: prod-portal                  # optional: the name of the place; the default is the command and env
//
// The token is never in an argument. A program sees PATH, HOME, LANG, TZ, the env block,
// ROTATORD_ACTION (push, check or read), and with push ROTATORD_NAME, ROTATORD_LABEL,
// ROTATORD_ID, ROTATORD_EXPIRES_AT (RFC 3339, UTC) and ROTATORD_GENERATION. It runs in the folder
// of rotation.yaml, in a process group of its own that is killed when the program ends or the
// sink's timeout is over. Exit code 0 is success; anything else is tried again.
package command

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/child"
	"github.com/rotatord/rotatord/rotator/field"
)

// Kind is the name of this kind of sink in rotation.yaml.
const Kind = "exec"

// Config is the exec block of a sink.
type Config struct {
	Command   []string          `yaml:"command"`              // gets the token on standard input
	Check     []string          `yaml:"check,omitempty"`      // says whether a push would work
	Read      []string          `yaml:"read,omitempty"`       // prints what is held
	Env       map[string]string `yaml:"env,omitempty"`        // literal values, for all three
	LogOutput bool              `yaml:"log_output,omitempty"` // log what command and check print
	ID        string            `yaml:"id,omitempty"`         // names the place; missing: command and env do

	dir string // the configuration's folder, from Resolve
}

// Resolve makes programs given by a relative path relative to dir, the folder of the
// configuration, and remembers dir to run them in. A bare name is looked for in PATH when it runs.
func (c *Config) Resolve(dir string) {
	c.dir = dir
	for _, argv := range []*[]string{&c.Command, &c.Check, &c.Read} {
		*argv = child.Resolve(dir, *argv)
	}
}

var idShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Validate reports what is wrong with c.
func (c *Config) Validate(p field.Problems) {
	if len(c.Command) == 0 {
		p.At("command").Errorf("needs a program and its arguments, as a list")
	}
	for _, program := range c.programs() {
		at := p.At(program.name)
		if program.argv != nil && len(program.argv) == 0 && program.name != "command" {
			at.Errorf("is empty: leave it out")
		}
		child.CheckArgv(at, program.argv, "the token comes on standard input")
	}
	child.CheckEnv(p.At("env"), c.Env)
	if c.ID != "" && !idShape.MatchString(c.ID) {
		p.At("id").Errorf("%q must be 1 to 64 letters, digits, dots, dashes and underscores", c.ID)
	}
}

// program is one of the argv lists and its name in rotation.yaml.
type program struct {
	name string
	argv []string
}

func (c *Config) programs() []program {
	return []program{{"command", c.Command}, {"check", c.Check}, {"read", c.Read}}
}

// Place is the key of the sink's state: the id, or the command with its env. Sinks that run the
// same command for several tokens need an id each. Of env it holds digests: a value may be a secret for
// all that is said against it, and places are in the state, in JSON and on the page's facts.
func (c *Config) Place() string {
	if c.ID != "" {
		return Kind + ":" + c.ID
	}
	place := Kind + ":" + child.Compact(c.Command)
	if len(c.Env) > 0 {
		digests := map[string]string{}
		for name, value := range c.Env {
			sum := sha256.Sum256([]byte(value))
			digests[name] = hex.EncodeToString(sum[:6])
		}
		place += child.Compact(digests)
	}
	return place
}

// Title is what people call the place: as Place, but of env the names alone. Two places can have one title.
func (c *Config) Title() string {
	if c.ID != "" || len(c.Env) == 0 {
		return strings.TrimPrefix(c.Place(), Kind+":")
	}
	return child.Compact(c.Command) + " (" + strings.Join(slices.Sorted(maps.Keys(c.Env)), ", ") + ")"
}

// Shares is empty: two sinks of this kind have nothing in common that must agree.
func (c *Config) Shares() (what, traits string) { return "", "" }

// Sink hands tokens to a program.
type Sink struct {
	config Config
	logger *slog.Logger
}

// New returns the sink that c declares. What programs print goes to logger where c asks for it;
// nil drops it.
func New(c Config, logger *slog.Logger) *Sink {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Sink{config: c, logger: logger}
}

var _ rotator.Sink = (*Sink)(nil)

// Check runs the check command. Without one it says whether the programs are there and executable.
func (s *Sink) Check(ctx context.Context) error {
	for _, program := range s.config.programs() {
		if len(program.argv) == 0 {
			continue
		}
		if _, err := child.Find(program.argv); err != nil {
			return fmt.Errorf("%s: %w", program.name, err)
		}
	}
	if len(s.config.Check) == 0 {
		return nil
	}
	_, err := s.run(ctx, "check", s.config.Check, nil, rotator.Secret{})
	return err
}

// Push runs the command with the token on its standard input, unless the read command says that
// the token is there already. The program has to be idempotent, and to have written durably when
// it exits 0. Its process group is gone when Push returns.
func (s *Sink) Push(ctx context.Context, g rotator.Generation, secret rotator.Secret) error {
	if len(s.config.Read) > 0 {
		if held, err := s.Read(ctx); err == nil && held.Reveal() == secret.Reveal() {
			return nil
		}
	}
	env := []string{
		"ROTATORD_NAME=" + g.Entry,
		"ROTATORD_LABEL=" + g.Label,
		"ROTATORD_ID=" + g.ID,
		"ROTATORD_EXPIRES_AT=" + g.Expires.UTC().Format(time.RFC3339),
		"ROTATORD_GENERATION=" + strconv.Itoa(g.Number),
	}
	_, err := s.run(ctx, "push", s.config.Command, env, secret)
	return err
}

// Read runs the read command: what it prints, without the white space around it, is what is held;
// nothing printed is nothing held. Any other exit code than 0 leaves it unknown. Without a read
// command the error matches errors.ErrUnsupported.
func (s *Sink) Read(ctx context.Context) (rotator.Secret, error) {
	if len(s.config.Read) == 0 {
		return rotator.Secret{}, fmt.Errorf("no read command: %w", errors.ErrUnsupported)
	}
	res, err := s.run(ctx, "read", s.config.Read, nil, rotator.Secret{})
	if err != nil {
		return rotator.Secret{}, err
	}
	if res.Truncated {
		return rotator.Secret{}, fmt.Errorf("read: %s printed more than a token can be", child.Name(s.config.Read))
	}
	return rotator.NewSecret(strings.TrimSpace(string(res.Stdout))), nil
}

func (s *Sink) run(ctx context.Context, action string, argv, env []string, secret rotator.Secret) (child.Result, error) {
	c := child.Cmd{
		Argv: argv, Dir: s.config.dir,
		Stdin:        []byte(secret.Reveal()),
		SecretStdout: action == "read",
	}
	c.Env = append(append(child.Env(s.config.Env), "ROTATORD_ACTION="+action), env...)
	if !secret.IsZero() {
		c.Redact = []rotator.Secret{secret}
	}
	res, err := child.Run(ctx, c)
	if s.config.LogOutput {
		if action != "read" {
			s.log(action, argv, "stdout", res.Stdout)
		}
		s.log(action, argv, "stderr", res.Stderr)
	}
	if err != nil {
		return res, fmt.Errorf("%s: %w", action, err)
	}
	return res, nil
}

// log writes what a program printed, a line at a time.
func (s *Sink) log(action string, argv []string, stream string, text []byte) {
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			s.logger.Info("program output", "program", child.Name(argv), "action", action, "stream", stream, "line", line)
		}
	}
}
