package rotator

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Outage is something that many sinks need, and that does not work now.
type Outage struct {
	What    string    // in words
	Error   string    // why, as it was last seen
	Since   time.Time // when it was first seen
	Waiting []string  // entries that have work to do and wait for its end, sorted
	Breaks  time.Time // when the first of them leaves a consumer with a dead token; zero: nobody is
}

// outages asks for all entries together whether what is out works again. While it does not, each
// entry waits as long as its life allows, instead of finding out by itself again and again; when it
// does, all go on at once.
type outages struct {
	mu    sync.Mutex
	of    map[string]*outage
	ended map[string]ended
}

// ended is what is known of an outage that is over: one that comes back at once was not over for
// everybody, since a check can work where a push does not.
type ended struct {
	at    time.Time
	times int // in a row
}

// relapse is how soon after its end the same outage is the same again.
const relapse = 10 * time.Minute

type outage struct {
	outlet   Outlet // one of those that met it
	since    time.Time
	err      string
	tries    int
	relapses int       // how often it was thought to be over
	at       time.Time // when to ask again
	asking   bool
}

// outageEvery is the longest distance between two such questions: a minute after its end, an outage
// is over for everybody.
const outageEvery = 15 * time.Second

// outageOf returns what is out, where that is why err is; "" else.
func outageOf(err error) string {
	if out := (*OutageError)(nil); errors.As(err, &out) {
		return out.What
	}
	return ""
}

// note remembers that o has met an outage.
func (l *outages) note(o *Outlet, what string, now time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of, l.ended = map[string]*outage{}, map[string]ended{}
	}
	out := l.of[what]
	if out == nil {
		last := l.ended[what]
		if now.Sub(last.at) > relapse {
			last = ended{}
		}
		out = &outage{since: now, relapses: last.times, at: now.Add(min(2*time.Second<<min(last.times, 10), relapse))}
		l.of[what] = out
	}
	out.outlet = *o // the one of the configuration in force, after a while
	out.err = outageText(err)
}

// outageText is the cause alone: it is the same for all sinks.
func outageText(err error) string {
	if out := (*OutageError)(nil); errors.As(err, &out) {
		return out.Error()
	}
	return err.Error()
}

// lasts reports whether what is out is known to be, and when that is asked again.
func (l *outages) lasts(what string) (again time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if out := l.of[what]; out != nil {
		return out.at, true
	}
	return time.Time{}, false
}

// forget is for a new configuration: whether its sinks meet an outage will show.
func (l *outages) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.of)
	clear(l.ended)
}

// known returns what is out.
func (l *outages) known() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := map[string]bool{}
	for what := range l.of {
		known[what] = true
	}
	return known
}

// keep forgets everything but these. Who meets one of the others again notes it again.
func (l *outages) keep(these map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for what := range l.of {
		if !these[what] {
			delete(l.of, what)
		}
	}
}

// due returns the outages that are to be asked about now, where begin says that they will be, and
// when the next ones are.
func (l *outages) due(now time.Time, begin bool) (whats []string, wake time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for what, out := range l.of {
		switch {
		case out.asking:
		case begin && !out.at.After(now):
			out.asking = true
			whats = append(whats, what)
		case wake.IsZero() || out.at.Before(wake):
			wake = out.at
		}
	}
	return whats, wake
}

// Outages returns what is out now, the longest first.
func (e *Engine) Outages() []Outage {
	now := e.c.Now()
	e.outages.mu.Lock()
	all := make([]Outage, 0, len(e.outages.of))
	for what, out := range e.outages.of {
		all = append(all, Outage{What: what, Error: out.err, Since: out.since})
	}
	e.outages.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	for _, w := range e.all() {
		w.mu.Lock()
		for i := range all {
			if !w.rec.waitsFor(func(what string) bool { return what == all[i].What }) {
				continue
			}
			all[i].Waiting = append(all[i].Waiting, w.name)
			if left := w.entry.left(&w.rec, now, 0); w.rec.served(0) && (all[i].Breaks.IsZero() || now.Add(left).Before(all[i].Breaks)) {
				all[i].Breaks = now.Add(left)
			}
		}
		w.mu.Unlock()
	}
	for i := range all {
		slices.Sort(all[i].Waiting)
	}
	slices.SortFunc(all, func(a, b Outage) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.What, b.What)) })
	return all
}

// next is when a person may expect the next try; zero: as soon as an outage is over.
func (t *Retry) next() time.Time {
	if t.Outage != "" {
		return time.Time{}
	}
	return t.At
}

// retries calls f with everything that the record tries again.
func (r *Record) retries(f func(*Retry)) {
	f(&r.Create)
	for i := range r.Generations {
		f(&r.Generations[i].Retry)
	}
	for i := range r.Sinks {
		f(&r.Sinks[i].Retry)
	}
}

// waitsFor reports whether something is tried again that failed by an outage of which is says yes.
func (r *Record) waitsFor(is func(what string) bool) (waits bool) {
	r.retries(func(t *Retry) { waits = waits || t.Outage != "" && is(t.Outage) })
	return waits
}

// askOutages starts the questions that are due, and returns when the next one is.
func (e *Engine) askOutages(soft, hard context.Context) time.Time {
	whats, wake := e.outages.due(e.c.Now(), soft.Err() == nil)
	for _, what := range whats {
		e.idle.Add(1)
		go func() {
			defer e.idle.Done()
			e.askOutage(soft, what)
			e.dispatch(soft, hard)
		}()
	}
	return wake
}

// askOutage asks a sink that met an outage whether it is over, and then wakes everybody.
func (e *Engine) askOutage(ctx context.Context, what string) {
	l := &e.outages
	l.mu.Lock()
	out := l.of[what]
	if out == nil {
		l.mu.Unlock()
		return
	}
	o := out.outlet
	l.mu.Unlock()
	err := e.at(ctx, &o, "check", o.Sink.Check)
	l.mu.Lock()
	if ctx.Err() != nil || outageOf(err) == what {
		out.asking, out.tries = false, out.tries+1
		out.at = e.c.Now().Add(min(2*time.Second<<min(out.tries, 10), outageEvery))
		l.mu.Unlock()
		return
	}
	delete(l.of, what)
	l.ended[what] = ended{e.c.Now(), out.relapses + 1}
	l.mu.Unlock()
	for _, w := range e.all() {
		w.mu.Lock()
		unread := slices.ContainsFunc(w.rec.Sinks, func(s SinkState) bool { return s.Unread != "" })
		if unread && !w.entry.Removed {
			w.readAt = e.c.Now()
		}
		if unread || w.rec.waitsFor(func(other string) bool { return other == what }) {
			w.rouse()
		}
		w.mu.Unlock()
	}
}

// recover lets an entry try at once what an outage kept from it, unless it still lasts.
func (e *Engine) recover(ctx context.Context, w *work) error {
	over := func(what string) bool {
		_, lasts := e.outages.lasts(what)
		return !lasts
	}
	w.mu.Lock()
	waits := w.rec.waitsFor(over)
	w.mu.Unlock()
	if !waits {
		return nil
	}
	return e.save(ctx, w, func(r *Record) []Event {
		r.retries(func(t *Retry) {
			if t.Outage != "" && over(t.Outage) {
				t.At, t.Outage = time.Time{}, ""
			}
		})
		return nil
	})
}
