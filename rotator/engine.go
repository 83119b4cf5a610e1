package rotator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Engine takes the steps that Plan names, for all entries side by side. It never sleeps and asks
// nothing but Now for the time: whoever drives it calls Look every few seconds, or at the instant
// that Look returned. Make one with New.
type Engine struct {
	c Config

	mu      sync.Mutex
	works   map[string]*work
	running int
	looked  time.Time // when Look was last called
	idle    sync.WaitGroup

	readBackEvery, settleFor, each atomic.Int64 // durations; see Tune

	known  hashes
	lists  lister
	sweeps sweeper

	outages outages

	clock       sync.Mutex // held while the API is asked for its time
	clockError  error      // why the last such question failed; nil: it did not
	clockFailed time.Time
}

// Config is what an Engine is made of. All fields but those marked optional are required.
type Config struct {
	API      API
	Store    Store
	Key      []byte // of the keyed hashes
	Instance string // part of every label

	// Now is the local clock, corrected by what the API's Date header was last seen to differ.
	Now func() time.Time
	// Local is the local clock alone: a revocation needs both to agree. Optional.
	Local func() time.Time
	// Measured reports whether an answer of the API bore Now out since this process began, and
	// since a clock last jumped. Until it does, nothing is created, revoked or forgotten. Optional:
	// a clock that is always right.
	Measured func() bool
	// LookEvery is the distance between the calls of Look, of a driver that calls it regularly: a
	// much longer one means that the machine slept. 0: nobody can tell.
	LookEvery time.Duration
	// Pace waits until n requests may be sent. It is waited for before anything durable is
	// begun, and returns early with ctx's error.
	Pace func(ctx context.Context, n int) error

	// Each is what the request limit makes of one rotation: how long a queue of n takes is n times
	// that. Optional: no limit.
	Each time.Duration

	Workers  int           // entries worked on at once; 1 also pushes to one sink after another; 0: 16
	ReadBack time.Duration // how often each sink is read back; 0: 15 minutes
	Sweep    time.Duration // how often the list is searched for orphans; 0: 1 hour
	Settle   time.Duration // how long the API is given to agree with itself; 0: DefaultSettle

	// Only restricts the work to these entries; nil: all. The others keep their records. Optional.
	Only []string
	// Swept is told what each complete list showed besides recorded generations. Optional.
	Swept func(Found)
	// Warn is told what belongs to no record: a list that is forbidden, a save that fails. Optional.
	Warn func(msg string, err error)
}

// New returns an engine without entries.
func New(c Config) *Engine {
	c.Workers = cmp.Or(c.Workers, 16)
	c.Sweep = cmp.Or(c.Sweep, time.Hour)
	if c.Local == nil {
		c.Local = c.Now
	}
	if c.Measured == nil {
		c.Measured = func() bool { return true }
	}
	if c.Pace == nil {
		c.Pace = func(context.Context, int) error { return nil }
	}
	if c.Warn == nil {
		c.Warn = func(string, error) {}
	}
	e := &Engine{c: c, works: map[string]*work{}}
	e.Tune(c.ReadBack, c.Settle, c.Each)
	return e
}

// Tune sets anew what Config calls ReadBack, Settle and Each.
func (e *Engine) Tune(readBack, settle, each time.Duration) {
	e.each.Store(int64(each))
	e.readBackEvery.Store(int64(cmp.Or(readBack, 15*time.Minute)))
	e.settleFor.Store(int64(cmp.Or(settle, DefaultSettle)))
}

// settle is how long the API is given to agree with itself.
func (e *Engine) settle() time.Duration { return time.Duration(e.settleFor.Load()) }

// Load takes over a configuration: entries that are new, changed, or gone. Records without an
// entry are watched until their last token is dead. An entry that is worked on at the moment goes
// on as it was declared before, until nothing is left to do now. On an error nothing changes.
func (e *Engine) Load(ctx context.Context, entries []Entry) error {
	declared := map[string]bool{}
	for _, en := range entries {
		declared[en.Name] = true
	}
	still, err := e.hold(entries, declared)
	if err != nil {
		return err
	}
	letGo := sync.OnceFunc(func() { e.letGo(still) })
	defer letGo()
	records, err := e.c.Store.Records(ctx)
	if err != nil {
		return fmt.Errorf("load records: %w", err)
	}
	asks, err := e.c.Store.Asks(ctx)
	if err != nil {
		return fmt.Errorf("load asks: %w", err)
	}
	byName := map[string]Record{}
	for _, r := range records {
		byName[r.Name] = r
	}
	if err := e.rename(ctx, entries, byName); err != nil {
		return err
	}
	letGo()
	for _, r := range byName {
		e.known.add(&r)
		if !declared[r.Name] {
			entries = append(entries, Entry{
				Name: r.Name, Removed: true, OnRemove: r.OnRemove, Timing: Timing{Overlap: r.Overlap},
			})
		}
	}
	e.outages.forget()
	for _, en := range entries {
		if en.Settle == 0 {
			en.Settle = e.settle()
		}
		e.mu.Lock()
		w := e.works[en.Name]
		if w == nil {
			w = &work{name: en.Name, secrets: map[int]Secret{}, checked: map[string]int{}}
			w.rec = Record{Name: en.Name}
			if r, ok := byName[en.Name]; ok {
				w.rec = r
			}
			e.works[en.Name] = w
		}
		e.mu.Unlock()
		w.mu.Lock()
		if w.edited = &en; !w.busy {
			w.takeOver()
		}
		w.rec.Asks = asksOf(asks, en.Name)
		w.mu.Unlock()
	}
	e.dismiss(declared, byName)
	return nil
}

// dismiss sees to entries that are neither declared nor had a record when Load looked: nothing was
// made for them yet, or is being made just now.
func (e *Engine) dismiss(declared map[string]bool, recorded map[string]Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, w := range e.works {
		if _, has := recorded[name]; has || declared[name] {
			continue
		}
		w.mu.Lock()
		if !w.busy && w.rec.Version == 0 {
			delete(e.works, name)
		} else {
			w.edited = &Entry{
				Name: name, Removed: true, OnRemove: w.entry.OnRemove, Settle: w.entry.Settle, Timing: Timing{Overlap: w.entry.Timing.Overlap},
			}
			if !w.busy {
				w.takeOver()
			}
		}
		w.mu.Unlock()
	}
}

// CheckNew is the preflight of a configuration that is not loaded yet: it asks every sink that no
// loaded entry has whether a push would work. required joins what is in the way of required sinks,
// optional of the others.
func (e *Engine) CheckNew(ctx context.Context, entries []Entry) (required, optional error) {
	known := map[string]bool{}
	for _, w := range e.all() {
		w.mu.Lock()
		for i := range w.entry.Outlets {
			known[w.entry.Outlets[i].Place] = true
		}
		w.mu.Unlock()
	}
	type candidate struct {
		entry  *Entry
		outlet *Outlet
	}
	var candidates []candidate
	for i := range entries {
		for j := range entries[i].Outlets {
			if o := &entries[i].Outlets[j]; !known[o.Place] {
				candidates = append(candidates, candidate{&entries[i], o})
			}
		}
	}
	errs := make([]error, len(candidates))
	before := e.outages.known()
	defer e.outages.keep(before) // what a sink meets that is not in force is nobody's outage
	e.aside(len(candidates), func(i int) {
		c := candidates[i]
		if err := e.checkSink(ctx, c.outlet, nil, c.entry.OnDrift); err != nil {
			errs[i] = fmt.Errorf("%s: %w", c.entry.Name, err)
		}
	})
	for i, err := range errs {
		if candidates[i].outlet.Required {
			required = errors.Join(required, err)
		} else {
			optional = errors.Join(optional, err)
		}
	}
	return required, optional
}

func asksOf(all []Ask, name string) []Ask {
	var out []Ask
	for _, a := range all {
		if a.Entry == name {
			out = append(out, a)
		}
	}
	return out
}

// Look starts the work that is due, the most urgent first, and returns at once. soft ends: no new
// step is begun, but a token that was just made is still brought to safety; hard ends: everything
// stops. The returned instant is when Look has something to do again; the zero time means when
// running work ends (see Wait), or never.
func (e *Engine) Look(soft, hard context.Context) time.Time {
	e.watch()
	e.readAsks(soft)
	if e.sweep(soft, hard) {
		return time.Time{} // the first look at the list comes before any create; it dispatches when it is done
	}
	ask := e.askOutages(soft, hard)
	wake := e.dispatch(soft, hard)
	for _, at := range []time.Time{e.sweeps.next(), ask} {
		if !at.IsZero() && (wake.IsZero() || at.Before(wake)) {
			wake = at
		}
	}
	return wake
}

// Wait blocks until no work is running.
func (e *Engine) Wait() { e.idle.Wait() }

func (e *Engine) readAsks(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	asks, err := e.c.Store.Asks(ctx)
	if err != nil {
		e.c.Warn("read the wishes that commands left", err)
		return
	}
	for _, w := range e.all() {
		w.mu.Lock()
		if mine := asksOf(asks, w.name); !slices.Equal(mine, w.rec.Asks) {
			w.rec.Asks = mine
			w.rouse()
		}
		w.mu.Unlock()
	}
}

// all returns the works, in no order.
func (e *Engine) all() []*work {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*work, 0, len(e.works))
	for _, w := range e.works {
		out = append(out, w)
	}
	return out
}

// dispatch starts due works while there are free workers.
func (e *Engine) dispatch(soft, hard context.Context) time.Time {
	now := e.c.Now()
	type candidate struct {
		w    *work
		left time.Duration
	}
	var ready []candidate
	var wake time.Time
	for _, w := range e.all() {
		w.mu.Lock()
		switch at := w.next(); {
		case w.busy, e.c.Only != nil && !slices.Contains(e.c.Only, w.name):
		case !at.After(now) && !(w.never && at.IsZero()):
			ready = append(ready, candidate{w, w.entry.left(&w.rec, now, 0)})
		case !at.IsZero() && (wake.IsZero() || at.Before(wake)):
			wake = at
		}
		w.mu.Unlock()
	}
	// The least life left goes first; what never had a token breaks nobody, and goes last. So does our
	// own token, whose rotation is a risk for all others, as long as it outlives the queue.
	queue := time.Duration(len(ready)) * time.Duration(e.each.Load())
	rank := func(c candidate) int {
		switch {
		case c.w.name != OwnName:
			return 0
		case c.left == 0 || c.left > queue:
			return 1
		}
		return -1
	}
	slices.SortFunc(ready, func(a, b candidate) int {
		if d := cmp.Compare(rank(a), rank(b)); d != 0 {
			return d
		}
		if (a.left == 0) != (b.left == 0) {
			return cmp.Compare(b.left, a.left)
		}
		return cmp.Or(cmp.Compare(a.left, b.left), cmp.Compare(a.w.name, b.w.name))
	})
	if soft.Err() != nil && len(ready) > 0 {
		return now
	}
	for _, c := range ready {
		e.mu.Lock()
		if soft.Err() != nil || e.running >= e.c.Workers {
			e.mu.Unlock()
			break
		}
		c.w.mu.Lock()
		if c.w.busy {
			c.w.mu.Unlock()
			e.mu.Unlock()
			continue
		}
		c.w.busy = true
		c.w.mu.Unlock()
		e.running++
		e.idle.Add(1)
		e.mu.Unlock()
		go func() {
			defer e.idle.Done()
			e.drive(soft, hard, c.w)
			e.mu.Lock()
			e.running--
			e.mu.Unlock()
			e.dispatch(soft, hard)
		}()
	}
	return wake
}

// Due returns, for the driver of a single pass, the names of entries with unfinished work and the
// instant at which the first of them wants to be looked at again; false where none of them does.
func (e *Engine) Due() (names []string, wake time.Time, ok bool) {
	now := e.c.Now()
	for _, w := range e.all() {
		w.mu.Lock()
		if (e.c.Only == nil || slices.Contains(e.c.Only, w.name)) && unfinished(&w.entry, &w.rec, now) {
			names = append(names, w.name)
			at, some := w.wake, !w.never
			if w.rec.Adopt { // the next look at the list brings it on
				at, some = e.sweeps.next(), true
			}
			w.rec.retries(func(t *Retry) { // its end brings it on
				if again, lasts := e.outages.lasts(t.Outage); lasts && (!some || again.Before(at)) {
					at, some = again, true
				}
			})
			if some && (!ok || at.Before(wake)) {
				wake, ok = at, true
			}
		}
		w.mu.Unlock()
	}
	slices.Sort(names)
	return names, wake, ok
}

// FirstPass reports whether every entry was worked on at least once since this process began: its
// sinks were read back, and what was due was tried.
func (e *Engine) FirstPass() bool {
	for _, w := range e.all() {
		w.mu.Lock()
		waits := !w.driven && (e.c.Only == nil || slices.Contains(e.c.Only, w.name))
		w.mu.Unlock()
		if waits {
			return false
		}
	}
	return true
}

// Busy returns the names of the entries that are worked on at the moment, sorted.
func (e *Engine) Busy() []string {
	var names []string
	for _, w := range e.all() {
		w.mu.Lock()
		if w.busy {
			names = append(names, w.name)
		}
		w.mu.Unlock()
	}
	slices.Sort(names)
	return names
}

// Snapshot returns the entries and copies of their records, sorted by name.
func (e *Engine) Snapshot() ([]Entry, []Record) {
	works := e.all()
	slices.SortFunc(works, func(a, b *work) int { return cmp.Compare(a.name, b.name) })
	var entries []Entry
	var records []Record
	for _, w := range works {
		w.mu.Lock()
		entries = append(entries, w.entry)
		records = append(records, w.rec.Clone())
		w.mu.Unlock()
	}
	return entries, records
}
