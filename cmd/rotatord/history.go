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
	format := "table"
	c := &cobra.Command{
		Use:   "history [NAME]",
		Short: "Show what happened, oldest first",
		Long: `Show what happened to one token, or to all: creates, pushes, promotions, revocations,
holds, and what people asked for. A NAME may be a glob. Plaintexts are nowhere in it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
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
	f.StringVar(&format, "format", format, "table or jsonl")
	return c
}

func (a *app) history(ctx context.Context, q store.Query, format string) error {
	if format != "table" && format != "jsonl" {
		return usage("format %q: use table or jsonl", format)
	}
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	st, err := store.OpenReader(ctx, dir)
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
	add(ev.Error)
	if !ev.Next.IsZero() && ev.Kind != rotator.EventCreated {
		add("next " + ev.Next.Local().Format(time.DateTime))
	}
	if ev.By != "" {
		add("by " + ev.By)
	}
	return strings.Join(parts, "; ")
}
