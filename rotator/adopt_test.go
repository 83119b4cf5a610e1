package rotator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// loseState forgets everything but what SiteGPT and the sinks hold.
func loseState(w *simulate.World) { w.Store = simulate.NewStore(w) }

func TestLostStateWithOneLiveTokenIsAdopted(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false), w.Outlet("b", true, true))
	run(t, begin(t, w, e), start.Add(hour))
	loseState(w)
	p := begin(t, w, e)
	run(t, p, start.Add(13*hour))
	if w.API.Creates != 1 {
		t.Errorf("creates = %d: the one live token should have been adopted", w.API.Creates)
	}
	g := w.Store.Record("bot").Current(w.Now())
	if g == nil || g.Number != 1 || g.Cause != rotator.CauseAdopted {
		t.Fatalf("current = %+v, want the adopted generation 1", g)
	}
	run(t, p, start.Add(15*hour)) // and it is rotated at its time, as generation 2
	if g := w.Store.Record("bot").Current(w.Now()); g.Number != 2 || w.API.Creates != 2 {
		t.Errorf("current = %+v after %d creates, want generation 2 at midnight", g, w.API.Creates)
	}
	holds(t, w, "b", "sgpt_2")
	accepted(t, w, "sgpt_1", true)
	run(t, p, start.Add(40*hour))
	if n := len(live(w)); n > 2 {
		t.Errorf("live tokens: %d", n)
	}
}

func TestLostStateIsNotAdoptedWhereItCouldBeWrong(t *testing.T) {
	for name, spoil := range map[string]func(w *simulate.World){
		"the sinks differ":       func(w *simulate.World) { w.Sinks["memory:b"].Set("sgpt_other") },
		"one sink is empty":      func(w *simulate.World) { w.Sinks["memory:b"].Set("") },
		"their token is refused": func(w *simulate.World) { w.Sinks["memory:a"].Set("sgpt_x"); w.Sinks["memory:b"].Set("sgpt_x") },
		"two tokens are alive": func(w *simulate.World) {
			w.API.Add(simulate.Token{ID: "second", Name: "rotatord/sim/bot#2 20270301T000000Z abcdefghijklmnop", Plaintext: "sgpt_2nd", Created: w.Now(), Expires: w.Now().Add(30 * hour)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := simulate.New(start)
			e := entry(t, w, "bot", w.Outlet("a", true, false), w.Outlet("b", true, false))
			run(t, begin(t, w, e), start.Add(hour))
			loseState(w)
			spoil(w)
			before := len(live(w))
			p := begin(t, w, e)
			run(t, p, start.Add(3*hour))
			if w.API.Creates != 1 || len(live(w)) != before {
				t.Errorf("creates = %d, live = %d: nothing should have been created or revoked", w.API.Creates, len(live(w)))
			}
			if !strings.Contains(w.Store.Record("bot").Blocked, "unexplained") {
				t.Errorf("blocked = %q", w.Store.Record("bot").Blocked)
			}
			// A person decides: whatever works is kept, and in the end all is as it should be.
			w.Store.Ask(rotator.Ask{Seq: 1, Entry: "bot", Adopt: true, By: "eve"})
			run(t, p, start.Add(5*hour))
			r := w.Store.Record("bot")
			if r.Blocked != "" || r.Adopt {
				t.Errorf("still blocked: %q", r.Blocked)
			}
			for place, s := range w.Sinks {
				if !w.API.Accepts(s.Value()) {
					t.Errorf("%s holds a dead token", place)
				}
			}
			accepted(t, w, "sgpt_1", true) // its users get their overlap
			run(t, p, start.Add(120*hour))
			if n := len(live(w)); n > 2 {
				t.Errorf("live tokens in the end: %d", n)
			}
		})
	}
}

// The state comes from a backup of three rotations ago: what the sinks hold is kept, and nothing is
// created twice.
func TestAdoptAfterARestoredBackup(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	p := begin(t, w, e)
	run(t, p, start.Add(hour))
	backup := w.Store.Record("bot")
	run(t, p, start.Add(64*hour))
	last, creates := w.Sinks["memory:a"].Value(), w.API.Creates
	loseState(w)
	w.Store.Put(*backup)
	p = begin(t, w, e)
	run(t, p, start.Add(65*hour))
	w.Store.Ask(rotator.Ask{Seq: 1, Entry: "bot", Adopt: true, By: "eve"})
	run(t, p, start.Add(66*hour))
	holds(t, w, "a", last)
	if w.API.Creates != creates {
		t.Errorf("%d creates more: the sinks held a token that works", w.API.Creates-creates)
	}
	if g := w.Store.Record("bot").Current(w.Now()); g == nil || g.Number != 4 || g.Cause != rotator.CauseAdopted {
		t.Errorf("current = %+v, want the adopted generation 4", g)
	}
	run(t, p, start.Add(90*hour))
	if w.API.Creates != creates+1 {
		t.Errorf("creates = %d, want one at the next tick", w.API.Creates-creates)
	}
}

func TestAdoptEndsTheHoldOfASink(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false), w.Outlet("b", true, false)))
	run(t, p, start.Add(hour))
	w.Sinks["memory:a"].Set("somebody's own")
	w.Sinks["memory:b"].Set("somebody's other")
	run(t, p, start.Add(2*hour))
	w.Store.Ask(rotator.Ask{Seq: 7, Entry: "bot", Adopt: true, Sink: "a", By: "eve"})
	run(t, p, start.Add(3*hour))
	holds(t, w, "b", "somebody's other")
	w.Store.Ask(rotator.Ask{Seq: 8, Entry: "bot", Adopt: true, By: "eve"})
	run(t, p, start.Add(4*hour))
	for _, s := range []string{"a", "b"} {
		accepted(t, w, w.Sinks["memory:"+s].Value(), true)
	}
	if n := len(w.Store.Events(rotator.EventAdopted)); n != 2 {
		t.Errorf("adopted events = %d, want one a sink", n)
	}
	// The order was carried out: a new hold is a new one.
	w.Sinks["memory:a"].Set("somebody again")
	run(t, p, start.Add(6*hour))
	holds(t, w, "a", "somebody again")
}

func TestPause(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, longLived(t, w, "bot", 60*hour, w.Outlet("a", true, false)))
	run(t, p, start.Add(15*hour)) // generation 2 came at midnight; 1 is to die at 08:00
	w.Store.Ask(rotator.Ask{Seq: 1, Entry: "bot", Pause: start.Add(47 * hour), By: "eve"})
	run(t, p, start.Add(46*hour))
	if w.API.Creates != 2 {
		t.Errorf("creates = %d during the pause, want none", w.API.Creates-2)
	}
	accepted(t, w, "sgpt_1", true)
	// A person's own wish is no scheduled change.
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: 2, By: "eve"})
	run(t, p, start.Add(46*hour+time.Minute))
	holds(t, w, "a", "sgpt_3")
	run(t, p, start.Add(48*hour))
	accepted(t, w, "sgpt_1", false)
}

func TestExpiryWinsOverAPause(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	p := begin(t, w, e)
	guarded(t, w, 0)
	run(t, p, start.Add(hour))
	w.Store.Ask(rotator.Ask{Seq: 1, Entry: "bot", Pause: start.Add(900 * hour), By: "eve"})
	run(t, p, start.Add(19*hour)) // 05:00: expires at 10:05, more than half of the overlap is left
	if w.API.Creates != 1 {
		t.Errorf("creates = %d, want 1", w.API.Creates)
	}
	middle := start.Add(20*hour + 5*time.Minute)
	run(t, p, middle.Add(-time.Minute))
	if w.API.Creates != 1 {
		t.Errorf("creates = %d before the middle of the overlap, want 1", w.API.Creates)
	}
	run(t, p, middle.Add(time.Minute))
	if w.API.Creates != 2 {
		t.Errorf("creates = %d from the middle of the overlap on, want 2", w.API.Creates)
	}
	run(t, p, start.Add(300*hour))
	accepted(t, w, w.Sinks["memory:a"].Value(), true)
	w.Store.Ask(rotator.Ask{Seq: 2, Entry: "bot", Pause: start, By: "eve"}) // of the past: over
	run(t, p, start.Add(301*hour))
	if r := w.Store.Record("bot"); !r.PausedUntil.IsZero() {
		t.Errorf("paused until %s", r.PausedUntil)
	}
}

func TestOverrideFuse(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	p := begin(t, w, e)
	run(t, p, start.Add(hour))
	most := e.Facts.MaxPosts()
	for n := 1; n < most+3; n++ {
		w.Store.Ask(rotator.Ask{Entry: "bot", Than: n, By: "eve", At: w.Now()})
		run(t, p, w.Now().Add(time.Minute))
	}
	blown := w.API.Creates
	if blown != most+1 {
		t.Fatalf("creates = %d, want the first and %d that were asked for", blown, most)
	}
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: blown, Override: true, By: "eve", At: w.Now()})
	run(t, p, w.Now().Add(time.Minute))
	if w.API.Creates != blown+1 {
		t.Errorf("creates = %d: the override should let exactly one through", w.API.Creates-blown)
	}
	w.FaultAt(1, simulate.None)
	w.Outage(down("create")) // the override is no endless loop either, where nobody can tell what came of it
	w.API.NoList = true
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: blown + 1, Override: true, By: "eve", At: w.Now()})
	run(t, p, w.Now().Add(6*hour))
	if n := len(w.Store.Record("bot").Posts) - blown - 1; n != 3 {
		t.Errorf("one wish to override the fuse was good for %d creates whose outcome is unknown, want 3", n)
	}
}

// Two machines are clones: the second one holds the records of the first. Under a name of its own it
// makes its own tokens, and lets what both hold expire by itself.
func TestCloneUnderANewNameRevokesNothingOfTheOriginal(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	e.Timing.Lifetime, e.Timing.Margin = 10*24*time.Hour, 0 // nothing expires in time by itself
	e = prepared(t, e)
	run(t, begin(t, w, e), start.Add(30*time.Hour))
	shared := w.Store.Record("bot")

	clone := w.Outlet("b", true, false)
	w.Sinks["memory:b"].Set(w.Sinks["memory:a"].Value())
	clone.Place = "memory:a"
	twin := e
	twin.Outlets = []rotator.Outlet{clone}
	w.Instance = "clone"
	run(t, begin(t, w, twin), start.Add(60*time.Hour))
	if w.Sinks["memory:b"].Value() == w.Sinks["memory:a"].Value() {
		t.Fatal("the clone did not rotate")
	}
	if g := shared.Target(w.Now()); !w.API.Accepts(w.Sinks["memory:a"].Value()) {
		t.Errorf("the clone revoked generation %d, which the original holds", g.Number)
	}
	// What the clone has made itself retires as usual.
	run(t, begin(t, w, twin), start.Add(90*time.Hour))
	own := 0
	for _, tok := range w.API.Tokens() {
		if l, _ := rotator.ParseLabel(tok.Name); l.Instance == "clone" && !tok.Revoked.IsZero() {
			own++
		}
	}
	if own == 0 {
		t.Error("the clone revoked none of its own old tokens")
	}
}

// A sink is called otherwise than when the state noted that it waits: it goes by what is declared now,
// also where it cannot be read any more.
func TestAdoptKnowsASinkByTheNameThatIsDeclared(t *testing.T) {
	w := simulate.New(start)
	o := w.Outlet("a", true, false)
	run(t, begin(t, w, entry(t, w, "bot", o)), start.Add(hour))
	w.Sinks["memory:a"].Set("somebody's own")
	p := begin(t, w, entry(t, w, "bot", o))
	run(t, p, start.Add(2*hour))
	o.Name, w.Sinks["memory:a"].Blind = "the app", true
	if err := p.Engine().Load(t.Context(), []rotator.Entry{entry(t, w, "bot", o)}); err != nil {
		t.Fatal(err)
	}
	w.Store.Ask(rotator.Ask{Seq: 1, Entry: "bot", Adopt: true, Sink: "the app", By: "eve"})
	run(t, p, w.Now().Add(time.Minute))
	accepted(t, w, w.Sinks["memory:a"].Value(), true)
	if told := w.Store.Events(rotator.EventAdopted); len(told) != 1 || told[0].Sink != "the app" {
		t.Errorf("told: %+v", told)
	}
}
