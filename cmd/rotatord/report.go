package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/audit"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/store"
)

// report prints what an auditor asks for, in Markdown.
func (a *app) report(ctx context.Context, q store.Query) error {
	st, err := a.state(ctx)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // only read
	if err := a.known(ctx, st, q.Entries); err != nil {
		return err
	}
	now := a.now()
	until := q.Until
	if until.IsZero() {
		until = now
	}
	r := audit.NewReader(q.Since, until)
	if err := st.Each(ctx, store.Query{Entries: q.Entries, Plus: true, Renamed: true}, func(ev rotator.Event) error {
		r.Add(ev)
		return nil
	}); err != nil {
		return err
	}
	instance, err := st.Instance(ctx, "")
	if err != nil {
		return err
	}
	origin, user, pinned, err := st.Pinned(ctx)
	if err != nil {
		return err
	}
	account := "none yet"
	if pinned {
		account = "at " + origin
		if user != "" {
			account = "user " + user + " " + account
		}
	}
	m := &markdown{w: bufio.NewWriter(a.stdout)}
	m.report(r.Report(), reportHead{instance, account, strings.Join(q.Entries, " "), now, a.whoami()})
	return m.w.Flush()
}

// reportHead is what the journal does not tell.
type reportHead struct {
	instance, account string
	names             string // as they were asked for; "": all
	at                time.Time
	by                string
}

func utc(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.DateTime)
}

// long writes a length of time as people read it: three minutes and a half are 3m30s, and of four
// days the seconds are of no interest.
func long(d time.Duration) string {
	switch {
	case d.Abs() >= 24*time.Hour:
		d = d.Round(time.Minute)
	case d.Abs() >= time.Minute:
		d = d.Round(time.Second)
	default:
		d = d.Round(time.Millisecond)
	}
	if d < 0 {
		return "-" + field.FormatDuration(-d)
	}
	return field.FormatDuration(d)
}

// most is how many lines a list of events has; the rest is counted.
const most = 200

func (m *markdown) report(r *audit.Report, h reportHead) {
	var gaps []audit.Gap
	broken, attention := 0, 0
	for i := range r.Tokens {
		t := &r.Tokens[i]
		gaps = append(gaps, t.Gaps...)
		switch t.Verdict {
		case audit.Broken:
			broken++
		case audit.Attention:
			attention++
		}
	}
	m.line("# Audit report of rotatord %s\n", escape(h.instance))
	m.line("All times are UTC. It is worked out from the journal of the state, and from nothing else.\n")
	m.head("", "")
	from := utc(r.Since)
	if r.Since.IsZero() {
		from = "the beginning of the journal"
	}
	m.row("Period", from+" to "+utc(r.Until))
	m.row("Tokens", fmt.Sprintf("%d (%s)", len(r.Tokens), cmp.Or(h.names, "all")))
	m.row("Account", h.account)
	m.row("Version", "written by rotatord "+buildVersion()+"; at work was "+cmp.Or(r.Version, "an unknown one"))
	inForce := "none is known"
	if c := r.InForce; c.Hash != "" {
		inForce = fmt.Sprintf("%s since %s", c.Hash, utc(c.At))
	}
	m.row("Configuration at the end", inForce)
	m.row("Journal", m.completeness(r))
	m.row("Written", utc(h.at)+" by "+h.by)

	m.line("\n## Verdict\n")
	kept := len(r.Tokens) - broken - attention
	switch {
	case len(r.Tokens) == 0:
		m.line("**Nothing is known of any token in this period.**")
	case broken > 0:
		were := "were"
		if len(gaps) == 1 {
			were = "was"
		}
		others := ""
		if n := kept + attention; n > 0 {
			others = fmt.Sprintf(" The other %d had none; %s a look.", n, need(attention))
		}
		m.line("**There %s %s, in %d of %s.**%s", were, count(len(gaps), "gap"), broken, count(len(r.Tokens), "token"), others)
	case attention > 0:
		m.line("**There was no gap: whenever a token ended, its successor was in place.** %s a look, of %d.", need(attention), len(r.Tokens))
	default:
		m.line("**The promise was kept for every token (%d): whenever one ended, its successor was in place.**", kept)
	}

	m.line("\n## Gaps\n")
	m.gaps(gaps, r.Until)
	m.line("\n## What people did\n")
	m.manual(r.Manual)
	m.line("\n## Configuration\n")
	m.events(r.Configuration, "No change in this period.", "configured,declined")
	m.line("\n## Service\n")
	m.events(r.Service, "Nothing is told of starts and ends in this period.", "started,stopped,account")
	for i, at := range r.Crashes {
		if i == 0 {
			m.line("")
		}
		m.line("- The daemon that was started at %s follows one that did not end in order (a crash, a kill, a power cut).", utc(at))
	}
	m.disturbances(r)
	m.line("\n## Tokens\n")
	m.summary(r)
	for i := range r.Tokens {
		m.token(&r.Tokens[i], r)
	}
}

// need counts tokens that need something.
func need(n int) string {
	if n == 1 {
		return "1 token needs"
	}
	return fmt.Sprintf("%d tokens need", n)
}

// completeness says how much the journal knows.
func (m *markdown) completeness(r *audit.Report) string {
	switch {
	case r.First.IsZero():
		return "empty"
	case r.Dropped.IsZero():
		return fmt.Sprintf("whole since %s: %s, nothing was dropped", utc(r.First), count(r.Events, "event"))
	case r.Since.Before(r.Dropped):
		return fmt.Sprintf("whole since %s: %s; history from before was dropped, but for what tokens that live on need, so this period is not told whole", utc(r.Dropped), count(r.Events, "event"))
	}
	return fmt.Sprintf("whole since %s, and so for this period: %s; history from before was dropped", utc(r.Dropped), count(r.Events, "event"))
}

func (m *markdown) gaps(gaps []audit.Gap, until time.Time) {
	if len(gaps) == 0 {
		m.line("None.")
		return
	}
	slices.SortStableFunc(gaps, func(a, b audit.Gap) int { return a.From.Compare(b.From) })
	m.head("Token", "From", "Until", "Length", "Sinks", "Why", "By")
	for i := range gaps {
		g := &gaps[i]
		end := utc(g.Until)
		if g.Until.IsZero() {
			end = "goes on"
		}
		m.row(g.Token, utc(g.From), end, long(g.Length(until)), cmp.Or(strings.Join(g.Sinks, ", "), "not known"), g.Why, g.By)
	}
}

var digits = regexp.MustCompile(`\d+`)

// manual tells what people did; what one command did to many tokens is one line.
func (m *markdown) manual(events []rotator.Event) {
	if len(events) == 0 {
		m.line("Nothing.")
		return
	}
	type act struct {
		rotator.Event
		tokens []string
	}
	var acts []*act
	same := map[string]*act{}
	for _, ev := range events {
		what := string(ev.Kind) + "\x00" + ev.By + "\x00" + ev.At.UTC().Truncate(time.Minute).String() + "\x00" + digits.ReplaceAllString(ev.Detail, "#")
		if a := same[what]; a != nil && ev.Entry != "" {
			a.tokens = append(a.tokens, ev.Entry)
			continue
		}
		a := &act{Event: ev, tokens: []string{ev.Entry}}
		acts = append(acts, a)
		same[what] = a
	}
	left := max(0, len(acts)-most)
	m.head("When", "Who", "What", "Tokens")
	for _, a := range acts[left:] {
		tokens := slices.Compact(a.tokens)
		if n := len(tokens); n > 10 {
			tokens = append(tokens[:10:10], fmt.Sprintf("and %d more", n-10))
		}
		m.row(utc(a.At), a.By, string(a.Kind)+": "+telling(a.Event), strings.Join(tokens, ", "))
	}
	m.older(left, "asked,adopted,paused,released,revoked,renamed")
}

// telling is what an event tells besides when, who and of what.
func telling(ev rotator.Event) string {
	var parts []string
	for _, p := range []string{ev.Sink, ev.Detail, ev.Error} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	if ev.ID != "" && ev.Generation == 0 {
		parts = append(parts, "id "+ev.ID)
	}
	if !ev.Next.IsZero() {
		parts = append(parts, "until "+utc(ev.Next))
	}
	return strings.Join(parts, "; ")
}

func (m *markdown) events(events []rotator.Event, none, kinds string) {
	if len(events) == 0 {
		m.line("%s", none)
		return
	}
	left := max(0, len(events)-most)
	m.head("When", "Event", "What", "Hash or version", "By")
	for _, ev := range events[left:] {
		m.row(utc(ev.At), string(ev.Kind), telling(ev), cmp.Or(short(ev.Hash), ev.Version), ev.By)
	}
	m.older(left, kinds)
}

// older counts what a list leaves out, and says how to see it.
func (m *markdown) older(n int, kinds string) {
	if n > 0 {
		m.line("\n%d older ones are left out: `rotatord history --kind %s` shows them.", n, kinds)
	}
}

func (m *markdown) disturbances(r *audit.Report) {
	any := false
	for i := range r.Tokens {
		for _, d := range r.Tokens[i].Disturbed {
			if !any {
				any = true
				m.line("\n## Sinks that somebody else changed\n")
				m.head("Token", "Sink", "What", "From", "Until")
			}
			end := utc(d.Until)
			if d.Until.IsZero() {
				end = "goes on"
			}
			m.row(r.Tokens[i].Name, d.Sink, d.What, utc(d.From), end)
		}
	}
}

// summary is one line a token, the worst first.
func (m *markdown) summary(r *audit.Report) {
	if len(r.Tokens) == 0 {
		m.line("None.")
		return
	}
	tokens := make([]*audit.Token, 0, len(r.Tokens))
	for i := range r.Tokens {
		tokens = append(tokens, &r.Tokens[i])
	}
	rank := map[audit.Verdict]int{audit.Broken: 0, audit.Attention: 1, audit.Kept: 2}
	slices.SortStableFunc(tokens, func(a, b *audit.Token) int { return cmp.Compare(rank[a.Verdict], rank[b.Verdict]) })
	m.head("Token", "Verdict", "Promoted", "Least overlap kept", "Holds now", "Until", "What to look at")
	for _, t := range tokens {
		overlap := "-"
		if t.Overlaps > 0 {
			overlap = fmt.Sprintf("%s of %d", long(t.Least), t.Overlaps)
		}
		holds, until := "-", "-"
		for i := range t.Lives {
			if l := &t.Lives[i]; !l.Promoted.IsZero() && l.End == audit.Alive {
				holds, until = fmt.Sprintf("generation %d", l.Generation), utc(l.Expires)
			}
		}
		why := t.Why
		if !t.Removed.IsZero() {
			why = append(slices.Clone(why), "no longer declared since "+utc(t.Removed))
		}
		m.row(t.Name, string(t.Verdict), fmt.Sprint(t.Rotations), overlap, holds, until, strings.Join(why, "; "))
	}
}

// token is one token's generations.
func (m *markdown) token(t *audit.Token, r *audit.Report) {
	m.line("\n### %s\n", escape(t.Name))
	facts := []string{"Verdict: " + string(t.Verdict)}
	if len(t.Was) > 0 {
		facts = append(facts, "earlier names: "+strings.Join(t.Was, ", "))
	}
	if !t.Removed.IsZero() {
		facts = append(facts, "no longer declared since "+utc(t.Removed))
	}
	if !r.Dropped.IsZero() && len(t.Lives) > 0 && t.Lives[0].Generation > 1 && t.Lives[0].Intended.Before(r.Dropped) {
		facts = append(facts, fmt.Sprintf("what was before generation %d is no longer known", t.Lives[0].Generation))
	}
	if t.Tries > 0 {
		facts = append(facts, count(t.Tries, "create")+" gave no token")
	}
	if t.Failures > 0 {
		facts = append(facts, count(t.Failures, "step")+" failed and tried again")
	}
	m.line("%s.\n", escape(strings.Join(facts, "; ")))
	if len(t.Lives) == 0 {
		m.line("No generation lived in this period.")
		return
	}
	consumers := slices.ContainsFunc(t.Lives, func(l audit.Life) bool { return len(l.Told) > 0 })
	columns := []string{"Generation", "Created", "In place", "Ended", "Lived", "Successor in place", "Overlap kept", "Why it was made", "How it ended"}
	if consumers {
		columns = append(columns, "Told")
	}
	m.head(columns...)
	for i := range t.Lives {
		l := &t.Lives[i]
		lived, ended, how := "-", utc(l.Ended), endOf(l)
		if end := l.Ended; !l.Created.IsZero() && l.End != audit.Never {
			if end.IsZero() {
				end, ended = r.Until, "expires "+utc(l.Expires)
			}
			lived = long(end.Sub(l.Created))
		}
		successor, overlap := "-", "-"
		if l.Successor != 0 {
			successor, overlap = fmt.Sprintf("%d at %s", l.Successor, utc(l.Replaced)), long(l.Overlap)
			if l.End == audit.Alive {
				overlap += " so far"
			}
			if l.Overlap < 0 {
				overlap = "none: " + long(-l.Overlap) + " too late"
			}
		}
		cause := l.Cause
		if l.By != "" && !strings.Contains(cause, l.By) {
			cause += ", by " + l.By
		}
		cells := []string{fmt.Sprint(l.Generation), utc(l.Created), utc(l.Promoted), ended, lived, successor, overlap, cause, how}
		if consumers {
			cells = append(cells, toldOf(l))
		}
		m.row(cells...)
	}
}

// toldOf says when who uses a token was told of it, and took it, from its promotion on.
func toldOf(l *audit.Life) string {
	var parts []string
	for _, t := range l.Told {
		after := func(at time.Time) string { return "after " + long(max(0, at.Sub(l.Promoted))) }
		var text string
		switch {
		case t.Told.IsZero() && t.Taken.IsZero():
			text = "is not known to be told"
		case t.Told.IsZero():
			text = "took it " + after(t.Taken)
		case t.Taken.IsZero():
			text = after(t.Told) + ", is not known to have taken it"
		case !t.Taken.After(t.Told): // what answers takes it so
			text = after(t.Told)
		default:
			text = after(t.Told) + ", took it " + after(t.Taken)
		}
		if t.Failed > 0 {
			text += fmt.Sprintf(" (failed %d ×)", t.Failed)
		}
		parts = append(parts, t.Consumer+" "+text)
	}
	return cmp.Or(strings.Join(parts, "; "), "-")
}

// endOf says how a life ended.
func endOf(l *audit.Life) string {
	parts := []string{string(l.End)}
	switch l.End {
	case audit.Never:
		parts[0] = "it was never made"
	case audit.Unknown:
		parts[0] = "whether it was made is not known yet"
	case audit.Died:
		parts[0] = "revoked by somebody else"
	}
	if l.Orphan {
		parts = append(parts, "its answer was lost: an orphan")
	}
	if !l.Lost.IsZero() {
		parts = append(parts, "nobody could be proven to hold it")
	}
	if l.EndWhy != "" {
		parts = append(parts, l.EndWhy)
	}
	if l.EndBy != "" {
		parts = append(parts, "by "+l.EndBy)
	}
	return strings.Join(parts, "; ")
}
