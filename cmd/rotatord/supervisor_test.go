//go:build linux

package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/monitor"
	"github.com/rotatord/rotatord/rotator/schedule"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

// manager is the socket of a service manager, and what it was told.
type manager struct {
	t    *testing.T
	path string

	mu   sync.Mutex
	told []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "notify")}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for buf := make([]byte, 64<<10); ; {
			n, err := l.Read(buf)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.told = append(m.told, string(buf[:n]))
			m.mu.Unlock()
		}
	}()
	return m
}

// has returns how many messages begin with a text, and the last of them.
func (m *manager) has(prefix string) (n int, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.told {
		if strings.HasPrefix(s, prefix) {
			n, text = n+1, s
		}
	}
	return n, text
}

// wait returns the n-th message that begins with a text.
func (m *manager) wait(n int, prefix string) string {
	m.t.Helper()
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if have, text := m.has(prefix); have >= n {
			return text
		}
		if time.Now().After(until) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.t.Fatalf("%q was not told %d times:\n%s", prefix, n, strings.Join(m.told, "\n"))
		}
	}
}

// running is a daemon in a process of its own.
type running struct {
	*exec.Cmd
	t     *testing.T
	lines lines
}

// background starts a daemon; more are variables of its environment. The test's end kills it.
func (s *stage) background(more ...string) *running {
	s.t.Helper()
	cmd, _ := s.process(nil, "run")
	r := &running{Cmd: cmd, t: s.t}
	cmd.Env = append(cmd.Env, more...)
	cmd.Stdout, cmd.Stderr = &r.lines, &r.lines
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return r
}

func (r *running) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// end waits for a process that was told to stop.
func (r *running) end(want int) {
	r.t.Helper()
	if code := ended(r.t, r.Wait()); code != want {
		r.t.Errorf("the daemon ended with %d, want %d:\n%s", code, want, &r.lines)
	}
}

func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	s := newStage(t, "")
	closed := filepath.Join(s.dir, "closed")
	s.write("rotation.yaml", oneToken+"      - exec: {command: [/bin/sh, -c, 'while test -e "+closed+"; do sleep 0.1; done; cat >/dev/null']}\n")
	m := newManager(t)
	r := s.background("NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=1000000")
	m.wait(1, "READY=1")
	r.lines.wait(t, "WatchdogSec is short")
	if n, _ := m.has("EXTEND_TIMEOUT_USEC="); n == 0 {
		t.Error("no time was asked for to open the state")
	}
	if status := m.wait(1, "STATUS=1 token current, next: bot "); strings.Contains(status, "fail") {
		t.Errorf("it says %q", status)
	}
	pings, _ := m.has("WATCHDOG=1")
	m.wait(pings+2, "WATCHDOG=1")

	r.signal(syscall.SIGHUP)
	m.wait(1, "RELOADING=1\nMONOTONIC_USEC=")
	m.wait(2, "READY=1")

	// A token that was just made is brought to its sink, though the daemon is to stop.
	s.write("closed", "")
	s.run(exitFailed, "rotate", "bot", "--timeout", "1ms")
	for until := time.Now().Add(30 * time.Second); s.api.Made() < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("no token was made:\n%s", &r.lines)
		}
	}
	r.signal(syscall.SIGTERM)
	m.wait(1, "STOPPING=1")
	m.wait(1, "STATUS=stopping: finishing bot")
	before, _ := m.has("EXTEND_TIMEOUT_USEC=")
	m.wait(before+1, "EXTEND_TIMEOUT_USEC=15000000")
	if err := os.Remove(closed); err != nil {
		t.Fatal(err)
	}
	r.end(exitOK)
	if token := s.token("BOT_TOKEN"); !s.accepted(token) || s.api.Made() != 2 {
		t.Errorf("the last token did not reach its sinks:\n%s", &r.lines)
	}
}

// READY waits for nobody that the daemon depends on.
// TestStatusArrivesInOrder lets two lines come at the same time: a line that was overtaken would stay
// for good, since the one that overtook it is not told again.
func TestStatusArrivesInOrder(t *testing.T) {
	var told []string
	begun, overtaken := make(chan struct{}), make(chan struct{})
	s := &supervisor{}
	s.tell = func(state string) error {
		if state == "STATUS=first" {
			close(begun)
			select {
			case <-overtaken:
			case <-time.After(100 * time.Millisecond):
			}
		} else {
			defer close(overtaken)
		}
		told = append(told, state)
		return nil
	}
	var both sync.WaitGroup
	both.Go(func() { s.describe("first") })
	<-begun
	both.Go(func() { s.describe("second") })
	both.Wait()
	if want := []string{"STATUS=first", "STATUS=second"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func TestReadyWithoutSiteGPT(t *testing.T) {
	t.Parallel()
	s := newStage(t, oneToken)
	s.api.Inject(sandbox.Fault{Kind: sandbox.Hang})
	m := newManager(t)
	r := s.background("NOTIFY_SOCKET=" + m.path)
	m.wait(1, "READY=1")
	m.wait(1, "STATUS=0 tokens current, 1 not made yet")
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
}

func TestServiceManagerIsToldWhyNot(t *testing.T) {
	t.Parallel()
	s := newStage(t, "version: 2\n")
	m := newManager(t)
	s.background("NOTIFY_SOCKET=" + m.path).end(exitUsage)
	m.wait(1, "STATUS=not started: ")
	if n, _ := m.has("READY=1"); n > 0 {
		t.Error("it called itself ready")
	}
}

// A loop whose looks fail does not answer the watchdog, though it goes round.
func TestWatchdogOfALoopThatDoesNotMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		log := slog.New(slog.DiscardHandler)
		s := &service{
			house:   &house{a: &app{environment: environment{now: time.Now}}, log: log}, // without an engine, each look panics
			manager: &supervisor{tell: func(state string) error { told = append(told, state); return nil }},
			pulse:   monitor.NewPulse(time.Now),
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		schedule.Every(ctx, lookEvery, log, func(ctx context.Context) { s.beat(ctx, ctx) })
		if len(told) > 0 {
			t.Errorf("it was told %q", told)
		}
		if err := s.health().Live(); err == nil {
			t.Error("a probe is told that all is well")
		}
	})
}

func TestSummary(t *testing.T) {
	monday := time.Date(2026, 11, 30, 1, 0, 0, 0, time.Local)
	token := func(name, state string, planned time.Time) rotator.TokenStatus {
		return rotator.TokenStatus{Name: name, State: state, Planned: planned}
	}
	for _, tc := range []struct {
		want string
		rep  rotator.Report
	}{
		{"0 tokens current", rotator.Report{}},
		{"2 tokens current, next: kb-writer Mon 03:00, 1 sink failing", rotator.Report{
			Tokens:   []rotator.TokenStatus{token("bot", "failing", monday.Add(5*time.Hour)), token("kb-writer", "current", monday.Add(2*time.Hour))},
			Problems: []rotator.Problem{{Kind: rotator.ProblemSink, Token: "bot", Sink: "a file", Failing: true}},
		}},
		{"1 token current, 1 rotating, 1 not made yet, next: far 20 Dec 01:00, 1 token failing, 1 sink held for a person, 1 token no longer declared", rotator.Report{
			Tokens: []rotator.TokenStatus{
				token("far", "held", monday.AddDate(0, 0, 20)), token("a", "rotating", time.Time{}), token("b", "none", time.Time{}),
				token("c", "failing", time.Time{}), token("d", "unmanaged", time.Time{}),
			},
			Problems: []rotator.Problem{
				{Kind: rotator.ProblemCreate, Token: "c", Failing: true},
				{Kind: rotator.ProblemNoToken, Token: "c", Failing: true},
				{Kind: rotator.ProblemHeldSink, Token: "far", Sink: "s"},
			},
		}},
	} {
		if got := summary(tc.rep, monday); got != tc.want {
			t.Errorf("it says %q, want %q", got, tc.want)
		}
	}
}
