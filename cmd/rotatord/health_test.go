//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
	"github.com/rotatord/rotatord/rotator/store"
)

var probesAt = regexp.MustCompile(`"answering probes","at":"([^"]+)"`)

// probe asks a daemon as the kubelet does.
func (r *running) probe(path string) (int, string) {
	r.t.Helper()
	r.lines.wait(r.t, "answering probes")
	res, err := http.Get("http://" + probesAt.FindStringSubmatch(r.lines.String())[1] + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(body))
}

// freeze stops every thread of a daemon, and returns when that is so: signals take their time.
func (r *running) freeze() {
	r.t.Helper()
	r.signal(syscall.SIGSTOP)
	until(r.t, "every thread stands still", func() bool {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.Process.Pid))
		for _, name := range stats {
			text, _ := os.ReadFile(name)
			if _, state, _ := strings.Cut(string(text), ") "); !strings.HasPrefix(state, "T") {
				return false
			}
		}
		return err == nil && len(stats) > 0
	})
}

func TestProbesOfADaemon(t *testing.T) {
	t.Parallel()
	s := newStage(t, oneToken)
	s.api.Inject(sandbox.Fault{Kind: sandbox.Hang}) // live, but not ready while it waits for its first answer
	r := s.background("ROTATORD_LISTEN=127.0.0.1:0")
	if status, body := r.probe("/healthz"); status != http.StatusOK || body != "ok" {
		t.Errorf("/healthz: %d %q", status, body)
	}
	if status, body := r.probe("/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "first pass") {
		t.Errorf("/readyz: %d %q", status, body)
	}
	says(t, s.run(exitOK, "health"), "ok: pid ")
	s.run(exitFailed, "health", "--ready")
	says(t, s.stderr, "first pass over the tokens is not over yet")
	s.api.Clear()
	until(t, "it is ready", func() bool { status, _ := r.probe("/readyz"); return status == http.StatusOK })
	s.run(exitOK, "health", "--ready")

	// A daemon that hangs still accepts connections.
	r.freeze()
	s.run(exitFailed, "health")
	says(t, s.stderr, "the daemon, pid ", "127.0.0.1:")
	r.signal(syscall.SIGCONT)
	s.run(exitOK, "health")

	s.background("ROTATORD_LISTEN=127.0.0.1:0").end(exitHeld)
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
	s.run(exitFailed, "health")
	says(t, s.stderr, "no daemon works on ")
}

func TestHealthWithoutAPort(t *testing.T) {
	t.Parallel()
	s := newStage(t, oneToken)
	m := newManager(t)
	r := s.background("NOTIFY_SOCKET=" + m.path)
	m.wait(1, "READY=1")
	until(t, "it is ready", func() bool {
		var out struct {
			OK     bool
			Daemon store.Holder
		}
		if err := json.Unmarshal([]byte(s.run(exitOK, "health", "--json")), &out); err != nil {
			t.Fatal(err)
		}
		return out.OK && !out.Daemon.Ready.IsZero()
	})
	s.run(exitOK, "health", "--ready")

	r.freeze()
	long := time.Now().Add(-2 * time.Minute)
	if err := os.Chtimes(filepath.Join(s.dir, "state", store.LockFile), long, long); err != nil {
		t.Fatal(err)
	}
	s.run(exitFailed, "health")
	says(t, s.stderr, "the daemon, pid ", "its control loop has not moved for 2m")
	says(t, s.run(exitFailed, "status", "--check"), "It hangs: its control loop has not moved for 2m", "restart it")
	r.signal(syscall.SIGCONT)
	until(t, "the loop moves again", func() bool {
		moved, err := store.Moved(filepath.Join(s.dir, "state"))
		return err == nil && moved.After(long)
	})
	s.run(exitOK, "health")
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
}

func TestPortOfProbesIsTaken(t *testing.T) {
	t.Parallel()
	s := newStage(t, oneToken)
	r := s.background("ROTATORD_LISTEN=" + strings.TrimPrefix(s.url, "http://"))
	r.end(exitFailed)
	says(t, r.lines.String(), "answer probes (ROTATORD_LISTEN, monitor.listen)", "address already in use")
	r = s.background("ROTATORD_LISTEN=9090")
	r.end(exitUsage)
	says(t, r.lines.String(), `"9090" is no address to listen on: write it like 127.0.0.1:9090`)
}
