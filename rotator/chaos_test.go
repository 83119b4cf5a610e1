package rotator_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// Every call of every kind goes wrong in some way three times out of ten, for hundreds of rotations,
// and the process dies now and then. Once it stops, all is as if nothing had been.
func TestThreeOutOfTenCallsGoWrong(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			w := simulate.New(start)
			faults := slices.DeleteFunc(slices.Clone(simulate.Faults[:]), func(f simulate.Fault) bool {
				return f == simulate.Narrow // that is a server's decision, which holds an edit for a person
			})
			const calls = 80_000
			for n := 1; n < calls; n++ {
				if rnd.IntN(10) < 3 {
					w.FaultAt(n, faults[rnd.IntN(len(faults))])
				}
			}
			var entries []rotator.Entry
			for i, name := range []string{"one", "two", "three"} {
				e := entry(t, w, name, w.Outlet(name+"-a", true, false), w.Outlet(name+"-b", i != 1, i == 2))
				if i == 0 {
					e = longLived(t, w, name, 60*hour, e.Outlets...)
				}
				entries = append(entries, e)
			}
			guarded(t, w, 0)
			const days = 25
			for now := w.Now(); now.Before(start.Add(days * day)); now = w.Now() {
				p := begin(t, w, entries...)
				if rnd.IntN(2) == 0 {
					w.CutAt(1 + rnd.IntN(400))
				}
				run(t, p, now.Add(day))
				w.CutAt(0)
			}
			if w.Calls() > calls {
				t.Fatalf("the faults were over after %d of %d calls", calls, w.Calls())
			}
			rotations := 0
			for _, e := range entries {
				rotations += w.Store.Record(e.Name).Last
			}
			if rotations < 3*days*9/10 {
				t.Errorf("%d rotations in %d days of three tokens", rotations, days)
			}
			for n := range calls {
				w.FaultAt(n, simulate.None)
			}
			end := start.Add((days + 5) * day)
			run(t, begin(t, w, entries...), end)
			rep := rotator.Describe(entries, records(w, entries), w.Now())
			if len(rep.Problems) > 0 {
				t.Errorf("problems in the end: %+v", rep.Problems)
			}
			for _, tok := range live(w) {
				if !slices.ContainsFunc(records(w, entries), func(r rotator.Record) bool {
					return slices.ContainsFunc(r.Generations, func(g rotator.Generation) bool { return g.ID == tok.ID })
				}) {
					t.Errorf("%s (%s) is an orphan", tok.ID, tok.Name)
				}
			}
			for _, e := range entries {
				n, rec := 0, w.Store.Record(e.Name)
				cur := rec.Current(w.Now())
				for _, g := range rec.Generations {
					if !g.Live(w.Now()) {
						continue
					}
					n++
					if g.Number != cur.Number && g.RevokeAt.IsZero() {
						t.Errorf("%s: generation %d lives beside the current one, and does not retire", e.Name, g.Number)
					}
				}
				for _, o := range e.Outlets {
					if v := w.Sinks[o.Place].Value(); rotator.NewSecret(v).Hash([]byte("key of the instance")) != cur.Hash {
						t.Errorf("%s does not hold the current generation of %s", o.Place, e.Name)
					}
				}
				if n > e.Facts.Live {
					t.Errorf("%s has %d live generations, honest operation has %d", e.Name, n, e.Facts.Live)
				}
			}
		})
	}
}

func records(w *simulate.World, entries []rotator.Entry) (out []rotator.Record) {
	for _, e := range entries {
		out = append(out, *w.Store.Record(e.Name))
	}
	return out
}
