package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
)

func (a *app) adoptCommand() *cobra.Command {
	var sink string
	timeout := durationFlag(2 * time.Minute)
	c := &cobra.Command{
		Use:   "adopt NAME…",
		Short: "End what waits for a person: a changed sink, tokens that this state does not know",
		Long: `End what waits for a person. Where somebody wrote a value of their own into a sink, ours
is written over it. Where SiteGPT lists live tokens of an entry that this state never
made (a restored backup, a new or copied state), they are taken over: the newest is
what the sinks hold, if all that can be read hold one value that works; the others
retire and die after the overlap. Where no sink holds one that works, all retire, and
a new one is created.

See what waits with: rotatord status, rotatord orphans.`,
		Example: `  rotatord adopt support-bot
  rotatord adopt support-bot --sink app.env   # at this sink only`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("a NAME is needed: which tokens are to be adopted?")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			names, err := a.declared(c.Context(), args)
			if err != nil {
				return err
			}
			declared := map[string]string{}
			if sink != "" {
				if declared, err = a.sinkNames(c.Context()); err != nil {
					return err
				}
			}
			return a.wish(c.Context(), "adopt", names, time.Duration(timeout), func(r rotator.Record) (rotator.Ask, error) {
				if sink != "" {
					if err := heldSink(&r, sink, declared); err != nil {
						return rotator.Ask{}, err
					}
				}
				return rotator.Ask{Entry: r.Name, Adopt: true, Sink: sink}, nil
			})
		},
	}
	c.Flags().StringVar(&sink, "sink", "", "only what stands in this sink (its name, as status shows it)")
	c.Flags().Var(&timeout, "timeout", "how long to wait for the result; the order stays")
	c.Flags().BoolVar(&a.wishJSON, "json", false, "print JSON")
	a.sandboxFlag(c, "adopt in the rehearsal in ./sandbox")
	return c
}

// sinkNames are what the declared sinks are called, by place.
func (a *app) sinkNames(ctx context.Context) (map[string]string, error) {
	c, err := a.load(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for i := range c.Tokens {
		for _, s := range c.Tokens[i].Sinks {
			out[s.Place] = s.Name
		}
	}
	return out, nil
}

// heldSink refuses the name of a sink that does not wait for a person, and one that more than one of
// those has which do. declared are the names by place; of what is not there, the state knows one.
func heldSink(r *rotator.Record, sink string, declared map[string]string) error {
	var held []string
	for i := range r.Sinks {
		s := &r.Sinks[i]
		if s.Held == "" {
			continue
		}
		if s.Place == sink {
			return nil
		}
		held = append(held, cmp.Or(declared[s.Place], s.Name))
	}
	same := 0
	for _, name := range held {
		if name == sink {
			same++
		}
	}
	switch {
	case same == 1:
		return nil
	case same > 1:
		return usage("%s: %d sinks that wait for a person are called %q: say the place of the one that is meant, as status --json shows it, or leave out --sink for all of them", r.Name, same, sink)
	case len(held) == 0:
		return usage("no sink of %s waits for a person", r.Name)
	}
	return usage("%s: no sink %q waits for a person; waiting: %s", r.Name, sink, strings.Join(held, ", "))
}

func (a *app) pauseCommand() *cobra.Command {
	var until string
	var end bool
	timeout := durationFlag(time.Minute)
	c := &cobra.Command{
		Use:   "pause [NAME…] --until TIME | --end",
		Short: "Put off rotations and revocations, for a change freeze",
		Long: `Put off rotations and revocations of the named tokens, or of all, until TIME: an instant
(2026-12-24T18:00:00Z, 2026-12-24 18:00, 2026-12-24) or a duration from now (36h, 5d).

Expiry wins: a token whose users have less than half of their overlap left is rotated all
the same. Sinks that lost their value are filled, and "rotate NAME" still works.`,
		Example: `  rotatord pause --until 2027-01-02
  rotatord pause 'kb-*' --until 8h
  rotatord pause --end`,
		RunE: func(c *cobra.Command, args []string) error {
			at, err := a.pauseUntil(until, end)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{"*"}
			}
			names, err := a.declared(c.Context(), args)
			if err != nil {
				return err
			}
			return a.wish(c.Context(), "pause", names, time.Duration(timeout), func(r rotator.Record) (rotator.Ask, error) {
				return rotator.Ask{Entry: r.Name, Pause: at}, nil
			})
		},
	}
	c.Flags().StringVar(&until, "until", "", "when it ends: an instant, or a duration from now")
	c.Flags().BoolVar(&end, "end", false, "end a pause now")
	c.Flags().Var(&timeout, "timeout", "how long to wait until it is noted; the order stays")
	c.Flags().BoolVar(&a.wishJSON, "json", false, "print JSON")
	a.sandboxFlag(c, "pause in the rehearsal in ./sandbox")
	return c
}

// pauseUntil reads the end of a pause.
func (a *app) pauseUntil(text string, end bool) (time.Time, error) {
	now := a.now()
	if end == (text != "") {
		return now, usage("say either --until TIME or --end")
	}
	if end {
		return now.Add(-time.Second), nil
	}
	at, err := parseInstant(text, now)
	switch {
	case err != nil:
		return at, usage("--until %w", err)
	case !at.After(now):
		return at, usage("--until %s lies in the past (--end ends a pause)", at.Format(time.RFC3339))
	case at.Sub(now) > rotator.MaxLifetime:
		return at, usage("--until %s is more than a year away", at.Format(time.RFC3339))
	}
	return at, nil
}

// ordered prints what became of an order.
func (a *app) ordered(w rotator.Ask, r *rotator.Record, entries []rotator.Entry) {
	now := a.now()
	switch {
	case w.Adopt:
		declared := map[string]string{}
		for i := range entries {
			for _, o := range entries[i].Outlets {
				declared[o.Place] = o.Name
			}
		}
		var left []string
		for i := range r.Sinks {
			if s := &r.Sinks[i]; s.Held != "" {
				left = append(left, cmp.Or(declared[s.Place], s.Name))
			}
		}
		fmt.Fprintf(a.stdout, "%s: adopted", r.Name)
		if cur := r.Current(now); cur != nil {
			fmt.Fprintf(a.stdout, "; generation %d is current, until %s", cur.Number, local(cur.Expires))
		}
		if len(left) > 0 {
			fmt.Fprintf(a.stdout, "; still waiting: %s", strings.Join(left, ", "))
		}
		fmt.Fprintln(a.stdout)
	case r.PausedUntil.After(now):
		fmt.Fprintf(a.stdout, "%s: paused until %s\n", r.Name, local(r.PausedUntil))
	default:
		fmt.Fprintf(a.stdout, "%s: not paused\n", r.Name)
	}
}
