package schedule

import (
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/rotatord/rotatord/rotator/field"
)

// ZoneError says that a zone is unknown, or means something else on every host.
type ZoneError struct {
	Zone string
	Why  string
}

func (e *ZoneError) Error() string {
	return fmt.Sprintf(`%q is no time zone: %s; write a name of the IANA database, like "Europe/Berlin", or "UTC"`, e.Zone, e.Why)
}

// Parse reads a schedule and the zone of its clock; the zone "" is UTC. See the package's words on
// what is understood. A schedule that never ticks is refused. Errors about the zone are [ZoneError]s.
func Parse(spec, zoneName string) (*Schedule, error) {
	loc, err := loadZone(zoneName)
	if err != nil {
		return nil, err
	}
	words := strings.Fields(spec)
	if len(words) == 0 {
		return nil, errors.New(`the schedule is empty: write one like "0 3 * * MON", @daily or "@every 36h"`)
	}
	if name, _, ok := strings.Cut(strings.ToUpper(words[0]), "="); ok && (name == "TZ" || name == "CRON_TZ") {
		return nil, fmt.Errorf("%s= is not understood inside a schedule: write the zone into the field timezone", name)
	}
	if strings.HasPrefix(words[0], "@") {
		words[0] = strings.ToLower(words[0])
	}
	text := strings.Join(words, " ")

	switch words[0] {
	case "@every":
		return parseEvery(words, loc)
	case "@reboot":
		return nil, errors.New("@reboot names no instant: a token expires by the calendar, however often the host restarts; write @daily or the like")
	}
	if strings.HasPrefix(text, "@") {
		if words = macro(text); words == nil {
			return nil, fmt.Errorf("%q is not understood: there are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually and @every DURATION", text)
		}
	} else {
		if err := fiveFields(words); err != nil { // in the words of who wrote it
			return nil, err
		}
		text = strings.ToUpper(text) // the names
		words = strings.Fields(text)
	}
	s := &Schedule{text: text, loc: loc}
	if s.ticks, s.warnings, err = parseFields(words, loc); err != nil {
		return nil, err
	}
	return s, nil
}

// macro returns the fields that a short name stands for, nil where there is no such name.
func macro(name string) []string {
	switch name {
	case "@hourly":
		return []string{"0", "*", "*", "*", "*"}
	case "@daily", "@midnight":
		return []string{"0", "0", "*", "*", "*"}
	case "@weekly":
		return []string{"0", "0", "*", "*", "0"}
	case "@monthly":
		return []string{"0", "0", "1", "*", "*"}
	case "@yearly", "@annually":
		return []string{"0", "0", "1", "1", "*"}
	}
	return nil
}

// loadZone loads a zone that is the same on every host.
func loadZone(name string) (*time.Location, error) {
	switch first, _, _ := strings.Cut(name, "/"); first {
	case "Local", "localtime", "posixrules":
		return nil, &ZoneError{name, "it is another one on every host"}
	case "right", "posix":
		return nil, &ZoneError{name, "not every host has these variants of the database"}
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, &ZoneError{name, "it is unknown"}
	}
	return loc, nil
}

func parseEvery(words []string, loc *time.Location) (*Schedule, error) {
	text := strings.Join(words, " ")
	if len(words) != 2 {
		return nil, fmt.Errorf(`%q is not understood: @every needs one duration, without blanks, like "@every 1d12h"`, text)
	}
	d, err := field.ParseDuration(words[1])
	switch {
	case err != nil:
		return nil, fmt.Errorf("@every: %w", err)
	case d < MinInterval:
		return nil, fmt.Errorf("%q is too often: the shortest interval is %s", text, field.FormatDuration(MinInterval))
	case d%time.Second != 0:
		return nil, fmt.Errorf("%q has a part below a second: write whole seconds", text)
	}
	s := &Schedule{text: text, loc: time.UTC, ticks: grid(d / time.Second)}
	if loc.String() != "UTC" {
		s.warnings = []string{fmt.Sprintf("the timezone %s does not matter: @every counts from 1970-01-01T00:00:00Z", loc)}
	}
	return s, nil
}

// column is one of the five fields.
type column struct {
	name     string
	min, max int
	names    []string // of the values from min on
	starts   string   // when a step starts again
	unit     string   // of @every, where that is an alternative
	robfig   cron.ParseOption
	mask     func(*cron.SpecSchedule) uint64
}

var columns = [5]column{
	{
		name: "minute", max: 59, starts: "hour", unit: "m",
		robfig: cron.Minute, mask: func(s *cron.SpecSchedule) uint64 { return s.Minute },
	},
	{
		name: "hour", max: 23, starts: "day", unit: "h",
		robfig: cron.Hour, mask: func(s *cron.SpecSchedule) uint64 { return s.Hour },
	},
	{
		name: "day of month", min: 1, max: 31,
		robfig: cron.Dom, mask: func(s *cron.SpecSchedule) uint64 { return s.Dom },
	},
	{
		name: "month", min: 1, max: 12,
		names:  []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"},
		robfig: cron.Month, mask: func(s *cron.SpecSchedule) uint64 { return s.Month },
	},
	{
		name: "day of week", max: 7,
		names:  []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"},
		robfig: cron.Dow, mask: func(s *cron.SpecSchedule) uint64 { return s.Dow },
	},
}

// star is robfig's mark for a field that is not restricted.
const star = 1 << 63

func fiveFields(words []string) error {
	switch n := len(words); {
	case n == 6:
		return fmt.Errorf("%q has six fields: seconds are not supported; write five: minute, hour, day of month, month, day of week", strings.Join(words, " "))
	case n != len(columns):
		return fmt.Errorf("%q has %d of the five fields minute, hour, day of month, month, day of week", strings.Join(words, " "), n)
	}
	return nil
}

func parseFields(words []string, loc *time.Location) (local, []string, error) {
	var (
		masks    [len(columns)]uint64
		warnings []string
		wrong    []string
	)
	for i, c := range columns {
		var warning string
		var err error
		if masks[i], warning, err = c.parse(words[i]); err != nil {
			wrong = append(wrong, err.Error())
		}
		if warning != "" {
			warnings = append(warnings, warning)
		}
	}
	if wrong != nil {
		return local{}, nil, errors.New(strings.Join(wrong, "; "))
	}
	s := set{
		minutes: masks[0] &^ star, hours: masks[1] &^ star,
		doms: masks[2] &^ star, months: masks[3] &^ star, dows: masks[4] &^ star,
		either: (masks[2]|masks[4])&star == 0,
	}
	if s.either {
		warnings = append(warnings, fmt.Sprintf("day of month %q and day of week %q are both restricted: cron ticks on days that match either of them, not only on those that match both", words[2], words[4]))
	} else {
		more, err := s.checkDays(words[2])
		if err != nil {
			return local{}, nil, err
		}
		warnings = append(warnings, more...)
	}
	l := local{s, zone{loc}}
	return l, append(warnings, l.changes()...), nil
}

var item = regexp.MustCompile(`^(?:(\*|\?)|([0-9]{1,2}|[A-Z]{3})(?:-([0-9]{1,2}|[A-Z]{3}))?)(?:/([0-9]{1,3}))?$`)

// parse reads one field in upper case. Everything that robfig's parser takes for something else than
// it looks like is sorted out before that parser sees it.
func (c column) parse(text string) (mask uint64, warning string, err error) {
	wrong := func(why string, args ...any) (uint64, string, error) {
		return 0, "", fmt.Errorf("%s %q: "+why, append([]any{c.name, text}, args...)...)
	}
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			return wrong("an item of the list is empty")
		}
		m := item.FindStringSubmatch(part)
		if m == nil {
			return wrong("%q is not understood: write *, a number, a range like %d-%d, a step like */2, or a list of these", part, c.min+1, c.min+5)
		}
		lo, hi, step := c.min, c.max, 1
		if c.isWeek() {
			hi = 6 // * holds one Sunday
		}
		if m[2] != "" {
			if lo, err = c.value(m[2]); err != nil {
				return wrong("%w", err)
			}
			if m[4] == "" || c.isWeek() && lo == 7 { // else it is n/step, which goes on to the end
				hi = lo
			}
		}
		if m[3] != "" {
			if hi, err = c.value(m[3]); err != nil {
				return wrong("%w", err)
			}
			if c.isWeek() && m[3] == c.names[0] && lo > 0 {
				hi = 7
			}
			if hi < lo {
				return wrong("%q runs backwards: write two ranges, like %d-%d,%d-%d", part, lo, c.max, c.min, hi)
			}
		}
		if m[4] != "" {
			if step, err = strconv.Atoi(m[4]); err != nil || step == 0 {
				return wrong("%q has a step of 0: the smallest is 1", part)
			}
			if values := c.max - c.min + 1; m[3] == "" && c.unit != "" && values%step != 0 {
				warning = fmt.Sprintf("%s %q starts again with every %s, so its distances are not all %s: for an even distance write \"@every %d%s\"", c.name, text, c.starts, m[4], step, c.unit)
			}
		}
		part := fmt.Sprintf("%d-%d/%d", lo, hi, step)
		switch {
		case m[1] != "":
			part = fmt.Sprintf("*/%d", step)
		case c.isWeek() && hi == 7:
			var days []string
			for d := lo; d <= 7; d += step {
				days = append(days, strconv.Itoa(d%7))
			}
			part = strings.Join(days, ",")
		}
		parsed, err := cron.NewParser(c.robfig).Parse(part)
		if err != nil {
			return wrong("%w", err)
		}
		mask |= c.mask(parsed.(*cron.SpecSchedule))
	}
	return mask, warning, nil
}

// isWeek reports whether this is the day of week, which knows Sunday as 0 and as 7.
func (c column) isWeek() bool { return c.max == 7 }

// value reads a number or a name.
func (c column) value(text string) (int, error) {
	if i := slices.Index(c.names, text); i >= 0 {
		return c.min + i, nil
	}
	n, err := strconv.Atoi(text)
	switch inside := err == nil && c.min <= n && n <= c.max; {
	case inside:
		return n, nil
	case c.names != nil:
		return 0, fmt.Errorf("%q is not one of %d to %d or %s to %s", text, c.min, c.max, c.names[0], c.names[len(c.names)-1])
	}
	return 0, fmt.Errorf("%q is not one of %d to %d", text, c.min, c.max)
}

// checkDays reports months that do not have any of the days of the month; text is their field. It
// is an error if they are all the months there are.
func (s set) checkDays(text string) (warnings []string, err error) {
	var without []string
	leap := false
	for month := time.January; month <= time.December; month++ {
		switch {
		case s.months>>month&1 == 0:
		case s.doms&through(longest(month)) == 0:
			without = append(without, month.String())
		case month == time.February && s.doms&through(28) == 0:
			leap = true
		}
	}
	if len(without) == bits.OnesCount64(s.months) {
		return nil, fmt.Errorf("the schedule never ticks: there is no day %s in %s", text, strings.Join(without, ", "))
	}
	if without != nil {
		warnings = append(warnings, fmt.Sprintf("there is no day %s in %s: no tick comes then", text, strings.Join(without, ", ")))
	}
	if leap {
		warnings = append(warnings, "there is a February 29 in leap years only: no tick comes in the other Februaries")
	}
	return warnings, nil
}

// changes describes what clock changes do to the schedule. It looks at twelve fixed years, not at
// those to come, because a schedule does not know what time it is.
func (l local) changes() []string {
	if l.set.everyHour() || l.zone.loc == time.UTC {
		return nil
	}
	var skipped, repeated string
	p := l.zone.at(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
	for stop := time.Date(2038, 1, 1, 0, 0, 0, 0, time.UTC).Unix(); p.end < stop; {
		q := l.zone.at(p.end)
		old, now := q.start+p.offset, q.start+q.offset // what the clock shows without and with the change
		tick := l.set.next(min(old, now) - 1)
		at := time.Unix(tick, 0).UTC()
		switch {
		case tick >= max(old, now):
		case old < now && skipped == "":
			skipped = fmt.Sprintf("%s does not exist in %s on days when the clocks go forward over it, such as %s: it then ticks at the end of the gap, %s",
				at.Format("15:04"), l.zone.loc, at.Format(time.DateOnly), time.Unix(now, 0).UTC().Format("15:04"))
		case old > now && repeated == "":
			repeated = fmt.Sprintf("%s comes twice in %s on days when the clocks go back over it, such as %s: it then ticks the first time only",
				at.Format("15:04"), l.zone.loc, at.Format(time.DateOnly))
		}
		p = q
	}
	return slices.DeleteFunc([]string{skipped, repeated}, func(s string) bool { return s == "" })
}
