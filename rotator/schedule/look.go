package schedule

import (
	"context"
	"log/slog"
	"time"

	"github.com/robfig/cron/v3"
)

// Every calls look at once and then at each interval, until ctx ends; then it waits for a look that
// is still running, and returns. An interval below a second counts as a second.
//
// One look runs at a time: those that would start during another are left out. A look that panics
// is logged as an error, with its stack, and the next one comes as usual. No look starts once ctx
// has ended; the one that is running sees its ctx end.
//
// Looking often, with the wall clock as an argument of the planning, is what makes suspended hosts
// and stepped clocks harmless: no timer here is longer than the interval.
func Every(ctx context.Context, interval time.Duration, log *slog.Logger, look func(context.Context)) {
	logger := cronLogger{log}
	c := cron.New(
		cron.WithLogger(logger),
		cron.WithLocation(time.UTC),
		// Recover stands inside: a panic on its way through SkipIfStillRunning would leave it
		// believing for ever that a look is still running.
		cron.WithChain(cron.SkipIfStillRunning(logger), cron.Recover(logger)),
	)
	c.Schedule(&beat{interval: max(interval, time.Second)}, cron.FuncJob(func() {
		if ctx.Err() == nil {
			look(ctx)
		}
	}))
	c.Start()
	<-ctx.Done()
	<-c.Stop().Done()
}

// beat is a cron.Schedule whose first tick is at once. Only the runner's goroutine uses it.
type beat struct {
	interval time.Duration
	begun    bool
}

// Next keeps t's monotonic clock, so that a stepped wall clock does not move the beat.
func (b *beat) Next(t time.Time) time.Time {
	if !b.begun {
		b.begun = true
		return t
	}
	return t.Add(b.interval)
}

// cronLogger keeps robfig's runner, which says something at every beat, to what matters.
type cronLogger struct{ log *slog.Logger }

// Info is called for every start, wake, run and stop. Only a skipped look is worth a line.
func (l cronLogger) Info(msg string, _ ...any) {
	if msg == "skip" {
		l.log.Debug("the last look is still running: this one is left out")
	}
}

// Error is called by Recover, with the panic and its stack.
func (l cronLogger) Error(err error, _ string, keysAndValues ...any) {
	l.log.Error("a look panicked; the next one comes as usual", append([]any{"error", err}, keysAndValues...)...)
}
