package child_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/child"
)

func sh(script string, args ...string) child.Cmd {
	return child.Cmd{Argv: append([]string{"/bin/sh", "-c", script, "sh"}, args...)}
}

// dead reports whether no code of the process runs any more.
func dead(t *testing.T, pid string) bool {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(pid))
	if err != nil || n <= 1 {
		t.Fatalf("%q is no process id", pid)
	}
	if errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(n) + "/stat")
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
	}
	return stat[bytes.LastIndexByte(stat, ')')+2] == 'Z'
}

// fifo returns the path of a named pipe: a program writes into it when it has come that far.
func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunGivesInputAndReturnsOutputAndCode(t *testing.T) {
	c := sh(`cat; echo problem >&2; exit 7`)
	c.Stdin = []byte("over stdin")
	res, err := child.Run(t.Context(), c)
	var exit *child.ExitError
	if !errors.As(err, &exit) || exit.Code != 7 || exit.Name != "sh" || res.ExitCode != 7 {
		t.Fatalf("code %d, error %v; want exit code 7", res.ExitCode, err)
	}
	if string(res.Stdout) != "over stdin" || string(res.Stderr) != "problem\n" {
		t.Errorf("stdout %q, stderr %q", res.Stdout, res.Stderr)
	}
}

func TestRunNamesTheSignalThatEndedTheProgram(t *testing.T) {
	res, err := child.Run(t.Context(), sh(`kill -SEGV $$`))
	var exit *child.ExitError
	if !errors.As(err, &exit) || exit.Signal != syscall.SIGSEGV || res.ExitCode != -1 {
		t.Fatalf("code %d, error %v; want SIGSEGV", res.ExitCode, err)
	}
}

// More than a pipe holds, to a program that reads nothing of it.
func TestRunDoesNotMindAProgramThatLeavesItsInputUnread(t *testing.T) {
	c := sh(`exec <&-; exit 0`)
	c.Stdin = bytes.Repeat([]byte("x"), 4<<20)
	if _, err := child.Run(t.Context(), c); err != nil {
		t.Fatalf("%v; want nil, the program exited 0", err)
	}
}

func TestRunEndsTheInput(t *testing.T) {
	if res, err := child.Run(t.Context(), sh(`cat; echo end`)); err != nil || string(res.Stdout) != "end\n" {
		t.Fatalf("stdout %q, error %v", res.Stdout, err)
	}
}

func TestRunGivesTheProgramNoneOfOurSecrets(t *testing.T) {
	t.Setenv("SITEGPT_API_TOKEN", "sgpt_management")
	t.Setenv("VAULT_TOKEN", "hvs.something")
	t.Setenv("VAULT_ADDR", "https://vault.test")
	t.Setenv("SOMETHING_ELSE", "1")
	t.Setenv("TZ", "UTC")
	c := child.Cmd{Argv: []string{"env"}, Env: []string{"ROTATORD_NAME=bot", "LANG=C"}, SecretStdout: true}
	res, err := child.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(res.Stdout)) {
		name, _, _ := strings.Cut(line, "=")
		if !slices.Contains([]string{"PATH", "HOME", "LANG", "TZ", "ROTATORD_NAME"}, name) {
			t.Errorf("the program sees %s", name)
		}
	}
	if !bytes.Contains(res.Stdout, []byte("ROTATORD_NAME=bot\n")) || !bytes.Contains(res.Stdout, []byte("TZ=UTC\n")) {
		t.Errorf("the program lacks what it was given")
	}
	if n := bytes.Count(res.Stdout, []byte("LANG=")); n != 1 {
		t.Errorf("LANG stands %d times in the environment", n)
	}
}

func TestRunFindsPrograms(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain-secretdir")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		argv []string
		says string
	}{
		{"by name", []string{"true"}, ""},
		{"empty", nil, "the command is empty"},
		{"nowhere in PATH", []string{"no-such-program-here", "hunter2"}, "no-such-program-here: executable file not found in $PATH"},
		{"missing file", []string{"/hunter2/gone", "hunter2"}, "gone: no such file or directory"},
		{"not executable", []string{plain, "hunter2"}, "plain-secretdir: permission denied"},
		{"a directory", []string{dir, "hunter2"}, filepath.Base(dir) + ": is a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := child.Run(t.Context(), child.Cmd{Argv: tt.argv})
			if tt.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || err.Error() != tt.says {
				t.Errorf("%v; want %s", err, tt.says)
			}
			if _, ferr := child.Find(tt.argv); ferr == nil || ferr.Error() != tt.says {
				t.Errorf("Find: %v; want %s", ferr, tt.says)
			}
		})
	}
}

// Neither an argument, nor the folder of the program, nor what it printed may stand in an error.
func TestErrorsNameTheProgramAlone(t *testing.T) {
	for _, script := range []string{`echo hunter2; echo hunter2 >&2; exit 1`, `kill -KILL $$`} {
		_, err := child.Run(t.Context(), sh(script, "hunter2"))
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "/bin") {
			t.Errorf("error %v", err)
		}
	}
}

func TestRunDoesNotStartWhenItsTimeIsOver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "made")
	if _, err := child.Run(ctx, sh(`touch "$1"`, file)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want canceled", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the program ran")
	}
}

func TestTheEndOfTheContextIsSaidBeforeItIsEnforced(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	pipe := fifo(t)
	go func() {
		_, _ = os.ReadFile(pipe)
		cancel()
	}()
	c := sh(`trap 'echo tidied up; exit 0' TERM; echo ready >"$1"; while :; do sleep 0.05; done`, pipe)
	c.Grace = time.Minute
	res, err := child.Run(ctx, c)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want canceled, the work was cut off", err)
	}
	if string(res.Stdout) != "tidied up\n" {
		t.Errorf("stdout %q: the program was not given its grace", res.Stdout)
	}
}

// The program and its children ignore SIGTERM, and a grandchild keeps the output open.
func TestNothingOfTheGroupOutlivesTheEndOfTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	pipe := fifo(t)
	pids := make(chan string, 1)
	go func() {
		b, _ := os.ReadFile(pipe)
		pids <- string(b)
		cancel()
	}()
	c := sh(`trap '' TERM; sh -c 'sleep 600 & echo $! >"$1"; wait' sh "$1.child" &
		until [ -s "$1.child" ]; do sleep 0.01; done
		{ echo $$; echo $!; cat "$1.child"; } >"$1"; sleep 600`, pipe)
	c.Grace = 10 * time.Millisecond
	_, err := child.Run(ctx, c)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want canceled", err)
	}
	got := strings.Fields(<-pids)
	if len(got) != 3 {
		t.Fatalf("the program told %d process ids, want 3", len(got))
	}
	for _, pid := range got {
		if !dead(t, pid) {
			t.Errorf("process %s still runs after Run has returned", pid)
		}
	}
}

func TestNothingOfTheGroupOutlivesTheProgram(t *testing.T) {
	res, err := child.Run(t.Context(), sh(`sleep 600 & echo $!`))
	if err != nil {
		t.Fatalf("%v; want nil, the program itself exited 0", err)
	}
	if !dead(t, string(res.Stdout)) {
		t.Errorf("process %s still runs after Run has returned", res.Stdout)
	}
}

// A process that left the group is out of reach, but must not keep us waiting for its output.
func TestAProcessThatLeftTheGroupDoesNotHoldUsUp(t *testing.T) {
	res, err := child.Run(t.Context(), sh(`setsid sh -c 'echo $$ >"$1"; exec sleep 600' sh "$1" & cat "$1"`, fifo(t)))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(res.Stdout)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the process that called setsid had been ended: %v", err)
	}
}

func TestOutputIsCapped(t *testing.T) {
	c := sh(`head -c 100000 /dev/zero | tr '\0' x`)
	c.MaxOutput = 1000
	res, err := child.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Stdout) != 1000 || !res.Truncated {
		t.Errorf("kept %d bytes, truncated %v; want 1000, true", len(res.Stdout), res.Truncated)
	}
}

// Two writes that are one secret, and a limit that falls into the middle of another.
func TestSecretsAreCutOutOfTheOutput(t *testing.T) {
	secret := rotator.NewSecret("correct-horse-battery-staple")
	for _, tt := range []struct {
		name, script string
		max          int
		want         string
	}{
		{"whole", `printf 'a %s b' "$1"`, 0, "a [redacted] b"},
		{"two writes", `printf 'a %s' "${1%-staple}"; printf '%s b' -staple`, 0, "a [redacted] b"},
		{"twice", `printf '%s%s' "$1" "$1"`, 0, "[redacted][redacted]"},
		{"across the limit", `printf '12345%s' "$1"`, 10, "12345[reda"},
		{"behind the limit", `printf '1234567890%s' "$1"`, 10, "1234567890"},
		{"another token", `printf 'old sgpt_Abc-1_2!'`, 0, "old [redacted]!"},
		{"a longer token", `printf 'sgpt_'; printf 'abc'; printf 'def'`, 0, "[redacted]"},
		{"a token across the limit", `printf '12345sgpt_abcdefgh'`, 12, "12345[redact"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, stream := range []string{"", " >&2"} {
				c := sh("{ "+tt.script+"; }"+stream, secret.Reveal())
				c.Redact, c.MaxOutput = []rotator.Secret{secret}, tt.max
				res, err := child.Run(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				if got := string(res.Stdout) + string(res.Stderr); got != tt.want {
					t.Errorf("output%s is not %q: %d bytes", stream, tt.want, len(got))
				}
			}
		})
	}
}

func TestSecretStdoutIsKeptAndStderrIsNot(t *testing.T) {
	c := sh(`printf sgpt_canary; printf sgpt_canary >&2`)
	c.SecretStdout = true
	res, err := child.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if string(res.Stdout) != "sgpt_canary" || string(res.Stderr) != "[redacted]" {
		t.Error("stdout must be kept, and stderr redacted")
	}
}

func TestRedact(t *testing.T) {
	got := child.Redact("x sgpt_abc y pw z", rotator.NewSecret("pw"), rotator.Secret{})
	if got != "x [redacted] y [redacted] z" {
		t.Error(got)
	}
}
