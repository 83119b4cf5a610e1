package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
)

type validateOptions struct {
	strict bool
	json   bool
	format string
	expand bool
}

func (a *app) validateCommand() *cobra.Command {
	var o validateOptions
	c := &cobra.Command{
		Use:   "validate [FILE… | FOLDER | -]",
		Short: "Check rotation.yaml, and say what it promises",
		Long: `Check a configuration: every problem at once, each with its line. For each token it
says how often it rotates, how many are alive at once, and which outages it survives.
It needs no credentials, no network and no state.

Several files are one configuration, like those of a folder. - is standard input.
--format github marks the lines of a pull request in GitHub Actions. --expand prints
the configuration without sets: the tokens that they make, written out.`,
		Example: `  rotatord validate
  rotatord validate --strict --format github rotation.yaml
  git show main:rotation.yaml | rotatord validate -
  rotatord validate --expand > written-out.yaml`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{a.configPath()}
			}
			switch {
			case o.json && o.format != "text" && o.format != "json":
				return usage("--json and --format %s contradict each other", o.format)
			case o.json:
				o.format = "json"
			}
			switch o.format {
			case "text", "json", "github":
			default:
				return usage("--format %q is none of text, json, github", o.format)
			}
			if o.expand && o.format != "text" {
				return usage("--expand prints YAML: it goes with no --format")
			}
			return a.validate(args, o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.strict, "strict", false, "warnings are errors")
	f.StringVar(&o.format, "format", "text", "how to print: text, json, or github (workflow commands)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.BoolVar(&o.expand, "expand", false, "print the configuration with every set written out")
	f.Var(&a.nextPass, "next-pass", "prove it for once, run this often, instead of for the daemon")
	f.BoolVar(&a.allowEmpty, "allow-empty", false, "accept a configuration without tokens")
	return c
}

// promise is what a configuration promises for one token. Lengths of time are in seconds.
type promise struct {
	Token        string      `json:"token"`
	Row          string      `json:"row,omitempty"` // of a set
	Next         []time.Time `json:"next_ticks"`
	Rotations    []time.Time `json:"next_rotations"` // of a token that is created now: the ticks, with its jitter
	Every        float64     `json:"rotates_at_most_every"`
	Lives        float64     `json:"lives"`
	Live         int         `json:"alive_at_once"`
	KeepsOverlap float64     `json:"keeps_overlap_through"` // outages shorter than this
	NoGap        float64     `json:"no_gap_through"`
}

// promises of a configuration; none of one that is refused.
func promises(c *config.Config, now time.Time) []promise {
	out := []promise{}
	if c == nil {
		return out
	}
	for _, t := range c.All() {
		f := t.Facts
		out = append(out, promise{
			Token: t.Name, Row: t.Row, Next: f.Next, Rotations: t.Timing.Coming(t.Name, now, 5), Every: f.Narrow.Seconds(), Lives: f.Lifetime.Seconds(), Live: f.Live,
			KeepsOverlap: f.KeepsOverlap().Seconds(), NoGap: f.NoGap().Seconds(),
		})
	}
	return out
}

// source reads what is named: one file or folder, standard input, or the files of one configuration.
func (a *app) source(paths []string) (config.Source, error) {
	if len(paths) == 1 && paths[0] == "-" {
		text, err := io.ReadAll(a.stdin)
		if err != nil {
			return config.Source{}, fmt.Errorf("read standard input: %w", err)
		}
		return config.Source{Path: "-", Files: []config.Text{{Name: "-", Text: string(text)}}}, nil
	}
	s := config.Source{Path: strings.Join(paths, " ")}
	for _, path := range paths {
		if path == "-" {
			return config.Source{}, usage("- stands alone: standard input is a whole configuration")
		}
		if len(paths) > 1 {
			if st, err := os.Stat(path); err == nil && st.IsDir() {
				return config.Source{}, usage("%s is a folder, which stands alone: it is a whole configuration", path)
			}
		}
		one, err := config.Read(path)
		if err != nil {
			return config.Source{}, unreadable(path, err)
		}
		if len(paths) == 1 {
			return one, nil
		}
		s.Files = append(s.Files, one.Files...)
	}
	return s, nil
}

func (a *app) validate(paths []string, o validateOptions) error {
	s, err := a.source(paths)
	if err != nil {
		return err
	}
	options := config.Options{Now: a.now(), AllowEmpty: a.allowEmpty, NextPass: time.Duration(a.nextPass)}
	c, problems := s.Parse(options)
	if o.strict {
		for i := range problems {
			problems[i].Severity = config.Error
		}
	}
	bad := problems.Errors() > 0
	failed := func() error {
		if !bad {
			return nil
		}
		return &codeError{exitUsage, fmt.Errorf("%s: %s, %s", s.Path, count(problems.Errors(), "error"), count(problems.Warnings(), "warning"))}
	}
	switch o.format {
	case "json":
		if problems == nil {
			problems = config.Problems{}
		}
		if err := printJSON(a.stdout, struct {
			Format   int             `json:"format"`
			Accepted bool            `json:"accepted"`
			Problems config.Problems `json:"problems"`
			Tokens   []promise       `json:"tokens"`
		}{1, !bad, problems, promises(c, options.Now)}); err != nil {
			return err
		}
		return failed()
	case "github":
		for i := range problems {
			fmt.Fprintln(a.stdout, annotation(&problems[i]))
		}
	default:
		to := a.stdout
		if o.expand {
			to = a.stderr
		}
		problems.WriteText(to) //nolint:errcheck // there is nowhere else to complain
	}
	if bad {
		return failed()
	}
	if o.expand {
		text, _, err := s.Expand(options)
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(text)
		return err
	}
	a.printPromises(c)
	fmt.Fprintf(a.stdout, "\n%s is right: %s, %s.\n", s.Path, count(len(c.Tokens), "token"), count(problems.Warnings(), "warning"))
	return nil
}

// annotation is a problem as a workflow command of GitHub Actions: it is shown beside its line in the
// pull request.
func annotation(p *config.Problem) string {
	data := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	var at []string
	if p.File != "-" {
		at = append(at, "file="+property.Replace(filepath.ToSlash(filepath.Clean(p.File))))
	}
	if p.Line > 0 {
		at = append(at, fmt.Sprintf("line=%d,col=%d", p.Line, p.Column))
	}
	text := p.Message
	if p.Where != "" {
		text = p.Where + ": " + text
	}
	command := string(p.Severity) // which are GitHub's own words
	if len(at) > 0 {
		command += " " + strings.Join(at, ",")
	}
	return "::" + command + "::" + data.Replace(text)
}

// manyTokens is how many are still told one by one, though many of them are promised the same.
const manyTokens = 20

// printPromises writes a line for each token, or for each group of them that is promised the same:
// those of one template and, where there are many, all.
func (a *app) printPromises(c *config.Config) {
	type group struct {
		names  []string
		timing *rotator.Timing
		facts  *rotator.Facts
	}
	var groups []*group
	byKey := map[string]*group{}
	all := c.All()
	for _, t := range all {
		f := &t.Facts
		key := fmt.Sprint(cmp.Or(t.Template, t.Name))
		if t.Template == "" && len(all) > manyTokens {
			key = ""
		}
		key = fmt.Sprint(key, "\n", t.Schedule, t.Timezone, f.Narrow, f.Lifetime, f.Live, f.KeepsOverlap(), f.NoGap())
		g := byKey[key]
		if g == nil {
			g = &group{timing: &t.Timing, facts: f}
			byKey[key] = g
			groups = append(groups, g)
		}
		g.names = append(g.names, t.Name)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOKEN\tNEXT ROTATION\tAT MOST EVERY\tLIVES\tAT ONCE\tOVERLAP KEPT\tNO GAP")
	for _, g := range groups {
		name, f := g.names[0], g.facts
		next := ""
		if coming := g.timing.Coming(name, a.now(), 1); len(coming) > 0 { // the others differ by their jitter at most
			next = coming[0].In(a.now().Location()).Format("Mon 2 Jan 15:04 MST")
		}
		switch n := len(g.names); {
		case n == 2:
			name += " and " + g.names[1]
		case n > 2:
			name += fmt.Sprintf(" and %d more", n-1)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\toutage < %s\toutage < %s\n", name, next,
			field.FormatDuration(f.Narrow), field.FormatDuration(f.Lifetime), f.Live,
			field.FormatDuration(f.KeepsOverlap()), field.FormatDuration(f.NoGap()))
	}
	w.Flush() //nolint:errcheck // there is nowhere else to complain
}
