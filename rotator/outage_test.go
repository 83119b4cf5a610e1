package rotator_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// sealed makes everything that sinks named vault… are asked an outage, between the two instants.
func sealed(w *simulate.World, from, until time.Time, calls *int) func(string) error {
	return func(what string) error {
		if !strings.Contains(what, "memory:vault") || w.Now().Before(from) || !w.Now().Before(until) {
			return nil
		}
		*calls++
		return fmt.Errorf("%s: %w", what, &rotator.OutageError{What: "vault", Err: errors.New("it is sealed")})
	}
}

// A Vault that is sealed for hours makes no create, and no storm; a minute after it is unsealed every
// sink holds its token. A restart in between changes nothing.
func TestAnOutageOfManySinks(t *testing.T) {
	const entries = 40
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			w := simulate.New(start)
			var all []rotator.Entry
			for i := range entries {
				all = append(all, entry(t, w, fmt.Sprintf("bot-%02d", i), w.Outlet(fmt.Sprintf("vault-%02d", i), true, false)))
			}
			p := begin(t, w, all...)
			run(t, p, start.Add(hour))
			creates := w.API.Creates
			calls := 0
			// Every token is due at midnight, and has ten hours left then.
			from, until := start.Add(13*hour), start.Add(17*hour)
			w.Outage(sealed(w, from, until, &calls))
			run(t, p, start.Add(16*hour))
			if restart {
				p = begin(t, w, all...)
			}
			run(t, p, until.Add(-time.Second))
			if n := w.API.Creates - creates; n != 0 {
				t.Errorf("%d creates while it was sealed", n)
			}
			failed := 0
			for _, ev := range w.Store.Events(rotator.EventFailed) {
				if failed++; ev.Outage != "vault" {
					t.Errorf("%+v does not say what is out", ev)
				}
			}
			// Two hours of thirty minutes and less each, the readings back, and the questions of the engine.
			if most := entries * 15; failed > most {
				t.Errorf("%d failures were recorded, want at most %d", failed, most)
			}
			if most := entries*(4*4+4*4) + 4*3600/15 + 100; calls > most {
				t.Errorf("%d calls to what is sealed, want at most %d", calls, most)
			}
			out := p.Engine().Outages()
			if len(out) != 1 || out[0].What != "vault" || out[0].Error != "it is sealed" || len(out[0].Waiting) != entries || out[0].Breaks.IsZero() {
				t.Errorf("outages: %+v", out)
			}
			run(t, p, until.Add(time.Minute))
			for _, e := range all {
				r := w.Store.Record(e.Name)
				if r.Last != 2 || r.Generations[0].Converged.IsZero() {
					t.Errorf("%s stands at generation %d a minute after the end", e.Name, r.Last)
				}
			}
			if out := p.Engine().Outages(); len(out) != 0 {
				t.Errorf("outages after the end: %+v", out)
			}
			if n := w.API.Creates - creates; n != entries {
				t.Errorf("%d creates after the end, want %d", n, entries)
			}
		})
	}
}

// An outage between the create and the push costs no second token: the plaintext waits in memory.
func TestAnOutageInTheMiddleOfARotation(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("vault", true, false))
	p := begin(t, w, e)
	run(t, p, start.Add(hour))
	calls, until := 0, start.Add(16*hour)
	out := sealed(w, start, until, &calls)
	made := w.API.Creates
	w.Outage(func(what string) error {
		if w.API.Creates > made {
			return out(what)
		}
		return nil
	})
	run(t, p, until.Add(time.Minute))
	if w.API.Creates != made+1 || calls == 0 {
		t.Errorf("%d creates, %d calls to what is sealed", w.API.Creates-made, calls)
	}
	holds(t, w, "vault", "sgpt_2")
	if !w.API.Accepts("sgpt_2") {
		t.Error("it holds a dead token")
	}
}

// Checks work and pushes do not: what looks like the end of the outage is none, and the tries become
// rarer, not a storm.
func TestAnOutageThatComesBack(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, entry(t, w, "bot", w.Outlet("vault", true, false)))
	run(t, p, start.Add(hour))
	calls, pushes := 0, 0
	out := sealed(w, start, start.Add(24*hour), &calls)
	w.Outage(func(what string) error {
		if strings.HasPrefix(what, "push") {
			pushes++
			return out(what)
		}
		return nil
	})
	w.Sinks["memory:vault"].Set("sgpt_1")
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: 1, By: "me", At: w.Now()})
	run(t, p, start.Add(4*hour))
	if pushes < 3 || pushes > 60 {
		t.Errorf("%d pushes in three hours", pushes)
	}
	w.Outage(nil)
	run(t, p, start.Add(5*hour))
	holds(t, w, "vault", "sgpt_2")
}
