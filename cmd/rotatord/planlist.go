package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// plannedList is what SiteGPT's list adds to a plan.
type plannedList struct {
	Error       string       `json:"error,omitempty"` // why it was not looked at
	Orphans     []orphanJSON `json:"orphans"`         // of creates of this state: the next look at the list revokes them
	Unexplained []orphanJSON `json:"unexplained"`     // our mark, and this state knows nothing of them: nothing is done
	Missing     []missing    `json:"missing"`         // the record says that they are alive
	Blank       bool         `json:"blank,omitempty"` // it shows none of the tokens that should be alive, which proves nothing of any

	used map[string]time.Time // when tokens were last used, by id
}

// missing is a recorded generation that SiteGPT does not list as alive.
type missing struct {
	Token      string `json:"token"`
	Generation int    `json:"generation"`
	ID         string `json:"id"`
	Target     bool   `json:"target"` // it is what the sinks should hold: it would be asked, and replaced
}

// listed looks at SiteGPT's list: for the named tokens, or for all where none is named. That it cannot be
// had is told, and no error: the rest of a plan stands without it.
func (a *app) listed(ctx context.Context, l *look, names []string, now time.Time) *plannedList {
	out := &plannedList{Orphans: []orphanJSON{}, Unexplained: []orphanJSON{}, Missing: []missing{}}
	client, api, err := a.asker(ctx, l)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	defer client.Close()
	all, err := api.List(ctx)
	if err != nil {
		out.Error = fmt.Sprintf("list the tokens at %s: %v", client.Origin(), err)
		return out
	}
	found, _, err := a.sortOut(ctx, l, all)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	asked := func(name string) bool {
		return len(names) == 0 || slices.Contains(names, name) || slices.ContainsFunc(names, func(n string) bool { return l.renamed[n] == name })
	}
	of := func(tokens []orphanJSON) []orphanJSON {
		return slices.DeleteFunc(tokens, func(t orphanJSON) bool {
			label, _ := rotator.ParseLabel(t.Name)
			return !asked(label.Entry)
		})
	}
	out.Orphans, out.Unexplained = of(found.Orphans), of(found.Unexplained)
	alive := map[string]bool{}
	out.used = map[string]time.Time{}
	for _, t := range all {
		out.used[t.ID] = t.LastUsed
		alive[t.ID] = t.Revoked.IsZero() && (t.Expires.IsZero() || t.Expires.After(now))
	}
	out.Blank = true
	for i := range l.records {
		r := &l.records[i]
		for j := range r.Generations {
			switch g := &r.Generations[j]; {
			case !g.Live(now):
			case alive[g.ID]:
				out.Blank = false
			case asked(r.Name):
				out.Missing = append(out.Missing, missing{r.Name, g.Number, g.ID, g == r.Target(now)})
			}
		}
	}
	out.Blank = out.Blank && len(out.Missing) > 0
	return out
}

// steps is how many things would come of it.
func (p *plannedList) steps() int {
	n := len(p.Orphans)
	for _, m := range p.Missing {
		if m.Target && !p.Blank {
			n++
		}
	}
	return n
}

func (p *plannedList) print(out io.Writer) {
	if p.Error != "" {
		fmt.Fprintf(out, "\nSiteGPT's list was not looked at: %s.\n", p.Error)
	}
	for _, o := range p.Orphans {
		fmt.Fprintf(out, "+ at SiteGPT: revoke %s, an orphan: %s\n", plain(o.ID), plain(o.Name))
	}
	if p.Blank {
		fmt.Fprintln(out, "! at SiteGPT: none of the tokens that this state holds for alive is listed: is it another account, or an old copy of the state? The list proves nothing then; each token is asked within hours")
	}
	for _, m := range p.Missing {
		switch {
		case p.Blank:
		case m.Target:
			fmt.Fprintf(out, "+ at SiteGPT: %s generation %d (%s) is not listed as alive: it is asked whether it works, and replaced if it does not\n", m.Token, m.Generation, m.ID)
		default:
			fmt.Fprintf(out, "  at SiteGPT: %s generation %d (%s) is not listed as alive; it is on its way out\n", m.Token, m.Generation, m.ID)
		}
	}
	for _, o := range p.Unexplained {
		fmt.Fprintf(out, "! at SiteGPT: %s bears this instance's mark, and this state never made it: %s (see rotatord orphans)\n", plain(o.ID), plain(o.Name))
	}
}
