package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/store"
)

// tell writes events into the state as it stands.
func (s *stage) tell(events ...rotator.Event) {
	s.t.Helper()
	st, err := store.Open(context.Background(), filepath.Join(s.dir, "state"), store.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := st.Tell(context.Background(), events...); err != nil {
		s.t.Error(err)
	}
	if err := st.Close(); err != nil {
		s.t.Error(err)
	}
}

// What a machine reads is what happened: nothing is lost, and nothing is a formula.
func TestHistoryForMachines(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	evil := []string{"=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "a \"b\", c\nd", "|*_`<b>"}
	for i, text := range evil {
		s.tell(rotator.Event{At: time.Now(), Kind: rotator.EventWarning, Entry: "bot", Sink: text, Detail: text, Generation: i})
	}
	want := s.journal()

	for _, args := range [][]string{{}, {"--limit", "10000"}} {
		out := s.run(exitOK, append([]string{"history", "--format", "csv"}, args...)...)
		rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
		if err != nil || len(rows) != len(want)+1 || !slices.Equal(rows[0], csvColumns[:]) {
			t.Fatalf("%d lines for %d events, %v", len(rows), len(want), err)
		}
		for i, row := range rows[1:] {
			ev := want[i]
			if at, err := time.Parse(time.RFC3339Nano, row[0]); err != nil || !at.Equal(ev.At) || row[1] != string(ev.Kind) || row[2] != ev.Entry || row[4] != ev.ID || row[13] != ev.Hash {
				t.Errorf("line %d: %q, want %+v", i, row, ev)
			}
			for _, cell := range row {
				if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
					t.Errorf("a spreadsheet calculates %q", cell)
				}
			}
			// With the lines' own \r\n, no other \r is written.
			if got := strings.TrimPrefix(row[9], "'"); got != strings.ReplaceAll(ev.Detail, "\r", "") {
				t.Errorf("%q was written as %q", ev.Detail, row[9])
			}
		}
	}
	var out struct {
		Format int             `json:"format"`
		Events []rotator.Event `json:"events"`
	}
	if err := json.Unmarshal([]byte(s.run(exitOK, "history", "--json")), &out); err != nil || out.Format != 1 || !slices.Equal(out.Events, want) {
		t.Errorf("as JSON: %d events, %v; want %d", len(out.Events), err, len(want))
	}
	if got := s.journal("--limit", "3"); !slices.Equal(got, want[len(want)-3:]) {
		t.Errorf("the last three: %+v", got)
	}
}

func TestHistoryOfWhat(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	all := s.journal()
	mid := all[len(all)/2].At
	for _, c := range []struct {
		args []string
		want func(rotator.Event) bool
	}{
		{[]string{"bot"}, func(ev rotator.Event) bool { return ev.Entry == "bot" }},
		{[]string{"b*", "bot"}, func(ev rotator.Event) bool { return ev.Entry == "bot" }},
		{[]string{"--kind", "created,configured"}, func(ev rotator.Event) bool {
			return ev.Kind == rotator.EventCreated || ev.Kind == rotator.EventConfigured
		}},
		{[]string{"--since", mid.Format(time.RFC3339Nano)}, func(ev rotator.Event) bool { return !ev.At.Before(mid) }},
		{[]string{"--until", mid.Format(time.RFC3339Nano)}, func(ev rotator.Event) bool { return ev.At.Before(mid) }},
		{[]string{"--since", "1h"}, func(rotator.Event) bool { return true }},
		{[]string{"--until", "1h"}, func(rotator.Event) bool { return false }},
		{[]string{"--since", "2020-01-02", "--until", time.Now().AddDate(0, 0, 2).Format(time.DateOnly)}, func(rotator.Event) bool { return true }},
	} {
		want := slices.DeleteFunc(slices.Clone(all), func(ev rotator.Event) bool { return !c.want(ev) })
		if got := s.journal(c.args...); !slices.Equal(got, want) {
			t.Errorf("history %v: %d events, want %d", c.args, len(got), len(want))
		}
	}
	table := s.run(exitOK, "history")
	for _, ev := range all {
		if ev.Kind == rotator.EventConverged {
			says(t, table, "next "+ev.Next.Local().Format(time.DateTime))
		}
	}
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"bto"}, `did you mean "bot"?`},
		{[]string{"bot", "nobody"}, `no token "nobody"`},
		{[]string{"--kind", "revokd"}, `did you mean "revoked"?`},
		{[]string{"--since", "yesterday"}, "how long ago"},
		{[]string{"--since", "-5h"}, "how long ago"},
		{[]string{"--since", "1h", "--until", "2h"}, "is not before"},
		{[]string{"--format", "xml"}, "table, json, jsonl, csv or report"},
		{[]string{"--format", "csv", "--json"}, "either"},
		{[]string{"--format", "report", "--limit", "5"}, "leave out --limit"},
		{[]string{"--limit", "-1"}, "number of events"},
	} {
		s.run(exitUsage, append([]string{"history"}, c.args...)...)
		says(t, s.stderr, c.says)
	}
}

// The page that an auditor asks for, of a day on which much was done by hand.
func TestReport(t *testing.T) {
	s := newStage(t, strings.Replace(oneToken, "name: bot", "name: bot_old", 1))
	s.env = map[string]string{"SUDO_USER": "alice"}
	s.run(exitOK, "once")
	s.write("rotation.yaml", strings.Replace(oneToken, "name: bot", "name: bot\n    was: bot_old", 1))
	s.run(exitOK, "once")
	s.run(exitOK, "rotate", "bot")
	s.run(exitOK, "rotate", "bot", "--compromised")
	s.run(exitOK, "once")
	s.run(exitOK, "history", "bot_old") // its earlier name
	out := s.run(exitOK, "history", "--format", "report")
	says(t, out, "# Audit report of rotatord", "There was no gap", "1 token needs a look, of 1",
		"Configuration at the end | "+s.hash(), "nothing was dropped",
		"ended generation 1 by hand", "### bot", "earlier names: bot_old",
		"tokens renamed: bot_old to bot", "generation 3", "asked: a generation newer than 1", "alice")
	if strings.Index(out, "## Gaps") > strings.Index(out, "## Tokens") || strings.Index(out, "## What people did") > strings.Index(out, "## Tokens") {
		t.Error("gaps, and what people did, come first")
	}
	// It dies, and nothing newer is there.
	s.tell(rotator.Event{At: time.Now(), Kind: rotator.EventDied, Entry: "bot", Generation: 3})
	s.tell(rotator.Event{At: time.Now(), Kind: rotator.EventRevoked, Entry: "bot", ID: "tok_stray", Detail: "by hand", By: "bob"})
	out = s.run(exitOK, "history", "bot", "--format", "report")
	says(t, out, "| bob | revoked: by hand; id tok_stray |", "**There was 1 gap, in 1 of 1 token.**\n", "goes on", "generation 3 was found to be revoked by somebody else")
	if row(out, "| bot | gap |") == "" || row(out, "| bot | 20") == "" {
		t.Errorf("no gap is told:\n%s", out)
	}
	// Long ago, there was nothing.
	says(t, s.run(exitOK, "history", "--format", "report", "--since", "2020-01-01", "--until", "2021-01-01"), "Nothing is known of any token")
	s.noPlaintext(s.token("BOT_TOKEN"))
}

// The report says who took a token, and when, and who was left with a dead one.
func TestReportTellsOfConsumers(t *testing.T) {
	hook := newReceiver(t)
	s := newStage(t, "")
	s.write("hook.secret", "shared")
	s.write("rotation.yaml", "consumers: {hook: {http: {url: \""+hook.URL+"\", secret: {file: hook.secret}}}, bot: {flag: "+filepath.Join(s.dir, "flag")+"}}\n"+
		strings.Replace(oneToken, "    sinks:", "    consumers: [hook, bot]\n    sinks:", 1))
	s.run(exitOK, "once")
	out := s.run(exitOK, "history", "--format", "report")
	says(t, out, "| bot | kept |", "| Told |")
	for _, want := range []string{`flag after [0-9]+m?s, is not known to have taken it; hook \(127\.0\.0\.1:[0-9]+\) after [0-9]+m?s \|`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%s is not said:\n%s", want, row(out, "| 1 |"))
		}
	}
	if err := os.Remove(filepath.Join(s.dir, "flag")); err != nil {
		t.Fatal(err)
	}
	hook.mu.Lock()
	hook.answer = func(int) int { return http.StatusServiceUnavailable }
	hook.mu.Unlock()
	s.run(exitOK, "once")
	s.run(exitOK, "rotate", "bot", "--compromised") // generation 1 is dead, and one of them does not know it
	out = s.run(exitOK, "history", "--format", "report")
	says(t, out, "There was no gap", "1 token needs a look, of 1", "is not known to have taken one newer than generation 1 for ", "took it after", "is not known to be told (failed 1 ×)")
}

// row is the line of a table that begins like this.
func row(text, begins string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, begins) {
			return line
		}
	}
	return ""
}

// Nothing that stands in a name or an error makes a report look otherwise than it is.
func TestReportEscapes(t *testing.T) {
	for text, want := range map[string]string{
		"a|b":                     `a\|b`,
		"x\n| forged | row |":     `x \| forged \| row \|`,
		"*bold* _it_ snake_case":  `\*bold\* \_it\_ snake_case`,
		"<script> [a](b) `c` ~d~": "\\<script\\> \\[a\\](b) \\`c\\` \\~d\\~",
		"&lt;":                    "&amp;lt;",
		"\u202eevil\x1b[2J":       "\ufffdevil\ufffd\\[2J",
	} {
		if got := escape(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	s.tell(rotator.Event{At: time.Now(), Kind: rotator.EventHeld, Entry: "bot", Place: "p", Sink: "x |\n# Forged"})
	out := s.run(exitOK, "history", "--format", "report")
	if strings.Contains(out, "\n# Forged") || !strings.Contains(out, `x \| # Forged`) {
		t.Errorf("%s", out)
	}
	width := 0
	for line := range strings.Lines(out) { // every row of a table has as many cells as its head
		n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		switch {
		case n == 0:
			width = 0
		case width == 0:
			width = n
		case n != width:
			t.Errorf("%d bars instead of %d: %s", n, width, line)
		}
	}
}

// A thousand tokens of a year: the report has the summary before the details.
func TestReportOfAThousand(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	var events []rotator.Event
	begin := time.Now().Add(-365 * 24 * time.Hour)
	for i := range 1000 {
		name := "t" + strings.Repeat("0", 3) + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		for n := 1; n <= 12; n++ {
			at := begin.Add(time.Duration(n) * 30 * 24 * time.Hour)
			ev := rotator.Event{At: at, Entry: name, Generation: n, Expires: at.Add(32 * 24 * time.Hour), Place: "p", Sink: "s", ID: "tok"}
			for _, k := range []rotator.EventKind{rotator.EventIntended, rotator.EventCreated, rotator.EventPushed, rotator.EventConverged} {
				ev.Kind = k
				events = append(events, ev)
			}
		}
	}
	s.tell(events...)
	out := s.run(exitOK, "history", "--format", "report")
	if n := strings.Count(out, "\n### "); n != 1001 {
		t.Errorf("%d tokens are told of", n)
	}
	if summary := strings.Index(out, "## Tokens"); summary < 0 || summary > strings.Index(out, "\n### ") || !bytes.Contains([]byte(out[:summary]), []byte("of 1001 tokens")) && !strings.Contains(out[:summary], "(1001)") {
		t.Errorf("it begins with %s", out[:min(len(out), 2000)])
	}
}
