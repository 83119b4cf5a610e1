package command_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/sinks/command"
	"github.com/rotatord/rotatord/sinks/sinktest"
)

// adapter is a program as a person would write it: one script, three actions, a file as target.
const adapter = `#!/bin/sh
set -eu
case $ROTATORD_ACTION in
push)
	test ! -e "$TARGET.closed"
	echo "$ROTATORD_NAME|$ROTATORD_LABEL|$ROTATORD_ID|$ROTATORD_EXPIRES_AT|$ROTATORD_GENERATION|$#" >>"$TARGET.log"
	cat >"$TARGET.$$"
	mv "$TARGET.$$" "$TARGET"
	;;
check) test -w "$(dirname "$TARGET")" && ! test -e "$TARGET.closed" ;;
read) if [ -e "$TARGET" ]; then cat "$TARGET"; echo; fi ;;
esac
`

var generation = rotator.Generation{
	Entry: "bot", Number: 7, Label: "rotatord/prod/bot#7", ID: "tok_7",
	Expires: time.Date(2026, 12, 1, 3, 0, 0, 0, time.FixedZone("", 3600)),
}

// full returns a sink with all three commands, and the path of what it writes.
func full(t *testing.T) (*command.Sink, string) {
	t.Helper()
	c, target := config(t)
	return command.New(c, nil), target
}

func config(t *testing.T) (command.Config, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "adapter"), []byte(adapter), 0o700); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "target")
	argv := []string{"./adapter"}
	c := command.Config{Command: argv, Check: argv, Read: argv, Env: map[string]string{"TARGET": target}}
	c.Resolve(dir)
	return c, target
}

func script(text string, args ...string) []string {
	return append([]string{"sh", "-c", text, "sh"}, args...)
}

func TestConformance(t *testing.T) {
	for _, blind := range []bool{false, true} {
		t.Run(map[bool]string{false: "with read", true: "without read"}[blind], func(t *testing.T) {
			sinktest.Run(t, sinktest.Harness{Unreadable: blind, Lines: true, New: func(t *testing.T) sinktest.Fixture {
				c, target := config(t)
				read := func(path string) string {
					b, err := os.ReadFile(path)
					if err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Fatal(err)
					}
					return string(b)
				}
				must := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				f := sinktest.Fixture{
					See: func() string { return strings.TrimSuffix(read(target), "\n") },
					Write: func(value string) {
						if value == "" {
							must(os.Remove(target))
						} else {
							must(os.WriteFile(target, []byte(value), 0o600))
						}
					},
					Break: func() func() {
						must(os.WriteFile(target+".closed", nil, 0o600))
						return func() { must(os.Remove(target + ".closed")) }
					},
					Version: func() string { return read(target + ".log") },
					Address: "adapter",
					Dir:     filepath.Dir(target),
				}
				if blind {
					c.Read = nil
					f.Version = nil // it cannot know what is held, and writes it again
				}
				f.Sink, f.Other = command.New(c, nil), command.New(c, nil)
				return f
			}})
		})
	}
}

func TestPushTellsTheProgramWhatItNeeds(t *testing.T) {
	s, target := full(t)
	if err := s.Push(t.Context(), generation, rotator.NewSecret("sgpt_one")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(target); err != nil || string(b) != "sgpt_one" {
		t.Errorf("the program did not read exactly the token (%d bytes, %v)", len(b), err)
	}
	want := "bot|rotatord/prod/bot#7|tok_7|2026-12-01T02:00:00Z|7|0\n"
	if b, _ := os.ReadFile(target + ".log"); string(b) != want {
		t.Errorf("environment %q, want %q", b, want)
	}
}

func TestPushRunsNothingWhereTheTokenIsThere(t *testing.T) {
	s, target := full(t)
	for range 3 {
		if err := s.Push(t.Context(), generation, rotator.NewSecret("sgpt_one")); err != nil {
			t.Fatal(err)
		}
	}
	if b, _ := os.ReadFile(target + ".log"); bytes.Count(b, []byte("\n")) != 1 {
		t.Errorf("the program ran %d times for one token", bytes.Count(b, []byte("\n")))
	}
}

func TestReadTellsNothingFromSomething(t *testing.T) {
	s, target := full(t)
	if got, err := s.Read(t.Context()); err != nil || !got.IsZero() {
		t.Fatalf("empty target: zero %v, error %v", got.IsZero(), err)
	}
	if err := os.WriteFile(target, []byte(" \nsgpt_one\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(t.Context()); err != nil || got.Reveal() != "sgpt_one" {
		t.Fatalf("same %v, error %v", got.Reveal() == "sgpt_one", err)
	}

	failing := command.New(command.Config{Command: []string{"true"}, Read: script("echo sgpt_one; exit 3")}, nil)
	if got, err := failing.Read(t.Context()); err == nil || !got.IsZero() {
		t.Error("a read that failed must not say what is held")
	}
	endless := command.New(command.Config{Command: []string{"true"}, Read: script("head -c 1000000 /dev/zero")}, nil)
	if _, err := endless.Read(t.Context()); err == nil {
		t.Error("a megabyte is no token")
	}
	blind := command.New(command.Config{Command: []string{"true"}}, nil)
	if _, err := blind.Read(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without read: %v; want unsupported", err)
	}
}

func TestCheck(t *testing.T) {
	s, target := full(t)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target+".closed", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err == nil || err.Error() != "check: adapter: exit code 1" {
		t.Errorf("%v; want the check command's failure", err)
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("the check wrote")
	}
	for _, tt := range []struct {
		c    command.Config
		want string
	}{
		{command.Config{Command: []string{"/nowhere/push", "arg"}}, "command: push: no such file or directory"},
		{command.Config{Command: []string{"true"}, Read: []string{"no-such-reader"}}, "read: no-such-reader: executable file not found in $PATH"},
		{command.Config{Command: []string{"true"}, Check: []string{"no-such-checker"}}, "check: no-such-checker: executable file not found in $PATH"},
	} {
		if err := command.New(tt.c, nil).Check(t.Context()); err == nil || err.Error() != tt.want {
			t.Errorf("%v; want %s", err, tt.want)
		}
	}
}

// A push whose time is over must write nothing later, whoever of the program's family would do it.
func TestPushIsFencedWhenItsTimeIsOver(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	c := command.Config{Command: script(`
		(trap '' TERM; echo ready >pipe; cat pipe >late) &
		wait`)}
	c.Resolve(dir)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = os.ReadFile(pipe)
		cancel()
	}()
	if err := command.New(c, nil).Push(ctx, generation, rotator.NewSecret("sgpt_late")); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v; want canceled", err)
	}
	// Nobody waits at the other end any more.
	if f, err := os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("a process of the push still reads (%v)", err)
		_ = f.Close()
	}
}

func TestOutputIsLoggedOnRequestAndRedacted(t *testing.T) {
	for _, on := range []bool{false, true} {
		var log bytes.Buffer
		c := command.Config{LogOutput: on, Command: script(`
			read -r token || true
			printf 'uploading %s' "$(echo "$token" | cut -c1-8)"; echo "$token" | cut -c9-
			echo "old one was sgpt_previous" >&2; exit 1`)}
		s := command.New(c, slog.New(slog.NewTextHandler(&log, nil)))
		err := s.Push(t.Context(), generation, rotator.NewSecret("sgpt_canary-value"))
		if err == nil || err.Error() != "push: sh: exit code 1" {
			t.Errorf("error %v", err)
		}
		for _, secret := range []string{"canary", "previous"} {
			if strings.Contains(log.String(), secret) {
				t.Errorf("log_output %v: the log holds a token", on)
			}
		}
		for _, line := range []string{`line="uploading [redacted]"`, `line="old one was [redacted]"`} {
			if strings.Contains(log.String(), line) != on {
				t.Errorf("log_output %v: %s in the log: %v", on, line, !on)
			}
		}
	}
}

func TestTheOutputOfReadIsNeverLogged(t *testing.T) {
	var log bytes.Buffer
	c := command.Config{LogOutput: true, Command: []string{"true"}, Read: script("echo plain-value; echo note >&2")}
	s := command.New(c, slog.New(slog.NewTextHandler(&log, nil)))
	if _, err := s.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "plain-value") || !strings.Contains(log.String(), "line=note") {
		t.Error("the log must hold stderr, and not stdout")
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    command.Config
		want []string
	}{
		{"fine", command.Config{Command: []string{"./push", "--region", "eu"}, Check: []string{"c"}, Read: []string{"r"}, Env: map[string]string{"A": "b"}, ID: "x.1"}, nil},
		{"nothing", command.Config{}, []string{"[command] needs a program and its arguments, as a list"}},
		{"empty lists", command.Config{Command: []string{}, Check: []string{}, Read: []string{" "}}, []string{
			"[command] needs a program and its arguments, as a list", "[check] is empty: leave it out", "[read 0] the program is empty",
		}},
		{"a shell line", command.Config{Command: []string{"push --now"}}, []string{
			"warning [command 0] is one word with blanks in it, and no shell splits it: write the program and each argument as items of the list",
		}},
		{"home", command.Config{Command: []string{"~/push"}}, []string{"[command 0] ~ is not expanded: write the whole path"}},
		{"a token as argument", command.Config{Command: []string{"push", "--token=sgpt_abc"}}, []string{
			"[command 1] holds a secret, and everybody on the machine can read arguments: the token comes on standard input",
		}},
		{"environment", command.Config{Command: []string{"p"}, Env: map[string]string{
			"1A": "", "ROTATORD_X": "", "SITEGPT_API_TOKEN": "x", "T": "sgpt_abc", "VAULT_ADDR": "https://vault.test", "VAULT_TOKEN": "x",
		}}, []string{
			`[env 1A] "1A" cannot be the name of an environment variable`,
			"[env ROTATORD_X] names that begin with ROTATORD_ are set by rotatord",
			"[env SITEGPT_API_TOKEN] a secret has no place here: let the program read it from a file",
			"[env T] a secret has no place here: let the program read it from a file",
			"[env VAULT_TOKEN] a secret has no place here: let the program read it from a file",
		}},
		{"id", command.Config{Command: []string{"p"}, ID: "a b"}, []string{`[id] "a b" must be 1 to 64 letters, digits, dots, dashes and underscores`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := field.New()
			tt.c.Validate(p)
			var got []string
			for _, problem := range p.List() {
				s := fmt.Sprintf("%v %s", problem.Path, problem.Text)
				if problem.Warning {
					s = "warning " + s
				}
				if strings.Contains(s, "sgpt_") {
					t.Error("a problem quotes the secret")
				}
				got = append(got, s)
			}
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestPlace(t *testing.T) {
	c := command.Config{Command: []string{"./push <x>", "prod"}}
	c.Resolve("/etc/rotatord")
	if got, want := c.Place(), `exec:["/etc/rotatord/push <x>","prod"]`; got != want {
		t.Errorf("%s; want %s", got, want)
	}
	c.Env = map[string]string{"B": "2", "A": "1"}
	if got, want := c.Place(), `exec:["/etc/rotatord/push <x>","prod"]{"A":"6b86b273ff34","B":"d4735e3a265e"}`; got != want {
		t.Errorf("%s; want %s", got, want)
	}
	if got, want := c.Title(), `["/etc/rotatord/push <x>","prod"] (A, B)`; got != want {
		t.Errorf("%s; want %s", got, want)
	}
	c.ID = "portal"
	if got := c.Place(); got != "exec:portal" || c.Title() != "portal" {
		t.Errorf("%s, %s; want exec:portal, portal", got, c.Title())
	}
}

// A bare name stays one: PATH decides when it runs.
func TestResolveLeavesBareNamesAndTheCallersListAlone(t *testing.T) {
	argv := []string{"bin/push"}
	c := command.Config{Command: argv, Check: []string{"check"}, Read: []string{"/abs/read"}}
	c.Resolve("/etc/rotatord")
	if c.Command[0] != "/etc/rotatord/bin/push" || c.Check[0] != "check" || c.Read[0] != "/abs/read" {
		t.Errorf("%q %q %q", c.Command, c.Check, c.Read)
	}
	if argv[0] != "bin/push" {
		t.Error("the caller's list was changed")
	}
}
