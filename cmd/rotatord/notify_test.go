//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator/notify"
)

// watched is one token in a folder of its own, and people who are told of it.
func reported(notify string) string {
	return "notify:\n" + notify + strings.Replace(oneToken, "path: app.env", "path: sinks/app.env", 1)
}

// messages are what a receiver was sent.
func (r *receiver) messages(t *testing.T) (out []notify.Message) {
	t.Helper()
	for _, body := range r.got() {
		var m notify.Message
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		out = append(out, m)
	}
	return out
}

// A sink that fails, an edit that is refused, a kill in the middle: people hear of each once, with what
// to do, and of its end.
func TestPeopleAreTold(t *testing.T) {
	t.Parallel()
	people, channel := newReceiver(t), newReceiver(t)
	s := newStage(t, "")
	s.write("channel", channel.URL+"/services/hunter2\n")
	s.write("shared", "shared-secret")
	config := reported("  json: {webhook: {url: " + people.URL + "/hunter2, secret: {file: shared}}, after: 2s, on: [failing, waiting, rotated]}\n" +
		"  channel: {slack: {url: {file: channel}}, after: 2s}\n")
	s.write("rotation.yaml", config)
	dir := filepath.Join(s.dir, "sinks")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	found(t, s.examine(exitOK), "notify", works, "answers; nothing was posted (rotatord notify --test json sends a message)")
	says(t, s.run(exitOK, "notify", "--test"), "ok    json (127.0.0.1:", "took it")
	if m := people.messages(t); len(m) != 1 || m[0].Type != notify.TypeTest || len(channel.got()) != 1 || !strings.Contains(channel.got()[0], "this is a test") {
		t.Errorf("the test: %+v, %q", m, channel.got())
	}

	r := s.background()
	until(t, "the first rotation is told", func() bool { return len(people.got()) == 2 })
	if m := last(people.messages(t)); len(m.Rotated) != 1 || m.Rotated[0].Token != "bot" || m.Rotated[0].Generation != 1 {
		t.Errorf("%+v", m)
	}
	// Nobody can write there any more: root may, so the folder goes.
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(exitFailed, "rotate", "bot", "--timeout", "1s")
	until(t, "the problem is told", func() bool { return len(people.got()) == 3 && len(channel.got()) == 2 })
	m := last(people.messages(t))
	if len(m.New) != 1 || m.New[0].Count != 1 || m.New[0].Tokens[0] != "bot" || m.New[0].Breaks.IsZero() || m.Host == "" || m.Instance == "" ||
		!strings.Contains(m.New[0].Do, "→ mend the sink (rotatord doctor tries it)") || !strings.Contains(m.Text, "breaks its users in ") {
		t.Errorf("%+v", m)
	}
	until(t, "it is kept that they know", func() bool { // else they would be told again after the kill
		out := s.run(exitOK, "notify")
		return strings.Contains(out, "json knows of: ") && strings.Contains(out, "channel knows of: ")
	})
	says(t, s.run(exitOK, "notify"), "json (127.0.0.1:", "failing waiting rotated")

	r.signal(syscall.SIGKILL) // in the middle
	r.end(-1)
	r = s.background()
	r.lines.wait(t, "started")
	s.write("rotation.yaml", config+"oops: 1\n")
	until(t, "the refused edit is told", func() bool { return len(people.got()) == 4 && len(channel.got()) == 3 })
	if m := last(people.messages(t)); len(m.New) != 1 || m.New[0].Kind != "configuration" || !strings.Contains(m.Text, `unknown key "oops"`) || m.Open != 2 {
		t.Errorf("%+v", m)
	}
	s.write("rotation.yaml", config)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".gone", dir); err != nil {
		t.Fatal(err)
	}
	s.run(exitOK, "rotate", "bot")
	over := func() (n int) {
		for _, m := range people.messages(t) {
			n += len(m.Over)
		}
		return n
	}
	defer func() {
		if t.Failed() {
			t.Log(s.run(exitOK, "status"), s.run(exitOK, "notify"), people.got(), r.lines.String())
		}
	}()
	untilIn(t, 100*time.Second, "all is over", func() bool { return over() == 2 })
	all := people.messages(t)
	clear := 0
	for _, m := range all {
		if strings.Contains(m.Text, "All clear.") {
			clear++
		}
	}
	if m := last(all); clear != 1 || m.Open != 0 || len(all) > 7 {
		t.Errorf("%d all-clears in %d messages, the last: %+v", clear, len(all), m)
	}
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
	told := strings.Join(slices.Concat(people.got(), channel.got()), "\n")
	var canaries []string
	if v := held(filepath.Join(dir, "app.env"), "BOT_TOKEN"); v != "" {
		canaries = append(canaries, v)
	} else {
		t.Error("the sink holds nothing")
	}
	s.noCanary("what people were told", []byte(told+r.lines.String()), canaries...)
	if strings.Contains(told+s.output.String()+r.lines.String(), "hunter2") {
		t.Error("a URL was told")
	}
}

// untilIn is until, with more patience.
func untilIn(t *testing.T, limit time.Duration, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// A pass tells before it ends, the next one remembers, and a target that is dead is a problem.
func TestOnceTellsPeople(t *testing.T) {
	t.Parallel()
	people := newReceiver(t)
	s := newStage(t, reported("  json: {webhook: {url: "+people.URL+"/}}\n"))
	s.run(exitFailed, "once", "--patience", "1s") // there is no folder for the sink
	s.run(exitFailed, "once", "--patience", "1s")
	if m := people.messages(t); len(m) != 1 || len(m[0].New) != 1 || !strings.Contains(m[0].New[0].Error, "sinks") {
		t.Fatalf("%+v", m)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "sinks"), 0o700); err != nil {
		t.Fatal(err)
	}
	people.mu.Lock()
	people.answer = func(int) int { return http.StatusNotFound }
	people.mu.Unlock()
	s.run(exitFailed, "once", "--patience", "20s")
	says(t, s.stderr, "people cannot be told: json (127.0.0.1:", "answered 404 Not Found: is the URL, or its secret, still right?", "→ rotatord notify --test json")
	says(t, s.run(exitFailed, "status", "--check"), "✗ people cannot be told: json")
	says(t, s.run(exitOK, "notify"), "CANNOT BE TOLD since ", "tried 1 time")
	says(t, s.run(exitFailed, "notify", "--test", "js*"), "FAIL  json")
	people.mu.Lock()
	people.answer = nil
	people.mu.Unlock()
	s.run(exitOK, "once")
	if m := last(people.messages(t)); len(m.Over) != 1 || !strings.Contains(m.Text, "All clear.") {
		t.Errorf("%+v", m)
	}
	s.run(exitOK, "once")
	s.run(exitOK, "status", "--check")
	if n := len(people.got()); n != 4 { // new, refused all-clear, refused test, all-clear
		t.Errorf("%d messages", n)
	}
	s.run(exitUsage, "notify", "jsno")
	says(t, s.stderr, `there is no target "jsno" (did you mean "json"?)`)
}

// A rehearsal tells nobody, and says what it would have told.
func TestRehearsalTellsNobody(t *testing.T) {
	people := newReceiver(t)
	s := newStage(t, fmt.Sprintf("notify: {json: {webhook: {url: %s/}, on: [rotated]}}\n", people.URL)+oneToken)
	t.Chdir(s.dir)
	s.run(exitOK, "once", "--sandbox")
	says(t, s.stderr, "a rehearsal: this is what people would be told", "rotated: bot (generation 1)")
	s.run(exitOK, "notify", "--test", "--sandbox")
	says(t, s.stderr, "json would be told: rotatord", "this is a test")
	if n := len(people.got()); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}
