package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// errUnproven says that some sink could not be read, so that nobody knows whether it holds the plaintext.
var errUnproven = errors.New("a sink that may hold the token cannot be read now")

// plaintext returns the plaintext of g: from memory, or from a sink that is proven to hold it. The
// zero Secret without an error: nobody has it.
func (e *Engine) plaintext(ctx context.Context, w *work, g *Generation) (Secret, error) {
	if s := w.secret(g.Number); !s.IsZero() {
		return s, nil
	}
	if g.Begun.IsZero() {
		return Secret{}, nil
	}
	entry, _ := w.view()
	var unproven error
	for i := range entry.Outlets {
		o := &entry.Outlets[i]
		value, err := e.readSink(ctx, o)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
		case err != nil:
			unproven = fmt.Errorf("%w: %w", errUnproven, err)
		case !value.IsZero() && value.Hash(e.c.Key) == g.Hash:
			w.mu.Lock()
			w.secrets[g.Number] = value
			w.mu.Unlock()
			return value, nil
		}
	}
	return Secret{}, unproven
}

// noPlaintext handles a generation that cannot be pushed because its plaintext is not at hand.
func (e *Engine) noPlaintext(ctx context.Context, w *work, g Generation, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	entry, rec := w.view()
	now := e.c.Now()
	if err != nil && entry.waitsForCopy(&rec, g.Number, now) {
		return e.save(ctx, w, func(r *Record) []Event {
			p := r.Generation(g.Number)
			ev := p.about(EventFailed)
			ev.Detail, ev.Error, ev.Outage = "look for a copy to push from", err.Error(), outageOf(err)
			at := p.Retry.fail(w.name+"/copy", now, entry.longest(&rec, now, g.Number), err)
			for i := range entry.Outlets {
				if s := r.sink(entry.Outlets[i].Place); !s.has(g.Number) {
					s.Retry.At, s.Retry.Outage = maxTime(s.Retry.At, at), ev.Outage
				}
			}
			ev.Next = at
			return []Event{ev}
		})
	}
	return e.save(ctx, w, func(r *Record) []Event { return r.lose(&entry, g.Number, now) })
}

// waitsForCopy reports whether there is time to wait until a sink can be read that may hold generation n.
func (e *Entry) waitsForCopy(r *Record, n int, now time.Time) bool {
	return e.left(r, now, n) >= e.Timing.Overlap/2
}

// lose gives up generation n, whose plaintext nobody is proven to have.
func (r *Record) lose(entry *Entry, n int, now time.Time) []Event {
	p := r.Generation(n)
	if !p.Converged.IsZero() && !entry.requiredLacks(r, n) {
		// Only optional sinks lack it: they get the next one with everybody else.
		for i := range entry.Outlets {
			if s := r.sink(entry.Outlets[i].Place); !s.has(n) && s.Held == "" {
				s.Retry.At, s.Retry.Error = p.Planned, "no sink can be read to copy the token from: it gets the next one"
			}
		}
		return nil
	}
	p.Lost, p.Retry = now, Retry{}
	ev := p.about(EventLost)
	ev.Detail = "no sink is proven to hold it: it is rotated again"
	if p.Begun.IsZero() {
		p.RevokeAt = now
		ev.Detail = "its plaintext was lost before anybody had it: it is revoked and rotated again"
	}
	return []Event{ev}
}

// requiredLacks reports whether a required sink that is not held lacks generation n.
func (e *Entry) requiredLacks(r *Record, n int) bool {
	for i := range e.Outlets {
		o := &e.Outlets[i]
		if s := r.Sink(o.Place); o.Required && (s == nil || (s.Held == "" && !s.has(n))) {
			return true
		}
	}
	return false
}

// push brings generation n to the sinks at places, side by side: each with its own outcome.
func (e *Engine) push(ctx context.Context, w *work, n int, places []string) error {
	g, ok := w.generation(n)
	if !ok {
		return nil
	}
	secret, err := e.plaintext(ctx, w, &g)
	if err != nil || secret.IsZero() {
		return e.noPlaintext(ctx, w, g, err)
	}
	// Look before writing: somebody may have been there since the last reading.
	var outlets []*Outlet
	for _, p := range places {
		if o := w.outlet(p); o != nil {
			outlets = append(outlets, o)
		}
	}
	verdicts := make([]error, len(outlets))
	held := make([]bool, len(outlets))
	e.aside(len(outlets), func(i int) {
		verdicts[i], held[i] = e.lookFirst(ctx, w, outlets[i], &g)
	})
	if ctx.Err() != nil {
		return nil
	}
	now := e.c.Now()
	var ready []*Outlet
	entry, rec := w.view()
	wait := entry.longest(&rec, now, n)
	err = e.save(ctx, w, func(r *Record) (events []Event) {
		for i, o := range outlets {
			s := r.sink(o.Place)
			s.Name, s.Tried = o.Name, n
			var foreign *ForeignError
			switch {
			case held[i]:
				s.holds(n, now, true)
				events = append(events, pushed(&g, o, "held it already"))
			case errors.As(verdicts[i], &foreign) && !foreign.Prior:
				ev := s.hold()
				ev.Place, ev.Sink = o.Place, o.Name
				events = append(events, ev)
			case verdicts[i] != nil:
				at := s.Retry.fail(o.Place, now, wait, verdicts[i])
				events = append(events, Event{Kind: EventFailed, Generation: n, Place: o.Place, Sink: o.Name, Detail: "push", Error: verdicts[i].Error(), Outage: outageOf(verdicts[i]), Next: at})
			default:
				s.Begun = n
				ready = append(ready, o)
			}
		}
		if p := r.Generation(n); len(ready) > 0 && p.Begun.IsZero() {
			p.Begun = now
		}
		return events
	})
	if err != nil || len(ready) == 0 {
		return err
	}
	saves := make([]error, len(ready))
	e.aside(len(ready), func(i int) {
		saves[i] = e.pushOne(ctx, w, g, ready[i], secret, wait)
	})
	return errors.Join(saves...)
}

func pushed(g *Generation, o *Outlet, detail string) Event {
	if !o.Required {
		detail = strings.TrimPrefix(detail+", "+notRequired, ", ")
	}
	ev := g.about(EventPushed)
	ev.Place, ev.Sink, ev.Detail = o.Place, o.Name, detail
	return ev
}

// holds notes that the sink has generation n.
func (s *SinkState) holds(n int, now time.Time, proven bool) {
	s.Begun, s.Holds, s.Since, s.Retry = n, n, now, Retry{}
	s.Proven, s.Ever, s.Blind, s.Yield = proven, true, !proven, false
	if proven {
		s.Read = now
		s.readable()
	}
}

// has reports whether the sink holds generation n, and no push of another one was cut off since.
func (s *SinkState) has(n int) bool { return s.Holds == n && s.Begun == n }

// hold leaves the sink to a person.
func (s *SinkState) hold() Event {
	s.Held = "holds a value that is none of ours"
	return Event{
		Kind:   EventHeld,
		Detail: "a value that is none of ours is left alone: adopt it, or remove it, or say on_drift: restore",
	}
}

// lookFirst reads a sink before it is written, unless the preflight of this very generation did.
func (e *Engine) lookFirst(ctx context.Context, w *work, o *Outlet, g *Generation) (verdict error, holds bool) {
	w.mu.Lock()
	fresh := w.checked[o.Place] == g.Number
	delete(w.checked, o.Place)
	drift := w.entry.OnDrift
	var state *SinkState
	if s := w.rec.Sink(o.Place); s != nil {
		c := *s
		state = &c
	}
	w.mu.Unlock()
	if fresh {
		return nil, false
	}
	value, err := e.readSink(ctx, o)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, false
	case err != nil:
		return err, false
	case !value.IsZero() && value.Hash(e.c.Key) == g.Hash:
		return nil, true
	}
	if err := e.mayOverwrite(o, state, value, drift); err != nil {
		return fmt.Errorf("%s: %w", o.Name, err), false
	}
	return nil, false
}

// pushOne writes to one sink, reads back, and saves what came of it.
func (e *Engine) pushOne(ctx context.Context, w *work, g Generation, o *Outlet, secret Secret, wait time.Duration) error {
	err := e.at(ctx, o, "push", func(ctx context.Context) error { return o.Sink.Push(ctx, g, secret) })
	proven := false
	if err == nil {
		var back Secret
		switch back, err = e.readSink(ctx, o); {
		case errors.Is(err, errors.ErrUnsupported):
			err = nil
		case err != nil:
		case back.IsZero() || back.Hash(e.c.Key) != g.Hash:
			err = fmt.Errorf("%s: read back: it does not hold what was just pushed", o.Name)
		default:
			proven = true
		}
	}
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event {
		s := r.sink(o.Place)
		if err != nil {
			at := s.Retry.fail(o.Place, now, wait, err)
			return []Event{{Kind: EventFailed, Generation: g.Number, Place: o.Place, Sink: o.Name, Detail: "push", Error: err.Error(), Outage: outageOf(err), Next: at}}
		}
		s.holds(g.Number, now, proven)
		return []Event{pushed(&g, o, "")}
	})
}

// promote makes a generation that every required sink holds the current one, and retires the others.
func (e *Engine) promote(ctx context.Context, w *work, s Step) error {
	entry, _ := w.view()
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event { return r.promote(&entry, s.Number, e.c.Instance, now) })
}

func (r *Record) promote(entry *Entry, n int, instance string, now time.Time) []Event {
	r.meet(entry.Consumers, now)
	g := r.Generation(n)
	g.Converged, g.Retry = now, Retry{}
	if g.Verified.IsZero() {
		g.Suspect = time.Time{}
	}
	r.Create, r.Problem = Retry{}, ""
	ev := g.about(EventConverged)
	ev.Next = g.Planned
	r.retire(g, &entry.Timing, instance, now)
	return []Event{ev}
}

// retire gives every live generation older than g its overlap, and then its end. A nil g: all of them.
// One that bears the mark of another instance than ours is left to expire by itself: this state may be
// a copy, and the original's sinks may hold it still.
func (r *Record) retire(g *Generation, t *Timing, instance string, now time.Time) {
	for i := range r.Generations {
		old := &r.Generations[i]
		if g != nil && old.Number >= g.Number || !old.Live(now) || !old.RevokeAt.IsZero() {
			continue
		}
		old.RevokeAt = now.Add(t.Overlap)
		l, marked := ParseLabel(old.Label)
		shared := marked && l.Instance != instance
		old.Leave = !old.Forced && (shared || t.Leaves(old.RevokeAt, old.Expires))
		old.Retry = Retry{}
	}
}

// readBackDue reports whether the entry's sinks are to be read now.
func (e *Engine) readBackDue(w *work) bool {
	now := e.c.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.entry.Outlets) > 0 && !w.entry.Removed && !w.readAt.After(now)
}

// readBack compares what every readable sink holds with what it should hold, and saves only what
// differs from the record: Plan does the rest.
func (e *Engine) readBack(ctx context.Context, w *work) error {
	entry, rec := w.view()
	now := e.c.Now()
	w.mu.Lock()
	// Spread over the whole interval, by name: after a start, a thousand sinks are not read again all
	// in one second.
	first := w.readAt.IsZero()
	every := time.Duration(e.readBackEvery.Load())
	w.readAt = now.Add(every)
	if first {
		w.readAt = now.Add(Timing{Jitter: every}.share(w.name))
	}
	w.mu.Unlock()
	if rec.Version == 0 {
		return nil // nothing of ours can be anywhere yet
	}
	values := make([]Secret, len(entry.Outlets))
	errs := make([]error, len(entry.Outlets))
	e.aside(len(entry.Outlets), func(i int) {
		values[i], errs[i] = e.readSink(ctx, &entry.Outlets[i])
	})
	if ctx.Err() != nil {
		return nil
	}
	var events []Event
	next := rec.Clone()
	changed := false
	for i := range entry.Outlets {
		o := &entry.Outlets[i]
		s := next.Sink(o.Place)
		if s == nil {
			continue // never touched: the push looks first
		}
		before := *s
		if ev := compare(&entry, &next, o, s, Reading{values[i], errs[i]}, e.c.Key, &e.known, now); ev.Kind != "" {
			ev.Place, ev.Sink = o.Place, o.Name
			events = append(events, ev)
		}
		before.Read = s.Read
		changed = changed || before != *s
	}
	if changed {
		if err := e.save(ctx, w, func(r *Record) []Event {
			r.Sinks = next.Sinks
			return events
		}); err != nil {
			return err
		}
	}
	return e.probeByValue(ctx, w, &entry, &rec, values)
}

// readable notes that nothing is wrong with reading the sink.
func (s *SinkState) readable() { s.Unread, s.UnreadOutage, s.UnreadSince = "", "", time.Time{} }

// compare updates the state of one sink from what was read, and says what is worth an event.
func compare(entry *Entry, r *Record, o *Outlet, s *SinkState, found Reading, key []byte, known *hashes, now time.Time) (ev Event) {
	value, err := found.Value, found.Err
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		s.Blind = true
		s.readable()
		return ev
	case err != nil:
		s.Unread, s.UnreadOutage = err.Error(), outageOf(err)
		if s.UnreadSince.IsZero() {
			s.UnreadSince = now
		}
		return ev
	}
	s.Blind, s.Name = false, o.Name
	s.readable()
	if value.IsZero() {
		if s.Holds != 0 && s.Begun == s.Holds {
			ev = Event{Kind: EventDrift, Generation: s.Holds, Detail: "is empty"}
		}
		if s.Held != "" {
			ev = Event{Kind: EventReleased, Detail: "is empty now"}
		}
		s.Begun, s.Holds, s.Held, s.Proven = 0, 0, "", true
		return ev
	}
	own, ours := known.find(value.Hash(key))
	if ours {
		n := 0
		if own.entry == r.Name {
			n = own.number
		}
		if s.Held != "" {
			ev = Event{Kind: EventReleased, Generation: n, Detail: "holds a value of ours again"}
		} else if n != s.Holds && s.Begun == s.Holds {
			ev = Event{Kind: EventDrift, Generation: n, Detail: fmt.Sprintf("holds generation %d of %s", own.number, own.entry)}
		}
		if g := r.Generation(n); ev.Kind == "" && g != nil && n != s.Holds {
			ev = pushed(g, o, "found there, after a push that was cut off")
		}
		s.Held = ""
		if n != s.Holds || n != s.Begun || !s.Proven {
			s.Begun, s.Holds, s.Proven, s.Since = n, n, true, now
			s.Ever = s.Ever || n != 0
			if g := r.Target(now); g != nil && g.Number == n {
				s.Retry = Retry{}
			}
		}
		return ev
	}
	if !s.Ever || s.Yield {
		return ev // prior, or given up: the push decides
	}
	if entry.OnDrift == DriftRestore {
		if s.Held != "" || s.Begun != 0 {
			ev = Event{Kind: EventDrift, Detail: "holds a value that is none of ours; on_drift says restore"}
		}
		s.Begun, s.Holds, s.Held, s.Proven = 0, 0, "", true
		return ev
	}
	s.Begun, s.Holds, s.Proven = 0, 0, true
	if s.Held == "" {
		ev = s.hold()
	}
	return ev
}

// probeEvery is how often a value that the sinks hold is tried at the API.
const probeEvery = 6 * time.Hour

// probeByValue tries the target's value at the API now and then: somebody may have revoked it.
func (e *Engine) probeByValue(ctx context.Context, w *work, entry *Entry, rec *Record, values []Secret) error {
	now := e.c.Now()
	g := rec.Target(now)
	w.mu.Lock()
	due := !w.probeAt.After(now)
	first := w.probeAt.IsZero()
	w.mu.Unlock()
	if g == nil || g.Converged.IsZero() || !g.Suspect.IsZero() || !due {
		return nil
	}
	i := slices.IndexFunc(values, func(v Secret) bool { return v.Hash(e.c.Key) == g.Hash })
	if i < 0 {
		return nil
	}
	w.mu.Lock()
	w.probeAt = now.Add(probeEvery)
	w.mu.Unlock()
	if first && now.Sub(g.Verified) < probeEvery {
		return nil
	}
	if err := e.c.Pace(ctx, 1); err != nil {
		return nil
	}
	err := guard(func() error { return e.c.API.Verify(ctx, values[i]) })
	if !errors.Is(err, ErrUnauthorized) {
		return nil
	}
	return e.suspect(ctx, w, g.Number, "the API refuses it")
}
