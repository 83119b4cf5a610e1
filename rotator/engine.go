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
	busy     bool
	driven   bool      // it was worked on since this process began
	readAt   time.Time // when its sinks are to be read back
	probeAt  time.Time // when its value is to be tried at the API
	slept    time.Time // the last look before this machine slept, until what that postpones is saved
	stale    bool      // a save failed, and may have been written
	saveFail int       // saves that failed in a row: it cannot be recorded, so it backs off here
}

// Load takes over a configuration: entries that are new, changed, or gone. Records without an
// entry are watched until their last token is dead. An entry that is worked on at the moment goes
// on as it was declared before, until nothing is left to do now. On an error nothing changes.
func (e *Engine) Load(ctx context.Context, entries []Entry) error {
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
	declared := map[string]bool{}
	for _, en := range entries {
		declared[en.Name] = true
	}
	for _, en := range entries {
		old, found := byName[en.Was]
		if _, has := byName[en.Name]; en.Was == "" || !found || has || declared[en.Was] {
			continue
		}
		if slices.Contains(e.Busy(), en.Was) {
			return fmt.Errorf("rename %q to %q: it is being worked on: %w", en.Was, en.Name, ErrBusy)
		}
		renamed, err := e.c.Store.Rename(ctx, old, en.Name, Event{
			At: e.c.Now(), Kind: EventRenamed, Entry: en.Name, Detail: "was " + en.Was,
		})
		if err != nil {
			return fmt.Errorf("rename %q to %q: %w", en.Was, en.Name, err)
		}
		delete(byName, en.Was)
		byName[en.Name] = renamed
		e.mu.Lock()
		delete(e.works, en.Was)
		e.mu.Unlock()
	}
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

// ErrBusy says that an entry cannot be renamed while it is worked on: try again in a moment.
var ErrBusy = errors.New("a rotation is under way")

// takeOver makes what was declared last the entry.
func (w *work) takeOver() {
	if w.edited != nil {
		w.entry, w.edited = *w.edited, nil
		w.wake, w.never, w.readAt = time.Time{}, false, time.Time{}
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
			w.wake, w.never = time.Time{}, false
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

// Due returns, for the driver of a single pass, the names of entries with unfinished work and the
// instant at which the first of them wants to be looked at again; false where none of them does.
func (e *Engine) Due() (names []string, wake time.Time, ok bool) {
	now := e.c.Now()
	for _, w := range e.all() {
		w.mu.Lock()
		if (e.c.Only == nil || slices.Contains(e.c.Only, w.name)) && Unfinished(&w.entry, &w.rec, now) {
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
			w.never, w.wake = false, e.c.Now().Add(backoff(w.name, w.saveFail, 0))
			w.readAt = maxTime(w.readAt, w.wake)
			e.c.Warn(fmt.Sprintf("%s: next try at %s", w.name, w.wake.UTC().Format(time.RFC3339)), failed)
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
			w.wake, w.never = time.Time{}, false
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
		entry, rec := w.view()
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
			w.mu.Lock()
			w.forgetSecrets(e.c.Now())
			w.wake, w.never = wake, wake.IsZero()
			w.mu.Unlock()
			return
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
	if i := slices.IndexFunc(records, func(r Record) bool { return r.Name == w.name }); i >= 0 && records[i].Version != w.rec.Version {
		records[i].Asks = w.rec.Asks
		w.rec = records[i]
		e.known.add(&w.rec)
	}
	return nil
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// view returns copies to plan with.
func (w *work) view() (Entry, Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.entry, w.rec.Clone()
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
	w.wake, w.never = time.Time{}, false
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

// patience is the number of failures after which a backoff is at its longest.
const patience = 20

// fail counts one more failure and sets the next instant; it returns it.
func (t *Retry) fail(key string, now time.Time, left, atLeast time.Duration, err error) time.Time {
	if t.Tries == 0 {
		t.Since = now
	}
	t.Tries++
	n := t.Tries
	if t.Outage = outageOf(err); t.Outage != "" {
		n = patience // its end is asked for by the engine, for all
	}
	t.At = now.Add(max(backoff(key, n, left), min(atLeast, time.Hour)))
	t.Error = err.Error()
	return t.At
}

// retryAfter is what the API asked for, if it did.
func retryAfter(err error) time.Duration {
	if limited := (*LimitedError)(nil); errors.As(err, &limited) {
		return limited.After
	}
	return 0
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

// hashes knows the hash of every plaintext that was ever ours.
type hashes struct {
	mu sync.Mutex
	of map[string]owner
}

type owner struct {
	entry  string
	number int
}

func (h *hashes) add(r *Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = map[string]owner{}
	}
	for i := range r.Generations {
		if g := &r.Generations[i]; g.Hash != "" {
			h.of[g.Hash] = owner{r.Name, g.Number}
		}
	}
	for _, p := range r.Past {
		h.of[p.Hash] = owner{r.Name, p.Number}
	}
}

func (h *hashes) find(hash string) (owner, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o, ok := h.of[hash]
	return o, ok
}
