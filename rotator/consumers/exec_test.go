package consumers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator/child"
	"github.com/rotatord/rotatord/rotator/consumers"
	"github.com/rotatord/rotatord/rotator/field"
)

// script writes a program, and returns a consumer that runs it.
func script(t *testing.T, text string, e consumers.Exec, w consumers.World) (c consumers.Consumer, dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "told.sh"), []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	e.Command = []string{"./told.sh", "an argument"}
	c, err := (consumers.Spec{Exec: &e}).Resolve(dir).Open("bot", w)
	if err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimRight(string(b), "\n"), "\n")
}

var two = []consumers.Change{
	{Entry: "b", Generation: 2, Promoted: start.Add(time.Second), Expires: start.Add(48 * time.Hour)},
	{Entry: "a", Generation: 7, Promoted: start, Expires: start.Add(50 * time.Hour)},
}

// The program learns what changed, in two ways, and nothing else; the same changes are the same
// message to the byte.
func TestExecIsTold(t *testing.T) {
	t.Setenv("SITEGPT_API_TOKEN", "sgpt_canary")
	t.Setenv("ROTATORD_CONFIG", "x")
	var log strings.Builder
	c, dir := script(t, `pwd >place; env | sort >environ; cat >"stdin.$ROTATORD_EVENT_ID"; echo "told $1 sgpt_abc"; echo more >&2`,
		consumers.Exec{Env: map[string]string{"REGION": "eu"}, LogOutput: true},
		consumers.World{Instance: "prod", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 2 {
		if taken, err := c.Tell(t.Context(), two); !taken || err != nil {
			t.Fatalf("%v, %v", taken, err)
		}
		slices.Reverse(two) // the order in which they come makes no difference
	}
	stdin, err := filepath.Glob(filepath.Join(dir, "stdin.*"))
	if err != nil || len(stdin) != 1 {
		t.Fatalf("told twice, it saw the ids %q", stdin)
	}
	id := strings.TrimPrefix(filepath.Ext(stdin[0]), ".")
	var got []string
	for _, line := range lines(t, filepath.Join(dir, "environ")) {
		switch name, _, _ := strings.Cut(line, "="); name {
		case "HOME", "LANG", "PATH", "PWD", "OLDPWD", "SHLVL", "TZ", "_":
		default:
			got = append(got, line)
		}
	}
	if want := []string{
		"REGION=eu", "ROTATORD_ACTION=changed", "ROTATORD_CONSUMER=bot", "ROTATORD_COUNT=2", "ROTATORD_EVENT_ID=" + id,
		"ROTATORD_EXPIRES_AT=2026-03-03T10:00:00Z", "ROTATORD_GENERATIONS=7 2", "ROTATORD_INSTANCE=prod", "ROTATORD_NAMES=a b",
	}; !slices.Equal(got, want) {
		t.Errorf("environment %q, want %q", got, want)
	}
	want := `{"format":1,"type":"tokens.changed","id":"` + id + `","timestamp":"2026-03-01T10:00:01Z","instance":"prod","consumer":"bot","tokens":[` +
		`{"name":"a","generation":7,"promoted_at":"2026-03-01T10:00:00Z","expires_at":"2026-03-03T12:00:00Z"},` +
		`{"name":"b","generation":2,"promoted_at":"2026-03-01T10:00:01Z","expires_at":"2026-03-03T10:00:00Z"}]}`
	if body := lines(t, stdin[0]); len(body) != 1 || body[0] != want || !json.Valid([]byte(body[0])) {
		t.Errorf("standard input %q,\nwant %q", body, want)
	}
	if place := lines(t, filepath.Join(dir, "place")); place[0] != dir {
		t.Errorf("it ran in %s, not in %s", place[0], dir)
	}
	if out := log.String(); strings.Contains(out, "sgpt_abc") || !strings.Contains(out, `line="told an argument [redacted]"`) || !strings.Contains(out, "line=more") {
		t.Errorf("logged: %s", out)
	}
	// Another generation is another message.
	later := slices.Clone(two)
	later[0].Generation++
	if _, err := c.Tell(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	if stdin, err = filepath.Glob(filepath.Join(dir, "stdin.*")); len(stdin) != 2 {
		t.Errorf("another change has the same id: %q, %v", stdin, err)
	}
}

// A list that no variable can hold is on standard input alone.
func TestExecOfThousands(t *testing.T) {
	c, dir := script(t, `env >environ; cat >stdin`, consumers.Exec{}, consumers.World{Instance: "prod"})
	var many []consumers.Change
	for i := range 5000 {
		many = append(many, consumers.Change{Entry: fmt.Sprintf("a-rather-long-name-of-a-token-%d", i), Generation: 1, Expires: start})
	}
	if _, err := c.Tell(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	env := strings.Join(lines(t, filepath.Join(dir, "environ")), "\n")
	if !strings.Contains(env, "ROTATORD_COUNT=5000") || strings.Contains(env, "ROTATORD_NAMES") {
		t.Errorf("environment %.300s", env)
	}
	if n := strings.Count(lines(t, filepath.Join(dir, "stdin"))[0], `"generation":1`); n != 5000 {
		t.Errorf("standard input names %d tokens", n)
	}
}

// What fails says the program and its exit code; what hangs is killed with all that it started.
func TestExecThatFailsOrHangs(t *testing.T) {
	var log strings.Builder
	c, _ := script(t, "echo secret text >&2; exit 3", consumers.Exec{}, consumers.World{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	var exit *child.ExitError
	if taken, err := c.Tell(t.Context(), two); taken || !errors.As(err, &exit) || err.Error() != "told.sh: exit code 3" || log.Len() > 0 {
		t.Errorf("%v, %v; logged %q", taken, err, &log)
	}
	short := field.Duration(300 * time.Millisecond)
	c, dir := script(t, `trap "" TERM; (sleep 60 & echo $! >other; wait) & echo $$ >self; sleep 60`, consumers.Exec{Timeout: &short}, consumers.World{})
	if c.Timeout() != 300*time.Millisecond {
		t.Errorf("the timeout is %s", c.Timeout())
	}
	ctx, cancel := context.WithTimeout(t.Context(), c.Timeout())
	defer cancel()
	if taken, err := c.Tell(ctx, two); taken || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", taken, err)
	}
	for _, name := range []string{"self", "other"} {
		pid := lines(t, filepath.Join(dir, name))[0]
		if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
			t.Errorf("%s runs on: %s", name, stat)
		}
	}
}

func TestExecCheck(t *testing.T) {
	c, dir := script(t, "exit 1", consumers.Exec{}, consumers.World{})
	if says, err := c.Check(t.Context()); err != nil || !strings.HasSuffix(says, "told.sh is there and executable") {
		t.Errorf("%q, %v", says, err)
	}
	if err := os.Chmod(filepath.Join(dir, "told.sh"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(t.Context()); err == nil || err.Error() != "told.sh: permission denied" {
		t.Errorf("not executable: %v", err)
	}
	gone, err := (consumers.Spec{Exec: &consumers.Exec{Command: []string{"no-such-program"}}}).Open("x", consumers.World{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such-program: executable file not found in $PATH") {
		t.Errorf("missing: %v", err)
	}
	if outcome, err := gone.Taken(t.Context()); outcome != consumers.Lost || err != nil {
		t.Errorf("of what a flag of the same name was told before: %v, %v", outcome, err)
	}
}
