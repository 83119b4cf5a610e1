package schedule

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// looks runs Every in a bubble, where days take no time, and stops it after a while.
func looks(t *testing.T, interval, while time.Duration, look func(ctx context.Context, n int)) (starts []time.Duration, lasted time.Duration, log string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), while)
		defer cancel()
		Every(ctx, interval, logger, func(ctx context.Context) {
			starts = append(starts, time.Since(begin)) // the race detector sees to "one at a time"
			look(ctx, len(starts))
		})
		lasted, log = time.Since(begin), lines.String()
	})
	return starts, lasted, log
}

func TestEveryLooksAtOnceAndThenAtEachInterval(t *testing.T) {
	starts, lasted, log := looks(t, 5*time.Second, 2*24*time.Hour+time.Second, func(context.Context, int) {})
	if want := 2*24*60*12 + 1; len(starts) != want {
		t.Errorf("%d looks in two days, want %d", len(starts), want)
	}
	for i, at := range starts {
		if want := time.Duration(i) * 5 * time.Second; at != want {
			t.Fatalf("look %d came after %s, want %s", i+1, at, want)
		}
	}
	if lasted != 2*24*time.Hour+time.Second {
		t.Errorf("it returned after %s", lasted)
	}
	if log != "" {
		t.Errorf("idle looks were logged:\n%.500s", log)
	}
}

func TestEveryLeavesOutLooksDuringALongOne(t *testing.T) {
	starts, _, log := looks(t, 5*time.Second, 29*time.Second, func(_ context.Context, n int) {
		if n == 2 {
			time.Sleep(12 * time.Second) // from 5 to 17
		}
	})
	want := []time.Duration{0, 5 * time.Second, 20 * time.Second, 25 * time.Second}
	if len(starts) != len(want) {
		t.Fatalf("looks at %v, want %v", starts, want)
	}
	for i := range want {
		if starts[i] != want[i] {
			t.Errorf("looks at %v, want %v", starts, want)
		}
	}
	if n := strings.Count(log, "level=DEBUG"); n != 2 || strings.Count(log, "\n") != 2 {
		t.Errorf("two looks were left out, but the log says:\n%s", log)
	}
}

// A panic neither ends the daemon nor stops its looking. With Recover and SkipIfStillRunning the
// other way round, the first panic would have been the last look.
func TestEveryOutlivesPanics(t *testing.T) {
	starts, _, log := looks(t, 5*time.Second, 16*time.Second, func(_ context.Context, n int) {
		if n < 3 {
			panic("a sink is beside itself")
		}
	})
	if len(starts) != 4 {
		t.Errorf("looks at %v", starts)
	}
	if n := strings.Count(log, "level=ERROR"); n != 2 {
		t.Errorf("%d errors for 2 panics:\n%s", n, log)
	}
	for _, want := range []string{"a sink is beside itself", "look_test.go", "stack="} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

func TestEveryWaitsForTheRunningLook(t *testing.T) {
	finished := false
	starts, lasted, _ := looks(t, 5*time.Second, 7*time.Second, func(ctx context.Context, n int) {
		if n == 2 {
			<-ctx.Done()
			time.Sleep(time.Minute) // work that must not be cut off
			finished = true
		}
	})
	if !finished || lasted != 67*time.Second {
		t.Errorf("it returned after %s, the look finished: %t", lasted, finished)
	}
	if len(starts) != 2 {
		t.Errorf("looks at %v", starts)
	}
}

func TestEveryDoesNothingOnceItsContextHasEnded(t *testing.T) {
	starts, lasted, _ := looks(t, 5*time.Second, 0, func(context.Context, int) {})
	if len(starts) != 0 || lasted != 0 {
		t.Errorf("looks at %v, returned after %s", starts, lasted)
	}
}

func TestEveryDoesNotSpin(t *testing.T) {
	starts, _, _ := looks(t, 0, 10*time.Second+1, func(context.Context, int) {})
	if len(starts) != 11 {
		t.Errorf("%d looks in ten seconds", len(starts))
	}
}
