package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

const (
	patience = time.Minute      // for tokens that are being rotated at the same time: one telling serves all
	askFor   = 30 * time.Second // each Tell and Taken has at most
)

// Engine is what a Teller looks at, and where it notes what it did. *rotator.Engine is one.
type Engine interface {
	Notices() []rotator.Notice
	Begin(ctx context.Context, n rotator.Notice) error
	Told(ctx context.Context, n rotator.Notice, t rotator.Told) error
	Took(ctx context.Context, n rotator.Notice) error
}

// Teller tells consumers what the engine promoted.
type Teller struct {
	Engine Engine
	Now    func() time.Time
	// Consumers returns the one of this name; nil where it is declared no more.
	Consumers func(name string) Consumer
}

// Look tells whoever is to be told now. Those that share a consumer are told of together: while one
// of them is still being rotated it waits a little, unless hurry is set. An error says that what was
// told could not be noted; what could not be told is in the records.
func (t *Teller) Look(ctx context.Context, hurry bool) error {
	var names []string
	groups := map[string][]rotator.Notice{}
	for _, n := range t.Engine.Notices() {
		if groups[n.Consumer.Name] == nil {
			names = append(names, n.Consumer.Name)
		}
		groups[n.Consumer.Name] = append(groups[n.Consumer.Name], n)
	}
	var errs []error
	for _, name := range names {
		if c := t.Consumers(name); c != nil && ctx.Err() == nil {
			errs = append(errs, t.one(ctx, c, groups[name], hurry))
		}
	}
	return errors.Join(errs...)
}

// one looks after one consumer. A panic of it is its error.
func (t *Teller) one(ctx context.Context, c Consumer, notices []rotator.Notice, hurry bool) error {
	var errs []error
	var untold, told []rotator.Notice
	rotating := false
	for _, n := range notices {
		rotating = rotating || n.Rotating
		switch {
		case !n.Known && n.Generation > 0:
			errs = append(errs, t.Engine.Begin(ctx, n))
		case n.Untold():
			untold = append(untold, n)
		case n.Known && n.State.Told != n.State.Taken:
			told = append(told, n)
		}
	}
	if len(told) > 0 {
		again, err := t.taken(ctx, c, told)
		untold = append(untold, again...)
		errs = append(errs, err)
	}
	if t.ripe(untold, rotating && !hurry) {
		errs = append(errs, t.tell(ctx, c, untold))
	}
	return errors.Join(errs...)
}

// ripe reports whether it is time to tell.
func (t *Teller) ripe(untold []rotator.Notice, rotating bool) bool {
	now := t.Now()
	waited := false
	for _, n := range untold {
		if n.State.Retry.At.After(now) {
			return false
		}
		waited = waited || now.Sub(n.Since) >= patience
	}
	return len(untold) > 0 && (!rotating || waited)
}

func (t *Teller) tell(ctx context.Context, c Consumer, untold []rotator.Notice) error {
	changes := make([]Change, 0, len(untold))
	for _, n := range untold {
		changes = append(changes, Change{Entry: n.Entry, Generation: n.Generation})
	}
	var taken bool
	err := call(ctx, func(ctx context.Context) (err error) {
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
	if call(ctx, func(ctx context.Context) (err error) {
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
func call(ctx context.Context, f func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return f(ctx)
}
