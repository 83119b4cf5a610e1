package sitegpt

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Pauses after a 429 that names no time: the first one, and where doubling ends.
const (
	firstPause = 5 * time.Second
	maxPause   = 5 * time.Minute
)

// Limiter keeps all requests to the API under one rate, whichever token or command they are for:
// the API counts the account, not the caller. It serves in the order of arrival. When the API
// answers 429 all the same, everybody pauses, also those who wait already.
type Limiter struct {
	turn chan struct{} // held while waiting: others queue behind, first come, first served
	now  func() time.Time
	rate *rate.Limiter

	mu     sync.Mutex
	paused time.Time // nobody passes before
	row    int       // pauses without a time given, since the API last answered otherwise
}

// NewLimiter returns a limiter of so many requests a minute, with bursts of a twentieth of that
// (three seconds' worth), at least one. Zero or less: no limit of our own, only the API's pauses.
func NewLimiter(perMinute int, now func() time.Time) *Limiter {
	return &Limiter{turn: make(chan struct{}, 1), now: now, rate: rate.NewLimiter(pace(perMinute))}
}

func pace(perMinute int) (limit rate.Limit, burst int) {
	if perMinute <= 0 {
		return rate.Inf, 1
	}
	return rate.Limit(float64(perMinute) / 60), max(1, perMinute/20)
}

// SetRate changes the rate, as of NewLimiter. Who waits already keeps the instant that was promised.
func (l *Limiter) SetRate(perMinute int) {
	limit, burst := pace(perMinute)
	now := l.now()
	l.rate.SetLimitAt(now, limit)
	l.rate.SetBurstAt(now, burst)
}

// Wait returns when n requests may be sent at once, or with ctx's error when it ends first; then
// nothing was used up beyond what had been granted before. n may be larger than a burst.
func (l *Limiter) Wait(ctx context.Context, n int) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return waitError(ctx)
	}
	defer func() { <-l.turn }()
	if err := ctx.Err(); err != nil {
		return waitError(ctx)
	}
	for {
		if err := l.pause(ctx); err != nil {
			return err
		}
		if n <= 0 {
			return nil
		}
		k := min(n, l.rate.Burst())
		now := l.now()
		r := l.rate.ReserveN(now, k)
		if err := sleep(ctx, r.DelayFrom(now)); err != nil {
			r.CancelAt(l.now())
			return err
		}
		n -= k // and look for a pause again: one may have begun meanwhile
	}
}

// pause waits until nobody has to pause any more. A pause can be prolonged while it lasts.
func (l *Limiter) pause(ctx context.Context) error {
	for {
		l.mu.Lock()
		d := l.paused.Sub(l.now())
		l.mu.Unlock()
		if d <= 0 {
			return nil
		}
		if err := sleep(ctx, d); err != nil {
			return err
		}
	}
}

// Limited tells the limiter of a 429: everybody pauses for after, at most an hour. Zero: the API
// named no time; then for five seconds, and twice as long each time in a row, up to five minutes.
// Several answers that arrive during one such pause count once.
func (l *Limiter) Limited(after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if after <= 0 {
		if now.Before(l.paused) {
			return
		}
		after = min(firstPause<<min(l.row, 10), maxPause)
		l.row++
	}
	if until := now.Add(min(after, maxRetryAfter)); until.After(l.paused) {
		l.paused = until
	}
}

// Answered tells the limiter that the API answered something else than 429: the next pause
// without a time starts small again.
func (l *Limiter) Answered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.now().Before(l.paused) {
		l.row = 0
	}
}

// Charge counts n requests that were sent without waiting (the further pages of a list); who
// waits next waits longer.
func (l *Limiter) Charge(n int) {
	now := l.now()
	for n > 0 {
		k := min(n, l.rate.Burst())
		l.rate.ReserveN(now, k)
		n -= k
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return waitError(ctx)
	}
}

func waitError(ctx context.Context) error {
	return fmt.Errorf("wait for the request limit: %w", ctx.Err())
}
