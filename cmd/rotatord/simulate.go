package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/management"
	"github.com/rotatord/rotatord/rotator/simulate"
	"github.com/rotatord/rotatord/sinks"
)

type simulateOptions struct {
	from, until string
	outages     []string
	down        []string
	fresh       bool
	worst       bool
	all         bool
	json        bool
	svg         string
	patterns    []string
}

func (a *app) simulateCommand() *cobra.Command {
	var o simulateOptions
	c := &cobra.Command{
		Use:   "simulate [NAME…]",
		Short: "Play the coming year: every rotation, and what outages would do",
		Long: `Play the future of every token, with the daemon's own code, a virtual clock, and a
stand-in of SiteGPT and of every sink: when tokens are created, how long each lives,
when it dies, and whether at any instant a sink would hold a dead one. It begins from
the present state, if there is one. Nothing real is asked, and nothing is written.

An outage is WHAT:LENGTH@BEGIN, like api:48h@2027-03-01 or env_file:3d@2027-03-01T02:00:
WHAT is api, a kind of sink, or a sink's name as status shows it. --down LENGTH@BEGIN is
a time in which the daemon does not run. --worst looks for the shortest outages that
break each token.

Exit code 1: there is a gap.`,
		Example: `  rotatord simulate --until 365d
  rotatord simulate --outage api:48h@2027-03-01 --down 6h@2027-03-05
  rotatord simulate support-bot --worst
  rotatord simulate --svg year.svg`,
		RunE: func(c *cobra.Command, args []string) error {
			o.patterns = args
			return a.simulate(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.from, "from", "", "when it begins: a date or an instant (default: now)")
	f.StringVar(&o.until, "until", "365d", "when it ends: a date, an instant, or a length of time")
	f.StringArrayVar(&o.outages, "outage", nil, "something does not answer: WHAT:LENGTH@BEGIN (may be repeated)")
	f.StringArrayVar(&o.down, "down", nil, "the daemon does not run: LENGTH@BEGIN (may be repeated)")
	f.BoolVar(&o.fresh, "fresh", false, "begin without any token, whatever the state holds")
	f.BoolVar(&o.worst, "worst", false, "look for the shortest outages that break each token")
	f.BoolVar(&o.all, "all", false, "print every generation, not the first few of each token")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.StringVar(&o.svg, "svg", "", "also draw it into this file")
	return c
}

// simulated is what simulate prints.
type simulated struct {
	Format  int                `json:"format"`
	From    time.Time          `json:"from"`
	Until   time.Time          `json:"until"`
	Resumed bool               `json:"from_state"` // it begins from the present state
	Outages []outageJSON       `json:"outages"`
	Down    []simulate.Span    `json:"down"`
	Gaps    int                `json:"gaps"`
	Alive   int                `json:"alive_at_once"`
	Peak    peakJSON           `json:"peak"`
	Tokens  []*simulate.Course `json:"tokens"`
	Worst   []worstJSON        `json:"worst,omitempty"`

	zone  *time.Location         // of the picture: the one of all schedules, or this machine's
	ticks map[string][]time.Time // for the picture, by token
}

type outageJSON struct {
	What string `json:"what"`
	simulate.Span
}

type peakJSON struct {
	Requests int       `json:"requests"` // in the busiest minute
	At       time.Time `json:"at,omitzero"`
	Limit    int       `json:"limit"` // of one minute
}

type worstJSON struct {
	Token   string  `json:"token"`
	What    string  `json:"what"`
	Seconds float64 `json:"shortest_that_breaks"` // 0: none that was tried
	simulate.Span
}

func (a *app) simulate(ctx context.Context, o simulateOptions) error {
	out := simulated{Format: 1, Outages: []outageJSON{}, Down: []simulate.Span{}}
	forecasts, c, err := a.forecasts(ctx, o, &out)
	if err != nil {
		return err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a year is much garbage and little memory
	out.Tokens = make([]*simulate.Course, len(forecasts))
	breaks := make([][]simulate.Break, len(forecasts))
	err = a.eachOf(len(forecasts), "tokens simulated", func(i int) (err error) {
		if out.Tokens[i], err = forecasts[i].Run(ctx); err == nil && o.worst {
			breaks[i], err = forecasts[i].Worst(ctx, out.Tokens[i], 8)
		}
		return err
	})
	if err != nil {
		return err
	}
	out.Alive = simulate.AliveAtOnce(out.Tokens)
	out.Peak.Limit = c.API.RequestsPerMinute
	out.Peak.Requests, out.Peak.At = simulate.Peak(out.Tokens)
	for i, course := range out.Tokens {
		out.Gaps += len(course.Gaps)
		for _, b := range breaks[i] {
			w := worstJSON{Token: course.Token, What: placeName(&forecasts[i].Entry, b.Place), Seconds: b.Length().Seconds(), Span: b.Span}
			out.Worst = append(out.Worst, w)
		}
	}
	if o.svg != "" {
		out.schedules(forecasts, c)
		if err := os.WriteFile(o.svg, []byte(a.draw(&out)), 0o644); err != nil { //nolint:gosec // a picture without secrets
			return fmt.Errorf("draw: %w", err)
		}
	}
	if o.json {
		err = printJSON(a.stdout, out)
	} else {
		a.printSimulated(&out, o.all)
	}
	if err == nil && (out.Gaps > 0 || slices.ContainsFunc(out.Tokens, func(c *simulate.Course) bool { return c.Problem != "" })) {
		err = &codeError{code: exitFailed}
	}
	return err
}

// schedules notes what a picture shows of the schedules.
func (s *simulated) schedules(forecasts []simulate.Forecast, c *config.Config) {
	zones := map[string]string{}
	for _, t := range c.All() {
		zones[t.Name] = t.Timezone
	}
	s.zone, s.ticks = time.Local, map[string][]time.Time{} //nolint:gosmopolitan // for a person on this machine
	shared := zones[forecasts[0].Entry.Name]
	for i := range forecasts {
		e := &forecasts[i].Entry
		if zones[e.Name] != shared {
			shared = ""
		}
		const most = 200 // more would only be a line
		var ticks []time.Time
		for t := e.Timing.Schedule.Next(s.From); !t.IsZero() && t.Before(s.Until) && len(ticks) <= most; t = e.Timing.Schedule.Next(t) {
			ticks = append(ticks, t)
		}
		if len(ticks) <= most {
			s.ticks[e.Name] = ticks
		}
	}
	if zone, err := time.LoadLocation(shared); err == nil && shared != "" {
		s.zone = zone
	}
}

// forecasts reads the configuration, the state and the flags.
func (a *app) forecasts(ctx context.Context, o simulateOptions, out *simulated) ([]simulate.Forecast, *config.Config, error) {
	c, err := a.loadStrict()
	if err != nil {
		return nil, nil, err
	}
	now := a.now()
	out.From = now.UTC().Truncate(time.Second)
	if o.from != "" {
		if out.From, err = parseInstant(o.from, now); err != nil {
			return nil, nil, usage("--from: %w", err)
		}
	}
	if out.Until, err = parseInstant(o.until, out.From); err != nil {
		return nil, nil, usage("--until: %w", err)
	}
	if length := out.Until.Sub(out.From); length <= 0 || length > 10*365*24*time.Hour {
		return nil, nil, usage("from %s until %s is %s: use more than nothing, and at most ten years", local(out.From), local(out.Until), field.FormatDuration(length))
	}
	patterns := o.patterns
	if len(patterns) == 0 {
		patterns = []string{"*"}
	}
	names, err := a.declared(ctx, patterns)
	if err != nil {
		return nil, nil, err
	}
	entries, err := c.Entries(func(sinks.Spec) (rotator.Sink, error) { return nil, nil }, management.New(management.Config{}).Outlet())
	if err != nil {
		return nil, nil, usage("%w", err)
	}
	records := map[string]*rotator.Record{}
	if o.from == "" && !o.fresh {
		l, err := a.look(ctx, asWritten, nil)
		if err != nil {
			return nil, nil, err
		}
		for i := range l.records {
			records[l.records[i].Name] = &l.records[i]
		}
		out.Resumed = !l.fresh
	}
	for _, d := range o.down {
		span, err := out.span(d)
		if err != nil {
			return nil, nil, usage("--down %s: %w", d, err)
		}
		out.Down = append(out.Down, span)
	}
	home, err := a.home()
	if err != nil {
		return nil, nil, err
	}
	blind := blindPlaces(c)
	forecasts := make([]simulate.Forecast, 0, len(names))
	for _, e := range entries {
		if !slices.Contains(names, e.Name) {
			continue
		}
		f := simulate.Forecast{Entry: e, Record: records[e.Name], From: out.From, Until: out.Until, Down: out.Down}
		for i := range e.Outlets {
			outlet := &e.Outlets[i]
			outlet.Name = fromHome(outlet.Name, home)
			if blind[outlet.Place] {
				f.Blind = append(f.Blind, outlet.Place)
			}
		}
		forecasts = append(forecasts, f)
	}
	for _, text := range o.outages {
		if err := addOutage(text, forecasts, out); err != nil {
			return nil, nil, usage("--outage %s: %w", text, err)
		}
	}
	return forecasts, c, nil
}

// blindPlaces are those of sinks that cannot be read back.
func blindPlaces(c *config.Config) map[string]bool {
	blind := map[string]bool{}
	for i := range c.Tokens {
		for _, s := range c.Tokens[i].Sinks {
			blind[s.Place] = s.Spec.Exec != nil && len(s.Spec.Exec.Read) == 0
		}
	}
	return blind
}

// addOutage gives an outage to every forecast that it meets.
func addOutage(text string, forecasts []simulate.Forecast, out *simulated) error {
	at := strings.LastIndex(text, "@")
	colon := strings.LastIndex(text[:max(at, 0)], ":")
	if colon < 1 {
		return errors.New("write it as WHAT:LENGTH@BEGIN, like api:48h@2027-03-01")
	}
	what := text[:colon]
	span, err := out.span(text[colon+1:])
	if err != nil {
		return err
	}
	if what == "vault" {
		what = "vault_kv"
	}
	met := what == simulate.APIPlace
	known := []string{simulate.APIPlace}
	for i := range forecasts {
		f := &forecasts[i]
		if what == simulate.APIPlace {
			f.Outages = append(f.Outages, simulate.Outage{Place: what, Span: span})
		}
		for _, o := range f.Entry.Outlets {
			known = append(known, o.Kind, o.Name)
			if o.Kind == what || o.Name == what {
				f.Outages = append(f.Outages, simulate.Outage{Place: o.Place, Span: span})
				met = true
			}
		}
	}
	if !met {
		slices.Sort(known)
		return fmt.Errorf("nothing is called %q here; there is %s", what, strings.Join(slices.Compact(known), ", "))
	}
	out.Outages = append(out.Outages, outageJSON{what, span})
	return nil
}

// span reads LENGTH@BEGIN, of what at least begins or ends in the time that is played: the year may be
// a slip, and nothing would come of it.
func (s *simulated) span(text string) (simulate.Span, error) {
	span, err := parseSpan(text)
	if err == nil && (!span.From.Before(s.Until) || !span.Until.After(s.From)) {
		err = fmt.Errorf("it lasts from %s to %s, which is not within what is played, %s to %s (--from, --until)", day(span.From), day(span.Until), day(s.From), day(s.Until))
	}
	return span, err
}

// parseSpan reads LENGTH@BEGIN.
func parseSpan(text string) (simulate.Span, error) {
	length, begin, ok := strings.Cut(text, "@")
	if !ok {
		return simulate.Span{}, errors.New("write it as LENGTH@BEGIN, like 48h@2027-03-01")
	}
	d, err := field.ParseDuration(length)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%s is no length", length)
	}
	if err != nil {
		return simulate.Span{}, err
	}
	from, err := parseInstant(begin, time.Time{})
	if err != nil {
		return simulate.Span{}, err
	}
	return simulate.Span{From: from, Until: from.Add(d)}, nil
}

// placeName is what people call a place.
func placeName(e *rotator.Entry, place string) string {
	for _, o := range e.Outlets {
		if o.Place == place {
			return o.Name
		}
	}
	return "SiteGPT"
}

// shown is how many generations of a token are printed unless all are wanted.
const shown = 6

func (a *app) printSimulated(s *simulated, all bool) {
	out := a.stdout
	begin := "from nothing"
	if s.Resumed {
		begin = "from the present state"
	}
	fmt.Fprintf(out, "%s to %s, %s.\n", day(s.From), day(s.Until), begin)
	for _, o := range s.Outages {
		fmt.Fprintf(out, "%s is away for %s from %s on.\n", strings.Replace(o.What, simulate.APIPlace, "SiteGPT", 1), field.FormatDuration(o.Until.Sub(o.From)), day(o.From))
	}
	for _, d := range s.Down {
		fmt.Fprintf(out, "The daemon does not run for %s from %s on.\n", field.FormatDuration(d.Until.Sub(d.From)), day(d.From))
	}
	fmt.Fprintln(out)
	for _, c := range s.Tokens {
		for _, g := range c.Gaps {
			end := "until " + day(g.Until) + " (" + field.FormatDuration(g.Until.Sub(g.From).Round(time.Second)) + ")"
			if !g.Until.Before(s.Until) {
				end = "and it lasts"
			}
			fmt.Fprintf(out, "  ✗ %s: %s holds a dead token from %s %s\n", c.Token, g.Sink, day(g.From), end)
		}
		if c.Problem != "" {
			fmt.Fprintf(out, "  ✗ %s: %s\n", c.Token, c.Problem)
		}
	}
	if s.Gaps > 0 {
		fmt.Fprintln(out)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOKEN\tCREATES\tALIVE AT ONCE\tTIGHTEST MOMENT\tGAPS")
	for _, c := range s.Tokens {
		tight := "-"
		if !c.At.IsZero() {
			tight = fmt.Sprintf("%s left, %s", field.FormatDuration(c.Tightest.Round(time.Second)), day(c.At))
		}
		if c.Tightest < 0 {
			tight = "none left, " + day(c.At)
		}
		gaps := "none"
		if n := len(c.Gaps); n > 0 {
			gaps = fmt.Sprint(n)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", c.Token, c.Creates, c.Live, tight, gaps)
	}
	w.Flush() //nolint:errcheck // there is nowhere else to complain
	for _, c := range s.Tokens {
		printLives(out, c, all)
	}
	if len(s.Worst) > 0 {
		printWorst(out, s.Worst)
	}
	fmt.Fprintf(out, "\nAt most %s alive at once. ", count(s.Alive, "token"))
	if s.Peak.Requests > 0 {
		holds := "more than a minute's"
		if s.Peak.Requests <= s.Peak.Limit {
			holds = "of"
		}
		fmt.Fprintf(out, "The busiest minute, %s, has %s to SiteGPT, %s %d.\n", day(s.Peak.At), count(s.Peak.Requests, "request"), holds, s.Peak.Limit)
	}
	if s.Gaps == 0 && !slices.ContainsFunc(s.Tokens, func(c *simulate.Course) bool { return c.Problem != "" }) {
		fmt.Fprintln(out, "At no instant would a required sink hold a dead token.")
	}
}

func printLives(out io.Writer, c *simulate.Course, all bool) {
	fmt.Fprintf(out, "\n%s\n", c.Token)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  GEN\tCREATED\tIN EVERY SINK\tDIES\tOF\tWHY")
	for i := range c.Lives {
		if !all && i == shown && len(c.Lives) > shown+1 {
			fmt.Fprintf(w, "  … and %d more (--all)\n", len(c.Lives)-shown)
			break
		}
		l := &c.Lives[i]
		converged, of := "never", "expiry"
		if !l.Converged.IsZero() {
			converged = "at once"
			if d := l.Converged.Sub(l.Created); d >= time.Minute {
				converged = "after " + field.FormatDuration(d.Round(time.Second))
			}
		}
		if l.Ends().Before(l.Expires) {
			of = "revocation"
		}
		fmt.Fprintf(w, "  %d\t%s\t%s\t%s\t%s\t%s\n", l.Generation, day(l.Created), converged, day(l.Ends()), of, l.Cause)
	}
	w.Flush() //nolint:errcheck // there is nowhere else to complain
}

func printWorst(out io.Writer, worst []worstJSON) {
	fmt.Fprintln(out, "\nThe shortest outages that break a token:")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  TOKEN\tOF\tLASTS\tFROM")
	for _, b := range worst {
		lasts, from := "none found", ""
		if b.Seconds > 0 {
			lasts, from = field.FormatDuration(time.Duration(b.Seconds)*time.Second), day(b.From)
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", b.Token, b.What, lasts, from)
	}
	w.Flush() //nolint:errcheck // there is nowhere else to complain
}

// day writes an instant that may lie years ahead.
func day(t time.Time) string { return t.Local().Format("Mon 2 Jan 2006 15:04") }
