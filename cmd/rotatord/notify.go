package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/notify"
	"github.com/rotatord/rotatord/rotator/store"
	"github.com/rotatord/rotatord/rotator/webhook"
)

const (
	metaNotes   = "notify"         // what people were told
	notifyEvery = 5 * time.Second  // of the daemon, for what people should be told
	notifyGrace = 10 * time.Second // for a message that is on its way when we are to stop
)

// notesOf keeps in the state what people were told.
type notesOf struct{ st *store.Store }

// Notes implements notify.Store.
func (n notesOf) Notes(ctx context.Context) (string, error) {
	text, _, err := n.st.Meta(ctx, metaNotes)
	return text, err
}

// SetNotes implements notify.Store.
func (n notesOf) SetNotes(ctx context.Context, text string) error {
	return n.st.SetMeta(ctx, metaNotes, text)
}

// webhookWorld is how this process posts.
func (a *app) webhookWorld() webhook.World {
	return webhook.World{Getenv: a.getenv, Now: a.now, Agent: "rotatord/" + buildVersion()}
}

// host is how people call this machine; "" where it has no name.
func host() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// newNotifier tells people what is wrong with the house. running: a daemon goes on by itself.
func (b *house) newNotifier(running bool) *notify.Notifier {
	n := &notify.Notifier{
		Targets: func() map[string]notify.Target {
			c, _ := b.inForce()
			return c.Notify
		},
		Report: b.report,
		Hint:   func(p rotator.Problem) string { return hint(p, running) },
		Store:  notesOf{b.store}, World: b.a.webhookWorld(), Instance: b.instance, Host: host(), Log: b.log,
	}
	if b.move != nil { // of a rehearsal
		n.Instead = func(target, text string) {
			b.log.Info("a rehearsal: this is what people would be told", "target", target, "text", text)
		}
	}
	return n
}

// report is how everything is, as far as the house knows: also what no record tells of.
func (b *house) report(ctx context.Context) (rotator.Report, error) {
	entries, records := b.engine.Snapshot()
	rep := rotator.Describe(entries, records, b.a.now())
	more := b.ownProblems(ctx)
	for _, out := range b.engine.Outages() {
		more = append(more, rotator.Problem{
			Kind: rotator.ProblemOutage, What: out.What + " is out of reach", Error: out.Error, Outage: out.What,
			Since: out.Since, Breaks: out.Breaks, Failing: true,
		})
	}
	refused, err := b.refusal(ctx)
	if err != nil {
		return rep, err
	}
	rep.Problems = append(append(more, refused...), rep.Problems...)
	return rep, nil
}

// refusal is the problem that the configuration in force is not what the file says, if that is so.
func (b *house) refusal(ctx context.Context) ([]rotator.Problem, error) {
	path := filepath.Base(b.a.configPath())
	if _, f := b.inForce(); f != nil {
		return []rotator.Problem{{
			Kind: rotator.ProblemConfiguration, Failing: true, Error: strings.Join(words(f.refused), ""),
			What: path + " is refused: the last accepted one runs instead, of " + f.At.UTC().Format(time.RFC3339),
		}}, nil
	}
	if b.lock.Who().Kind != store.Daemon {
		return nil, nil
	}
	t, tried, err := kept[trial](ctx, b.store.Reader, metaTrial)
	if err != nil || !tried || t.Error == "" {
		return nil, err
	}
	problem := t.Error
	if len(t.Problems) > 0 {
		problem = strings.Join(t.Problems, "")
	}
	return []rotator.Problem{{
		Kind: rotator.ProblemConfiguration, Failing: true, Error: problem, Next: t.Next,
		What: "an edit of " + path + " is refused: the configuration from before stays in force",
	}}, nil
}

// notify tells people how a pass went, and waits until they were told, or could not be.
func (b *house) notify(ctx context.Context) {
	after, end := lingering(ctx, notifyGrace)
	defer end()
	if err := b.notifier.Look(after, true); err != nil {
		b.log.Warn("nobody is told", "error", err)
	}
	b.notifier.Wait()
}

// unheard are the problems of targets that cannot be told.
func (b *house) unheard(ctx context.Context) []rotator.Problem {
	c, _ := b.inForce()
	text, err := notesOf{b.store}.Notes(ctx)
	if err != nil {
		b.log.Warn("look what people were told", "error", err)
	}
	return notify.Problems(text, c.Notify)
}

func (a *app) notifyCommand() *cobra.Command {
	var test, asJSON bool
	c := &cobra.Command{
		Use:   "notify [TARGET…]",
		Short: "Show who is told of problems, or send a test",
		Long: `Show who is told of problems (notify: in rotation.yaml), what each was told last that is
wrong still, and who cannot be told. With --test, each gets a message that says that it is
a test: look whether it arrives.`,
		RunE: func(c *cobra.Command, args []string) error {
			if test {
				return a.notifyTest(c.Context(), args, asJSON)
			}
			return a.notifyShow(c.Context(), args, asJSON)
		},
	}
	c.Flags().BoolVar(&test, "test", false, "send a test message")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	a.sandboxFlag(c, lookSandbox+"; a test is printed")
	return c
}

// targets returns those that patterns name; all without patterns.
func (l *look) targets(patterns []string) (map[string]notify.Target, error) {
	all := l.config.Notify
	if len(all) == 0 {
		return nil, usage(`nobody is told of problems: declare somebody, like "notify: {oncall: {slack: {url: {file: slack-url}}}}" (docs/notifications.md)`)
	}
	if len(patterns) == 0 {
		return all, nil
	}
	names, err := expandAs("target", patterns, slices.Sorted(maps.Keys(all)))
	if err != nil {
		return nil, err
	}
	out := map[string]notify.Target{}
	for _, name := range names {
		out[name] = all[name]
	}
	return out, nil
}

// targetJSON is one target, for programs.
type targetJSON struct {
	notify.Standing
	Title string   `json:"title"`
	On    []string `json:"on"`
}

func (a *app) notifyShow(ctx context.Context, patterns []string, asJSON bool) error {
	l, err := a.look(ctx, inForce, nil)
	if err != nil {
		return err
	}
	targets, err := l.targets(patterns)
	if err != nil {
		return err
	}
	all := []targetJSON{}
	for _, s := range notify.Standings(l.notes, targets) {
		t := targets[s.Target]
		all = append(all, targetJSON{s, t.Title(s.Target), t.Wants()})
	}
	if asJSON {
		return printJSON(a.stdout, struct {
			Format  int          `json:"format"`
			Targets []targetJSON `json:"targets"`
		}{1, all})
	}
	now := a.now()
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TARGET\tIS TOLD OF\tOPEN\tSTATE")
	for _, t := range all {
		state := "ok"
		if t.Tries > 0 {
			state = fmt.Sprintf("CANNOT BE TOLD since %s, tried %s: %s", ago(t.Since, now), count(t.Tries, "time"), t.Error)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", t.Title, strings.Join(t.On, " "), len(t.Open), state)
	}
	w.Flush() //nolint:errcheck // there is nowhere else to complain
	for _, t := range all {
		for _, item := range t.Open {
			fmt.Fprintf(a.stdout, "  %s knows of: %s (since %s)\n", t.Target, item.Title, ago(item.Since, now))
		}
	}
	fmt.Fprintln(a.stdout, "\nrotatord notify --test sends each a test.")
	return nil
}

// notifyTest sends a test to each, side by side. It needs neither lock nor state.
func (a *app) notifyTest(ctx context.Context, patterns []string, asJSON bool) error {
	c, err := a.loadStrict()
	if err != nil {
		return err
	}
	l := &look{config: c, instance: c.Instance}
	targets, err := l.targets(patterns)
	if err != nil {
		return err
	}
	if l.instance == "" {
		if dir, err := a.stateDir(); err == nil {
			if st, err := a.reader(ctx, dir); err == nil {
				l.instance, _ = st.Instance(ctx, "") //nolint:errcheck // a test without a name is one, too
				st.Close()                           //nolint:errcheck // only read
			}
		}
	}
	names := slices.Sorted(maps.Keys(targets))
	errs := make([]error, len(names))
	n := &notify.Notifier{World: a.webhookWorld(), Instance: l.instance, Host: host()}
	if a.inSandbox {
		n.Instead = func(target, text string) { fmt.Fprintf(a.stderr, "%s would be told: %s\n", target, text) }
	}
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = n.Test(ctx, name, targets[name]) })
	}
	wg.Wait()
	type sent struct {
		Target string `json:"target"`
		Sent   bool   `json:"sent"`
		Error  string `json:"error,omitempty"`
	}
	var all []sent
	for i, name := range names {
		one := sent{Target: name, Sent: errs[i] == nil}
		t := targets[name]
		if errs[i] != nil {
			one.Error = errs[i].Error()
		}
		all = append(all, one)
		switch {
		case asJSON:
		case errs[i] != nil:
			fmt.Fprintf(a.stdout, "FAIL  %s: %s\n", t.Title(name), errs[i])
		case !a.inSandbox:
			fmt.Fprintf(a.stdout, "ok    %s took it: look whether it has arrived\n", t.Title(name))
		}
	}
	if asJSON {
		if err := printJSON(a.stdout, struct {
			Format  int    `json:"format"`
			Targets []sent `json:"targets"`
		}{1, all}); err != nil {
			return err
		}
	}
	if errors.Join(errs...) != nil {
		return &codeError{code: exitFailed}
	}
	return nil
}

// notifiers looks whether each target could be told, and tells none.
func (p *patient) notifiers(ctx context.Context) {
	names := slices.Sorted(maps.Keys(p.config.Notify))
	all := make([]finding, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		t := p.config.Notify[name]
		wg.Go(func() {
			poster := t.Open(p.a.webhookWorld())
			ctx, cancel := context.WithTimeout(ctx, min(poster.Timeout(), 15*time.Second))
			defer cancel()
			all[i] = finding{Area: "notify", Subject: t.Title(name), Verdict: works}
			says, err := poster.Check(ctx)
			if err != nil {
				all[i].Verdict, all[i].Says = fails, err.Error()
				return
			}
			all[i].Says = says + " (rotatord notify --test " + name + " sends a message)"
		})
	}
	wg.Wait()
	p.findings = append(p.findings, all...)
}
