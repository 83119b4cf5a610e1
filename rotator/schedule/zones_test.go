package schedule

import (
	_ "embed"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// zoneNames is every name of the IANA database, as Go's own copy of it lists them.
//
//go:embed testdata/zones.txt
var zoneNames string

func loadZones(t testing.TB) []*time.Location {
	t.Helper()
	var all []*time.Location
	for _, name := range strings.Fields(zoneNames) {
		loc, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, loc)
	}
	if len(all) < 500 {
		t.Fatalf("only %d zones", len(all))
	}
	return all
}

// changesOf returns the instants from 2000 to 2040 at which the clocks of a zone change.
func changesOf(loc *time.Location) []time.Time {
	var found []time.Time
	from, to := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	for p := (zone{loc}).at(from); p.end < to; {
		q := zone{loc}.at(p.end)
		if q.offset != p.offset {
			found = append(found, time.Unix(p.end, 0).UTC())
		}
		p = q
	}
	return found
}

// distinct leaves one of the zones whose clocks agree from 2000 to 2040.
func distinct(zones []*time.Location) map[*time.Location][]time.Time {
	seen := map[string]bool{}
	out := map[*time.Location][]time.Time{}
	for _, loc := range zones {
		changes := changesOf(loc)
		key := ""
		for _, at := range append([]time.Time{time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}, changes...) {
			_, offset := at.In(loc).Zone()
			key += fmt.Sprint(at.Unix(), offset, " ")
		}
		if !seen[key] {
			seen[key] = true
			out[loc] = changes
		}
	}
	return out
}

// wall returns what the clock shows at an instant, as a time in UTC.
func wall(at time.Time, loc *time.Location) time.Time {
	_, offset := at.In(loc).Zone()
	return at.UTC().Add(time.Duration(offset) * time.Second)
}

// spec is a schedule as an oracle understands it: sets of values beside the text, and no parser.
type spec struct {
	text   string
	fields [5]map[int]bool
	stars  [5]bool
}

func (s spec) matches(wall time.Time) bool {
	if !s.fields[0][wall.Minute()] || !s.fields[1][wall.Hour()] || !s.fields[3][int(wall.Month())] {
		return false
	}
	dom, dow := s.fields[2][wall.Day()], s.fields[4][int(wall.Weekday())]
	if s.stars[2] || s.stars[4] {
		return dom && dow
	}
	return dom || dow
}

// ticks finds the ticks in [from, to] by looking at the clock each minute, as a person would who
// has the list of times in hand and crosses out those that the clock has come to or has passed.
func (s spec) ticks(loc *time.Location, from, to time.Time) []time.Time {
	const days = 24 * time.Hour
	var out []time.Time
	at := from.Add(-2 * days)
	crossed := wall(at, loc) // all up to here
	for ; !at.After(to); at = at.Add(time.Minute) {
		now := wall(at, loc)
		hit := false
		if len(s.fields[1]) == 24 {
			hit = s.matches(now)
		} else {
			for before := crossed; crossed.Before(now); {
				crossed = crossed.Add(time.Minute)
				date := crossed.Truncate(days)
				exists := date.Equal(before.Truncate(days)) || date.Equal(now.Truncate(days))
				hit = hit || exists && s.matches(crossed)
			}
		}
		if hit && !at.Before(from) {
			out = append(out, at)
		}
	}
	return out
}

// randomField draws one field: its text, its values, and whether it is a star.
func randomField(t *rapid.T, c column) (string, map[int]bool, bool) {
	values, star := map[int]bool{}, false
	top := c.max
	if c.name == "day of week" {
		top = 6
	}
	var parts []string
	for range rapid.IntRange(1, 3).Draw(t, "items") {
		lo := rapid.IntRange(c.min, c.max).Draw(t, "lo")
		hi := rapid.IntRange(lo, c.max).Draw(t, "hi")
		step := rapid.IntRange(1, 7).Draw(t, "step")
		part := ""
		switch rapid.IntRange(0, 4).Draw(t, "shape") {
		case 0, 1:
			hi, part = lo, strconv.Itoa(lo)
			if c.names != nil && rapid.Bool().Draw(t, "name") {
				part = c.names[(lo-c.min)%len(c.names)]
			}
		case 2:
			step, part = 1, fmt.Sprintf("%d-%d", lo, hi)
		case 3:
			part = fmt.Sprintf("%d-%d/%d", lo, hi, step)
		case 4:
			lo, hi, part = c.min, top, fmt.Sprintf("*/%d", step)
			if step == 1 {
				star = true
				part = rapid.SampledFrom([]string{"*", "*/1", "?"}).Draw(t, "star")
			}
		}
		for v := lo; v <= hi; v += step {
			values[v] = true
			if v > top {
				values[0] = true // 7 is Sunday
			}
		}
		parts = append(parts, part)
	}
	text := strings.Join(parts, ",")
	if rapid.Bool().Draw(t, "lower") {
		text = strings.ToLower(text)
	}
	return text, values, star
}

// randomSpec draws any schedule, also one that never ticks.
func randomSpec(t *rapid.T) spec {
	var s spec
	var words [5]string
	for i, c := range columns {
		words[i], s.fields[i], s.stars[i] = randomField(t, c)
	}
	s.text = strings.Join(words[:], " ")
	return s
}

// daily draws a schedule for every day, with a liking for the hours at which clocks change.
func daily(t *rapid.T) spec {
	var s spec
	var words [5]string
	for i, c := range columns {
		words[i], s.fields[i], s.stars[i] = "*", map[int]bool{}, true
		for v := c.min; v <= c.max; v++ {
			s.fields[i][v] = true
		}
	}
	words[0], s.fields[0], s.stars[0] = randomField(t, columns[0])
	words[1], s.fields[1], s.stars[1] = randomField(t, columns[1])
	if rapid.Bool().Draw(t, "at critical hours") {
		hours := rapid.SliceOfNDistinct(rapid.SampledFrom([]int{0, 1, 2, 3, 4, 11, 12, 22, 23}), 1, 4, rapid.ID).Draw(t, "hours")
		s.fields[1] = map[int]bool{}
		var list []string
		for _, h := range hours {
			s.fields[1][h] = true
			list = append(list, strconv.Itoa(h))
		}
		words[1] = strings.Join(list, ",")
	}
	s.text = strings.Join(words[:], " ")
	return s
}

// checkAgainstOracle compares Next and Last with the oracle over some days.
func checkAgainstOracle(t rapid.TB, s spec, loc *time.Location, from time.Time, days int) {
	t.Helper()
	to := from.Add(time.Duration(days) * 24 * time.Hour)
	got, err := Parse(s.text, loc.String())
	if err != nil {
		if !strings.Contains(err.Error(), "never ticks") || len(s.ticks(loc, from, to)) > 0 {
			t.Fatalf("Parse(%q): %v", s.text, err)
		}
		return
	}
	at := from.Add(-1)
	for _, want := range s.ticks(loc, from, to) {
		if next := got.Next(at); !next.Equal(want) {
			t.Fatalf("%s: Next(%s) is %s, but the clock says %s", got, at, show(next, loc), show(want, loc))
		}
		if last := got.Last(want.Add(-1)); last.After(at) && at.After(from) {
			t.Fatalf("%s: Last before %s is %s", got, want, last)
		}
		if last := got.Last(want); !last.Equal(want) {
			t.Fatalf("%s: Last at the tick %s is %s", got, want, last)
		}
		at = want
	}
	if next := got.Next(at); !next.After(to) {
		t.Fatalf("%s: Next(%s) is %s, which no clock shows", got, at, show(next, loc))
	}
	if last := got.Last(to); at.After(from) && !last.Equal(at) {
		t.Fatalf("%s: Last(%s) is %s, want %s", got, to, show(last, loc), show(at, loc))
	}
}

// Around clock changes of all zones, the ticks are those that a patient person finds who watches
// the clock.
func TestOracleAroundChanges(t *testing.T) {
	changes := distinct(loadZones(t))
	var zones []*time.Location
	for loc, at := range changes {
		if len(at) > 0 {
			zones = append(zones, loc)
		}
	}
	slices.SortFunc(zones, func(a, b *time.Location) int { return strings.Compare(a.String(), b.String()) })
	rapid.Check(t, func(t *rapid.T) {
		loc := rapid.SampledFrom(zones).Draw(t, "zone")
		at := rapid.SampledFrom(changes[loc]).Draw(t, "change")
		checkAgainstOracle(t, daily(t), loc, at.Add(-36*time.Hour), 3)
	})
	hard := []struct{ zone, from string }{
		{"Pacific/Apia", "2011-12-29 00:00"},      // a date is left out
		{"Pacific/Fakaofo", "2011-12-29 00:00"},   // and here
		{"Antarctica/Troll", "2023-03-25 00:00"},  // two hours at once
		{"Antarctica/Casey", "2010-03-04 00:00"},  // three hours back
		{"Asia/Pyongyang", "2015-08-13 00:00"},    // midnight comes twice
		{"America/Nuuk", "2024-03-30 00:00"},      // a gap up to midnight
		{"Africa/Casablanca", "2023-03-18 00:00"}, // two changes in five weeks
	}
	rapid.Check(t, func(rt *rapid.T) {
		c := rapid.SampledFrom(hard).Draw(rt, "change")
		loc, err := time.LoadLocation(c.zone)
		if err != nil {
			rt.Fatal(err)
		}
		checkAgainstOracle(rt, daily(rt), loc, clock(t, c.from), 4)
	})
}

// Go's idea of a zone's periods is made sound: each holds the instant that it was asked for.
func TestPeriods(t *testing.T) {
	for _, loc := range loadZones(t) {
		for year := 1890; year < 2110; year += 2 {
			for _, off := range []int64{-day, -day / 2, -1, 0, 1, day / 2, 200 * day} {
				sec := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Unix() + off
				p := zone{loc}.at(sec)
				if sec < p.start || sec >= p.end {
					t.Fatalf("%s: %d is not in its period %v", loc, sec, p)
				}
				for _, at := range []int64{p.start, p.end - 1} {
					if _, offset := time.Unix(at, 0).In(loc).Zone(); at != math.MinInt64 && at != math.MaxInt64-1 && int64(offset) != p.offset {
						t.Fatalf("%s: at %d the offset is %d, unlike all of its period %v", loc, at, offset, p)
					}
				}
			}
		}
	}
}

// On all days of all zones, for all schedules.
func TestOracleAnywhere(t *testing.T) {
	zones := loadZones(t)
	rapid.Check(t, func(t *rapid.T) {
		loc := rapid.SampledFrom(zones).Draw(t, "zone")
		minutes := rapid.Int64Range(0, 40*366*24*60).Draw(t, "minutes since 2000")
		from := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(minutes) * time.Minute)
		checkAgainstOracle(t, randomSpec(t), loc, from, 10)
	})
}

// Next and Last are each other's inverse, at any distance, in any century, to the nanosecond.
func TestNextAndLastAgree(t *testing.T) {
	zones := loadZones(t)
	rapid.Check(t, func(t *rapid.T) {
		loc := rapid.SampledFrom(zones).Draw(t, "zone")
		text := randomSpec(t).text
		if rapid.IntRange(0, 4).Draw(t, "every") == 0 {
			text = fmt.Sprintf("@every %ds", rapid.IntRange(60, 100*24*60*60).Draw(t, "seconds"))
		}
		s, err := Parse(text, loc.String())
		if err != nil {
			if !strings.Contains(err.Error(), "never ticks") {
				t.Fatal(err)
			}
			return
		}
		at := time.Unix(rapid.Int64Range(-5_000_000_000, 10_000_000_000).Draw(t, "second"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanosecond"))
		for range 20 {
			next, last := s.Next(at), s.Last(at)
			switch {
			case !next.After(at):
				t.Fatalf("%s: Next(%s) is %s", s, at, next)
			case last.After(at) || last.IsZero():
				t.Fatalf("%s: Last(%s) is %s", s, at, last)
			case !s.Next(last.Add(-1)).Equal(last):
				t.Fatalf("%s: Last(%s) is %s, which is no tick", s, at, last)
			case !s.Last(next).Equal(next):
				t.Fatalf("%s: Next(%s) is %s, which is no tick", s, at, next)
			case !s.Next(last).Equal(next):
				t.Fatalf("%s: a tick between Last(%s) = %s and Next = %s: %s", s, at, last, next, s.Next(last))
			case !s.Last(next.Add(-1)).Equal(last):
				t.Fatalf("%s: a tick between Last(%s) = %s and Next = %s: %s", s, at, last, next, s.Last(next.Add(-1)))
			}
			at = next
		}
	})
}

// The ticks of @every are the multiples of its interval, for everybody.
func TestGrid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		interval := rapid.Int64Range(60, 10*366*24*60*60).Draw(t, "seconds")
		s, err := Parse(fmt.Sprintf("@every %ds", interval), "")
		if err != nil {
			t.Fatal(err)
		}
		at := time.Unix(rapid.Int64Range(-5_000_000_000, 10_000_000_000).Draw(t, "second"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanosecond"))
		next, last := s.Next(at), s.Last(at)
		if next.Unix()%interval != 0 || last.Unix()%interval != 0 || next.Sub(last) != time.Duration(interval)*time.Second || last.After(at) || !next.After(at) {
			t.Fatalf("%s: around %s are %s and %s", s, at, last, next)
		}
	})
}

// Each date that a zone has gets its daily tick exactly once: when its clock shows that time, or
// passes over it. All zones, each at a time that its changes skip or repeat, until beyond 2037, from
// where on Go computes the changes by rule, and the leap year after it.
func TestEachDayOnce(t *testing.T) {
	for loc, changes := range distinct(loadZones(t)) {
		want := time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC) // as the clock shows it
		if len(changes) > 0 {
			last := changes[len(changes)-1]
			before, after := wall(last.Add(-1), loc), wall(last, loc)
			between := before.Add(after.Sub(before) / 2)
			want = want.Add(between.Sub(between.Truncate(24 * time.Hour)).Truncate(time.Minute))
		}
		s := mustParse(t, want.Format("4 15 * * *"), loc.String())
		for at := s.Next(time.Date(2000, 1, 2, 0, 0, 0, 0, loc).Add(-1)); want.Year() < 2042; want = want.AddDate(0, 0, 1) {
			if now := wall(at, loc); !now.Equal(want) {
				if time.Date(want.Year(), want.Month(), want.Day(), 12, 0, 0, 0, loc).Day() != want.Day() {
					continue // the zone has no such date
				}
				if before := wall(at.Add(-1), loc); !before.Before(want) || now.Before(want) {
					t.Fatalf("%s: the tick for %s is at %s, before which the clock showed %s", s, want, show(at, loc), before)
				}
			}
			at = s.Next(at)
		}
	}
}
