package monitor_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/rotator/monitor"
)

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := monitor.NewPulse(time.Now)
		time.Sleep(30 * time.Second)
		if err := p.Within(30 * time.Second); err != nil {
			t.Errorf("within its bound: %v", err)
		}
		time.Sleep(15 * time.Second)
		if err := p.Within(30 * time.Second); err == nil || err.Error() != "the control loop has not moved for 45s" {
			t.Errorf("beyond its bound: %v", err)
		}
		p.Beat()
		if err := p.Within(30 * time.Second); err != nil {
			t.Errorf("after a beat: %v", err)
		}
	})
}

// serve returns the address of a served health, and ends it with the test.
func serve(t *testing.T, network, address string, h monitor.Health) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- monitor.Serve(ctx, l, monitor.Handler(monitor.Site{Health: h, Access: func() monitor.Access { return monitor.Access{Local: true} }}), slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestProbes(t *testing.T) {
	var live, ready atomic.Bool
	addr := serve(t, "tcp", "127.0.0.1:0", monitor.Health{
		Live: func() error {
			if !live.Load() {
				return errors.New("it hangs")
			}
			return nil
		},
		Ready: func() (string, error) {
			if !ready.Load() {
				return "", errors.New("not yet")
			}
			return "2 tokens", nil
		},
	})
	get := func(method, path string) (int, string) {
		req, err := http.NewRequest(method, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, strings.TrimSpace(string(body))
	}
	for _, tc := range []struct {
		live, ready bool
		path        string
		status      int
		body        string
	}{
		{true, false, "/healthz", 200, "ok"},
		{true, false, "/readyz", 503, "not yet"},
		{true, true, "/readyz", 200, "ok: 2 tokens"},
		{false, true, "/healthz", 503, "it hangs"},
		{false, true, "/readyz", 503, "it hangs"}, // what hangs does no work
		{true, true, "/elsewhere", 404, "404 page not found"},
	} {
		live.Store(tc.live)
		ready.Store(tc.ready)
		if status, body := get(http.MethodGet, tc.path); status != tc.status || body != tc.body {
			t.Errorf("%s, live %v, ready %v: %d %q, want %d %q", tc.path, tc.live, tc.ready, status, body, tc.status, tc.body)
		}
		err := monitor.Ask(t.Context(), addr, tc.path)
		switch {
		case tc.status == 200 && err != nil:
			t.Errorf("asked for %s: %v", tc.path, err)
		case tc.status == 503 && (err == nil || err.Error() != tc.body):
			t.Errorf("asked for %s: %v, want %s", tc.path, err, tc.body)
		case tc.status == 404 && (err == nil || !strings.Contains(err.Error(), "is it rotatord?")):
			t.Errorf("asked for %s: %v", tc.path, err)
		}
	}
	if status, _ := get(http.MethodPost, "/healthz"); status != http.StatusMethodNotAllowed {
		t.Errorf("a POST answers %d", status)
	}
}

func TestAskWhoListensEverywhere(t *testing.T) {
	well := monitor.Health{Live: func() error { return nil }, Ready: func() (string, error) { return "", nil }}
	_, port, err := net.SplitHostPort(serve(t, "tcp4", "0.0.0.0:0", well))
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{":" + port, "0.0.0.0:" + port, "[::]:" + port} {
		if err := monitor.Ask(t.Context(), addr, "/healthz"); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := monitor.Ask(t.Context(), "nonsense", "/healthz"); err == nil {
		t.Error("an address without a port was asked")
	}
}
