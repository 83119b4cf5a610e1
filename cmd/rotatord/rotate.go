package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/store"
)

func (a *app) rotateCommand() *cobra.Command {
	var all bool
	var want rotator.Ask
	timeout := durationFlag(5 * time.Minute)
	c := &cobra.Command{
		Use:   "rotate NAME… | --all",
		Short: "Rotate tokens now, whatever their schedule says",
		Long: `Rotate tokens now, whatever their schedule says, and wait until every required sink
holds the new one. The old ones live on for the overlap, as always. A NAME may be a
glob ('kb-*'). With a daemon running, it does the work; otherwise this command does.

The wish is saved first: should this command or the daemon die, it is still fulfilled.`,
		Example: `  rotatord rotate support-bot
  rotatord rotate support-bot --compromised   # it leaked: kill the old ones once the new one is in place
  rotatord rotate support-bot --now           # kill them at once, also if that breaks somebody`,
		RunE: func(c *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usage("name the tokens to rotate, or say --all")
			}
			want.Compromised = want.Compromised || want.Now
			return a.rotate(c.Context(), args, all, want, time.Duration(timeout))
		},
	}
	f := c.Flags()
	f.BoolVar(&all, "all", false, "rotate every declared token")
	f.BoolVar(&want.Compromised, "compromised", false, "revoke every older generation as soon as the new one is in place, without the overlap")
	f.BoolVar(&want.Now, "now", false, "revoke every older generation at once, whoever still uses it")
	f.BoolVar(&want.Override, "override-fuse", false, "create it even though the fuse says that there were too many")
	f.Var(&timeout, "timeout", "how long to wait for the result; the wish stays")
	f.BoolVar(&a.wishJSON, "json", false, "print JSON")
	a.sandboxFlag(c, "rotate in the rehearsal in ./sandbox")
	return c
}

func (a *app) rotate(ctx context.Context, patterns []string, all bool, want rotator.Ask, timeout time.Duration) error {
	if all {
		patterns = []string{"*"}
	}
	names, err := a.declared(ctx, patterns)
	if err != nil {
		return err
	}
	return a.wish(ctx, "rotate", names, timeout, func(r rotator.Record) (rotator.Ask, error) {
		one := want
		one.Entry, one.Than = r.Name, r.Last
		return one, nil
	})
}

// declared returns the names of declared tokens that patterns match.
func (a *app) declared(ctx context.Context, patterns []string) ([]string, error) {
	c, err := a.load(ctx)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, t := range c.All() {
		known = append(known, t.Name)
	}
	return expand(patterns, known)
}

// wish saves one ask for each name, sees to it that somebody works on them, and reports.
func (a *app) wish(ctx context.Context, command string, names []string, timeout time.Duration, ask func(rotator.Record) (rotator.Ask, error)) error {
	soft, hard, stop := signals(ctx)
	defer stop()
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); a.inSandbox && errors.Is(err, fs.ErrNotExist) {
		return &noStateError{dir, true}
	}
	// What this command could not fulfil itself is better refused than kept as a wish.
	if _, held, err := store.Holding(dir); err == nil && !held && !a.inSandbox {
		c, err := a.load(ctx)
		if err != nil {
			return err
		}
		if _, err := a.bearer(c, dir); err != nil {
			return err
		}
	}
	asks, err := a.leave(soft, dir, names, ask)
	if err != nil {
		return err
	}
	deadline := a.now().Add(timeout)
	for {
		held, ok, err := store.Holding(dir)
		if err == nil && ok {
			fmt.Fprintf(a.stderr, "%s is at work (pid %d): it does it\n", cmpOr(held.Command, "another rotatord"), held.PID)
			vacant, err := a.await(soft, dir, asks, deadline)
			if err != nil || !vacant {
				return err
			}
		}
		b, leave, err := a.enter(soft, hard, how{kind: store.Command, command: command, only: names})
		if held := (*store.HeldError)(nil); errors.As(err, &held) && a.now().Before(deadline) {
			time.Sleep(100 * time.Millisecond) // somebody was quicker: it is theirs
			continue
		}
		if err != nil {
			return fmt.Errorf("%w (the wish is saved: the daemon, or the next once, fulfils it)", err)
		}
		defer leave()
		b.pass(soft, hard, max(deadline.Sub(a.now()), 0), func() bool {
			_, records := b.engine.Snapshot()
			return a.all(asks, records)
		})
		b.tell(soft)
		leave()
		entries, records := b.engine.Snapshot()
		return a.fulfilled(entries, asks, records, false)
	}
}

func cmpOr(s, other string) string {
	if s == "" {
		return other
	}
	return "rotatord " + s
}

// leave writes the wishes into the mailbox.
func (a *app) leave(ctx context.Context, dir string, names []string, ask func(rotator.Record) (rotator.Ask, error)) ([]rotator.Ask, error) {
	if err := a.makeStateHome(); err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, dir, store.Options{})
	if err != nil {
		return nil, err
	}
	defer st.Close() //nolint:errcheck // everything is durable by then
	var asks []rotator.Ask
	for _, name := range names {
		r, found, err := st.Record(ctx, name)
		if err != nil {
			return nil, err
		}
		if !found {
			r = rotator.Record{Name: name}
		}
		one, err := ask(r)
		if err != nil {
			return nil, err
		}
		one.By, one.At = a.whoami(), a.now()
		asks = append(asks, one)
	}
	for _, one := range asks {
		if err := st.Ask(ctx, one); err != nil {
			return nil, fmt.Errorf("save the wish: %w", err)
		}
	}
	// An order is known by its number from now on.
	kept, err := st.Asks(ctx)
	if err != nil {
		return nil, err
	}
	for i := range asks {
		if one := &asks[i]; one.Adopt || !one.Pause.IsZero() {
			for _, k := range kept {
				if k.Entry == one.Entry {
					one.Seq = max(one.Seq, k.Seq)
				}
			}
		}
	}
	return asks, nil
}

// await looks at the records that another process works on, until the wishes are fulfilled, or
// until nobody works on them any more (vacant).
func (a *app) await(ctx context.Context, dir string, asks []rotator.Ask, deadline time.Time) (vacant bool, err error) {
	for {
		_, held, err := store.Holding(dir) // looked at first: the holder's last save is then seen
		records, rerr := a.records(ctx, dir)
		if rerr != nil {
			return false, rerr
		}
		if a.all(asks, records) || !a.now().Before(deadline) || ctx.Err() != nil {
			l, err := a.look(context.WithoutCancel(ctx), inForce, nil)
			if err != nil {
				return false, err
			}
			return false, a.fulfilled(l.entries, asks, l.records, held)
		}
		if err == nil && !held {
			return true, nil
		}
		timer := time.NewTimer(250 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (a *app) records(ctx context.Context, dir string) ([]rotator.Record, error) {
	st, err := a.reader(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer st.Close() //nolint:errcheck // only read
	return st.Records(ctx)
}

// fulfilled reports whether what a person wished for is so.
func fulfilled(w rotator.Ask, records []rotator.Record, now time.Time) bool {
	i := slices.IndexFunc(records, func(r rotator.Record) bool { return r.Name == w.Entry })
	if i < 0 {
		return false
	}
	r := &records[i]
	if w.Seq != 0 {
		return r.Heard >= w.Seq && !r.Adopt
	}
	if w.Revoke != 0 {
		g := r.Generation(w.Revoke)
		return g == nil || !g.Live(now)
	}
	cur := r.Current(now)
	if cur == nil || cur.Number <= w.Than {
		return false
	}
	if w.Compromised || w.Now {
		for j := range r.Generations {
			if g := &r.Generations[j]; g.Number <= w.Than && g.Live(now) {
				return false
			}
		}
	}
	return true
}

// all reports whether every wish is fulfilled.
func (a *app) all(asks []rotator.Ask, records []rotator.Record) bool {
	now := a.now()
	return !slices.ContainsFunc(asks, func(w rotator.Ask) bool { return !fulfilled(w, records, now) })
}

// fulfilled prints what became of the wishes, and what is wrong with their tokens: it stands in the
// way of those that are open, and a sink that is not required may lag behind the others. running
// says that somebody goes on with that.
func (a *app) fulfilled(entries []rotator.Entry, asks []rotator.Ask, records []rotator.Record, running bool) error {
	problems := a.problemsOf(entries, asks, records)
	if a.wishJSON {
		return a.fulfilledJSON(problems, asks, records)
	}
	now := a.now()
	var open []string
	for _, w := range asks {
		if !fulfilled(w, records, now) {
			open = append(open, w.Entry)
			continue
		}
		i := slices.IndexFunc(records, func(r rotator.Record) bool { return r.Name == w.Entry })
		r := &records[i]
		if w.Seq != 0 {
			a.ordered(w, r, entries)
			continue
		}
		if w.Revoke != 0 {
			fmt.Fprintf(a.stdout, "%s: generation %d is revoked\n", w.Entry, w.Revoke)
			continue
		}
		cur := r.Current(now)
		fmt.Fprintf(a.stdout, "%s: generation %d is in every required sink, until %s", w.Entry, cur.Number, local(cur.Expires))
		for j := range r.Generations {
			if g := &r.Generations[j]; g.Number < cur.Number && g.Live(now) {
				if g.Leave || g.RevokeAt.IsZero() {
					fmt.Fprintf(a.stdout, "; generation %d expires %s", g.Number, local(g.Expires))
				} else {
					fmt.Fprintf(a.stdout, "; generation %d is revoked %s", g.Number, local(g.RevokeAt))
				}
			}
		}
		if w.Compromised {
			fmt.Fprint(a.stdout, "; every older one is revoked")
		}
		fmt.Fprintln(a.stdout)
	}
	for _, p := range problems {
		printProblem(a.stderr, p, now, running)
	}
	if len(open) == 0 {
		return nil
	}
	return &codeError{exitFailed, fmt.Errorf("not done yet: %s; the wish is saved, and the daemon, or the next once, goes on with it (see: rotatord status)", strings.Join(slices.Compact(open), ", "))}
}

// wishesJSON is the output of rotate, revoke, adopt and pause with --json.
type wishesJSON struct {
	Format   int               `json:"format"` // 1
	Wishes   []wishJSON        `json:"wishes"`
	Problems []rotator.Problem `json:"problems"` // what stands in the way, and which sink fails that was not waited for
}

// wishJSON is what became of one wish.
type wishJSON struct {
	Token      string    `json:"token"`
	Done       bool      `json:"done"`                 // false: it is saved, and whoever works on the state next goes on with it
	Generation int       `json:"generation,omitempty"` // what every required sink holds, or what is to be revoked
	ID         string    `json:"id,omitempty"`
	Expires    time.Time `json:"expires,omitzero"`
	Paused     time.Time `json:"paused_until,omitzero"`
}

func (a *app) fulfilledJSON(problems []rotator.Problem, asks []rotator.Ask, records []rotator.Record) error {
	out := wishesJSON{Format: 1, Wishes: []wishJSON{}, Problems: []rotator.Problem{}}
	left := false
	now := a.now()
	for _, w := range asks {
		one := wishJSON{Token: w.Entry, Done: fulfilled(w, records, now), Generation: w.Revoke}
		for i := range records {
			r := &records[i]
			if r.Name != w.Entry || w.Revoke != 0 || !one.Done {
				continue
			}
			if g := r.Current(now); g != nil {
				one.Generation, one.ID, one.Expires = g.Number, g.ID, g.Expires
			}
			if r.PausedUntil.After(now) {
				one.Paused = r.PausedUntil
			}
		}
		left = left || !one.Done
		out.Wishes = append(out.Wishes, one)
	}
	out.Problems = append(out.Problems, problems...)
	if err := printJSON(a.stdout, out); err != nil {
		return err
	}
	if left {
		return &codeError{code: exitFailed}
	}
	return nil
}

// problemsOf returns everything that is wrong with a token whose wish is open, and what fails now
// of the others.
func (a *app) problemsOf(entries []rotator.Entry, asks []rotator.Ask, records []rotator.Record) []rotator.Problem {
	now := a.now()
	open := map[string]bool{}
	for _, w := range asks {
		open[w.Entry] = open[w.Entry] || !fulfilled(w, records, now)
	}
	return slices.DeleteFunc(rotator.Describe(entries, records, now).Problems, func(p rotator.Problem) bool {
		isOpen, asked := open[p.Token]
		return !asked || !(isOpen || p.Failing)
	})
}

func (a *app) revokeCommand() *cobra.Command {
	var generation int
	var force bool
	timeout := durationFlag(2 * time.Minute)
	c := &cobra.Command{
		Use:   "revoke NAME [--generation N]",
		Short: "Kill one generation, or all of a token that is no longer declared",
		Long: `Kill one generation of a token at once, whoever still uses it. Without --generation,
every live generation of a token that is no longer in rotation.yaml.

The generation that the sinks hold needs --force: "rotate NAME --compromised" replaces
it first.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("one NAME is needed, not %d", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.revoke(c.Context(), args[0], generation, force, time.Duration(timeout))
		},
	}
	c.Flags().IntVar(&generation, "generation", 0, "number of the generation (see: rotatord status NAME)")
	c.Flags().BoolVar(&force, "force", false, "also if the sinks hold it")
	c.Flags().Var(&timeout, "timeout", "how long to wait for the result; the wish stays")
	c.Flags().BoolVar(&a.wishJSON, "json", false, "print JSON")
	a.sandboxFlag(c, "revoke in the rehearsal in ./sandbox")
	return c
}

func (a *app) revoke(ctx context.Context, name string, generation int, force bool, timeout time.Duration) error {
	c, err := a.load(ctx)
	if err != nil {
		return err
	}
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	records, err := a.records(ctx, dir)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(records, func(r rotator.Record) bool { return r.Name == name })
	if i < 0 {
		var known []string
		for j := range records {
			known = append(known, records[j].Name)
		}
		_, err := expand([]string{name}, known)
		return err
	}
	declared := false
	for _, t := range c.All() {
		declared = declared || t.Name == name
		if t.Was == name && !slices.ContainsFunc(records, func(r rotator.Record) bool { return r.Name == t.Name }) { // its record is about to get that name, and an order to this one would be lost
			return usage("%s is what %s was: say rotatord revoke %[2]s, or rotatord rotate %[2]s --compromised, once run, once or reload has given it the new name", name, t.Name)
		}
	}
	now := a.now()
	var live []int
	for j := range records[i].Generations {
		if g := &records[i].Generations[j]; g.Live(now) {
			live = append(live, g.Number)
		}
	}
	target := records[i].Target(now)
	switch {
	case name == rotator.OwnName && target != nil && (generation == 0 || generation == target.Number):
		return usage("this is what rotatord itself asks with, and without it no other token could be replaced: rotatord rotate %s --compromised replaces it first, and then revokes it", name)
	case generation == 0 && declared:
		return usage("%s is declared: say which generation with --generation (alive: %s), or use: rotatord rotate %s --compromised", name, numbers(live), name)
	case generation != 0 && !slices.Contains(live, generation):
		return usage("generation %d of %s is not alive (alive: %s)", generation, name, numbers(live))
	case generation != 0 && declared && target != nil && target.Number == generation && !force:
		return usage("generation %d is what the sinks of %s hold: \"rotatord rotate %s --compromised\" replaces it first; --force kills it all the same", generation, name, name)
	case generation != 0:
		live = []int{generation}
	case len(live) == 0:
		if a.wishJSON {
			return a.fulfilledJSON(nil, nil, nil)
		}
		fmt.Fprintf(a.stdout, "%s: no generation is alive\n", name)
		return nil
	}
	names := slices.Repeat([]string{name}, len(live)) // one wish for each generation
	return a.wish(ctx, "revoke", names, timeout, func(rotator.Record) (rotator.Ask, error) {
		n := live[0]
		live = live[1:]
		return rotator.Ask{Entry: name, Revoke: n}, nil
	})
}

func numbers(n []int) string {
	if len(n) == 0 {
		return "none"
	}
	var out []string
	for _, i := range n {
		out = append(out, fmt.Sprint(i))
	}
	return strings.Join(out, ", ")
}
