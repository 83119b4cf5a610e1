package main

import (
	"cmp"
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
	once                    bool // for a pass of once: what falls due before the next one is due
	diff, format            string
	patterns                []string
}

func (a *app) planCommand() *cobra.Command {
	var o planOptions
	c := &cobra.Command{
		Use:   "plan [NAME…]",
		Short: "Show what would happen now, and why; change nothing",
		Long: `Show what the next look would do and why, against the real state and what the sinks
hold now: creates, pushes, revocations, and values that would be taken over or that
stand in the way. SiteGPT's list shows orphans, and tokens that somebody else revoked.
Nothing is changed; --offline looks at the state alone.`,
		RunE: func(c *cobra.Command, args []string) error {
			o.patterns = args
			if c.Flags().Changed("diff") {
				if o.json {
					o.format = "json"
				}
				for _, name := range []string{"offline", "sandbox", "state-dir"} {
					if c.Flags().Changed(name) {
						return usage("--diff compares two configurations alone: it goes not with --%s", name)
					}
				}
				return a.diff(o.diff, o.format, o.exitCode, args)
			}
			switch o.format {
			case "text":
			case "json":
				o.json = true
			default:
				return usage("--format %q is none of text, json; markdown goes with --diff", o.format)
			}
			return a.plan(c.Context(), o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.BoolVar(&o.offline, "offline", false, "look neither into the sinks nor at SiteGPT's list")
	a.sandboxFlag(c, lookSandbox)
	f.StringVar(&o.diff, "diff", "", "compare with this configuration instead: a file, a folder, or - for standard input")
	f.StringVar(&o.format, "format", "text", "how to print: text, json, or with --diff markdown")
	f.BoolVar(&a.allowEmpty, "allow-empty", false, "accept a configuration without tokens")
	f.Var(&a.nextPass, "next-pass", "with --diff, prove both for once, run this often")
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 4 when something would change")
	return c
}

// planned is what would happen to one token.
type planned struct {
	Token    string            `json:"token"`
	Was      string            `json:"was,omitempty"` // its record's name, which is given this one first
	Steps    []rotator.Step    `json:"steps"`
	Stopped  *rotator.Step     `json:"stopped,omitempty"` // a create that is due, and waits for the sinks
	Sinks    []plannedSink     `json:"sinks,omitempty"`
	Problems []rotator.Problem `json:"problems,omitempty"`     // why nothing is done, or not yet
	Tells    []string          `json:"tells,omitempty"`        // consumers that are told, once the sinks hold the token
	Next     time.Time         `json:"next_rotation,omitzero"` // once the steps are taken

	moved time.Time // Next, where a step changes it
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
	if o.once {
		ahead := cmp.Or(time.Duration(a.nextPass), sincePass(l.pass, now))
		for i := range l.entries {
			l.entries[i].Ahead = ahead
		}
	}
	records := map[string]rotator.Record{}
	for _, r := range l.records {
		records[r.Name] = r
	}
	foresight := rotator.NewForesight(l.records, l.key)
	foresight.Running, foresight.Instance = l.holder.Kind == store.Daemon, l.instance
	rep := rotator.Describe(l.entries, l.records, now)
	names := map[string]bool{}
	for _, e := range l.entries {
		names[e.Name] = true
	}
	entries := l.entries
	for _, r := range l.records {
		if !names[r.Name] {
			entries = append(entries, rotator.Entry{Name: r.Name, Removed: true, OnRemove: r.OnRemove, Outlets: declaredAt(l.entries, &r)})
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
	var list *plannedList
	if !o.offline && !l.fresh && !a.inSandbox { // the stand-in of a rehearsal need not run any more
		var names []string
		if len(o.patterns) > 0 {
			names = selected
		}
		list = a.listed(ctx, l, names, now)
		changes += list.steps()
		foresight.Used = list.used
	}
	for i := range entries {
		e := &entries[i]
		if !slices.Contains(selected, e.Name) {
			continue
		}
		r, ok := records[e.Name]
		if !ok {
			r = rotator.Record{Name: e.Name}
		}
		p := planned{Token: e.Name, Was: l.renamed[e.Name], Steps: []rotator.Step{}}
		if g := r.Target(now); g != nil {
			p.Next = g.Planned
		}
		steps, _ := rotator.Plan(e, &r, now)
		p.Steps = append(p.Steps, slices.DeleteFunc(steps, func(s rotator.Step) bool { return s.Kind != rotator.StepDeclare })...)
		var readings []rotator.Reading
		if o.offline {
			r = foresight.Look(e, &r, nil, now)
		} else {
			p.Sinks, readings, r = preview(ctx, e, &r, l, foresight, now)
		}
		course := foresight.Steps(e, &r, readings, p.refusals(), now)
		p.Steps, p.Stopped = append(p.Steps, course.Steps...), course.Stopped
		if p.moved = moved(e, &r, p.Steps, now); !p.moved.IsZero() {
			p.Next = p.moved
		}
		p.Tells = tells(e, &r, p.Steps, now)
		for _, q := range rep.Problems {
			if q.Token == e.Name && !waits(q) && !(q.Kind == rotator.ProblemHeldSink && released(e, &r, q.Sink)) {
				p.Problems = append(p.Problems, q)
			}
		}
		for _, q := range rotator.Describe([]rotator.Entry{*e}, []rotator.Record{course.After}, now).Problems {
			if waits(q) { // as it is then, who still needs the token
				p.Problems = append(p.Problems, q)
			}
		}
		changes += len(p.Steps)
		plans = append(plans, p)
	}
	if o.json {
		err = printJSON(a.stdout, struct {
			Format int          `json:"format"`
			At     time.Time    `json:"at"`
			Tokens []planned    `json:"tokens"`
			List   *plannedList `json:"list"` // null: it was not asked for
		}{1, now, plans, list})
	} else {
		a.printPlan(plans, list, changes, l.holder.Kind == store.Daemon)
	}
	if err == nil && o.exitCode && changes > 0 {
		return &codeError{code: exitChanges}
	}
	return err
}

// waits reports whether a problem is a revocation that waits until nobody needs the token any more.
func waits(q rotator.Problem) bool { return q.Kind == rotator.ProblemRevoke && !q.Failing }

// declaredAt are the sinks that entries have at places where a removed one had its own.
func declaredAt(entries []rotator.Entry, r *rotator.Record) (out []rotator.Outlet) {
	for i := range entries {
		for _, o := range entries[i].Outlets {
			if r.Sink(o.Place) != nil {
				out = append(out, o)
			}
		}
	}
	return out
}

// released reports whether a sink that waits for a person would do so no longer.
func released(e *rotator.Entry, next *rotator.Record, name string) bool {
	return slices.ContainsFunc(e.Outlets, func(o rotator.Outlet) bool {
		s := next.Sink(o.Place)
		return o.Name == name && s != nil && s.Held == ""
	})
}

// moved is when the token rotates next once the steps are taken; zero where they do not change it.
func moved(e *rotator.Entry, r *rotator.Record, steps []rotator.Step, now time.Time) (at time.Time) {
	for _, s := range steps {
		switch g := r.Generation(s.Number); {
		case s.Kind == rotator.StepReplan && g != nil:
			at = e.Timing.Replan(e.Name, now, g.Planned, g.Expires)
		case s.Kind == rotator.StepCreate:
			at = e.Successor(now)
		}
	}
	return at
}

// tells are the consumers that hear of what the steps come to, or have not heard of what was promoted.
func tells(e *rotator.Entry, r *rotator.Record, steps []rotator.Step, now time.Time) (titles []string) {
	fresh := slices.ContainsFunc(steps, func(s rotator.Step) bool {
		return s.Kind == rotator.StepCreate || s.Kind == rotator.StepPromote
	})
	current := r.Current(now)
	for _, c := range e.Consumers {
		untold := current != nil && slices.ContainsFunc(r.Consumers, func(s rotator.ConsumerState) bool {
			return s.Name == c.Name && s.Told != current.Number
		})
		if fresh || untold {
			titles = append(titles, c.Title)
		}
	}
	return titles
}

// preview looks into each sink: what would be overwritten, and what stands in the way. It returns what
// they hold, and the record as the next look has it, once it has read the sinks, too.
func preview(ctx context.Context, e *rotator.Entry, r *rotator.Record, l *look, foresight *rotator.Foresight, now time.Time) ([]plannedSink, []rotator.Reading, rotator.Record) {
	found, readings := make([]glimpse, len(e.Outlets)), make([]rotator.Reading, len(e.Outlets))
	for i := range e.Outlets {
		found[i] = glance(ctx, &e.Outlets[i])
		readings[i] = found[i].Reading
	}
	next := foresight.Look(e, r, readings, now)
	if e.Removed { // others say what there is to say
		return nil, readings, next
	}
	var out []plannedSink
	for i := range e.Outlets {
		if says, _ := l.judge(r, &next, &e.Outlets[i], found[i], now); says != nil {
			out = append(out, *says)
		}
	}
	return out, readings, next
}

// glimpse is what a look into a sink shows.
type glimpse struct {
	rotator.Reading
	refuses error // a push would not work
}

func glance(ctx context.Context, o *rotator.Outlet) (g glimpse) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	g.refuses = o.Sink.Check(ctx)
	g.Value, g.Err = o.Sink.Read(ctx) // also where a push would not work: others may be filled from it
	return g
}

// judge says what there is to say of a sink; nil: nothing. next is the record as the next look has it.
// err is why the sink refuses, where that is an error.
func (l *look) judge(r, next *rotator.Record, o *rotator.Outlet, found glimpse, now time.Time) (says *plannedSink, err error) {
	say := func(refuses bool, format string, args ...any) *plannedSink {
		return &plannedSink{Name: o.Name, Says: fmt.Sprintf(format, args...), Refuses: refuses, place: o.Place}
	}
	if err := found.refuses; err != nil {
		return say(true, "a push would not work: %v", err), err
	}
	value, err := found.Value, found.Err
	s := r.Sink(o.Place)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		return say(true, "cannot be read: %v", err), err
	case s != nil && s.Ever:
		if says, changes := l.drift(r, next, s, value, now); says != "" {
			return &plannedSink{Name: o.Name, Says: says, Changes: changes, place: o.Place}, nil
		}
	case value.IsZero():
	case value.IsToken() && l.owner(value, now) != "":
		return say(false, "holds %s: it would be overwritten", l.owner(value, now)), nil
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
func (l *look) drift(r, next *rotator.Record, s *rotator.SinkState, value rotator.Secret, now time.Time) (says string, changes bool) {
	target, then := r.Target(now), next.Target(now)
	if target == nil {
		return "", false
	}
	held := next.Sink(s.Place).Held != ""
	switch {
	case held && s.Held == "":
		return "holds a value that is none of ours: it would be left alone, and wait for a person", false
	case held, s.Held == "" && s.Holds != target.Number: // a step, or a problem, tells of it
		return "", false
	}
	with := fmt.Sprintf("generation %d", target.Number)
	if then == nil || then.Number != target.Number {
		with = "a new token, since no sink holds the present one"
	}
	owner := ""
	if !value.IsZero() {
		owner = l.owner(value, now)
	}
	switch {
	case value.Hash(l.key) == target.Hash && s.Held != "":
		return "holds the token again: it would no longer wait for a person", false
	case value.Hash(l.key) == target.Hash:
		return "", false
	case !value.IsZero() && owner == "": // it would be held, were it not for
		return fmt.Sprintf("holds a value that is none of ours: it would be overwritten with %s (on_drift: restore)", with), true
	case owner != "":
		return fmt.Sprintf("holds %s: it would be overwritten with %s", owner, with), true
	case then == nil || then.Number != target.Number:
		return "no longer holds the token, and no other sink does: it would get a new one", true
	case s.Held != "":
		return "is empty now: it would be filled, without a new token, and no longer wait for a person", true
	default:
		return "no longer holds the token: it would be filled again, without a new one", true
	}
}

// owner says which generation of which token a value is; "" where it is none of ours.
func (l *look) owner(value rotator.Secret, now time.Time) string {
	for i := range l.records {
		if id := find(l.records[i:i+1], value.Hash(l.key), now); id.Ours {
			return fmt.Sprintf("generation %d of %s", id.Generation, id.Token)
		}
	}
	return ""
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

func (a *app) printPlan(plans []planned, list *plannedList, changes int, running bool) {
	out, now := a.stdout, a.now()
	problems, noted := 0, 0
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
		if p.Was != "" {
			fmt.Fprintf(out, "    was %s: its record and its tokens go on under the new name\n", p.Was)
		}
		if !p.moved.IsZero() {
			fmt.Fprintf(out, "    next rotation: %s\n", when(p.moved, now))
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
		noted += len(p.Sinks)
		if len(p.Tells) > 0 {
			fmt.Fprintf(out, "    then told: %s\n", strings.Join(p.Tells, ", "))
		}
	}
	if list != nil {
		list.print(out)
		problems += len(list.Unexplained)
		if list.Blank {
			problems++
		}
	}
	switch {
	case changes > 0:
		fmt.Fprintf(out, "\n%s to take now. Nothing was changed.\n", count(changes, "step"))
	case problems > 0:
		fmt.Fprintf(out, "\nNothing to do now, but see the %s above.\n", count(problems, "problem"))
	case noted > 0:
		fmt.Fprintf(out, "\nNothing to do now, but see what is said of %s above.\n", count(noted, "sink"))
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
