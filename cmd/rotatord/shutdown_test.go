//go:build linux

package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

// A server that answers for ever, a byte now and then, holds up no shutdown, whatever it was asked;
// and what was asked is sorted out at the next start.
func TestSlowServerHoldsUpNoShutdown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		op     sandbox.Op
		passed int // requests that are answered before
	}{
		{sandbox.OpList, 0},
		{sandbox.OpCreate, 0},
		{sandbox.OpMe, 1}, // about the management token
		{sandbox.OpRevoke, 0},
	} {
		t.Run(string(c.op), func(t *testing.T) {
			t.Parallel()
			config := strings.Split(killed, "  - name: b")[0]
			s := newStage(t, strings.Replace(config, "60000}", "60000, timeout: 2s}", 1))
			s.execute(exitOK, "once")
			old := s.token("A")
			before := s.api.Count(c.op)
			s.api.Inject(sandbox.Fault{Op: c.op, Kind: sandbox.Slow, Delay: time.Hour, After: c.passed})
			r := s.background()
			r.lines.wait(t, "started")
			// Nobody waits for the wish: it is in the state when the command ends.
			cmd, output := s.process(nil, "rotate", "a", "--compromised", "--timeout", "10ms")
			if code := ended(t, cmd.Run()); code == exitUsage {
				t.Fatalf("rotate: %s", output)
			}
			until(t, "the request is under way", func() bool { return s.api.Count(c.op) > before+c.passed })
			r.signal(syscall.SIGTERM)
			late := time.AfterFunc(30*time.Second, func() { r.Process.Kill() }) // half of the grace
			r.end(exitOK)
			late.Stop()
			s.api.Clear()
			out := s.execute(exitOK, "once")
			now := s.token("A")
			if now == old || now != held(filepath.Join(s.dir, "other.env"), "A") || !s.accepted(now) || s.accepted(old) {
				t.Errorf("the wish was not fulfilled afterwards:\n%s\n%s", &r.lines, out)
			}
			if n := len(s.api.Live()); n != 1 {
				t.Errorf("%d tokens live, want 1", n)
			}
			s.accounted(1)
			s.clean()
		})
	}
}
