package rotator_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// Each test is a story: something goes wrong, or somebody does something, and the promise holds.

const hour = time.Hour

func holds(t *testing.T, w *simulate.World, sink, plaintext string) {
	t.Helper()
	if got := w.Sinks["memory:"+sink].Value(); got != plaintext {
		t.Errorf("%s holds %q, want %q", sink, got, plaintext)
	}
}

func accepted(t *testing.T, w *simulate.World, plaintext string, want bool) {
	t.Helper()
	if got := w.API.Accepts(plaintext); got != want {
		t.Errorf("at %s, %s is accepted: %v, want %v", w.Now().Format(time.RFC3339), plaintext, got, want)
	}
}

func down(what ...string) func(string) error {
	return func(call string) error {
		for _, w := range what {
			if strings.HasSuffix(call, w) {
				return errors.New("down")
			}
		}
		return nil
	}
}

func TestLostAnswerLeavesNoOrphanAndIsNeverRepeatedBlindly(t *testing.T) {
	w := simulate.New(start)
	w.API.HideAfter = 8 * time.Second // the list lags behind: absence in the first one proves nothing
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	var order []string
	lost := false
	w.Watch(func(_ *simulate.World, what string) { order = append(order, what) })
	for n := 1; n <= 12 && !lost; n++ { // find the create among the first calls
		trial := simulate.New(start)
		trial.FaultAt(n, simulate.FailAfter)
		p := begin(t, trial, entry(t, trial, "bot", trial.Outlet("a", true, false)))
		run(t, p, start)
		if len(trial.Store.Events(rotator.EventUnknown)) > 0 {
			w.FaultAt(n, simulate.FailAfter)
			lost = true
		}
	}
	if !lost {
		t.Fatal("found no create to lose")
	}
	p := begin(t, w, e)
	run(t, p, start.Add(hour))
	if n := len(live(w)); n != 1 {
		t.Errorf("live tokens = %d, want 1", n)
	}
	if len(w.Store.Events(rotator.EventOrphan)) != 1 {
		t.Errorf("orphans found: %v, want 1", w.Store.Events(rotator.EventOrphan))
	}
	first := slices.Index(order, "create")
	second := first + 1 + slices.Index(order[first+1:], "create")
	if between := order[first:second]; !slices.Contains(between, "revoke") {
		t.Errorf("the second create came before the first one's token was found and revoked: %v", between)
	}
	holds(t, w, "a", "sgpt_2")
}

// A create that made nothing is known to have made nothing only after two complete lists, a settling
// time apart, lacked its label: the first one may lag behind.
func TestAbsenceIsSeenTwiceBeforeAnotherCreate(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	var creates, lists []time.Time
	failing := true
	w.Outage(func(what string) error {
		switch {
		case what == "create" && failing:
			failing = false
			creates = append(creates, w.Now())
			return errors.New("the connection broke")
		case what == "create":
			creates = append(creates, w.Now())
		case what == "list" && len(creates) == 1:
			lists = append(lists, w.Now())
		}
		return nil
	})
	run(t, begin(t, w, e), start.Add(hour))
	if len(creates) != 2 {
		t.Fatalf("creates = %d, want 2", len(creates))
	}
	if len(lists) < 2 || lists[len(lists)-1].Sub(lists[0]) < rotator.DefaultSettle {
		t.Errorf("lists between the two creates: %v, want two that are %s apart", lists, rotator.DefaultSettle)
	}
	if n := len(w.Store.Events(rotator.EventClosed)); n != 1 {
		t.Errorf("closed intents = %d, want 1", n)
	}
}

// Before a revocation every sink is read once more: one that was restored from a backup an instant
// before would be left with a dead token.
func TestNothingIsRevokedThatASinkHolds(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, longLived(t, w, "bot", 20*day, w.Outlet("a", true, false), w.Outlet("b", false, false)))
	revokeAt := start.Add(22*hour + 39*time.Second) // the rotation at midnight, its jitter, eight hours
	run(t, p, revokeAt.Add(-time.Second))
	accepted(t, w, "sgpt_1", true)
	w.Sinks["memory:b"].Set("sgpt_1")
	w.Outage(down("push memory:b"))
	run(t, p, revokeAt.Add(2*hour))
	accepted(t, w, "sgpt_1", true)
	if rep := w.Store.Record("bot").Generation(1); !strings.Contains(rep.Waits, "b still holds it") {
		t.Errorf("waits = %q", rep.Waits)
	}
	w.Outage(nil)
	run(t, p, revokeAt.Add(6*hour))
	holds(t, w, "b", "sgpt_2")
	accepted(t, w, "sgpt_1", false)
}

// A token that nobody was ever given is revoked at once, whatever its overlap would be.
func TestTokenThatNobodyHadIsRevokedAtOnce(t *testing.T) {
	w := simulate.New(start)
	cut := false
	w.Watch(func(w *simulate.World, what string) {
		if what == "create" && !cut {
			cut = true
			w.CutAt(3) // after issued was saved, and before anything is pushed
		}
	})
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	run(t, begin(t, w, e), start.Add(hour))
	if !w.Dead() || w.Sinks["memory:a"].Value() != "" || w.Store.Record("bot").Generations[0].ID == "" {
		t.Fatal("the process should have died between issued and the first push")
	}
	w.CutAt(0)
	w.Outage(down("create")) // it does not wait for a successor either
	p := begin(t, w, e)
	run(t, p, start.Add(hour+time.Minute))
	accepted(t, w, "sgpt_1", false)
	w.Outage(nil)
	run(t, p, start.Add(2*hour))
	accepted(t, w, w.Sinks["memory:a"].Value(), true)
}

func TestForbiddenListIsBoundedByTheFuse(t *testing.T) {
	w := simulate.New(start)
	w.API.NoList = true
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	lose := errors.New("cut")
	w.Outage(func(what string) error {
		if what == "verify" {
			return lose // and every answer to a create is lost, below
		}
		return nil
	})
	p := begin(t, w, e)
	for n := 1; n < 400; n++ {
		w.FaultAt(n, simulate.FailAfter)
	}
	run(t, p, start.Add(20*hour))
	if got, most := w.API.Creates, e.Facts.MaxPosts(); got > most {
		t.Errorf("%d creates in 20 hours of lost answers, the fuse allows %d", got, most)
	}
}

// The fuse is blown, and the only sink loses its token: whoever reads it now breaks now, so the last
// create is let through; but not in a loop, if somebody empties the sink again and again.
func TestBlownFuseLeavesNoSinkBare(t *testing.T) {
	w := simulate.New(start)
	w.ReadBack = time.Minute
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	p := begin(t, w, e)
	run(t, p, start.Add(hour))
	rec := w.Store.Record("bot")
	for range e.Facts.MaxPosts() {
		rec.Posts = append(rec.Posts, rotator.Post{At: w.Now()})
	}
	w.Store.Put(*rec)
	p = begin(t, w, e)
	w.Sinks["memory:a"].Set("")
	run(t, p, w.Now().Add(hour))
	accepted(t, w, w.Sinks["memory:a"].Value(), true)
	before := w.API.Creates
	for range 8 * 60 {
		w.Sinks["memory:a"].Set("")
		run(t, p, w.Now().Add(time.Minute))
	}
	if n, most := w.API.Creates-before, 8*60/30+1; n > most { // each sixteenth of the overlap
		t.Errorf("%d creates in eight hours, want at most %d", n, most)
	}
}

func TestDeadSinkCreatesNothingUntilTheHealthyOnesNeedIt(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("file", true, false), w.Outlet("vault", true, false))
	other := entry(t, w, "other", w.Outlet("other", true, false))
	p := begin(t, w, e, other)
	run(t, p, start.Add(hour))
	w.Outage(down("memory:vault"))
	// The tick at midnight: the file's token has ten hours left, more than half of the overlap.
	run(t, p, start.Add(18*hour))
	if n := len(w.Store.Record("bot").Generations); n != 1 {
		t.Fatalf("generations = %d: a token was created that Vault could not take", n)
	}
	if n := w.Store.Record("other").Last; n != 2 {
		t.Errorf("the other token stands at generation %d, want 2", n)
	}
	// Four hours before its end the file must not die with Vault.
	run(t, p, start.Add(21*hour))
	healthy := w.Sinks["memory:file"].Value()
	if healthy == "sgpt_1" {
		t.Fatal("the healthy sink was left with the old token")
	}
	creates := w.API.Creates
	run(t, p, start.Add(23*hour))
	if w.API.Creates != creates {
		t.Errorf("%d more creates while Vault was down", w.API.Creates-creates)
	}
	accepted(t, w, healthy, true)
	w.Outage(nil)
	run(t, p, start.Add(24*hour))
	holds(t, w, "vault", healthy)
	if w.API.Creates != creates {
		t.Error("filling the sink that came back took another create")
	}
}

func TestCompromised(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
	run(t, p, start.Add(30*hour)) // two generations, both alive until 10:05 the next day
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: w.Store.Record("bot").Last, Compromised: true, By: "eve"})
	run(t, p, start.Add(30*hour+time.Minute))
	all := live(w)
	if len(all) != 1 {
		t.Fatalf("alive after --compromised: %v", all)
	}
	holds(t, w, "a", all[0].Plaintext)
	run(t, p, start.Add(31*hour))
	if got := w.API.Creates; got != 3 {
		t.Errorf("creates = %d: the wish was fulfilled more than once", got)
	}
}

func TestCompromisedKeepsTheOldOneUntilTheNewOneIsInPlace(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
	run(t, p, start.Add(hour))
	w.Outage(down("create"))
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: 1, Compromised: true, By: "eve"})
	run(t, p, start.Add(2*hour))
	accepted(t, w, "sgpt_1", true)
	w.Outage(nil)
	run(t, p, start.Add(4*hour))
	accepted(t, w, "sgpt_1", false)
}

func TestNowKillsRegardless(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
	run(t, p, start.Add(hour))
	w.Outage(down("create"))
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: 1, Compromised: true, Now: true, By: "eve"})
	run(t, p, start.Add(hour+time.Minute))
	accepted(t, w, "sgpt_1", false)
}

func TestRevokeOneGeneration(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
	run(t, p, start.Add(15*hour)) // 01:00: the predecessor lives until 10:05
	accepted(t, w, "sgpt_1", true)
	w.Store.Ask(rotator.Ask{Entry: "bot", Revoke: 1, By: "eve"})
	run(t, p, start.Add(15*hour+time.Minute))
	accepted(t, w, "sgpt_1", false)
	accepted(t, w, "sgpt_2", true)
}

func TestForeignValueIsLeftAlone(t *testing.T) {
	for _, restore := range []bool{false, true} {
		t.Run(fmt.Sprintf("restore=%v", restore), func(t *testing.T) {
			w := simulate.New(start)
			e := entry(t, w, "bot", w.Outlet("a", true, false), w.Outlet("b", true, false))
			if restore {
				e.OnDrift = rotator.DriftRestore
			}
			p := begin(t, w, e)
			run(t, p, start.Add(hour))
			w.Sinks["memory:a"].Set("somebody's own value")
			run(t, p, start.Add(16*hour)) // over the next rotation
			holds(t, w, "b", "sgpt_2")
			if restore {
				holds(t, w, "a", "sgpt_2")
				return
			}
			holds(t, w, "a", "somebody's own value")
			rep := rotator.Describe([]rotator.Entry{e}, []rotator.Record{*w.Store.Record("bot")}, w.Now())
			if len(rep.Problems) != 1 || rep.Problems[0].Kind != rotator.ProblemHeldSink {
				t.Errorf("problems = %+v, want the held sink", rep.Problems)
			}
			w.Sinks["memory:a"].Set("")
			run(t, p, start.Add(17*hour))
			holds(t, w, "a", "sgpt_2")
		})
	}
}

func TestPriorValueIsTakenOverOnlyIfItIsAToken(t *testing.T) {
	for _, tc := range []struct {
		prior    string
		takeOver bool
		want     string
	}{
		{"", false, "sgpt_1"},
		{"sgpt_of_the_old_cron_job", false, "sgpt_1"},
		{"a password", false, "a password"},
		{"a password", true, "sgpt_1"},
	} {
		w := simulate.New(start)
		o := w.Outlet("a", true, false)
		o.TakeOver = tc.takeOver
		w.Sinks["memory:a"].Set(tc.prior)
		p := begin(t, w, entry(t, w, "bot", o))
		run(t, p, start.Add(hour))
		holds(t, w, "a", tc.want)
		if tc.want == tc.prior && w.API.Creates != 0 {
			t.Errorf("%q: %d creates before a push that is refused", tc.prior, w.API.Creates)
		}
	}
}

func TestDriftHealsWithoutACreate(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false), w.Outlet("b", true, false)))
	run(t, p, start.Add(15*hour))
	for _, value := range []string{"", "sgpt_1"} { // deleted; restored from a backup
		w.Sinks["memory:a"].Set(value)
		run(t, p, w.Now().Add(hour))
		holds(t, w, "a", "sgpt_2")
	}
	if w.API.Creates != 2 {
		t.Errorf("creates = %d, want 2", w.API.Creates)
	}
	// If no sink has it any more, it is rotated.
	w.Sinks["memory:a"].Set("")
	w.Sinks["memory:b"].Set("")
	run(t, p, w.Now().Add(hour))
	holds(t, w, "a", "sgpt_3")
	holds(t, w, "b", "sgpt_3")
}

func TestAddedSinkIsFilledAfterARestart(t *testing.T) {
	w := simulate.New(start)
	a := w.Outlet("a", true, false)
	p := begin(t, w, entry(t, w, "bot", a))
	run(t, p, start.Add(hour))
	p = begin(t, w, entry(t, w, "bot", a, w.Outlet("b", true, false)))
	run(t, p, start.Add(2*hour))
	holds(t, w, "b", "sgpt_1")
}

func TestOptionalSinkHoldsUpNothing(t *testing.T) {
	w := simulate.New(start)
	w.Outage(down("memory:b"))
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false), w.Outlet("b", false, false)))
	run(t, p, start.Add(hour))
	holds(t, w, "a", "sgpt_1")
	if w.Store.Record("bot").Current(w.Now()) == nil {
		t.Error("an optional sink kept the token from being promoted")
	}
	w.Outage(nil)
	run(t, p, start.Add(3*hour))
	holds(t, w, "b", "sgpt_1")
}

func TestRevokedByHandIsNoticedAndReplaced(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)), entry(t, w, "other", w.Outlet("o", true, false)))
	run(t, p, start.Add(hour))
	bot := w.Store.Record("bot").Generations[0].ID
	w.API.Kill(bot)
	run(t, p, start.Add(3*hour))
	if g := w.Store.Record("bot").Current(w.Now()); g == nil || g.Number != 2 {
		t.Errorf("current = %+v, want generation 2", g)
	}
	if n := w.Store.Record("other").Last; n != 1 {
		t.Errorf("the other token was rotated too: generation %d", n)
	}
}

func TestOutageOfAuthenticationKillsNothing(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
	run(t, p, start.Add(hour))
	w.Outage(func(what string) error {
		if what == "verify" {
			return rotator.ErrUnauthorized
		}
		return nil
	})
	run(t, p, start.Add(12*hour))
	if w.API.Creates != 1 {
		t.Errorf("creates = %d: the list said all the time that the token is alive", w.API.Creates)
	}
}

func TestEditOfScopes(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	p := begin(t, w, e)
	run(t, p, start.Add(hour))
	e.Scopes = append(slices.Clone(e.Scopes), "leads:read")
	if err := p.Load(e); err != nil {
		t.Fatal(err)
	}
	run(t, p, start.Add(2*hour))
	if got := w.API.Creates; got != 2 {
		t.Errorf("creates = %d, want one for the edit", got)
	}
	slices.Reverse(e.Scopes)
	if err := p.Load(e); err != nil {
		t.Fatal(err)
	}
	run(t, p, start.Add(3*hour))
	if got := w.API.Creates; got != 2 {
		t.Errorf("creates = %d: another order of the same scopes is no edit", got)
	}
}

func TestRefusedEditHoldsTheEditNotTheTime(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	p := begin(t, w, e)
	run(t, p, start.Add(hour))
	w.Outage(func(what string) error {
		if what == "create" {
			return fmt.Errorf("no: %w", rotator.ErrRejected)
		}
		return nil
	})
	e.Scopes = append(slices.Clone(e.Scopes), "billing:write")
	if err := p.Load(e); err != nil {
		t.Fatal(err)
	}
	run(t, p, start.Add(2*hour))
	w.Outage(nil)
	run(t, p, start.Add(15*hour)) // midnight
	g := w.Store.Record("bot").Current(w.Now())
	if g == nil || g.Number != 2 || slices.Contains(g.Scopes, "billing:write") {
		t.Fatalf("current = %+v, want generation 2 with the scopes that worked", g)
	}
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: 2, By: "eve"}) // the API's user may have them now
	run(t, p, start.Add(16*hour))
	if g := w.Store.Record("bot").Current(w.Now()); !slices.Contains(g.Scopes, "billing:write") {
		t.Errorf("rotate did not try the edit again: %v", g.Scopes)
	}
}

func TestNarrowedSuccessorIsNotPushedBeforeItMust(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	p := begin(t, w, e)
	run(t, p, start.Add(hour))
	for n := 1; n < 2000; n++ {
		w.FaultAt(n, simulate.Narrow)
	}
	run(t, p, start.Add(20*hour)) // 06:00; the last quarter of the overlap begins at 08:05
	holds(t, w, "a", "sgpt_1")
	if n := len(live(w)); n != 1 {
		t.Errorf("live tokens = %d: the narrowed one should be revoked", n)
	}
	run(t, p, start.Add(23*hour))
	if v := w.Sinks["memory:a"].Value(); v == "sgpt_1" {
		t.Error("less is better than nothing: the narrowed one should be in place now")
	}
}

// A wish that the server answers with too little is tried once. It waits for a person then, who tries
// again by wishing again.
func TestNarrowedWishIsNotTriedInALoop(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
	run(t, p, start.Add(hour))
	for n := range 500 {
		w.FaultAt(n, simulate.Narrow)
	}
	for wishes := 1; wishes <= 2; wishes++ {
		w.Store.Ask(rotator.Ask{Entry: "bot", Than: 1, By: "eve", At: w.Now()})
		run(t, p, w.Now().Add(hour))
		if w.API.Creates != 1+wishes {
			t.Errorf("after %d wishes, %d creates", wishes, w.API.Creates-1)
		}
	}
	holds(t, w, "a", "sgpt_1")
}

func TestRemovedEntryLivesOut(t *testing.T) {
	for _, how := range []rotator.OnRemove{rotator.RemoveExpire, rotator.RemoveRevoke} {
		t.Run(string(how), func(t *testing.T) {
			w := simulate.New(start)
			e := entry(t, w, "bot", w.Outlet("a", true, false))
			e.Timing.Margin, e.Timing.Lifetime = 0, 90*hour
			e = prepared(t, e)
			e.OnRemove = how
			p := begin(t, w, e, entry(t, w, "other", w.Outlet("b", true, false)))
			run(t, p, start.Add(hour))
			if err := p.Load(entry(t, w, "other", w.Outlet("b", true, false))); err != nil {
				t.Fatal(err)
			}
			run(t, p, start.Add(8*hour))
			accepted(t, w, w.Sinks["memory:a"].Value(), true)
			run(t, p, start.Add(30*hour))
			accepted(t, w, w.Sinks["memory:a"].Value(), how == rotator.RemoveExpire)
			if n := w.Store.Record("bot").Last; n != 1 {
				t.Errorf("a removed entry was rotated: generation %d", n)
			}
		})
	}
}

func TestRemovedEntryIsNotRevokedWhileADeclaredSinkHoldsIt(t *testing.T) {
	w := simulate.New(start)
	shared := w.Outlet("a", true, false)
	e := entry(t, w, "bot", shared)
	e.Timing.Margin, e.Timing.Lifetime = 0, 90*hour
	e = prepared(t, e)
	e.OnRemove = rotator.RemoveRevoke
	run(t, begin(t, w, e), start.Add(hour))
	// Another entry takes over the place, and cannot fill it.
	w.Outage(down("create"))
	heir := entry(t, w, "heir", shared)
	p := begin(t, w, heir)
	run(t, p, start.Add(40*hour))
	accepted(t, w, "sgpt_1", true)
	w.Outage(nil)
	run(t, p, start.Add(70*hour))
	accepted(t, w, "sgpt_1", false)
	accepted(t, w, w.Sinks["memory:a"].Value(), true)
}

func TestRename(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	run(t, begin(t, w, e), start.Add(hour))
	e.Name, e.Was = "support-bot", "bot"
	run(t, begin(t, w, e), start.Add(2*hour))
	if w.API.Creates != 1 {
		t.Errorf("creates = %d: a renamed entry keeps its token", w.API.Creates)
	}
	holds(t, w, "a", "sgpt_1")
}

func TestTwoEntriesSwapTheirSinks(t *testing.T) {
	w := simulate.New(start)
	a, b := w.Outlet("a", true, false), w.Outlet("b", true, false)
	run(t, begin(t, w, entry(t, w, "one", a), entry(t, w, "two", b)), start.Add(hour))
	one, two := w.Sinks["memory:a"].Value(), w.Sinks["memory:b"].Value()
	run(t, begin(t, w, entry(t, w, "one", b), entry(t, w, "two", a)), start.Add(3*hour))
	for _, s := range []string{"a", "b"} {
		accepted(t, w, w.Sinks["memory:"+s].Value(), true)
	}
	accepted(t, w, one, true)
	accepted(t, w, two, true)
	if w.Sinks["memory:a"].Value() == w.Sinks["memory:b"].Value() {
		t.Error("both sinks hold one token")
	}
}

func TestMiserlyServerIsNotALoop(t *testing.T) {
	w := simulate.New(start)
	w.API.MaxLife = 10 * hour // overlap and margin alone need more
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
	run(t, p, start.Add(48*hour))
	if n := w.API.Creates; n < 9 || n > 11 {
		t.Errorf("creates in two days of tokens that live ten hours = %d, want about ten", n)
	}
	accepted(t, w, w.Sinks["memory:a"].Value(), true)
}

func TestStateOfAnotherDayBlocksInsteadOfGuessing(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	p := begin(t, w, e)
	run(t, p, start.Add(hour))
	backup := w.Store.Record("bot")
	run(t, p, start.Add(64*hour)) // three rotations later
	last := w.Sinks["memory:a"].Value()
	creates := w.API.Creates
	w.Store.Put(*backup)
	w.Store.Journal = nil
	p = begin(t, w, e)
	run(t, p, start.Add(65*hour))
	accepted(t, w, last, true)
	if w.API.Creates != creates {
		t.Error("an old state created a token while an unexplained one was alive")
	}
	if !strings.Contains(w.Store.Record("bot").Blocked, "unexplained") {
		t.Errorf("blocked = %q", w.Store.Record("bot").Blocked)
	}
}

// A lifetime far longer than needed keeps no old token alive for longer, and blows no fuse.
func TestGenerousLifetime(t *testing.T) {
	w := simulate.New(start)
	e := longLived(t, w, "bot", 20*day, w.Outlet("a", true, false))
	p := begin(t, w, e)
	for d := range 30 {
		run(t, p, start.Add(time.Duration(d+1)*day))
		if n := len(live(w)); n > e.Facts.Live {
			t.Fatalf("day %d: %d live tokens, and the check promised at most %d", d, n, e.Facts.Live)
		}
	}
	if w.API.Creates != 31 {
		t.Errorf("creates = %d, want the first and thirty ticks", w.API.Creates)
	}
}

// Cron runs once every so often, and nothing runs in between: one rotation a pass at most, none
// missing, and what falls due before the next pass is done in this one.
func TestOncePerPass(t *testing.T) {
	for _, tc := range []struct {
		pass, tick time.Duration
		maxLife    time.Duration // the server's; 0: none
		least      int           // creates in ten days
		most       int
	}{
		{day, day, 0, 10, 11},
		{7 * hour, day, 0, 10, 12},
		{day, hour, 0, 10, 11},
		{6 * hour, 6 * hour, 0, 40, 41},
		{day, 3 * day, 0, 3, 5},
		{12 * hour, day, 30 * hour, 10, 21},
	} {
		for _, at := range []time.Duration{0, hour, 9 * hour, 13 * hour, 14*hour - time.Second} {
			t.Run(fmt.Sprintf("every %s, tick every %s, from %s, life %s", tc.pass, tc.tick, at, tc.maxLife), func(t *testing.T) {
				w := simulate.New(start.Add(at))
				w.API.MaxLife = tc.maxLife
				guarded(t, w, 0)
				e := entry(t, w, "bot", w.Outlet("a", true, false))
				e.Timing.Schedule = every(tc.tick)
				e = prepared(t, e)
				e.Ahead = tc.pass
				for n := 0; time.Duration(n)*tc.pass < 10*day; n++ {
					w.Set(start.Add(at + time.Duration(n)*tc.pass))
					run(t, begin(t, w, e), w.Now().Add(time.Minute))
					if rec := w.Store.Record("bot"); len(rec.Posts) > e.Facts.MaxPosts() {
						t.Fatalf("pass %d: %d creates within a day", n, len(rec.Posts))
					}
				}
				if got := w.API.Creates; got < tc.least || got > tc.most {
					t.Errorf("creates in ten days = %d, want %d to %d", got, tc.least, tc.most)
				}
			})
		}
	}
}

func TestForeignTokensAreNeverTouched(t *testing.T) {
	w := simulate.New(start)
	w.API.Add(simulate.Token{ID: "theirs", Name: "a person's token", Plaintext: "sgpt_p", Created: start, Expires: start.Add(999 * hour)})
	w.API.Add(simulate.Token{ID: "twin", Name: "rotatord/other/bot#1 20270301T000000Z abcdefghijklmnop", Plaintext: "sgpt_q", Created: start, Expires: start.Add(999 * hour)})
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
	run(t, p, start.Add(100*hour))
	accepted(t, w, "sgpt_p", true)
	accepted(t, w, "sgpt_q", true)
	if f := p.Engine().Found(); f.Foreign != 1 || len(f.Others) != 1 {
		t.Errorf("found = %+v", f)
	}
}

// A save that was written, and whose answer was an error, leaves a process that lives on with an
// older version than the stored one: it reads the record again instead of failing for ever.
func TestSaveWhoseAnswerIsLostIsReadAgain(t *testing.T) {
	for n := 1; n < 20; n++ {
		w := simulate.New(start)
		p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false), w.Outlet("b", true, true)))
		w.FaultAt(n, simulate.FailAfter)
		run(t, p, start.Add(hour))
		if g := w.Store.Record("bot").Current(w.Now()); g == nil {
			t.Errorf("call %d: nothing converged within an hour:\n%s", n, strings.Join(w.Trace(), "\n"))
		}
		if n := len(live(w)); n != 1 {
			t.Errorf("live tokens = %d, want 1", n)
		}
	}
}

func TestSaveThatFailsRevokesWhatItCannotRecord(t *testing.T) {
	w := simulate.New(start)
	full := false
	w.Outage(func(what string) error {
		if what == "create" {
			full = true // from now on nothing can be recorded
		}
		if what == "save" && full {
			return errors.New("disk full")
		}
		return nil
	})
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
	run(t, p, start.Add(hour))
	if n := len(live(w)); n != 0 {
		t.Errorf("live tokens that no record knows: %d", n)
	}
	if w.API.Creates != 1 {
		t.Errorf("creates = %d while nothing could be recorded", w.API.Creates)
	}
	w.Outage(nil)
	run(t, p, start.Add(2*hour))
	if n := len(live(w)); n != 1 {
		t.Errorf("live tokens after the disk had room again: %d, want 1", n)
	}
}

func TestWishWaitsForNoBackoff(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	w.Outage(down("memory:a"))
	p := begin(t, w, e)
	run(t, p, start.Add(6*hour)) // the backoff has grown to a quarter of an hour
	next := w.Store.Record("bot").Create.At
	if left := next.Sub(w.Now()); left < time.Minute {
		t.Fatalf("the next try is %s away: this proves nothing", left)
	}
	ask := func() {
		w.Store.Ask(rotator.Ask{Entry: "bot", Than: w.Store.Record("bot").Last, By: "ops", At: w.Now()})
	}
	ask() // the sink is still down: one try, and then the backoff as before
	before := len(w.Store.Events(rotator.EventFailed))
	run(t, p, w.Now().Add(20*time.Second))
	if n := len(w.Store.Events(rotator.EventFailed)) - before; n != 1 {
		t.Errorf("a wish led to %d tries, want 1", n)
	}
	w.Outage(nil)
	run(t, p, w.Now().Add(20*time.Second))
	holds(t, w, "a", "")
	ask()
	run(t, p, w.Now().Add(20*time.Second))
	holds(t, w, "a", "sgpt_1")
}

func TestNewTokenIsPushedWithoutTheBackoffOfTheOldOne(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false), w.Outlet("b", false, false))
	p := begin(t, w, e)
	run(t, p, start.Add(hour))
	w.Outage(down("push memory:a", "push memory:b"))
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: 1, By: "ops", At: w.Now()})
	run(t, p, w.Now().Add(6*hour)) // generation 2 is made, and brought nowhere
	w.Outage(nil)
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: 2, By: "ops", At: w.Now()})
	run(t, p, w.Now().Add(20*time.Second))
	holds(t, w, "a", "sgpt_3")
	holds(t, w, "b", "sgpt_3")
}

func TestRefusedManagementTokenIsTold(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	w.Outage(func(call string) error {
		if call == "create" {
			return fmt.Errorf("%w: %w", rotator.ErrRejected, rotator.ErrUnauthorized)
		}
		return nil
	})
	p := begin(t, w, e)
	run(t, p, start.Add(hour))
	rep := rotator.Describe([]rotator.Entry{e}, []rotator.Record{*w.Store.Record("bot")}, w.Now())
	if len(rep.Problems) != 1 || rep.Problems[0].Kind != rotator.ProblemManagement {
		t.Errorf("problems = %+v, want the management token's", rep.Problems)
	}
	w.Outage(down("check memory:a"))
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: 0, By: "ops", At: w.Now()})
	run(t, p, w.Now().Add(time.Minute))
	rep = rotator.Describe([]rotator.Entry{e}, []rotator.Record{*w.Store.Record("bot")}, w.Now())
	if len(rep.Problems) != 1 || rep.Problems[0].Kind != rotator.ProblemPreflight {
		t.Errorf("problems = %+v, want the sink's", rep.Problems)
	}
	if got := rep.Problems[0].Error; strings.Contains(got, "check") {
		t.Errorf("the cause %q names the call: sinks say themselves what they did", got)
	}
}

// People have a fuse of their own: where it stops a wish, status must say so, and how to go on.
func TestBlownFuseOfWishesIsTold(t *testing.T) {
	w := simulate.New(start)
	e := entry(t, w, "bot", w.Outlet("a", true, false))
	p := begin(t, w, e)
	run(t, p, start.Add(time.Minute))
	wishes := e.Facts.MaxPosts() + 1
	for range wishes {
		w.Store.Ask(rotator.Ask{Entry: "bot", Than: w.Store.Record("bot").Last, Compromised: true, By: "ops", At: w.Now()})
		run(t, p, w.Now().Add(time.Minute))
	}
	if got := w.API.Creates; got != wishes {
		t.Errorf("creates = %d, want the first and %d that were wished for", got, wishes-1)
	}
	told := func() (fuse bool) {
		entries, records := p.Engine().Snapshot()
		rep := rotator.Describe(entries, records, w.Now())
		return slices.ContainsFunc(rep.Failing(), func(p rotator.Problem) bool { return p.Kind == rotator.ProblemFuse })
	}
	if !told() {
		t.Error("nobody is told why the wish is not fulfilled")
	}
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: w.Store.Record("bot").Last, Override: true, By: "ops", At: w.Now()})
	run(t, p, w.Now().Add(time.Minute))
	if w.API.Creates != wishes+1 || told() {
		t.Errorf("creates = %d after an override, want %d; told: %v", w.API.Creates, wishes+1, told())
	}
}
