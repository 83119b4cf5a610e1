package notify_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// daily ticks at midnight UTC.
type daily struct{}

func (daily) Next(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour) }
func (daily) Last(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }
func (daily) String() string             { return "@daily" }

// fleet is so many tokens, each in a sink of its own.
func fleet(w *simulate.World, n int) []rotator.Entry {
	var all []rotator.Entry
	for i := range n {
		name := fmt.Sprintf("t%03d", i)
		e := rotator.Entry{
			Name: name, Scopes: []string{"chatbots:read"}, Outlets: []rotator.Outlet{w.Outlet(name, true, false)},
			Timing: rotator.Timing{Schedule: daily{}, Overlap: 8 * time.Hour, Margin: 2 * time.Hour, Jitter: 5 * time.Minute},
		}
		e.Facts, _ = e.Timing.Check(start)
		all = append(all, e)
	}
	return all
}

// engine is a watch on a daemon that really works, on simulated tokens.
func engine(t *testing.T, n int) (*watch, *simulate.World, func(time.Duration)) {
	t.Helper()
	world := simulate.New(start)
	p, err := world.Start(fleet(world, n)...)
	if err != nil {
		t.Fatal(err)
	}
	w := newWatch(t, nil)
	attach := func() {
		w.n.Report = func(context.Context) (rotator.Report, error) {
			entries, records := p.Engine().Snapshot()
			return rotator.Describe(entries, records, w.now), nil
		}
	}
	attach()
	return w, world, func(d time.Duration) {
		t.Helper()
		step := 15 * time.Second
		switch { // the longer, the less happens
		case d > 3*time.Hour:
			step = 10 * time.Minute
		case d > 10*time.Minute:
			step = 2 * time.Minute
		}
		for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(step) {
			if err := p.Run(w.now); err != nil {
				t.Fatal(err)
			}
			w.look(false)
			if w.again {
				w.again = false
				w.restart()
				attach()
			}
		}
	}
}

// A Vault that is out of reach for five hundred tokens, through a night with a tick in it and a
// restart, is one message, a summary and an all-clear.
func TestBrokenVaultIsThreeMessages(t *testing.T) {
	w, world, pass := engine(t, 500)
	pass(13*time.Hour + 50*time.Minute) // until shortly before the tick
	w.got()
	world.Outage(func(call string) error {
		if strings.HasPrefix(call, "push") || strings.HasPrefix(call, "check") || strings.HasPrefix(call, "read") {
			return &rotator.OutageError{What: "vault https://vault:8200", Err: errors.New("503 Vault is sealed: unseal it")}
		}
		return nil
	})
	pass(10 * time.Minute)
	m := w.got("1 new problem")
	if len(m) == 1 && !strings.Contains(m[0].Text, "✗ vault https://vault:8200 is out of reach") {
		t.Error(m[0].Text)
	}
	w.again = true
	pass(2 * time.Hour)
	m = w.got("1 spreading")
	if len(m) == 1 && (m[0].More[0].Count != 500 || m[0].More[0].Breaks.IsZero() || !strings.Contains(m[0].Text, "500 tokens (t000, t001")) {
		t.Error(m[0].Text)
	}
	w.again = true
	pass(time.Hour)
	w.got()
	world.Outage(nil)
	pass(2 * time.Hour)
	w.got("1 solved. All clear.")
	pass(6 * time.Hour)
	w.got()
}

// The API that fails is one trouble, whatever is asked of it.
func TestBrokenAPIIsOneTrouble(t *testing.T) {
	w, world, pass := engine(t, 100)
	pass(13*time.Hour + 50*time.Minute)
	w.got()
	world.Outage(func(call string) error {
		switch call {
		case "create", "verify", "list", "revoke":
			return fmt.Errorf("%s: 503 Service Unavailable", call)
		}
		return nil
	})
	pass(2 * time.Hour)
	all := w.messages
	w.messages = nil
	if len(all) < 2 || len(all) > 4 {
		t.Errorf("%d messages: %+v", len(all), all)
	}
	world.Outage(nil)
	pass(3 * time.Hour)
	if m := w.messages; len(m) == 0 || !strings.Contains(m[len(m)-1].Text, "All clear.") || m[len(m)-1].Open != 0 || len(m) > 2 {
		t.Errorf("%+v", m)
	}
	w.messages = nil
	pass(6 * time.Hour)
	w.got()
}

// What an outage left behind belongs to it until it is mended, though nothing is out any more: also
// to another process.
func TestAftermathOfAnOutage(t *testing.T) {
	w := newWatch(t, nil)
	for i := range 20 {
		p := w.broken(fmt.Sprintf("t%02d", i))
		p.Error, p.Outage = p.Sink+": vault https://vault:8200: dial tcp 192.0.2.1:8200: connect: connection refused", "vault https://vault:8200"
		w.problems = append(w.problems, p)
	}
	w.pass(2 * time.Minute)
	w.got("1 new problem")
	for i := range w.problems {
		w.problems[i].Outage = ""
	}
	w.restart()
	for len(w.problems) > 0 { // one after another, as fast as they may
		w.problems = w.problems[1:]
		w.pass(10 * time.Second)
	}
	w.got()
	w.pass(2 * time.Minute)
	if m := w.got("1 solved. All clear.")[0]; m.Over[0].Count != 20 {
		t.Errorf("%+v", m.Over)
	}
	// The same error of something else is another trouble.
	other := w.broken("x")
	other.Error = "x.env: dial tcp 192.0.2.9:8200: connect: connection refused"
	w.problems = []rotator.Problem{other}
	w.pass(2 * time.Minute)
	w.got("1 new problem")
}
