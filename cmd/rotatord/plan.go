package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/sinks"
)

type planOptions struct {
	json, offline, exitCode bool
	patterns                []string
}

func (a *app) planCommand() *cobra.Command {
	var o planOptions
	c := &cobra.Command{
		Use:   "plan [NAME…]",
		Short: "Show what would happen now, and why; change nothing",
		Long: `Show what the next look would do and why, against the real state and what the sinks
hold now: creates, pushes, revocations, and values that would be taken over or that
stand in the way. Nothing is changed, and SiteGPT is not asked.`,
		RunE: func(c *cobra.Command, args []string) error {
			o.patterns = args
			return a.plan(c.Context(), o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.BoolVar(&o.offline, "offline", false, "do not look into the sinks")
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 4 when something would change")
	return c
}

// planned is what would happen to one token.
type planned struct {
	Token string         `json:"token"`
	Steps []rotator.Step `json:"steps"`
	Sinks []plannedSink  `json:"sinks,omitempty"`
	Next  time.Time      `json:"next_rotation,omitzero"`
}

// plannedSink is a sink about which a plan has something to say.
type plannedSink struct {
	Name string `json:"name"`
	Says string `json:"says"`
}

func (a *app) plan(ctx context.Context, o planOptions) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	var opener *sinks.Opener
	l, err := a.look(ctx, func(s sinks.Spec) (rotator.Sink, error) {
		if o.offline {
			return nil, nil
		}
		if opener == nil { // the configuration is accepted by the time that its sinks are opened
			c, err := a.load()
			if err != nil {
				return nil, err
			}
			opener = sinks.NewOpener(c.Connections(), log, a.getenv)
		}
		return opener.Open(s)
	})
	if opener != nil {
		defer opener.Close()
	}
	if err != nil {
		return err
	}
	now := a.now()
	records := map[string]rotator.Record{}
	for _, r := range l.records {
		records[r.Name] = r
	}
	names := map[string]bool{}
	for _, e := range l.entries {
		names[e.Name] = true
	}
	entries := l.entries
	for _, r := range l.records {
		if !names[r.Name] {
			entries = append(entries, rotator.Entry{Name: r.Name, Removed: true, OnRemove: r.OnRemove})
		}
	}
	var plans []planned
	var known []string
	for i := range entries {
		known = append(known, entries[i].Name)
	}
	selected := known
	if len(o.patterns) > 0 {
		if selected, err = expand(o.patterns, known); err != nil {
			return err
		}
	}
	changes := 0
	for i := range entries {
		e := &entries[i]
		if !contains(selected, e.Name) {
			continue
		}
		r, ok := records[e.Name]
		if !ok {
			r = rotator.Record{Name: e.Name}
			if old, was := records[e.Was]; was && !names[e.Was] {
				r = old
				r.Name = e.Name
			}
		}
		steps, _ := rotator.Plan(e, &r, now)
		p := planned{Token: e.Name, Steps: steps}
		if p.Steps == nil {
			p.Steps = []rotator.Step{}
		}
		if g := r.Target(now); g != nil {
			p.Next = g.Planned
		}
		if !o.offline && !e.Removed {
			p.Sinks = preview(ctx, e, &r)
		}
		changes += len(steps)
		plans = append(plans, p)
	}
	if o.json {
		err = printJSON(a.stdout, struct {
			Format int       `json:"format"`
			At     time.Time `json:"at"`
			Tokens []planned `json:"tokens"`
		}{1, now, plans})
	} else {
		a.printPlan(plans, changes)
	}
	if err == nil && o.exitCode && changes > 0 {
		return &codeError{code: exitChanges}
	}
	return err
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// preview looks into each sink: what would be overwritten, and what stands in the way.
func preview(ctx context.Context, e *rotator.Entry, r *rotator.Record) []plannedSink {
	var out []plannedSink
	for i := range e.Outlets {
		o := &e.Outlets[i]
		say := func(format string, args ...any) {
			out = append(out, plannedSink{Name: o.Name, Says: fmt.Sprintf(format, args...)})
		}
		ctx, cancel := context.WithTimeout(ctx, o.Timeout)
		if err := o.Sink.Check(ctx); err != nil {
			say("a push would not work: %v", err)
			cancel()
			continue
		}
		value, err := o.Sink.Read(ctx)
		cancel()
		s := r.Sink(o.Place)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
		case err != nil:
			say("cannot be read: %v", err)
		case value.IsZero() || (s != nil && s.Ever):
		case value.IsToken():
			say("holds a token that rotatord did not put there: it would be taken over")
		case o.TakeOver:
			say("holds a value that is no token: it would be overwritten (take_over)")
		default:
			say("holds a value that is no token, and nothing is created: say take_over: true, or empty it")
		}
	}
	return out
}

func (a *app) printPlan(plans []planned, changes int) {
	out, now := a.stdout, a.now()
	for _, p := range plans {
		if len(p.Steps) == 0 {
			fmt.Fprintf(out, "  %s: nothing; next rotation %s\n", p.Token, when(p.Next, now))
		}
		for _, s := range p.Steps {
			what := string(s.Kind)
			if s.Kind == rotator.StepCreate {
				what = "create generation"
			} else if s.Number > 0 {
				what += " generation"
			}
			if s.Number > 0 {
				what += fmt.Sprintf(" %d", s.Number)
			}
			fmt.Fprintf(out, "+ %s: %s: %s", p.Token, what, s.Why)
			if s.Kind == rotator.StepCreate {
				fmt.Fprintf(out, "; scopes %s", strings.Join(s.Scopes, " "))
				if len(s.Chatbots) > 0 {
					fmt.Fprintf(out, "; chatbots %s", strings.Join(s.Chatbots, " "))
				}
			}
			fmt.Fprintln(out)
		}
		for _, s := range p.Sinks {
			fmt.Fprintf(out, "    %s: %s\n", s.Name, s.Says)
		}
	}
	if changes == 0 {
		fmt.Fprintln(out, "\nNothing to do.")
	} else {
		fmt.Fprintf(out, "\n%s to take now. Nothing was changed.\n", count(changes, "step"))
	}
}
