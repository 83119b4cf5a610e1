package sitegpt_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

func TestLimiterKeepsTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := sitegpt.NewLimiter(60, time.Now)
		begun := time.Now()
		for i, want := range []time.Duration{0, 0, 0, 1, 2, 3} { // a burst of three, then one a second
			if err := l.Wait(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(begun); got != want*time.Second {
				t.Errorf("request %d after %s, want %ds", i, got, want)
			}
		}
		// More at once than a burst holds, and nothing at all.
		if err := l.Wait(t.Context(), 7); err != nil || time.Since(begun) != 10*time.Second {
			t.Errorf("seven at once after %s, %v", time.Since(begun), err)
		}
		if err := l.Wait(t.Context(), 0); err != nil || time.Since(begun) != 10*time.Second {
			t.Errorf("none after %s, %v", time.Since(begun), err)
		}
		// Requests that nobody waited for are waited for afterwards.
		l.Charge(5)
		if err := l.Wait(t.Context(), 1); err != nil || time.Since(begun) != 16*time.Second {
			t.Errorf("after five uncounted ones: %s, %v", time.Since(begun), err)
		}
	})
}

func TestLimiterWithoutARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := sitegpt.NewLimiter(0, time.Now)
		begun := time.Now()
		if err := l.Wait(t.Context(), 100_000); err != nil || time.Since(begun) != 0 {
			t.Errorf("%s, %v", time.Since(begun), err)
		}
		l.Charge(1000)
		l.Limited(time.Minute)
		if err := l.Wait(t.Context(), 1); err != nil || time.Since(begun) != time.Minute {
			t.Errorf("%s, %v", time.Since(begun), err)
		}
	})
}

func TestLimiterServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := sitegpt.NewLimiter(60, time.Now)
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if err := l.Wait(t.Context(), 1+i%3); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			})
			synctest.Wait()
		}
		wg.Wait()
		for i, got := range order {
			if got != i {
				t.Fatalf("served in the order %v", order)
			}
		}
	})
}

func TestLimiterPausesEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := sitegpt.NewLimiter(60, time.Now)
		begun := time.Now()
		if err := l.Wait(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { // waits for its turn already when the 429 comes
			if err := l.Wait(t.Context(), 3); err != nil || time.Since(begun) != 2*time.Minute+500*time.Millisecond {
				t.Errorf("who waited: %s, %v", time.Since(begun), err)
			}
		})
		time.Sleep(500 * time.Millisecond)
		l.Limited(time.Minute)
		time.Sleep(30 * time.Second)
		l.Limited(90 * time.Second) // prolonged while it lasts
		l.Limited(10 * time.Second) // never shortened
		l.Limited(0)                // and not by one that names no time
		wg.Wait()
		if err := l.Wait(t.Context(), 1); err != nil || time.Since(begun) > 2*time.Minute+2*time.Second {
			t.Errorf("afterwards: %s, %v", time.Since(begun), err)
		}
	})
}

func TestLimiterBacksOffByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := sitegpt.NewLimiter(6000, time.Now)
		pause := func() time.Duration {
			begun := time.Now()
			l.Limited(0)
			l.Limited(0) // another answer on the way at the same time
			if err := l.Wait(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			return time.Since(begun)
		}
		for _, want := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300} {
			if got := pause(); got != want*time.Second {
				t.Errorf("paused for %s, want %ds", got, want)
			}
		}
		l.Answered()
		if got := pause(); got != 5*time.Second {
			t.Errorf("after an answer: %s", got)
		}
		begun := time.Now()
		l.Limited(24 * time.Hour)
		if err := l.Wait(t.Context(), 1); err != nil || time.Since(begun) != time.Hour {
			t.Errorf("a day: %s, %v", time.Since(begun), err)
		}
	})
}

func TestLimiterWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := sitegpt.NewLimiter(60, time.Now)
		if err := l.Wait(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		for range 3 { // one whose turn it is, two behind it
			wg.Go(func() {
				if err := l.Wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 400*time.Millisecond {
					t.Errorf("%v after %s", err, time.Since(begun))
				}
			})
		}
		wg.Wait()
		// Those who gave up used nothing up.
		if err := l.Wait(t.Context(), 1); err != nil || time.Since(begun) != time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		l.Limited(time.Minute)
		if err := l.Wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// The client tells the limiter what happened; nobody else has to. The stand-in needs no network
// here, so that the clock can be the bubble's.
func TestClientTellsTheLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sandbox.New(sandbox.Options{Now: time.Now, Behavior: sandbox.Behavior{PageSize: 1}})
		l := sitegpt.NewLimiter(60, time.Now)
		c := client(t, "http://localhost", func(c *sitegpt.Config) {
			c.Transport, c.Limiter, c.Token = s.Transport(), l, s.Management
		})
		for range 3 {
			if _, err := c.Create(t.Context(), request("x")); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		wait := func(want time.Duration) {
			t.Helper()
			if err := l.Wait(t.Context(), 1); err != nil || time.Since(begun) != want {
				t.Errorf("%s, want %s: %v", time.Since(begun), want, err)
			}
		}
		if list, err := c.List(t.Context()); err != nil || len(list) != 4 { // three pages more than one
			t.Fatal(err)
		}
		wait(time.Second)
		s.Inject(sandbox.Fault{Op: sandbox.OpMe, Kind: sandbox.Limited, RetryAfter: 30 * time.Second, Times: 1})
		if err := c.Verify(t.Context(), s.Management()); class(err) != "limited" {
			t.Error(err)
		}
		wait(31 * time.Second)
		s.Inject(sandbox.Fault{Op: sandbox.OpCreate, Kind: sandbox.HangAfter, Times: 1})
		if _, err := c.Create(t.Context(), request("y")); class(err) != "unknown deadline" {
			t.Error(err)
		}
		if got := time.Since(begun); got != 51*time.Second || len(s.Tokens()) != 4 {
			t.Errorf("a create that hangs: %s, %d tokens", got, len(s.Tokens()))
		}
		var rt http.RoundTripper = s.Transport()
		s.Inject(sandbox.Fault{Op: sandbox.OpCreate, Kind: sandbox.CutAfter, Times: 1})
		s.Inject(sandbox.Fault{Op: sandbox.OpCreate, Kind: sandbox.Drop, After: 1, Times: 1})
		for range 2 {
			if _, err := c.Create(t.Context(), rotator.Request{Label: "z", Scopes: []string{"account:read"}, ExpiresAt: time.Now().Add(time.Hour)}); class(err) != "unknown" {
				t.Errorf("%T: %v", rt, err)
			}
		}
		if n := len(s.Tokens()); n != 5 {
			t.Errorf("%d tokens", n)
		}
	})
}

func TestLimiterChangesItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := sitegpt.NewLimiter(60, time.Now)
		took := func(n int) time.Duration {
			begun := time.Now()
			if err := l.Wait(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			return time.Since(begun)
		}
		took(3) // the burst
		if d := took(60); d != time.Minute {
			t.Errorf("at 60 a minute, 60 requests took %s", d)
		}
		l.SetRate(600)
		if d := took(600); d < 57*time.Second || d > time.Minute {
			t.Errorf("at 600 a minute, 600 requests took %s", d)
		}
	})
}
