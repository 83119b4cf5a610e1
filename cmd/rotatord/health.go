package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/monitor"
	"github.com/rotatord/rotatord/rotator/store"
)

func (a *app) healthCommand() *cobra.Command {
	var asJSON, ready bool
	c := &cobra.Command{
		Use:   "health",
		Short: "Exit with 0 if a daemon works on the state",
		Long: `Exit with 0 if a daemon works on the state and its control loop moves, and with 1 if not:
for probes in images without a shell. With --ready, its first pass over the tokens must be
over as well. It needs no configuration: the state says where the daemon listens (see
run --listen) and is asked itself where it does not.

Whether the tokens are well is "rotatord status --check".`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return a.health(c.Context(), ready, asJSON) },
	}
	c.Flags().BoolVar(&ready, "ready", false, "also ask whether it is ready")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	a.sandboxFlag(c, lookSandbox)
	return c
}

func (a *app) health(ctx context.Context, ready, asJSON bool) error {
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	held, ok, err := store.Holding(dir)
	if err != nil {
		return err
	}
	alive := ok && held.Kind == store.Daemon
	why := error(nil)
	if alive {
		why = a.sick(ctx, dir, held, ready)
	} else {
		why = fmt.Errorf("no daemon works on %s: start it with rotatord run, or name its folder with --state-dir", dir)
	}
	if asJSON {
		out := struct {
			Format int           `json:"format"`
			OK     bool          `json:"ok"`
			Reason string        `json:"reason,omitempty"`
			Daemon *store.Holder `json:"daemon"` // null: none works on the state
			State  string        `json:"state_dir"`
		}{Format: 1, OK: why == nil, State: dir}
		if alive {
			out.Daemon = &held
		}
		if why != nil {
			out.Reason = why.Error()
		}
		if err := printJSON(a.stdout, out); err != nil {
			return err
		}
		if why != nil {
			return &codeError{code: exitFailed}
		}
		return nil
	}
	if why != nil {
		return &codeError{exitFailed, why}
	}
	fmt.Fprintf(a.stdout, "ok: pid %d since %s\n", held.PID, local(held.Since))
	return nil
}

// askFor is how long a probe waits for an answer.
const askFor = 5 * time.Second

// sick says what is wrong with a daemon that holds the state; nil: nothing is.
func (a *app) sick(ctx context.Context, dir string, held store.Holder, ready bool) error {
	st, err := a.reader(ctx, dir)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // only read
	if _, err := st.Instance(ctx, ""); err != nil {
		return err
	}
	if held.Listen != "" {
		ctx, cancel := context.WithTimeout(ctx, askFor)
		defer cancel()
		path := "/healthz"
		if ready {
			path = "/readyz"
		}
		if err := monitor.Ask(ctx, held.Listen, path); err != nil {
			return fmt.Errorf("the daemon, pid %d: %w", held.PID, err)
		}
		return nil
	}
	moved, err := store.Moved(dir)
	if err != nil {
		return err
	}
	if still := a.now().Sub(moved); still > moveBound+2*beatEvery {
		return fmt.Errorf("the daemon, pid %d: its control loop has not moved for %s", held.PID, field.FormatDuration(still))
	}
	if ready && held.Ready.IsZero() {
		return errors.New("the first pass over the tokens is not over yet")
	}
	return nil
}
