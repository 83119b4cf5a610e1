package management_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/management"
	"github.com/rotatord/rotatord/rotator/schedule"
	"github.com/rotatord/rotatord/rotator/simulate"
)

var key = []byte("key of the instance")

// installation is a machine on which rotatord rotates its own token, in a world that outlives it.
type installation struct {
	t      *testing.T
	w      *simulate.World
	file   string
	note   string // survives the process, as the state does
	given  string
	keeper *management.Keeper // of the running process
}

func install(t *testing.T) *installation {
	start := time.Date(2027, 1, 1, 0, 30, 0, 0, time.UTC)
	in := &installation{t: t, w: simulate.New(start), file: filepath.Join(t.TempDir(), "management"), given: "sgpt_given"}
	in.w.ReadBack, in.w.Sweep = 3*time.Hour, 6*time.Hour
	in.give("sgpt_given", 60*24*time.Hour)
	return in
}

// give is what an operator does who makes a token in the dashboard and puts it where the old one was.
func (in *installation) give(plaintext string, life time.Duration) {
	in.w.API.Add(simulate.Token{ID: plaintext, Name: "made by hand", Plaintext: plaintext, Created: in.w.Now(), Expires: in.w.Now().Add(life)})
	in.given = plaintext
}

// start is a new process: all that it knows is in the store, the file and the note.
func (in *installation) start(entries ...rotator.Entry) *simulate.Process {
	in.t.Helper()
	keeper := management.New(management.Config{
		File: in.file, Key: key,
		Given:   func() rotator.Secret { return rotator.NewSecret(in.given) },
		Note:    func(context.Context) (string, error) { return in.note, nil },
		SetNote: func(_ context.Context, n string) error { in.note = n; return nil },
		Works:   in.w.API.Verify,
		Prove: func(ctx context.Context, s rotator.Secret, id string) error {
			if err := in.w.API.Verify(ctx, s); err != nil {
				return err
			}
			listed, err := in.w.API.List(ctx)
			if err == nil && !slices.ContainsFunc(listed, func(t rotator.Listed) bool { return t.ID == id }) {
				err = fmt.Errorf("its own id is missing")
			}
			return err
		},
	})
	in.keeper = keeper
	in.w.API.Bearer = func() string { s, _ := keeper.Bearer(); return s.Reveal() }
	in.w.Through = func(api rotator.API) rotator.API { return &management.API{API: api, Keeper: keeper} }
	for i := range entries {
		if entries[i].Name == rotator.OwnName {
			entries[i].Outlets = []rotator.Outlet{keeper.Outlet()}
		}
	}
	p, err := in.w.Start(entries...)
	if err != nil {
		in.t.Fatal(err)
	}
	return p
}

// entries are rotatord's own token and one of a user, both rotated daily.
func (in *installation) entries() []rotator.Entry {
	in.t.Helper()
	daily, err := schedule.Parse("@daily", "UTC")
	if err != nil {
		in.t.Fatal(err)
	}
	timing := rotator.Timing{Schedule: daily, Overlap: 8 * time.Hour, Margin: 2 * time.Hour, Jitter: time.Minute}
	facts, problems := timing.Check(in.w.Now())
	if len(problems) > 0 {
		in.t.Fatal(problems)
	}
	return []rotator.Entry{
		{Name: rotator.OwnName, Scopes: []string{"tokens:read", "tokens:write"}, Timing: timing, Facts: facts, OnDrift: rotator.DriftRestore},
		{Name: "bot", Scopes: []string{"knowledge:read"}, Timing: timing, Facts: facts, Outlets: []rotator.Outlet{in.w.Outlet("bot", true, false)}},
	}
}

// lockedOut says that neither the operator's credential nor one in the file is accepted.
func (in *installation) lockedOut() bool {
	if in.w.API.Accepts(in.given) {
		return false
	}
	for _, s := range management.InFile(in.t, in.file) {
		if in.w.API.Accepts(s) {
			return false
		}
	}
	return true
}

// A year of daily rotations, with a crash or a fault at a random call of nearly every life, and an
// operator's credential that dies after two months: at no instant is rotatord without a token that
// works, and everything goes on.
func TestYearOfCrashes(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			in := install(t)
			entries := in.entries()
			dice := rand.New(rand.NewPCG(seed, 1))
			outs, crashes := 0, 0
			in.w.Watch(func(w *simulate.World, what string) {
				if in.lockedOut() {
					outs++
					if outs < 3 {
						t.Errorf("%s: after %q no management token works", w.Now(), what)
					}
				}
			})
			end := in.w.Now().Add(365 * 24 * time.Hour)
			for in.w.Now().Before(end) {
				switch dice.IntN(3) {
				case 0:
					in.w.FaultAt(1+dice.IntN(40), simulate.Faults[dice.IntN(len(simulate.Faults))])
				default:
					in.w.CutAt(1 + dice.IntN(40))
				}
				p := in.start(entries...)
				if err := p.Run(in.w.Now().Add(time.Duration(1+dice.IntN(72)) * time.Hour)); err != nil {
					t.Fatal(err)
				}
				if in.w.Dead() {
					crashes++
				}
				in.w.CutAt(0)
			}
			p := in.start(entries...)
			if err := p.Run(end.Add(48 * time.Hour)); err != nil {
				t.Fatal(err)
			}
			now := in.w.Now()
			for _, name := range []string{rotator.OwnName, "bot"} {
				rec := in.w.Store.Record(name)
				g := rec.Target(now)
				if g == nil || g.Converged.IsZero() {
					t.Fatalf("%s has no current generation in the end", name)
				}
				if g.Number < 365 {
					t.Errorf("%s rotated %d times", name, g.Number)
				}
				for _, tok := range in.w.API.Tokens() {
					l, ok := rotator.ParseLabel(tok.Name)
					if ok && l.Entry == name && tok.Live(now) && !slices.ContainsFunc(rec.Generations, func(g rotator.Generation) bool { return g.ID == tok.ID }) {
						t.Errorf("%s: an orphan is left: %s", name, tok.Name)
					}
				}
			}
			if _, n := in.keeper.Bearer(); n != in.w.Store.Record(rotator.OwnName).Target(now).Number {
				t.Errorf("generation %d is in use in the end", n)
			}
			if crashes < 100 {
				t.Errorf("only %d crashes", crashes)
			}
			if n := len(management.InFile(t, in.file)); n > 2 {
				t.Errorf("the file holds %d tokens", n)
			}
		})
	}
}
