package audit

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rotatord/rotatord/rotator/field"
)

// judge gathers what is to be told of a token; false where the time holds nothing of it.
func (h *history) judge(r *Reader) (Token, bool) {
	until := r.report.Until
	t := Token{Name: h.name, Was: h.was, Known: h.known, Verdict: Kept}
	if n := len(h.removed); n > 0 && h.removed[n-1].until.IsZero() {
		t.Removed = h.removed[n-1].from
	}
	for _, l := range h.lives { // what nobody said yet: an expiry has its instant
		if l.End == Alive && !l.Expires.IsZero() && !l.Expires.After(until) {
			l.end(Expired, l.Expires, "", "")
		}
	}
	h.succeed(until)
	if !t.Removed.IsZero() && !r.within(t.Removed) && !slices.ContainsFunc(h.lives, func(l *Life) bool { return h.told(r, l) }) {
		return t, false
	}

	for _, l := range h.lives {
		if !h.told(r, l) {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(h.consumers)) {
			if told := h.consumers[name][l.Generation]; told != nil && !l.Promoted.IsZero() {
				l.Told = append(l.Told, *told)
			}
		}
		t.Lives = append(t.Lives, *l)
		if !l.Promoted.IsZero() && r.within(l.Promoted) {
			t.Rotations++
		}
		if l.Successor != 0 && l.End != Alive && l.Overlap > 0 {
			if t.Overlaps == 0 || l.Overlap < t.Least {
				t.Least = l.Overlap
			}
			t.Overlaps++
		}
	}
	slices.SortStableFunc(t.Lives, func(a, b Life) int { return cmp.Compare(a.Generation, b.Generation) })
	count := func(all []time.Time) (n int) {
		for _, at := range all {
			if r.within(at) {
				n++
			}
		}
		return n
	}
	t.Tries, t.Failures = count(h.tries), count(h.failures)
	for _, g := range h.gaps(until) {
		if g.Until.IsZero() || !g.Until.Before(r.report.Since) {
			t.Gaps = append(t.Gaps, g)
		}
	}
	for _, d := range h.disturbed {
		if d.Until.IsZero() || !d.Until.Before(r.report.Since) {
			t.Disturbed = append(t.Disturbed, d)
		}
	}
	for _, b := range h.behind(until) {
		if b.Until.IsZero() || !b.Until.Before(r.report.Since) {
			t.Behind = append(t.Behind, b)
		}
	}
	for _, name := range h.held {
		t.Held = append(t.Held, name)
	}
	slices.Sort(t.Held)
	t.verdict(r)
	return t, true
}

// told reports whether a life touches the time that is told of in detail.
func (h *history) told(r *Reader, l *Life) bool {
	return l.Ended.IsZero() || !l.Ended.Before(r.report.Since)
}

// succeed finds out by whom each promoted generation was succeeded, and how long both were valid.
func (h *history) succeed(until time.Time) {
	for i, l := range h.promoted {
		if i+1 == len(h.promoted) {
			break
		}
		next := h.promoted[i+1]
		l.Successor, l.Replaced = next.Generation, next.inPlace()
		end := l.Ended
		if end.IsZero() {
			end = until
		}
		l.Overlap = end.Sub(l.Replaced)
	}
}

// inPlace is when a promoted generation had reached the sinks: the last push before its promotion,
// which is saved a moment later.
func (l *Life) inPlace() time.Time {
	var at time.Time
	for _, p := range l.pushes {
		if !p.at.After(l.Promoted) && p.at.After(at) {
			at = p.at
		}
	}
	if at.IsZero() {
		return l.Promoted
	}
	return at
}

// gaps are the times in which a generation was dead, and a sink that had to hold it held it still. One
// that never was in every sink may leave those that it had reached.
func (h *history) gaps(until time.Time) (gaps []Gap) {
	for _, l := range h.lives {
		i := slices.Index(h.promoted, l)
		if l.Ended.IsZero() || l.Ended.After(until) || i < 0 && len(l.pushes) == 0 {
			continue
		}
		var next *Life
		if j := slices.IndexFunc(h.promoted[i+1:], func(p *Life) bool { return p.Generation > l.Generation }); j >= 0 {
			next = h.promoted[i+1+j]
		}
		from := l.Ended
		sinks, end, open := h.left(l, next, from)
		if i < 0 && len(sinks) == 0 {
			continue
		}
		if len(l.pushes) == 0 { // adopted, or its pushes are not known: what is promoted tells
			open = next == nil
			if next != nil && next.inPlace().After(from) {
				end = next.inPlace()
			}
		}
		if open {
			end = time.Time{}
		} else if !end.After(from) {
			continue
		}
		if h.undeclared(&from, &end, until) {
			continue
		}
		g := Gap{Token: h.name, Generation: l.Generation, From: from, Until: end, Sinks: sinks, By: l.EndBy}
		switch l.End {
		case Expired:
			g.Why = fmt.Sprintf("generation %d expired before another one was in every required sink", l.Generation)
		case Died:
			g.Why = fmt.Sprintf("generation %d was found to be revoked by somebody else: the gap may have begun earlier", l.Generation)
		default:
			g.Why = fmt.Sprintf("generation %d was revoked: %s", l.Generation, l.EndWhy)
		}
		gaps = append(gaps, g)
	}
	slices.SortStableFunc(gaps, func(a, b Gap) int { return a.From.Compare(b.From) })
	return gaps
}

// left are the sinks that were left with l when it ended, and when the last of them got a newer one;
// open: one never did. A sink that is not required may have been left, and one that was passed over when
// next was promoted was not required then, or waited for a person.
func (h *history) left(l, next *Life, from time.Time) (sinks []string, end time.Time, open bool) {
	seen := map[string]bool{}
	for _, p := range l.pushes {
		if seen[p.place] || p.optional || h.disturbedAt(p.place, from) {
			continue
		}
		seen[p.place] = true
		newer := h.newer(p.place, l.Generation)
		switch {
		case next != nil && (newer.IsZero() || newer.After(next.Promoted)):
			continue
		case newer.IsZero():
			open = true
		case !newer.After(from):
			continue
		case newer.After(end):
			end = newer
		}
		sinks = append(sinks, p.sink)
	}
	slices.Sort(sinks)
	return sinks, end, open
}

// newer is when a sink first got a newer generation than n; zero where it never did.
func (h *history) newer(place string, n int) (first time.Time) {
	for _, l := range h.lives {
		if l.Generation <= n {
			continue
		}
		for _, p := range l.pushes {
			if p.place == place && (first.IsZero() || p.at.Before(first)) {
				first = p.at
			}
		}
	}
	return first
}

// disturbedAt reports whether a sink held something else at an instant than what was put there.
func (h *history) disturbedAt(place string, at time.Time) bool {
	return slices.ContainsFunc(h.disturbed, func(d Disturbance) bool {
		return d.place == place && !at.Before(d.From) && (d.Until.IsZero() || at.Before(d.Until))
	})
}

// undeclared cuts off the times in which nobody wanted the token; true where nothing is left.
func (h *history) undeclared(from, until *time.Time, now time.Time) bool {
	for _, s := range h.removed {
		inside := !from.Before(s.from) && (s.until.IsZero() || from.Before(s.until))
		switch {
		case inside && s.until.IsZero():
			return true
		case inside:
			*from = s.until
		case from.Before(s.from) && (until.IsZero() || s.from.Before(*until)):
			*until = s.from
		}
	}
	end := *until
	if end.IsZero() {
		end = now
	}
	return !from.Before(end)
}

// slow is how long a consumer may need to take a token before that is worth a look.
const slow = 2 * time.Minute

// behind are the consumers that were left with a dead token although its successor was in place, or that
// do not take the newest one. One that is added starts, untold, at the generation that is there: so
// whoever was told of a generation, or could not be, was there when that was promoted. Of others the
// journal proves nothing.
func (h *history) behind(until time.Time) (all []Behind) {
	for i, next := range h.promoted {
		for _, name := range slices.Sorted(maps.Keys(h.consumers)) {
			of := h.consumers[name]
			if of[next.Generation] == nil {
				continue
			}
			took, at := firstTaken(of, next.Generation)
			b := Behind{Consumer: name, Successor: next.Generation, Took: took, From: next.inPlace(), Until: at}
			if newest := i+1 == len(h.promoted); i == 0 || h.promoted[i-1].Ended.IsZero() {
				if newest && took == 0 && !h.undeclared(&b.From, &b.Until, until) && b.length(until) > slow {
					all = append(all, b)
				}
				continue
			}
			used := h.promoted[i-1]
			if own := of[used.Generation]; own != nil && own.Taken.IsZero() { // it used one that is older still
				continue
			}
			b.Used = used.Generation
			if used.Ended.After(b.From) {
				b.From = used.Ended
			}
			if took == 0 { // one that was never told of a later generation may be declared no more since that
				for _, later := range h.promoted[i+1:] {
					if of[later.Generation] == nil {
						b.Until = later.Promoted
						break
					}
				}
			}
			if !b.Until.IsZero() && !b.Until.After(b.From) || h.undeclared(&b.From, &b.Until, until) {
				continue
			}
			all = append(all, b)
		}
	}
	return all
}

// firstTaken is when a consumer first took generation n or a newer one; zero where it is not known to.
func firstTaken(of map[int]*Telling, n int) (took int, at time.Time) {
	for generation, t := range of {
		if generation >= n && !t.Taken.IsZero() && (at.IsZero() || t.Taken.Before(at)) {
			took, at = generation, t.Taken
		}
	}
	return took, at
}

func (b *Behind) length(now time.Time) time.Duration {
	if b.Until.IsZero() {
		return now.Sub(b.From)
	}
	return b.Until.Sub(b.From)
}

// words says it as of now, and no more than is known: a flag that was taken while nobody looked is
// found to be later.
func (b *Behind) words(now time.Time) string {
	long := field.FormatDuration(b.length(now))
	switch {
	case b.Used == 0:
		return fmt.Sprintf("%s is not known to have taken generation %d, in place for %s", b.Consumer, b.Successor, long)
	case b.Took == 0:
		return fmt.Sprintf("%s is not known to have taken one newer than generation %d for %s: that had ended, and generation %d was in place", b.Consumer, b.Used, long, b.Successor)
	}
	return fmt.Sprintf("%s is known to have taken generation %d only %s late: generation %d had ended, and generation %d was in place", b.Consumer, b.Took, long, b.Used, b.Successor)
}

// verdict says what is not as it should be.
func (t *Token) verdict(r *Reader) {
	say := func(format string, args ...any) {
		t.Verdict = Attention
		t.Why = append(t.Why, fmt.Sprintf(format, args...))
	}
	promoted := false
	for i := range t.Lives {
		l := &t.Lives[i]
		promoted = promoted || !l.Promoted.IsZero()
		switch {
		case l.End == Died && r.within(l.Ended):
			say("generation %d was revoked by somebody else", l.Generation)
		case l.End == Unknown:
			say("whether generation %d was made is not known yet", l.Generation)
		case l.End == Revoked && l.EndBy != "" && l.Successor != 0 && r.within(l.Ended):
			say("%s ended generation %d by hand", l.EndBy, l.Generation)
		case l.Orphan && l.End == Alive:
			say("an orphan (generation %d) is not revoked yet", l.Generation)
		}
	}
	for _, d := range t.Disturbed {
		if d.Until.IsZero() {
			say("%s %s", d.Sink, d.What)
		} else {
			say("%s was changed by somebody else for a time", d.Sink)
		}
	}
	for i := range t.Behind {
		say("%s", t.Behind[i].words(r.report.Until))
	}
	for _, sink := range t.Held {
		if sink == "" {
			say("it waits for a person")
		} else {
			say("%s waits for a person", sink)
		}
	}
	if !promoted && t.Removed.IsZero() {
		say("no generation is in every required sink")
	}
	if n := len(t.Gaps); n > 0 {
		t.Verdict = Broken
		what := "gaps"
		if n == 1 {
			what = "gap"
		}
		t.Why = slices.Insert(t.Why, 0, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(t.Why[min(1, len(t.Why)):])
	t.Why = slices.Compact(t.Why)
}
