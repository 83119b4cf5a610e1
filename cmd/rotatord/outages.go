package main

import (
	"log/slog"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
)

// outageLog tells of what many sinks need and miss: once when it begins, a little later for how many
// tokens that is, then every hour, and when it is over. What each token meets meanwhile is for
// debugging, and in the history.
type outageLog struct {
	log *slog.Logger
	now func() time.Time
	of  map[string]*toldOutage
}

func newOutageLog(log *slog.Logger, now func() time.Time) *outageLog {
	return &outageLog{log: log, now: now, of: map[string]*toldOutage{}}
}

type toldOutage struct {
	since, next time.Time
}

const (
	outageCounted = time.Minute // by then everybody has met it
	outageAgain   = time.Hour
)

// look compares what is out now with what was told.
func (o *outageLog) look(now []rotator.Outage) {
	lasts := map[string]bool{}
	for _, out := range now {
		lasts[out.What] = true
		told := o.of[out.What]
		switch {
		case told == nil:
			o.of[out.What] = &toldOutage{since: out.Since, next: o.now().Add(outageCounted)}
			o.log.Warn("out of reach: its sinks wait, and nothing is created for them", "what", out.What, "error", out.Error)
		case !o.now().Before(told.next):
			told.next = o.now().Add(outageAgain)
			args := []any{"what", out.What, "since", out.Since.UTC().Format(time.RFC3339), "waiting", len(out.Waiting)}
			if !out.Breaks.IsZero() && len(out.Waiting) > 0 {
				args = append(args, "first_breaks", out.Breaks.UTC().Format(time.RFC3339))
			}
			o.log.Warn("still out of reach", append(args, "error", out.Error)...)
		}
	}
	for what, told := range o.of {
		if !lasts[what] {
			delete(o.of, what)
			o.log.Info("within reach again: what waited for it goes on", "what", what, "after", field.FormatDuration(o.now().Sub(told.since)))
		}
	}
}
