package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// declare takes over into the record what the configuration says, or that it says nothing any more.
func (e *Engine) declare(ctx context.Context, w *work, _ Step) error {
	entry, _ := w.view()
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event { return r.declare(&entry, now) })
}

// declare brings the record in line with what the configuration says of the entry.
func (r *Record) declare(entry *Entry, now time.Time) []Event {
	switch {
	case entry.Removed:
		r.RemovedAt = now
		ev := Event{Kind: EventRemoved, Detail: "its tokens live until they expire"}
		if r.OnRemove == RemoveRevoke {
			ev.Detail = "its tokens are revoked after the overlap"
			ev.Next = now.Add(r.Overlap)
		}
		for i := range r.Generations {
			if g := &r.Generations[i]; r.OnRemove == RemoveRevoke && g.Live(now) && g.RevokeAt.IsZero() {
				g.RevokeAt, g.Leave = ev.Next, false
			}
		}
		return []Event{ev}
	case !r.RemovedAt.IsZero():
		// What the removal retired is the target again, if it is still to be had.
		for i := range r.Generations {
			g := &r.Generations[i]
			if g.usable(now) && !g.Forced && g.RevokeAt.Equal(r.RemovedAt.Add(r.Overlap)) {
				g.RevokeAt, g.Retry, g.Waits = time.Time{}, Retry{}, ""
				break // the older ones stay retired
			}
		}
		r.RemovedAt, r.OnRemove, r.Overlap = time.Time{}, entry.OnRemove, entry.Timing.Overlap
		return []Event{{Kind: EventRestored, Detail: "declared again"}}
	}
	r.OnRemove, r.Overlap = entry.OnRemove, entry.Timing.Overlap
	return nil
}

// forget drops a generation that expired long ago; its hash stays known for a while.
func (e *Engine) forget(ctx context.Context, w *work, s Step) error {
	return e.save(ctx, w, func(r *Record) []Event { return r.forget(s.Number) })
}

func (r *Record) forget(n int) []Event {
	g := r.Generation(n)
	ev := g.about(EventExpired)
	ev.At = g.Expires
	gone := !g.Revoked.IsZero() || g.ID == ""
	if g.Hash != "" {
		r.Past = append(r.Past, Past{Number: g.Number, Hash: g.Hash})
		r.Past = r.Past[max(0, len(r.Past)-maxPast):]
	}
	r.Generations = slices.DeleteFunc(r.Generations, func(x Generation) bool { return x.Number == n })
	if gone {
		return nil
	}
	return []Event{ev}
}

func (e *Engine) replan(ctx context.Context, w *work, s Step) error {
	entry, _ := w.view()
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event { return r.replan(&entry, s.Number, now) })
}

func (r *Record) replan(entry *Entry, n int, now time.Time) []Event {
	g := r.Generation(n)
	g.Planned = entry.Timing.Replan(entry.Name, now, g.Planned, g.Expires)
	g.Timing = entry.Timing.Fingerprint()
	ev := g.about(EventReplanned)
	ev.Next = g.Planned
	return []Event{ev}
}

// force marks a generation that a person wants dead.
func (e *Engine) force(ctx context.Context, w *work, s Step) error {
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event {
		r.Generation(s.Number).force(now)
		return nil // the revocation itself is the event; the wish is in the journal already
	})
}

func (g *Generation) force(now time.Time) {
	g.Forced, g.Leave, g.RevokeAt, g.Retry = true, false, now, Retry{}
}

// waiting postpones a revocation and says, once for each reason, for whom it waits.
func (e *Engine) waiting(ctx context.Context, w *work, n int, why string) error {
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event { return r.Generation(n).wait(why, now) })
}

func (g *Generation) wait(why string, now time.Time) []Event {
	g.Retry.Tries++
	g.Retry.At = now.Add(min(time.Minute<<min(g.Retry.Tries-1, 6), max(g.Expires.Sub(now)/4, time.Minute)))
	if g.Waits == why {
		return nil
	}
	g.Waits = why
	ev := g.about(EventWaiting)
	ev.Detail, ev.Next = why, g.Retry.At
	return []Event{ev}
}

// revoke ends a retired generation, after every sink was read once more: one that still holds it
// would be left with a dead token.
func (e *Engine) revoke(ctx context.Context, w *work, s Step) error {
	g, ok := w.generation(s.Number)
	if !ok {
		return nil
	}
	entry, rec := w.view()
	now := e.c.Now()
	if local := e.c.Local(); !g.Forced && local.Before(g.RevokeAt) {
		return e.waiting(ctx, w, g.Number, "this machine's clock says that its time has not come")
	}
	if g.inHands() {
		if why := e.lags(ctx, &entry, &rec, &g); why != "" {
			if ctx.Err() != nil {
				return nil
			}
			return e.waiting(ctx, w, g.Number, why)
		}
	}
	if err := e.c.Pace(ctx, 1); err != nil {
		return nil
	}
	err := guard(func() error { return e.c.API.Revoke(ctx, g.ID) })
	if err != nil && ctx.Err() != nil {
		return nil
	}
	now = e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event {
		p := r.Generation(g.Number)
		if err != nil {
			ev := p.about(EventFailed)
			ev.Detail, ev.Error = "revoke", err.Error()
			ev.Next = p.Retry.fail(w.name+"/revoke", now, longest(p.Expires.Sub(now)), err)
			return []Event{ev}
		}
		p.Revoked, p.Retry, p.Waits = now, Retry{}, ""
		ev := p.about(EventRevoked)
		switch {
		case p.Forced:
			ev.Detail, ev.By = "a person asked for it", rec.whoWants(func(a Ask) bool {
				return a.Revoke == p.Number || a.Revoke == 0 && (a.Now || a.Compromised) && p.Number <= a.Than
			})
		case p.Begun.IsZero():
			ev.Detail = "nobody ever had it"
		case entry.Removed:
			ev.Detail = "its entry is no longer declared"
		default:
			ev.Detail = "its overlap has passed"
		}
		return []Event{ev}
	})
}

// inHands reports whether somebody may need the generation until a newer one is taken: nobody wants it
// dead at any price, and some sink may have it.
func (g *Generation) inHands() bool { return !g.Forced && !g.Begun.IsZero() }

// lags says who still needs a retired generation, as its sinks show now; "" when nobody does.
func (e *Engine) lags(ctx context.Context, entry *Entry, rec *Record, g *Generation) string {
	outlets := entry.Outlets
	if entry.Removed {
		outlets = e.declaredAt(rec)
	}
	values, errs := make([]Secret, len(outlets)), make([]error, len(outlets))
	e.aside(len(outlets), func(i int) { values[i], errs[i] = e.readSink(ctx, &outlets[i]) })
	return entry.lags(rec, g, outlets, func(i int) (bool, error) {
		return !values[i].IsZero() && values[i].Hash(e.c.Key) == g.Hash, errs[i]
	}, e.lists.used(g.ID), e.c.Now())
}

// lags says who still needs a retired generation. holds tells whether a sink holds it; used is when
// somebody last used it, as far as SiteGPT says.
func (e *Entry) lags(rec *Record, g *Generation, outlets []Outlet, holds func(i int) (bool, error), used, now time.Time) string {
	var why []string
	for i := range outlets {
		o := &outlets[i]
		s := rec.Sink(o.Place)
		switch held, err := holds(i); {
		case errors.Is(err, errors.ErrUnsupported):
			// Nobody can look: what it was last told counts, and a push that was cut off does not.
			if s != nil && s.Held == "" && (s.Holds == g.Number || (s.Begun != s.Holds && s.Begun != 0)) {
				why = append(why, fmt.Sprintf("%s has not taken a newer one", o.Name))
			}
		case err != nil:
			why = append(why, fmt.Sprintf("%s cannot be read, and may hold it", o.Name))
		case held:
			why = append(why, fmt.Sprintf("%s still holds it", o.Name))
		}
	}
	if !e.Removed {
		why = append(why, e.behind(rec, g.Number)...)
	}
	if len(why) > 0 {
		return strings.Join(why, "; ")
	}
	if cur := rec.Current(now); cur != nil && !e.Removed {
		if used.After(cur.Converged.Add(e.settle())) && !used.Before(g.RevokeAt.Add(-e.Timing.Overlap/2)) {
			return "somebody used it after half of the overlap"
		}
	}
	return ""
}

// declaredAt returns the outlets that other entries declare at the places this record knows.
func (e *Engine) declaredAt(rec *Record) []Outlet {
	var out []Outlet
	for _, w := range e.all() {
		w.mu.Lock()
		if !w.entry.Removed {
			for _, o := range w.entry.Outlets {
				if rec.Sink(o.Place) != nil {
					out = append(out, o)
				}
			}
		}
		w.mu.Unlock()
	}
	return out
}

// suspect notes that the API seems not to know a token any more; a probe decides.
func (e *Engine) suspect(ctx context.Context, w *work, n int, why string) error {
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event {
		g := r.Generation(n)
		if g == nil || !g.Suspect.IsZero() || !g.Revoked.IsZero() {
			return nil
		}
		g.Suspect = now
		ev := g.about(EventWarning)
		ev.Detail = why + ": it is tried again before it is given up"
		return []Event{ev}
	})
}

// probe asks the API, a settling time after the first doubt, whether a token is dead.
func (e *Engine) probe(ctx context.Context, w *work, s Step) error {
	g, ok := w.generation(s.Number)
	if !ok {
		return nil
	}
	secret, err := e.plaintext(ctx, w, &g)
	dead := false
	switch {
	case err != nil:
	case secret.IsZero():
		// No sink has it: whether it lives is all the same, unless the list still shows it.
	default:
		if perr := e.c.Pace(ctx, 1); perr != nil {
			return nil
		}
		err = guard(func() error { return e.c.API.Verify(ctx, secret) })
		if errors.Is(err, ErrUnauthorized) {
			dead, err = e.listsAsDead(ctx, g.ID)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	entry, rec := w.view()
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event {
		p := r.Generation(s.Number)
		switch {
		case dead:
			p.Revoked, p.Died, p.Retry, p.Suspect = now, true, Retry{}, time.Time{}
			ev := p.about(EventDied)
			ev.Detail = "the API refuses it, although nothing of ours revoked it: it is replaced"
			return []Event{ev}
		case err != nil:
			p.Retry.fail(w.name+"/probe", now, entry.longest(&rec, now, 0), err)
			return nil
		}
		p.Suspect, p.Retry = time.Time{}, Retry{}
		return nil
	})
}

// listsAsDead reports whether the list agrees that a refused token is dead. An outage of SiteGPT's
// authentication refuses every token, and must not make us give up all of them.
func (e *Engine) listsAsDead(ctx context.Context, id string) (bool, error) {
	listed, err := e.lists.after(ctx, e)
	switch {
	case errors.Is(err, ErrForbidden):
		return true, nil // it will never say; the refusals have to do
	case err != nil:
		return false, fmt.Errorf("list: %w", err)
	}
	for _, t := range listed {
		if t.ID == id && t.Revoked.IsZero() && (t.Expires.IsZero() || t.Expires.After(e.c.Now())) {
			return false, nil
		}
	}
	return true, nil
}
