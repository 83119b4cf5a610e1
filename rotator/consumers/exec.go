package consumers

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator/child"
	"github.com/rotatord/rotatord/rotator/field"
)

// Exec is a program that is run when tokens changed: exit code 0 says that their user has the new
// values. It learns which ones from its standard input (JSON) and from variables:
//
//	ROTATORD_ACTION=changed
//	ROTATORD_EVENT_ID     the same for the same changes, however often they are told
//	ROTATORD_INSTANCE, ROTATORD_CONSUMER
//	ROTATORD_COUNT        how many tokens changed
//	ROTATORD_NAMES, ROTATORD_GENERATIONS   with blanks between them, in the same order
//	ROTATORD_EXPIRES_AT   when the first of them expires (RFC 3339, UTC)
//
// No plaintext is among it: the program reads that where the sinks put it.
type Exec struct {
	Command   []string          `yaml:"command"`              // the program and its arguments
	Env       map[string]string `yaml:"env,omitempty"`        // literal values; no secrets
	Timeout   *field.Duration   `yaml:"timeout,omitempty"`    // then its process group is killed
	LogOutput bool              `yaml:"log_output,omitempty"` // what it prints goes to the log, redacted

	dir string // the configuration's folder
}

// DefaultExecTimeout is for a program that waits until a service is up again.
const DefaultExecTimeout = 2 * time.Minute

// longestList is how long a variable may be: the kernel refuses to start a program with one of 128 KiB.
const longestList = 64 << 10

// Validate reports what is wrong with e.
func (e *Exec) Validate(p field.Problems) {
	if len(e.Command) == 0 {
		p.At("command").Errorf("needs a program and its arguments, as a list")
	}
	child.CheckArgv(p.At("command"), e.Command, "the program reads the token where a sink puts it")
	child.CheckEnv(p.At("env"), e.Env)
	if e.Timeout != nil && *e.Timeout <= 0 {
		p.At("timeout").Errorf("must be longer than 0: leave it out for the default, %s", field.FormatDuration(DefaultExecTimeout))
	}
}

func (e *Exec) resolve(dir string) { e.dir, e.Command = dir, child.Resolve(dir, e.Command) }

func (e *Exec) title() string { return child.Name(e.Command) }

type execConsumer struct {
	name string
	c    Exec
	w    World
}

// Timeout implements Consumer.
func (e *execConsumer) Timeout() time.Duration { return positive(e.c.Timeout, DefaultExecTimeout) }

// Tell implements Consumer. When it returns, no process of the program's group runs any more.
func (e *execConsumer) Tell(ctx context.Context, changes []Change) (bool, error) {
	m := newMessage(e.name, e.w.Instance, changes)
	var names, generations []string
	var expires time.Time
	for _, t := range m.Tokens {
		names, generations = append(names, t.Name), append(generations, strconv.Itoa(t.Generation))
		if expires.IsZero() || t.Expires.Before(expires) {
			expires = t.Expires
		}
	}
	env := append(child.Env(e.c.Env),
		"ROTATORD_ACTION=changed", "ROTATORD_EVENT_ID="+m.ID, "ROTATORD_INSTANCE="+m.Instance, "ROTATORD_CONSUMER="+e.name,
		"ROTATORD_COUNT="+strconv.Itoa(len(names)), "ROTATORD_EXPIRES_AT="+expires.Format(time.RFC3339),
	)
	if list := strings.Join(names, " "); len(list) <= longestList {
		env = append(env, "ROTATORD_NAMES="+list, "ROTATORD_GENERATIONS="+strings.Join(generations, " "))
	}
	res, err := child.Run(ctx, child.Cmd{Argv: e.c.Command, Dir: e.c.dir, Env: env, Stdin: append(m.body(), '\n')})
	if e.c.LogOutput && e.w.Logger != nil {
		e.print("stdout", res.Stdout)
		e.print("stderr", res.Stderr)
	}
	return err == nil, err
}

// Taken implements Consumer: whoever was told by another kind of consumer is told again.
func (*execConsumer) Taken(context.Context) (Outcome, error) { return Lost, nil }

// Check implements Consumer.
func (e *execConsumer) Check(context.Context) (string, error) {
	path, err := child.Find(e.c.Command)
	if err != nil {
		return "", err
	}
	return path + " is there and executable", nil
}

// print logs what the program printed, a line at a time.
func (e *execConsumer) print(stream string, text []byte) {
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			e.w.Logger.LogAttrs(context.Background(), slog.LevelInfo, "program output",
				slog.String("consumer", e.name), slog.String("program", e.c.title()), slog.String("stream", stream), slog.String("line", line))
		}
	}
}
