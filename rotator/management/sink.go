package management

import (
	"context"
	"fmt"
	"slices"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/atomicfile"
)

// Outlet returns the sink of rotatord's own token: the keeper itself.
func (k *Keeper) Outlet() rotator.Outlet {
	return rotator.Outlet{Place: "management", Name: "rotatord itself", Kind: "management", Required: true, Sink: sink{k}}
}

type sink struct{ k *Keeper }

var _ rotator.Sink = sink{}

// Check implements rotator.Sink.
func (s sink) Check(ctx context.Context) error {
	return atomicfile.Check(ctx, s.k.c.File, atomicfile.Options{})
}

// Push implements rotator.Sink: proof, a line beside the one in use, durable, and only then the switch.
func (s sink) Push(ctx context.Context, g rotator.Generation, v rotator.Secret) error {
	k := s.k
	if err := k.c.Prove(ctx, v, g.ID); err != nil {
		return fmt.Errorf("the new token cannot take over: %w", err)
	}
	k.choosing.Lock() // a choice that is under way would not see what is written now
	defer k.choosing.Unlock()
	k.mu.Lock()
	use := k.use
	k.mu.Unlock()
	err := atomicfile.Update(ctx, k.c.File, atomicfile.Options{}, func(old []byte, _ bool) ([]byte, error) {
		return format(beside(parse(old), candidate{g.Number, v}, use)), nil
	})
	if err != nil {
		return err
	}
	all, err := k.rotated()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(c candidate) bool { return c.number == g.Number && c.secret.Reveal() == v.Reveal() }) {
		return fmt.Errorf("read back %s: it does not hold what was just written", k.c.File)
	}
	k.mu.Lock()
	k.chosen, k.use = true, candidate{g.Number, v}
	k.mu.Unlock()
	if k.c.Chose != nil {
		k.c.Chose(ctx, g.Number, "")
	}
	return nil
}

// beside returns the new token and the way back: the one in use, or the newest of the others where
// the operator's is in use. Numbers beyond the new one's come from another history of this state.
func beside(old []candidate, c, use candidate) []candidate {
	out := []candidate{c}
	if use.number > 0 && use.number < c.number {
		return append(out, use)
	}
	for _, o := range old {
		if o.number < c.number {
			return append(out, o)
		}
	}
	return out
}

// Read implements rotator.Sink: the rotated token that is in use, or the newest where none is.
func (s sink) Read(context.Context) (rotator.Secret, error) {
	all, err := s.k.rotated()
	if err != nil {
		return rotator.Secret{}, err
	}
	s.k.mu.Lock()
	use, chosen := s.k.use.number, s.k.chosen
	s.k.mu.Unlock()
	for _, c := range all {
		if !chosen || use == 0 || c.number == use {
			return c.secret, nil
		}
	}
	return rotator.Secret{}, nil
}
