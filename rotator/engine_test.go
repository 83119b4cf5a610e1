package rotator_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// daily ticks at midnight UTC.
type every time.Duration

func (d every) Next(after time.Time) time.Time {
	n := after.UTC().UnixNano()/int64(d) + 1
	return time.Unix(0, n*int64(d)).UTC()
}

func (d every) Last(at time.Time) time.Time {
	return time.Unix(0, at.UTC().UnixNano()/int64(d)*int64(d)).UTC()
}
func (d every) String() string { return "@every " + time.Duration(d).String() }

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func entry(t testing.TB, w *simulate.World, name string, outlets ...rotator.Outlet) rotator.Entry {
	t.Helper()
	e := rotator.Entry{
		Name: name, Scopes: []string{"chatbots:read", "knowledge:read"}, Outlets: outlets,
		Timing: rotator.Timing{Schedule: every(24 * time.Hour), Overlap: 8 * time.Hour, Margin: 2 * time.Hour, Jitter: 5 * time.Minute},
	}
	return prepared(t, e)
}

func prepared(t testing.TB, e rotator.Entry) rotator.Entry {
	t.Helper()
	facts, problems := e.Timing.Check(start)
	for _, p := range problems {
		if !p.Warning {
			t.Fatalf("timing: %s: %s", p.Field, p.Text)
		}
	}
	e.Facts, e.Timing.Margin = facts, facts.Margin
	return e
}

func run(t testing.TB, p *simulate.Process, until time.Time) {
	t.Helper()
	if err := p.Run(until); err != nil {
		t.Fatal(err)
	}
}

func begin(t testing.TB, w *simulate.World, entries ...rotator.Entry) *simulate.Process {
	t.Helper()
	p, err := w.Start(entries...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func live(w *simulate.World) (out []simulate.Token) {
	for _, t := range w.API.Tokens() {
		if t.Live(w.Now()) {
			out = append(out, t)
		}
	}
	return out
}

func TestWeekOfRotations(t *testing.T) {
	w := simulate.New(start)
	a, b := w.Outlet("a", true, false), w.Outlet("b", true, true)
	p := begin(t, w, entry(t, w, "bot", a, b))
	run(t, p, start.Add(7*24*time.Hour))
	if got := w.API.Creates; got != 8 {
		t.Errorf("creates in a week = %d, want the first and seven ticks", got)
	}
	for name, s := range w.Sinks {
		if !w.API.Accepts(s.Value()) {
			t.Errorf("%s holds a dead token", name)
		}
	}
	if n := len(live(w)); n != 2 { // at ten o'clock the predecessor has five more minutes
		t.Errorf("live tokens = %d, want the current one and its predecessor", n)
	}
	for _, tok := range w.API.Tokens() {
		if len(tok.Name) > rotator.MaxLabel {
			t.Errorf("label is %d long", len(tok.Name))
		}
	}
}

// Our own token is a risk for all others while it rotates: it comes last, unless it would not outlive
// the queue before it.
func TestOwnTokenGoesLastUnlessTheQueueIsLong(t *testing.T) {
	for each, want := range map[time.Duration]string{
		time.Second:   "[b c management]",
		5 * time.Hour: "[management b c]",
	} {
		w := simulate.New(start)
		w.Each = each
		var entries []rotator.Entry
		for _, name := range []string{"b", "c", rotator.OwnName} {
			e := entry(t, w, name, w.Outlet(name, true, false))
			e.Timing.Jitter = 0
			entries = append(entries, prepared(t, e))
		}
		p := begin(t, w, entries...)
		run(t, p, start.Add(24*time.Hour))
		var order []string
		for _, ev := range w.Store.Events(rotator.EventCreated) {
			if ev.Generation == 2 {
				order = append(order, ev.Entry)
			}
		}
		if got := fmt.Sprint(order); got != want {
			t.Errorf("with %s for each: %s, want %s", each, got, want)
		}
	}
}
