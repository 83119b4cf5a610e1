package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

const ownRotated = `version: 1
api: {requests_per_minute: 6000, token: {file: given}}
daemon: {settle: 1s}
management: {schedule: "@daily"}
tokens:
  - name: bot
    scopes: [chatbots:read]
    schedule: "@daily"
    sinks:
      - env_file: {path: app.env, key: BOT_TOKEN}
`

// bearers returns which tokens made the creates so far, by id.
func (s *stage) bearers() (ids []string) {
	for _, r := range s.api.Requests() {
		if r.Op == sandbox.OpCreate {
			ids = append(ids, r.Bearer)
		}
	}
	return ids
}

// The daemon's own token is rotated like any other, takes over at once, survives restarts, and gives
// way to a credential that the operator replaces.
func TestOwnTokenRotates(t *testing.T) {
	s := newStage(t, ownRotated)
	s.env = map[string]string{"SITEGPT_API_TOKEN": ""}
	s.write("given", s.api.Management().Reveal()+"\n")
	says(t, s.run(exitOK, "validate"), "management ")
	says(t, s.run(exitOK, "plan"), "management")
	s.run(exitOK, "once")
	says(t, s.run(exitOK, "status"), "management", "1/1")
	s.run(exitOK, "rotate", "bot")
	bearers := s.bearers()
	if last := bearers[len(bearers)-1]; last == "tok_management" || last == "" {
		t.Errorf("the creates were asked for by %v: the rotated one did not take over", bearers)
	}
	s.run(exitOK, "rotate", "management")
	s.run(exitOK, "rotate", "management", "--compromised", "--now")
	s.run(exitUsage, "revoke", "management", "--generation", "3", "--force")
	says(t, s.stderr, "rotatord itself asks with", "rotatord rotate management --compromised")

	// Without the operator's credential everything goes on; with a new one, that is used.
	if err := os.Remove(filepath.Join(s.dir, "given")); err != nil {
		t.Fatal(err)
	}
	s.run(exitOK, "rotate", "bot")
	s.run(exitOK, "orphans")
	s.write("given", "sgpt_mistyped\n")
	s.run(exitOK, "rotate", "bot")
	replaced := s.made("by hand", "tokens:read", "tokens:write", "chatbots:read")
	s.write("given", replaced.Token.Reveal()+"\n")
	for range 2 {
		s.run(exitOK, "rotate", "bot")
		bearers = s.bearers()
		if last := bearers[len(bearers)-1]; last != replaced.ID {
			t.Errorf("the last create was asked for by %s, not by what the operator has just given", last)
		}
	}
	s.run(exitOK, "rotate", "management")
	s.run(exitOK, "rotate", "bot")
	bearers = s.bearers()
	if last := bearers[len(bearers)-1]; last == replaced.ID {
		t.Errorf("the one that was rotated with it did not take over from it")
	}
	if out := s.run(exitOK, "orphans"); !strings.HasPrefix(out, "Foreign") {
		t.Errorf("nobody looks after some:\n%s", out)
	}
	if plaintext.MatchString(s.output.String()) {
		t.Error("a plaintext was printed")
	}
}

// A name is taken, and without a schedule nothing is rotated.
func TestOwnTokenIsOnlyWatched(t *testing.T) {
	soon := time.Now().Add(10 * 24 * time.Hour).UTC().Format(time.DateOnly)
	s := newStage(t, strings.Replace(ownRotated, `management: {schedule: "@daily"}`, "management: {expires_at: "+soon+"}", 1))
	s.write("given", s.api.Management().Reveal()+"\n")
	s.run(exitOK, "once")
	says(t, s.stderr, "the management token expires in 9d", "→ put another one")
	says(t, s.run(exitOK, "status"), "the management token expires in 9d")
	if n := s.api.Made(); n != 1 {
		t.Errorf("%d tokens were made", n)
	}
}

// What SiteGPT tells of the credential counts, whatever the configuration says: from /me, or from
// the list for the id that /me names.
func TestOwnTokenIsWatchedAtSiteGPT(t *testing.T) {
	s := newStage(t, strings.Replace(ownRotated, `management: {schedule: "@daily"}`, "management: {expires_at: 2020-01-01}", 1))
	s.write("given", s.api.Management().Reveal()+"\n")
	s.run(exitFailed, "once")
	says(t, s.stderr, "the management token expired")
	s.api.SetBehavior(sandbox.Behavior{AnswerExpiry: true, MeMore: true})
	s.run(exitOK, "once")
	if out := s.run(exitOK, "status"); strings.Contains(out, "management") {
		t.Errorf("it lives for a year, and yet:\n%s", out)
	}
}

func TestOwnExpiry(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	current := []rotator.Record{{Name: rotator.OwnName, Generations: []rotator.Generation{{ID: "tok", Number: 1, Expires: now.Add(day), Converged: now}}}}
	for _, test := range []struct {
		seen, declared time.Duration // 0: unknown
		records        []rotator.Record
		want           string // "", warns, fails
	}{
		{},
		{seen: 31 * day},
		{seen: 30 * day, want: "warns"},
		{seen: 8 * day, want: "warns"},
		{seen: 7 * day, want: "fails"},
		{seen: -time.Hour, want: "fails"},
		{declared: 29 * day, want: "warns"},
		{declared: -day, want: "fails"},
		{seen: 90 * day, declared: -day},
		{seen: day, declared: 90 * day, want: "fails"},
		{seen: day, records: current},
		{seen: day, records: []rotator.Record{{Name: rotator.OwnName}, {Name: "bot"}}, want: "fails"},
	} {
		c := &config.Config{}
		seen := ""
		if test.seen != 0 {
			seen = now.Add(test.seen).Format(time.RFC3339)
		}
		if test.declared != 0 {
			c.Management.ExpiresAt = now.Add(test.declared)
		}
		got := ""
		for _, p := range ownExpiry(c, test.records, seen, now) {
			got = map[bool]string{false: "warns", true: "fails"}[p.Failing]
		}
		if got != test.want {
			t.Errorf("%+v: %q, want %q", test, got, test.want)
		}
	}
}

// The state belongs to one account: a credential of another one is taken for a mistake.
func TestCredentialOfAnotherAccount(t *testing.T) {
	s := newStage(t, strings.Replace(ownRotated, `management: {schedule: "@daily"}`+"\n", "", 1))
	s.write("given", s.api.Management().Reveal()+"\n")
	s.run(exitOK, "once")
	other := s.made("another user's", "tokens:read", "tokens:write", "chatbots:read")
	s.write("given", other.Token.Reveal()+"\n")
	s.api.SetBehavior(sandbox.Behavior{AnswerExpiry: true, User: "usr_other"})
	made := s.api.Made()
	s.run(exitFailed, "rotate", "bot", "--timeout", "2s")
	says(t, s.stderr, "belongs to user usr_other, and this state to user usr_sandbox", "--accept-account")
	if n := s.api.Made(); n != made {
		t.Errorf("%d tokens were made in another account", n-made)
	}
	s.run(exitOK, "once", "--accept-account")
	if n := s.api.Made(); n != made+1 {
		t.Errorf("%d tokens were made for the wish, after the account was accepted", n-made)
	}
}
