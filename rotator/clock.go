package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The engine believes no clock that nobody bore out. What a wrong clock could destroy, a create, a
// revocation, and the forgetting of a generation, waits until the API told its time; a machine
// that slept gives the users of an old token their overlap again; and what a record or the memory
// holds of a future that cannot be is set again.

const (
	// clockGrain is by how much two readings of the right time may differ: beyond it, an instant
	// of the past that lies in the future was written under a wrong clock.
	clockGrain = time.Minute
	// retryLimit is further ahead than any retry is ever set, but that of a sink that waits for the
	// next token.
	retryLimit = 3 * time.Hour
	// measureEvery is how long a failure to ask for the time stands for everybody.
	measureEvery = 10 * time.Second
)

// watch notes what time it is at a look. A clock that went back leaves instants in memory too far
// ahead; one that went on for too long between two looks of a driver that looks regularly means
// that this machine slept, and the users of its tokens with it.
func (e *Engine) watch() {
	now := e.c.Now()
	e.mu.Lock()
	last := e.looked
	e.looked = now
	e.mu.Unlock()
	back := !last.IsZero() && now.Before(last.Add(-clockGrain))
	slept := !last.IsZero() && e.c.LookEvery > 0 && now.Sub(last) > 2*e.c.LookEvery+clockGrain
	if !back && !slept {
		return
	}
	for _, w := range e.all() {
		w.mu.Lock()
		if back {
			w.rouse()
			w.readAt, w.probeAt = time.Time{}, time.Time{}
		}
		if overlap := max(w.entry.Timing.Overlap, w.rec.Overlap); slept && now.Sub(last) > overlap/4 {
			w.rouse()
			w.slept = minTime(last, w.slept)
		}
		w.mu.Unlock()
	}
	if back {
		e.sweeps.mu.Lock()
		e.sweeps.at = now
		e.sweeps.mu.Unlock()
	}
}

// minTime returns the earlier one; the zero time is none.
func minTime(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// overslept gives the users of retiring tokens their overlap again: while this machine slept, they
// slept too, and had no time to move.
func (e *Engine) overslept(ctx context.Context, w *work) error {
	w.mu.Lock()
	since := w.slept
	w.mu.Unlock()
	if since.IsZero() || !e.c.Measured() {
		return nil
	}
	entry, rec := w.view()
	now := e.c.Now()
	until := now.Add(max(entry.Timing.Overlap, rec.Overlap))
	cut := func(g *Generation) bool {
		return g.Live(now) && g.RevokeAt.After(since) && g.RevokeAt.Before(until) && !g.Forced && !g.Leave && !g.Begun.IsZero()
	}
	for i := range rec.Generations {
		if !cut(&rec.Generations[i]) {
			continue
		}
		if err := e.save(ctx, w, func(r *Record) (events []Event) {
			for i := range r.Generations {
				g := &r.Generations[i]
				if !cut(g) {
					continue
				}
				g.RevokeAt = minTime(g.Expires, until)
				g.Leave = entry.Timing.Leaves(g.RevokeAt, g.Expires)
				g.Waits, g.Retry = "", Retry{}
				ev := g.about(EventWaiting)
				ev.Detail = fmt.Sprintf("this machine slept since %s: the users of this token get their overlap again", since.UTC().Format(time.RFC3339))
				ev.Next = g.RevokeAt
				events = append(events, ev)
			}
			return events
		}); err != nil {
			return err
		}
		break
	}
	w.mu.Lock()
	w.slept = time.Time{}
	w.mu.Unlock()
	return nil
}

// rewind sets again every instant of r that cannot be at now, since it was written under a clock
// that was wrong: what happened in the future has happened now, a retry is due, and a revocation is
// an overlap away at most. It reports whether there was any; dry changes nothing.
func (r *Record) rewind(now time.Time, overlap time.Duration, dry bool) (any bool) {
	latest := now.Add(clockGrain)
	past := func(instants ...*time.Time) (ahead bool) {
		for _, t := range instants {
			if t.After(latest) {
				ahead = true
				if !dry {
					*t = now
				}
			}
		}
		any = any || ahead
		return ahead
	}
	retry := func(t *Retry, until time.Time) {
		past(&t.Since)
		if t.At.After(now.Add(retryLimit)) && t.At.After(until) {
			any = true
			if !dry {
				t.At = time.Time{}
			}
		}
	}
	retry(&r.Create, time.Time{})
	retired := past(&r.RemovedAt)
	var planned time.Time // until then, a sink may wait for the next token
	for i := range r.Generations {
		g := &r.Generations[i]
		planned = maxTime(planned, g.Planned)
		past(&g.Closed, &g.Searched, &g.Created, &g.Verified, &g.Begun, &g.Lost, &g.Suspect, &g.Revoked)
		retired = past(&g.Converged) || retired
		retry(&g.Retry, time.Time{})
	}
	for i := range r.Generations {
		if g := &r.Generations[i]; retired && !dry && g.RevokeAt.After(now.Add(overlap)) {
			g.RevokeAt = now.Add(overlap)
		}
	}
	for i := range r.Sinks {
		s := &r.Sinks[i]
		past(&s.Since, &s.Read, &s.UnreadSince)
		retry(&s.Retry, planned)
	}
	for i := range r.Consumers {
		c := &r.Consumers[i]
		past(&c.At)
		retry(&c.Retry, time.Time{})
	}
	for i := range r.Posts {
		past(&r.Posts[i].At)
	}
	return any
}

// rewind takes StepClock.
func (e *Engine) rewind(ctx context.Context, w *work) error {
	entry, _ := w.view()
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event {
		r.rewind(now, max(entry.Timing.Overlap, r.Overlap), false)
		return []Event{{Kind: EventWarning, Detail: "what was noted under a clock that was ahead is counted from now"}}
	})
}

// trustsClock reports whether s may be taken by a clock that nobody bore out.
func (s Step) trustsClock() bool {
	switch s.Kind {
	case StepClock, StepForget, StepCreate, StepRevoke:
		return true
	}
	return false
}

// early leaves out what the local clock alone says is too early to forget: a generation that was
// forgotten and lives would be taken for an orphan.
func (e *Engine) early(rec *Record, steps []Step, wake time.Time) ([]Step, time.Time) {
	local := e.c.Local()
	kept := slices.DeleteFunc(steps, func(s Step) bool {
		return s.Kind == StepForget && local.Before(rec.Generation(s.Number).Expires.Add(forgetAfter))
	})
	if len(kept) < len(steps) {
		wake = minTime(e.c.Now().Add(time.Hour), wake)
	}
	return kept, wake
}

// doubt handles steps that trust the clock while nobody bears it out: what may be left out is left
// out, and looked at again soon.
func (e *Engine) doubt(ctx context.Context, w *work, steps []Step, wake time.Time, cause error) ([]Step, time.Time, error) {
	kept := slices.DeleteFunc(slices.Clone(steps), func(s Step) bool { return s.trustsClock() })
	if slices.ContainsFunc(steps, func(s Step) bool { return s.Kind == StepCreate }) {
		_, rec := w.view()
		if err := e.createFailed(ctx, w, "clock", rec.newestAsk(), cause); err != nil {
			return nil, wake, err
		}
	}
	return kept, minTime(e.c.Now().Add(2*measureEvery), wake), nil
}

// sure makes certain that Now can be trusted, by asking the API for anything. A refusal tells the
// time as well.
func (e *Engine) sure(ctx context.Context) error {
	if e.c.Measured() {
		return nil
	}
	e.clock.Lock()
	defer e.clock.Unlock()
	if e.c.Measured() {
		return nil
	}
	if e.clockError != nil && e.c.Local().Sub(e.clockFailed).Abs() < measureEvery {
		return e.clockError
	}
	var err error
	for range 3 { // a jump has to be seen twice
		if _, err = e.list(ctx); e.c.Measured() {
			e.clockError = nil
			return nil
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		err = errors.New("its answers disagree about the time")
	}
	err = fmt.Errorf("ask the API for its time: %w", err)
	if ctx.Err() == nil {
		e.clockError, e.clockFailed = err, e.c.Local()
	}
	return err
}
