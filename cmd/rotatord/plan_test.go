package main

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// plan looks, and leaves everything as it was: the state, the sinks and SiteGPT. There is all to be
// done here that a plan can tell of.
func TestPlanChangesNothing(t *testing.T) {
	const filled = `  - {name: kb, scopes: [leads:read], schedule: "0 3 * * *", sinks: [{file: {path: kb.token}}]}
`
	s := newStage(t, oneToken+filled)
	s.run(exitOK, "once")
	s.write("app.env", "BOT_TOKEN=somebody-was-here\n")                 // drift
	if err := os.Remove(filepath.Join(s.dir, "kb.token")); err != nil { // a sink to fill
		t.Fatal(err)
	}
	s.write("rotation.yaml", strings.Replace(oneToken, "[chatbots:read]", "[leads:read]", 1)+ // another token
		strings.Replace(filled, "0 3 * * *", "0 4 * * *", 1)+ // another plan
		`  - {name: new, scopes: [leads:read], schedule: "@weekly", sinks: [{file: {path: new.token}}]}
`)
	files := func() map[string]string {
		t.Helper()
		out := map[string]string{}
		err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
			name := d.Name()
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			switch {
			case strings.HasSuffix(name, "-shm"), strings.HasSuffix(name, "-wal") && len(text) == 0:
				return nil // SQLite makes them for whoever reads; an empty log of changes has none
			case strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".lock") && len(text) == 0:
				return nil // held beside a sink's file while it is looked at
			}
			out[path] = string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before, asked := files(), len(s.api.Requests())
	for _, c := range []struct {
		args []string
		want int
	}{{nil, exitOK}, {[]string{"--offline"}, exitOK}, {[]string{"--json"}, exitOK}, {[]string{"--exit-code"}, exitChanges}} {
		out := s.run(c.want, append([]string{"plan"}, c.args...)...)
		for _, name := range []string{"bot", "kb", "new"} {
			if !strings.Contains(out, name) {
				t.Errorf("plan %v says nothing of %s: %s", c.args, name, out)
			}
		}
	}
	after := files()
	for path := range after {
		if before[path] != after[path] {
			t.Errorf("%s was %q and is %q", path, before[path], after[path])
		}
	}
	if len(after) != len(before) {
		t.Errorf("files %q, before %q", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
	}
	for _, r := range s.api.Requests()[asked:] {
		if r.Method != http.MethodGet {
			t.Errorf("SiteGPT was asked: %+v", r)
		}
	}
}

// A token that gets another name keeps its record: nothing says that it loses its users, and nobody is
// told to revoke it.
func TestWhoLooksKnowsARenaming(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	s.write("rotation.yaml", strings.Replace(oneToken, "name: bot", "name: robot\n    was: bot", 1))
	out := s.run(exitOK, "plan", "--exit-code")
	says(t, out, "  robot: nothing; next rotation ", "was bot: its record and its tokens go on under the new name", "Nothing to do.")
	for _, told := range []string{out, s.run(exitOK, "status")} {
		if strings.Contains(told, "no longer declared") || strings.Contains(told, "revoke") {
			t.Errorf("a renaming is told as a removal:\n%s", told)
		}
	}
	s.run(exitUsage, "revoke", "bot") // whoever was told so before
	says(t, s.stderr, "bot is what robot was: say rotatord revoke robot, or")
	says(t, s.run(exitOK, "status"), "robot", "current", "1/1")
	says(t, s.run(exitOK, "simulate", "--until", "10s"), "from the present state", "robot  0 ")
}

// What SiteGPT's list adds: orphans, tokens that somebody else revoked, and those that nothing explains.
func TestPlanLooksAtTheList(t *testing.T) {
	s := newStage(t, oneOfAcme+"  - {name: kb, scopes: [leads:read], schedule: \"@weekly\", sinks: [{file: {path: kb.token}}]}\n")
	s.run(exitOK, "once")
	var status statusJSON
	if err := json.Unmarshal([]byte(s.run(exitOK, "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	bot := status.Tokens[0].ID
	says(t, s.run(exitOK, "plan", "--exit-code"), "Nothing to do.")
	label := ""
	for _, l := range s.api.Live() {
		if l.ID == bot {
			label = l.Name
		}
	}
	orphan := s.plant(label)
	stray := s.plant("rotatord/acme/bot#9 20990301T000000Z abcdefghijklmnop")
	s.plant("a person's token")
	before := len(s.api.Live())
	out := s.run(exitChanges, "plan", "--exit-code")
	says(t, out, "revoke "+orphan+", an orphan: "+label, "! at SiteGPT: "+stray+" bears this instance's mark", "1 step to take now")
	if strings.Contains(out, "person") || strings.Contains(out, "replaced") {
		t.Errorf("plan tells of what is not ours, or of what is alive:\n%s", out)
	}
	s.api.Revoke(bot)
	says(t, s.run(exitChanges, "plan", "bot", "--exit-code"), "bot generation 1 ("+bot+") is not listed as alive: it is asked whether it works", "2 steps to take now")
	if out := s.run(exitOK, "plan", "kb", "--exit-code"); strings.Contains(out, "at SiteGPT") {
		t.Errorf("of kb alone:\n%s", out)
	}
	s.api.Revoke(status.Tokens[1].ID) // now the list shows none that it should, and may be anybody's
	if out := s.run(exitChanges, "plan", "--exit-code"); !strings.Contains(out, "The list proves nothing") || strings.Contains(out, "replaced") || !strings.Contains(out, "1 step to take") {
		t.Errorf("of a list without any of ours:\n%s", out)
	}
	if out := s.run(exitOK, "plan", "--offline", "--exit-code"); strings.Contains(out, "SiteGPT") {
		t.Errorf("offline:\n%s", out)
	}
	if n := len(s.api.Live()); n != before-2 {
		t.Errorf("%d tokens are alive, and were %d", n, before-1)
	}
	s.env = map[string]string{"SITEGPT_API_TOKEN": ""} // without a credential, the rest stands
	says(t, s.run(exitOK, "plan", "--exit-code"), "SiteGPT's list was not looked at: ", "bot: nothing; next rotation")
}

// A sink that goes from one token to another holds the first one's value, which rotatord did put there.
func TestPlanKnowsWhoseValueANewSinkHolds(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	s.write("rotation.yaml", strings.Replace(oneToken, "name: bot", "name: robot", 1))
	out := s.run(exitOK, "plan", "robot")
	if says(t, out, "holds generation 1 of bot: it would be overwritten"); strings.Contains(out, "did not put there") {
		t.Errorf("plan takes our own token for a stranger's:\n%s", out)
	}
}

// A revocation whose time has come, and that waits, is no step: plan says for whom it waits.
func TestPlanKnowsWhoStillNeedsAToken(t *testing.T) {
	t.Parallel()
	const config = `version: 1
instance: acme
daemon: {settle: 1s}
consumers: {bot: {exec: {command: [/bin/sh, -c, "exit $(cat exit)"]}}}
tokens: [{name: bot, scopes: [leads:read], schedule: "@daily", overlap: 12h, margin: 5h, jitter: 0, consumers: [bot], sinks: [{file: {path: token}}]}]
`
	// overdue has generation 1 wait for its end for an hour, and generation 2 in the sink.
	overdue := func(told string) *stage {
		t.Helper()
		s := newStage(t, config)
		at := time.Date(2027, 1, 4, 5, 0, 0, 0, time.UTC)
		s.now = func() time.Time { return at }
		s.write("exit", "0")
		s.run(exitOK, "once", "--next-pass", "1s")
		at = at.Add(time.Hour)
		s.write("rotation.yaml", strings.Replace(config, "leads", "chatbots", 1))
		s.write("exit", told)
		s.try("once", "--patience", "0", "--next-pass", "1s")
		at = at.Add(13 * time.Hour)
		return s
	}
	plan := func(s *stage, want int, wants, not string) {
		t.Helper()
		if code, out := s.try("plan", "--exit-code"); code != want || !strings.Contains(out, wants) || strings.Contains(out, not) {
			t.Errorf("exit code %d, %q wanted, and %q not:\n%s", code, wants, not, out)
		}
	}
	plan(overdue("4"), exitOK, "generation 1 should be revoked, and waits: bot (sh) has not taken a newer one", "+ bot")
	s := overdue("0")
	plan(s, exitChanges, "+ bot: revoke generation 1", "waits")
	path := filepath.Join(s.dir, "token")
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	plan(s, exitOK, "cannot be read, and may hold it", "+ bot")
}
