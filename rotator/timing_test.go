package rotator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/schedule"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// specs are schedules of every kind that people write.
var specs = []string{
	"@hourly", "@daily", "@weekly", "@monthly", "@every 6h", "@every 36h", "0 3 * * MON", "30 2 * * *",
	"0 9-17/4 * * 1-5", "0 0 1,15 * *", "0 4 * * 6,0", "15 */8 * * *", "0 0 29 * *", "0 0 1 */3 *",
	"0,1 0 * * *", "0 12 13 * FRI",
}

func timings(t *rapid.T) rotator.Timing {
	s, err := schedule.Parse(rapid.SampledFrom(specs).Draw(t, "spec"), rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"}).Draw(t, "zone"))
	if err != nil {
		t.Fatal(err)
	}
	minutes := func(name string, least, most int) time.Duration {
		return time.Duration(rapid.IntRange(least, most).Draw(t, name)) * time.Minute
	}
	x := rotator.Timing{Schedule: s, Overlap: minutes("overlap", 20, 4*24*60), Jitter: minutes("jitter", 0, 15)}
	if rapid.Bool().Draw(t, "by lifetime") {
		x.Lifetime = minutes("lifetime", 60, 100*24*60)
	} else {
		x.Margin = minutes("margin", 1, 24*60)
	}
	return x
}

// proven draws a timing that the check accepts, with its facts and its margin filled in: one that
// is refused is mended, so that no draw is thrown away.
func proven(t *rapid.T) (rotator.Timing, rotator.Facts) {
	x := timings(t)
	var last []rotator.TimingProblem
	for range 20 {
		facts, problems := x.Check(start)
		last = slices.DeleteFunc(problems, func(p rotator.TimingProblem) bool { return p.Warning })
		if len(last) == 0 {
			x.Margin = facts.Margin
			return x, facts
		}
		for _, p := range last {
			if p.Field == "lifetime" { // too short
				x.Lifetime = min(2*x.Lifetime, rotator.MaxLifetime)
			} else { // too many alive at once, or a jitter as long as the overlap
				x.Overlap, x.Margin, x.Jitter = x.Overlap*3/4, x.Margin*3/4, x.Jitter/2
			}
		}
	}
	t.Fatalf("cannot mend %+v: %+v", x, last)
	return x, rotator.Facts{}
}

func instants(t *rapid.T) time.Time {
	return start.Add(time.Duration(rapid.Int64Range(0, int64(3*365*24*time.Hour/time.Second)).Draw(t, "instant")) * time.Second)
}

func TestExpiryAndPlannedKeepTheirPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, facts := proven(t)
		c := instants(t)
		name := rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "name")
		e := x.Expiry(c, c)
		planned, short := x.Planned(name, c, e)
		tick := x.Tick(c)
		switch {
		case e.Location() != time.UTC || !e.Equal(e.Truncate(time.Second)):
			t.Fatalf("expiry %s is not in UTC and whole seconds", e)
		case short:
			t.Fatalf("a token that was granted what was asked for is called short")
		case planned.Before(tick.Add(-time.Second)) || planned.After(tick.Add(x.Jitter)):
			t.Fatalf("planned %s is not at the tick %s plus at most %s", planned, tick, x.Jitter)
		case planned.After(e.Add(-x.Overlap - x.Margin + time.Second)):
			t.Fatalf("planned %s leaves less than overlap and margin before %s", planned, e)
		case tick.Sub(c) > facts.Widest:
			t.Fatalf("the tick after %s is %s away, and the check says at most %s", c, tick.Sub(c), facts.Widest)
		case e.Sub(c) > facts.Lifetime:
			t.Fatalf("a life of %s, and the check says at most %s", e.Sub(c), facts.Lifetime)
		}
	})
}

func TestAnyGrantedLifeIsUsedWithoutALoop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, _ := proven(t)
		c := instants(t)
		life := time.Duration(rapid.IntRange(60, 400*24*3600).Draw(t, "granted")) * time.Second
		planned, _ := x.Planned("bot", c, c.Add(life))
		if planned.Before(c.Add(min(life/2, x.Tick(c).Sub(c))).Add(-time.Second)) {
			t.Fatalf("of a life of %s only %s is used", life, planned.Sub(c))
		}
		if !planned.Before(c.Add(life)) {
			t.Fatalf("planned %s is after the end", planned)
		}
	})
}

func TestReplanMakesNothingDueAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		was, _ := proven(t)
		x, _ := proven(t)
		c := instants(t)
		e := was.Expiry(c, c)
		old, _ := was.Planned("bot", c, e)
		now := c.Add(time.Duration(rapid.Float64Range(0, 0.999).Draw(t, "part") * float64(old.Sub(c)))) // not due yet
		if at := x.Replan("bot", now, old, e); !at.After(now) || !at.Before(e) {
			t.Fatalf("an edit at %s moves %s to %s; it expires %s", now, old, at, e)
		}
	})
}

// TestNoGap runs the engine itself: for accepted timings, ticks, delays and one outage shorter
// than what the check promises to survive, no instant lacks a working token, and no more are
// created than the schedule asks for.
func TestNoGap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x, facts := proven(rt)
		w := simulate.New(start)
		w.ReadBack, w.Sweep = 5*24*time.Hour, 5*24*time.Hour
		e := rotator.Entry{
			Name: rapid.StringMatching(`[a-z]{1,8}`).Draw(rt, "name"), Scopes: []string{"leads:read"},
			Timing: x, Facts: facts, Outlets: []rotator.Outlet{w.Outlet("a", true, false)},
		}
		length := min(4*facts.Widest, 40*24*time.Hour)
		promised := facts.Margin + facts.Overlap
		broken := time.Duration(rapid.Float64Range(0, 0.95).Draw(rt, "outage") * float64(promised))
		begin := start.Add(time.Minute + time.Duration(rapid.Float64Range(0, 1).Draw(rt, "at")*float64(length-broken)))
		what := rapid.SampledFrom([]string{"api", "sink", "both"}).Draw(rt, "what")
		w.Outage(func(call string) error {
			if now := w.Now(); now.Before(begin) || !now.Before(begin.Add(broken)) {
				return nil
			}
			if sink := strings.Contains(call, "memory:"); call == "save" || (sink && what == "api") || (!sink && what == "sink") {
				return nil
			}
			return fmt.Errorf("outage: %w", rotator.ErrRefused)
		})
		filled := false
		w.Watch(func(w *simulate.World, call string) {
			v := w.Sinks["memory:a"].Value()
			filled = filled || v != ""
			if filled && !w.API.Accepts(v) {
				rt.Fatalf("%s: after %s the sink holds a dead token (outage %s to %s)", w.Now(), call, begin, begin.Add(broken))
			}
		})
		p, err := w.Start(e)
		if err != nil {
			rt.Fatal(err)
		}
		for at := start; at.Before(start.Add(length)); {
			// The witness also looks when nobody else does.
			at = at.Add(max(facts.Overlap/4, length/100))
			if err := p.Run(at); err != nil {
				rt.Fatal(err)
			}
			if v := w.Sinks["memory:a"].Value(); filled && !w.API.Accepts(v) {
				rt.Fatalf("at %s the sink holds a dead token (outage %s to %s)", w.Now(), begin, begin.Add(broken))
			}
		}
		ticks := 0
		for at := x.Tick(start); !at.After(w.Now()); at = x.Schedule.Next(at) {
			ticks++
		}
		if extra := w.API.Creates - ticks - 1; extra > 1 {
			rt.Fatalf("%d creates for %d ticks", w.API.Creates, ticks)
		}
	})
}

func TestCheckRefuses(t *testing.T) {
	daily := every(24 * time.Hour)
	for _, tc := range []struct {
		name  string
		t     rotator.Timing
		field string
		text  string
	}{
		{"loop", rotator.Timing{Schedule: every(30 * time.Second), Overlap: time.Hour, Margin: time.Hour}, "schedule", "only 30s apart"},
		{"year", rotator.Timing{Schedule: every(360 * 24 * time.Hour), Overlap: 48 * time.Hour, Margin: time.Hour}, "schedule", "longer than the 365 days"},
		{"lifetime", rotator.Timing{Schedule: daily, Overlap: 8 * time.Hour, Lifetime: 30 * time.Hour}, "lifetime", "is too short"},
		{"lifetime of a year", rotator.Timing{Schedule: daily, Overlap: 8 * time.Hour, Lifetime: 365 * 24 * time.Hour}, "lifetime", "365d is longer than 364d23h"},
		{"jitter", rotator.Timing{Schedule: daily, Overlap: time.Hour, Margin: time.Hour, Jitter: time.Hour}, "jitter", "must be shorter than the overlap"},
		{"margin", rotator.Timing{Schedule: daily, Overlap: time.Hour}, "margin", "no time for a retry"},
		{"overlap", rotator.Timing{Schedule: daily, Margin: time.Hour}, "overlap", "longer than nothing"},
		{"crowd", rotator.Timing{Schedule: every(time.Minute), Overlap: 48 * time.Hour, Margin: time.Hour}, "overlap", "alive at once"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, problems := tc.t.Check(start)
			for _, p := range problems {
				if !p.Warning && p.Field == tc.field && strings.Contains(p.Text, tc.text) {
					return
				}
			}
			t.Errorf("problems = %+v, want one at %s with %q", problems, tc.field, tc.text)
		})
	}
}

func TestCheckLoad(t *testing.T) {
	var entries []rotator.Entry
	for i := range 400 {
		entries = append(entries, rotator.Entry{
			Name:   fmt.Sprintf("t%03d", i),
			Timing: rotator.Timing{Schedule: every(24 * time.Hour), Overlap: time.Hour, Margin: 15 * time.Minute},
		})
	}
	problems := rotator.CheckLoad(entries, 60, start)
	if len(problems) != 1 || len(problems[0].Entries) != 400 || !strings.Contains(problems[0].Text, "400 tokens share the tick") {
		t.Errorf("problems = %+v", problems)
	}
	if problems := rotator.CheckLoad(entries, 600, start); len(problems) != 0 {
		t.Errorf("at ten times the rate: %+v", problems)
	}
}

func TestSurveyFindsTheLongPauseOfABusySchedule(t *testing.T) {
	s, err := schedule.Parse("* * * 1-11 *", "UTC") // no tick in all of December
	if err != nil {
		t.Fatal(err)
	}
	facts, _ := rotator.Timing{Schedule: s, Overlap: time.Hour, Margin: time.Hour}.Check(start)
	if facts.Widest < 31*24*time.Hour {
		t.Errorf("widest = %s, and December has 31 days", facts.Widest)
	}
}
