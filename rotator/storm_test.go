package rotator_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

// A thousand tokens are due at once, and the server allows a fiftieth of the requests that we thought
// it would. The limiter pauses everybody at the first no of a minute, who has the least life left
// goes first, and everybody's turn comes.
func TestStormOfLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tokens, workers = 1000, 16
		const thought, allowed = 6000, 120 // requests a minute
		world := simulate.New(time.Now())
		api := sandbox.New(sandbox.Options{Now: time.Now, Behavior: sandbox.Behavior{AnswerExpiry: true}})
		limiter := sitegpt.NewLimiter(thought, time.Now)
		client, err := sitegpt.New(sitegpt.Config{
			BaseURL: "http://localhost", Token: api.Management, Transport: api.Transport(), Limiter: limiter, Now: time.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		engine := rotator.New(rotator.Config{
			API: client, Store: world.Store, Key: []byte("key of the instance"), Instance: "test",
			Now: time.Now, Pace: limiter.Wait, Workers: workers, Sweep: 24 * hour,
		})
		// Their lives differ, and not in the order of their names.
		var entries []rotator.Entry
		rank := map[string]int{} // 0: the least life left
		for i, at := range rand.New(rand.NewPCG(1, 1)).Perm(tokens) {
			e := longLived(t, world, fmt.Sprintf("t%d", i), 60*hour+time.Duration(at)*time.Minute, world.Outlet(fmt.Sprintf("t%d", i), true, false))
			entries = append(entries, e)
			rank[e.Name] = at
		}
		if err := engine.Load(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
		run := func(until time.Time) {
			for time.Now().Before(until) {
				engine.Look(t.Context(), t.Context())
				time.Sleep(10 * time.Second)
			}
		}
		run(time.Now().Add(5 * time.Minute))
		if api.Made() != tokens {
			t.Fatalf("%d tokens to begin with", api.Made())
		}

		asked := time.Now()
		api.SetBehavior(sandbox.Behavior{AnswerExpiry: true, RequestsPerMinute: allowed})
		for _, e := range entries {
			world.Store.Ask(rotator.Ask{Entry: e.Name, Than: 1, By: "eve", At: asked})
		}
		// Two requests each: the create, and the proof that it works.
		honest := tokens * 2 / allowed * time.Minute
		run(asked.Add(honest * 3 / 2))
		engine.Wait()

		limited := 0
		made := map[string]time.Time{}
		var order []string
		for _, r := range api.Requests() {
			if r.At.Before(asked) {
				continue
			}
			if r.Status == 429 {
				limited++
			}
			if l, ok := rotator.ParseLabel(r.Label); ok && r.Status == 201 {
				if !made[l.Entry].IsZero() {
					t.Errorf("%s was rotated twice", l.Entry)
				}
				made[l.Entry] = r.At
				order = append(order, l.Entry)
			}
		}
		if len(made) != tokens {
			t.Errorf("%d of %d tokens were rotated within %s", len(made), tokens, honest*3/2)
		}
		// Once a minute the server says no to those who are just at it; then all of them wait.
		if most := workers / 2 * int(honest/time.Minute+1); limited == 0 || limited > most {
			t.Errorf("the server said 429 %d times, want some, and at most %d", limited, most)
		}
		for i, name := range order {
			if late := i - rank[name]; late > 8*workers {
				t.Errorf("%s has the %d. least life left, and came as the %d.", name, rank[name]+1, i+1)
			}
		}
		for name, s := range world.Sinks {
			if v := s.Value(); !api.Alive(v) {
				t.Errorf("%s holds a dead token", name)
			}
		}
		if n := len(api.Live()); n != 2*tokens {
			t.Errorf("%d tokens live, want %d and their predecessors", n, tokens)
		}
	})
}
