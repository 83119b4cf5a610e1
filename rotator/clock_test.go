package rotator_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

const day = 24 * hour

// longLived is an entry whose old generations are revoked, not left to expire.
func longLived(t testing.TB, w *simulate.World, name string, lifetime time.Duration, outlets ...rotator.Outlet) rotator.Entry {
	e := entry(t, w, name, outlets...)
	e.Timing.Margin, e.Timing.Lifetime = 0, lifetime
	return prepared(t, e)
}

// guarded has a witness look after every call: what a sink holds is accepted, and nothing is
// revoked before its overlap has passed.
func guarded(t testing.TB, w *simulate.World, overlap time.Duration) {
	held, left := map[string]string{}, map[string]time.Time{}
	var mu sync.Mutex
	w.Watch(func(w *simulate.World, what string) {
		mu.Lock()
		defer mu.Unlock()
		for place, s := range w.Sinks {
			v := s.Value()
			if old := held[place]; old != "" && old != v {
				left[old] = w.Now()
			}
			held[place] = v
			if v != "" && !w.API.Accepts(v) {
				t.Errorf("%s: after %s: %s holds a dead token", w.Now().Format(time.RFC3339), what, place)
			}
		}
		for _, tok := range w.API.Tokens() {
			if at, ok := left[tok.Plaintext]; ok && !tok.Revoked.IsZero() && tok.Revoked.Before(at.Add(overlap)) {
				t.Errorf("%s: after %s: %s was revoked %s after a sink stopped holding it", w.Now().Format(time.RFC3339), what, tok.ID, tok.Revoked.Sub(at))
				delete(left, tok.Plaintext)
			}
		}
	})
}

// A machine's clock steps, at any moment of a rotation, by hours or years, with SiteGPT reachable
// or not, while the daemon runs or between two of its lives; later it is set right again.
func TestClockSteps(t *testing.T) {
	steps := []time.Duration{3 * hour, -3 * hour, 26 * hour, -26 * hour, 400 * day, -400 * day, 30 * 365 * day, -30 * 365 * day}
	moments := map[string]time.Duration{
		"before the first":    0,
		"idle":                5 * hour,
		"just before a tick":  14*hour - time.Minute,
		"during a rotation":   14*hour + 10*time.Second,
		"during the overlap":  16 * hour,
		"before a revocation": 22*hour - time.Minute,
	}
	for name, moment := range moments {
		for _, step := range steps {
			for _, apart := range []bool{false, true} { // the API cannot be reached for the first hours
				for _, restart := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s/apart=%v/restart=%v", name, step, apart, restart), func(t *testing.T) {
						t.Parallel()
						w := simulate.New(start)
						w.LookEvery = hour
						guarded(t, w, 8*hour)
						e := longLived(t, w, "bot", 60*hour, w.Outlet("a", true, false), w.Outlet("b", true, true))
						p := begin(t, w, e)
						if moment > 0 {
							run(t, p, start.Add(moment))
						}
						w.Step(step)
						if apart {
							w.Outage(down("create", "list", "verify", "revoke"))
						}
						if restart {
							p = begin(t, w, e)
						}
						run(t, p, start.Add(moment+3*hour))
						w.Outage(nil)
						run(t, p, start.Add(moment+6*hour))
						w.Step(-step)
						run(t, p, start.Add(10*day))
						if restart {
							p = begin(t, w, e)
						}
						run(t, p, start.Add(10*day+hour))

						// 10 days hold the first and ten ticks.
						if got := w.API.Creates; got < 10 || got > 12 {
							t.Errorf("creates in ten days = %d, want the first and ten ticks", got)
						}
						rec := w.Store.Record("bot")
						known := map[string]bool{}
						for _, g := range rec.Generations {
							known[g.ID] = true
						}
						for _, tok := range live(w) {
							if !known[tok.ID] {
								t.Errorf("%s is an orphan", tok.ID)
							}
						}
						if n := len(live(w)); n > 2 {
							t.Errorf("live tokens in the end: %d", n)
						}
						if n := len(w.Store.Events(rotator.EventOrphan)); n > 0 {
							t.Errorf("a token of ours was taken for an orphan: %v", w.Store.Events(rotator.EventOrphan))
						}
						if t.Failed() {
							for _, line := range w.Trace() {
								t.Log(line)
							}
							for _, ev := range w.Store.Journal {
								t.Logf("%+v", ev)
							}
						}
					})
				}
			}
		}
	}
}

// While nobody bears the clock out, nothing is created, revoked or forgotten; sinks are healed.
func TestNothingIsDoneByAClockThatNobodyBearsOut(t *testing.T) {
	w := simulate.New(start)
	e := longLived(t, w, "bot", 60*hour, w.Outlet("a", true, false), w.Outlet("b", true, false))
	p := begin(t, w, e)
	run(t, p, start.Add(16*hour)) // two generations
	w.Outage(down("create", "list", "verify", "revoke"))
	w.Step(5 * 365 * day) // all of them expired long ago, says this machine
	p = begin(t, w, e)
	run(t, p, start.Add(17*hour))
	rec := w.Store.Record("bot")
	if len(rec.Generations) != 2 {
		t.Errorf("generations = %d, want both: what is forgotten and lives becomes an orphan", len(rec.Generations))
	}
	rep := rotator.Describe([]rotator.Entry{e}, []rotator.Record{*rec}, w.Corrected())
	if len(rep.Problems) == 0 || rep.Problems[0].Kind != rotator.ProblemCreate {
		t.Errorf("problems = %+v, want why nothing is created", rep.Problems)
	}
	w.Outage(nil)
	w.Step(-5 * 365 * day)
	run(t, p, start.Add(18*hour))
	if w.API.Creates != 2 {
		t.Errorf("creates = %d, want 2", w.API.Creates)
	}
	if rep := rotator.Describe([]rotator.Entry{e}, []rotator.Record{*w.Store.Record("bot")}, w.Now()); len(rep.Problems) > 0 {
		t.Errorf("problems that stay: %+v", rep.Problems)
	}
}

// A machine that slept gives the users of an old token, who slept too, their overlap again.
func TestSleepPostponesRevocations(t *testing.T) {
	for _, removed := range []bool{false, true} {
		t.Run(fmt.Sprintf("removed=%v", removed), func(t *testing.T) {
			w := simulate.New(start)
			w.LookEvery = 10 * time.Minute
			e := longLived(t, w, "bot", 20*day, w.Outlet("a", true, false))
			e.OnRemove = rotator.RemoveRevoke
			p := begin(t, w, e)
			if removed {
				run(t, p, start.Add(14*hour))
				if err := p.Load(entry(t, w, "other", w.Outlet("o", true, false))); err != nil {
					t.Fatal(err)
				}
				w.Sinks["memory:a"].Set("")
			}
			run(t, p, start.Add(15*hour)) // the successor came at midnight, an hour ago
			accepted(t, w, "sgpt_1", true)
			woken := start.Add(4 * day)
			p.Sleep(woken)
			run(t, p, woken.Add(8*hour-time.Minute))
			accepted(t, w, "sgpt_1", true)
			run(t, p, woken.Add(9*hour))
			accepted(t, w, "sgpt_1", false)
		})
	}
}

// A nap of less than a quarter of the overlap, which is two hours, postpones nothing.
func TestOnlyALongNapPostpones(t *testing.T) {
	for nap, postponed := range map[time.Duration]bool{hour + 45*time.Minute: false, 2*hour + 10*time.Minute: true} {
		t.Run(nap.String(), func(t *testing.T) {
			w := simulate.New(start)
			w.LookEvery = 10 * time.Minute
			p := begin(t, w, longLived(t, w, "bot", 20*day, w.Outlet("a", true, false)))
			run(t, p, start.Add(15*hour))
			p.Sleep(start.Add(15*hour + nap))
			run(t, p, start.Add(23*hour))
			accepted(t, w, "sgpt_1", postponed)
			run(t, p, start.Add(26*hour))
			accepted(t, w, "sgpt_1", false)
		})
	}
}

// A promotion that was noted under a clock that was ahead keeps the old token no longer than its
// overlap from the moment at which the clock is right again.
func TestPromotionUnderAClockThatWasAhead(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, longLived(t, w, "bot", 20*day, w.Outlet("a", true, false), w.Outlet("b", true, false)))
	run(t, p, start.Add(13*hour))
	w.Outage(down("push memory:b"))
	run(t, p, start.Add(15*hour)) // b does not take the successor
	w.Outage(down("create", "list", "verify", "revoke"))
	w.Step(5 * day)
	run(t, p, start.Add(16*hour))
	holds(t, w, "b", "sgpt_2")
	if g := w.Store.Record("bot").Generation(2); g.Converged.Before(w.Now().Add(4 * day)) {
		t.Fatalf("converged = %s: this test is about an instant that lies ahead", g.Converged)
	}
	w.Step(-5 * day)
	w.Outage(nil)
	run(t, p, start.Add(23*hour))
	accepted(t, w, "sgpt_1", true)
	run(t, p, start.Add(28*hour))
	accepted(t, w, "sgpt_1", false)
}

// A consumer that could not be told, and a sink that could not be read, under a clock that was weeks
// ahead: the next try is not weeks away once the clock is right, and nothing has been wrong since then.
func TestFailuresUnderAClockThatWasAhead(t *testing.T) {
	w := simulate.New(start)
	e := longLived(t, w, "bot", 20*day, w.Outlet("a", true, false))
	e.Consumers = []rotator.Consumer{{Name: "app", Title: "app"}}
	p := begin(t, w, e)
	run(t, p, start.Add(time.Hour))
	w.Outage(down("read memory:a", "create", "list", "verify", "revoke"))
	w.Step(21 * 24 * time.Hour)
	run(t, p, start.Add(3*time.Hour))
	notice := rotator.Notice{Entry: "bot", Consumer: e.Consumers[0], Generation: 1}
	for range 12 {
		if err := p.Engine().Told(t.Context(), notice, rotator.Told{Err: errors.New("it hangs up")}); err != nil {
			t.Fatal(err)
		}
	}
	state := func() (c rotator.ConsumerState, s rotator.SinkState) {
		r := w.Store.Record("bot")
		return r.Consumers[0], r.Sinks[0]
	}
	weeks := w.Now().Add(20 * 24 * time.Hour)
	if c, s := state(); c.Retry.At.Before(weeks) || s.UnreadSince.Before(weeks) {
		t.Fatalf("this test is about instants that lie ahead: %+v %+v", c, s)
	}
	w.Step(-21 * 24 * time.Hour)
	w.Outage(down("read memory:a"))
	run(t, p, start.Add(4*time.Hour))
	if c, s := state(); c.Retry.At.After(w.Now().Add(time.Hour)) || c.Retry.Since.After(w.Now()) || s.UnreadSince.IsZero() || s.UnreadSince.After(w.Now()) {
		t.Errorf("now is %s: the consumer is told again %s, the sink is unreadable since %s", w.Now(), c.Retry.At, s.UnreadSince)
	}
}

// SiteGPT's own clock may be wrong too: what this machine's clock does not believe to be over is
// not forgotten.
func TestNothingIsForgottenByTheServersClockAlone(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, longLived(t, w, "bot", 20*day, w.Outlet("a", true, false)))
	run(t, p, start.Add(hour))
	w.Outage(down("create"))
	now := w.Now()
	w.Set(now.Add(400 * day))
	w.Step(-400 * day)
	run(t, p, now.Add(400*day+2*hour))
	if w.Store.Record("bot").Generation(1) == nil {
		t.Error("a generation that this machine believes to be alive was forgotten")
	}
	w.Set(now.Add(3 * hour))
	w.Step(400 * day)
	run(t, p, now.Add(5*hour))
	accepted(t, w, "sgpt_1", true)
	if w.API.Creates != 1 {
		t.Errorf("creates = %d, want 1", w.API.Creates)
	}
}
