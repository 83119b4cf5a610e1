// Package schedule tells when a token rotates. It reads the schedule and timezone of
// rotation.yaml, names the ticks before and after any instant, and drives the daemon's looks.
//
// # What is understood
//
// Five fields: minute, hour, day of month, month, day of week. Each is *, a number, a name (MON,
// JAN, in any case), a range 1-5, a step */10 or 1-5/2, or a list of those. Sunday is 0, 7 or SUN,
// also at the end of a range. Or one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly and
// @annually. Or "@every 36h", in whole seconds and the units of [field.ParseDuration].
//
// As everywhere in cron, day of month and day of week, both restricted, mean either:
// [Schedule.Warnings] says so.
//
// # What a clock change does
//
// Fields are compared with the local clock of the schedule's zone. A tick comes the first time that
// this clock shows its time or a later one of that day. So a time that a clock change skips ticks
// at the end of the gap, and a time that is shown twice ticks once, at the first showing. A date
// that a zone leaves out altogether (Apia, 2011-12-30) has no tick, as February 30 has none.
//
// Schedules for all 24 hours (hour *) do not name a time of day but a distance: they tick whenever
// the clock shows a matching minute, twice in an hour that is repeated, never in one that is skipped.
//
// # What @every counts from
//
// The ticks of "@every D" are the multiples of D since 1970-01-01T00:00:00Z, whatever the zone: the
// same for every process, host and restart.
package schedule

import (
	"math"
	"slices"
	"time"
)

// MinInterval is the shortest distance between ticks: of @every, because cron has it by itself.
const MinInterval = time.Minute

// Ticks lie in the years 1 to 9999, which RFC 3339 can write.
const (
	earliest = -62135596800 // 0001-01-01T00:00:00Z
	latest   = 253402300799 // 9999-12-31T23:59:59Z
)

// Schedule names instants. It never asks what time it is, does not change, and may be used from any
// goroutine. It is made by [Parse], and implements rotator.Schedule.
type Schedule struct {
	text     string
	loc      *time.Location
	ticks    ticks
	warnings []string
}

// ticks is a set of instants in Unix seconds that has no end in either direction.
type ticks interface {
	next(after int64) int64 // the first one after
	last(at int64) int64    // the last one at or before
}

// Next returns the first tick after the given instant, in UTC, or the zero time where the year 9999
// has ended.
func (s *Schedule) Next(after time.Time) time.Time {
	sec := max(after.Unix(), earliest-1)
	if sec >= latest {
		return time.Time{}
	}
	if sec = s.ticks.next(sec); sec > latest {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}

// Last returns the last tick at or before the given instant, in UTC, or the zero time where the
// year 1 had not begun. It is as exact and as cheap as Next, also where ticks are years apart.
func (s *Schedule) Last(at time.Time) time.Time {
	sec := min(at.Unix(), latest)
	if sec < earliest {
		return time.Time{}
	}
	if sec = s.ticks.last(sec); sec < earliest {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}

// String returns the schedule as it was written, with single blanks and its zone:
// "0 3 * * MON Europe/Berlin". Equal strings tick alike. Zones do not matter to @every, which is
// always in UTC.
func (s *Schedule) String() string { return s.text + " " + s.loc.String() }

// Location returns the zone of the schedule's clock, in which people expect to read its ticks.
func (s *Schedule) Location() *time.Location { return s.loc }

// Warnings returns what is legal, but may not be what was meant, one sentence each: two day fields,
// months without the day, uneven steps, times that clock changes skip or repeat.
func (s *Schedule) Warnings() []string { return slices.Clone(s.warnings) }

// grid is @every: the multiples of so many seconds.
type grid int64

func (g grid) next(after int64) int64 { return g.last(after) + int64(g) }
func (g grid) last(at int64) int64    { return floor(at, int64(g)) * int64(g) }

// local is cron on the local clock of a zone.
type local struct {
	set  set
	zone zone
}

func (l local) next(after int64) int64 {
	if l.set.everyHour() {
		for from := after + 1; ; {
			p := l.zone.at(from)
			if t := l.set.next(from-1+p.offset) - p.offset; t < p.end {
				return t
			}
			from = p.end
		}
	}
	for w := l.set.next(l.zone.reached(after)); ; w = l.set.next(endOfDay(w)) {
		if t, ok := l.zone.first(w); ok {
			return t
		}
	}
}

func (l local) last(at int64) int64 {
	if l.set.everyHour() {
		for {
			p := l.zone.at(at)
			if t := l.set.last(at+p.offset) - p.offset; t >= p.start {
				return t
			}
			at = p.start - 1
		}
	}
	for w := l.set.last(l.zone.reached(at)); ; w = l.set.last(endOfDay(w) - day) {
		if t, ok := l.zone.first(w); ok {
			return t
		}
	}
}

// zone maps between instants, in Unix seconds, and the local clock. What that clock shows is a wall
// second: the Unix second at which a clock in UTC shows the same.
type zone struct{ loc *time.Location }

// reach is more than any zone is away from UTC, and more than any clock change moves a clock.
const reach = 26 * 60 * 60

// period is a time in which a zone keeps one offset: wall = instant + offset, start ≤ instant < end.
type period struct{ start, end, offset int64 }

func (z zone) at(sec int64) period {
	p := period{start: math.MinInt64, end: math.MaxInt64}
	if z.loc == time.UTC {
		return p
	}
	t := time.Unix(sec, 0).In(z.loc)
	_, offset := t.Zone()
	p.offset = int64(offset)
	start, end := t.ZoneBounds()
	if !start.IsZero() {
		p.start = start.Unix()
	}
	if !end.IsZero() {
		p.end = end.Unix()
	}
	if p.end <= sec {
		// Where a rule is continued beyond the database's last entry, Go ends the zone's last
		// period of every year after 365 days: on December 31 of a leap year, it is over too early.
		p.end = endOfDay(sec) + 1
	}
	return p
}

// reached returns the furthest wall second that the clock has shown up to and at an instant. While
// a clock that was set back shows its hour again, that is the last second before it was set back.
func (z zone) reached(sec int64) int64 {
	p := z.at(sec)
	wall := sec + p.offset
	for p.start > sec-reach {
		end := p.start
		p = z.at(end - 1)
		wall = max(wall, end-1+p.offset)
	}
	return wall
}

// first returns the first instant at which the clock shows the wall second w or a later one. It is
// not ok where the zone leaves out the whole date of w.
func (z zone) first(w int64) (sec int64, ok bool) {
	p := z.at(w - reach) // the clock has not shown w yet
	before := p.offset
	for w-p.offset >= p.end {
		before = p.offset
		p = z.at(p.end)
	}
	if sec := w - p.offset; sec >= p.start {
		return sec, true
	}
	from, to := p.start+before, p.start+p.offset // the gap that w is in
	midnight := w - mod(w, day)
	return p.start, from > midnight || to < midnight+day
}
