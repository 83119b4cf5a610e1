package schedule

import (
	"math/bits"
	"time"
)

const (
	minute = 60
	hour   = 60 * minute
	day    = 24 * hour
)

// set is the wall minutes that match five fields of cron: bit n of a mask stands for the value n.
// Its arithmetic is in wall seconds and knows no zone. At least one minute matches: Parse sees to it.
type set struct {
	minutes, hours, doms, months, dows uint64

	either bool // both day fields are restricted: a day matches if one of them does
}

// everyHour reports whether the set names no time of day, but a distance.
func (s set) everyHour() bool { return s.hours == 1<<24-1 }

// next returns the first match after w.
func (s set) next(w int64) int64 {
	w += minute - mod(w, minute)
	today, clock := floor(w, day), mod(w, day)
	d := s.nextDay(today)
	if d > today {
		clock = 0
	}
	h, m := int(clock/hour), int(clock%hour/minute)
	switch {
	case s.hours>>h&1 == 1 && s.minutes>>m != 0:
		m += bits.TrailingZeros64(s.minutes >> m)
	case s.hours>>(h+1) != 0:
		h += 1 + bits.TrailingZeros64(s.hours>>(h+1))
		m = bits.TrailingZeros64(s.minutes)
	default:
		d = s.nextDay(d + 1)
		h, m = bits.TrailingZeros64(s.hours), bits.TrailingZeros64(s.minutes)
	}
	return d*day + int64(h)*hour + int64(m)*minute
}

// last returns the last match at or before w.
func (s set) last(w int64) int64 {
	today, clock := floor(w, day), mod(w, day)
	d := s.lastDay(today)
	if d < today {
		clock = day - 1
	}
	h, m := int(clock/hour), int(clock%hour/minute)
	switch {
	case s.hours>>h&1 == 1 && upTo(s.minutes, m) != 0:
		m = highest(upTo(s.minutes, m))
	case upTo(s.hours, h-1) != 0:
		h, m = highest(upTo(s.hours, h-1)), highest(s.minutes)
	default:
		d = s.lastDay(d - 1)
		h, m = highest(s.hours), highest(s.minutes)
	}
	return d*day + int64(h)*hour + int64(m)*minute
}

// nextDay returns the first matching day at or after d, in days since 1970-01-01.
func (s set) nextDay(d int64) int64 {
	year, month, dom := date(d)
	for first := d - int64(dom-1); ; {
		if days := s.days(year, month) >> dom; days != 0 {
			return first + int64(dom-1+bits.TrailingZeros64(days))
		}
		first += int64(length(year, month))
		dom = 1
		if month++; month > time.December {
			year, month = year+1, time.January
		}
	}
}

// lastDay returns the last matching day at or before d, in days since 1970-01-01.
func (s set) lastDay(d int64) int64 {
	year, month, dom := date(d)
	for first := d - int64(dom-1); ; {
		if days := upTo(s.days(year, month), dom); days != 0 {
			return first + int64(highest(days)-1)
		}
		if month--; month < time.January {
			year, month = year-1, time.December
		}
		dom = length(year, month)
		first -= int64(dom)
	}
}

// days returns the matching days of a month.
func (s set) days(year int, month time.Month) uint64 {
	if s.months>>month&1 == 0 {
		return 0
	}
	first := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).Weekday()
	weeks := s.dows | s.dows<<7 | s.dows<<14 | s.dows<<21 | s.dows<<28 | s.dows<<35
	dows := weeks >> first << 1
	if s.either {
		return (s.doms | dows) & through(length(year, month))
	}
	return s.doms & dows & through(length(year, month))
}

// through returns a mask of the days 1 to n.
func through(n int) uint64 { return 1<<(n+1) - 2 }

// upTo returns the bits 0 to n of a mask, none where n is -1.
func upTo(mask uint64, n int) uint64 { return mask & (1<<(n+1) - 1) }

// highest returns the highest bit of a mask that is not empty.
func highest(mask uint64) int { return bits.Len64(mask) - 1 }

func date(d int64) (int, time.Month, int) { return time.Unix(d*day, 0).UTC().Date() }

func length(year int, month time.Month) int {
	if month == time.February {
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return longest(month)
}

// longest returns the most days that a month can have.
func longest(month time.Month) int {
	switch month {
	case time.February:
		return 29
	case time.April, time.June, time.September, time.November:
		return 30
	}
	return 31
}

// floor and mod divide towards the past, also before 1970.
func floor(a, b int64) int64 { return (a - mod(a, b)) / b }
func mod(a, b int64) int64   { return (a%b + b) % b }

func endOfDay(w int64) int64 { return w - mod(w, day) + day - 1 }
