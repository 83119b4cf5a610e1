// Package monitor lets a daemon be looked at from outside. Probes ask how it is: /healthz says whether
// it lives, and /readyz whether it has begun to do its work; both say why in their body. People see
// every token on one page, programs the same facts in JSON, and Prometheus in metrics.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// Pulse notes when a loop last moved. It goes by the monotonic clock: a step of the wall clock
// makes nobody sick, and neither does a suspended machine.
type Pulse struct {
	now  func() time.Time
	last atomic.Pointer[time.Time]
}

// NewPulse returns a pulse that has just moved.
func NewPulse(now func() time.Time) *Pulse {
	p := &Pulse{now: now}
	p.Beat()
	return p
}

// Beat notes that the loop moved.
func (p *Pulse) Beat() {
	now := p.now()
	p.last.Store(&now)
}

// Moved returns when the loop last moved, and how long ago that is.
func (p *Pulse) Moved() (at time.Time, ago time.Duration) {
	at = *p.last.Load()
	return at, max(0, p.now().Sub(at))
}

// Within returns an error when the loop has not moved for longer than bound.
func (p *Pulse) Within(bound time.Duration) error {
	if still := p.now().Sub(*p.last.Load()); still > bound {
		return fmt.Errorf("the control loop has not moved for %s", still.Round(time.Second))
	}
	return nil
}

// Health is what probes ask about. nil: all is well; what is said beside it is for people.
type Health struct {
	Live  func() error
	Ready func() (note string, err error)
}

// Site is what a daemon shows of itself. Probes are for everybody; whoever may see the rest is said by
// Access, which is asked each time.
type Site struct {
	Health  Health
	Metrics http.Handler                          // nil: there are none
	Facts   func(context.Context) (*Facts, error) // the page, and /api/status.json; nil: there is neither
	Access  func() Access                         // nil: nobody may see the rest
}

// Handler answers probes with 200 and "ok", or 503 and the reason, and shows the rest to who may see it.
func Handler(s Site) http.Handler {
	h := s.Health
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, "", h.Live())
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		note, err := h.Ready()
		answer(w, note, errors.Join(h.Live(), err))
	})
	rest := http.NewServeMux()
	if s.Metrics != nil {
		rest.Handle("GET /metrics", s.Metrics)
	}
	if s.Facts != nil {
		p := newPage(s.Facts)
		rest.HandleFunc("GET /{$}", p.document)
		rest.HandleFunc("GET /api/status.json", p.status)
	}
	access := s.Access
	if access == nil {
		access = func() Access { return Access{} }
	}
	mux.Handle("/", guard(access, rest))
	return mux
}

func answer(w http.ResponseWriter, note string, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, err)
		return
	}
	if note != "" {
		note = ": " + note
	}
	fmt.Fprintf(w, "ok%s\n", note)
}

// Serve answers on l until ctx ends. Whoever is slow, or stays silent, is cut off.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	const patience = 10 * time.Second
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { s.Close() }) //nolint:errcheck // probes need no farewell
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Ask asks the daemon that listens on addr, as /healthz or /readyz; the error is its reason.
func Ask(ctx context.Context, addr, path string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("ask %s: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() { // listens everywhere: here, too
		host = "localhost"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", addr, err)
	}
	transport := &http.Transport{} // no proxy stands between us and ourselves
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", addr, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	switch {
	case err != nil:
		return fmt.Errorf("ask %s: %w", addr, err)
	case res.StatusCode == http.StatusServiceUnavailable:
		return errors.New(strings.TrimSpace(string(body)))
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("ask %s: it answers %s: is it rotatord?", addr, res.Status)
	}
	return nil
}
