package rotator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// The exhaustive test of a small world: one entry, two sinks, each readable or blind; the process
// dies before any call and dies again before any call of its next life, and any one call goes
// wrong in any way. A witness looks after every single call: what a sink was once given must be
// accepted by the API at every instant. In the end everything must have converged, with no live
// token that the record does not account for.

type trial struct {
	blindA, blindB bool
	lifetime       time.Duration // longer than needed: old generations are revoked, not left to expire
	cuts           []int         // calls after which each life ends; the last life is not cut
	faultAt        int           // call of the first life that goes wrong; 0: none
	fault          simulate.Fault
}

func (tr trial) String() string {
	return fmt.Sprintf("blind %v/%v, lifetime %s, cuts %v, call %d: %s", tr.blindA, tr.blindB, tr.lifetime, tr.cuts, tr.faultAt, tr.fault)
}

// play runs a trial over the first token and its first rotation, and returns what broke and how
// many calls the first life took.
func (tr trial) play(t *testing.T) (problems []string, calls int) {
	w := simulate.New(start)
	w.ReadBack, w.Sweep = 12*time.Hour, 12*time.Hour // each reading is one more place to die
	e := entry(t, w, "bot", w.Outlet("a", true, tr.blindA), w.Outlet("b", true, tr.blindB))
	if tr.lifetime > 0 {
		e.Timing.Margin, e.Timing.Lifetime = 0, tr.lifetime
		e = prepared(t, e)
	}
	complain := func(format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%s: ", w.Now().Format("Jan 2 15:04:05"))+fmt.Sprintf(format, args...))
	}
	held, left := map[string]string{}, map[string]time.Time{} // what each sink held, and when that token was last replaced
	w.Watch(func(w *simulate.World, what string) {
		for _, tok := range w.API.Tokens() {
			if at, ok := left[tok.Plaintext]; ok && !tok.Revoked.IsZero() && tok.Revoked.Before(at.Add(e.Timing.Overlap)) {
				complain("after %s: %s was revoked %s after a sink stopped holding it", what, tok.ID, tok.Revoked.Sub(at))
				delete(left, tok.Plaintext)
			}
		}
		for place, s := range w.Sinks {
			if old := held[place]; old != "" && old != s.Value() {
				left[old] = w.Now()
			}
			held[place] = s.Value()
			if v := s.Value(); v != "" && !w.API.Accepts(v) {
				complain("after %s: %s holds a dead token", what, place)
			}
		}
	})
	if tr.faultAt > 0 {
		w.FaultAt(tr.faultAt, tr.fault)
	}
	rotated := start.Add(20 * time.Hour) // midnight is a tick; the overlap ends at 08:00
	for i := 0; i <= len(tr.cuts); i++ {
		w.CutAt(0)
		if i < len(tr.cuts) {
			w.CutAt(tr.cuts[i])
		}
		p, err := w.Start(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Run(rotated); err != nil {
			complain("%v", err)
		}
		if i == 0 {
			calls = w.Calls()
		}
		if !w.Dead() && i < len(tr.cuts) {
			break
		}
	}
	w.CutAt(0)
	p, err := w.Start(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(maxTime(w.Now(), rotated).Add(6 * time.Hour)); err != nil {
		complain("%v", err)
	}

	rec := w.Store.Record("bot")
	g := rec.Current(w.Now())
	if g == nil {
		complain("no current generation in the end")
		return problems, calls
	}
	for place, s := range w.Sinks {
		if rotator.NewSecret(s.Value()).Hash([]byte("key of the instance")) != g.Hash {
			complain("%s does not hold the current generation", place)
		}
	}
	for _, tok := range live(w) {
		i := slices.IndexFunc(rec.Generations, func(g rotator.Generation) bool { return g.ID == tok.ID })
		switch {
		case i < 0:
			complain("%s (%s) is an orphan", tok.ID, tok.Name)
		case rec.Generations[i].Number != g.Number && rec.Generations[i].RevokeAt.IsZero():
			complain("generation %d is alive and does not retire", rec.Generations[i].Number)
		}
	}
	if limit := 3 + 2*len(tr.cuts); w.API.Creates > limit {
		complain("%d creates, more than %d", w.API.Creates, limit)
	}
	if len(problems) > 0 {
		problems = append(problems, w.Trace()...)
	}
	return problems, calls
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (tr trial) check(t *testing.T) int {
	t.Helper()
	problems, calls := tr.play(t)
	if len(problems) > 0 {
		t.Errorf("%s:\n  %s", tr, strings.Join(problems, "\n  "))
	}
	return calls
}

func TestModelTwoCrashesAtAnyStep(t *testing.T) {
	for _, blind := range [][2]bool{{false, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("blind=%v", blind), func(t *testing.T) {
			t.Parallel()
			tr := trial{blindA: blind[0], blindB: blind[1], lifetime: 60 * time.Hour}
			calls := tr.check(t)
			for first := 1; first <= calls && !t.Failed(); first++ {
				tr.cuts = []int{first}
				second := tr.check(t)
				for n := 1; n <= max(second, calls) && !t.Failed(); n++ {
					tr.cuts = []int{first, n}
					tr.check(t)
				}
			}
		})
	}
}

func TestModelAnyFaultThenCrash(t *testing.T) {
	for _, blind := range [][2]bool{{false, false}, {false, true}, {true, true}} {
		for _, fault := range simulate.Faults {
			t.Run(fmt.Sprintf("blind=%v/%s", blind, fault), func(t *testing.T) {
				t.Parallel()
				calls := trial{blindA: blind[0], blindB: blind[1], lifetime: 60 * time.Hour}.check(t)
				for at := 1; at <= calls && !t.Failed(); at++ {
					tr := trial{blindA: blind[0], blindB: blind[1], lifetime: 60 * time.Hour, faultAt: at, fault: fault}
					tr.check(t)
					for n := 1; n <= 14 && !t.Failed(); n++ {
						tr.cuts = []int{at + n}
						tr.check(t)
					}
				}
			})
		}
	}
}
