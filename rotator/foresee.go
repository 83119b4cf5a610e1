package rotator

import (
	"errors"
	"slices"
	"time"
)

// Reading is what a look into a sink showed.
type Reading struct {
	Value Secret
	Err   error // errors.ErrUnsupported: it cannot be read at all
}

// Foresight tells what an engine is going to do: it takes those steps that change nothing but a record.
type Foresight struct {
	key   []byte
	known hashes
	// Running says that an engine is at work: what it has not brought everywhere, it may have in hand.
	Running  bool
	Instance string               // whose labels are ours
	Used     map[string]time.Time // when tokens were last used, by id, as SiteGPT's list says
}

// NewForesight returns one that knows the values of the given records.
func NewForesight(records []Record, key []byte) *Foresight {
	f := &Foresight{key: key}
	for i := range records {
		f.known.add(&records[i])
	}
	return f
}

// Look returns the record as the engine has it by the time that it asks Plan what to do: the readings of
// the entry's outlets, in their order, are compared with it; and a token that is to be brought somewhere,
// and of which no sink holds a copy, is given up. nil readings: no sink was looked into.
func (f *Foresight) Look(e *Entry, r *Record, readings []Reading, now time.Time) Record {
	next := r.Clone()
	if steps, _ := Plan(e, &next, now); len(steps) > 0 && steps[0].Kind == StepDeclare {
		next.declare(e, now)
	}
	if readings == nil || e.Removed {
		return next
	}
	target := next.Target(now)
	hand := target != nil && f.hand(e, &next, target, readings)
	for i := range e.Outlets {
		o, found := &e.Outlets[i], readings[i]
		s := next.Sink(o.Place)
		if s != nil {
			compare(e, &next, o, s, found, f.key, &f.known, now)
		}
	}
	if target == nil || hand || unread(readings) && e.waitsForCopy(&next, target.Number, now) {
		return next
	}
	steps, _ := Plan(e, &next, now)
	steps = slices.DeleteFunc(steps, func(s Step) bool { return s.Kind == StepForget || s.Kind == StepReplan }) // these change nothing of it
	if len(steps) > 0 && (steps[0].Kind == StepPush || steps[0].Kind == StepVerify) {
		next.lose(e, target.Number, now)
	}
	return next
}

// hand reports whether the engine has the plaintext of g, or a sink to copy it from.
func (f *Foresight) hand(e *Entry, r *Record, g *Generation, readings []Reading) bool {
	for i := range e.Outlets {
		found, s := readings[i], r.Sink(e.Outlets[i].Place)
		if f.Running && (s == nil || s.Held == "" && !s.has(g.Number)) || found.Err == nil && !found.Value.IsZero() && found.Value.Hash(f.key) == g.Hash {
			return true
		}
	}
	return false
}

// unread reports whether a sink that can be read could not be.
func unread(readings []Reading) bool {
	return slices.ContainsFunc(readings, func(r Reading) bool { return r.Err != nil && !errors.Is(r.Err, errors.ErrUnsupported) })
}

// Course is what an engine does in one go.
type Course struct {
	Steps   []Step // pushes and promotion of a token that is created are part of its create
	Stopped *Step  // a create that is due, and waits until the sinks would take a token
	After   Record // the record then
}

// Steps follows the engine from a record, which is as Look returns it, until nothing is due any more,
// or until an answer of SiteGPT decides what is: each step is thought to go well, except where a sink
// refuses. refused are those that would not take a token, by place. The outlets of a removed entry are
// those that other entries have at its places.
func (f *Foresight) Steps(e *Entry, r *Record, readings []Reading, refused map[string]error, now time.Time) Course {
	c := Course{After: r.Clone()}
	next := &c.After
	made, written := 0, map[string]bool{}
	later := now.Add(time.Second)
	do := func(s Step) (open bool) {
		switch s.Kind {
		case StepForget:
			next.forget(s.Number)
		case StepReplan:
			next.replan(e, s.Number, now)
		case StepHear:
			next.hear(e, next.Asks, now)
		case StepForce:
			next.Generation(s.Number).force(now)
		case StepPush:
			g, sink := next.Generation(s.Number), next.sink(s.Place)
			hand := s.Number == made || readings == nil || f.hand(e, next, g, readings)
			if !hand && !(unread(readings) && e.waitsForCopy(next, s.Number, now)) {
				if g.Lost.IsZero() {
					next.lose(e, s.Number, now)
				}
				return false
			}
			if refused[s.Place] != nil || !hand {
				sink.Retry.At = later
			} else {
				sink.holds(s.Number, now, !sink.Blind)
				written[s.Place] = true
			}
			if g.Begun.IsZero() {
				g.Begun = now
			}
		case StepPromote:
			next.promote(e, s.Number, f.Instance, now)
		case StepCreate:
			if Preflight(e, next, refused, now) != nil {
				c.Stopped, next.Create.At, next.AskTried = &s, later, next.newestAsk()
				return false
			}
			made = s.Number
			next.foresee(e, s, now)
		case StepRevoke:
			g := next.Generation(s.Number)
			why := ""
			if g.inHands() {
				why = e.lags(next, g, e.Outlets, f.holding(e, next, g, readings, written), f.Used[g.ID], now)
			}
			if why != "" {
				g.wait(why, now)
				return false
			}
			g.Revoked = now
			if g.Forced { // the step before told of it
				return false
			}
		default:
			open = true
		}
		if s.Number != made || s.Kind == StepCreate {
			c.Steps = append(c.Steps, s)
		}
		return open
	}
	for range looped {
		steps, _ := Plan(e, next, now)
		if len(steps) == 0 {
			break
		}
		if steps[0].Kind == StepPush {
			steps = slices.DeleteFunc(steps, func(s Step) bool { return s.Kind != StepPush })
		} else if !steps[0].open() {
			steps = steps[:1]
		}
		open := false
		for _, s := range steps {
			open = do(s) || open
		}
		if open {
			break
		}
	}
	return c
}

// open reports whether what comes after the step depends on an answer.
func (s *Step) open() bool {
	switch s.Kind {
	case StepClock, StepSearch, StepProbe, StepVerify:
		return true
	default:
		return false
	}
}

// holding tells of each sink whether it holds g still, after those at written were written to. Without
// readings it goes by the record.
func (f *Foresight) holding(e *Entry, r *Record, g *Generation, readings []Reading, written map[string]bool) func(i int) (bool, error) {
	return func(i int) (bool, error) {
		s := r.Sink(e.Outlets[i].Place)
		switch {
		case s != nil && s.Blind:
			return false, errors.ErrUnsupported
		case written[e.Outlets[i].Place]:
			return false, nil
		case readings != nil:
			return !readings[i].Value.IsZero() && readings[i].Value.Hash(f.key) == g.Hash, readings[i].Err
		case s != nil && s.Unread != "":
			return false, errors.New(s.Unread)
		}
		return s != nil && s.Holds == g.Number, nil
	}
}

// foresee notes a create as if it had gone well, up to the pushes.
func (r *Record) foresee(e *Entry, s Step, now time.Time) {
	r.Last = s.Number
	r.Generations = slices.Insert(r.Generations, 0, Generation{
		Entry: e.Name, Number: s.Number, ID: "foreseen", Cause: s.Cause, Scopes: s.Scopes, Chatbots: s.Chatbots,
		Timing: e.Timing.Fingerprint(), Intended: now, Created: now, Verified: now,
		Planned: e.Successor(now), Expires: e.Timing.Expiry(now, maxTime(now, e.covers(now))),
	})
	r.AskTried = r.newestAsk()
	for i := range r.Sinks {
		r.Sinks[i].Retry.At = time.Time{}
	}
}
