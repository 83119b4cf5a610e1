package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
)

// diffJSON is the output of plan --diff --format json.
type diffJSON struct {
	Format int       `json:"format"` // 1
	At     time.Time `json:"at"`
	config.Diff
}

// diff says what becomes of everything when the configuration takes the place of old. It needs neither
// state nor credentials, and asks nobody.
func (a *app) diff(old, format string, exitCode bool, patterns []string) error {
	switch format {
	case "text", "json", "markdown":
	default:
		return usage("--format %q is none of text, json, markdown", format)
	}
	d, home, err := a.compare(old)
	if err != nil {
		return err
	}
	if len(patterns) > 0 {
		if err := only(&d, patterns); err != nil {
			return err
		}
	}
	if format != "json" {
		shorten(&d, home)
	}
	switch format {
	case "json":
		err = printJSON(a.stdout, diffJSON{1, a.now().UTC().Truncate(time.Second), d})
	case "markdown":
		_, err = io.WriteString(a.stdout, diffMarkdown(&d))
	default:
		_, err = io.WriteString(a.stdout, diffText(&d))
	}
	if err == nil && exitCode && !d.Empty() {
		return &codeError{code: exitChanges}
	}
	return err
}

// compare reads both configurations, from home, where their relative paths start. Where either is
// refused, all that is wrong with both is told.
func (a *app) compare(old string) (d config.Diff, home string, err error) {
	path := a.configPath()
	next, err := config.Read(path)
	if err != nil {
		return d, home, unreadable(path, err)
	}
	before, name := config.Source{}, old
	if old == "-" {
		name = "standard input"
		text, err := io.ReadAll(a.stdin)
		if err != nil {
			return d, home, fmt.Errorf("read standard input: %w", err)
		}
		before = config.Source{Path: "-", Files: []config.Text{{Name: "-", Text: string(text)}}}
	} else if before, err = config.Read(old); err != nil {
		if absent(old, err) {
			return d, home, usage("there is no %s to compare with (--diff)", old)
		}
		return d, home, usage("%w", err)
	}
	// The old one may be a copy somewhere else: what is relative in it was meant from the same place.
	if home, err = a.home(); err != nil {
		return d, home, err
	}
	o := config.Options{Now: a.now(), NextPass: time.Duration(a.nextPass), AllowEmpty: true}
	was, wrong := before.In(home).Parse(o)
	o.AllowEmpty = a.allowEmpty
	is, bad := next.Parse(o)
	var refused []string
	tell := func(which, name string, c *config.Config, problems config.Problems) {
		if c != nil {
			return
		}
		refused = append(refused, fmt.Sprintf("%s is refused: %s", name, count(problems.Errors(), "error")))
		fmt.Fprintf(a.stderr, "The %s configuration, %s:\n", which, name)
		problems.WriteText(a.stderr) //nolint:errcheck // there is nowhere else to complain
	}
	tell("old", name, was, wrong)
	tell("new", path, is, bad)
	if len(refused) > 0 {
		return d, home, usage("%s", strings.Join(refused, "; "))
	}
	return config.Compare(was, is, a.now()), home, nil
}

// shorten writes every path of d from home.
func shorten(d *config.Diff, home string) {
	cut := func(text *string) { *text = fromHome(*text, home) }
	changes := func(list []config.Change) {
		for i := range list {
			cut(&list[i].Old)
			cut(&list[i].New)
		}
	}
	changes(d.Blocks)
	for i := range d.Tokens {
		changes(d.Tokens[i].Changes)
		for j := range d.Tokens[i].Sinks {
			s := &d.Tokens[i].Sinks[j]
			cut(&s.Name)
			changes(s.Changes)
		}
	}
}

// only keeps the tokens that the patterns name, by the old name or the new one; that one of them does
// not differ is no mistake, and that there is none of that name is one.
func only(d *config.Diff, patterns []string) error {
	known := slices.Clone(d.Kept)
	for i := range d.Tokens {
		known = append(known, d.Tokens[i].Token)
		if was := d.Tokens[i].Was; was != "" {
			known = append(known, was)
		}
	}
	names, err := expand(patterns, known)
	if err != nil {
		return err
	}
	other := func(name string) bool { return !slices.Contains(names, name) }
	d.Tokens = slices.DeleteFunc(d.Tokens, func(t config.TokenDiff) bool { return other(t.Token) && other(t.Was) })
	d.Kept = slices.DeleteFunc(d.Kept, other)
	d.Same = len(d.Kept)
	d.Blocks = []config.Change{}
	return nil
}

// line is one thing that is said of a token or a block: words, and values between them, which are
// marked since they may hold anything.
type line []any

// value is what somebody wrote into a configuration.
type value string

// fates are how each token begins, in a text.
func fateMark(t *config.TokenDiff) string {
	switch t.Fate {
	case config.FateAdded:
		return "+"
	case config.FateRemoved:
		return "-"
	}
	return "~"
}

// headline is what happens to a token, in a few words.
func headline(t *config.TokenDiff) line {
	var parts []line
	add := func(l ...any) { parts = append(parts, l) }
	switch t.Fate {
	case config.FateAdded:
		add("appears: a first token is created")
	case config.FateRemoved:
		if t.OnRemove == rotator.RemoveRevoke {
			add("goes unmanaged: its token is revoked after the overlap, once no declared sink holds it (on_remove: revoke), and dies within " + field.FormatDuration(t.LivesFor) + " in any case")
		} else {
			add("goes unmanaged: its token lives on, for " + field.FormatDuration(t.LivesFor) + " at most (until " + minute(t.LivesUntil) + ")")
		}
	case config.FateRenamed:
		add("was ", value(t.Was), ": its record goes on under the new name")
	}
	if t.Recreated != "" {
		add("its token is created again: " + t.Recreated)
	}
	if t.Moves() {
		add("its schedule moves")
	} else if t.Old != nil && t.New != nil {
		add("its times change")
	}
	if t.Fate == config.FateChanged && len(t.Sinks) > 0 {
		add("its sinks change")
	}
	if len(parts) == 0 {
		var fields []string
		for _, c := range t.Changes {
			fields = append(fields, c.Field)
		}
		add(strings.Join(fields, " and ") + " changed; no new token is needed")
	}
	var out line
	for i, p := range parts {
		if i > 0 {
			out = append(out, "; ")
		}
		out = append(out, p...)
	}
	return out
}

// details are what there is to say of a token below its headline.
func details(t *config.TokenDiff) []line {
	var out []line
	for _, c := range t.Changes {
		out = append(out, changeLine(&c))
	}
	out = append(out, timingLines(t)...)
	for _, s := range t.Sinks {
		l := line{"sink ", value(s.Name), " is " + string(s.Fate)}
		if s.Note != "" {
			l = append(l, ": "+s.Note)
		}
		out = append(out, l)
		for _, c := range s.Changes {
			out = append(out, append(line{"  "}, changeLine(&c)...))
		}
	}
	for _, n := range t.Notes {
		out = append(out, line{n})
	}
	return out
}

func changeLine(c *config.Change) line {
	l := line{value(c.Field)}
	switch {
	case c.Hidden:
		l = append(l, " changed (it is not shown)")
	case c.Old == "":
		l = append(l, ": ", value(c.New))
	case c.New == "":
		l = append(l, ": no longer ", value(c.Old))
	default:
		l = append(l, ": ", value(c.Old), " → ", value(c.New))
	}
	if c.Note != "" {
		l = append(l, " ("+c.Note+")")
	}
	return l
}

const nextRotations = "next rotations"

// timingLines say when a token rotates and what it survives: what differs, or all where it has no
// other side.
func timingLines(t *config.TokenDiff) []line {
	o, n := t.Old, t.New
	if o == nil && n == nil || t.Fate == config.FateRemoved {
		return nil
	}
	var out []line
	add := func(what string, show func(*config.Promise) string, after string) {
		is := show(n)
		switch {
		case o == nil:
			out = append(out, line{what, ": ", value(is), after})
		case show(o) != is:
			out = append(out, line{what, ": ", value(show(o)), " → ", value(is), after})
		}
	}
	length := func(get func(*config.Promise) time.Duration) func(*config.Promise) string {
		return func(p *config.Promise) string { return field.FormatDuration(get(p)) }
	}
	add("schedule", func(p *config.Promise) string { return p.Schedule }, "")
	add(nextRotations, func(p *config.Promise) string {
		var at []string
		for _, t := range p.Next {
			at = append(at, minute(t))
		}
		return strings.Join(at, ", ")
	}, " (of a token that is created now)")
	add("rotations a month", func(p *config.Promise) string { return fmt.Sprintf("%.1f", p.Month) }, "")
	add("a token lives", length(func(p *config.Promise) time.Duration { return p.Lifetime }), "")
	add("alive at once", func(p *config.Promise) string { return fmt.Sprint(p.Live) }, "")
	add("overlap", length(func(p *config.Promise) time.Duration { return p.Overlap }), "")
	add("margin", length(func(p *config.Promise) time.Duration { return p.Margin }), "")
	add("jitter", length(func(p *config.Promise) time.Duration { return p.Jitter }), "")
	add("keeps the overlap through outages under", length(func(p *config.Promise) time.Duration { return p.KeepsOverlap }), "")
	add("no gap through outages under", length(func(p *config.Promise) time.Duration { return p.NoGap }), "")
	if o != nil && t.Recreated == "" {
		out = append(out, line{"the live token is planned anew, and none falls due at once by it"})
	}
	return out
}

// alike are tokens of one set that differ, before and after, in their variables only: what is said of the
// first one goes for all.
type alike []*config.TokenDiff

// more says of how many others than the first.
func (g alike) more() string {
	if len(g) == 1 {
		return ""
	}
	return fmt.Sprintf(" and %d more", len(g)-1)
}

// groups are the tokens of d, and those of sets that are alike together, where the first of them stands.
func groups(d *config.Diff) (all []alike) {
	known := map[string]int{}
	for i := range d.Tokens {
		t := &d.Tokens[i]
		if t.Template == "" {
			all = append(all, alike{t})
			continue
		}
		var b strings.Builder
		fmt.Fprintln(&b, t.Template, t.Fate, headline(t))
		for _, l := range details(t) {
			if l[0] != nextRotations { // each has its own jitter
				fmt.Fprintln(&b, l...)
			}
		}
		key := t.Generic(b.String())
		j, ok := known[key]
		if !ok {
			j = len(all)
			known[key] = j
			all = append(all, nil)
		}
		all[j] = append(all[j], t)
	}
	return all
}

// diffSummary counts what becomes of all tokens.
func diffSummary(d *config.Diff) string {
	if d.Empty() {
		return fmt.Sprintf("Nothing changes: %s as before.", count(d.Same, "token"))
	}
	n := map[string]int{}
	for i := range d.Tokens {
		t := &d.Tokens[i]
		n[string(t.Fate)]++
		other := t.Fate == config.FateChanged
		if t.Recreated != "" {
			n["recreated"]++
			other = false
		}
		if t.Moves() {
			n["moves"]++
			other = false
		}
		if other {
			n["other"]++
		}
	}
	var parts []string
	for _, p := range []struct{ key, one, more string }{
		{"recreated", "is created again", "are created again"},
		{"added", "appears", "appear"},
		{"removed", "goes unmanaged", "go unmanaged"},
		{"renamed", "is renamed", "are renamed"},
		{"moves", "moves its schedule", "move their schedules"},
		{"other", "changes otherwise", "change otherwise"},
	} {
		switch c := n[p.key]; c {
		case 0:
		case 1:
			parts = append(parts, "1 "+p.one)
		default:
			parts = append(parts, fmt.Sprintf("%d %s", c, p.more))
		}
	}
	text := fmt.Sprintf("No token changes (%d).", d.Same)
	if len(d.Tokens) > 0 {
		if d.Same > 0 {
			parts = append(parts, fmt.Sprintf("%d unchanged", d.Same))
		}
		text = "Of the tokens, " + strings.Join(parts, ", ") + "."
	}
	switch n := len(d.Blocks); n {
	case 0:
	case 1:
		text += " 1 other setting changes."
	default:
		text += fmt.Sprintf(" %d other settings change.", n)
	}
	return text
}

// minute writes an instant the same on every machine: a comment on a pull request is read anywhere.
func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// diffText is the difference for a terminal.
func diffText(d *config.Diff) string {
	var b strings.Builder
	write := func(l line) {
		for _, part := range l {
			fmt.Fprint(&b, plain(fmt.Sprint(part)))
		}
		b.WriteByte('\n')
	}
	for _, g := range groups(d) {
		t := g[0]
		fmt.Fprintf(&b, "%s %s%s: ", fateMark(t), t.Token, g.more())
		write(headline(t))
		for _, l := range details(t) {
			b.WriteString("    ")
			write(l)
		}
	}
	for i := range d.Blocks {
		b.WriteString("~ ")
		write(changeLine(&d.Blocks[i]))
	}
	if !d.Empty() {
		b.WriteByte('\n')
	}
	b.WriteString(diffSummary(d) + "\n")
	return b.String()
}

// plain keeps a value on its line, away from a terminal's controls, and in the order in which it is read.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp):
			return ' '
		case unicode.In(r, unicode.Cf): // it could hide or reorder what stands beside it
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
