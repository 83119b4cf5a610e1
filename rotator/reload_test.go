package rotator_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

func TestReloadLeavesARotationToItsEnd(t *testing.T) {
	w := simulate.New(start)
	kept := w.Outlet("kept", true, false)
	before, after := entry(t, w, "bot", kept, w.Outlet("old", true, false)), entry(t, w, "bot", kept, w.Outlet("new", true, false))
	p := begin(t, w, before)
	var trace []string
	w.Watch(func(_ *simulate.World, what string) {
		trace = append(trace, what)
		if what == "create" { // a person edits the file while the token is being made
			if err := p.Load(after); err != nil {
				t.Error(err)
			}
		}
	})
	run(t, p, start)
	calls := strings.Join(trace, ", ")
	old, new := strings.Index(calls, "push memory:old"), strings.Index(calls, "push memory:new")
	if old < 0 || new < old {
		t.Errorf("the rotation must end as it began, and the new sink be filled after it: %s", calls)
	}
	if w.API.Creates != 1 {
		t.Errorf("%d creates, want 1: an edit of the sinks needs no new token", w.API.Creates)
	}
	holds(t, w, "new", w.Sinks["memory:old"].Value())
}

func TestRenameWaitsForARotation(t *testing.T) {
	w := simulate.New(start)
	before, after := entry(t, w, "bot", w.Outlet("a", true, false)), entry(t, w, "robot", w.Outlet("a", true, false))
	after.Was = "bot"
	p := begin(t, w, before)
	var refused error
	w.Watch(func(_ *simulate.World, what string) {
		if what == "create" {
			refused = p.Load(after)
		}
	})
	run(t, p, start)
	if !errors.Is(refused, rotator.ErrBusy) {
		t.Errorf("a rename in the middle of a rotation says %v, want ErrBusy", refused)
	}
	if err := p.Load(after); err != nil {
		t.Fatal(err)
	}
	run(t, p, start)
	if r := w.Store.Record("robot"); r == nil || w.API.Creates != 1 {
		t.Errorf("after it: record %v, %d creates", r, w.API.Creates)
	}
}

func TestCheckNewLooksAtNewSinksOnly(t *testing.T) {
	w := simulate.New(start)
	a, b, c := w.Outlet("a", true, false), w.Outlet("b", true, false), w.Outlet("c", false, false)
	p := begin(t, w, entry(t, w, "bot", a))
	run(t, p, start)
	check := func() (error, error) {
		return p.Engine().CheckNew(context.Background(), []rotator.Entry{entry(t, w, "bot", a, b, c)})
	}
	if required, optional := check(); required != nil || optional != nil {
		t.Errorf("with all sinks well: %v, %v", required, optional)
	}
	w.Outage(down("a"))
	if required, optional := check(); required != nil || optional != nil {
		t.Errorf("with a known sink down: %v, %v", required, optional)
	}
	w.Outage(down("b", "c"))
	if required, optional := check(); required == nil || optional == nil {
		t.Errorf("with the new sinks down: %v, %v", required, optional)
	}
	w.Outage(nil)
	w.Sinks["memory:b"].Set("somebody's password")
	var foreign *rotator.ForeignError
	if required, _ := check(); !errors.As(required, &foreign) || !foreign.Prior {
		t.Errorf("with a value in the new sink that is none of ours: %v", required)
	}
}

// An entry that is taken back before anything was made for it is forgotten, also while its turn has
// not come yet.
func TestEntryTakenBackBeforeItsFirstToken(t *testing.T) {
	w := simulate.New(start)
	a, b := entry(t, w, "a", w.Outlet("a", true, false)), entry(t, w, "b", w.Outlet("b", true, false))
	p := begin(t, w, a, b)
	if err := p.Load(a); err != nil {
		t.Fatal(err)
	}
	run(t, p, start.Add(72*hour))
	if v := w.Sinks["memory:b"].Value(); v != "" {
		t.Error("a token was made for what is declared no more")
	}
	if w.Sinks["memory:a"].Value() == "" {
		t.Error("the other entry has none")
	}
}

// A token that no sink has taken yet is known to this process alone: it keeps it under its new name.
func TestRenameKeepsWhatOnlyWeHold(t *testing.T) {
	w := simulate.New(start)
	before, after := entry(t, w, "bot", w.Outlet("a", true, false)), entry(t, w, "robot", w.Outlet("a", true, false))
	after.Was = "bot"
	p := begin(t, w, before)
	w.Outage(down("push memory:a"))
	run(t, p, start)
	if err := p.Load(after); err != nil {
		t.Fatal(err)
	}
	w.Outage(nil)
	run(t, p, start.Add(hour))
	holds(t, w, "a", "sgpt_1")
	if w.API.Creates != 1 {
		t.Errorf("%d creates, want 1", w.API.Creates)
	}
}

// Two renames at once are one: while one of the two is worked on, neither is carried out.
func TestRenamesAreAllOrNone(t *testing.T) {
	w := simulate.New(start)
	a, b := entry(t, w, "a", w.Outlet("a", true, false)), entry(t, w, "b", w.Outlet("b", true, false))
	p := begin(t, w, a)
	run(t, p, start.Add(hour))
	if err := p.Load(a, b); err != nil {
		t.Fatal(err)
	}
	a2, b2 := a, b
	a2.Name, a2.Was, b2.Name, b2.Was = "a2", "a", "b2", "b"
	var refused error
	w.Watch(func(_ *simulate.World, what string) {
		if what == "create" {
			refused = p.Load(a2, b2)
		}
	})
	run(t, p, start.Add(2*hour))
	w.Watch(nil)
	if !errors.Is(refused, rotator.ErrBusy) {
		t.Fatalf("in the middle of a rotation: %v, want ErrBusy", refused)
	}
	if w.Store.Record("a") == nil || w.Store.Record("a2") != nil {
		t.Errorf("the first was renamed although the second could not be: %v, %v", w.Store.Record("a"), w.Store.Record("a2"))
	}
	run(t, p, start.Add(27*hour)) // and goes on as before
	if n := w.API.Creates; n != 4 {
		t.Errorf("%d creates until the next day's rotations, want 4", n)
	}
	if err := p.Load(a2, b2); err != nil {
		t.Fatal(err)
	}
	run(t, p, start.Add(28*hour))
	if w.Store.Record("a2") == nil || w.Store.Record("b2") == nil || w.API.Creates != 4 {
		t.Errorf("after it: %v, %v, %d creates", w.Store.Record("a2"), w.Store.Record("b2"), w.API.Creates)
	}
}
