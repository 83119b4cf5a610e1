package simulate_test

import (
	"flag"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/schedule"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// specs are schedules of every kind: days of the week, of the month, both, leap days, steps, distances.
var specs = []string{
	"@hourly", "@daily", "@weekly", "@monthly", "@every 6h", "@every 36h", "@every 100h", "0 3 * * MON", "30 2 * * *", "30 1 * * SUN",
	"0 9-17/4 * * 1-5", "0 0 1,15 * *", "0 4 * * 6,0", "15 */8 * * *", "0 0 29 * *", "0 0 31 * *", "0 0 1 */3 *", "0 2 28-31 * *",
	"0,1 0 * * *", "0 12 13 * FRI", "59 23 * * *", "0 0 29 */2 *", "0 3 1-7 * MON",
}

// zones are awkward: offsets of half and three quarter hours, DST by half an hour, by two, at midnight,
// backwards, and rules that changed.
var zones = []string{
	"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu", "Pacific/Apia",
	"America/St_Johns", "Asia/Tehran", "Antarctica/Troll", "Europe/Dublin", "Pacific/Chatham", "America/Asuncion",
	"Africa/Cairo", "Asia/Beirut", "America/Havana", "America/Santiago", "America/Nuuk", "Atlantic/Azores",
}

// drawn is an entry as anybody might declare it, and whether the check accepts it.
func drawn(t *rapid.T) (e rotator.Entry, problems []rotator.TimingProblem) {
	spec, zone := rapid.SampledFrom(specs).Draw(t, "spec"), rapid.SampledFrom(zones).Draw(t, "zone")
	s, err := schedule.Parse(spec, zone)
	if err != nil {
		t.Fatal(err)
	}
	minutes := func(name string, least, most int) time.Duration {
		return time.Duration(rapid.IntRange(least, most).Draw(t, name)) * time.Minute
	}
	x := rotator.Timing{Schedule: s, Overlap: minutes("overlap", 20, 6*24*60), Jitter: minutes("jitter", 0, 30)}
	if rapid.Bool().Draw(t, "by lifetime") {
		x.Lifetime = minutes("lifetime", 60, 12*24*60)
	} else {
		x.Margin = minutes("margin", 1, 48*60)
	}
	facts, problems := x.Check(start)
	problems = slices.DeleteFunc(problems, func(p rotator.TimingProblem) bool { return p.Warning })
	x.Margin = facts.Margin
	return rotator.Entry{
		Name: rapid.StringMatching(`[a-z]{1,6}`).Draw(t, "name"), Scopes: []string{"knowledge:read"}, Timing: x, Facts: facts,
		Outlets: []rotator.Outlet{
			{Place: "a", Name: "a", Kind: "env_file", Required: true},
			{Place: "b", Name: "b", Kind: "exec", Required: true},
		},
	}, problems
}

// accepted mends what is refused, so that no draw is thrown away.
func accepted(t *rapid.T) rotator.Entry {
	e, problems := drawn(t)
	for range 30 {
		if len(problems) == 0 {
			return e
		}
		x := &e.Timing
		for _, p := range problems {
			if p.Field == "lifetime" {
				x.Lifetime = min(2*x.Lifetime, rotator.MaxLifetime)
			} else {
				x.Overlap, x.Jitter = x.Overlap*3/4, x.Jitter/2
				if x.Lifetime == 0 {
					x.Margin = max(x.Margin*3/4, time.Minute)
				}
			}
		}
		if x.Lifetime > 0 {
			x.Margin = 0
		}
		e.Facts, problems = x.Check(start)
		problems = slices.DeleteFunc(problems, func(p rotator.TimingProblem) bool { return p.Warning })
		x.Margin = e.Facts.Margin
	}
	t.Fatalf("cannot mend %+v: %+v", e.Timing, problems)
	return e
}

// ahead is how far a forecast looks: two years, or so many rotations as make no difference any more.
// A long run of the property tests (make model) looks further than one that somebody waits for.
func ahead(e *rotator.Entry) time.Duration {
	most := 25
	if n, err := strconv.Atoi(flag.Lookup("rapid.checks").Value.String()); err == nil && n >= 200 {
		most = 750
	}
	at, n := start, 0
	for ; n < most && at.Before(start.Add(2*365*day)); n++ {
		at = e.Timing.Schedule.Next(at)
	}
	return at.Sub(start)
}

// What validate accepts has no gap and makes no more tokens than its schedule asks for; and it
// survives every outage that is shorter than validate says, of anything, whenever it begins.
func TestNoGapInWhatIsAccepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := accepted(t)
		f := simulate.Forecast{Entry: e, Blind: []string{"b"}, From: start, Until: start.Add(ahead(&e))}
		c, err := f.Run(t.Context())
		if err != nil || c.Problem != "" {
			t.Fatal(err, c.Problem)
		}
		ticks := 1
		for at := e.Timing.Schedule.Next(start); !at.IsZero() && !at.After(f.Until); at = e.Timing.Schedule.Next(at) {
			ticks++
		}
		if len(c.Gaps) > 0 || c.Creates > ticks || c.Live > e.Facts.Live {
			t.Fatalf("%+v: gaps %+v; %d creates for %d ticks; %d alive at once, %d are told", e.Timing, c.Gaps, c.Creates, ticks, c.Live, e.Facts.Live)
		}

		const slack = 2 * time.Minute // the steps take their time, and so does the first retry after an outage
		longest := e.Timing.Margin + e.Timing.Overlap - slack
		if longest <= 0 {
			return
		}
		length := time.Duration(rapid.Int64Range(int64(longest)/2, int64(longest)).Draw(t, "length"))
		from := start.Add(time.Duration(rapid.Int64Range(int64(time.Minute), int64(f.Until.Sub(start))).Draw(t, "from")))
		if i := rapid.IntRange(-1, len(c.Lives)-1).Draw(t, "rotation"); i > 0 { // the worst instant: just before a rotation
			from = c.Lives[i].Created.Add(-time.Second)
		}
		span := simulate.Span{From: from, Until: from.Add(length)}
		f.Until = span.Until.Add(2*e.Facts.Widest + e.Timing.Jitter + time.Hour)
		if place := rapid.SampledFrom([]string{simulate.APIPlace, "a", "b", "down"}).Draw(t, "place"); place == "down" {
			f.Down = []simulate.Span{span}
		} else {
			f.Outages = []simulate.Outage{{Place: place, Span: span}}
		}
		if c, err = f.Run(t.Context()); err != nil || c.Problem != "" || len(c.Gaps) > 0 {
			t.Fatalf("%+v: %s from %s on: %v, gaps %+v", e.Timing, length, from, err, c)
		}
	})
}

// A lifetime that is refused as too short is too short: with it, expiry would force more tokens than
// the schedule asks for, or the overlap would not be kept, or a sink would hold a dead token.
func TestWhatIsRefusedWouldGoWrong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := accepted(t)
		x := e.Timing
		x.Jitter = 0       // whether an entry's own share of it hits the worst case is chance
		least := x.Overlap // and a tenth to six tenths of the distance between ticks: a loop, but no frenzy
		x.Lifetime = (least + e.Facts.Widest*time.Duration(rapid.IntRange(10, 60).Draw(t, "percent"))/100).Truncate(time.Second)
		x.Margin = 0
		facts, problems := x.Check(start)
		if !slices.ContainsFunc(problems, func(p rotator.TimingProblem) bool { return p.Field == "lifetime" && !p.Warning }) {
			t.Fatalf("%+v is accepted, though it is shorter than two ticks are apart: %+v", x, problems)
		}
		e.Timing, e.Facts = x, rotator.Facts{} // without a fuse, which would end a loop
		e.Timing.Margin = max(facts.Margin, 0)
		until := start.Add(min(ahead(&e), 3*facts.Widest+x.Lifetime))
		c, err := simulate.Forecast{Entry: e, From: start, Until: until}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		forced := 0 // creates that no tick asks for
		for _, l := range c.Lives[1:] {
			if l.Created.Sub(x.Schedule.Last(l.Created)) > time.Minute {
				forced++
			}
		}
		// It is the widest distance that is too wide: perhaps it does not lie within what was played.
		widest := time.Duration(0)
		for at := start; at.Before(until); {
			next := x.Schedule.Next(at)
			widest, at = max(widest, next.Sub(at)), next
		}
		if widest < facts.Widest*8/10 {
			return
		}
		if forced == 0 && len(c.Gaps) == 0 && c.Problem == "" && c.Tightest >= x.Overlap {
			t.Fatalf("%+v is refused, and yet each of %d creates has its tick, there is no gap, and at least %s are left", x, c.Creates, c.Tightest)
		}
	})
}
