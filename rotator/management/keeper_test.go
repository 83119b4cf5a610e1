package management_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/management"
	"github.com/rotatord/rotatord/rotator/simulate"
)

const day = 24 * time.Hour

// run lets a fresh process work until an instant, and returns the generation in use then.
func (in *installation) run(d time.Duration, entries ...rotator.Entry) int {
	in.t.Helper()
	if err := in.start(entries...).Run(in.w.Now().Add(d)); err != nil {
		in.t.Fatal(err)
	}
	_, n := in.keeper.Bearer()
	return n
}

// A credential that the operator has just replaced wins over every rotated one, at once and after a
// restart, until a rotation that was made with it has a successor.
func TestReplacedCredentialWins(t *testing.T) {
	for _, restart := range []bool{false, true} {
		in := install(t)
		entries := in.entries()
		if n := in.run(3*day, entries...); n < 3 {
			t.Fatalf("generation %d is in use", n)
		}
		p := in.start(entries...)
		if err := p.Run(in.w.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		in.give("sgpt_replaced", 300*day)
		if restart {
			in.start(entries...)
		}
		if err := in.keeper.Choose(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s, n := in.keeper.Bearer(); n != 0 || s.Reveal() != "sgpt_replaced" {
			t.Fatalf("restart %v: generation %d is in use, not what the operator has just given", restart, n)
		}
		// It still wins after another restart, and what it rotates is taken over from then on.
		p = in.start(entries...)
		if err := in.keeper.Choose(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, n := in.keeper.Bearer(); n != 0 {
			t.Errorf("restart %v: after a restart, generation %d is in use again", restart, n)
		}
		last := in.w.Store.Record(rotator.OwnName).Last
		in.w.Store.Ask(rotator.Ask{Entry: rotator.OwnName, Than: last, At: in.w.Now(), By: "me"})
		if err := p.Run(in.w.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, n := in.keeper.Bearer(); n != last+1 || len(management.InFile(t, in.file)) != 2 {
			t.Errorf("restart %v: generation %d is in use, and %d are kept", restart, n, len(management.InFile(t, in.file)))
		}
		if err := p.Run(in.w.Now().Add(2 * day)); err != nil {
			t.Fatal(err)
		}
		if _, n := in.keeper.Bearer(); n <= last {
			t.Errorf("restart %v: two days later generation %d is in use, and not a newer one than %d", restart, n, last)
		}
		if n := in.run(time.Hour, entries...); n <= last {
			t.Errorf("restart %v: after a restart two days later generation %d is in use", restart, n)
		}
	}
}

// A replacement that does not work does not lock out: the rotated one goes on.
func TestReplacementThatDoesNotWork(t *testing.T) {
	in := install(t)
	entries := in.entries()
	before := in.run(3*day, entries...)
	in.given = "sgpt_mistyped"
	if n := in.run(time.Hour, entries...); n != before {
		t.Errorf("generation %d is in use instead of %d", n, before)
	}
}

// Somebody revokes the rotated one in the dashboard: the one before asks for a successor; without
// that one too, the operator's does; without all three, everybody is told, and the first credential
// that works ends it.
func TestRevokedByHand(t *testing.T) {
	in := install(t)
	entries := in.entries()
	n := in.run(5*day+2*time.Hour, entries...) // two are alive: the overlap is eight hours
	kill := func(numbers ...int) {
		for _, g := range in.w.Store.Record(rotator.OwnName).Generations {
			for _, n := range numbers {
				if g.Number == n {
					in.w.API.Kill(g.ID)
				}
			}
		}
	}
	in.w.API.Kill("sgpt_given")
	kill(n)
	if got := in.run(2*time.Hour, entries...); got != n+1 {
		t.Fatalf("generation %d is in use, after %d was revoked by hand", got, n)
	}
	in.give("sgpt_second", 90*day)
	kill(n-1, n, n+1)
	if got := in.run(2*time.Hour, entries...); got != n+2 {
		t.Fatalf("generation %d is in use, after all others were revoked by hand", got)
	}
	kill(n+1, n+2)
	in.w.API.Kill("sgpt_second")
	p := in.start(entries...)
	if err := p.Run(in.w.Now().Add(day)); err != nil {
		t.Fatal(err)
	}
	err := in.keeper.Choose(t.Context())
	if !errors.Is(err, rotator.ErrUnauthorized) || !strings.Contains(err.Error(), "the given credential") {
		t.Errorf("told is: %v", err)
	}
	rep := rotator.Describe(entries, []rotator.Record{*in.w.Store.Record("bot")}, in.w.Now())
	if len(rep.Problems) == 0 || rep.Problems[0].Kind != rotator.ProblemManagement {
		t.Errorf("problems: %+v", rep.Problems)
	}
	in.give("sgpt_rescue", 90*day)
	if err := p.Run(in.w.Now().Add(2 * time.Hour)); err != nil { // no restart is needed
		t.Fatal(err)
	}
	for _, name := range []string{rotator.OwnName, "bot"} {
		if g := in.w.Store.Record(name).Target(in.w.Now()); g == nil || g.Converged.IsZero() {
			t.Errorf("%s has no token, after the operator gave a new credential", name)
		}
	}
}

// The old one is the way back until the new one has made a token.
func TestOldOneStaysUntilTheNewOneWorked(t *testing.T) {
	in := install(t)
	own := in.entries()[:1]
	own[0].Timing.Lifetime = 20 * day // long enough that nothing expires by itself
	own[0].Timing.Margin = 0
	facts, problems := own[0].Timing.Check(in.w.Now())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	own[0].Facts, own[0].Timing.Margin = facts, facts.Margin
	n := in.run(30*time.Hour, own...)
	in.w.Store.Ask(rotator.Ask{Entry: rotator.OwnName, Than: n, At: in.w.Now(), By: "me"})
	if got := in.run(time.Hour, own...); got != n+1 {
		t.Fatalf("generation %d is in use", got)
	}
	// Until the next midnight nobody makes anything, for more than the overlap.
	in.run(12*time.Hour, own...)
	rec := in.w.Store.Record(rotator.OwnName)
	if g := rec.Generation(n); !g.Live(in.w.Now()) || !g.RevokeAt.Before(in.w.Now()) {
		t.Fatalf("the old one: %+v", g)
	}
	rep := rotator.Describe(own, []rotator.Record{*rec}, in.w.Now())
	if len(rep.Problems) > 0 || rep.Tokens[0].Retiring[0].Waits == "" {
		t.Errorf("status: %+v", rep)
	}
	in.run(20*time.Hour, own...)
	if g := in.w.Store.Record(rotator.OwnName).Generation(n); g != nil && g.Live(in.w.Now()) {
		t.Errorf("the old one is alive after the new one has made a token")
	}
}

// Nobody can wish the daemon locked out.
func TestOwnTokenIsReplacedBeforeItDies(t *testing.T) {
	in := install(t)
	entries := in.entries()
	n := in.run(2*day, entries...)
	in.w.API.Kill("sgpt_given")
	for _, ask := range []rotator.Ask{{Revoke: n}, {Than: n, Now: true, Compromised: true}} {
		ask.Entry, ask.At, ask.By = rotator.OwnName, in.w.Now(), "me"
		in.w.Store.Ask(ask)
		in.w.Watch(func(*simulate.World, string) {
			if in.lockedOut() {
				t.Fatalf("locked out by %+v", ask)
			}
		})
		if got := in.run(time.Hour, entries...); ask.Revoke != 0 && got != n {
			t.Errorf("generation %d is in use, after somebody wished for the death of the only one", got)
		}
	}
	rec := in.w.Store.Record(rotator.OwnName)
	if g := rec.Generation(n); g.Live(in.w.Now()) {
		t.Error("the compromised one is alive, though it was replaced")
	}
	if g := rec.Target(in.w.Now()); g == nil || g.Number <= n {
		t.Errorf("target: %+v", g)
	}
}

// The file is lost, or spoilt: what rotates next writes it anew.
func TestFileIsLost(t *testing.T) {
	for name, spoil := range map[string]func(file string) error{
		"removed": os.Remove,
		"spoilt": func(file string) error {
			return os.WriteFile(file, []byte("\x00 what\nis this\n7\n-1 sgpt_x\n"), 0o600)
		},
	} {
		in := install(t)
		entries := in.entries()
		n := in.run(2*day+time.Hour, entries...)
		if err := spoil(in.file); err != nil {
			t.Fatal(err)
		}
		if got := in.run(time.Hour, entries...); got != n+1 {
			t.Errorf("%s: generation %d is in use", name, got)
		}
		if held := management.InFile(t, in.file); len(held) != 1 || !in.w.API.Accepts(held[0]) {
			t.Errorf("%s: the file holds %d tokens", name, len(held))
		}
	}
}

// A new token that may not do the job never takes over.
func TestProofComesBeforeTheSwitch(t *testing.T) {
	in := install(t)
	entries := in.entries()
	n := in.run(2*day+time.Hour, entries...)
	in.w.API.HideAfter = 1000 * day // its own id is not listed
	in.w.Store.Ask(rotator.Ask{Entry: rotator.OwnName, Than: n, At: in.w.Now(), By: "me"})
	if got := in.run(2*time.Hour, entries...); got != n {
		t.Errorf("generation %d is in use, which did not prove itself", got)
	}
	rep := rotator.Describe(entries[:1], []rotator.Record{*in.w.Store.Record(rotator.OwnName)}, in.w.Now())
	if len(rep.Problems) == 0 || !strings.Contains(rep.Problems[0].Error, "cannot take over") {
		t.Errorf("problems: %+v", rep.Problems)
	}
	in.w.API.HideAfter = 0
	if got := in.run(2*time.Hour, entries...); got <= n {
		t.Errorf("generation %d is in use", got)
	}
	if st, err := os.Stat(in.file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}
