package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator/consumers"
)

// consumerGrace is what a program that is being told may still take once we are to stop. Then it is
// ended, and told again by the next process.
const consumerGrace = 10 * time.Second

// consumerWorld is what consumers need of this machine and this house.
func (a *app) consumerWorld(instance string) consumers.World {
	dir, _, _ := strings.Cut(a.set.Runtime, ":") // systemd joins several with a colon
	return consumers.World{
		Flags: dir, Instance: instance, Agent: "rotatord/" + buildVersion(), Getenv: a.getenv, Now: a.now,
	}
}

// consumersOf opens the programs that c says are told of new tokens.
func (b *house) consumersOf(c *config.Config) (map[string]consumers.Consumer, error) {
	w := b.a.consumerWorld(b.instance)
	w.Logger = b.log
	out := map[string]consumers.Consumer{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Consumers)) {
		if b.move != nil { // of a rehearsal
			out[name] = consumers.Rehearsed{}
			continue
		}
		opened, err := c.Consumers[name].Open(name, w)
		if err != nil {
			errs = append(errs, fmt.Errorf("consumer %s: %w", name, err))
			continue
		}
		out[name] = opened
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

// newTeller tells the consumers of the configuration in force what the engine promotes.
func (b *house) newTeller() *consumers.Teller {
	return &consumers.Teller{
		Engine: b.engine, Now: b.a.now,
		Consumers: func(name string) consumers.Consumer {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.consumers[name]
		},
		Failed: func(err error) { b.log.Warn("note what consumers were told", "error", err) },
	}
}

// beginToTell begins to tell consumers what was promoted, also while other tokens of theirs are on
// their way. finish waits for them.
func (b *house) beginToTell(ctx context.Context) (finish func()) {
	told, end := lingering(ctx, consumerGrace)
	b.teller.Look(told, true)
	return func() {
		b.teller.Wait()
		end()
	}
}

// tell tells consumers what was promoted, and waits for them.
func (b *house) tell(ctx context.Context) { b.beginToTell(ctx)() }

// lingering returns a context that ends a while after ctx, or with end.
func lingering(ctx context.Context, grace time.Duration) (after context.Context, end func()) {
	after, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-after.Done():
		}
		cancel()
	})
	return after, func() { stop(); cancel() }
}
