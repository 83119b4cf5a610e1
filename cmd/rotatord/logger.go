package main

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"

	"github.com/rotatord/rotatord/rotator"
)

// logger writes to standard error: tint on a terminal, JSON elsewhere, and without timestamps
// under the journal, which has its own.
func (a *app) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.set.LogLevel)); err != nil || strings.ContainsAny(a.set.LogLevel, "+-") {
		return nil, usage("log level %q: use debug, info, warn or error", a.set.LogLevel)
	}
	format := a.set.LogFormat
	if format == "auto" {
		format = "json"
		if terminal(a.stderr) {
			format = "tint"
		}
	}
	journal := a.set.Journal != "" && !terminal(a.stderr)
	untimed := func(groups []string, attr slog.Attr) slog.Attr {
		if journal && len(groups) == 0 && attr.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return attr
	}
	switch format {
	case "tint":
		return slog.New(tint.NewTextHandler(a.stderr, &tint.Options{
			Level: level, TimeFormat: time.TimeOnly, ReplaceAttr: untimed,
			NoColor: a.set.NoColor != "" || !terminal(a.stderr),
		})), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: untimed})), nil
	case "text":
		return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: untimed})), nil
	}
	return nil, usage("log format %q: use auto, tint, json or text", a.set.LogFormat)
}

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// tell logs what happened: one line for each event that matters to a person. Where outages are told
// of by themselves, what each token meets of them does not.
func tell(log *slog.Logger, outages bool) func([]rotator.Event) {
	return func(events []rotator.Event) {
		for _, ev := range events {
			level, msg := slog.LevelInfo, ""
			switch ev.Kind {
			case rotator.EventIntended, rotator.EventVerified,
				rotator.EventStarted, rotator.EventStopped, rotator.EventDeclined: // these three are logged by who does it
				level, msg = slog.LevelDebug, string(ev.Kind)
			case rotator.EventFailed:
				level, msg = slog.LevelWarn, ev.Detail+" failed"
				if outages && ev.Outage != "" {
					level = slog.LevelDebug
				}
			case rotator.EventRefused:
				level, msg = slog.LevelWarn, "create was refused"
			case rotator.EventLimited:
				level, msg = slog.LevelWarn, "create was rate limited"
			case rotator.EventUnknown:
				level, msg = slog.LevelWarn, "the outcome of a create is unknown"
			case rotator.EventClosed:
				msg = "the unknown create is settled"
			case rotator.EventCreated:
				msg = "created"
			case rotator.EventPushed:
				msg = "pushed"
			case rotator.EventConverged:
				msg = "promoted: every required sink holds it"
			case rotator.EventLost, rotator.EventDied, rotator.EventDrift, rotator.EventHeld, rotator.EventWarning, rotator.EventWaiting:
				level, msg = slog.LevelWarn, string(ev.Kind)
			case rotator.EventTold:
				msg = "told who uses it"
			case rotator.EventTaken:
				msg = "taken by who uses it"
			case rotator.EventOrphan:
				level, msg = slog.LevelWarn, "found an orphan"
			default:
				msg = string(ev.Kind)
			}
			var args []any
			add := func(key, value string) {
				if value != "" {
					args = append(args, key, value)
				}
			}
			add("token", ev.Entry)
			if ev.Generation > 0 {
				args = append(args, "generation", ev.Generation)
			}
			add("sink", ev.Sink)
			add("id", ev.ID)
			if ev.Kind != rotator.EventFailed {
				add("detail", ev.Detail)
			}
			add("error", ev.Error)
			if ev.Kind == rotator.EventCreated {
				args = append(args, "expires", ev.Expires.UTC().Format(time.RFC3339))
			}
			if !ev.Next.IsZero() {
				args = append(args, "next", ev.Next.UTC().Format(time.RFC3339))
			}
			add("hash", short(ev.Hash))
			add("by", ev.By)
			log.Log(nil, level, msg, args...) //nolint:staticcheck // handlers here look at no context
		}
	}
}

// terminalIn reports whether r is one.
func terminalIn(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
