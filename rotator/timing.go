package rotator

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// MaxLifetime is the longest life that is asked for: 365 days are assumed to be SiteGPT's ceiling
// (it documents expiresInDays up to 365), less five minutes for clocks that differ.
const MaxLifetime = 365*24*time.Hour - 5*time.Minute

// Schedule names instants. Implementations are pure: they never ask what time it is.
type Schedule interface {
	// Next returns the first tick after t, or the zero time where there is none.
	Next(after time.Time) time.Time
	// Last returns the last tick at or before t, or the zero time where there is none.
	Last(at time.Time) time.Time
	// String returns the schedule as it was written, with its zone: equal strings tick alike.
	String() string
}

// Timing is when an entry rotates, and how much time everybody gets. It is the one rule: the
// daemon, plan, simulate and the validation all ask it, and none of them does sums of its own.
type Timing struct {
	Schedule Schedule
	Overlap  time.Duration // O: predecessor and successor are both valid, for the consumers
	Margin   time.Duration // R: for our own retries; with Lifetime, what Check found to be left over
	Lifetime time.Duration // instead of Margin: every token lives exactly this long; 0: not set
	Jitter   time.Duration // J: an upper bound; the entry's own share comes from its name

	// Passes is the promised distance between passes of once; 0: a daemon looks all the time. It moves
	// nothing, but a pass that fails is repeated only then, and what falls due before it is done early.
	Passes time.Duration
}

// Fingerprint changes when, and only when, an edit may move Planned.
func (t Timing) Fingerprint() string {
	s := ""
	if t.Schedule != nil {
		s = t.Schedule.String()
	}
	if t.Lifetime > 0 {
		return fmt.Sprintf("%s overlap %s lifetime %s jitter %s", s, t.Overlap, t.Lifetime, t.Jitter)
	}
	return fmt.Sprintf("%s overlap %s margin %s jitter %s", s, t.Overlap, t.Margin, t.Jitter)
}

// Tick returns the first tick after t that is worth a rotation: one that is nearer to t than a
// tenth of the distance to the tick after it is passed over, since a token created now would
// hardly have lived. The zero time where there is none.
func (t Timing) Tick(after time.Time) time.Time {
	a := t.Schedule.Next(after)
	for range 16 { // each round passes over a tick; distances that grow tenfold sixteen times do not exist
		b := t.Schedule.Next(a)
		if a.IsZero() || b.IsZero() || a.Sub(after) >= b.Sub(a)/10 {
			return a
		}
		a = b
	}
	return a
}

// Expiry returns the expiresAt of a token created at c: as long as its successor may need, or the
// declared lifetime; at most MaxLifetime. The successor's tick is the first one after since: c
// itself, or later, where the token was created early for a tick to come. UTC, whole seconds.
func (t Timing) Expiry(c, since time.Time) time.Time {
	limit := c.Add(MaxLifetime)
	e := limit
	switch tick := t.Tick(since); {
	case t.Lifetime > 0:
		e = c.Add(t.Lifetime)
	case !tick.IsZero():
		e = tick.Add(t.Jitter + t.Margin + t.Overlap)
	}
	if e.After(limit) {
		e = limit
	}
	return e.UTC().Truncate(time.Second)
}

// due is the one rule for when a successor is due, behind all that is said or done about it: at the
// tick, or as early as the expiry e demands, plus the entry's own jitter.
func (t Timing) due(name string, tick, e time.Time) time.Time {
	if latest := t.latest(e); tick.IsZero() || latest.Before(tick) {
		tick = latest
	}
	return tick.Add(t.share(name))
}

// latest is when at the latest the successor of a token with expiry e must be due.
func (t Timing) latest(e time.Time) time.Time {
	return e.Add(-t.Overlap - t.Margin - t.Jitter)
}

// Planned returns when the successor of a token with expiry e is due, whose tick is the first one
// after c, its creation (or later, as for Expiry). short says that the server granted less life than
// overlap and margin need; half of the life is then the earliest, so that a miserly server cannot
// make us rotate in a loop.
func (t Timing) Planned(name string, c, e time.Time) (at time.Time, short bool) {
	tick := t.Tick(c)
	if latest := t.latest(e); tick.IsZero() || latest.Before(tick) {
		if half := c.Add(e.Sub(c) / 2); latest.Before(half) {
			if tick.IsZero() || half.Before(tick) {
				return half, true
			}
			return tick, true
		}
	}
	return t.due(name, tick, e), false
}

// Replan returns when a token with expiry e, planned for old, is due after its timing was edited:
// at the first tick of the new schedule after now. An edit makes nothing due that was not.
func (t Timing) Replan(name string, now, old, e time.Time) time.Time {
	if at := t.due(name, t.Tick(now), e); at.After(now) {
		return at
	}
	return old
}

// Coming returns when the successor of a token that is created at c is due, and the successors after
// it, if each is created when it is due: n instants, or fewer where the schedule ends.
func (t Timing) Coming(name string, c time.Time, n int) []time.Time {
	var out []time.Time
	for range n {
		at, _ := t.Planned(name, c, t.Expiry(c, c))
		if !at.After(c) {
			break
		}
		out = append(out, at)
		c = at
	}
	return out
}

// Leaves reports whether a retired token that may be revoked at revokeAt is left to expire at e by
// itself: the successor's own delays, jitter and margin, are no reason for a request. But nothing is
// left alive for longer than a second overlap, however generous the margin or the lifetime is.
func (t Timing) Leaves(revokeAt, e time.Time) bool {
	return !e.After(revokeAt.Add(t.Jitter + min(t.Margin, t.Overlap)))
}

// share is the entry's own part of the jitter: the same each time, spread evenly over names.
func (t Timing) share(name string) time.Duration {
	if t.Jitter <= 0 {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(name)) //nolint:errcheck // a hash never fails to write
	// FNV alone leaves names that differ in their last letter close together.
	x := h.Sum64() * 0x9E3779B97F4A7C15
	x ^= x >> 29
	return time.Duration(x % uint64(t.Jitter)).Truncate(time.Second)
}

// Facts is what a timing comes to over the coming years.
type Facts struct {
	Widest   time.Duration // the longest a token waits for its successor, without jitter
	Narrow   time.Duration // the shortest distance between two ticks
	PerDay   int           // the most ticks in any 24 hours
	Live     int           // the highest number of live generations
	Lifetime time.Duration // the longest life of a token
	Margin   time.Duration // R: outages shorter than this cost no overlap; shorter than R+O, no gap
	Overlap  time.Duration // O
	Passes   time.Duration // the promised distance between passes of once
	Next     []time.Time   // the next ticks, at most five; what is due when, Coming says
}

// KeepsOverlap is the outage from which on overlap is lost: the last pass before it ends may be as
// long ago as passes are apart.
func (f Facts) KeepsOverlap() time.Duration { return max(0, f.Margin-f.Passes) }

// NoGap is the outage from which on users are left with a dead token.
func (f Facts) NoGap() time.Duration { return max(0, f.Margin+f.Overlap-f.Passes) }

// MaxPosts is the fuse: the most creates in 24 hours that honest use can need.
func (f Facts) MaxPosts() int { return 2*f.PerDay + 8 }

// MaxLive is the fuse's other half: the most live generations.
func (f Facts) MaxLive() int { return f.Live + 3 }

// TimingProblem is one thing that is wrong, or doubtful, about a timing.
type TimingProblem struct {
	Field   string // schedule, overlap, margin, lifetime or jitter
	Text    string
	Warning bool
}

// Limits that Check holds a timing against.
const (
	horizon      = 5 * 366 * 24 * time.Hour // "the coming years": holds every leap day and DST rule at least once
	surveyTicks  = 100_000                  // ticks that are looked at one by one
	minDistance  = time.Minute              // a rotation more often than this is a loop
	manyLive     = 24                       // live generations from which on a warning is due
	tooManyLive  = 200                      // and from which on the configuration is refused
	minMargin    = 10 * time.Second         // less leaves no time for a single retry
	requestsEach = 4                        // create, me, revoke and a share of the lists
)

// Check proves a timing for the years after from, or says with numbers why it cannot hold. The
// facts are right only where no problem but warnings was found.
func (t Timing) Check(from time.Time) (Facts, []TimingProblem) {
	var problems []TimingProblem
	bad := func(field, format string, args ...any) {
		problems = append(problems, TimingProblem{Field: field, Text: fmt.Sprintf(format, args...)})
	}
	warn := func(field, format string, args ...any) {
		problems = append(problems, TimingProblem{Field: field, Text: fmt.Sprintf(format, args...), Warning: true})
	}
	f := t.survey(from)
	f.Overlap, f.Passes = t.Overlap, t.Passes
	switch len(f.Next) {
	case 0:
		bad("schedule", "never fires within the coming five years: nothing would ever rotate")
		return f, problems
	case 1:
		bad("schedule", "fires only once within the coming five years, on %s, and a token lives 365 days at most: rotate more often", f.Next[0].UTC().Format(time.DateOnly))
		return f, problems
	}
	if f.Narrow < minDistance {
		bad("schedule", "two ticks are only %s apart: the closest that is accepted is %s", span(f.Narrow), span(minDistance))
	}
	if t.Overlap <= 0 {
		bad("overlap", "must be longer than nothing: consumers need time to move from one token to the next")
	}
	if t.Jitter >= t.Overlap && t.Overlap > 0 {
		bad("jitter", "%s must be shorter than the overlap, %s", span(t.Jitter), span(t.Overlap))
	}
	need := f.Widest + t.Passes + t.Jitter + t.Overlap
	if t.Lifetime > 0 {
		f.Margin = t.Lifetime - need
		f.Lifetime = t.Lifetime
		if f.Margin < minMargin {
			bad("lifetime", "%s is too short: %s between rotations%s + jitter %s + overlap %s is %s already, and retries need a margin on top; use at least %s, or rotate more often",
				span(t.Lifetime), span(f.Widest), t.early(), span(t.Jitter), span(t.Overlap), span(need), span(need+max(t.Overlap/4, minMargin)))
		}
		if t.Lifetime > MaxLifetime {
			bad("lifetime", "%s is longer than %s, the most that is asked for: SiteGPT grants 365 days, and clocks differ", span(t.Lifetime), span(MaxLifetime))
		}
	} else {
		f.Margin = t.Margin
		f.Lifetime = need + t.Margin
		if t.Margin < minMargin {
			bad("margin", "%s leaves no time for a retry: use at least %s", span(t.Margin), span(minMargin))
		}
		if f.Lifetime > MaxLifetime {
			field := "schedule"
			if t.Overlap+t.Margin > f.Widest {
				field = "overlap"
			}
			bad(field, "a token would have to live %s (%s between rotations%s + jitter %s + margin %s + overlap %s), longer than the 365 days that SiteGPT grants: rotate more often, or shorten overlap or margin",
				span(f.Lifetime), span(f.Widest), t.early(), span(t.Jitter), span(t.Margin), span(t.Overlap))
		}
	}
	if t.Passes > 0 && f.Margin >= minMargin {
		switch {
		case f.NoGap() == 0:
			bad("margin", "%s and overlap %s are used up by a single pass that fails, since the next one comes %s later: run once more often, or give more of them", span(f.Margin), span(t.Overlap), span(t.Passes))
		case f.KeepsOverlap() == 0:
			warn("margin", "%s does not reach to the next pass, %s later: a single one that fails costs the users overlap", span(f.Margin), span(t.Passes))
		}
		if f.Narrow < t.Passes {
			warn("schedule", "two ticks can be only %s apart, and passes %s: those that fall between two passes share one rotation", span(f.Narrow), span(t.Passes))
		}
	}
	switch {
	case f.Live > tooManyLive:
		bad("overlap", "%s with this schedule keeps up to %d tokens alive at once, more than the %d that are accepted: shorten the overlap or the margin, or rotate less often", span(t.Overlap), f.Live, tooManyLive)
	case f.Live > manyLive:
		warn("overlap", "%s with this schedule keeps up to %d tokens alive at once", span(t.Overlap), f.Live)
	}
	return f, problems
}

// early is what a proof with passes adds, in words.
func (t Timing) early() string {
	if t.Passes == 0 {
		return ""
	}
	return " + up to " + span(t.Passes) + " early"
}

// survey walks over the ticks of the coming years.
func (t Timing) survey(from time.Time) Facts {
	var f Facts
	until := from.Add(horizon)
	left := t.Margin // as in Leaves; with a lifetime it is what will be left over, whatever that is
	if t.Lifetime > 0 {
		left = t.Overlap
	}
	window := t.Overlap + t.Jitter + min(left, t.Overlap) + 2*t.Passes // a generation outlives its successor's tick by this much
	var day, live []time.Time                                          // ticks within the last 24 hours, and within the window
	slide := func(q []time.Time, now time.Time, d time.Duration) []time.Time {
		for len(q) > 0 && now.Sub(q[0]) >= d {
			q = q[1:]
		}
		if len(q) > 4*tooManyLive+24*60 { // enough to refuse it
			return q
		}
		return append(q, now)
	}
	gap := func(before, a, b time.Time) { // the ticks a and b follow each other; before came before a
		d := b.Sub(a)
		// A token created up to a tenth of d before a passes a over and waits for b.
		f.Widest = max(f.Widest, d+min(d/10, a.Sub(before)))
		if f.Narrow == 0 || d < f.Narrow {
			f.Narrow = d
		}
	}
	before, a := from, t.Schedule.Next(from)
	for n := 0; !a.IsZero() && a.Before(until) && n < surveyTicks; n++ {
		if len(f.Next) < 5 {
			f.Next = append(f.Next, a)
		}
		day, live = slide(day, a, 24*time.Hour), slide(live, a, window)
		f.PerDay, f.Live = max(f.PerDay, len(day)), max(f.Live, len(live)+1)
		b := t.Schedule.Next(a)
		if b.IsZero() {
			break
		}
		gap(before, a, b)
		before, a = a, b
	}
	// A schedule with very many ticks is looked at only around each of the remaining midnights:
	// that is where a cron expression, which describes one day's ticks for all days, can pause.
	for d := a; !a.IsZero() && d.Before(until); d = d.Add(24 * time.Hour) {
		last, next := t.Schedule.Last(d), t.Schedule.Next(d)
		if last.IsZero() || next.IsZero() {
			break
		}
		gap(t.Schedule.Last(last.Add(-time.Nanosecond)), last, next)
	}
	f.Widest = max(f.Widest, 0)
	return f
}

// LoadProblem says that entries together ask for more requests than the limit lets through.
type LoadProblem struct {
	Entries []string // their names, sorted
	Text    string
}

// CheckLoad looks for ticks that so many entries share that, at perMinute requests, the last of
// them would be served only after its margin.
func CheckLoad(entries []Entry, perMinute int, from time.Time) []LoadProblem {
	if perMinute <= 0 {
		return nil
	}
	const window = 62 * 24 * time.Hour // each monthly tick at least once
	const most = 2000
	bySchedule := map[string][]*Entry{}
	for i := range entries {
		s := entries[i].Timing.Schedule.String()
		bySchedule[s] = append(bySchedule[s], &entries[i])
	}
	load := map[int64]int{} // entries at a tick
	ticks := map[string][]int64{}
	for s, group := range bySchedule {
		at := group[0].Timing.Schedule.Next(from)
		for n := 0; n < most && !at.IsZero() && at.Before(from.Add(window)); n++ {
			ticks[s] = append(ticks[s], at.Unix())
			load[at.Unix()] += len(group)
			at = group[0].Timing.Schedule.Next(at)
		}
	}
	var out []LoadProblem
	for s, group := range bySchedule {
		worst, at := 0, int64(0)
		for _, u := range ticks[s] {
			if load[u] > worst {
				worst, at = load[u], u
			}
		}
		needs := time.Duration(worst) * requestsEach * time.Minute / time.Duration(perMinute)
		var late []string
		margin := time.Duration(0)
		for _, e := range group {
			if needs >= e.Timing.Margin {
				late = append(late, e.Name)
				if margin == 0 || e.Timing.Margin < margin {
					margin = e.Timing.Margin
				}
			}
		}
		if len(late) == 0 {
			continue
		}
		slices.Sort(late)
		out = append(out, LoadProblem{Entries: late, Text: fmt.Sprintf(
			"%d tokens share the tick %s: at %d requests a minute their rotation takes %s, which is not within the margin of %s; raise api.requests_per_minute or margin, or spread the schedules",
			worst, time.Unix(at, 0).UTC().Format(time.RFC3339), perMinute, span(needs), span(margin))})
	}
	slices.SortFunc(out, func(a, b LoadProblem) int { return strings.Compare(a.Entries[0], b.Entries[0]) })
	return out
}

// span writes a duration as people do: 1d12h, 1m30s, 5m. It is the domain's own field.FormatDuration,
// which it must not import; a test holds them to the same.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + span(-d)
	case d == 0:
		return "0"
	case d < time.Millisecond:
		return d.String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	d = d.Round(time.Second)
	var parts []string
	for _, u := range []struct {
		name string
		len  time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if n := d / u.len; n > 0 {
			parts = append(parts, fmt.Sprintf("%d%s", n, u.name))
			d -= n * u.len
		} else if len(parts) > 0 {
			break
		}
		if len(parts) == 2 {
			break
		}
	}
	return strings.Join(parts, "")
}

// covers is the last tick that a token created at c stands for besides its own: nobody is there before
// the next pass of once, and ticks until then are this one's. The zero time where there is none.
func (e *Entry) covers(c time.Time) time.Time {
	if e.Ahead > 0 {
		if last := e.Timing.Schedule.Last(c.Add(e.Ahead)); last.After(c) {
			return last
		}
	}
	return time.Time{}
}

// Successor returns when the successor of a token that is created at c is due.
func (e *Entry) Successor(c time.Time) time.Time {
	since := maxTime(c, e.covers(c))
	at, _ := e.Timing.Planned(e.Name, since, e.Timing.Expiry(c, since))
	return at
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
