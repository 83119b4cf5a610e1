package rotator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What waits for a person: a sink with a foreign value, and an entry for which SiteGPT lists tokens
// that this state never made. Adopting ends it.

// unexplainedPrefix begins Record.Blocked where tokens that no intent explains are the reason.
const unexplainedPrefix = "unexplained: "

// hear carries out the orders that the record has not heard yet.
func (e *Engine) hear(ctx context.Context, w *work) error {
	entry, rec := w.view()
	now := e.c.Now()
	look := false
	err := e.save(ctx, w, func(r *Record) (events []Event) {
		events, look = r.hear(&entry, rec.Asks, now)
		return events
	})
	if err == nil && look {
		e.sweeps.mu.Lock()
		e.sweeps.at = now
		e.sweeps.mu.Unlock()
	}
	return err
}

// hear carries out orders; look: SiteGPT's list is to be looked at for them.
func (r *Record) hear(entry *Entry, asks []Ask, now time.Time) (events []Event, look bool) {
	for _, a := range asks { // in the order of their numbers
		if !a.order() || a.Seq <= r.Heard {
			continue
		}
		r.Heard = a.Seq
		switch {
		case a.Adopt && a.Sink == "" && strings.HasPrefix(r.Blocked, unexplainedPrefix):
			r.Adopt, look = true, true // the list tells what there is to adopt
		case a.Adopt:
			n := len(events)
			for i := range r.Sinks {
				s := &r.Sinks[i]
				if o := entry.outlet(s.Place); o != nil {
					s.Name = o.Name // it may be called otherwise since it was noted, and a person goes by what is declared
				}
				if s.Held != "" && (a.Sink == "" || a.Sink == s.Name || a.Sink == s.Place) {
					s.yield()
					events = append(events, Event{Kind: EventAdopted, Place: s.Place, Sink: s.Name, By: a.By, Detail: "what stands there is given up: ours is written over it"})
				}
			}
			if len(events) == n {
				events = append(events, Event{Kind: EventWarning, By: a.By, Detail: "adopt: nothing of it waits for a person"})
			}
		case a.Pause.After(now):
			r.PausedUntil = a.Pause
			events = append(events, Event{Kind: EventPaused, By: a.By, Next: a.Pause, Detail: "nothing is created or revoked, unless its users would be left without a token"})
		default:
			r.PausedUntil = time.Time{}
			events = append(events, Event{Kind: EventReleased, By: a.By, Detail: "the pause is over"})
		}
	}
	return events, look
}

// yield lets the next push write over whatever stands in the sink.
func (s *SinkState) yield() {
	s.Held, s.Yield, s.Begun, s.Holds, s.Retry = "", true, 0, 0, Retry{}
}

// fresh: this state never made a token for the entry.
func (r *Record) fresh() bool { return r.Last == 0 && len(r.Generations) == 0 }

// adoptable reports whether tokens that no intent explains may be taken over: a person said so, or
// the state is new and there is exactly one, so that the sinks can only hold that one.
func adoptable(entry *Entry, rec *Record, tokens []Listed) bool {
	return !entry.Removed && (rec.Adopt && len(tokens) > 0 || rec.fresh() && len(tokens) == 1)
}

// adopt takes unexplained tokens of w's entry into its record, under its lock. The newest one is what
// the sinks hold, if every readable sink holds one value that the API accepts; the others, or all of
// them, retire as predecessors do. false without an error: the sinks do not agree, and nobody said so.
func (e *Engine) adopt(ctx context.Context, w *work, tokens []Listed) (bool, error) {
	entry, rec := w.view()
	value, holders, err := e.common(ctx, &entry)
	if err != nil {
		return false, err
	}
	if value.IsZero() && !rec.Adopt {
		return false, nil
	}
	hash := ""
	if !value.IsZero() {
		if err := e.c.Pace(ctx, 1); err != nil {
			return false, nil
		}
		switch err := guard(func() error { return e.c.API.Verify(ctx, value) }); {
		case err == nil:
			hash = value.Hash(e.c.Key)
		case !errors.Is(err, ErrUnauthorized):
			return false, fmt.Errorf("%s: ask whether the sinks' token works: %w", w.name, err)
		case !rec.Adopt:
			return false, nil
		}
	}
	if own, ours := e.known.find(hash); ours && own.entry == rec.Name {
		hash = "" // the sinks hold a generation that is recorded: the others are its predecessors
	}
	tokens = slices.Clone(tokens)
	slices.SortFunc(tokens, func(a, b Listed) int { return cmp.Compare(numberOf(a), numberOf(b)) })
	now := e.c.Now()
	return true, e.save(ctx, w, func(r *Record) (events []Event) {
		for i, t := range tokens {
			newest := i == len(tokens)-1
			g := entry.adopted(t, now)
			if g.Number <= 0 || r.Generation(g.Number) != nil || newest && hash != "" && g.Number <= r.Last {
				g.Number = r.Last + 1 // another state used its number too
			}
			r.Last = max(r.Last, g.Number)
			ev := g.about(EventAdopted)
			if rec.Adopt {
				ev.By = rec.whoWants(func(a Ask) bool { return a.Adopt && a.Seq <= rec.Heard })
			}
			if newest && hash != "" {
				g.Hash, g.Verified, g.Converged = hash, now, now
				ev.Detail, ev.Next = "every sink that can be read holds a token that works, and this is it", g.Planned
			} else {
				g.Lost = now
				ev.Detail = "no sink holds it: it retires"
			}
			r.Generations = append(r.Generations, g)
			events = append(events, ev)
		}
		slices.SortFunc(r.Generations, func(a, b Generation) int { return cmp.Compare(b.Number, a.Number) })
		r.retire(r.Target(now), &entry.Timing, e.c.Instance, now)
		if hash != "" {
			for _, o := range holders {
				s := r.sink(o.Place)
				s.Name, s.Held = o.Name, ""
				s.holds(r.Generations[0].Number, now, true)
			}
		}
		for i := range r.Sinks {
			if s := &r.Sinks[i]; rec.Adopt && s.Held != "" {
				s.yield()
			}
		}
		r.Blocked, r.BlockedUntil, r.Adopt = "", time.Time{}, false
		r.OnRemove, r.Overlap = entry.OnRemove, entry.Timing.Overlap
		return events
	})
}

func numberOf(t Listed) int {
	l, _ := ParseLabel(t.Name)
	return l.Number
}

// adopted is what can be known of a token that another state made.
func (e *Entry) adopted(t Listed, now time.Time) Generation {
	l, _ := ParseLabel(t.Name)
	g := Generation{
		Entry: e.Name, Number: l.Number, Label: t.Name, ID: t.ID, Cause: CauseAdopted,
		Scopes: t.Scopes, Chatbots: e.Chatbots, Granted: t.Scopes, Timing: e.Timing.Fingerprint(),
		Intended: t.Created, Created: now, Expires: t.Expires, Begun: now,
	}
	if g.Scopes == nil {
		g.Scopes = e.Scopes // what was requested cannot be known; an edit shows at the next rotation
	}
	if g.Expires.IsZero() {
		g.Expires = l.Expires
	}
	if g.Intended.IsZero() || !g.Intended.Before(g.Expires) {
		g.Intended = now
	}
	g.Planned, _ = e.Timing.Planned(e.Name, g.Intended, g.Expires)
	return g
}

// common returns the one value that every readable sink holds, and who they are; the zero Secret
// where they are empty or differ, or where none can be read.
func (e *Engine) common(ctx context.Context, entry *Entry) (Secret, []*Outlet, error) {
	values, errs := make([]Secret, len(entry.Outlets)), make([]error, len(entry.Outlets))
	e.aside(len(entry.Outlets), func(i int) {
		values[i], errs[i] = e.readSink(ctx, &entry.Outlets[i])
	})
	var value Secret
	var holders []*Outlet
	for i := range entry.Outlets {
		switch {
		case errors.Is(errs[i], errors.ErrUnsupported):
			continue
		case errs[i] != nil:
			return Secret{}, nil, fmt.Errorf("%s: %w", entry.Name, errs[i])
		case values[i].IsZero(), len(holders) > 0 && values[i].Reveal() != value.Reveal():
			return Secret{}, nil, nil
		}
		value, holders = values[i], append(holders, &entry.Outlets[i])
	}
	return value, holders, nil
}
