package rotator_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// sealed makes everything that sinks named vault… are asked an outage, between the two instants.
func sealed(w *simulate.World, from, until time.Time, calls *atomic.Int64) func(string) error {
	return func(what string) error {
		if !strings.Contains(what, "memory:vault") || w.Now().Before(from) || !w.Now().Before(until) {
			return nil
		}
		calls.Add(1)
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
			var calls atomic.Int64
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
			if most := entries*(4*4+4*4) + 4*3600/15 + 100; int(calls.Load()) > most {
				t.Errorf("%d calls to what is sealed, want at most %d", calls.Load(), most)
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
	var calls atomic.Int64
	until := start.Add(16 * hour)
	out := sealed(w, start, until, &calls)
	made := w.API.Creates
	w.Outage(func(what string) error {
		if w.API.Creates > made {
			return out(what)
		}
		return nil
	})
	run(t, p, until.Add(time.Minute))
	if w.API.Creates != made+1 || calls.Load() == 0 {
		t.Errorf("%d creates, %d calls to what is sealed", w.API.Creates-made, calls.Load())
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
	var calls atomic.Int64
	pushes := 0
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

// A sink that could not be read is no problem any more once a push was read back: nobody waits for
// the next reading, which is a quarter of an hour away.
func TestAPushIsAReading(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	p := begin(t, w, e)
	run(t, p, start.Add(time.Minute))
	unread := func() (n int) {
		entries, records := p.Engine().Snapshot()
		for _, problem := range rotator.Describe(entries, records, w.Now()).Problems {
			if problem.Kind == rotator.ProblemUnread && problem.Outage == "vault" {
				n++
			}
		}
		return n
	}
	w.Outage(func(what string) error {
		if strings.HasPrefix(what, "read") {
			return fmt.Errorf("read: %w", &rotator.OutageError{What: "vault", Err: errors.New("it is sealed")})
		}
		return nil
	})
	run(t, p, start.Add(40*time.Minute))
	if unread() != 1 {
		t.Fatal("it can be read, or does not say what is out")
	}
	w.Outage(nil)
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: 1, By: "me", At: w.Now()})
	run(t, p, w.Now().Add(20*time.Second))
	if last := w.Store.Record("bot").Last; last != 2 {
		t.Fatalf("generation %d", last)
	}
	if unread() != 0 {
		t.Error("it was read back, and is said to be unreadable")
	}
}

// Whoever is left with a dead token waits no longer than a minute once what failed works again, however
// often it has failed meanwhile; and one who never had a token does not crowd out others.
func TestWhoHasNoTokenWaitsAMinute(t *testing.T) {
	for name, broken := range map[string]func(string) bool{
		"the sink": func(what string) bool { return strings.HasSuffix(what, " memory:a") },
		"SiteGPT":  func(what string) bool { return what == "create" || what == "list" || what == "verify" },
	} {
		t.Run(name, func(t *testing.T) {
			w := simulate.New(start)
			p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
			run(t, p, start.Add(time.Minute))
			w.Outage(func(what string) error {
				if broken(what) {
					return errors.New("simulated")
				}
				return nil
			})
			dead := w.Store.Record("bot").Current(w.Now()).Expires.Add(3 * hour)
			run(t, p, dead)
			if w.API.Accepts(w.Sinks["memory:a"].Value()) {
				t.Fatal("it lives")
			}
			w.Outage(nil)
			run(t, p, dead.Add(70*time.Second))
			if !w.API.Accepts(w.Sinks["memory:a"].Value()) {
				t.Errorf("no token yet; next try %s", w.Store.Record("bot").Create.At.Sub(dead))
			}
		})
	}
	w := simulate.New(start)
	w.Outage(func(what string) error {
		if what == "create" {
			return errors.New("simulated")
		}
		return nil
	})
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
	run(t, p, start.Add(24*hour))
	if n := len(w.Store.Events(rotator.EventFailed)) + len(w.Store.Events(rotator.EventUnknown)); n < 90 || n > 250 {
		t.Errorf("%d tries in a day", n)
	}
}
