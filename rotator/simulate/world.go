// Package simulate is a world for the engine: a clock that jumps, an API, sinks and a store in
// memory, faults at every call, and a witness that watches the promise all the time. What runs in
// it is the daemon's own engine; only what is around it is made up.
package simulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// World holds everything outside of the engine. It survives the engine's crashes.
type World struct {
	Store *Store
	API   *API
	Sinks map[string]*Sink // by place

	Instance        string                        // of the engines started here; "": sim
	ReadBack, Sweep time.Duration                 // of the engines started here; 0: the engine's defaults
	Through         func(rotator.API) rotator.API // what the engines started here ask through; nil: nothing
	Each            time.Duration                 // what a request limit makes of one rotation
	LookEvery       time.Duration                 // processes look this regularly, and notice when they slept; 0: they jump from wake to wake

	mu       sync.Mutex
	now      time.Time                   // the true time, which the API goes by
	wrong    time.Duration               // by how much this machine's clock is ahead of it
	offset   time.Duration               // what an answer last said has to be added to this machine's clock
	measured bool                        // and the last answer bore it out
	calls    int                         // seam calls so far
	cutAt    int                         // the call from which on nothing happens any more; 0: none
	faultAt  map[int]Fault               // what goes wrong at the n-th call
	trace    []string                    // what was called, for a failure's report
	outage   func(what string) error     // goes wrong as long as it returns an error
	untraced bool                        // a year of calls is too much to keep
	watch    func(w *World, what string) // the witness, told after every call

	asking, looking sync.Mutex // one call at a time asks outage, and one tells the witness
}

// Fault says how one call goes wrong.
type Fault int

// The faults of a call.
const (
	None       Fault = iota
	FailBefore       // an error, and nothing happened
	FailAfter        // it happened, and the answer is an error
	Refuse           // the API refuses; for other calls like FailBefore
	Limit            // 429
	Narrow           // a create grants the first scope only
	Panic            // the implementation panics, after nothing happened
)

// Faults are all of them.
var Faults = [...]Fault{FailBefore, FailAfter, Refuse, Limit, Narrow, Panic}

func (f Fault) String() string {
	return [...]string{"none", "fail before", "fail after", "refuse", "limit", "narrow", "panic"}[f]
}

// errCut is what every call returns once the engine's process is dead.
var errCut = errors.New("the process is dead")

// errFault is an ordinary failure.
var errFault = errors.New("simulated fault")

// New returns a world at the given instant.
func New(now time.Time) *World {
	w := &World{now: now, Sinks: map[string]*Sink{}, faultAt: map[int]Fault{}}
	w.Store = NewStore(w)
	w.API = &API{w: w, tokens: map[string]*Token{}, byPlaintext: map[string]*Token{}}
	return w
}

// Now is the virtual clock: the true time.
func (w *World) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// Local is what this machine believes.
func (w *World) Local() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now.Add(w.wrong)
}

// Corrected is what this machine believes, and an answer of the API last corrected.
func (w *World) Corrected() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now.Add(w.wrong + w.offset)
}

// Measured reports whether an answer bore Corrected out since the clock was last stepped.
func (w *World) Measured() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.measured
}

// Step moves this machine's clock, and nobody else's.
func (w *World) Step(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong += d
	w.measured = false
}

// answered: the API's answer tells its time. A jump has to be seen twice, as by the real client.
func (w *World) answered(what string) {
	switch what {
	case "create", "list", "verify", "revoke":
		w.mu.Lock()
		defer w.mu.Unlock()
		w.measured = (w.offset + w.wrong).Abs() < 30*time.Second
		w.offset = -w.wrong
	}
}

// Set moves the clock.
func (w *World) Set(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = t
}

// Calls returns how many seam calls there were.
func (w *World) Calls() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls
}

// CutAt lets the process die just before the n-th call from now on (1: the next one). 0: never.
func (w *World) CutAt(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutAt = 0
	if n > 0 {
		w.cutAt = w.calls + n
	}
}

// FaultAt lets the n-th call from now on go wrong.
func (w *World) FaultAt(n int, f Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faultAt[w.calls+n] = f
}

// Outage lets calls go wrong for as long as broken returns an error for their name: "create",
// "list", "verify", "revoke", "save", or "check", "push" and "read" followed by the place. Calls ask it
// one after the other, so it must make none itself.
func (w *World) Outage(broken func(what string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outage = broken
}

// Watch has f told after every call, of one at a time: it needs no lock, and must make no call itself.
func (w *World) Watch(f func(w *World, what string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch = f
}

// Trace returns the calls so far, and forgets them.
func (w *World) Trace() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.trace
	w.trace = nil
	return t
}

// Dead reports whether the process was cut off.
func (w *World) Dead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cutAt > 0 && w.calls >= w.cutAt
}

// call is the one door: it counts, cuts and fails, and does the work in between. certain is the
// error of a call that surely did nothing.
func (w *World) call(ctx context.Context, what string, do func(f Fault) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	if w.cutAt > 0 && w.calls+1 >= w.cutAt {
		w.calls++
		w.mu.Unlock()
		return errCut
	}
	w.calls++
	f := w.faultAt[w.calls]
	if !w.untraced {
		w.trace = append(w.trace, fmt.Sprintf("%s #%d %s %s", w.now.Format("01-02T15:04:05"), w.calls, what, f))
	}
	broken, watch := w.outage, w.watch
	w.mu.Unlock()
	if broken != nil {
		if err := w.broken(broken, what); err != nil {
			return err
		}
	}
	defer func() {
		if watch != nil {
			w.looking.Lock()
			defer w.looking.Unlock()
			watch(w, what)
		}
	}()
	switch f {
	case Panic:
		if what != "save" { // the store is ours: it does not panic
			panic("simulated")
		}
		return errFault
	case FailBefore:
		return errFault
	case Refuse, Limit:
		if what != "create" && what != "verify" && what != "list" && what != "revoke" {
			return errFault
		}
	}
	if err := do(f); err != nil {
		w.answered(what)
		return err
	}
	if f == FailAfter {
		return errFault
	}
	w.answered(what)
	return nil
}

func (w *World) broken(outage func(what string) error, what string) error {
	w.asking.Lock()
	defer w.asking.Unlock()
	return outage(what)
}

// Store keeps records in memory, as the real one keeps them on disk.
type Store struct {
	w       *World
	mu      sync.Mutex
	records map[string]rotator.Record
	Journal []rotator.Event
	Wishes  []rotator.Ask
	lose    func([]rotator.Event) bool // the disk acknowledges such a save, and does not write it
}

// NewStore returns an empty store of w's: a lost state folder is one.
func NewStore(w *World) *Store { return &Store{w: w, records: map[string]rotator.Record{}} }

// Records implements rotator.Store.
func (s *Store) Records(context.Context) ([]rotator.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []rotator.Record
	for _, r := range s.records {
		out = append(out, r.Clone())
	}
	slices.SortFunc(out, func(a, b rotator.Record) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Record returns a copy of one record; nil where there is none.
func (s *Store) Record(name string) *rotator.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[name]
	if !ok {
		return nil
	}
	r = r.Clone()
	return &r
}

// Put replaces a record behind the engine's back, as a restored backup does.
func (s *Store) Put(r rotator.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[r.Name] = r.Clone()
}

// Save implements rotator.Store.
func (s *Store) Save(ctx context.Context, r *rotator.Record, told ...rotator.Event) error {
	return s.w.call(ctx, "save", func(Fault) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.records[r.Name].Version != r.Version {
			return rotator.ErrConflict
		}
		c := r.Clone()
		c.Version++
		c.Asks = nil
		if s.lose != nil && s.lose(told) {
			old := s.records[r.Name]
			old.Name, old.Version = r.Name, c.Version
			c, told = old, nil
		}
		s.records[r.Name] = c
		s.Journal = append(s.Journal, told...)
		r.Version++
		return nil
	})
}

// Rename implements rotator.Store.
func (s *Store) Rename(_ context.Context, all ...rotator.Renaming) ([]rotator.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range all {
		if _, taken := s.records[a.To]; taken || s.records[a.Record.Name].Version != a.Record.Version {
			return nil, rotator.ErrConflict
		}
	}
	var out []rotator.Record
	for _, a := range all {
		delete(s.records, a.Record.Name)
		r := a.Record.Clone()
		r.Name = a.To
		r.Version++
		s.records[a.To] = r.Clone()
		s.Journal = append(s.Journal, a.Told)
		out = append(out, r)
	}
	return out, nil
}

// Intended implements rotator.Store.
func (s *Store) Intended(_ context.Context, label string) (string, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ev := range s.Journal {
		if ev.Kind == rotator.EventIntended && ev.Label == label {
			return ev.Entry, true, nil
		}
	}
	return "", false, nil
}

// Asks implements rotator.Store.
func (s *Store) Asks(context.Context) ([]rotator.Ask, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.Wishes), nil
}

// Ask leaves a wish, as a command does.
func (s *Store) Ask(a rotator.Ask) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Wishes = append(s.Wishes, a)
}

// Events returns the journal's events of one kind.
func (s *Store) Events(kind rotator.EventKind) []rotator.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []rotator.Event
	for _, ev := range s.Journal {
		if ev.Kind == kind {
			out = append(out, ev)
		}
	}
	return out
}

// Token is one token of the API.
type Token struct {
	ID, Name, Plaintext string
	Scopes, Chatbots    []string
	Created, Expires    time.Time
	Revoked             time.Time
}

// Live reports whether the API accepts the token at now.
func (t *Token) Live(now time.Time) bool { return t.Revoked.IsZero() && now.Before(t.Expires) }

// API is SiteGPT in memory.
type API struct {
	w      *World
	mu     sync.Mutex
	tokens map[string]*Token // by id
	serial int

	byPlaintext map[string]*Token

	MaxLife   time.Duration // the server grants no more than this; 0: what is asked
	NoList    bool          // the list is forbidden
	Creates   int           // POSTs that arrived
	HideAfter time.Duration // a new token is missing in the list for this long

	// Bearer is the token that requests are made with; "", and nil: the operator's, which always works.
	Bearer func() string
}

// asks says who makes a request: the generation of rotatord's own token, 0 for the operator's.
func (a *API) asks() (by int, err error) {
	if a.Bearer == nil {
		return 0, nil
	}
	plaintext := a.Bearer()
	if plaintext == "" {
		return 0, nil
	}
	now := a.w.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.byPlaintext[plaintext]; t != nil && t.Live(now) {
		l, _ := rotator.ParseLabel(t.Name)
		return l.Number, nil // 0 without a label
	}
	return 0, fmt.Errorf("the management token: %w", rotator.ErrUnauthorized)
}

// Create implements rotator.API.
func (a *API) Create(ctx context.Context, r rotator.Request) (out rotator.Issued, err error) {
	by, bad := a.asks()
	err = a.w.call(ctx, "create", func(f Fault) error {
		now := a.w.Now()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.Creates++
		switch f {
		case Refuse:
			return fmt.Errorf("simulated: %w", rotator.ErrRejected)
		case Limit:
			return &rotator.LimitedError{After: 30 * time.Second}
		}
		if bad != nil {
			return errors.Join(bad, rotator.ErrRefused)
		}
		a.serial++
		t := &Token{
			ID: fmt.Sprintf("tok_%d", a.serial), Name: r.Label, Plaintext: fmt.Sprintf("sgpt_%d", a.serial),
			Scopes: slices.Clone(r.Scopes), Chatbots: r.Chatbots, Created: now, Expires: r.ExpiresAt,
		}
		if f == Narrow {
			t.Scopes = t.Scopes[:1]
		}
		if limit := now.Add(a.MaxLife); a.MaxLife > 0 && t.Expires.After(limit) {
			t.Expires = limit.Truncate(time.Second)
		}
		a.tokens[t.ID], a.byPlaintext[t.Plaintext] = t, t
		out = rotator.Issued{ID: t.ID, Scopes: t.Scopes, ExpiresAt: t.Expires, Token: rotator.NewSecret(t.Plaintext), By: by}
		return nil
	})
	if err != nil {
		out = rotator.Issued{}
	}
	return out, err
}

// Verify implements rotator.API.
func (a *API) Verify(ctx context.Context, s rotator.Secret) error {
	return a.w.call(ctx, "verify", func(f Fault) error {
		if f == Limit {
			return &rotator.LimitedError{After: 5 * time.Second}
		}
		if f == Refuse || !a.Accepts(s.Reveal()) {
			return rotator.ErrUnauthorized
		}
		return nil
	})
}

// List implements rotator.API.
func (a *API) List(ctx context.Context) (out []rotator.Listed, err error) {
	err = a.w.call(ctx, "list", func(f Fault) error {
		if a.NoList || f == Refuse {
			return rotator.ErrForbidden
		}
		if f == Limit {
			return &rotator.LimitedError{}
		}
		if _, err := a.asks(); err != nil {
			return err
		}
		now := a.w.Now()
		for _, t := range a.which(func(t *Token) bool { return t.Live(now) && now.Sub(t.Created) >= a.HideAfter }) {
			out = append(out, rotator.Listed{ID: t.ID, Name: t.Name, Created: t.Created})
		}
		return nil
	})
	if err != nil {
		out = nil
	}
	return out, err
}

// Revoke implements rotator.API.
func (a *API) Revoke(ctx context.Context, id string) error {
	return a.w.call(ctx, "revoke", func(f Fault) error {
		if f == Refuse {
			return rotator.ErrForbidden
		}
		if f == Limit {
			return &rotator.LimitedError{}
		}
		if _, err := a.asks(); err != nil {
			return err
		}
		a.Kill(id)
		return nil
	})
}

// Kill revokes a token as its owner does in the dashboard.
func (a *API) Kill(id string) {
	now := a.w.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tokens[id]; t != nil && t.Revoked.IsZero() {
		t.Revoked = now
	}
}

// Add plants a token that rotatord never made.
func (a *API) Add(t Token) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[t.ID], a.byPlaintext[t.Plaintext] = &t, &t
}

// Accepts reports whether the API accepts a plaintext now.
func (a *API) Accepts(plaintext string) bool {
	now := a.w.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.byPlaintext[plaintext]
	return t != nil && t.Live(now)
}

// death returns when a plaintext dies, or died; false where there is no such token.
func (a *API) death(plaintext string) (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.byPlaintext[plaintext]
	switch {
	case t == nil:
		return time.Time{}, false
	case !t.Revoked.IsZero() && t.Revoked.Before(t.Expires):
		return t.Revoked, true
	}
	return t.Expires, true
}

// Tokens returns copies of all tokens there ever were, oldest first.
func (a *API) Tokens() []Token { return a.which(func(*Token) bool { return true }) }

func (a *API) which(wanted func(*Token) bool) []Token {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Token
	for _, t := range a.tokens {
		if wanted(t) {
			out = append(out, *t)
		}
	}
	slices.SortFunc(out, func(x, y Token) int { return cmp.Or(x.Created.Compare(y.Created), cmp.Compare(x.ID, y.ID)) })
	return out
}

// Sink is a sink in memory.
type Sink struct {
	w     *World
	place string
	mu    sync.Mutex
	value string

	Blind  bool // cannot be read
	Pushes int
}

// Outlet declares a sink of this world, made when it is missing.
func (w *World) Outlet(name string, required, blind bool) rotator.Outlet {
	place := "memory:" + name
	return rotator.Outlet{Place: place, Name: name, Kind: "memory", Required: required, Sink: w.sinkAt(place, blind)}
}

// sinkAt returns the sink at place, made when it is missing.
func (w *World) sinkAt(place string, blind bool) *Sink {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.Sinks[place]
	if s == nil {
		s = &Sink{w: w, place: place, Blind: blind}
		w.Sinks[place] = s
	}
	return s
}

// Value is what a consumer sees.
func (s *Sink) Value() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

// Set writes behind the engine's back.
func (s *Sink) Set(v string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value = v
}

// Check implements rotator.Sink.
func (s *Sink) Check(ctx context.Context) error {
	return s.w.call(ctx, "check "+s.place, func(Fault) error { return nil })
}

// Push implements rotator.Sink.
func (s *Sink) Push(ctx context.Context, _ rotator.Generation, v rotator.Secret) error {
	return s.w.call(ctx, "push "+s.place, func(Fault) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.value = v.Reveal()
		s.Pushes++
		return nil
	})
}

// Read implements rotator.Sink.
func (s *Sink) Read(ctx context.Context) (out rotator.Secret, err error) {
	if s.Blind {
		return out, fmt.Errorf("memory: %w", errors.ErrUnsupported)
	}
	err = s.w.call(ctx, "read "+s.place, func(Fault) error {
		out = rotator.NewSecret(s.Value())
		return nil
	})
	if err != nil {
		out = rotator.Secret{}
	}
	return out, err
}

// Around puts a sink from outside into this world, a real Vault for one: its calls are counted, cut
// and made to fail like those of all others.
func (w *World) Around(place string, s rotator.Sink) rotator.Sink { return &guest{w, place, s} }

type guest struct {
	w     *World
	place string
	sink  rotator.Sink
}

func (g *guest) Check(ctx context.Context) error {
	return g.w.call(ctx, "check "+g.place, func(Fault) error { return g.sink.Check(ctx) })
}

func (g *guest) Push(ctx context.Context, gen rotator.Generation, v rotator.Secret) error {
	return g.w.call(ctx, "push "+g.place, func(Fault) error { return g.sink.Push(ctx, gen, v) })
}

func (g *guest) Read(ctx context.Context) (out rotator.Secret, err error) {
	err = g.w.call(ctx, "read "+g.place, func(Fault) (err error) {
		out, err = g.sink.Read(ctx)
		return err
	})
	if err != nil {
		out = rotator.Secret{}
	}
	return out, err
}
