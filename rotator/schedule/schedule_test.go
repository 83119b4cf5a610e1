package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/robfig/cron/v3"

	"github.com/rotatord/rotatord/rotator"
)

var _ rotator.Schedule = (*Schedule)(nil)

func mustParse(t testing.TB, spec, zone string) *Schedule {
	t.Helper()
	s, err := Parse(spec, zone)
	if err != nil {
		t.Fatalf("Parse(%q, %q): %v", spec, zone, err)
	}
	return s
}

// clock reads "2024-03-31 02:30" or "2024-03-31 02:30:15.5" as UTC.
func clock(t testing.TB, text string) time.Time {
	t.Helper()
	layout := time.DateTime
	if strings.Count(text, ":") == 1 {
		layout = "2006-01-02 15:04"
	}
	at, err := time.Parse(layout, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// show writes an instant as people of a zone would see it.
func show(at time.Time, zone *time.Location) string {
	if at.IsZero() {
		return "never"
	}
	return at.In(zone).Format("2006-01-02 15:04 -0700")
}

// What a person expects of cron, and what each zone's calendar makes of it. Ticks follow each other.
func TestTicks(t *testing.T) {
	for name, c := range map[string]struct {
		spec, zone, after string
		want              []string
	}{
		"daily, in UTC unless a zone is given": {"0 3 * * *", "", "2026-02-27 03:00", []string{
			"2026-02-28 03:00 +0000", "2026-03-01 03:00 +0000",
		}},
		"fractions of a second count":        {"@hourly", "", "2026-01-01 00:59:59.999999999", []string{"2026-01-01 01:00 +0000"}},
		"weekly":                             {"@weekly", "", "2026-01-01 00:00", []string{"2026-01-04 00:00 +0000", "2026-01-11 00:00 +0000"}},
		"monthly":                            {"@monthly", "", "2026-12-01 00:00", []string{"2027-01-01 00:00 +0000", "2027-02-01 00:00 +0000"}},
		"yearly":                             {"@yearly", "", "2026-01-01 00:00", []string{"2027-01-01 00:00 +0000"}},
		"annually":                           {"@annually", "", "2026-12-31 23:59", []string{"2027-01-01 00:00 +0000"}},
		"midnight":                           {"@midnight", "Asia/Tokyo", "2026-06-01 00:00", []string{"2026-06-02 00:00 +0900"}},
		"the 31st only where there is one":   {"0 0 31 * *", "", "2026-01-31 00:00", []string{"2026-03-31 00:00 +0000", "2026-05-31 00:00 +0000"}},
		"leap days, over a century without":  {"0 0 29 2 *", "", "2092-03-01 00:00", []string{"2096-02-29 00:00 +0000", "2104-02-29 00:00 +0000"}},
		"either day field":                   {"0 0 13 * FRI", "", "2026-02-07 00:00", []string{"2026-02-13 00:00 +0000", "2026-02-20 00:00 +0000", "2026-02-27 00:00 +0000", "2026-03-06 00:00 +0000", "2026-03-13 00:00 +0000"}},
		"one star among the day fields: and": {"0 0 */1 * FRI", "", "2026-02-07 00:00", []string{"2026-02-13 00:00 +0000", "2026-02-20 00:00 +0000"}},
		"names in any case, extra blanks":    {"  0\t0 1  jAn,juL   * ", "", "2026-01-01 00:00", []string{"2026-07-01 00:00 +0000", "2027-01-01 00:00 +0000"}},
		"n/step goes on to the end":          {"50/5 * * * *", "", "2026-01-01 00:00", []string{"2026-01-01 00:50 +0000", "2026-01-01 00:55 +0000", "2026-01-01 01:50 +0000"}},

		"spring forward: at the end of the gap": {"30 2 * * *", "Europe/Berlin", "2024-03-30 00:00", []string{
			"2024-03-30 02:30 +0100", "2024-03-31 03:00 +0200", "2024-04-01 02:30 +0200",
		}},
		"many times in one gap are one tick": {"*/10 2 * * *", "Europe/Berlin", "2024-03-31 00:00", []string{
			"2024-03-31 03:00 +0200", "2024-04-01 02:00 +0200",
		}},
		"autumn: the first pass only": {"30 1 * * *", "America/New_York", "2023-11-04 12:00", []string{
			"2023-11-05 01:30 -0400", "2023-11-06 01:30 -0500",
		}},
		"asked in the second pass": {"45 1 * * *", "America/New_York", "2023-11-05 06:10", []string{
			"2023-11-06 01:45 -0500",
		}},
		"some hours: no distance, first pass only": {"0,30 0-12 * * *", "America/New_York", "2023-11-05 04:59", []string{
			"2023-11-05 01:00 -0400", "2023-11-05 01:30 -0400", "2023-11-05 02:00 -0500",
		}},
		"every hour: both passes": {"30 * * * *", "America/New_York", "2023-11-05 05:00", []string{
			"2023-11-05 01:30 -0400", "2023-11-05 01:30 -0500", "2023-11-05 02:30 -0500",
		}},
		"every hour, as a step and as a range": {"30 */1 * * *", "America/New_York", "2023-11-05 05:45", []string{
			"2023-11-05 01:30 -0500",
		}},
		"every hour over a gap: an hour by the watch": {"30 0-23 * * *", "Europe/Berlin", "2024-03-31 00:00", []string{
			"2024-03-31 01:30 +0100", "2024-03-31 03:30 +0200",
		}},
		"a midnight that does not exist": {"@daily", "Africa/Cairo", "2000-04-26 22:00", []string{
			"2000-04-28 01:00 +0300", "2000-04-29 00:00 +0300",
		}},
		"a midnight that comes twice": {"@daily", "Asia/Pyongyang", "2015-08-13 15:00", []string{
			"2015-08-15 00:00 +0830", "2015-08-16 00:00 +0830",
		}},
		"a gap that ends on the next day": {"30 23 * * *", "America/Nuuk", "2024-03-30 12:00", []string{
			"2024-03-31 00:00 -0100", "2024-03-31 23:30 -0100",
		}},
		"a clock change of half an hour": {"15 2 * * *", "Australia/Lord_Howe", "2023-09-30 00:00", []string{
			"2023-10-01 02:30 +1100", "2023-10-02 02:15 +1100",
		}},
		"a date that does not exist": {"0 12 * * *", "Pacific/Apia", "2011-12-29 00:00", []string{
			"2011-12-29 12:00 -1000", "2011-12-31 12:00 +1400", "2012-01-01 12:00 +1400",
		}},
		"a date that does not exist, yearly": {"* 1-22 30 12 *", "Pacific/Apia", "2010-12-31 08:59", []string{
			"2012-12-30 01:00 +1400", "2012-12-30 01:01 +1400",
		}},
		"a date that does not exist, every hour": {"0 * * * *", "Pacific/Apia", "2011-12-30 09:00", []string{
			"2011-12-31 00:00 +1400", "2011-12-31 01:00 +1400",
		}},

		"every: multiples since 1970":                    {"@every 7h", "", "1970-01-01 00:00", []string{"1970-01-01 07:00 +0000", "1970-01-01 14:00 +0000"}},
		"every: in any zone":                             {"@every 1d", "Asia/Tokyo", "2026-01-01 12:00", []string{"2026-01-02 00:00 +0000"}},
		"every: weeks begin on the weekday of the epoch": {"@EVERY 1w", "", "2026-01-01 00:00", []string{"2026-01-08 00:00 +0000"}},
		"every: before 1970":                             {"@every 36h", "", "1969-12-28 00:00", []string{"1969-12-29 00:00 +0000", "1969-12-30 12:00 +0000", "1970-01-01 00:00 +0000"}},
		"every: the shortest":                            {"@every 60s", "", "2026-01-01 00:00", []string{"2026-01-01 00:01 +0000"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustParse(t, c.spec, c.zone)
			at := clock(t, c.after)
			for _, want := range c.want {
				next := s.Next(at)
				if got := show(next, s.Location()); got != want {
					t.Fatalf("after %s: got %s, want %s", show(at, s.Location()), got, want)
				}
				if next.Location() != time.UTC {
					t.Errorf("the tick is in %s, not UTC", next.Location())
				}
				if got := s.Last(next); !got.Equal(next) {
					t.Errorf("Last at the tick %s is %s", want, show(got, s.Location()))
				}
				if got, want := s.Last(next.Add(-1)), s.Last(at); !got.Equal(want) {
					t.Errorf("Last just before the tick is %s, want %s", show(got, s.Location()), show(want, s.Location()))
				}
				at = next
			}
		})
	}
}

// 7 is Sunday wherever a number may stand.
func TestSunday(t *testing.T) {
	monday := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for spec, want := range map[string]string{
		"7":       "Sun",
		"0":       "Sun",
		"sun":     "Sun",
		"5-7":     "Fri Sat Sun",
		"Fri-Sun": "Fri Sat Sun",
		"SUN-TUE": "Mon Tue Sun",
		"1,7":     "Mon Sun",
		"0-7":     "Mon Tue Wed Thu Fri Sat Sun",
		"1-7/2":   "Mon Wed Fri Sun",
		"5-7/2":   "Fri Sun",
		"7/2":     "Sun",
		"7-7":     "Sun",
		"7-SUN":   "Sun",
		"4/2":     "Thu Sat",
		"*/3":     "Wed Sat Sun",
	} {
		s := mustParse(t, "0 12 * * "+spec, "")
		var got []string
		for at := s.Next(monday); at.Before(monday.AddDate(0, 0, 7)); at = s.Next(at) {
			got = append(got, at.Format("Mon"))
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%q ticks on %s, want %s", spec, got, want)
		}
	}
}

// Ticks lie in the years 1 to 9999, and the instants outside do no harm.
func TestEndsOfTime(t *testing.T) {
	first := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	last := time.Date(9999, 12, 31, 23, 59, 0, 0, time.UTC)
	ancient, remote := time.Unix(-1<<62, 0), time.Unix(1<<60, 0)
	for _, spec := range []string{"* * * * *", "@every 1m"} {
		s := mustParse(t, spec, "")
		for what, c := range map[string]struct{ got, want time.Time }{
			"Next(ancient)":    {s.Next(ancient), first},
			"Next(the last)":   {s.Next(last), time.Time{}},
			"Next(remote)":     {s.Next(remote), time.Time{}},
			"Last(remote)":     {s.Last(remote), last},
			"Last(ancient)":    {s.Last(ancient), time.Time{}},
			"Last(the second)": {s.Last(first.Add(time.Minute)), first.Add(time.Minute)},
		} {
			if c.got != c.want {
				t.Errorf("%s: %s is %s, want %s", spec, what, c.got, c.want)
			}
		}
	}
	leap := mustParse(t, "0 0 29 2 *", "Asia/Kathmandu")
	if got := leap.Next(time.Date(9996, 3, 1, 0, 0, 0, 0, time.UTC)); !got.IsZero() {
		t.Errorf("a leap day after the year 9999: %s", got)
	}
	if got := leap.Last(time.Date(3, 1, 1, 0, 0, 0, 0, time.UTC)); !got.IsZero() {
		t.Errorf("a leap day before the year 1: %s", got)
	}
}

func TestString(t *testing.T) {
	for _, c := range []struct{ spec, zone, want string }{
		{"0 3 * * *", "", "0 3 * * * UTC"},
		{" 0  3 * * mon-Fri\t", "Europe/Berlin", "0 3 * * MON-FRI Europe/Berlin"},
		{"@Daily", "Asia/Tokyo", "@daily Asia/Tokyo"},
		{"@every  36h", "", "@every 36h UTC"},
		{"@every 36h", "Asia/Tokyo", "@every 36h UTC"},
	} {
		if got := mustParse(t, c.spec, c.zone).String(); got != c.want {
			t.Errorf("Parse(%q, %q) is %q, want %q", c.spec, c.zone, got, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ spec, zone, want string }{
		{"", "", `the schedule is empty: write one like "0 3 * * MON", @daily or "@every 36h"`},
		{" \t\n", "", `the schedule is empty: write one like "0 3 * * MON", @daily or "@every 36h"`},
		{"* * * *", "", `"* * * *" has 4 of the five fields minute, hour, day of month, month, day of week`},
		{"0 0 3 * * *", "", `"0 0 3 * * *" has six fields: seconds are not supported; write five: minute, hour, day of month, month, day of week`},
		{"0 0 0 1 1 ? 2026", "", `"0 0 0 1 1 ? 2026" has 7 of the five fields minute, hour, day of month, month, day of week`},
		{"every 7d", "", `"every 7d" has 2 of the five fields minute, hour, day of month, month, day of week`},
		{"@reboot", "", `@reboot names no instant: a token expires by the calendar, however often the host restarts; write @daily or the like`},
		{"@fortnightly", "", `"@fortnightly" is not understood: there are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually and @every DURATION`},
		{"@", "", `"@" is not understood: there are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually and @every DURATION`},
		{"@daily 3", "", `"@daily 3" is not understood: there are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually and @every DURATION`},

		{"60 * * * *", "", `minute "60": "60" is not one of 0 to 59`},
		{"* 9,24 * * *", "", `hour "9,24": "24" is not one of 0 to 23`},
		{"* * 0 * *", "", `day of month "0": "0" is not one of 1 to 31`},
		{"* * * 13 *", "", `month "13": "13" is not one of 1 to 12 or JAN to DEC`},
		{"* * * * 8", "", `day of week "8": "8" is not one of 0 to 7 or SUN to SAT`},
		{"* * * * foo", "", `day of week "FOO": "FOO" is not one of 0 to 7 or SUN to SAT`},
		{"* * * * 5-8", "", `day of week "5-8": "8" is not one of 0 to 7 or SUN to SAT`},
		{"* MON * * *", "", `hour "MON": "MON" is not one of 0 to 23`},
		{"22-3 25 * * *", "", `minute "22-3": "22-3" runs backwards: write two ranges, like 22-59,0-3; hour "25": "25" is not one of 0 to 23`},
		{"* * * * 7-2", "", `day of week "7-2": "7-2" runs backwards: write two ranges, like 7-7,0-2`},
		{"*/0 * * * *", "", `minute "*/0": "*/0" has a step of 0: the smallest is 1`},
		{"* * L * *", "", `day of month "L": "L" is not understood: write *, a number, a range like 2-6, a step like */2, or a list of these`},
		{"* * * * 5#2", "", `day of week "5#2": "5#2" is not understood: write *, a number, a range like 1-5, a step like */2, or a list of these`},
		{"-1 * * * *", "", `minute "-1": "-1" is not understood: write *, a number, a range like 1-5, a step like */2, or a list of these`},
		{"1-2-3 * * * *", "", `minute "1-2-3": "1-2-3" is not understood: write *, a number, a range like 1-5, a step like */2, or a list of these`},
		{"*/2/3 * * * *", "", `minute "*/2/3": "*/2/3" is not understood: write *, a number, a range like 1-5, a step like */2, or a list of these`},
		{"* * 31 2,4,6 *", "", `the schedule never ticks: there is no day 31 in February, April, June`},
		{"@every", "", `"@every" is not understood: @every needs one duration, without blanks, like "@every 1d12h"`},
		{"@every 1h 30m", "", `"@every 1h 30m" is not understood: @every needs one duration, without blanks, like "@every 1d12h"`},
		{"@every 0", "", `"@every 0" is too often: the shortest interval is 1m`},
		{"@every 59s", "", `"@every 59s" is too often: the shortest interval is 1m`},
		{"@every 90.5s", "", `"@every 90.5s" has a part below a second: write whole seconds`},
		{"@every 1M", "", `@every: "1M" is no duration: "1M" is not understood (write it like 90s, 36h, 7d or 1w2d; 1d is 24 hours)`},

		{"@daily", "Local", `"Local" is no time zone: it is another one on every host; write a name of the IANA database, like "Europe/Berlin", or "UTC"`},
		{"@daily", "localtime", `"localtime" is no time zone: it is another one on every host; write a name of the IANA database, like "Europe/Berlin", or "UTC"`},
		{"@daily", "right/Europe/Berlin", `"right/Europe/Berlin" is no time zone: not every host has these variants of the database; write a name of the IANA database, like "Europe/Berlin", or "UTC"`},
		{"@daily", "CEST", `"CEST" is no time zone: it is unknown; write a name of the IANA database, like "Europe/Berlin", or "UTC"`},
		{"@daily", "../../etc/localtime", `"../../etc/localtime" is no time zone: it is unknown; write a name of the IANA database, like "Europe/Berlin", or "UTC"`},
		{"@every 1h", "Mars/Olympus", `"Mars/Olympus" is no time zone: it is unknown; write a name of the IANA database, like "Europe/Berlin", or "UTC"`},
	} {
		s, err := Parse(c.spec, c.zone)
		if err == nil {
			t.Errorf("Parse(%q, %q) gave %s", c.spec, c.zone, s)
			continue
		}
		if err.Error() != c.want {
			t.Errorf("Parse(%q, %q):\n got %s\nwant %s", c.spec, c.zone, err, c.want)
		}
		if zoneErr := (*ZoneError)(nil); errors.As(err, &zoneErr) != (c.zone != "") {
			t.Errorf("Parse(%q, %q): a problem of the wrong field: %T", c.spec, c.zone, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		spec, zone string
		want       []string
	}{
		{"0 3 * * *", "", nil},
		{"0 12 1 * *", "Europe/Berlin", nil},
		{"*/15 */6 * * *", "", nil},
		{"0 3 */2 * *", "", nil},
		{"@every 36h", "", nil},
		{"@every 36h", "UTC", nil},
		{"30 * * * *", "Europe/Berlin", nil}, // both passes, and none in the gap: an hour by the watch
		{"30 2 1 1 *", "Europe/Berlin", nil}, // clocks never change on that day
		{"30 2 * * *", "Asia/Tokyo", nil},    // nor ever in that zone
		{"@every 36h", "Asia/Tokyo", []string{"the timezone Asia/Tokyo does not matter: @every counts from 1970-01-01T00:00:00Z"}},
		{"0 0 13 * fri", "", []string{`day of month "13" and day of week "FRI" are both restricted: cron ticks on days that match either of them, not only on those that match both`}},
		{"0 0 */2 * MON", "", []string{`day of month "*/2" and day of week "MON" are both restricted: cron ticks on days that match either of them, not only on those that match both`}},
		{"0 0 30 1-3 *", "", []string{"there is no day 30 in February: no tick comes then"}},
		{"0 0 29 2 *", "", []string{"there is a February 29 in leap years only: no tick comes in the other Februaries"}},
		{"0 0 29-31 2 MON", "", []string{`day of month "29-31" and day of week "MON" are both restricted: cron ticks on days that match either of them, not only on those that match both`}},
		{"*/45 * * * *", "", []string{`minute "*/45" starts again with every hour, so its distances are not all 45: for an even distance write "@every 45m"`}},
		{"0 */36 * * *", "", []string{`hour "*/36" starts again with every day, so its distances are not all 36: for an even distance write "@every 36h"`}},
		{"30 2 * * *", "Europe/Berlin", []string{
			"02:30 does not exist in Europe/Berlin on days when the clocks go forward over it, such as 2026-03-29: it then ticks at the end of the gap, 03:00",
			"02:30 comes twice in Europe/Berlin on days when the clocks go back over it, such as 2026-10-25: it then ticks the first time only",
		}},
		{"15,30 1 * * *", "America/New_York", []string{
			"01:15 comes twice in America/New_York on days when the clocks go back over it, such as 2026-11-01: it then ticks the first time only",
		}},
	} {
		s := mustParse(t, c.spec, c.zone)
		if got := s.Warnings(); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", s, got, c.want)
		}
	}
	s := mustParse(t, "0 0 13 * FRI", "")
	s.Warnings()[0] = ""
	if s.Warnings()[0] == "" {
		t.Error("a caller changed the schedule")
	}
}

// Each defect of robfig/cron v3.0.1 that this package is there to hide: first as it is (so that a
// version without it is noticed), then hidden.
func TestRobfigDefects(t *testing.T) {
	robfig := func(t *testing.T, spec string) cron.Schedule {
		t.Helper()
		s, err := cron.ParseStandard(spec)
		if err != nil {
			t.Fatalf("robfig no longer accepts %q: %v", spec, err)
		}
		return s
	}
	refuses := func(t *testing.T, spec, why string) {
		t.Helper()
		if s, err := Parse(spec, ""); err == nil {
			t.Errorf("Parse accepts %q as %s", spec, s)
		} else if !strings.Contains(err.Error(), why) {
			t.Errorf("Parse(%q): %q does not say %q", spec, err, why)
		}
	}
	count := func(next func(time.Time) time.Time, from, to string) (n int) {
		for at := next(clock(t, from)); !at.After(clock(t, to)); at = next(at) {
			n++
		}
		return n
	}

	for _, prefix := range []string{"TZ=", "CRON_TZ=", "CRON_TZ=UTC"} {
		t.Run("a zone without a blank after it panics: "+prefix, func(t *testing.T) {
			func() {
				defer func() {
					if recover() == nil {
						t.Error("robfig no longer panics")
					}
				}()
				_, _ = cron.ParseStandard(prefix)
			}()
			refuses(t, prefix, "write the zone into the field timezone")
			refuses(t, strings.ToLower(prefix)+" 0 3 * * *", "write the zone into the field timezone")
		})
	}
	t.Run("the zone is the host's", func(t *testing.T) {
		if loc := robfig(t, "0 3 * * *").(*cron.SpecSchedule).Location; loc != time.Local {
			t.Errorf("robfig's default is now %s", loc)
		}
		if loc := mustParse(t, "0 3 * * *", "").Location(); loc != time.UTC {
			t.Errorf("the default is %s", loc)
		}
	})
	t.Run("a time in a gap is skipped", func(t *testing.T) {
		theirs := robfig(t, "CRON_TZ=Europe/Berlin 30 2 * * *").Next
		ours := mustParse(t, "30 2 * * *", "Europe/Berlin").Next
		if n := count(theirs, "2024-03-30 12:00", "2024-03-31 12:00"); n != 0 {
			t.Errorf("robfig now ticks %d times", n)
		}
		if n := count(ours, "2024-03-30 12:00", "2024-03-31 12:00"); n != 1 {
			t.Errorf("%d ticks on the day of the change", n)
		}
	})
	t.Run("a missing midnight loses a day", func(t *testing.T) {
		theirs := robfig(t, "CRON_TZ=Africa/Cairo @daily").Next
		ours := mustParse(t, "@daily", "Africa/Cairo").Next
		if n := count(theirs, "2000-04-26 12:00", "2000-04-29 12:00"); n != 2 {
			t.Errorf("robfig now ticks %d times in three days", n)
		}
		if n := count(ours, "2000-04-26 12:00", "2000-04-29 12:00"); n != 3 {
			t.Errorf("%d ticks in three days", n)
		}
	})
	t.Run("even a noon is lost", func(t *testing.T) {
		theirs := robfig(t, "CRON_TZ=Asia/Pyongyang 0 12 * * *").Next
		ours := mustParse(t, "0 12 * * *", "Asia/Pyongyang").Next
		after := clock(t, "2018-05-04 03:30") // noon in Pyongyang
		if got := theirs(after).Sub(after); got < 36*time.Hour {
			t.Errorf("robfig's next noon is now %s away", got)
		}
		if got := ours(after).Sub(after); got != 23*time.Hour+30*time.Minute {
			t.Errorf("the next noon is %s away", got)
		}
	})
	t.Run("a repeated time ticks twice", func(t *testing.T) {
		theirs := robfig(t, "CRON_TZ=America/New_York 30 1 * * *").Next
		ours := mustParse(t, "30 1 * * *", "America/New_York").Next
		if n := count(theirs, "2023-11-05 04:00", "2023-11-05 12:00"); n != 2 {
			t.Errorf("robfig now ticks %d times", n)
		}
		if n := count(ours, "2023-11-05 04:00", "2023-11-05 12:00"); n != 1 {
			t.Errorf("%d ticks", n)
		}
	})
	t.Run("a date that does not exist loops for ever", func(t *testing.T) {
		// Robfig's Next("0 12 * * *", Apia, 2011-12-29) does not return, so it is not called.
		if got := mustParse(t, "0 12 31 * *", "Pacific/Apia").Next(clock(t, "2011-12-30 00:00")); show(got, time.UTC) != "2011-12-30 22:00 +0000" {
			t.Errorf("got %s", got)
		}
	})
	for _, spec := range []string{"0 0 30 2 *", "0 0 31 4 *", "0 0 31 FEB,APR,JUN *"} {
		t.Run("never ticks: "+spec, func(t *testing.T) {
			if got := robfig(t, spec).Next(clock(t, "2026-01-01 00:00")); !got.IsZero() {
				t.Errorf("robfig now ticks at %s", got)
			}
			refuses(t, spec, "never ticks: there is no day 3")
		})
	}
	for _, spec := range []string{", * * * *", "0 , * * *", "0 0 * ,, *"} {
		t.Run("a list without items never ticks: "+spec, func(t *testing.T) {
			if got := robfig(t, spec).Next(clock(t, "2026-01-01 00:00")); !got.IsZero() {
				t.Errorf("robfig now ticks at %s", got)
			}
			refuses(t, spec, "an item of the list is empty")
		})
	}
	for _, spec := range []string{"1,,2 * * * *", "1, * * * *"} {
		t.Run("an empty item is ignored: "+spec, func(t *testing.T) {
			robfig(t, spec)
			refuses(t, spec, "an item of the list is empty")
		})
	}
	t.Run("what follows a star is ignored", func(t *testing.T) {
		if got := robfig(t, "*-5 * * * *").Next(clock(t, "2026-01-01 00:30")); got != clock(t, "2026-01-01 00:31") {
			t.Errorf("robfig now ticks at %s", got)
		}
		refuses(t, "*-5 * * * *", "is not understood")
	})
	t.Run("leap days after eight years are given up", func(t *testing.T) {
		after := clock(t, "2096-03-01 00:00")
		if got := robfig(t, "CRON_TZ=UTC 0 0 29 2 *").Next(after); !got.IsZero() {
			t.Errorf("robfig now ticks at %s", got)
		}
		if got := mustParse(t, "0 0 29 2 *", "").Next(after); got != clock(t, "2104-02-29 00:00") {
			t.Errorf("got %s", got)
		}
	})
	for _, spec := range []string{"@every 0s", "@every -1h", "@every 1ms"} {
		t.Run("fires every second: "+spec, func(t *testing.T) {
			at := clock(t, "2026-01-01 00:00")
			if got := robfig(t, spec).Next(at).Sub(at); got != time.Second {
				t.Errorf("robfig now waits %s", got)
			}
			refuses(t, spec, "@every")
		})
	}
	t.Run("@every counts from the process's start", func(t *testing.T) {
		theirs, ours := robfig(t, "@every 1h").Next, mustParse(t, "@every 1h", "").Next
		one, two := clock(t, "2026-01-01 00:10"), clock(t, "2026-01-01 00:20")
		if theirs(one).Equal(theirs(two)) {
			t.Error("robfig now has a grid")
		}
		if !ours(one).Equal(ours(two)) {
			t.Error("two processes disagree")
		}
	})
	t.Run("7 is no Sunday", func(t *testing.T) {
		if _, err := cron.ParseStandard("0 0 * * 7"); err == nil {
			t.Error("robfig now accepts 7")
		}
		if _, err := cron.ParseStandard("0 0 * * FRI-SUN"); err == nil {
			t.Error("robfig now accepts FRI-SUN")
		}
		mustParse(t, "0 0 * * 7", "")
		mustParse(t, "0 0 * * FRI-SUN", "")
	})
	t.Run("both day fields mean either, silently", func(t *testing.T) {
		if len(mustParse(t, "0 0 13 * FRI", "").Warnings()) != 1 {
			t.Error("no warning")
		}
	})
	t.Run("there is no catching up", func(t *testing.T) {
		// Robfig's Schedule has Next only; what was missed while the process was down is lost.
		if got := mustParse(t, "0 0 29 2 *", "").Last(clock(t, "2103-12-31 00:00")); got != clock(t, "2096-02-29 00:00") {
			t.Errorf("got %s", got)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, spec := range []string{"0 3 * * MON", "*/5 1-7/2 ? JAN,7 fri-sun", "@every 1w2d", "@daily", "CRON_TZ=", "1,,2 * * * *", "0 0 30 2 *"} {
		f.Add(spec, "Europe/Berlin", int64(1711846800))
	}
	f.Fuzz(func(t *testing.T, spec, zone string, sec int64) {
		s, err := Parse(spec, zone)
		if err != nil {
			return
		}
		at := time.Unix(sec, 0)
		if next := s.Next(at); !next.IsZero() && (!next.After(at) || !s.Last(next).Equal(next)) {
			t.Errorf("%s: Next(%s) is %s", s, at, next)
		}
		cut := strings.LastIndex(s.String(), " ")
		again, err := Parse(s.String()[:cut], s.String()[cut+1:])
		if err != nil || again.String() != s.String() || !again.Next(at).Equal(s.Next(at)) {
			t.Errorf("%q is not read back: %v, %v", s, again, err)
		}
	})
}

// Robfig stands beside for comparison.
func BenchmarkNext(b *testing.B) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ spec, zone string }{
		{"0 3 * * *", "UTC"},
		{"0 3 * * MON", "Europe/Berlin"},
		{"*/15 * * * *", "Europe/Berlin"},
		{"0 0 29 2 *", "Europe/Berlin"},
	} {
		s := mustParse(b, c.spec, c.zone)
		theirs, err := cron.ParseStandard(fmt.Sprintf("CRON_TZ=%s %s", c.zone, c.spec))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(s.String()+"/Next", func(b *testing.B) {
			for b.Loop() {
				s.Next(at)
			}
		})
		b.Run(s.String()+"/Last", func(b *testing.B) {
			for b.Loop() {
				s.Last(at)
			}
		})
		b.Run(s.String()+"/robfig", func(b *testing.B) {
			for b.Loop() {
				theirs.Next(at)
			}
		})
	}
}
