package simulate_test

import (
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// No outage that begins at any other time breaks a token sooner than the one that Worst names, which does
// break it, and a little shorter does not.
func TestNothingIsWorseThanTheWorst(t *testing.T) {
	type test struct {
		name, spec string
		overlap    time.Duration
		lifetime   time.Duration
		sinks      int
		course     func(*simulate.Forecast) // what else happens in the course that Worst is given
	}
	span := func(from, length time.Duration) simulate.Span {
		return simulate.Span{From: start.Add(from), Until: start.Add(from + length)}
	}
	for _, test := range []test{
		{name: "uneven", spec: "0 3 * * MON,TUE,FRI", overlap: 12 * time.Hour, sinks: 1},
		{name: "uneven with a lifetime", spec: "0 3 * * MON,TUE,FRI", overlap: 12 * time.Hour, lifetime: 6 * day, sinks: 1},
		{name: "two sinks", spec: "0 */8 * * *", overlap: 4 * time.Hour, sinks: 2},
		{name: "short", spec: "*/30 * * * *", overlap: 10 * time.Minute, sinks: 1},
		{name: "a long outage", spec: "0 3 * * *", overlap: 12 * time.Hour, sinks: 1, course: func(f *simulate.Forecast) {
			f.Outages = []simulate.Outage{{Place: simulate.APIPlace, Span: span(2*day, 4*day)}}
		}},
		{name: "an outage of a sink", spec: "0 3 * * *", overlap: 12 * time.Hour, sinks: 2, course: func(f *simulate.Forecast) {
			f.Outages = []simulate.Outage{{Place: f.Entry.Outlets[1].Place, Span: span(0, 14*day)}}
		}},
		{name: "too short to see", spec: "0 3 * * MON", overlap: 48 * time.Hour, sinks: 1, course: func(f *simulate.Forecast) { f.Until = start.Add(day) }},
		{name: "down", spec: "0 3 * * *", overlap: 12 * time.Hour, sinks: 1, course: func(f *simulate.Forecast) {
			for d := range 7 { // at each rotation
				f.Down = append(f.Down, span(time.Duration(d)*day+12*time.Hour, 9*time.Hour))
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := entry(t, "bot", test.spec, test.overlap)
			if test.lifetime > 0 {
				e.Timing.Lifetime, e.Timing.Margin = test.lifetime, 0
				e.Facts, _ = e.Timing.Check(start)
			}
			if test.sinks > 1 {
				e.Outlets = append(e.Outlets, rotator.Outlet{Place: "file:/b", Name: "b", Kind: "file", Required: true})
			}
			period := e.Facts.Widest
			f := simulate.Forecast{Entry: e, From: start, Until: start.Add(6 * period)}
			if test.course != nil {
				test.course(&f)
			}
			course, err := f.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			worst, err := f.Worst(t.Context(), course, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(worst) != 1+test.sinks {
				t.Fatal(worst)
			}
			for _, b := range worst {
				breaks := func(from time.Time, length time.Duration) bool {
					c := forecast(t, simulate.Forecast{
						Entry: e, From: start, Until: from.Add(length + e.Facts.Lifetime/8 + time.Hour),
						Outages: []simulate.Outage{{Place: b.Place, Span: simulate.Span{From: from, Until: from.Add(length)}}},
					})
					return len(c.Gaps) > 0
				}
				if b.From.IsZero() || !breaks(b.From, b.Length()) || breaks(b.From, b.Length()-2*time.Minute) {
					t.Errorf("%s: %s from %s on is not what breaks it", b.Place, b.Length(), b.From)
				}
				grain := max(b.Length()/50, 2*time.Minute)
				for at := start.Add(period); at.Before(start.Add(4 * period)); at = at.Add(period/16 + time.Second) {
					if breaks(at, b.Length()-grain) {
						t.Fatalf("%s: %s are said to be the shortest, and %s from %s on break it", b.Place, b.Length(), b.Length()-grain, at)
					}
				}
			}
		})
	}
}
