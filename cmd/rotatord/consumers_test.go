//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/rotator"
)

// flagged is two tokens of one service, which is told by a flag.
func flagged(flag string) string {
	return "consumers: {bot: {flag: " + flag + "}}\ndefaults: {consumers: [bot]}\n" + more("app.env")
}

// consumers are those of a token, as status tells.
func (s *stage) consumers(token string) []rotator.ConsumerStatus {
	s.t.Helper()
	var out statusJSON
	if err := json.Unmarshal([]byte(s.run(exitOK, "status", "--json", token)), &out); err != nil {
		s.t.Fatal(err)
	}
	return out.Tokens[0].Consumers
}

func (s *stage) taken(token string, told, taken int) bool {
	s.t.Helper()
	c := s.consumers(token)
	return len(c) == 1 && c[0].Told == told && c[0].Taken == taken && c[0].Title == "bot.service"
}

func TestFlagIsRaised(t *testing.T) {
	t.Parallel()
	s := newStage(t, flagged("bot"))
	dir := filepath.Join(s.dir, "run")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	flag := filepath.Join(dir, "bot")
	raised := func() bool { _, err := os.Lstat(flag); return err == nil }
	take := func() { // as the unit does that watches it
		t.Helper()
		until(t, "the flag is raised", raised)
		if held(filepath.Join(s.dir, "app.env"), "BOT_TOKEN") == "" || held(filepath.Join(s.dir, "app.env"), "SECOND_TOKEN") == "" {
			t.Error("the flag was raised before both tokens were in their sinks")
		}
		if err := os.Remove(flag); err != nil {
			t.Fatal(err)
		}
	}
	r := s.background("RUNTIME_DIRECTORY=" + dir)
	take()
	until(t, "the first tokens are taken", func() bool { return s.taken("bot", 1, 1) && s.taken("second", 1, 1) })
	if raised() {
		t.Error("the same tokens were told twice")
	}

	// The flag stays: the state says so, through a kill.
	s.run(exitOK, "rotate", "bot")
	until(t, "it was told", func() bool { return s.taken("bot", 2, 1) })
	r.signal(syscall.SIGKILL)
	r.end(-1)
	if !raised() {
		t.Error("the flag is gone")
	}
	says(t, s.run(exitOK, "history", "bot"), "told", "bot.service")
	r = s.background("RUNTIME_DIRECTORY=" + dir)
	r.lines.wait(t, "started")
	take()
	until(t, "the second one is taken", func() bool { return s.taken("bot", 2, 2) })
	r.signal(syscall.SIGTERM)
	r.end(exitOK)

	// Without a daemon it is the same.
	s.env = map[string]string{"RUNTIME_DIRECTORY": dir}
	s.run(exitOK, "rotate", "second")
	if !s.taken("second", 2, 1) {
		t.Errorf("after rotate: %+v", s.consumers("second"))
	}
	take()
	s.run(exitOK, "once")
	if !s.taken("second", 2, 2) || raised() {
		t.Errorf("after once: %+v", s.consumers("second"))
	}
}

func TestFlagWithoutAFolder(t *testing.T) {
	t.Parallel()
	s := newStage(t, flagged("bot"))
	s.run(exitOK, "validate") // which needs no environment
	s.run(exitUsage, "once")
	says(t, s.stderr, `consumer bot: flag "bot" has no folder: set RuntimeDirectory= in the systemd unit`)
	s.write("rotation.yaml", flagged(filepath.Join(s.dir, "gone", "bot")))
	s.run(exitFailed, "once") // the tokens are made all the same
	says(t, s.stderr, "cannot be told of the new token", "folder "+filepath.Join(s.dir, "gone")+" does not exist: create it with mkdir -p")
	if n := s.api.Made(); n != 2 {
		t.Errorf("%d tokens were made, want 2", n)
	}
}
