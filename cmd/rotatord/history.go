package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/store"
)

// historyFormats are what history prints.
var historyFormats = [...]string{"table", "json", "jsonl", "csv", "report"}

func (a *app) historyCommand() *cobra.Command {
	var since, until string
	var kinds []string
	var limit int
	var asJSON bool
	format := "table"
	c := &cobra.Command{
		Use:   "history [NAME…]",
		Short: "Show what happened, oldest first, and the report that an auditor asks for",
		Long: `Show what happened to the named tokens, or to all and to the installation: creates, pushes,
promotions, revocations, holds, what people asked for, configurations, starts. A NAME may
be a glob, or the one from before a rename. Plaintexts are nowhere in it.

--format report prints Markdown: for each token how long each generation lived, and
whether its successor was in place before it ended; gaps, what people did and changes of
the configuration come first. It is worked out from the journal alone.

--format csv has a header, and one line an event; a cell that a spreadsheet would take for
a formula begins with an apostrophe. Its columns stay in their order, and new ones come
last: ` + strings.Join(csvColumns[:], ", ") + `.
jsonl has an object a line, with the same names.`,
		Example: `  rotatord history support-bot --since 7d
  rotatord history --kind revoked,held --since 2026-11-01 --until 2026-12-01
  rotatord history --format report --since 90d > audit.md
  rotatord history --format jsonl --since 24h | ship-to-siem`,
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 0 {
				return usage("--limit %d: use a number of events, or 0 for all", limit)
			}
			if asJSON && c.Flags().Changed("format") && format != "json" {
				return usage("say either --json or --format %s", format)
			}
			if asJSON {
				format = "json"
			}
			if !slices.Contains(historyFormats[:], format) {
				return usage("--format %q: use %s", format, alternatives(historyFormats[:]))
			}
			if format == "report" && (limit > 0 || len(kinds) > 0) {
				return usage("a report tells of all that happened: leave out --limit and --kind, and narrow it by NAME, --since and --until")
			}
			q := store.Query{Entries: args, Limit: limit, Newest: limit > 0}
			var err error
			if q.Since, err = a.past("--since", since); err != nil {
				return err
			}
			if q.Until, err = a.past("--until", until); err != nil {
				return err
			}
			if !q.Until.IsZero() && !q.Since.Before(q.Until) {
				return usage("--since %s is not before --until %s", q.Since.Format(time.RFC3339), q.Until.Format(time.RFC3339))
			}
			if q.Kinds, err = eventKinds(kinds); err != nil {
				return err
			}
			if format == "report" {
				return a.report(c.Context(), q)
			}
			return a.history(c.Context(), q, format)
		},
	}
	f := c.Flags()
	f.StringVar(&since, "since", "", "only from this on: an instant (2026-12-24T18:00:00Z, 2026-12-24 18:00, 2026-12-24), or so long ago (36h, 7d)")
	f.StringVar(&until, "until", "", "only what is before this, said like --since")
	f.IntVar(&limit, "limit", 0, "only the last so many events")
	f.StringSliceVar(&kinds, "kind", nil, "only these kinds of event: created, revoked, asked, configured, …")
	f.StringVar(&format, "format", format, "table, json, jsonl, csv or report")
	f.BoolVar(&asJSON, "json", false, "print JSON (the same as --format json)")
	a.sandboxFlag(c, lookSandbox)
	return c
}

func alternatives(of []string) string {
	return strings.Join(of[:len(of)-1], ", ") + " or " + of[len(of)-1]
}

// past reads an instant, or how long ago it was; zero where nothing is said.
func (a *app) past(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := field.ParseDuration(text); err == nil {
		if d <= 0 {
			return time.Time{}, usage("%s %s: how long ago? say 36h or 7d", flag, text)
		}
		return a.now().Add(-d), nil
	}
	at, err := parseInstant(text, time.Time{})
	if err != nil {
		return at, usage("%s %w, nor how long ago it was (36h, 7d)", flag, err)
	}
	return at, nil
}

// eventKinds reads the names of kinds.
func eventKinds(names []string) (kinds []rotator.EventKind, err error) {
	for _, name := range names {
		kind := rotator.EventKind(name)
		if slices.Contains(rotator.EventKinds(), kind) {
			kinds = append(kinds, kind)
			continue
		}
		var known []string
		for _, k := range rotator.EventKinds() {
			known = append(known, string(k))
		}
		if near := field.Nearest(name, known); near != "" {
			return nil, usage("--kind: there is no %q (did you mean %q?)", name, near)
		}
		return nil, usage("--kind: there is no %q; there is %s", name, alternatives(known))
	}
	return kinds, nil
}

func (a *app) history(ctx context.Context, q store.Query, format string) error {
	st, err := a.state(ctx)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // only read
	if err := a.known(ctx, st, q.Entries); err != nil {
		return err
	}
	events := []rotator.Event{}
	take := func(ev rotator.Event) error { events = append(events, ev); return nil }
	w := bufio.NewWriter(a.stdout)
	defer w.Flush() //nolint:errcheck // flushed below where all went well
	if !q.Newest {  // one after the other: the journal may be longer than the memory
		switch format {
		case "jsonl":
			take = jsonLines(w)
		case "csv":
			if take, err = csvLines(w); err != nil {
				return err
			}
		}
	}
	if err := st.Each(ctx, q, take); err != nil {
		return err
	}
	if q.Newest { // the last ones, and still the oldest of them first
		slices.Reverse(events)
	}
	switch format {
	case "json":
		err = printJSON(w, struct {
			Format int             `json:"format"`
			Events []rotator.Event `json:"events"`
		}{1, events})
	case "jsonl":
		err = every(events, jsonLines(w))
	case "csv":
		if q.Newest {
			if take, err = csvLines(w); err == nil {
				err = every(events, take)
			}
		}
	default:
		err = historyTable(w, events)
	}
	if err != nil {
		return err
	}
	return w.Flush()
}

func jsonLines(w io.Writer) func(rotator.Event) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(ev rotator.Event) error { return enc.Encode(ev) }
}

func every(events []rotator.Event, f func(rotator.Event) error) error {
	for _, ev := range events {
		if err := f(ev); err != nil {
			return err
		}
	}
	return nil
}

// csvColumns are a promise: others come behind them.
var csvColumns = [...]string{
	"at", "event", "entry", "generation", "id", "label", "expires", "place", "sink", "detail", "error", "next", "by", "hash", "version",
}

// csvLines writes the header, and returns what writes a line.
func csvLines(w io.Writer) (func(rotator.Event) error, error) {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	instant := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	write := func(cells []string) error {
		for i, c := range cells {
			if c != "" && strings.ContainsRune("=+-@\t\r", rune(c[0])) {
				cells[i] = "'" + c // else a spreadsheet would calculate it
			}
		}
		if err := out.Write(cells); err != nil {
			return err
		}
		out.Flush()
		return out.Error()
	}
	return func(ev rotator.Event) error {
		generation := ""
		if ev.Generation != 0 {
			generation = strconv.Itoa(ev.Generation)
		}
		return write([]string{
			instant(ev.At), string(ev.Kind), ev.Entry, generation, ev.ID, ev.Label, instant(ev.Expires), ev.Place, ev.Sink,
			ev.Detail, ev.Error, instant(ev.Next), ev.By, ev.Hash, ev.Version,
		})
	}, write(slices.Clone(csvColumns[:]))
}

func historyTable(out io.Writer, events []rotator.Event) error {
	if len(events) == 0 {
		_, err := fmt.Fprintln(out, "Nothing happened.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHEN\tTOKEN\tGEN\tWHAT\tDETAIL")
	for _, ev := range events {
		gen := ""
		if ev.Generation > 0 {
			gen = fmt.Sprint(ev.Generation)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", ev.At.Local().Format(time.DateTime), cmp.Or(ev.Entry, "-"), gen, ev.Kind, eventDetail(ev))
	}
	return w.Flush()
}

// known returns an error for a pattern that names no token that this state has heard of, now or
// before a rename.
func (a *app) known(ctx context.Context, st *store.Reader, patterns []string) error {
	if len(patterns) == 0 {
		return nil
	}
	records, err := st.Records(ctx)
	if err != nil {
		return err
	}
	var names []string
	for i := range records {
		names = append(names, records[i].Name)
	}
	for _, p := range patterns {
		if _, err := expand([]string{p}, names); err != nil {
			if events, herr := st.History(ctx, store.Query{Entries: []string{p}, Limit: 1}); herr != nil || len(events) == 0 {
				return err
			}
		}
	}
	return nil
}

func eventDetail(ev rotator.Event) string {
	var parts []string
	add := func(s string) {
		if s != "" {
			parts = append(parts, s)
		}
	}
	add(ev.Sink)
	add(ev.Detail)
	if ev.Kind == rotator.EventCreated {
		add("id " + ev.ID)
		add("expires " + ev.Expires.Local().Format(time.DateTime))
	}
	add(strings.ReplaceAll(ev.Error, "\n", "; "))
	if !ev.Next.IsZero() && ev.Kind != rotator.EventCreated {
		add("next " + ev.Next.Local().Format(time.DateTime))
	}
	if ev.Hash != "" {
		add("hash " + short(ev.Hash))
	}
	add(ev.Version)
	if ev.By != "" {
		add("by " + ev.By)
	}
	return strings.Join(parts, "; ")
}
