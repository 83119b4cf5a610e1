package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// work is one entry with its record, and what the process alone knows of it.
type work struct {
	name string

	entryLock sync.Mutex // held through every step of this entry, by whoever takes it
	saving    sync.Mutex // one save after another, since each starts from what the last one left

	mu       sync.Mutex // guards what follows
	entry    Entry
	edited   *Entry // what a reload declared while it was worked on; nil: nothing
	rec      Record
	secrets  map[int]Secret // plaintexts that are not yet everywhere
	checked  map[string]int // place → the generation for which it was last read before a push
	wake     time.Time      // when to look again; zero: at once
	never    bool           // there is nothing to wake for
	roused   int            // how often it was woken: what was planned before the last time is out of date
	busy     bool
	driven   bool      // it was worked on since this process began
	readAt   time.Time // when its sinks are to be read back
	probeAt  time.Time // when its value is to be tried at the API
	slept    time.Time // the last look before this machine slept, until what that postpones is saved
	stale    bool      // a save failed, and may have been written
	saveFail int       // saves that failed in a row: it cannot be recorded, so it backs off here
}

// rouse wants the work looked at again at once. w.mu is held.
func (w *work) rouse() {
	w.wake, w.never = time.Time{}, false
	w.roused++
}

// takeOver makes what was declared last the entry.
func (w *work) takeOver() {
	if w.edited != nil {
		w.entry, w.edited = *w.edited, nil
		w.rouse()
		w.readAt = time.Time{}
	}
}

// next is when w wants to be driven; the zero time with never set: not by itself.
func (w *work) next() time.Time {
	at := w.wake
	if w.never {
		at = time.Time{}
	}
	if len(w.entry.Outlets) > 0 && (w.never || w.readAt.Before(at)) {
		at = w.readAt
		if at.IsZero() { // to be read at once
			at = time.Unix(0, 0)
		}
	}
	return at
}

// looped is more steps than any honest drive takes: beyond it, a mistake of ours would spin.
const looped = 200

// drive takes steps for one entry until Plan wants nothing now.
func (e *Engine) drive(soft, hard context.Context, w *work) {
	w.entryLock.Lock()
	defer w.entryLock.Unlock()
	var failed error
	defer func() {
		if v := recover(); v != nil {
			failed = &PanicError{Value: v}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.busy, w.driven = false, true
		defer w.takeOver()
		if failed != nil {
			// What cannot be recorded backs off in memory: a full disk must not spin.
			w.saveFail++
			w.never, w.wake = false, e.c.Now().Add(backoff(w.name, w.saveFail, unhurried))
			w.readAt = maxTime(w.readAt, w.wake)
			if soft.Err() == nil || !errors.Is(failed, context.Canceled) { // else it was told to stop, and is no failure
				e.c.Warn(fmt.Sprintf("%s: next try at %s", w.name, w.wake.UTC().Format(time.RFC3339)), failed)
			}
			return
		}
		w.saveFail = 0
	}()
	if failed = e.refresh(hard, w); failed != nil {
		return
	}
	for range looped {
		ctx := soft
		if w.rescue(e.c.Now()) {
			ctx = hard // a token that only we hold is brought to safety
		}
		if ctx.Err() != nil {
			w.mu.Lock()
			w.rouse()
			w.mu.Unlock()
			return
		}
		if e.readBackDue(w) {
			if failed = e.readBack(ctx, w); failed != nil {
				return
			}
		}
		if failed = e.overslept(ctx, w); failed != nil {
			return
		}
		if failed = e.recover(ctx, w); failed != nil {
			return
		}
		roused := w.rousedTimes()
		entry, rec := w.glance()
		steps, wake := Plan(&entry, &rec, e.c.Now())
		steps, wake = e.early(&rec, steps, wake)
		if !e.c.Measured() && slices.ContainsFunc(steps, Step.trustsClock) {
			err := e.sure(ctx)
			if err == nil || ctx.Err() != nil {
				continue // what the wrong clock wanted is planned again
			}
			if steps, wake, failed = e.doubt(ctx, w, steps, wake, err); failed != nil {
				return
			}
		}
		if len(steps) == 0 {
			now := e.c.Now()
			w.mu.Lock()
			w.forgetSecrets(now)
			current := w.roused == roused
			if current {
				w.wake, w.never = wake, wake.IsZero()
			}
			w.mu.Unlock()
			if current {
				return
			}
			continue // somebody left a wish, or an outage ended, while this was planned
		}
		if failed = e.take(ctx, hard, w, steps); failed != nil {
			return
		}
	}
	failed = errors.New("the same entry wanted too many steps at once")
}

// refresh reads the record again after a save that failed: it may have been written all the same, and
// every later one would conflict with it. What was issued, and could not be recorded, is revoked by then.
func (e *Engine) refresh(ctx context.Context, w *work) error {
	w.mu.Lock()
	stale := w.stale
	w.mu.Unlock()
	if !stale {
		return nil
	}
	records, err := e.c.Store.Records(ctx)
	if err != nil {
		return fmt.Errorf("read the record again: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stale = false
	if i := slices.IndexFunc(records, func(r Record) bool { return r.Name == w.name }); i >= 0 && records[i].Version > w.rec.Version {
		records[i].Asks = w.rec.Asks
		w.rec = records[i]
		e.known.add(&w.rec)
	}
	return nil
}

func (w *work) rousedTimes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.roused
}

// view returns copies to plan with.
func (w *work) view() (Entry, Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.entry, w.rec.Clone()
}

// glance is view for whoever only reads, every look of every entry for one. It copies nothing: a save
// replaces the record, and leaves the one before as it was.
func (w *work) glance() (Entry, Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.entry, w.rec
}

// rescue reports whether this process alone holds a plaintext whose generation no sink is proven
// to hold, and some sink was not tried yet.
func (w *work) rescue(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.rec.Target(now)
	if g == nil || w.secrets[g.Number].IsZero() || w.entry.Removed || !g.Retry.At.IsZero() {
		return false
	}
	untried := false
	for i := range w.entry.Outlets {
		s := w.rec.Sink(w.entry.Outlets[i].Place)
		switch {
		case s == nil:
			untried = true
		case s.has(g.Number) && s.Proven:
			return false
		case s.Held == "" && s.Tried != g.Number:
			untried = true
		}
	}
	return untried
}

// forgetSecrets drops plaintexts that every sink holds, or that no sink should hold any more.
func (w *work) forgetSecrets(now time.Time) {
	g := w.rec.Target(now)
	for n := range w.secrets {
		keep := false
		if g != nil && g.Number == n {
			for i := range w.entry.Outlets {
				s := w.rec.Sink(w.entry.Outlets[i].Place)
				keep = keep || s == nil || (s.Held == "" && !s.has(n))
			}
		}
		if !keep {
			delete(w.secrets, n)
		}
	}
}

// take takes the first step, or all pushes at once. An error means that the record could not be
// saved or read; everything else that fails is an instant and a text in the record.
func (e *Engine) take(ctx, hard context.Context, w *work, steps []Step) error {
	switch s := steps[0]; s.Kind {
	case StepClock:
		return e.rewind(ctx, w)
	case StepDeclare:
		return e.declare(ctx, w, s)
	case StepForget:
		return e.forget(ctx, w, s)
	case StepReplan:
		return e.replan(ctx, w, s)
	case StepHear:
		return e.hear(ctx, w)
	case StepForce:
		return e.force(ctx, w, s)
	case StepSearch:
		return e.search(ctx, w, s)
	case StepProbe:
		return e.probe(ctx, w, s)
	case StepVerify:
		return e.verify(ctx, w, s)
	case StepPush:
		var places []string
		for _, s := range steps {
			if s.Kind == StepPush {
				places = append(places, s.Place)
			}
		}
		return e.push(ctx, w, s.Number, places)
	case StepPromote:
		return e.promote(ctx, w, s)
	case StepCreate:
		return e.create(ctx, hard, w, s)
	case StepRevoke:
		return e.revoke(ctx, w, s)
	default:
		return fmt.Errorf("no such step: %s", s.Kind)
	}
}

// save changes the record durably: change gets a copy, and what it leaves is kept only when the
// store has it. It may be called from several goroutines.
func (e *Engine) save(ctx context.Context, w *work, change func(r *Record) []Event) error {
	w.saving.Lock()
	defer w.saving.Unlock()
	_, next := w.view()
	events := change(&next)
	now := e.c.Now()
	for i := range events {
		if events[i].At.IsZero() {
			events[i].At = now
		}
		events[i].Entry = w.name
	}
	if err := e.c.Store.Save(ctx, &next, events...); err != nil {
		w.mu.Lock()
		w.stale = true
		w.mu.Unlock()
		return fmt.Errorf("save: %w", err)
	}
	e.known.add(&next)
	w.mu.Lock()
	defer w.mu.Unlock()
	next.Asks = w.rec.Asks // the mailbox may have been read meanwhile
	w.rec = next
	w.rouse()
	return nil
}

// generation returns a copy of a generation of w.
func (w *work) generation(n int) (Generation, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.rec.Generation(n); g != nil {
		return *g, true
	}
	return Generation{}, false
}

func (w *work) secret(n int) Secret {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.secrets[n]
}

func (w *work) outlet(place string) *Outlet {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o := w.entry.outlet(place); o != nil {
		c := *o
		return &c
	}
	return nil
}

// about is an event of a generation.
func (g *Generation) about(kind EventKind) Event {
	return Event{Kind: kind, Generation: g.Number, Label: g.Label, ID: g.ID, Expires: g.Expires}
}

// guard is the one door to sinks and the API: a panic in there becomes an error.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v}
		}
	}()
	return f()
}
