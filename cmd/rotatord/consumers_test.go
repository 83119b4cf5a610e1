//go:build linux

package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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

// talked is one token and consumers that are told by programs and by a receiver.
func talked(consumers string) string {
	return "consumers:\n" + consumers + strings.Replace(oneToken, "    sinks:", "    consumers: [slow, quick, hook]\n    sinks:", 1)
}

// receiver is a server that consumers and people are told by, and what it was sent.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(n int) int // the status of the n-th message, from 1
	bodies []string
	ids    []string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		code := http.StatusOK
		if req.Method == http.MethodPost {
			r.bodies, r.ids = append(r.bodies, string(b)), append(r.ids, req.Header.Get("webhook-id"))
			if r.answer != nil {
				code = r.answer(len(r.bodies))
			}
		}
		r.mu.Unlock()
		w.WriteHeader(code)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bodies)
}

// told are the generations that a program's file, a line for each telling, says it was told of.
func told(path string) []string { return strings.Fields(held(path, "")) }

// A daemon that is killed between the promotion and the consumers, or while one of them is at work,
// tells all of them after its restart; and one that hangs keeps nothing from the others.
func TestConsumersAreToldThroughKills(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	s := newStage(t, "")
	s.write("hook.secret", "shared")
	for name, script := range map[string]string{
		// It hangs, in a shell of its own, until a file lets it go.
		"slow.sh":  "#!/bin/sh\necho $ROTATORD_GENERATIONS >>begun\ntrap 'echo $ROTATORD_GENERATIONS >>ended' TERM\nwhile ! test -e go; do sleep 0.05; done\necho $ROTATORD_GENERATIONS >>done\n",
		"quick.sh": "#!/bin/sh\ncat >/dev/null\necho $ROTATORD_GENERATIONS >>quick\n",
	} {
		s.write(name, script)
		if err := os.Chmod(filepath.Join(s.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.write("rotation.yaml", talked("  slow: {exec: {command: [./slow.sh]}}\n  quick: {exec: {command: [./quick.sh]}}\n  hook: {http: {url: \""+hook.URL+"/x?key=hunter2\", secret: {file: hook.secret}}}\n"))
	at := func(name string) string { return filepath.Join(s.dir, name) }

	// The first one is promoted, and the daemon dies before it tells anybody.
	r := s.background()
	r.lines.wait(t, "promoted: every required sink holds it")
	r.signal(syscall.SIGKILL)
	r.end(-1)
	early := len(told(at("quick")))

	// Now everybody but the slow one is told at once, and rotations go on.
	r = s.background()
	until(t, "all were told of the first one", func() bool {
		return len(told(at("begun"))) > 0 && slices.Contains(told(at("quick")), "1") && len(hook.got()) > 0
	})
	s.run(exitOK, "rotate", "bot")
	until(t, "the others were told of the second one", func() bool {
		return last(told(at("quick"))) == "2" && strings.Contains(last(hook.got()), `"generation":2`)
	})
	if b := told(at("begun")); slices.Contains(b, "2") || len(told(at("done"))) > 0 {
		t.Errorf("the slow one was told of %q while it was at work", b)
	}

	// Killed while the slow one is at work: it goes along, and is told again, of the newest only.
	r.signal(syscall.SIGKILL)
	r.end(-1)
	before := len(told(at("begun")))
	r = s.background()
	until(t, "the slow one is told again", func() bool { return len(told(at("begun"))) > before })
	if b := told(at("begun")); last(b) != "2" {
		t.Errorf("after the restart, the slow one was told of %q", b)
	}

	// SIGTERM leaves it a little, then ends it; it counts as not told.
	r.signal(syscall.SIGTERM)
	begin := time.Now()
	r.end(exitOK)
	if d := time.Since(begin); d < consumerGrace-time.Second || d > consumerGrace+20*time.Second {
		t.Errorf("the daemon ended after %s", d)
	}
	if e := told(at("ended")); !slices.Equal(e, []string{"2"}) || len(told(at("done"))) > 0 {
		t.Errorf("the slow one was ended with %q", e)
	}
	if c := s.consumers("bot"); c[slices.IndexFunc(c, func(c rotator.ConsumerStatus) bool { return c.Name == "slow" })].Taken != 0 {
		t.Errorf("it counts as told: %+v", c)
	}
	says(t, s.run(exitOK, "plan"), "then told: slow (slow.sh)")

	// One that finishes within the grace is believed.
	r = s.background()
	before = len(told(at("begun")))
	until(t, "the slow one is told once more", func() bool { return len(told(at("begun"))) > before })
	r.signal(syscall.SIGTERM)
	time.Sleep(300 * time.Millisecond)
	s.write("go", "")
	r.end(exitOK)
	if d := told(at("done")); !slices.Equal(d, []string{"2"}) {
		t.Errorf("done: %q", d)
	}
	for _, c := range s.consumers("bot") {
		if c.Told != 2 || c.Taken != 2 {
			t.Errorf("in the end: %+v", c)
		}
	}
	r = s.background()
	r.lines.wait(t, "started")
	time.Sleep(3 * time.Second)
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
	quick, messages := told(at("quick")), hook.got()
	if n := len(quick); n < 2 || n > 3+early || len(messages) > 3 {
		t.Errorf("the quick one was told %q, the receiver %d times", quick, len(messages))
	}
	s.noPlaintext(s.token("BOT_TOKEN"))
	s.noCanary("the receiver", []byte(strings.Join(messages, "\n")), s.token("BOT_TOKEN"))
	if strings.Contains(s.output.String()+r.lines.String(), "hunter2") {
		t.Error("the query of the URL was printed")
	}
}

// A consumer that hangs keeps no rotation from a timer's pass.
func TestOnceRotatesBesideAConsumerThatHangs(t *testing.T) {
	t.Parallel()
	s := newStage(t, "")
	// The second time, it waits until another token is there.
	s.write("slow.sh", "#!/bin/sh\ntest -e first || { >first; exit 1; }\nfor i in $(seq 200); do grep -q OTHER_TOKEN app.env && exit 0; sleep 0.05; done\nexit 1\n")
	if err := os.Chmod(filepath.Join(s.dir, "slow.sh"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := "consumers: {slow: {exec: {command: [./slow.sh]}}}\n" + strings.Replace(oneToken, "    sinks:", "    consumers: [slow]\n    sinks:", 1)
	s.write("rotation.yaml", config)
	s.run(exitFailed, "once")
	time.Sleep(3 * time.Second) // it is to be told again
	s.write("rotation.yaml", config+`  - name: other
    scopes: [chatbots:read]
    schedule: "@daily"
    sinks: [{env_file: {path: app.env, key: OTHER_TOKEN}}]
`)
	s.run(exitOK, "once")
	if c := s.consumers("bot"); c[0].Taken != 1 {
		t.Errorf("%+v", c)
	}
}

// What fails is shown with its reason, and what is missing is found before it is needed.
func TestConsumersThatFail(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	hook.answer = func(int) int { return http.StatusForbidden }
	s := newStage(t, "")
	s.write("rotation.yaml", talked("  slow: {exec: {command: [./gone.sh]}}\n  quick: {exec: {command: [/bin/sh, -c, exit 4]}}\n  hook: {http: {url: \""+hook.URL+"/x?key=hunter2\", secret: {file: hook.secret}}}\n"))
	all := s.examine(exitFailed)
	found(t, all, "consumer", fails, "slow (gone.sh) gone.sh: no such file or directory")
	found(t, all, "consumer", works, "quick (sh) /bin/sh is there and executable")
	found(t, all, "consumer", fails, "hook.secret: no such file")
	s.write("hook.secret", "shared")
	found(t, s.examine(exitFailed), "consumer", works, "answers; nothing was posted")
	if n := len(hook.got()); n != 0 {
		t.Errorf("doctor posted %d messages", n)
	}
	s.run(exitFailed, "once")
	says(t, s.stderr, "slow (gone.sh) cannot be told of the new token", "gone.sh: no such file", "sh: exit code 4",
		"answered 403 Forbidden: is the URL, or its secret, still right?", "it is tried again by itself; the old token is not revoked meanwhile")
	if strings.Contains(s.output.String(), "hunter2") {
		t.Error("the query of the URL was printed")
	}
}
