package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator/store"
)

func (a *app) newInstanceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "new-instance [NAME]",
		Short: "Give this installation a name of its own, after its state was copied",
		Long: `Give this installation another name: NAME, or a made-up one. The name is part of every
token's name at SiteGPT, and says which rotatord looks after it.

Use it on the copy, when a machine or a state folder was cloned and both are to go on.
What both know of is then left to expire by itself: this one revokes nothing that the
original's sinks may hold, and makes tokens of its own when they are due. What the
original makes from now on is another instance's.

Where rotation.yaml says instance, change it there instead. The daemon must not run.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return a.newInstance(c.Context(), name)
		},
	}
}

func (a *app) newInstance(ctx context.Context, name string) error {
	c, err := a.loadStrict()
	if err != nil {
		return err
	}
	if c.Instance != "" {
		return usage("rotation.yaml says instance: %s, which wins: change it there, and restart the daemon", c.Instance)
	}
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	if st, err := a.reader(ctx, dir); err != nil { // there is nothing to rename
		return err
	} else if err := st.Close(); err != nil {
		return err
	}
	lock, err := store.TakeLock(ctx, dir, store.Holder{Kind: store.Command, Command: "new-instance", User: a.whoami(), Since: a.now()})
	if err != nil {
		return err
	}
	defer lock.Unlock() //nolint:errcheck // the kernel frees it with the process anyway
	st, err := store.Open(ctx, dir, store.Options{})
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // everything is durable by then
	was, is, err := st.NewInstance(ctx, name, a.whoami(), a.now())
	if err != nil {
		return usage("%w", err)
	}
	fmt.Fprintf(a.stdout, "This installation is called %s from now on, and was %s. Tokens of %[2]s that it knows are left to expire by themselves.\n", is, was)
	return nil
}
