package vaultkv

import (
	"sync"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// gate lets nobody wait for a Vault that hangs: after a request that went unanswered for long, one
// request at a time finds out whether it answers again, and all others fail at once. Else a
// thousand sinks would each wait for their whole timeout, and hold up the sinks of others.
type gate struct {
	mu      sync.Mutex
	closed  error     // nil: open
	again   time.Time // when one may try
	waiting time.Duration
}

const (
	hangs     = 2 * time.Second // an error that took longer to come closes the gate
	gateEvery = 10 * time.Second
)

// enter returns an error where a request would only wait.
func (g *gate) enter(now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		return nil
	}
	if now.Before(g.again) {
		return g.closed
	}
	g.again = now.Add(g.waiting + gateEvery) // this one finds out
	return nil
}

func (g *gate) answered() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = nil
}

// silent notes a request that got no answer.
func (g *gate) silent(begun, now time.Time, name string, err error) {
	took := now.Sub(begun)
	if took < hangs {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed, g.again, g.waiting = &rotator.OutageError{What: name, Err: hanging{name, err}}, now.Add(gateEvery), took
}

// hanging says that a request was not sent, since another one was not answered.
type hanging struct {
	name string
	err  error
}

func (h hanging) Error() string {
	return h.name + " does not answer, and is asked again soon: " + h.err.Error()
}

func (h hanging) Unwrap() error { return h.err }
