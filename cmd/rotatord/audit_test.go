package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
)

// journal is all that happened, as anybody reads it.
func (s *stage) journal(args ...string) (events []rotator.Event) {
	s.t.Helper()
	for line := range strings.Lines(s.run(exitOK, append([]string{"history", "--format", "jsonl"}, args...)...)) {
		var ev rotator.Event
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		events = append(events, ev)
	}
	return events
}

// newest returns the newest event of a kind, and how many there are.
func newest(events []rotator.Event, kind rotator.EventKind) (ev rotator.Event, n int) {
	for _, e := range events {
		if e.Kind == kind {
			ev, n = e, n+1
		}
	}
	return ev, n
}

func (s *stage) hash() string {
	s.t.Helper()
	source, err := config.Read(filepath.Join(s.dir, "rotation.yaml"))
	if err != nil {
		s.t.Fatal(err)
	}
	return source.Hash()
}

// Every command that changes something says in the journal who wanted it.
func TestEveryCommandSaysWhoAsked(t *testing.T) {
	s := newStage(t, oneToken)
	s.env = map[string]string{"SUDO_USER": "alice"}
	a := &app{environment: environment{getenv: func(string) string { return "alice" }}}
	me := a.whoami()
	if !strings.Contains(me, "(") {
		t.Fatalf("whoami is %q: it does not tell who that was before sudo", me)
	}
	s.run(exitOK, "once")
	foreign := func() string {
		body := fmt.Sprintf(`{"name": "somebody else's", "scopes": ["leads:read"], "expiresAt": %q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/api/v2/tokens", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.api.Management().Reveal())
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		for _, tok := range s.api.Live() {
			if tok.Name == "somebody else's" {
				return tok.ID
			}
		}
		t.Fatalf("%s: no token was made", resp.Status)
		return ""
	}
	for _, c := range []struct {
		args []string
		kind rotator.EventKind
		says string
	}{
		{[]string{"rotate", "bot"}, rotator.EventAsked, "newer than 1"},
		{[]string{"rotate", "bot", "--override-fuse"}, rotator.EventAsked, "whatever the fuse says"},
		{[]string{"rotate", "bot", "--compromised"}, rotator.EventRevoked, "a person asked for it"},
		{[]string{"revoke", "bot", "--generation", "4", "--force"}, rotator.EventAsked, "revoke generation 4"},
		{[]string{"adopt", "bot"}, rotator.EventAsked, "adopt"},
		{[]string{"pause", "bot", "--until", "8h"}, rotator.EventPaused, "nothing is created"},
		{[]string{"pause", "bot", "--end"}, rotator.EventReleased, "the pause is over"},
		{[]string{"orphans", "--revoke", "FOREIGN"}, rotator.EventAsked, "as an orphan"},
		{[]string{"orphans", "--revoke", "FOREIGN"}, rotator.EventRevoked, "by hand"},
		{[]string{"new-instance", "other"}, rotator.EventRenamed, "other"},
		{[]string{"once", "--accept-account"}, rotator.EventStarted, "rotatord once"},
	} {
		_, before := newest(s.journal(), c.kind)
		if i := slices.Index(c.args, "FOREIGN"); i >= 0 {
			c.args[i] = foreign()
		}
		s.run(exitOK, c.args...)
		ev, n := newest(s.journal(), c.kind)
		if n <= before || ev.By != me || !strings.Contains(ev.Detail, c.says) {
			t.Errorf("rotatord %v: the journal says %+v (%d of them, %d before), want by %q: %s", c.args, ev, n, before, me, c.says)
		}
	}
	var accounts []rotator.Event
	for _, ev := range s.journal() {
		if ev.Kind == rotator.EventAccount {
			accounts = append(accounts, ev)
		}
	}
	if len(accounts) != 2 || accounts[0].By != me || !strings.Contains(accounts[0].Detail, s.url) || !strings.Contains(accounts[1].Detail, "operator's credential") {
		t.Errorf("of the account, the journal tells %+v", accounts)
	}
	for _, ev := range s.journal() {
		if ev.Kind == rotator.EventStarted && (ev.Version != buildVersion() || ev.By != me) {
			t.Errorf("a start tells %+v", ev)
		}
	}
}

// The journal tells which configuration was in force from when on, and what was refused.
func TestJournalTellsOfConfigurations(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	ev, n := newest(s.journal(), rotator.EventConfigured)
	if n != 1 || ev.Hash != s.hash() || !strings.Contains(ev.Detail, "tokens added: bot") {
		t.Errorf("the first configuration: %d times, %+v", n, ev)
	}
	first := s.hash()
	s.run(exitOK, "once")
	if _, n := newest(s.journal(), rotator.EventConfigured); n != 1 {
		t.Errorf("the same configuration is told of %d times", n)
	}

	two := oneToken + "  - {name: kb, scopes: [leads:read], schedule: \"@weekly\", sinks: [{env_file: {path: app.env, key: KB}}]}\n"
	s.write("rotation.yaml", two)
	s.run(exitOK, "once")
	ev, n = newest(s.journal(), rotator.EventConfigured)
	if n != 2 || ev.Hash != s.hash() || !strings.Contains(ev.Detail, "was "+first[:12]) || !strings.Contains(ev.Detail, "tokens added: kb") {
		t.Errorf("another one: %d times, %+v", n, ev)
	}

	s.write("rotation.yaml", two+"nonsense: 1\n")
	bad := s.hash()
	for range 3 {
		s.run(exitUsage, "once")
	}
	ev, n = newest(s.journal(), rotator.EventDeclined)
	if n != 1 || ev.Hash != bad || !strings.Contains(ev.Error, "nonsense") {
		t.Errorf("a refused one, three times: told %d times, %+v", n, ev)
	}
	s.write("rotation.yaml", two)
	s.run(exitOK, "once") // undone
	s.write("rotation.yaml", two+"nonsense: 1\n")
	s.run(exitUsage, "once")
	if _, n = newest(s.journal(), rotator.EventDeclined); n != 2 {
		t.Errorf("refused again after it was right: told %d times", n)
	}
	s.write("rotation.yaml", "version: 1\ntokens: []\n")
	s.run(exitOK, "once", "--allow-empty")
	if ev, _ = newest(s.journal(), rotator.EventConfigured); !strings.Contains(ev.Detail, "tokens removed: bot, kb") || !strings.Contains(ev.Detail, "--allow-empty") {
		t.Errorf("an empty one: %+v", ev)
	}
}

// A daemon's start and its end are told, and an edit that it takes over while it runs; one end is
// missing after a crash.
func TestJournalTellsOfTheDaemon(t *testing.T) {
	s := newStage(t, oneToken)
	stop := s.daemon()
	s.write("rotation.yaml", strings.ReplaceAll(oneToken, "[chatbots:read]", "[chatbots:read, leads:read]"))
	s.run(exitOK, "reload")
	s.write("rotation.yaml", oneToken+"nonsense: 1\n")
	s.run(exitUsage, "reload")
	s.run(exitUsage, "reload")
	stop()
	events := s.journal()
	for kind, want := range map[rotator.EventKind]int{
		rotator.EventStarted: 1, rotator.EventStopped: 1, rotator.EventConfigured: 2, rotator.EventDeclined: 1,
	} {
		if ev, n := newest(events, kind); n != want || ev.By == "" {
			t.Errorf("%s: %d times, want %d; the last one is %+v", kind, n, want, ev)
		}
	}
	asked := 0
	for _, ev := range events {
		if ev.Kind == rotator.EventAsked && ev.Detail == "read the configuration again" && ev.By != "" {
			asked++
		}
	}
	if ev, _ := newest(events, rotator.EventConfigured); asked != 3 || !strings.Contains(ev.Detail, "tokens changed: bot (scopes)") {
		t.Errorf("%d reloads were asked for; the last configuration: %+v", asked, ev)
	}
	if end := events[len(events)-1]; end.Kind != rotator.EventStopped {
		t.Errorf("the last event is %+v", end)
	}
}

func TestWhoami(t *testing.T) {
	for _, c := range [][3]string{
		{"root", "alice", "root (alice)"},
		{"root", "", "root"},
		{"alice", "alice", "alice"},
		{"root", "uid 1000", "root (uid 1000)"},
		{"root", "EXAMPLE\\alice", `root (EXAMPLE\alice)`},
		{"root", "alice) and (bob", "root"},
		{"root", "ali\nce", "root"},
		{"root", strings.Repeat("a", 65), "root"},
	} {
		if got := signed(c[0], c[1]); got != c[2] {
			t.Errorf("%q before %q: %q, want %q", c[0], c[1], got, c[2])
		}
	}
	for uid, want := range map[string]string{"4294967295": "", "": "", "nobody": "", "4294967294": "uid 4294967294", "0": "root"} {
		if _, err := os.Stat("/etc/passwd"); err != nil && uid == "0" {
			continue
		}
		if got := loginName(uid); got != want {
			t.Errorf("login %q is %q, want %q", uid, got, want)
		}
	}
}
