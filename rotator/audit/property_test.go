package audit_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/audit"
	"github.com/rotatord/rotatord/rotator/schedule"
	"github.com/rotatord/rotatord/rotator/simulate"
)

const hour = time.Hour

var start = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// entry is declared with two sinks that are required, of which b cannot be read, and one that is not.
func entry(t interface{ Fatal(...any) }, spec string, overlap, margin time.Duration) rotator.Entry {
	s, err := schedule.Parse(spec, "UTC")
	if err != nil {
		t.Fatal(err)
	}
	e := rotator.Entry{
		Name: "bot", Scopes: []string{"leads:read"}, Timing: rotator.Timing{Schedule: s, Overlap: overlap, Margin: margin, Jitter: time.Minute},
		Outlets: []rotator.Outlet{
			{Place: "a", Name: "a", Kind: "env_file", Required: true},
			{Place: "b", Name: "b", Kind: "exec", Required: true},
			{Place: "c", Name: "c", Kind: "file"},
		},
	}
	e.Facts, _ = e.Timing.Check(start)
	return e
}

func report(journal []rotator.Event, since, until time.Time) *audit.Report {
	r := audit.NewReader(since, until)
	for _, ev := range journal {
		r.Add(ev)
	}
	return r.Report()
}

// What the report claims is what a witness saw who looked at API and sinks after every call, and read
// no journal: each of its gaps and no other, and when each token was made and when it ended.
func TestReportAgainstAWitness(t *testing.T) {
	broken, kept := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		e := entry(t, rapid.SampledFrom([]string{"@daily", "@every 36h", "0 */8 * * *", "@weekly"}).Draw(t, "spec"),
			time.Duration(rapid.IntRange(60, 360).Draw(t, "overlap"))*time.Minute, time.Duration(rapid.IntRange(10, 180).Draw(t, "margin"))*time.Minute)
		f := simulate.Forecast{Entry: e, Blind: []string{"b"}, From: start, Until: start.Add(10 * e.Facts.Widest)}
		reach := int(f.Until.Sub(start) / time.Minute)
		for range rapid.IntRange(0, 6).Draw(t, "outages") {
			from := start.Add(time.Duration(rapid.IntRange(1, reach).Draw(t, "from")) * time.Minute)
			length := time.Duration(rapid.IntRange(1, int((e.Timing.Margin+e.Timing.Overlap)*5/time.Minute)).Draw(t, "length")) * time.Minute
			span := simulate.Span{From: from, Until: from.Add(length)}
			switch place := rapid.SampledFrom([]string{simulate.APIPlace, "a", "b", "c", "down"}).Draw(t, "place"); place {
			case "down":
				f.Down = append(f.Down, span)
			default:
				f.Outages = append(f.Outages, simulate.Outage{Place: place, Span: span})
			}
		}
		course, err := f.Run(t.Context())
		if err != nil || course.Problem != "" {
			t.Fatal(err, course.Problem)
		}
		rep := report(course.Journal, time.Time{}, f.Until)
		if len(rep.Tokens) != 1 {
			t.Fatalf("the report tells of %d tokens", len(rep.Tokens))
		}
		tok := rep.Tokens[0]

		// Gaps. The witness watches each sink; one report's gap holds those of all sinks.
		const grain = 3 * time.Minute // a push is saved after it was made, and a gap at the very end may not be looked at
		covers := func(from, until, from2, until2 time.Time) bool {
			return !from2.After(from.Add(grain)) && !until2.Before(until.Add(-grain))
		}
		for _, g := range course.Gaps {
			if g.Until.Sub(g.From) <= grain {
				continue
			}
			if !slices.ContainsFunc(tok.Gaps, func(x audit.Gap) bool {
				end := x.Until
				if end.IsZero() {
					end = f.Until
				}
				return covers(g.From, g.Until, x.From, end) && slices.Contains(x.Sinks, g.Sink)
			}) {
				t.Errorf("the witness saw a gap of %s from %s to %s, the report tells %+v", g.Sink, g.From, g.Until, tok.Gaps)
			}
		}
		for _, x := range tok.Gaps {
			end := x.Until
			if end.IsZero() {
				end = f.Until
			}
			if x.Length(f.Until) > grain && !slices.ContainsFunc(course.Gaps, func(g simulate.Gap) bool {
				return covers(x.From, x.From, g.From, g.Until) && slices.Contains(x.Sinks, g.Sink)
			}) {
				t.Errorf("the report tells of a gap from %s to %s (%v), the witness saw %+v", x.From, end, x.Sinks, course.Gaps)
			}
		}
		if (tok.Verdict == audit.Broken) != (len(tok.Gaps) > 0) {
			t.Errorf("verdict %s with %d gaps", tok.Verdict, len(tok.Gaps))
		}
		if tok.Verdict == audit.Broken {
			broken++
		} else {
			kept++
		}

		// Lives.
		known := map[string]audit.Life{}
		for _, l := range tok.Lives {
			if l.ID != "" {
				known[l.ID] = l
			}
		}
		made := 0
		for _, l := range course.Lives {
			i := slices.IndexFunc(tok.Lives, func(x audit.Life) bool { return x.Generation == l.Generation && x.Created.Sub(l.Created).Abs() < grain })
			if i < 0 {
				t.Errorf("generation %d, made %s, is missing in %+v", l.Generation, l.Created, tok.Lives)
				continue
			}
			made++
			x := tok.Lives[i]
			ended := l.Ends()
			if ended.After(f.Until) {
				ended = time.Time{}
			}
			if x.Ended.IsZero() != ended.IsZero() || x.Ended.Sub(ended).Abs() > grain || x.Expires.Sub(l.Expires).Abs() > grain {
				t.Errorf("generation %d ended %s (%s), the report says %s (%s)", l.Generation, ended, l.Expires, x.Ended, x.Expires)
			}
			if x.Promoted != l.Converged {
				t.Errorf("generation %d was promoted %s, the report says %s", l.Generation, l.Converged, x.Promoted)
			}
		}
		if made != len(known) {
			t.Errorf("the report tells of %d tokens that the API made, and %d were made", len(known), made)
		}
	})
	t.Logf("%d runs with a gap, %d without", broken, kept)
	if broken == 0 || kept == 0 {
		t.Error("one side was never played")
	}
}

// Whatever goes wrong with single calls, and wherever the process dies: every token that the API ever
// made is in the report, with its end, and a token that a sink holds is never missing or dead in it.
func TestReportThroughFaultsAndCrashes(t *testing.T) {
	lost := 0
	rapid.Check(t, func(t *rapid.T) {
		w := simulate.New(start)
		e := entry(t, "@daily", 4*hour, 2*hour)
		for i, blind := range []bool{false, rapid.Bool().Draw(t, "blind"), false} {
			o := w.Outlet(e.Outlets[i].Name, e.Outlets[i].Required, blind)
			e.Outlets[i] = o
		}
		gaps := 0
		var since time.Time
		end := start.Add(3 * 24 * hour)
		for range rapid.IntRange(1, 4).Draw(t, "faults") {
			w.FaultAt(rapid.IntRange(1, 120).Draw(t, "call"), rapid.SampledFrom(simulate.Faults[:]).Draw(t, "fault"))
		}
		kill := rapid.IntRange(0, 10).Draw(t, "killed") == 0
		w.Watch(func(w *simulate.World, _ string) {
			dead := false
			for _, o := range e.Outlets {
				v := w.Sinks[o.Place].Value()
				dead = dead || o.Required && v != "" && !w.API.Accepts(v)
			}
			if dead && since.IsZero() {
				since = w.Now()
				gaps++
			} else if !dead {
				since = time.Time{}
			}
			if kill && w.Now().After(start.Add(24*hour)) { // somebody else revokes the token that is in use
				kill = false
				for _, tok := range w.API.Tokens() {
					if tok.Plaintext == w.Sinks[e.Outlets[0].Place].Value() {
						w.API.Kill(tok.ID)
					}
				}
			}
		})
		for _, n := range rapid.SliceOfN(rapid.IntRange(1, 60), 0, 4).Draw(t, "cuts") {
			w.CutAt(n)
			p, err := w.Start(e)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Run(end); err != nil {
				t.Fatal(err)
			}
			if !w.Dead() {
				break
			}
		}
		w.CutAt(0)
		end = end.Add(24 * hour)
		p, err := w.Start(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Run(end); err != nil {
			t.Fatal(err)
		}
		rep := report(w.Store.Journal, time.Time{}, end)
		if len(rep.Tokens) != 1 {
			t.Fatalf("the report tells of %d tokens", len(rep.Tokens))
		}
		tok := rep.Tokens[0]
		for _, made := range w.API.Tokens() {
			i := slices.IndexFunc(tok.Lives, func(l audit.Life) bool { return l.Label == made.Name })
			if i < 0 {
				t.Errorf("%s (%s) is not in the report", made.ID, made.Name)
				continue
			}
			l := tok.Lives[i]
			if alive := made.Live(end); alive != (l.End == audit.Alive) {
				t.Errorf("%s (%s), revoked %s, expires %s, lives at %s: %v; the report says %q (%s)", made.ID, made.Name, made.Revoked, made.Expires, end, alive, l.End, l.EndWhy)
			}
			if l.ID != made.ID {
				lost++ // its id was never saved
			}
		}
		for _, o := range e.Outlets {
			v := w.Sinks[o.Place].Value()
			i := slices.IndexFunc(w.API.Tokens(), func(m simulate.Token) bool { return m.Plaintext == v })
			if v == "" || i < 0 {
				continue
			}
			id := w.API.Tokens()[i].ID
			if !slices.ContainsFunc(w.Store.Journal, func(ev rotator.Event) bool {
				return ev.Kind == rotator.EventPushed && ev.Place == o.Place && ev.ID == id
			}) {
				t.Errorf("%s holds %s, and the journal does not tell how it came there", o.Name, id)
			}
			if !slices.ContainsFunc(tok.Lives, func(l audit.Life) bool { return l.ID == id && !l.Created.IsZero() }) {
				t.Errorf("%s holds %s, which the report does not know", o.Name, id)
			}
		}
		if gaps > 0 && tok.Verdict == audit.Kept || gaps == 0 && len(tok.Gaps) > 0 {
			t.Errorf("the witness saw %d gaps; the report says %s: %v %+v", gaps, tok.Verdict, tok.Why, tok.Gaps)
		}
	})
	t.Logf("%d tokens whose id was never saved", lost)
}

// A push that reached its sink and was answered with an error is found there by the next reading, before
// it is tried again: the journal tells of it all the same.
func TestJournalTellsOfAPushThatIsFound(t *testing.T) {
	found := 0
	for n := 1; n <= 20; n++ {
		w := simulate.New(start)
		w.ReadBack = time.Second // sooner than the retry
		e := entry(t, "@daily", 4*hour, 2*hour)
		for i := range e.Outlets {
			e.Outlets[i] = w.Outlet(e.Outlets[i].Name, e.Outlets[i].Required, false)
		}
		w.FaultAt(n, simulate.FailAfter)
		p, err := w.Start(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Run(start.Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		for _, o := range e.Outlets {
			v := w.Sinks[o.Place].Value()
			i := slices.IndexFunc(w.API.Tokens(), func(m simulate.Token) bool { return m.Plaintext == v })
			if i < 0 {
				t.Fatalf("call %d: %s holds %q", n, o.Name, v)
			}
			id := w.API.Tokens()[i].ID
			i = slices.IndexFunc(w.Store.Journal, func(ev rotator.Event) bool {
				return ev.Kind == rotator.EventPushed && ev.Place == o.Place && ev.ID == id
			})
			if i < 0 {
				t.Errorf("call %d: %s holds %s, and the journal does not tell how it came there", n, o.Name, id)
			} else if w.Store.Journal[i].Detail != "" {
				found++
			}
		}
	}
	if found == 0 {
		t.Error("no push was found by reading")
	}
}
