package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/store"
)

func (a *app) historyCommand() *cobra.Command {
	var since durationFlag
	var limit int
	var asJSON bool
	format := "table"
	c := &cobra.Command{
		Use:   "history [NAME]",
		Short: "Show what happened, oldest first",
		Long: `Show what happened to one token, or to all: creates, pushes, promotions, revocations,
holds, and what people asked for. A NAME may be a glob. Plaintexts are nowhere in it.`,
		Args: oneAtMost("one NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case limit < 0:
				return usage("--limit %d: use a number of events, or 0 for all", limit)
			case asJSON:
				format = "json"
			}
			q := store.Query{Limit: limit, Newest: limit > 0}
			if len(args) > 0 {
				q.Entry = args[0]
			}
			if since > 0 {
				q.Since = a.now().Add(-time.Duration(since))
			}
			return a.history(c.Context(), q, format)
		},
	}
	f := c.Flags()
	f.Var(&since, "since", "only what is younger than this: 36h, 7d")
	f.IntVar(&limit, "limit", 0, "only the last so many events")
	f.StringVar(&format, "format", format, "table, json or jsonl")
	f.BoolVar(&asJSON, "json", false, "print JSON (the same as --format json)")
	a.sandboxFlag(c, lookSandbox)
	return c
}

func (a *app) history(ctx context.Context, q store.Query, format string) error {
	if format != "table" && format != "json" && format != "jsonl" {
		return usage("format %q: use table, json or jsonl", format)
	}
	st, err := a.state(ctx)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // only read
	events, err := st.History(ctx, q)
	if err != nil {
		return err
	}
	if q.Newest { // the last ones, and still the oldest of them first
		for i, j := 0, len(events)-1; i < j; i, j = i+1, j-1 {
			events[i], events[j] = events[j], events[i]
		}
	}
	if len(events) == 0 && q.Entry != "" {
		if err := a.anyRecord(ctx, st, q.Entry); err != nil {
			return err
		}
	}
	if format == "json" {
		if events == nil {
			events = []rotator.Event{}
		}
		return printJSON(a.stdout, struct {
			Format int             `json:"format"`
			Events []rotator.Event `json:"events"`
		}{1, events})
	}
	if format == "jsonl" {
		enc := json.NewEncoder(a.stdout)
		enc.SetEscapeHTML(false)
		for _, ev := range events {
			if err := enc.Encode(ev); err != nil {
				return err
			}
		}
		return nil
	}
	if len(events) == 0 {
		fmt.Fprintln(a.stdout, "Nothing happened.")
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHEN\tTOKEN\tGEN\tWHAT\tDETAIL")
	for _, ev := range events {
		gen := ""
		if ev.Generation > 0 {
			gen = fmt.Sprint(ev.Generation)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", ev.At.Local().Format(time.DateTime), ev.Entry, gen, ev.Kind, eventDetail(ev))
	}
	return w.Flush()
}

// anyRecord returns an error if pattern names no token that this state knows: nothing happened to
// it because nobody has heard of it.
func (a *app) anyRecord(ctx context.Context, st *store.Reader, pattern string) error {
	records, err := st.Records(ctx)
	if err != nil {
		return err
	}
	var known []string
	for i := range records {
		known = append(known, records[i].Name)
	}
	_, err = expand([]string{pattern}, known)
	return err
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
	if ev.By != "" {
		add("by " + ev.By)
	}
	return strings.Join(parts, "; ")
}
