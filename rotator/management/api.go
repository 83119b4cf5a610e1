package management

import (
	"context"
	"errors"
	"fmt"

	"github.com/rotatord/rotatord/rotator"
)

// API is the API as the keeper's token sees it: the one in use is chosen before a request that
// needs it, and again after the API has refused it.
type API struct {
	rotator.API // asks with the keeper's Bearer
	Keeper      *Keeper
}

var _ rotator.API = (*API)(nil)

// Create implements rotator.API. A create that was refused for its bearer made nothing: the engine
// comes back, and another candidate asks then.
func (a *API) Create(ctx context.Context, r rotator.Request) (rotator.Issued, error) {
	if err := a.choose(ctx); err != nil {
		return rotator.Issued{}, rotator.Unsent(err)
	}
	before, by := a.Keeper.Bearer()
	issued, err := a.API.Create(ctx, r)
	if after, _ := a.Keeper.Bearer(); before.Reveal() == after.Reveal() { // else nobody can say who asked
		issued.By = by
	}
	a.refused(before, err)
	return issued, err
}

// List implements rotator.API.
func (a *API) List(ctx context.Context) ([]rotator.Listed, error) {
	if err := a.choose(ctx); err != nil {
		return nil, err
	}
	s, _ := a.Keeper.Bearer()
	listed, err := a.API.List(ctx)
	a.refused(s, err)
	return listed, err
}

// Revoke implements rotator.API.
func (a *API) Revoke(ctx context.Context, id string) error {
	if err := a.choose(ctx); err != nil {
		return err
	}
	s, _ := a.Keeper.Bearer()
	err := a.API.Revoke(ctx, id)
	a.refused(s, err)
	return err
}

func (a *API) choose(ctx context.Context) error {
	if err := a.Keeper.Choose(ctx); err != nil {
		return fmt.Errorf("management token: %w", err)
	}
	return nil
}

func (a *API) refused(s rotator.Secret, err error) {
	if errors.Is(err, rotator.ErrUnauthorized) {
		a.Keeper.Refused(s)
	}
}
