package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/store"
)

// orphansJSON is the output of orphans --json.
type orphansJSON struct {
	Format      int          `json:"format"`      // 1
	Orphans     []orphanJSON `json:"orphans"`     // of our intents: the daemon revokes them
	Unexplained []orphanJSON `json:"unexplained"` // our mark, and this state knows nothing of them
	Others      []orphanJSON `json:"other_instances"`
	Foreign     []orphanJSON `json:"foreign"` // without a mark of rotatord
	Revoked     []string     `json:"revoked,omitempty"`
}

type orphanJSON struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Created  time.Time `json:"created,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	LastUsed time.Time `json:"last_used,omitzero"`
}

func (a *app) orphansCommand() *cobra.Command {
	var asJSON, revoke bool
	c := &cobra.Command{
		Use:   "orphans [--revoke ID…]",
		Short: "List live tokens at SiteGPT that this state does not look after",
		Long: `Ask SiteGPT for its live tokens, and list those that this state does not look after:
orphans of its own creates (the daemon revokes them at its next look at the list), tokens
that carry this instance's mark and that it never made, those of other instances, and
everything foreign. It changes nothing, unless ids are given with --revoke.`,
		Example: `  rotatord orphans
  rotatord orphans --revoke tok_123 tok_456`,
		RunE: func(c *cobra.Command, args []string) error {
			if revoke != (len(args) > 0) {
				return usage("--revoke takes the ids to revoke, as orphans lists them; without it there are no arguments")
			}
			return a.orphans(c.Context(), args, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&revoke, "revoke", false, "revoke these ids, whoever uses them")
	return c
}

func (a *app) orphans(ctx context.Context, revoke []string, asJSON bool) error {
	l, err := a.look(ctx, inForce, nil)
	if err != nil {
		return err
	}
	if l.instance == "" {
		return usage("there is no state in %s: nothing can be told from it (rotatord run, or once, makes it)", l.dir)
	}
	client, api, err := a.asker(ctx, l)
	if err != nil {
		return err
	}
	defer client.Close()
	listed, err := api.List(ctx)
	if err != nil {
		return fmt.Errorf("list the tokens at %s: %w", client.Origin(), err)
	}
	out, recorded, err := a.sortOut(ctx, l, listed)
	if err != nil {
		return err
	}
	for _, id := range revoke {
		if err := out.revocable(id, recorded); err != nil {
			return err
		}
	}
	failed := a.revokeOrphans(ctx, l.dir, api, revoke, listed, &out)
	if asJSON {
		return errors.Join(printJSON(a.stdout, out), failed)
	}
	if len(revoke) == 0 {
		a.printOrphans(out)
	}
	for _, id := range out.Revoked {
		fmt.Fprintf(a.stdout, "%s is revoked\n", id)
	}
	return failed
}

// sortOut tells apart what the list shows and no record looks after. recorded maps the ids of the
// others to their entries.
func (a *app) sortOut(ctx context.Context, l *look, listed []rotator.Listed) (out orphansJSON, recorded map[string]string, err error) {
	out = orphansJSON{Format: 1, Orphans: []orphanJSON{}, Unexplained: []orphanJSON{}, Others: []orphanJSON{}, Foreign: []orphanJSON{}}
	recorded = map[string]string{}
	for i := range l.records {
		for j := range l.records[i].Generations {
			if g := &l.records[i].Generations[j]; g.ID != "" {
				recorded[g.ID] = l.records[i].Name
			}
		}
	}
	st, err := store.OpenReader(ctx, l.dir)
	if err != nil {
		return out, nil, err
	}
	defer st.Close() //nolint:errcheck // only read
	now := a.now()
	for _, t := range listed {
		if recorded[t.ID] != "" || !t.Revoked.IsZero() || !t.Expires.IsZero() && !t.Expires.After(now) {
			continue
		}
		one := orphanJSON{ID: t.ID, Name: t.Name, Created: t.Created, Expires: t.Expires, LastUsed: t.LastUsed}
		label, marked := rotator.ParseLabel(t.Name)
		if one.Expires.IsZero() && marked {
			one.Expires = label.Expires
		}
		switch {
		case !marked:
			out.Foreign = append(out.Foreign, one)
		case label.Instance != l.instance:
			out.Others = append(out.Others, one)
		default:
			if _, ours, err := st.Intended(ctx, t.Name); err != nil {
				return out, nil, err
			} else if ours {
				out.Orphans = append(out.Orphans, one)
			} else {
				out.Unexplained = append(out.Unexplained, one)
			}
		}
	}
	return out, recorded, nil
}

// revocable refuses an id that orphans does not list, or that a record looks after.
func (o *orphansJSON) revocable(id string, recorded map[string]string) error {
	if entry := recorded[id]; entry != "" {
		return usage("%s is a recorded generation of %s: see rotatord status %s, then rotatord revoke %s --generation N", id, entry, entry, entry)
	}
	for _, group := range [][]orphanJSON{o.Orphans, o.Unexplained, o.Others, o.Foreign} {
		if slices.ContainsFunc(group, func(t orphanJSON) bool { return t.ID == id }) {
			return nil
		}
	}
	return usage("SiteGPT lists no live token %q (see: rotatord orphans)", id)
}

// revokeOrphans revokes what a person named, and has the journal say so.
func (a *app) revokeOrphans(ctx context.Context, dir string, api rotator.API, ids []string, listed []rotator.Listed, out *orphansJSON) error {
	if len(ids) == 0 {
		return nil
	}
	st, err := store.Open(ctx, dir, store.Options{})
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // everything is durable by then
	by := a.whoami()
	for _, id := range ids {
		name := listed[slices.IndexFunc(listed, func(t rotator.Listed) bool { return t.ID == id })].Name
		label, _ := rotator.ParseLabel(name)
		ev := rotator.Event{At: a.now(), Kind: rotator.EventAsked, Entry: label.Entry, Label: name, ID: id, By: by, Detail: "revoke it, as an orphan"}
		if err := st.Tell(ctx, ev); err != nil { // what would leave no trace is not done
			return fmt.Errorf("note in the journal that %s is to be revoked: %w", id, err)
		}
		err := api.Revoke(ctx, id)
		ev.At, ev.Kind, ev.Detail = a.now(), rotator.EventRevoked, "by hand, as an orphan"
		if err != nil {
			ev.Kind, ev.Error = rotator.EventFailed, err.Error()
		}
		if terr := st.Tell(ctx, ev); terr != nil {
			err = errors.Join(err, fmt.Errorf("note it in the journal: %w", terr))
		}
		if err != nil {
			return fmt.Errorf("revoke %s: %w", id, err)
		}
		out.Revoked = append(out.Revoked, id)
	}
	return nil
}

func (a *app) printOrphans(o orphansJSON) {
	now, any := a.now(), false
	for _, group := range []struct {
		title, hint string
		tokens      []orphanJSON
	}{
		{"Orphans: made by creates of this state whose answer was lost. The daemon revokes them.", "", o.Orphans},
		{"Unexplained: they carry this instance's mark, and this state never made them (is it new, old, or a copy?).", "→ rotatord adopt NAME takes them over; rotatord orphans --revoke ID… kills them", o.Unexplained},
		{"Of other instances of rotatord: theirs to look after.", "", o.Others},
		{"Foreign: never touched by rotatord.", "", o.Foreign},
	} {
		if len(group.tokens) == 0 {
			continue
		}
		if any {
			fmt.Fprintln(a.stdout)
		}
		any = true
		fmt.Fprintln(a.stdout, group.title)
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		for _, t := range group.tokens {
			used := "-"
			if !t.LastUsed.IsZero() {
				used = "used " + ago(t.LastUsed, now)
			}
			fmt.Fprintf(w, "  %s\t%s\texpires %s\t%s\n", plain(t.ID), plain(t.Name), when(t.Expires, now), used)
		}
		w.Flush() //nolint:errcheck // there is nowhere else to complain
		if group.hint != "" {
			fmt.Fprintf(a.stdout, "  %s\n", group.hint)
		}
	}
	if !any {
		fmt.Fprintln(a.stdout, "Every live token at SiteGPT is one that this state looks after.")
	}
}
