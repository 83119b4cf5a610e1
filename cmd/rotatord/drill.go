package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/management"
	"github.com/rotatord/rotatord/rotator/simulate"
	"github.com/rotatord/rotatord/sinks"
)

func (a *app) drillCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "drill [NAME…]",
		Short: "Rehearse crashes and faults at every step, with your own rotation.yaml",
		Long: `Rehearse what is in rotation.yaml against a simulated SiteGPT and simulated sinks: each
token is created and rotated over and over, while the process dies before every single
call, every call goes wrong in every way, and SiteGPT or a sink is down for the margin and
for nearly all of the overlap. A witness looks after each call: does every sink hold a
token that works? In the end: is every sink filled, is there an orphan, were there more
creates than needed?

It runs the daemon's own code on a virtual clock. It touches nothing real: no state, no
sink, no SiteGPT; commands of exec sinks are not run. Tokens that differ in name only are
rehearsed once. Exit code 1: the promise was broken somewhere.`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.drill(c.Context(), args, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

type drillJSON struct {
	Format int          `json:"format"` // 1
	Broken bool         `json:"broken"`
	Trials int          `json:"trials"`
	Tokens []drilledRow `json:"tokens"`
}

type drilledRow struct {
	Token    string             `json:"token"`
	Like     []string           `json:"like,omitempty"` // other tokens with the same timing and kinds of sinks
	Outcomes []simulate.Outcome `json:"outcomes"`
}

func (a *app) drill(ctx context.Context, patterns []string, asJSON bool) error {
	begun := a.now()
	c, err := a.loadStrict()
	if err != nil {
		return err
	}
	if len(patterns) == 0 {
		patterns = []string{"*"}
	}
	names, err := a.declared(ctx, patterns)
	if err != nil {
		return err
	}
	entries, err := c.Entries(func(sinks.Spec) (rotator.Sink, error) { return nil, nil }, management.New(management.Config{}).Outlet())
	if err != nil {
		return usage("%w", err)
	}
	dir := filepath.Dir(a.configPath()) + string(filepath.Separator)
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs + string(filepath.Separator)
	}
	blind := blindPlaces(c)
	var rows []drilledRow
	var drills []simulate.Drill
	shapes := map[string]int{}
	for _, e := range entries {
		if !slices.Contains(names, e.Name) {
			continue
		}
		d := simulate.Drill{Entry: e, Start: begun}
		shape := e.Timing.Fingerprint()
		for i := range e.Outlets {
			o := &e.Outlets[i]
			o.Name = strings.ReplaceAll(o.Name, dir, "") // a table has no room for it
			if blind[o.Place] {
				d.Blind = append(d.Blind, o.Place)
			}
			shape += fmt.Sprintf("|%s %v %v", o.Kind, o.Required, blind[o.Place])
		}
		if i, ok := shapes[shape]; ok {
			rows[i].Like = append(rows[i].Like, e.Name)
			continue
		}
		shapes[shape] = len(rows)
		rows = append(rows, drilledRow{Token: e.Name})
		drills = append(drills, d)
	}
	// The rehearsals know nothing of each other.
	err = a.eachOf(len(drills), "kinds of token drilled", func(i int) (err error) {
		if err = ctx.Err(); err == nil {
			rows[i].Outcomes, err = drills[i].Run(ctx)
		}
		return err
	})
	if err != nil {
		return err
	}
	out := drillJSON{Format: 1, Tokens: rows}
	for _, r := range rows {
		for i := range r.Outcomes {
			out.Trials += r.Outcomes[i].Trials
			out.Broken = out.Broken || r.Outcomes[i].Broken()
		}
	}
	if asJSON {
		if err := printJSON(a.stdout, out); err != nil {
			return err
		}
	} else {
		a.printDrill(out, a.now().Sub(begun))
	}
	if out.Broken {
		return &codeError{exitFailed, errors.New("the promise was broken")}
	}
	return nil
}

func (a *app) printDrill(d drillJSON, took time.Duration) {
	out := a.stdout
	for _, r := range d.Tokens {
		fmt.Fprintf(out, "%s%s\n", r.Token, like(r.Like))
		var faults, steps []string
		cells := map[[2]string]*simulate.Outcome{}
		for i := range r.Outcomes {
			o := &r.Outcomes[i]
			if o.Step == "" {
				continue
			}
			if !slices.Contains(faults, o.Fault) {
				faults = append(faults, o.Fault)
			}
			if !slices.Contains(steps, o.Step) {
				steps = append(steps, o.Step)
			}
			cells[[2]string{o.Step, o.Fault}] = o
		}
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(w, "  while it does …\t%s\n", strings.Join(faults, "\t"))
		for _, s := range steps {
			fmt.Fprintf(w, "  %s", s)
			for _, f := range faults {
				fmt.Fprintf(w, "\t%s", verdict(cells[[2]string{s, f}]))
			}
			fmt.Fprintln(w)
		}
		for i := range r.Outcomes {
			if o := &r.Outcomes[i]; o.Step == "" {
				fmt.Fprintf(w, "  %s\t%s\n", o.Fault, verdict(o))
			}
		}
		w.Flush() //nolint:errcheck // there is nowhere else to complain
		for i := range r.Outcomes {
			if o := &r.Outcomes[i]; o.Broken() {
				fmt.Fprintf(out, "  ✗ %s, %s: %s\n", o.Step, o.Fault, o.Problem)
			}
		}
		fmt.Fprintln(out)
	}
	verdict := "In all of them, every sink held a working token all the time, and no orphan was left."
	if d.Broken {
		verdict = "THE PROMISE WAS BROKEN, as marked above."
	}
	fmt.Fprintf(out, "%s in %s. %s\n", count(d.Trials, "rehearsal"), took.Round(100*time.Millisecond), verdict)
}

// like names tokens that need no rehearsal of their own.
func like(names []string) string {
	switch {
	case len(names) == 0:
		return ""
	case len(names) <= 3:
		return " (and, alike, " + strings.Join(names, ", ") + ")"
	}
	return fmt.Sprintf(" (and %d alike)", len(names))
}

// verdict is one cell of the table.
func verdict(o *simulate.Outcome) string {
	switch {
	case o == nil:
		return "-"
	case !o.Broken():
		return fmt.Sprintf("ok ×%d", o.Trials)
	}
	var what []string
	for _, w := range []struct {
		n    int
		text string
	}{{o.Gaps, "no working token"}, {o.Orphans, "orphan"}, {o.Stuck, "not filled"}, {o.Loops, "creates in a loop"}} {
		if w.n > 0 {
			what = append(what, fmt.Sprintf("%s %d/%d", w.text, w.n, o.Trials))
		}
	}
	return "✗ " + strings.Join(what, ", ")
}
