package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator/consumers"
)

// consumersOf opens the programs that c says are told of new tokens.
func (b *house) consumersOf(c *config.Config) (map[string]consumers.Consumer, error) {
	dir, _, _ := strings.Cut(b.a.set.Runtime, ":") // systemd joins several with a colon
	out := map[string]consumers.Consumer{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Consumers)) {
		if b.move != nil { // of a rehearsal
			out[name] = consumers.Rehearsed{}
			continue
		}
		opened, err := c.Consumers[name].Open(dir)
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

// tell tells consumers what was promoted; hurry: also while other tokens of theirs are on their way.
func (b *house) tell(ctx context.Context, hurry bool) {
	t := consumers.Teller{Engine: b.engine, Now: b.a.now, Consumers: func(name string) consumers.Consumer {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.consumers[name]
	}}
	if err := t.Look(ctx, hurry); err != nil && ctx.Err() == nil {
		b.log.Warn("note what consumers were told", "error", err)
	}
}
