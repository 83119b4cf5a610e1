package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/management"
	"github.com/rotatord/rotatord/rotator/notify"
	"github.com/rotatord/rotatord/rotator/store"
	"github.com/rotatord/rotatord/sinks"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON, failing, check bool
	c := &cobra.Command{
		Use:   "status [NAME…]",
		Short: "Show every token, problems first",
		Long: `Show every token, with what is wrong first: what it is, when it breaks somebody, and
what to do. It only looks at the state: it asks neither SiteGPT nor any sink, and works
with or without a daemon. A NAME may be a glob.`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.status(c.Context(), args, asJSON, failing, check)
		},
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&failing, "failing", false, "only tokens with a problem")
	a.sandboxFlag(c, lookSandbox)
	f.BoolVar(&check, "check", false, "exit with 1 if something fails")
	return c
}

// look is what commands that only look have read.
type look struct {
	config   *config.Config
	standing standing
	entries  []rotator.Entry
	records  []rotator.Record
	renamed  map[string]string // records that the configuration gives another name: the old one, by the new one
	dir      string
	found    rotator.Found // of the last look at SiteGPT's list
	holder   store.Holder  // who works on the state; zero: nobody
	instance string
	fresh    bool // there is no state yet

	pass       string // when once last ran
	notes      string // what people were told
	ownExpires string // when the operator's credential expires, as SiteGPT last told
	key        []byte
}

// which says what a look goes by.
type which bool

const (
	asWritten which = false // what the file says, right or wrong
	inForce   which = true  // what the daemon works by, or the last accepted one where the file is refused
)

// look reads configuration and state; a state that does not exist yet is an empty one.
func (a *app) look(ctx context.Context, by which, open func(sinks.Spec) (rotator.Sink, error)) (*look, error) {
	c, source, refused := a.try()
	l := &look{config: c}
	dir, err := a.stateDir()
	if err == nil || refused != nil {
		l.dir = dir
	}
	if refused != nil && (err != nil || by == asWritten) {
		a.complain(refused)
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	st, err := a.reader(ctx, l.dir)
	if missing := (*noStateError)(nil); errors.As(err, &missing) && !a.inSandbox {
		l.fresh = true
		if refused != nil {
			a.complain(refused)
			return nil, refused
		}
		return l, l.declare(a, open)
	}
	if err != nil {
		return nil, err
	}
	defer st.Close() //nolint:errcheck // only read
	if held, ok, err := store.Holding(l.dir); err == nil && ok {
		l.holder = held
	}
	if by == inForce {
		if err := l.inForce(ctx, a, st, source, refused); err != nil {
			a.complain(err)
			return nil, err
		}
	}
	if err := l.declare(a, open); err != nil {
		return nil, err
	}
	if l.records, err = st.Records(ctx); err != nil {
		return nil, err
	}
	if l.key, err = st.Key(ctx); err != nil {
		return nil, err
	}
	asks, err := st.Asks(ctx)
	if err != nil {
		return nil, err
	}
	for i := range l.records {
		for _, w := range asks {
			if w.Entry == l.records[i].Name {
				l.records[i].Asks = append(l.records[i].Asks, w)
			}
		}
	}
	l.rename()
	if l.instance, err = st.Instance(ctx, l.config.Instance); err != nil {
		return nil, err
	}
	if text, ok, err := st.Meta(ctx, metaSweep); err != nil {
		return nil, err
	} else if ok {
		if err := json.Unmarshal([]byte(text), &l.found); err != nil {
			return nil, fmt.Errorf("read what the list showed: %w", err)
		}
	}
	if l.ownExpires, _, err = st.Meta(ctx, metaOwnExpires); err != nil {
		return nil, err
	}
	if l.notes, _, err = st.Meta(ctx, metaNotes); err != nil {
		return nil, err
	}
	if l.pass, _, err = st.Meta(ctx, metaPass); err != nil {
		return nil, err
	}
	return l, nil
}

// rename calls the records as whoever works on the state next will: one that goes on under another
// name has neither lost its entry nor begins anew.
func (l *look) rename() {
	names := rotator.Renames(l.entries, func(name string) bool {
		return slices.ContainsFunc(l.records, func(r rotator.Record) bool { return r.Name == name })
	})
	l.renamed = map[string]string{}
	for i := range l.records {
		if r := &l.records[i]; names[r.Name] != "" {
			l.renamed[names[r.Name]] = r.Name
			r.Name = names[r.Name]
		}
	}
}

// report describes what was read.
func (l *look) report(now time.Time) rotator.Report {
	rep := rotator.Describe(l.entries, l.records, now)
	rep.Problems = append(ownExpiry(l.config, l.records, l.ownExpires, now), rep.Problems...)
	rep.Problems = append(notify.Problems(l.notes, l.config.Notify), rep.Problems...)
	return rep
}

// declare builds the entries of the configuration.
func (l *look) declare(a *app, open func(sinks.Spec) (rotator.Sink, error)) (err error) {
	if open == nil {
		open = func(sinks.Spec) (rotator.Sink, error) { return nil, nil }
	}
	if a.inSandbox {
		if _, err := moveSinks(l.config); err != nil { // what is not as declared was said when it began
			return err
		}
	}
	own := management.New(management.Config{File: ownFile(l.dir)}).Outlet() // to be read alone
	if l.entries, err = l.config.Entries(open, own); err != nil {
		return usage("%w", err)
	}
	return nil
}

// inForce finds the configuration that counts, and what a person should know about it.
func (l *look) inForce(ctx context.Context, a *app, st *store.Reader, source config.Source, refused error) error {
	if refused != nil {
		c, f, err := a.lastAccepted(ctx, st, source.Path, refused)
		if err != nil {
			return err
		}
		l.config, l.standing = c, standing{Accepted: f.At, Edited: f.Source.Hash() != source.Hash(), Refused: &trial{Error: refused.Error(), Problems: words(refused), Wrong: true}}
	}
	if l.holder.Kind != store.Daemon {
		return nil
	}
	t, tried, err := kept[trial](ctx, st, metaTrial)
	if err != nil {
		return err
	}
	if tried && t.Error != "" {
		l.standing.Refused = &t
	}
	if refused != nil {
		return nil
	}
	c, f, err := a.lastAccepted(ctx, st, source.Path, errNone)
	switch {
	case errors.Is(err, errNone): // the daemon goes by another file
		return nil
	case err != nil:
		return err
	}
	l.standing.Accepted = f.At
	if f.Source.Hash() != source.Hash() {
		l.config, l.standing.Edited = c, true
	}
	return nil
}

// errNone stands in for a refusal where there is none.
var errNone = errors.New("no other configuration was accepted")

// standing is how the configuration in force and the file go together.
type standing struct {
	Accepted time.Time `json:"accepted,omitzero"` // when the one in force was; zero: it is the file's, and no daemon runs
	Edited   bool      `json:"edited"`            // the file says something else, which the daemon has not taken over
	Refused  *trial    `json:"refused"`           // why not; null: it was not refused
}

func (a *app) status(ctx context.Context, patterns []string, asJSON, failing, check bool) error {
	l, err := a.look(ctx, inForce, nil)
	if err != nil {
		return err
	}
	f := l.facts(a, a.now())
	rep := &f.report
	if err := narrow(rep, patterns); err != nil {
		return err
	}
	bad := len(rep.Failing()) > 0 || l.standing.Refused != nil || f.stuck != ""
	if failing {
		rep.Tokens = slices.DeleteFunc(rep.Tokens, func(t rotator.TokenStatus) bool {
			return !slices.ContainsFunc(rep.Problems, func(p rotator.Problem) bool { return p.Token == t.Name })
		})
	}
	if asJSON {
		if err := printJSON(a.stdout, f.json()); err != nil {
			return err
		}
	} else {
		f.write(a.stdout, len(rep.Tokens))
	}
	if check && bad {
		return &codeError{code: exitFailed}
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// narrow keeps the tokens that the patterns name.
func narrow(rep *rotator.Report, patterns []string) error {
	if len(patterns) == 0 {
		return nil
	}
	var known []string
	for _, t := range rep.Tokens {
		known = append(known, t.Name)
	}
	names, err := expand(patterns, known)
	if err != nil {
		return err
	}
	rep.Tokens = slices.DeleteFunc(rep.Tokens, func(t rotator.TokenStatus) bool { return !slices.Contains(names, t.Name) })
	rep.Problems = slices.DeleteFunc(rep.Problems, func(p rotator.Problem) bool { return !slices.Contains(names, p.Token) })
	return nil
}

// write writes the facts as a person reads them: what is wrong first, and at most so many tokens.
func (f *facts) write(out io.Writer, most int) {
	rep, now := &f.report, f.report.At
	switch {
	case f.fresh:
		fmt.Fprintf(out, "There is no state in %s yet: rotatord run, or once, makes it.\n", f.dir)
	case f.holder.PID == 0:
		fmt.Fprintf(out, "No rotatord is running on %s: nothing rotates until run, or once, does.\n", f.dir)
	case f.holder.Kind == store.Command:
		fmt.Fprintf(out, "rotatord %s is at work (pid %d).\n", f.holder.Command, f.holder.PID)
	default:
		fmt.Fprintf(out, "The daemon runs since %s (pid %d).\n", local(f.holder.Since), f.holder.PID)
	}
	if f.stuck != "" {
		fmt.Fprintf(out, "\n✗ It hangs: %s.\n      → restart it; its log may say what it waits for\n", f.stuck)
	}
	printStanding(out, f.config, f.standing, now, f.running())
	if n := len(rep.Problems); n > 0 {
		fmt.Fprintf(out, "\n%s:\n", strings.ToUpper(count(n, "problem")[:1])+count(n, "problem")[1:])
		for _, p := range rep.Problems {
			printProblem(out, p, now, f.running())
		}
	}
	if n := len(f.found.Unexplained); n > 0 {
		fmt.Fprintf(out, "\nAt SiteGPT, %s with this instance's mark that this state never made (seen %s):\n", count(n, "token"), ago(f.found.At, now))
		for _, t := range f.found.Unexplained {
			fmt.Fprintf(out, "  %s  %s\n", plain(t.ID), plain(t.Name))
		}
	}
	if len(rep.Tokens) == 0 {
		fmt.Fprintln(out, "\nNo tokens.")
		return
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOKEN\tSTATE\tGEN\tEXPIRES\tNEXT ROTATION\tSINKS")
	for _, t := range rep.Tokens[:min(most, len(rep.Tokens))] {
		holding := 0
		var waiting []string
		for _, s := range t.Sinks {
			if s.State == "holds" {
				holding++
			} else {
				waiting = append(waiting, s.Name+" "+s.State)
			}
		}
		sinkText := fmt.Sprintf("%d/%d", holding, len(t.Sinks))
		if len(waiting) > 0 {
			sinkText += " (" + strings.Join(waiting, ", ") + ")"
		}
		gen := "-"
		if t.Generation > 0 {
			gen = fmt.Sprint(t.Generation)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.Name, t.State, gen, when(t.Expires, now), when(t.Planned, now), sinkText)
		for _, g := range t.Retiring {
			fate := "expires " + when(g.Expires, now)
			if !g.RevokeAt.IsZero() && !g.Leave {
				fate = "is revoked " + when(g.RevokeAt, now)
			}
			if g.Waits != "" {
				fate += ", waits: " + g.Waits
			}
			fmt.Fprintf(w, "\t\t%d\t%s\t\t\n", g.Generation, fate)
		}
	}
	w.Flush() //nolint:errcheck // there is nowhere else to complain
	if n := len(rep.Tokens) - most; n > 0 {
		fmt.Fprintf(out, "… and %s more: rotatord status shows them all.\n", count(n, "token"))
	}
}

// printStanding says which configuration counts, where that is not what the file says.
func printStanding(w io.Writer, path string, s standing, now time.Time, running bool) {
	switch {
	case s.Refused != nil:
		fmt.Fprintf(w, "\n✗ %s\n", s.Refused.Error)
		for _, p := range s.Refused.Problems {
			fmt.Fprint(w, indent(p, "      "))
		}
		fmt.Fprintf(w, "      In force is the configuration that was accepted %s.\n", local(s.Accepted))
		switch {
		case !s.Refused.Next.IsZero():
			fmt.Fprintf(w, "      → it is tried again by itself, %s\n", in(s.Refused.Next, now))
		case s.Refused.Wrong:
			who := "the daemon takes it over by itself"
			if !running {
				who = "the next run or once takes it over"
			}
			fmt.Fprintf(w, "      → mend %s: rotatord validate checks it, and %s\n", path, who)
		}
	case s.Edited:
		fmt.Fprintf(w, "%s was edited since, and is taken over within seconds (at once: rotatord reload).\n", path)
	}
}

// indent puts something before each line of a text.
func indent(text, before string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(before + line)
	}
	return b.String()
}

// printProblem writes one problem as a person reads it: what and when, why, and what to do. running
// says that a daemon goes on by itself.
func printProblem(w io.Writer, p rotator.Problem, now time.Time, running bool) {
	var b strings.Builder
	mark := "  · "
	if p.Failing {
		mark = "  ✗ "
	}
	b.WriteString(mark)
	if p.Token != "" { // else it is rotatord's own
		b.WriteString(p.Token + ": ")
	}
	if p.Sink != "" {
		b.WriteString(p.Sink + ": ")
	}
	b.WriteString(p.What)
	var when []string
	if !p.Since.IsZero() {
		when = append(when, "since "+ago(p.Since, now))
	}
	if !p.Next.IsZero() && p.Next.After(now) {
		next := "next try "
		if !running {
			next = "next try due "
		}
		when = append(when, next+in(p.Next, now))
	}
	if p.Until.After(now) {
		when = append(when, "waits for a person, at most until "+local(p.Until)+", "+in(p.Until, now))
	}
	if !p.Breaks.IsZero() {
		if p.Breaks.After(now) {
			when = append(when, "breaks its users "+in(p.Breaks, now)+" ("+local(p.Breaks)+")")
		} else {
			when = append(when, "its users have no working token NOW")
		}
	}
	if len(when) > 0 {
		b.WriteString(" [" + strings.Join(when, "; ") + "]")
	}
	b.WriteString("\n")
	for _, cause := range causes(p) {
		b.WriteString("      " + cause + "\n")
	}
	if h := hint(p, running); h != "" {
		b.WriteString("      " + h + "\n")
	}
	io.WriteString(w, b.String())
}

// causes are the lines of a problem's error, without the sink's name that stands before them already.
func causes(p rotator.Problem) []string {
	var out []string
	for line := range strings.Lines(p.Error) {
		line = strings.TrimRight(line, " \n") // a policy to paste keeps its shape
		if p.Sink != "" {
			line = strings.TrimPrefix(line, p.Sink+": ")
		}
		if line != "" {
			out = append(out, line)
		}
	}
	return out
}

// hint says what a person can do about a problem.
func hint(p rotator.Problem, running bool) string {
	if p.Outage != "" {
		if !running {
			return "→ bring back " + p.Outage + ", or the way to it (rotatord doctor tries it); the next run or once goes on then"
		}
		return "→ bring back " + p.Outage + ", or the way to it (rotatord doctor tries it); its end is noticed by itself within a minute"
	}
	switch p.Kind {
	case rotator.ProblemSink, rotator.ProblemUnread:
		if !running {
			return "→ mend the sink (rotatord doctor tries it); the next run or once then fills it, without a new token"
		}
		return "→ mend the sink (rotatord doctor tries it); it is filled by itself then, without a new token"
	case rotator.ProblemPreflight:
		return "→ mend the sink (rotatord doctor tries it); then: rotatord rotate " + p.Token + " (or wait for the next try)"
	case rotator.ProblemOwnExpiry:
		return "→ put another one, with tokens:write and tokens:read, where rotatord finds it: it is taken at once. Or let rotatord rotate it: management: {schedule: \"@monthly\"}"
	case rotator.ProblemManagement:
		return "→ give rotatord another token of its own (SITEGPT_API_TOKEN, its file, or api.token), with tokens:write and tokens:read; then: rotatord rotate " + p.Token
	case rotator.ProblemCreate:
		if !running {
			return "→ rotatord rotate " + p.Token + " tries at once"
		}
		return "→ it is retried by itself; rotatord rotate " + p.Token + " tries at once"
	case rotator.ProblemHeldSink:
		return "→ rotatord adopt " + p.Token + " writes ours over it; or empty the sink, or set on_drift: restore"
	case rotator.ProblemHeldEdit:
		return "→ correct the scopes in rotation.yaml, or let the API's user have them, then: rotatord rotate " + p.Token
	case rotator.ProblemBlocked:
		return "→ rotatord orphans shows them; then: rotatord adopt " + p.Token + ", or rotatord rotate " + p.Token + "; on a copied machine: rotatord new-instance"
	case rotator.ProblemFuse:
		return "→ find out why (rotatord history " + p.Token + "); then: rotatord rotate " + p.Token + " --override-fuse"
	case rotator.ProblemPaused:
		return "→ rotatord pause " + p.Token + " --end ends it; rotatord rotate " + p.Token + " rotates now"
	case rotator.ProblemNoToken:
		return "→ rotatord run, or once, makes one; see rotatord history " + p.Token
	case rotator.ProblemUnmanaged:
		return "→ rotatord revoke " + p.Token + " ends it now"
	case rotator.ProblemConsumer:
		unit, isUnit := strings.CutSuffix(p.Consumer, ".service")
		switch {
		case p.Error != "": // it cannot even be told, and the error says why
			return "→ it is tried again by itself; the old token is not revoked meanwhile"
		case isUnit:
			return "→ does anything watch its flag? systemctl status rotatord-restart@" + unit + ".path; the old token is not revoked meanwhile"
		}
		return "→ does anything watch this flag, and remove it? the old token is not revoked meanwhile"
	case rotator.ProblemNotify:
		return "→ rotatord notify --test " + p.Consumer + " shows whether it can be reached; what is to be told is tried again by itself"
	case rotator.ProblemConfiguration:
		return "→ mend it: rotatord validate checks it, and it is taken over by itself then"
	case rotator.ProblemScopes:
		return "→ the API's user, or rotatord's own token, may lack them"
	}
	return ""
}

// when is an instant, first as a distance.
func when(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.After(now):
		return in(t, now) + " (" + local(t) + ")"
	}
	return ago(t, now) + " (" + local(t) + ")"
}

// lookSandbox explains --sandbox of commands that only look.
const lookSandbox = "look at the rehearsal in ./sandbox, which run --sandbox keeps"

// noStateError says that there is no state to look at.
type noStateError struct {
	dir       string
	rehearsal bool
}

func (e *noStateError) Error() string {
	if e.rehearsal {
		return fmt.Sprintf("there is no rehearsal in %s: rotatord run --sandbox begins one", relative(filepath.Dir(e.dir)))
	}
	return fmt.Sprintf("there is no state in %s: rotatord run, or once, makes it; --state-dir names another folder", e.dir)
}

// state opens this invocation's state to look at it.
func (a *app) state(ctx context.Context) (*store.Reader, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	return a.reader(ctx, dir)
}

// reader opens a state to look at it.
func (a *app) reader(ctx context.Context, dir string) (*store.Reader, error) {
	st, err := store.OpenReader(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &noStateError{dir, a.inSandbox}
	}
	return st, err
}

func in(t, now time.Time) string { return "in " + field.FormatDuration(t.Sub(now)) }

func ago(t, now time.Time) string {
	if d := now.Sub(t).Round(time.Second); d >= time.Second {
		return field.FormatDuration(d) + " ago"
	}
	return "now"
}
