package rotator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// daily ticks at midnight UTC.
type every time.Duration

func (d every) Next(after time.Time) time.Time {
	n := after.UTC().UnixNano()/int64(d) + 1
	return time.Unix(0, n*int64(d)).UTC()
}

func (d every) Last(at time.Time) time.Time {
	return time.Unix(0, at.UTC().UnixNano()/int64(d)*int64(d)).UTC()
}
func (d every) String() string { return "@every " + time.Duration(d).String() }

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func entry(t testing.TB, w *simulate.World, name string, outlets ...rotator.Outlet) rotator.Entry {
	t.Helper()
	e := rotator.Entry{
		Name: name, Scopes: []string{"chatbots:read", "knowledge:read"}, Outlets: outlets,
		Timing: rotator.Timing{Schedule: every(24 * time.Hour), Overlap: 8 * time.Hour, Margin: 2 * time.Hour, Jitter: 5 * time.Minute},
	}
	return prepared(t, e)
}

func prepared(t testing.TB, e rotator.Entry) rotator.Entry {
	t.Helper()
	facts, problems := e.Timing.Check(start)
	for _, p := range problems {
		if !p.Warning {
			t.Fatalf("timing: %s: %s", p.Field, p.Text)
		}
	}
	e.Facts, e.Timing.Margin = facts, facts.Margin
	return e
}

func run(t testing.TB, p *simulate.Process, until time.Time) {
	t.Helper()
	if err := p.Run(until); err != nil {
		t.Fatal(err)
	}
}

func begin(t testing.TB, w *simulate.World, entries ...rotator.Entry) *simulate.Process {
	t.Helper()
	p, err := w.Start(entries...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func live(w *simulate.World) (out []simulate.Token) {
	for _, t := range w.API.Tokens() {
		if t.Live(w.Now()) {
			out = append(out, t)
		}
	}
	return out
}

func TestWeekOfRotations(t *testing.T) {
	w := simulate.New(start)
	a, b := w.Outlet("a", true, false), w.Outlet("b", true, true)
	p := begin(t, w, entry(t, w, "bot", a, b))
	run(t, p, start.Add(7*24*time.Hour))
	if got := w.API.Creates; got != 8 {
		t.Errorf("creates in a week = %d, want the first and seven ticks", got)
	}
	for name, s := range w.Sinks {
		if !w.API.Accepts(s.Value()) {
			t.Errorf("%s holds a dead token", name)
		}
	}
	if n := len(live(w)); n != 2 { // at ten o'clock the predecessor has five more minutes
		t.Errorf("live tokens = %d, want the current one and its predecessor", n)
	}
	for _, tok := range w.API.Tokens() {
		if len(tok.Name) > rotator.MaxLabel {
			t.Errorf("label is %d long", len(tok.Name))
		}
	}
}

// Our own token is a risk for all others while it rotates: it comes last, unless it would not outlive
// the queue before it.
func TestOwnTokenGoesLastUnlessTheQueueIsLong(t *testing.T) {
	for each, want := range map[time.Duration]string{
		time.Second:   "[b c management]",
		5 * time.Hour: "[management b c]",
	} {
		w := simulate.New(start)
		w.Each = each
		var entries []rotator.Entry
		for _, name := range []string{"b", "c", rotator.OwnName} {
			e := entry(t, w, name, w.Outlet(name, true, false))
			e.Timing.Jitter = 0
			entries = append(entries, prepared(t, e))
		}
		p := begin(t, w, entries...)
		run(t, p, start.Add(24*time.Hour))
		var order []string
		for _, ev := range w.Store.Events(rotator.EventCreated) {
			if ev.Generation == 2 {
				order = append(order, ev.Entry)
			}
		}
		if got := fmt.Sprint(order); got != want {
			t.Errorf("with %s for each: %s, want %s", each, got, want)
		}
	}
}

// A wish that is left at any moment of a look is heard, also when the look has just decided that
// there is nothing to do.
func TestWishIsHeardWheneverItComes(t *testing.T) {
	for k := 1; ; k++ {
		w := simulate.New(start)
		var engine *rotator.Engine
		ctx := t.Context()
		calls, armed := 0, false
		var nested sync.WaitGroup
		engine = rotator.New(rotator.Config{
			API: w.API, Store: w.Store, Key: []byte("key of the instance"), Instance: "test", Workers: 1,
			Now: func() time.Time {
				if armed {
					if calls++; calls == k {
						armed = false
						w.Store.Wishes = []rotator.Ask{{Entry: "bot", Than: 1, By: "me", At: w.Now()}}
						heard := make(chan struct{})
						nested.Go(func() { engine.Look(ctx, ctx); close(heard) })
						select {
						case <-heard:
						case <-time.After(20 * time.Millisecond): // who asks for the time holds a lock that the look needs
						}
					}
				}
				return w.Now()
			},
		})
		if err := engine.Load(ctx, []rotator.Entry{entry(t, w, "bot", w.Outlet("a", true, false))}); err != nil {
			t.Fatal(err)
		}
		look := func() {
			for range 4 {
				engine.Look(ctx, ctx)
				nested.Wait()
				engine.Wait()
			}
		}
		look()
		w.Set(start.Add(20 * time.Minute)) // only the sink is read back
		armed = true
		look()
		if armed {
			if k < 8 {
				t.Errorf("the time was asked for %d times only", calls)
			}
			return
		}
		if w.API.Creates != 2 {
			t.Errorf("a wish that came with question %d for the time was not heard: %d creates", k, w.API.Creates)
		}
	}
}

// A save that the end of the process cut off is no failure, and none that a person should read of; one
// that the disk refused is.
func TestWhoIsToStopDoesNotComplain(t *testing.T) {
	for _, stops := range []bool{true, false} {
		w := simulate.New(start)
		var mu sync.Mutex
		var warned []string
		var armed atomic.Bool // Now is asked by the worker and by who looks
		soft, stop := context.WithCancel(t.Context())
		e := rotator.New(rotator.Config{
			API: w.API, Store: w.Store, Key: []byte("key"), Instance: "sim", Local: w.Local, Measured: w.Measured, Workers: 1,
			Now: func() time.Time {
				if armed.Load() {
					stop()
				}
				return w.Corrected()
			},
			Warn: func(msg string, err error) {
				mu.Lock()
				defer mu.Unlock()
				warned = append(warned, msg+": "+err.Error())
			},
		})
		if err := e.Load(t.Context(), []rotator.Entry{entry(t, w, "bot", w.Outlet("a", true, false))}); err != nil {
			t.Fatal(err)
		}
		e.Look(t.Context(), t.Context())
		e.Wait()
		w.Set(w.Now().Add(hour)) // the sink is read back
		w.Outage(func(what string) error {
			switch {
			case strings.HasPrefix(what, "read "):
				armed.Store(stops) // what is to be saved of it comes too late
				return errors.New("sealed")
			case what == "save" && !stops:
				return errors.New("no space left on device")
			}
			return nil
		})
		e.Look(soft, t.Context())
		e.Wait()
		stop()
		if got := len(warned); stops && got != 0 || !stops && got != 1 {
			t.Errorf("stopping is %v: it complains of %q", stops, warned)
		}
	}
}
