package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt"
)

// plant makes a token at the stand-in that this state knows nothing of, and returns its id.
func (s *stage) plant(name string) string { return s.made(name, "chatbots:read").ID }

// made is a token that a person makes in the dashboard.
func (s *stage) made(name string, scopes ...string) rotator.Issued {
	s.t.Helper()
	c, err := sitegpt.New(sitegpt.Config{BaseURL: s.url, Now: s.now, Token: func() rotator.Secret { return s.api.Management() }})
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	i, err := c.Create(context.Background(), rotator.Request{Label: name, Scopes: scopes, ExpiresAt: s.now().Add(20 * 24 * time.Hour).UTC().Truncate(time.Second)})
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}

const oneOfAcme = "instance: acme\n" + oneToken

func TestOrphansCommand(t *testing.T) {
	s := newStage(t, oneOfAcme)
	s.run(exitUsage, "orphans") // there is no state yet
	s.run(exitOK, "once")
	says(t, s.run(exitOK, "orphans"), "Foreign: never touched by rotatord.", "management token of the sandbox")

	foreign := s.plant("a person's token")
	twin := s.plant("rotatord/other/bot#1 20270301T000000Z abcdefghijklmnop")
	stray := s.plant("rotatord/acme/bot#9 20270301T000000Z abcdefghijklmnop")
	out := s.run(exitOK, "orphans")
	says(t, out, "Unexplained:", stray, "Of other instances", twin, "Foreign:", foreign, "rotatord adopt NAME")

	var got orphansJSON
	if err := json.Unmarshal([]byte(s.run(exitOK, "orphans", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Format != 1 || len(got.Orphans) != 0 || len(got.Unexplained) != 1 || len(got.Others) != 1 || len(got.Foreign) != 2 {
		t.Errorf("got %+v", got)
	}

	s.run(exitUsage, "orphans", "--revoke")
	s.run(exitUsage, "orphans", stray)
	s.run(exitUsage, "orphans", "--revoke", "no-such-id", stray) // nothing of it is done
	says(t, s.run(exitOK, "orphans"), stray)
	var status statusJSON
	if err := json.Unmarshal([]byte(s.run(exitOK, "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	s.run(exitUsage, "orphans", "--revoke", status.Tokens[0].ID) // a recorded one is not an orphan
	says(t, s.run(exitOK, "orphans", "--revoke", stray), stray+" is revoked")
	if out := s.run(exitOK, "orphans"); strings.Contains(out, stray) || !strings.Contains(out, foreign) {
		t.Errorf("after the revocation:\n%s", out)
	}
	says(t, s.run(exitOK, "history", "bot"), "by hand, as an orphan")
}

func TestLostStateIsAdoptedByItself(t *testing.T) {
	s := newStage(t, oneOfAcme)
	s.run(exitOK, "once")
	token := s.token("BOT_TOKEN")
	if err := os.RemoveAll(filepath.Join(s.dir, "state")); err != nil {
		t.Fatal(err)
	}
	s.run(exitOK, "once")
	if s.token("BOT_TOKEN") != token || s.api.Made() != 1 {
		t.Errorf("%d tokens made: the one in the file works, and is the only one of its entry", s.api.Made())
	}
	s.run(exitOK, "rotate", "bot")
	if !s.api.Alive(token) || s.token("BOT_TOKEN") == token {
		t.Error("an adopted token should be rotated as any other, and keep its overlap")
	}
}

// The lost state had two live tokens: a person decides.
func TestAdoptCommandAfterALostState(t *testing.T) {
	s := newStage(t, oneOfAcme)
	s.run(exitOK, "once")
	s.run(exitOK, "rotate", "bot")
	token := s.token("BOT_TOKEN")
	if err := os.RemoveAll(filepath.Join(s.dir, "state")); err != nil {
		t.Fatal(err)
	}
	s.run(exitFailed, "once", "--patience", "1s")
	says(t, s.run(exitOK, "status"), "unexplained", "rotatord adopt bot")
	says(t, s.run(exitOK, "adopt", "bot"), "bot: adopted; generation 2 is current")
	if s.token("BOT_TOKEN") != token || s.api.Made() != 2 {
		t.Errorf("%d tokens made", s.api.Made())
	}
	s.run(exitOK, "status", "--check")
}

func TestAdoptCommandEndsAHold(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	s.write("app.env", "BOT_TOKEN=a-person-was-here\n")
	s.run(exitOK, "once")
	says(t, s.run(exitOK, "status"), "rotatord adopt bot")
	s.run(exitUsage, "adopt", "bot", "--sink", "no-such-sink")
	s.run(exitUsage, "adopt", "no-such-token")
	says(t, s.run(exitOK, "adopt", "bot"), "bot: adopted")
	if !s.api.Alive(s.token("BOT_TOKEN")) {
		t.Error("the sink was not filled")
	}
}

func TestPauseCommand(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	for _, bad := range [][]string{
		{"pause"},
		{"pause", "--until", "soon"},
		{"pause", "--until", "2020-01-01"},
		{"pause", "--until", "900d"},
		{"pause", "--until", "8h", "--end"},
		{"pause", "no-such-token", "--until", "8h"},
	} {
		s.run(exitUsage, bad...)
	}
	says(t, s.run(exitOK, "pause", "bot", "--until", "8h"), "bot: paused until")
	says(t, s.run(exitOK, "status"), "paused")
	before := s.token("BOT_TOKEN")
	s.write("rotation.yaml", strings.Replace(oneToken, "[chatbots:read]", "[chatbots:read, knowledge:read]", 1))
	s.run(exitOK, "once") // the edit makes a new token due, and is put off
	says(t, s.run(exitOK, "status"), "its rotation is due, and paused", "rotatord pause bot --end")
	if s.token("BOT_TOKEN") != before {
		t.Error("a paused token was rotated")
	}
	says(t, s.run(exitOK, "pause", "--end"), "bot: not paused")
	s.run(exitOK, "once")
	if s.token("BOT_TOKEN") == before {
		t.Error("after the pause, it was not rotated")
	}
}

func TestOverrideFuseFlag(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	for range 10 { // twice a daily tick, and eight
		s.run(exitOK, "rotate", "bot")
	}
	before := s.token("BOT_TOKEN")
	s.run(exitFailed, "rotate", "bot", "--timeout", "1s")
	says(t, s.run(exitOK, "status"), "the fuse is blown", "--override-fuse")
	s.run(exitOK, "rotate", "bot", "--override-fuse")
	if s.token("BOT_TOKEN") == before {
		t.Error("--override-fuse did not rotate")
	}
}

// A state was copied: the copy is told to be somebody else, and no longer waits for what the original made.
func TestNewInstanceCommand(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitUsage, "new-instance") // there is no state yet
	s.run(exitOK, "once")
	label := func() rotator.Label {
		tokens := s.api.Tokens()
		l, _ := rotator.ParseLabel(tokens[len(tokens)-1].Name)
		return l
	}
	was := label()
	s.plant(rotator.Label{Instance: was.Instance, Entry: "bot", Number: 2, Expires: time.Now().Add(20 * 24 * time.Hour), Nonce: rotator.NewNonce(10)}.String())
	s.run(exitOK, "once")
	out := s.run(exitOK, "status")
	says(t, out, "nothing is created: unexplained", "[waits for a person, at most until ", "rotatord new-instance")
	if strings.Contains(out, "next try") {
		t.Errorf("who has to decide is told of a try:\n%s", out)
	}
	s.run(exitUsage, "new-instance", "Not A Name")
	says(t, s.run(exitOK, "new-instance", "clone"), "is called clone from now on, and was "+was.Instance)
	s.run(exitOK, "once")
	if out := s.run(exitOK, "status"); strings.Contains(out, "unexplained") {
		t.Errorf("it still waits:\n%s", out)
	}
	s.run(exitOK, "rotate", "bot")
	if l := label(); l.Instance != "clone" {
		t.Errorf("the new token is of %s", l.Instance)
	}
	s.write("rotation.yaml", "instance: acme\n"+oneToken)
	s.run(exitUsage, "new-instance")
	says(t, s.stderr, "rotation.yaml says instance: acme")
}
