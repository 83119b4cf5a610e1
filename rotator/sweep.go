package rotator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// lister shares one list call between all who need one at the same time.
type lister struct {
	mu      sync.Mutex
	next    *listCall // started by nobody yet: whoever joins it gets a list begun after joining
	running *listCall
	last    map[string]time.Time // id → last used, of the last complete list
}

type listCall struct {
	done   chan struct{}
	listed []Listed
	err    error
}

// after returns a complete list that was begun after this call was.
func (l *lister) after(ctx context.Context, e *Engine) ([]Listed, error) {
	l.mu.Lock()
	call, mine := l.next, false
	if call == nil {
		call = &listCall{done: make(chan struct{})}
		l.next, mine = call, true
	}
	before := l.running
	l.mu.Unlock()
	if mine {
		if before != nil {
			<-before.done // one at a time; whoever comes meanwhile shares the next
		}
		l.mu.Lock()
		l.next, l.running = nil, call
		l.mu.Unlock()
		call.listed, call.err = e.list(ctx)
		l.mu.Lock()
		if l.running == call {
			l.running = nil
		}
		if call.err == nil {
			l.last = map[string]time.Time{}
			for _, t := range call.listed {
				l.last[t.ID] = t.LastUsed
			}
		}
		l.mu.Unlock()
		close(call.done)
	}
	select {
	case <-call.done:
		return call.listed, call.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *Engine) list(ctx context.Context) (listed []Listed, err error) {
	if err := e.c.Pace(ctx, 1); err != nil {
		return nil, err
	}
	err = guard(func() (err error) {
		listed, err = e.c.API.List(ctx)
		return err
	})
	return listed, err
}

// used returns when the last list said a token was last used; zero where it does not say.
func (l *lister) used(id string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[id]
}

// current reports whether a list shows at least one generation that is known to be alive, where
// any is: an old copy, or another account's list, proves no absence.
func (l *lister) current(listed []Listed, e *Engine) bool {
	now := e.c.Now()
	known := map[string]bool{}
	for _, w := range e.all() {
		w.mu.Lock()
		for i := range w.rec.Generations {
			if g := &w.rec.Generations[i]; g.Live(now) && g.Suspect.IsZero() && now.Sub(g.Created) > e.settle() {
				known[g.ID] = true
			}
		}
		w.mu.Unlock()
	}
	return len(known) == 0 || slices.ContainsFunc(listed, func(t Listed) bool { return known[t.ID] })
}

// sweeper searches the list for tokens of ours that no record holds.
type sweeper struct {
	mu      sync.Mutex
	at      time.Time // the next one
	first   bool      // the first one is over
	running bool
	tries   int
	found   Found
}

// Found is what the last complete sweep saw besides our recorded generations.
type Found struct {
	At          time.Time
	Error       string   // why the last try failed; At is then of the one before
	Unexplained []Listed // our mark and instance, but no intent of this state
	Others      []Listed // the mark of another instance
	Foreign     int      // tokens without a mark
}

// Found returns what the last sweep saw.
func (e *Engine) Found() Found {
	e.sweeps.mu.Lock()
	defer e.sweeps.mu.Unlock()
	return e.sweeps.found
}

// next is when the list is to be searched again.
func (s *sweeper) next() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

// sweep starts a sweep when it is time for one, and reports whether the very first one is still
// under way: until then nothing is created, since it may show that this state is an old copy.
func (e *Engine) sweep(soft, hard context.Context) (wait bool) {
	s := &e.sweeps
	s.mu.Lock()
	defer s.mu.Unlock()
	if soft.Err() != nil {
		return false
	}
	if s.running || s.at.After(e.c.Now()) {
		return !s.first
	}
	s.running = true
	e.idle.Add(1)
	go func() {
		defer e.idle.Done()
		err := e.sweepOnce(soft)
		now := e.c.Now()
		s.mu.Lock()
		s.running, s.first = false, true
		s.at = now.Add(e.c.Sweep)
		if err == nil {
			s.tries, s.found.Error = 0, ""
		} else if soft.Err() == nil {
			s.tries++
			s.found.Error = err.Error()
			if !errors.Is(err, ErrForbidden) {
				s.at = now.Add(backoff("sweep", s.tries+3, unhurried))
			}
			if s.tries == 1 {
				e.c.Warn("the list of tokens cannot be searched for orphans", err)
			}
		}
		s.mu.Unlock()
		e.dispatch(soft, hard)
	}()
	return !s.first
}

// sweepOnce lists first and reads the records after, so that a token made meanwhile is recorded.
func (e *Engine) sweepOnce(ctx context.Context) error {
	begun := e.c.Now()
	listed, err := e.lists.after(ctx, e)
	if err != nil {
		return err
	}
	now := e.c.Now()
	found := Found{At: now}
	alive := map[string]bool{}
	works := map[string]*work{}
	ids := map[string]*work{}
	labels := map[string]*work{}
	for _, w := range e.all() {
		w.mu.Lock()
		works[w.name] = w
		for i := range w.rec.Generations {
			g := &w.rec.Generations[i]
			if g.ID != "" {
				ids[g.ID] = w
			}
			labels[g.Label] = w
		}
		w.mu.Unlock()
	}
	for _, t := range listed {
		if !t.Revoked.IsZero() || (!t.Expires.IsZero() && !t.Expires.After(now)) {
			continue
		}
		alive[t.ID] = true
		l, marked := ParseLabel(t.Name)
		switch {
		case ids[t.ID] != nil:
			err = errors.Join(err, e.stillAlive(ctx, ids[t.ID], t))
		case !marked:
			found.Foreign++
		case l.Instance != e.c.Instance:
			found.Others = append(found.Others, t)
		default:
			w := labels[t.Name]
			if w == nil {
				name, ok, ierr := e.c.Store.Intended(ctx, t.Name)
				if ierr != nil {
					return ierr
				}
				if ok {
					if w = works[name]; w == nil {
						w = works[l.Entry]
					}
				}
			}
			if w == nil {
				found.Unexplained = append(found.Unexplained, t)
				continue
			}
			err = errors.Join(err, e.orphan(ctx, w, t))
		}
	}
	err = errors.Join(err, e.unexplained(ctx, works, found.Unexplained))
	// Who is known to be alive, and is not listed?
	if e.lists.current(listed, e) {
		for _, w := range works {
			entry, rec := w.view()
			g := rec.Target(now)
			if g == nil || entry.Removed || g.Converged.IsZero() || alive[g.ID] || !g.Suspect.IsZero() || begun.Sub(g.Created) < e.settle() {
				continue
			}
			w.entryLock.Lock()
			serr := e.suspect(ctx, w, g.Number, "the list of live tokens lacks it")
			w.entryLock.Unlock()
			w.mu.Lock()
			w.rouse()
			w.mu.Unlock()
			err = errors.Join(err, serr)
		}
	}
	e.sweeps.mu.Lock()
	e.sweeps.found = found
	e.sweeps.mu.Unlock()
	if e.c.Swept != nil {
		e.c.Swept(found)
	}
	return err
}

// orphan revokes a token that bears the label of a recorded intent and is no recorded generation.
// It looks again under the entry's lock: the create may have been recorded meanwhile.
func (e *Engine) orphan(ctx context.Context, w *work, t Listed) error {
	w.entryLock.Lock()
	defer w.entryLock.Unlock()
	_, rec := w.view()
	if rec.hasID(t.ID) {
		return nil
	}
	n := 0
	for i := range rec.Generations {
		if g := &rec.Generations[i]; g.Label == t.Name {
			if g.Open() {
				return nil // its own search is under way
			}
			n = g.Number
		}
	}
	return e.revokeOrphan(ctx, w, n, t)
}

// stillAlive handles a recorded generation that the list shows: one that we revoked must not be there.
func (e *Engine) stillAlive(ctx context.Context, w *work, t Listed) error {
	w.entryLock.Lock()
	defer w.entryLock.Unlock()
	now := e.c.Now()
	_, rec := w.view()
	i := slices.IndexFunc(rec.Generations, func(g Generation) bool { return g.ID == t.ID })
	if i < 0 {
		return nil
	}
	g := rec.Generations[i]
	if g.Revoked.IsZero() || now.Sub(g.Revoked) < e.settle() || !now.Before(g.Expires) {
		return nil
	}
	return e.save(ctx, w, func(r *Record) []Event {
		p := r.Generation(g.Number)
		ev := p.about(EventWarning)
		ev.Detail = "revoked, and still listed as alive: it is revoked again"
		if p.RevokeAt.IsZero() {
			p.RevokeAt = now
		}
		if p.Died { // not our doing: its users go through the overlap like everybody
			ev.Detail = "refused by the API before, and listed as alive now"
			p.RevokeAt = time.Time{}
			if cur := r.Current(now); cur != nil && cur.Number > p.Number {
				p.RevokeAt = now.Add(r.Overlap)
			}
		}
		p.Revoked, p.Died, p.Retry = time.Time{}, false, Retry{}
		return []Event{ev}
	})
}

// unexplained adopts the tokens that this state does not know where that is safe or wanted, and blocks
// the entries of all others: the state is fresh, old or copied, and whoever made those tokens may still
// be at work.
func (e *Engine) unexplained(ctx context.Context, works map[string]*work, tokens []Listed) error {
	by := map[string][]Listed{}
	for _, t := range tokens {
		if l, ok := ParseLabel(t.Name); ok {
			by[l.Entry] = append(by[l.Entry], t)
		}
	}
	var errs error
	for name, w := range works {
		errs = errors.Join(errs, e.unexplainedOf(ctx, w, by[name]))
	}
	return errs
}

func (e *Engine) unexplainedOf(ctx context.Context, w *work, tokens []Listed) error {
	w.entryLock.Lock()
	defer w.entryLock.Unlock()
	entry, rec := w.view()
	var failed error
	if adoptable(&entry, &rec, tokens) {
		done, err := e.adopt(ctx, w, tokens)
		if done {
			return err
		}
		failed = err
	}
	blocked, why := strings.HasPrefix(rec.Blocked, unexplainedPrefix), ""
	if len(tokens) > 0 {
		why = unexplainedPrefix + "SiteGPT lists live tokens of this instance and entry that this state never made: the state is new, old, or a copy"
	}
	if entry.Removed || !(why != "" && rec.Blocked == "" || why == "" && (blocked || rec.Adopt)) {
		return failed
	}
	return errors.Join(failed, e.save(ctx, w, func(r *Record) []Event {
		r.Blocked, r.BlockedUntil = why, time.Time{}
		if why == "" {
			r.Adopt = false
			return []Event{{Kind: EventReleased, Detail: "no unexplained token is left"}}
		}
		for _, t := range tokens {
			l, _ := ParseLabel(t.Name)
			r.BlockedUntil = maxTime(r.BlockedUntil, l.Expires.Add(-entry.Timing.Overlap/4))
		}
		return []Event{{Kind: EventHeld, Detail: why + "; nothing is created until the last quarter of the overlap; see: rotatord orphans; then adopt, or rotate NAME"}}
	}))
}
