package rotator

import (
	"errors"
	"fmt"
	"hash/fnv"
	"time"
)

// backoff returns how long to wait after the n-th failure in a row (n ≥ 1): doubling from two
// seconds, spread by a fifth so that tokens that fail together do not come back together, and
// never longer than longest.
func backoff(key string, n int, longest time.Duration) time.Duration {
	d := 2 * time.Second << min(max(n-1, 0), 20)
	d = min(d, longest)
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d", key, n)
	return d*9/10 + time.Duration(h.Sum32()%1000)*d/5000
}

const (
	unhurried = 15 * time.Minute // the longest wait for what breaks nobody
	urgent    = time.Minute      // and while somebody has no working token
)

// longest is a fraction of the life that is left, and no more than an hour.
func longest(left time.Duration) time.Duration {
	if left <= 0 {
		return urgent
	}
	return min(max(left/24, 10*time.Second), time.Hour)
}

// longest is how long to wait at most before the next try for the entry, as far as others than
// generation except serve its users. Who never had a token can wait for one.
func (e *Entry) longest(r *Record, now time.Time, except int) time.Duration {
	left := e.left(r, now, except)
	if left == 0 && !r.served(except) {
		return unhurried
	}
	return longest(left)
}

// patience is the number of failures after which a backoff is at its longest.
const patience = 20

// fail counts one more failure and sets the next instant, which it returns: after longest at the
// latest, unless the answer asked for more.
func (t *Retry) fail(key string, now time.Time, longest time.Duration, err error) time.Time {
	if t.Tries == 0 {
		t.Since = now
	}
	t.Tries++
	n := t.Tries
	if t.Outage = outageOf(err); t.Outage != "" {
		n = patience // its end is asked for by the engine, for all
	}
	var asked time.Duration
	if limited := (*LimitedError)(nil); errors.As(err, &limited) {
		// Who is due with many others may be told so again and again. The limiter holds everybody up; a
		// wait that grew for some would let others pass who have more life left.
		asked, longest = min(limited.After, time.Hour), min(longest, urgent)
	}
	t.At = now.Add(max(backoff(key, n, longest), asked))
	t.Error = err.Error()
	return t.At
}
