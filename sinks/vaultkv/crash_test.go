package vaultkv_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
	"github.com/rotatord/rotatord/sinks/vaultkv"
	"github.com/rotatord/rotatord/sinks/vaultkv/vaulttest"
)

// midnight ticks once a day.
type midnight struct{}

const day = 24 * time.Hour

func (midnight) Next(after time.Time) time.Time { return after.UTC().Truncate(day).Add(day) }
func (midnight) Last(at time.Time) time.Time    { return at.UTC().Truncate(day) }
func (midnight) String() string                 { return "@daily" }

// trial is a life of one token, in a real Vault of version 2 and one of version 1, in which the
// process dies before one call, and one call goes wrong.
type trial struct {
	cut, faultAt int // 0: none
	fault        simulate.Fault
}

// play plays the first token and its first rotation, and returns what broke and how many calls it took.
func (tr trial) play(t *testing.T, vault *vaulttest.Server, client *vaultkv.Client, path string) (problems []string, calls int) {
	t.Helper()
	start := time.Date(2030, 3, 1, 10, 0, 0, 0, time.UTC)
	w := simulate.New(start)
	w.ReadBack, w.Sweep = 12*time.Hour, 12*time.Hour
	// As a process has them: sinks that remember nothing of the last one.
	entry := func() rotator.Entry {
		e := rotator.Entry{
			Name: "bot", Scopes: []string{"chatbots:read"},
			Timing: rotator.Timing{Schedule: midnight{}, Overlap: 8 * time.Hour, Margin: 2 * time.Hour, Jitter: 5 * time.Minute},
		}
		e.Facts, _ = e.Timing.Check(start)
		e.Timing.Margin = e.Facts.Margin
		for _, mount := range []string{"secret", "kv1"} {
			c := vaultkv.Config{Mount: mount, Path: path, Metadata: mount == "secret"}
			c.Resolve("")
			e.Outlets = append(e.Outlets, rotator.Outlet{
				Place: c.Place(), Name: mount, Kind: vaultkv.Kind, Required: true, Sink: w.Around(c.Place(), vaultkv.New(c, client)),
			})
		}
		return e
	}
	inVault := func() map[string]string {
		data, _ := secret(t, vault, "secret/data/"+path)
		v2, _ := data["token"].(string)
		_, out := vault.Do(t, http.MethodGet, "kv1/"+path, nil)
		data, _ = out["data"].(map[string]any)
		v1, _ := data["token"].(string)
		return map[string]string{"version 2": v2, "version 1": v1}
	}
	complain := func(format string, args ...any) {
		problems = append(problems, w.Now().Format("Jan 2 15:04:05: ")+fmt.Sprintf(format, args...))
	}
	held := map[string]string{}
	w.Watch(func(w *simulate.World, what string) {
		if !strings.HasPrefix(what, "push") && what != "revoke" {
			return // nothing else changes what a sink holds, or whether it works
		}
		for place, v := range inVault() {
			switch {
			case v != "" && !w.API.Accepts(v):
				complain("after %s: %s holds a dead token", what, place)
			case v == "" && held[place] != "":
				complain("after %s: %s is empty", what, place)
			}
			held[place] = v
		}
	})
	if tr.faultAt > 0 {
		w.FaultAt(tr.faultAt, tr.fault)
	}
	end := start.Add(20 * time.Hour) // midnight is a tick; the overlap ends at 08:00
	for _, cut := range []int{tr.cut, 0} {
		w.CutAt(cut)
		p, err := w.Start(entry())
		if err == nil {
			err = p.Run(end)
		}
		if err != nil {
			complain("%v", err)
		}
		if calls == 0 {
			calls = w.Calls()
		}
		end = end.Add(6 * time.Hour)
	}
	rec := w.Store.Record("bot")
	g := rec.Current(w.Now())
	if g == nil {
		complain("no current generation in the end")
		return problems, calls
	}
	for place, v := range inVault() {
		if rotator.NewSecret(v).Hash([]byte("key of the instance")) != g.Hash {
			complain("%s does not hold the current generation", place)
		}
	}
	for _, tok := range w.API.Tokens() {
		i := slices.IndexFunc(rec.Generations, func(g rotator.Generation) bool { return g.ID == tok.ID })
		switch {
		case !tok.Live(w.Now()):
		case i < 0:
			complain("%s is an orphan", tok.ID)
		case rec.Generations[i].Number != g.Number && rec.Generations[i].RevokeAt.IsZero():
			complain("generation %d is alive and does not retire", rec.Generations[i].Number)
		}
	}
	if len(problems) > 0 {
		problems = append(problems, w.Trace()...)
	}
	return problems, calls
}

// The process dies before any call, and any call to SiteGPT, Vault or the state goes wrong in any way:
// nobody who reads Vault is ever left with a dead token, and no token is left over.
func TestCrashesAndFaultsAtEveryStep(t *testing.T) {
	vault := vaulttest.Start(t, vaulttest.TLS())
	vault.Mount(t, "kv1", "1")
	role := vault.AppRole(t, "approle", `
path "secret/data/crash/*"     { capabilities = ["create", "read", "update", "patch"] }
path "secret/metadata/crash/*" { capabilities = ["read", "patch"] }
path "kv1/crash/*"             { capabilities = ["create", "read", "update"] }
`, nil)
	client := connect(t, vault, appRole(role))
	n := 0
	play := func(tr trial) (calls int) {
		n++
		problems, calls := tr.play(t, vault, client, fmt.Sprintf("crash/%d", n))
		if len(problems) > 0 {
			t.Errorf("%+v:\n  %s", tr, strings.Join(problems, "\n  "))
		}
		return calls
	}
	calls := play(trial{})
	if calls < 20 {
		t.Fatalf("%d calls: this is no rotation", calls)
	}
	for at := 1; at <= calls && !t.Failed(); at++ {
		play(trial{cut: at})
		for _, fault := range simulate.Faults {
			play(trial{faultAt: at, fault: fault})
			play(trial{faultAt: at, fault: fault, cut: at + 1})
		}
	}
	t.Logf("%d trials of %d calls", n, calls)
}

// Vault is sealed between the create and the push: the token waits in memory, no other one is made,
// and Vault has it a minute after it is unsealed.
func TestSealedInTheMiddleOfARotation(t *testing.T) {
	vault := vaulttest.Start(t, vaulttest.TLS())
	role := vault.AppRole(t, "approle", rules, nil)
	start := time.Date(2030, 3, 1, 10, 0, 0, 0, time.UTC)
	w := simulate.New(start)
	sink := team(connect(t, vault, appRole(role)), "app")
	e := rotator.Entry{
		Name: "bot", Scopes: []string{"chatbots:read"},
		Timing:  rotator.Timing{Schedule: midnight{}, Overlap: 8 * time.Hour, Margin: 2 * time.Hour, Jitter: 5 * time.Minute},
		Outlets: []rotator.Outlet{{Place: "vault_kv:app", Name: "app", Kind: vaultkv.Kind, Required: true, Sink: w.Around("vault_kv:app", sink)}},
	}
	e.Facts, _ = e.Timing.Check(start)
	e.Timing.Margin = e.Facts.Margin
	p, err := w.Start(e)
	if err != nil {
		t.Fatal(err)
	}
	until := func(at time.Time) {
		t.Helper()
		if err := p.Run(at); err != nil {
			t.Fatal(err)
		}
	}
	until(start.Add(time.Hour))
	made := w.API.Creates
	w.Watch(func(_ *simulate.World, what string) {
		if what == "create" {
			vault.Seal(t)
		}
	})
	until(start.Add(17 * time.Hour))
	w.Watch(nil)
	if out := p.Engine().Outages(); w.API.Creates != made+1 || len(out) != 1 || !strings.Contains(out[0].Error, "503 Vault is sealed: unseal it") {
		t.Errorf("%d creates, outages %+v", w.API.Creates-made, out)
	}
	vault.Unseal(t)
	until(start.Add(17*time.Hour + time.Minute))
	value, err := sink.Read(t.Context())
	if err != nil || !w.API.Accepts(value.Reveal()) || w.API.Creates != made+1 || w.Store.Record("bot").Generations[0].Converged.IsZero() {
		t.Errorf("a minute after it was unsealed: %d creates, error %v", w.API.Creates-made, err)
	}
}
