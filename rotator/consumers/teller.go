package consumers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

const patience = time.Minute // for tokens that are being rotated at the same time: one telling serves all

// Engine is what a Teller looks at, and where it notes what it did. *rotator.Engine is one.
type Engine interface {
	Notices() []rotator.Notice
	Begin(ctx context.Context, n rotator.Notice) error
	Told(ctx context.Context, n rotator.Notice, t rotator.Told) error
	Took(ctx context.Context, n rotator.Notice) error
}

// Teller tells consumers what the engine promoted. Each consumer has a goroutine of its own while
// there is something to tell it, so that one that hangs is in nobody's way.
type Teller struct {
	Engine Engine
	Now    func() time.Time
	// Consumers returns the one of this name; nil where it is declared no more.
	Consumers func(name string) Consumer
	// Failed hears that what was told could not be noted. What could not be told is in the records.
	Failed func(error)

	mu      sync.Mutex
	busy    map[string]bool // who is being told
	running sync.WaitGroup
}

// Look begins to tell whoever is to be told now, and waits for nobody: see Wait. Those that share a
// consumer are told of together: while one of them is still being rotated it waits a little, unless
// hurry is set. Whoever is still being told is left out.
func (t *Teller) Look(ctx context.Context, hurry bool) {
	var names []string
	groups := map[string][]rotator.Notice{}
	for _, n := range t.Engine.Notices() {
		if groups[n.Consumer.Name] == nil {
			names = append(names, n.Consumer.Name)
		}
		groups[n.Consumer.Name] = append(groups[n.Consumer.Name], n)
	}
	for _, name := range names {
		c := t.Consumers(name)
		if c == nil || ctx.Err() != nil || !t.occupy(name) {
			continue
		}
		todo := choresOf(groups[name])
		if len(todo.begin)+len(todo.told) == 0 && !t.ripe(todo.untold, todo.rotating && !hurry) {
			t.release(name) // an idle one costs no goroutine
			continue
		}
		t.running.Go(func() {
			defer t.release(name)
			if err := t.one(ctx, c, todo, hurry); err != nil && ctx.Err() == nil && t.Failed != nil {
				t.Failed(err)
			}
		})
	}
}

// Wait returns when nobody is being told any more. No Look may begin meanwhile.
func (t *Teller) Wait() { t.running.Wait() }

func (t *Teller) occupy(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy[name] {
		return false
	}
	if t.busy == nil {
		t.busy = map[string]bool{}
	}
	t.busy[name] = true
	return true
}

func (t *Teller) release(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, name)
}

// chores are what there is to do for one consumer.
type chores struct {
	begin    []rotator.Notice // it is not known yet
	told     []rotator.Notice // nobody knows yet what became of it
	untold   []rotator.Notice
	rotating bool // another token of it is on its way
}

func choresOf(notices []rotator.Notice) (c chores) {
	for _, n := range notices {
		c.rotating = c.rotating || n.Rotating
		switch {
		case !n.Known && n.Generation > 0:
			c.begin = append(c.begin, n)
		case n.Untold():
			c.untold = append(c.untold, n)
		case n.Known && n.State.Told != n.State.Taken:
			c.told = append(c.told, n)
		}
	}
	return c
}

// one looks after one consumer. A panic of it is its error.
func (t *Teller) one(ctx context.Context, c Consumer, todo chores, hurry bool) error {
	var errs []error
	for _, n := range todo.begin {
		errs = append(errs, t.Engine.Begin(ctx, n))
	}
	untold := todo.untold
	if len(todo.told) > 0 {
		again, err := t.taken(ctx, c, todo.told)
		untold = append(untold, again...)
		errs = append(errs, err)
	}
	if t.ripe(untold, todo.rotating && !hurry) {
		errs = append(errs, t.tell(ctx, c, untold))
	}
	return errors.Join(errs...)
}

// ripe reports whether it is time to tell: when the first of them may be told again, all are told. Its
// token may die long before those that could wait longer.
func (t *Teller) ripe(untold []rotator.Notice, rotating bool) bool {
	now := t.Now()
	due, waited := false, false
	for _, n := range untold {
		due = due || !n.State.Retry.At.After(now)
		waited = waited || now.Sub(n.Since) >= patience
	}
	return due && (!rotating || waited)
}

func (t *Teller) tell(ctx context.Context, c Consumer, untold []rotator.Notice) error {
	changes := make([]Change, 0, len(untold))
	for _, n := range untold {
		changes = append(changes, Change{Entry: n.Entry, Generation: n.Generation, Promoted: n.Since, Expires: n.Expires})
	}
	var taken bool
	err := call(ctx, c, func(ctx context.Context) (err error) {
		taken, err = c.Tell(ctx, changes)
		return err
	})
	if err != nil && ctx.Err() != nil {
		return nil // it is to stop: the next process tells
	}
	var errs []error
	for _, n := range untold {
		again := n.Known && n.State.Told == n.Generation
		errs = append(errs, t.Engine.Told(ctx, n, rotator.Told{Taken: taken, Again: again, Err: err}))
	}
	return errors.Join(errs...)
}

// taken asks what became of what was told; it returns what must be told again. That is done once:
// who is told again and again restarts again and again.
func (t *Teller) taken(ctx context.Context, c Consumer, told []rotator.Notice) (again []rotator.Notice, err error) {
	var outcome Outcome
	if call(ctx, c, func(ctx context.Context) (err error) {
		outcome, err = c.Taken(ctx)
		return err
	}) != nil {
		return nil, nil // it is asked again; meanwhile it counts as not taken
	}
	var errs []error
	for _, n := range told {
		switch {
		case outcome == Taken, outcome == Lost && n.State.Again:
			errs = append(errs, t.Engine.Took(ctx, n))
		case outcome == Lost:
			again = append(again, n)
		}
	}
	return again, errors.Join(errs...)
}

// call is the one door to a consumer.
func call(ctx context.Context, c Consumer, f func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout())
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return f(ctx)
}
