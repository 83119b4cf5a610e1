package rotator_test

import (
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

func drill(t *testing.T, lifetime time.Duration, lose func([]rotator.Event) bool) []simulate.Outcome {
	t.Helper()
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("file", true, false), w.Outlet("hook", true, true))
	if lifetime > 0 {
		e.Timing.Margin, e.Timing.Lifetime = 0, lifetime
		e = prepared(t, e)
	}
	out, err := simulate.Drill{Entry: e, Blind: []string{"memory:hook"}, Start: start, Lose: lose}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDrillOfAWorkingEngine(t *testing.T) {
	for _, lifetime := range []time.Duration{0, 60 * hour} {
		steps := map[string]bool{}
		trials := 0
		for _, o := range drill(t, lifetime, nil) {
			steps[o.Step] = true
			trials += o.Trials
			if o.Broken() {
				t.Errorf("lifetime %s: %+v", lifetime, o)
			}
		}
		for _, s := range []string{"create", "save", "verify", "list", "push file", "push hook", "read file", ""} {
			if !steps[s] {
				t.Errorf("lifetime %s: the step %q was never tried", lifetime, s)
			}
		}
		if trials < 100 {
			t.Errorf("only %d trials", trials)
		}
	}
}

// A rehearsal must be able to fail: without the intent, a token whose answer is lost is an orphan.
func TestDrillNoticesAMissingIntent(t *testing.T) {
	out, err := simulate.Drill{Start: start, Lose: func(events []rotator.Event) bool {
		return len(events) > 0 && events[0].Kind == rotator.EventIntended
	}, Entry: func() rotator.Entry {
		w := simulate.New(start)
		return entry(t, w, "bot", w.Outlet("file", true, false))
	}()}.Run(t.Context())
	if err != nil {
		return // it did not even survive a day without trouble
	}
	for _, o := range out {
		if o.Orphans > 0 {
			return
		}
	}
	t.Error("no trial noticed that intents are lost")
}
