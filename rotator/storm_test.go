package rotator_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

// distant is a server that has an answer after a while, so that no request overtakes another for a
// reason that only a busy test machine has.
type distant struct{ http.RoundTripper }

func (d distant) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(100 * time.Millisecond)
	return d.RoundTripper.RoundTrip(r)
}

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
			BaseURL: "http://localhost", Token: api.Management, Transport: distant{api.Transport()}, Limiter: limiter, Now: time.Now,
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
		if most := workers * int(honest/time.Minute+1); limited == 0 || limited > most {
			t.Errorf("the server said 429 %d times, want some, and at most %d", limited, most)
		}
		for i, name := range order {
			if late := i - rank[name]; late > 3*workers {
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

// Who is told 429 again and again asks again a minute later, however long there is still time: what
// others have left is no reason to let them pass.
func TestToldToWaitAgainAndAgain(t *testing.T) {
	w := simulate.New(start)
	p := begin(t, w, entry(t, w, "bot", w.Outlet("a", true, false)))
	run(t, p, start.Add(hour))
	var asked []time.Time
	w.Outage(func(call string) error {
		if call != "create" {
			return nil
		}
		asked = append(asked, w.Now())
		after := time.Duration(0)
		if len(asked) == 20 {
			after = 10 * time.Minute
		}
		return &rotator.LimitedError{After: after, Err: errors.New("slow down")}
	})
	w.Store.Ask(rotator.Ask{Entry: "bot", Than: 1, By: "me", At: w.Now()})
	run(t, p, start.Add(2*hour))
	for i, at := range asked[1:] {
		if waited := at.Sub(asked[i]); i+1 == 20 && waited < 10*time.Minute || i+1 != 20 && waited > 66*time.Second {
			t.Errorf("after %d answers it waited %s", i+1, waited)
		}
	}
	if len(asked) < 40 || len(asked) > 70 {
		t.Errorf("asked %d times in an hour", len(asked))
	}
}
