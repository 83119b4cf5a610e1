package simulate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/schedule"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// shifts are the first two instants at which a zone's clock is set: one way and back. None within two
// years, and it is not set any more.
func shifts(t *testing.T, zone string) (out []time.Time) {
	t.Helper()
	l, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	offset := func(at time.Time) int {
		_, o := at.In(l).Zone()
		return o
	}
	for at := start; at.Before(start.Add(2*365*day)) && len(out) < 2; at = at.Add(time.Hour) {
		if offset(at) != offset(at.Add(time.Hour)) {
			out = append(out, at.Add(time.Hour))
		}
	}
	return out
}

// Chance draws the configurations of the other tests. These are played in any case: each awkward zone
// around every instant at which its clock is set, by a schedule for that very hour; the ends of months,
// a leap day, and schedules with both fields of days through two years. The counters say so.
func TestTheAwkwardOnesAreSimulated(t *testing.T) {
	zonesShifted, hours, nightsWithout, ends, both := map[string]bool{}, 0, 0, map[int]bool{}, 0
	leap := false
	play := func(spec, zone string, from, until time.Time) {
		s, err := schedule.Parse(spec, zone)
		if err != nil {
			t.Fatal(err)
		}
		x := rotator.Timing{Schedule: s, Overlap: 6 * time.Hour, Margin: 90 * time.Minute, Jitter: 2 * time.Minute}
		facts, problems := x.Check(from)
		if problems = slices.DeleteFunc(problems, func(p rotator.TimingProblem) bool { return p.Warning }); len(problems) > 0 {
			t.Fatalf("%s in %s: %+v", spec, zone, problems)
		}
		e := rotator.Entry{
			Name: "awkward", Scopes: []string{"knowledge:read"}, Timing: x, Facts: facts,
			Outlets: []rotator.Outlet{{Place: "a", Name: "a", Kind: "env_file", Required: true}},
		}
		f := simulate.Forecast{Entry: e, From: from, Until: until}
		quiet, err := f.Run(t.Context())
		if err != nil || quiet.Problem != "" || len(quiet.Gaps) > 0 || quiet.Live > facts.Live {
			t.Fatalf("%s in %s from %s on: %v %+v", spec, zone, from, err, quiet)
		}
		rotations := 0
		for _, l := range quiet.Lives {
			local := l.Created.In(s.Location())
			if l.Created.Sub(s.Last(l.Created)) > 5*time.Minute {
				continue // the first one: for want of any
			}
			rotations++
			leap = leap || local.Month() == time.February && local.Day() == 29
			if tomorrow := local.AddDate(0, 0, 1); tomorrow.Day() == 1 {
				ends[local.Day()] = true
			}
		}
		if rotations < 2 {
			t.Fatalf("%s in %s from %s on: %d rotations", spec, zone, from, rotations)
		}
		// The longest outage that is promised to leave no gap, from just before each rotation on.
		for _, l := range quiet.Lives[1:min(len(quiet.Lives), 5)] {
			begin := l.Created.Add(-time.Second)
			broken := f
			broken.Until = begin.Add(facts.NoGap() + 2*facts.Widest + day)
			broken.Outages = []simulate.Outage{{Place: simulate.APIPlace, Span: simulate.Span{From: begin, Until: begin.Add(facts.NoGap() - 2*time.Minute)}}}
			if c, err := broken.Run(t.Context()); err != nil || c.Problem != "" || len(c.Gaps) > 0 {
				t.Fatalf("%s in %s, an outage from %s on: %v %+v", spec, zone, begin, err, c)
			}
		}
	}

	for _, zone := range zones {
		l, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range shifts(t, zone) {
			zonesShifted[zone] = true
			// The wall's time just before the clock is set, and half an hour on: an hour that is missing, or comes twice.
			for _, wall := range []time.Time{at.Add(-time.Minute).In(l), at.Add(-time.Minute).In(l).Add(31 * time.Minute)} {
				spec := fmt.Sprintf("%d %d * * *", wall.Minute(), wall.Hour())
				if wall.Sub(at.In(l)) >= 0 { // written as the clock before would have said it
					_, before := at.Add(-time.Minute).In(l).Zone()
					w := at.UTC().Add(time.Duration(before)*time.Second + 30*time.Minute)
					spec = fmt.Sprintf("%d %d * * *", w.Minute(), w.Hour())
					there := time.Date(w.Year(), w.Month(), w.Day(), w.Hour(), w.Minute(), 0, 0, l)
					if there.Hour() != w.Hour() || there.Minute() != w.Minute() {
						nightsWithout++
					}
				}
				hours++
				play(spec, zone, at.Add(-3*day), at.Add(2*day))
			}
		}
	}
	for _, spec := range []string{"0 0 31 * *", "0 2 28-31 * *", "0 0 29 * *", "59 23 30 * *", "0 12 13 * FRI", "0 3 1-7 * MON", "0 4 29 2,3 SUN", "0 0 1 */3 1"} {
		for _, zone := range []string{"UTC", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia"} {
			if f := strings.Fields(spec); f[2] != "*" && f[4] != "*" {
				both++
			}
			play(spec, zone, start, start.Add(2*365*day))
		}
	}
	if len(zonesShifted) < 10 || hours < 4*10 || nightsWithout < 10 || !leap || !ends[28] || !ends[29] || !ends[30] || !ends[31] || both < 12 {
		t.Errorf("played: %d zones that set their clock (%v), %d hours about it, %d of them missing; a leap day: %v; last days of a month: %v; both fields of days: %d",
			len(zonesShifted), zonesShifted, hours, nightsWithout, leap, ends, both)
	}
	t.Logf("%d zones that set their clock, %d hours about it, %d of them missing; last days of a month: %v; both fields of days: %d", len(zonesShifted), hours, nightsWithout, ends, both)
}
