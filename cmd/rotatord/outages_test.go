package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// Three hours of an outage that forty tokens share are five lines, not thousands.
func TestAnOutageIsToldOnceAndThenSummed(t *testing.T) {
	var text bytes.Buffer
	now := time.Date(2030, 1, 2, 3, 0, 0, 0, time.UTC)
	begun := now
	o := newOutageLog(slog.New(slog.NewTextHandler(&text, nil)), func() time.Time { return now })
	quiet := tell(o.log, true)
	out := []rotator.Outage{{What: "vault", Error: "it is sealed", Since: now, Waiting: []string{"a", "b"}, Breaks: now.Add(9 * time.Hour)}}
	for ; now.Before(begun.Add(3 * time.Hour)); now = now.Add(2 * time.Second) {
		o.look(out)
		quiet([]rotator.Event{{Kind: rotator.EventFailed, Entry: "a", Detail: "push", Error: "it is sealed", Outage: "vault"}})
	}
	o.look(nil)
	o.look(nil)
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d lines:\n%s", len(lines), &text)
	}
	for i, want := range []string{
		`level=WARN msg="out of reach: its sinks wait, and nothing is created for them" what=vault error="it is sealed"`,
		`level=WARN msg="still out of reach" what=vault since=2030-01-02T03:00:00Z waiting=2 first_breaks=2030-01-02T12:00:00Z error="it is sealed"`,
		`level=WARN msg="still out of reach"`,
		`level=WARN msg="still out of reach"`,
		`level=INFO msg="within reach again: what waited for it goes on" what=vault after=3h`,
	} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d is %s\nwant %s", i, lines[i], want)
		}
	}
	text.Reset()
	tell(o.log, false)([]rotator.Event{{Kind: rotator.EventFailed, Entry: "a", Detail: "push", Error: "it is sealed", Outage: "vault"}})
	if !strings.Contains(text.String(), "push failed") {
		t.Errorf("a command does not say why it failed: %s", &text)
	}
}
