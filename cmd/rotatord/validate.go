package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator/field"
)

func (a *app) validateCommand() *cobra.Command {
	var strict, asJSON bool
	c := &cobra.Command{
		Use:   "validate [FILE | FOLDER | -]",
		Short: "Check rotation.yaml, and say what it promises",
		Long: `Check a configuration: every problem at once, each with its line. For each token it
says how often it rotates, how many are alive at once, and which outages it survives.
It needs no credentials, no network and no state.`,
		Args: oneAtMost("one FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			path := a.configPath()
			if len(args) > 0 {
				path = args[0]
			}
			return a.validate(path, strict, asJSON)
		},
	}
	c.Flags().BoolVar(&strict, "strict", false, "warnings are errors")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().Var(&a.nextPass, "next-pass", "prove it for once, run this often, instead of for the daemon")
	c.Flags().BoolVar(&a.allowEmpty, "allow-empty", false, "accept a configuration without tokens")
	return c
}

// promise is what a configuration promises for one token. Lengths of time are in seconds.
type promise struct {
	Token        string      `json:"token"`
	Next         []time.Time `json:"next_ticks"`
	Every        float64     `json:"rotates_at_most_every"`
	Lives        float64     `json:"lives"`
	Live         int         `json:"alive_at_once"`
	KeepsOverlap float64     `json:"keeps_overlap_through"` // outages shorter than this
	NoGap        float64     `json:"no_gap_through"`
}

// promises of a configuration; none of one that is refused.
func promises(c *config.Config) []promise {
	out := []promise{}
	if c == nil {
		return out
	}
	for _, t := range c.All() {
		f := t.Facts
		out = append(out, promise{
			Token: t.Name, Next: f.Next, Every: f.Narrow.Seconds(), Lives: f.Lifetime.Seconds(), Live: f.Live,
			KeepsOverlap: f.KeepsOverlap().Seconds(), NoGap: f.NoGap().Seconds(),
		})
	}
	return out
}

func (a *app) validate(path string, strict, asJSON bool) error {
	o := config.Options{Now: a.now(), AllowEmpty: a.allowEmpty, NextPass: time.Duration(a.nextPass)}
	var c *config.Config
	var problems config.Problems
	if path == "-" {
		text, err := io.ReadAll(a.stdin)
		if err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		c, problems = config.Parse("-", text, dir, o)
	} else {
		var err error
		if c, problems, err = config.Load(path, o); err != nil {
			return unreadable(path, err)
		}
	}
	bad := problems.Errors() > 0 || (strict && len(problems) > 0)
	if asJSON {
		if problems == nil {
			problems = config.Problems{}
		}
		if err := printJSON(a.stdout, struct {
			Format   int             `json:"format"`
			Accepted bool            `json:"accepted"`
			Problems config.Problems `json:"problems"`
			Tokens   []promise       `json:"tokens"`
		}{1, !bad, problems, promises(c)}); err != nil {
			return err
		}
	} else {
		problems.WriteText(a.stdout) //nolint:errcheck // there is nowhere else to complain
	}
	if bad {
		return &codeError{exitUsage, fmt.Errorf("%s: %s, %s", path, count(problems.Errors(), "error"), count(problems.Warnings(), "warning"))}
	}
	if asJSON {
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOKEN\tNEXT TICK\tROTATES AT MOST EVERY\tA TOKEN LIVES\tALIVE AT ONCE\tKEEPS THE OVERLAP THROUGH OUTAGES UNDER\tNO GAP THROUGH OUTAGES UNDER")
	for _, t := range c.All() {
		f := t.Facts
		next := ""
		if len(f.Next) > 0 {
			next = f.Next[0].In(a.now().Location()).Format("Mon 2 Jan 15:04 MST")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", t.Name, next,
			field.FormatDuration(f.Narrow), field.FormatDuration(f.Lifetime), f.Live,
			field.FormatDuration(f.KeepsOverlap()), field.FormatDuration(f.NoGap()))
	}
	w.Flush() //nolint:errcheck // there is nowhere else to complain
	fmt.Fprintf(a.stdout, "\n%s is right: %s, %s.\n", path, count(len(c.Tokens), "token"), count(problems.Warnings(), "warning"))
	return nil
}
