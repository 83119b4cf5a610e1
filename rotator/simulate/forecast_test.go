package simulate_test

import (
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/schedule"
	"github.com/rotatord/rotatord/rotator/simulate"
)

var start = time.Date(2027, 1, 4, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// entry is what the configuration makes of a schedule.
func entry(t testing.TB, name, spec string, overlap time.Duration) rotator.Entry {
	t.Helper()
	s, err := schedule.Parse(spec, "Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	e := rotator.Entry{
		Name: name, Scopes: []string{"knowledge:read"},
		Timing:  rotator.Timing{Schedule: s, Overlap: overlap, Margin: overlap / 4, Jitter: time.Minute},
		Outlets: []rotator.Outlet{{Place: "env_file:/a#A", Name: "a.env A", Kind: "env_file", Required: true}},
	}
	facts, problems := e.Timing.Check(start)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	e.Facts = facts
	return e
}

func forecast(t testing.TB, f simulate.Forecast) *simulate.Course {
	t.Helper()
	c, err := f.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c.Problem != "" {
		t.Fatal(c.Problem)
	}
	return c
}

func TestYearAhead(t *testing.T) {
	c := forecast(t, simulate.Forecast{Entry: entry(t, "bot", "0 3 * * *", 12*time.Hour), From: start, Until: start.Add(365 * day)})
	if c.Creates != 366 || len(c.Lives) != 366 || len(c.Gaps) != 0 || c.Live != 2 {
		t.Errorf("%d creates, %d generations, %d at once, gaps %v", c.Creates, len(c.Lives), c.Live, c.Gaps)
	}
	// The successor comes when margin and overlap are left, less the steps' own seconds.
	if c.Tightest < 15*time.Hour-time.Minute || c.Tightest > 15*time.Hour+time.Minute {
		t.Errorf("the tightest moment had %s left", c.Tightest)
	}
}

func BenchmarkYear(b *testing.B) {
	f := simulate.Forecast{Entry: entry(b, "bot", "0 3 * * *", 12*time.Hour), From: start, Until: start.Add(365 * day)}
	for b.Loop() {
		forecast(b, f)
	}
}

// An outage shorter than margin and overlap leaves no gap; a longer one does, and it is told when.
func TestOutageAhead(t *testing.T) {
	e := entry(t, "bot", "0 3 * * *", 12*time.Hour)
	survives := e.Timing.Margin + e.Timing.Overlap
	at := time.Date(2027, 1, 10, 2, 59, 59, 0, time.UTC).Add(-time.Hour) // Berlin is an hour ahead
	for place, name := range map[string]string{simulate.APIPlace: "SiteGPT", e.Outlets[0].Place: "the sink"} {
		for _, test := range []struct {
			length time.Duration
			gaps   int
		}{{survives - time.Minute, 0}, {survives + 10*time.Minute, 1}} {
			c := forecast(t, simulate.Forecast{
				Entry: e, From: start, Until: start.Add(20 * day),
				Outages: []simulate.Outage{{Place: place, Span: simulate.Span{From: at, Until: at.Add(test.length)}}},
			})
			if len(c.Gaps) != test.gaps {
				t.Errorf("%s away for %s: gaps %v", name, test.length, c.Gaps)
			}
			for _, g := range c.Gaps {
				if died := at.Add(survives).Add(time.Second); g.From.Before(died) || g.From.After(died.Add(2*time.Minute)) || !g.Until.After(g.From) || g.Sink != "a.env A" {
					t.Errorf("%s away for %s: %+v, want it from %s on", name, test.length, g, died)
				}
			}
		}
	}
	down := simulate.Forecast{Entry: e, From: start, Until: start.Add(20 * day), Down: []simulate.Span{{From: at, Until: at.Add(3 * day)}}}
	if c := forecast(t, down); len(c.Gaps) != 1 {
		t.Errorf("the daemon is away for three days: gaps %v", c.Gaps)
	}
	down.Down[0].Until = at.Add(survives - time.Minute)
	if c := forecast(t, down); len(c.Gaps) != 0 {
		t.Errorf("the daemon is away for less than it may be: gaps %v", c.Gaps)
	}
	// One that never ends is a gap without an end in sight.
	down.Down[0].Until = down.Until
	if c := forecast(t, down); len(c.Gaps) != 1 || !c.Gaps[0].Until.Equal(down.Until) {
		t.Errorf("the daemon never comes back: gaps %v", c.Gaps)
	}
}

// What is promised as survivable is the truth: the shortest outage that breaks is a little longer.
func TestWorstOutage(t *testing.T) {
	e := entry(t, "bot", "0 3 * * MON", 48*time.Hour)
	e.Outlets = append(e.Outlets, rotator.Outlet{Place: "file:/b", Name: "b", Kind: "file", Required: false})
	f := simulate.Forecast{Entry: e, From: start, Until: start.Add(100 * day)}
	breaks, err := f.Worst(t.Context(), forecast(t, f), 4)
	if err != nil {
		t.Fatal(err)
	}
	promised := e.Timing.Margin + e.Timing.Overlap
	if len(breaks) != 2 {
		t.Fatalf("%+v: an optional sink breaks nobody", breaks)
	}
	for _, b := range breaks {
		if b.Length() < promised || b.Length() > promised+10*time.Minute {
			t.Errorf("%s breaks it when it is away for %s, and %s are promised", b.Place, b.Length(), promised)
		}
	}
}

// A forecast goes on from what is there: the token that the sinks hold, and its planned rotation.
func TestForecastFromARecord(t *testing.T) {
	e := entry(t, "bot", "0 3 * * MON", 48*time.Hour)
	label := rotator.Label{Instance: "acme", Entry: "bot", Number: 7, Expires: start.Add(5 * day), Nonce: rotator.NewNonce(10)}
	rec := rotator.Record{
		Name: "bot", Version: 3, Last: 7, Overlap: e.Timing.Overlap,
		Generations: []rotator.Generation{{
			Entry: "bot", Number: 7, Label: label.String(), ID: "tok_7", Cause: rotator.CausePlanned, Scopes: e.Scopes, Hash: "of another key",
			Timing: e.Timing.Fingerprint(), Intended: start.Add(-5 * day), Created: start.Add(-5 * day), Verified: start.Add(-5 * day),
			Begun: start.Add(-5 * day), Converged: start.Add(-5 * day), Expires: start.Add(5 * day), Planned: start.Add(2 * day),
		}},
		Sinks: []rotator.SinkState{{Place: e.Outlets[0].Place, Begun: 7, Holds: 7, Proven: true, Ever: true}},
	}
	c := forecast(t, simulate.Forecast{Entry: e, Record: &rec, From: start, Until: start.Add(30 * day)})
	if len(c.Gaps) != 0 || c.Lives[0].Generation != 7 || c.Lives[1].Generation != 8 {
		t.Fatalf("%+v", c)
	}
	if at := c.Lives[1].Created; at.Before(start.Add(2*day)) || at.After(start.Add(2*day+time.Minute)) {
		t.Errorf("the next one is made %s, and was planned for %s", at, start.Add(2*day))
	}
	if l := c.Lives[0]; l.Cause != rotator.CausePlanned || l.Converged.IsZero() {
		t.Errorf("%+v", l)
	}
}

func TestCoursesTogether(t *testing.T) {
	var courses []*simulate.Course
	for _, name := range []string{"a", "b", "c"} {
		e := entry(t, name, "0 3 * * *", 12*time.Hour)
		e.Timing.Jitter = 0
		courses = append(courses, forecast(t, simulate.Forecast{Entry: e, From: start, Until: start.Add(10 * day)}))
	}
	calls, at := simulate.Peak(courses)
	if calls != 6 || at.UTC().Hour() != 2 && !at.Equal(start) {
		t.Errorf("%d calls at %s: a create and a proof for each of three, at three o'clock in Berlin", calls, at)
	}
	if n := simulate.AliveAtOnce(courses); n != 6 {
		t.Errorf("%d tokens alive at once", n)
	}
}
