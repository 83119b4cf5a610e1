package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/store"
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
	a.sandboxFlag(c, lookSandbox)
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 4 when something would change")
	return c
}

// planned is what would happen to one token.
type planned struct {
	Token    string            `json:"token"`
	Steps    []rotator.Step    `json:"steps"`
	Stopped  *rotator.Step     `json:"stopped,omitempty"` // a create that is due, and waits for the sinks
	Sinks    []plannedSink     `json:"sinks,omitempty"`
	Problems []rotator.Problem `json:"problems,omitempty"` // why nothing is done, or not yet
	Next     time.Time         `json:"next_rotation,omitzero"`
}

// plannedSink is a sink about which a plan has something to say.
type plannedSink struct {
	Name    string `json:"name"`
	Says    string `json:"says"`
	Refuses bool   `json:"refuses"` // a push would not work, or is not allowed to overwrite what is there
	Changes bool   `json:"changes"` // it is not as it should be, and would be written once that is noticed

	place string
}

func (a *app) plan(ctx context.Context, o planOptions) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	var opener *sinks.Opener
	l, err := a.look(ctx, asWritten, func(s sinks.Spec) (rotator.Sink, error) {
		if o.offline {
			return nil, nil
		}
		if opener == nil { // the configuration is accepted by the time that its sinks are opened
			c, err := a.loadStrict()
			if err != nil {
				return nil, err
			}
			opener = sinks.NewOpener(c.Connections(), sinks.World{Logger: log, Getenv: a.getenv, Now: a.now, Peek: true})
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
	rep := rotator.Describe(l.entries, l.records, now)
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
		if !slices.Contains(selected, e.Name) {
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
		p := planned{Token: e.Name, Steps: []rotator.Step{}}
		if g := r.Target(now); g != nil {
			p.Next = g.Planned
		}
		if !o.offline && !e.Removed {
			p.Sinks = preview(ctx, e, &r, l, now)
		}
		steps, _ := rotator.Plan(e, &r, now)
		for _, s := range steps {
			if s.Kind == rotator.StepCreate && rotator.Preflight(e, &r, p.refusals(), now) != nil {
				p.Stopped = &s
				continue
			}
			p.Steps = append(p.Steps, s)
		}
		for _, q := range rep.Problems {
			if q.Token == e.Name {
				p.Problems = append(p.Problems, q)
			}
		}
		changes += len(p.Steps)
		for _, s := range p.Sinks {
			if s.Changes {
				changes++
			}
		}
		plans = append(plans, p)
	}
	if o.json {
		err = printJSON(a.stdout, struct {
			Format int       `json:"format"`
			At     time.Time `json:"at"`
			Tokens []planned `json:"tokens"`
		}{1, now, plans})
	} else {
		a.printPlan(plans, changes, l.holder.Kind == store.Daemon)
	}
	if err == nil && o.exitCode && changes > 0 {
		return &codeError{code: exitChanges}
	}
	return err
}

// preview looks into each sink: what would be overwritten, and what stands in the way.
func preview(ctx context.Context, e *rotator.Entry, r *rotator.Record, l *look, now time.Time) []plannedSink {
	var out []plannedSink
	for i := range e.Outlets {
		if says, _ := inspect(ctx, e, r, l, &e.Outlets[i], now); says != nil {
			out = append(out, *says)
		}
	}
	return out
}

// inspect looks into one sink; nil: there is nothing to say of it. err is why it refuses, where that
// is an error.
func inspect(ctx context.Context, e *rotator.Entry, r *rotator.Record, l *look, o *rotator.Outlet, now time.Time) (says *plannedSink, err error) {
	say := func(refuses bool, format string, args ...any) *plannedSink {
		return &plannedSink{Name: o.Name, Says: fmt.Sprintf(format, args...), Refuses: refuses, place: o.Place}
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if err := o.Sink.Check(ctx); err != nil {
		return say(true, "a push would not work: %v", err), err
	}
	value, err := o.Sink.Read(ctx)
	s := r.Sink(o.Place)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		return say(true, "cannot be read: %v", err), err
	case s != nil && s.Ever:
		if says, changes := l.drift(e, r, s, value, now); says != "" {
			return &plannedSink{Name: o.Name, Says: says, Changes: changes, place: o.Place}, nil
		}
	case value.IsZero():
	case value.IsToken():
		return say(false, "holds a token that rotatord did not put there: it would be taken over"), nil
	case o.TakeOver:
		return say(false, "holds a value that is no token: it would be overwritten (take_over)"), nil
	default:
		return say(true, "holds a value that is no token, and nothing is created: say take_over: true, or empty it"), nil
	}
	return nil, nil
}

// drift says how the value of a sink that once held a token of ours differs from what its record
// says, and whether it would be written. "": it does not.
func (l *look) drift(e *rotator.Entry, r *rotator.Record, s *rotator.SinkState, value rotator.Secret, now time.Time) (says string, changes bool) {
	target := r.Target(now)
	if target == nil || s.Held != "" || s.Holds != target.Number { // a step, or a problem, tells of it
		return "", false
	}
	if value.IsZero() {
		return "no longer holds the token: it would be filled again, without a new one", true
	}
	if value.Hash(l.key) == target.Hash {
		return "", false
	}
	for i := range l.records {
		if id := find(l.records[i:i+1], value.Hash(l.key), now); id.Ours {
			return fmt.Sprintf("holds generation %d of %s: it would be overwritten with generation %d", id.Generation, id.Token, target.Number), true
		}
	}
	if e.OnDrift == rotator.DriftRestore {
		return "holds a value that is none of ours: it would be overwritten (on_drift: restore)", true
	}
	return "holds a value that is none of ours: it would be left alone, and wait for a person", false
}

// refusals are the sinks that would not take a token, by place, as Preflight wants them.
func (p *planned) refusals() map[string]error {
	out := map[string]error{}
	for _, s := range p.Sinks {
		if s.Refuses {
			out[s.place] = errors.New(s.Says)
		}
	}
	return out
}

func (a *app) printPlan(plans []planned, changes int, running bool) {
	out, now := a.stdout, a.now()
	problems := 0
	for _, p := range plans {
		for _, s := range p.Steps {
			fmt.Fprintf(out, "+ %s: %s\n", p.Token, stepText(s))
		}
		switch {
		case p.Stopped != nil:
			fmt.Fprintf(out, "! %s: %s; but a required sink would not take it\n", p.Token, stepText(*p.Stopped))
		case len(p.Steps) == 0 && len(p.Problems) == 0:
			fmt.Fprintf(out, "  %s: nothing; next rotation %s\n", p.Token, when(p.Next, now))
		}
		for _, q := range p.told() {
			printProblem(out, q, now, running)
			problems++
		}
		if p.Stopped != nil {
			problems++
		}
		for _, s := range p.Sinks {
			fmt.Fprintf(out, "    %s: %s\n", s.Name, s.Says)
		}
	}
	switch {
	case changes > 0:
		fmt.Fprintf(out, "\n%s to take now. Nothing was changed.\n", count(changes, "step"))
	case problems > 0:
		fmt.Fprintf(out, "\nNothing to do now, but see the %s above.\n", count(problems, "problem"))
	default:
		fmt.Fprintln(out, "\nNothing to do.")
	}
}

// told are the problems that a person does not know yet: what the sinks said just now is not said
// once more as the cause of the last failure.
func (p *planned) told() []rotator.Problem {
	refusals := p.refusals()
	var out []rotator.Problem
	for _, q := range p.Problems {
		switch q.Kind {
		case rotator.ProblemPreflight:
			if p.Stopped != nil {
				continue
			}
			if len(refusals) > 0 {
				q.Error = ""
			}
		case rotator.ProblemSink, rotator.ProblemUnread:
			if slices.ContainsFunc(p.Sinks, func(s plannedSink) bool { return s.Refuses && s.Name == q.Sink }) {
				q.Error = ""
			}
		}
		out = append(out, q)
	}
	return out
}

// stepText is a step as a person reads it.
func stepText(s rotator.Step) string {
	what := string(s.Kind)
	if s.Number > 0 {
		what += fmt.Sprintf(" generation %d", s.Number)
	}
	what += ": " + s.Why
	if s.Kind == rotator.StepCreate {
		what += "; scopes " + strings.Join(s.Scopes, " ")
		if len(s.Chatbots) > 0 {
			what += "; chatbots " + strings.Join(s.Chatbots, " ")
		}
	}
	return what
}
