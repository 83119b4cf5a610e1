package rotator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Consumer is a program that uses an entry's token and is told when there is a new one.
type Consumer struct {
	Name  string // as declared, the key of its state
	Title string // for people: bot.service
}

// ConsumerState is what is known of one consumer of an entry. It is told while Told is another
// generation than the promoted one: how often, and after which crash, makes no difference.
type ConsumerState struct {
	Name  string    `json:"name"`
	Told  int       `json:"told"`  // the generation that it was last told of; 0: of none
	Taken int       `json:"taken"` // the newest that it is known to use
	At    time.Time `json:"at,omitzero"`
	Again bool      `json:"again,omitempty"` // it was told of this one twice, since the first time may be lost
	Retry Retry     `json:"retry,omitzero"`  // of telling
}

// slow is how long a consumer may need before it is a problem that it has not taken a token.
const slow = 2 * time.Minute

// Notice is what one consumer of one entry may have to be told.
type Notice struct {
	Entry      string
	Consumer   Consumer
	Generation int           // the promoted one; 0: there is none
	Since      time.Time     // when it was promoted
	Expires    time.Time     // when it expires
	Rotating   bool          // a newer one is on its way, or due
	Known      bool          // State is; a consumer that was added meanwhile starts at Generation
	State      ConsumerState // as recorded
}

// Untold reports whether the consumer does not know of the promoted generation yet.
func (n *Notice) Untold() bool { return n.Generation > 0 && n.Known && n.State.Told != n.Generation }

// Told is how telling a consumer went.
type Told struct {
	Taken bool  // it surely has what it was told of
	Again bool  // it was told once more, since nobody knows what became of the first time
	Err   error // it could not be told
}

// Notices returns what consumers may have to be told, sorted by entry and consumer.
func (e *Engine) Notices() []Notice {
	now := e.c.Now()
	var out []Notice
	for _, w := range e.all() {
		w.mu.Lock()
		creating := len(w.entry.Consumers) > 0 && w.aboutToCreate(now)
		for _, c := range w.entry.Consumers {
			n := Notice{Entry: w.name, Consumer: c}
			if g := w.rec.Current(now); g != nil {
				n.Generation, n.Since, n.Expires = g.Number, g.Converged, g.Expires
			}
			target := w.rec.Target(now)
			n.Rotating = target != nil && target.Number > n.Generation || creating
			if s := w.rec.consumer(c.Name); s != nil {
				n.State, n.Known = *s, true
			}
			out = append(out, n)
		}
		w.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Notice) int {
		return cmp.Or(cmp.Compare(a.Entry, b.Entry), cmp.Compare(a.Consumer.Name, b.Consumer.Name))
	})
	return out
}

// aboutToCreate reports whether a token is due or being created, and nothing has been in its way yet: it
// may wait for the request limit behind those that were due at the same tick. w.mu is held.
func (w *work) aboutToCreate(now time.Time) bool {
	at := w.next()
	if w.rec.Create.Tries > 0 || !w.busy && (at.After(now) || w.never && at.IsZero()) {
		return false
	}
	if w.busy && slices.ContainsFunc(w.rec.Generations, func(g Generation) bool { return g.Open() }) {
		return true
	}
	steps, _ := Plan(&w.entry, &w.rec, now)
	return slices.ContainsFunc(steps, func(s Step) bool { return s.Kind == StepCreate })
}

// Begin notes that a consumer that was not known before starts at the promoted generation.
func (e *Engine) Begin(ctx context.Context, n Notice) error {
	return e.note(ctx, n, func(_ *Record, s *ConsumerState) []Event {
		s.Told, s.Taken, s.At = n.Generation, n.Generation, e.c.Now()
		return nil
	})
}

// Told notes how telling a consumer of n.Generation went.
func (e *Engine) Told(ctx context.Context, n Notice, t Told) error {
	return e.note(ctx, n, func(r *Record, s *ConsumerState) []Event {
		now := e.c.Now()
		ev := Event{Generation: n.Generation, Detail: n.Consumer.Title}
		if t.Err != nil {
			wait := unhurried
			if g := r.Generation(s.Taken); g != nil { // what its users use lives as long as that
				wait = longest(g.Expires.Sub(now))
			} else if s.Taken > 0 { // it is forgotten: they have nothing
				wait = urgent
			}
			ev.Kind, ev.Detail, ev.Error = EventFailed, "tell "+n.Consumer.Title, t.Err.Error()
			ev.Next = s.Retry.fail(n.Entry+"/"+n.Consumer.Name, now, wait, t.Err)
			return []Event{ev}
		}
		ev.Kind = EventTold
		events := []Event{ev}
		s.Told, s.At, s.Again, s.Retry = n.Generation, now, t.Again, Retry{}
		if t.Taken {
			s.Taken = n.Generation
			ev.Kind = EventTaken
			events = append(events, ev)
		}
		return events
	})
}

// Took notes that a consumer uses what it was last told of.
func (e *Engine) Took(ctx context.Context, n Notice) error {
	return e.note(ctx, n, func(_ *Record, s *ConsumerState) []Event {
		if s.Taken == s.Told {
			return nil
		}
		s.Taken = s.Told
		return []Event{{Kind: EventTaken, Generation: s.Taken, Detail: n.Consumer.Title}}
	})
}

// note changes the state of one consumer.
func (e *Engine) note(ctx context.Context, n Notice, change func(*Record, *ConsumerState) []Event) error {
	e.mu.Lock()
	w := e.works[n.Entry]
	e.mu.Unlock()
	if w == nil {
		return nil // renamed meanwhile: its new name comes with the next look
	}
	entry, _ := w.view()
	return e.save(ctx, w, func(r *Record) []Event {
		r.keepConsumers(entry.Consumers)
		if r.consumer(n.Consumer.Name) == nil {
			r.Consumers = append(r.Consumers, ConsumerState{Name: n.Consumer.Name})
		}
		return change(r, r.consumer(n.Consumer.Name))
	})
}

// consumer returns the state of a consumer; nil where nothing is known of it.
func (r *Record) consumer(name string) *ConsumerState {
	for i := range r.Consumers {
		if r.Consumers[i].Name == name {
			return &r.Consumers[i]
		}
	}
	return nil
}

// keepConsumers forgets those that are declared no more: added again, they start anew.
func (r *Record) keepConsumers(declared []Consumer) {
	r.Consumers = slices.DeleteFunc(r.Consumers, func(s ConsumerState) bool {
		return !slices.ContainsFunc(declared, func(c Consumer) bool { return c.Name == s.Name })
	})
}

// meet makes the declared consumers known before a generation is promoted: they use the one before,
// or none, and are to be told.
func (r *Record) meet(declared []Consumer, now time.Time) {
	before := 0
	if g := r.Current(now); g != nil {
		before = g.Number
	}
	for _, c := range declared {
		if r.consumer(c.Name) == nil {
			r.Consumers = append(r.Consumers, ConsumerState{Name: c.Name, Told: before, Taken: before, At: now})
		}
	}
}

// behind says which consumers are not known to use something newer than generation n.
func (e *Entry) behind(r *Record, n int) (why []string) {
	for _, c := range e.Consumers {
		if s := r.consumer(c.Name); s != nil && s.Taken <= n {
			why = append(why, fmt.Sprintf("%s has not taken a newer one", c.Title))
		}
	}
	return why
}
