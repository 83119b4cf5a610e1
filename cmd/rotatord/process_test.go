//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/crashpoint"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
	"github.com/rotatord/rotatord/sinks/vaultkv/vaulttest"
)

// builtEnv names the program to a test that runs in a process of its own: the other one built it.
const builtEnv = "ROTATORD_TEST_BUILT"

// built builds the program once, when the first test wants it. TestMain removes it.
var built = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(builtEnv); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "rotatord-process-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "rotatord")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return path, fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// wanted says that a test has asked for the program.
var wanted sync.Once

func TestMain(m *testing.M) {
	crashpoint.Main()
	code := m.Run()
	unused := false
	wanted.Do(func() { unused = true })
	if !unused && os.Getenv(builtEnv) == "" {
		if path, _ := built(); path != "" {
			os.RemoveAll(filepath.Dir(path)) //nolint:errcheck // a temporary folder
		}
	}
	os.Exit(code)
}

// process is a command of the program as a process of its own. The management token is in a file
// beside the host's folder, so that no environment needs it.
func (s *stage) process(env []string, args ...string) (cmd *exec.Cmd, output *bytes.Buffer) {
	s.t.Helper()
	wanted.Do(func() {})
	path, err := built()
	if err != nil {
		s.t.Fatal(err)
	}
	token := filepath.Join(filepath.Dir(s.dir), "management")
	if err := os.WriteFile(token, []byte(s.api.Management().Reveal()+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	cmd, output = exec.CommandContext(s.t.Context(), path, args...), &bytes.Buffer{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, output, output
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "SITEGPT_API_BASE=" + s.url, "ROTATORD_LOG_LEVEL=debug",
		"ROTATORD_CONFIG=" + filepath.Join(s.dir, "rotation.yaml"), "ROTATORD_STATE_DIR=" + filepath.Join(s.dir, "state"),
	}, env...)
	if len(env) == 0 {
		cmd.Env = append(cmd.Env, "SITEGPT_API_TOKEN_FILE="+token)
	}
	return cmd, output
}

// execute runs a command to its end, and expects an exit code.
func (s *stage) execute(want int, args ...string) string {
	s.t.Helper()
	cmd, output := s.process(nil, args...)
	if code := ended(s.t, cmd.Run()); code != want {
		s.t.Fatalf("rotatord %v: exit code %d, want %d\n%s", args, code, want, output)
	}
	s.output.WriteString(output.String())
	return output.String()
}

// ended is the exit code of a process; -1: a signal.
func ended(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return 0
}

// held is what an env file holds for a key; "": nothing. Without a key it is what the whole file
// holds, and with one that is no name, what stands between it and a quote.
func held(path, key string) string {
	b, _ := os.ReadFile(path)
	if key == "" {
		return strings.TrimSpace(string(b))
	}
	if _, v, ok := strings.Cut(string(b), key); ok && strings.HasSuffix(key, `"`) {
		v, _, _ = strings.Cut(v, `"`)
		return v
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// accounted asserts that the live tokens at the stand-in are those that status knows: one for each
// entry, and those that retire.
func (s *stage) accounted(entries int) {
	s.t.Helper()
	var st statusJSON
	if err := json.Unmarshal([]byte(s.run(exitOK, "status", "--json")), &st); err != nil {
		s.t.Fatal(err)
	}
	if len(st.Tokens) != entries {
		s.t.Fatalf("status shows %d tokens, want %d", len(st.Tokens), entries)
	}
	known := map[string]string{}
	for _, tok := range st.Tokens {
		if tok.State != "current" || tok.ID == "" {
			s.t.Errorf("%s is %s", tok.Name, tok.State)
		}
		known[tok.ID] = tok.Label
		for _, g := range tok.Retiring {
			known[g.ID] = g.Label
		}
	}
	for _, tok := range s.api.Live() {
		if _, ok := rotator.ParseLabel(tok.Name); !ok {
			s.t.Errorf("a live token bears %q, which is no mark of ours", tok.Name)
		}
		if known[tok.ID] != tok.Name {
			s.t.Errorf("an orphan lives: %s", tok.Name)
		}
		delete(known, tok.ID)
	}
	for _, label := range known {
		s.t.Errorf("status shows %s, which is not alive", label)
	}
}

// place is one value in an env file.
type place struct{ path, key string }

func (p place) String() string { return p.key + " of " + filepath.Base(p.path) }

// accepted asks the API whether it takes a value, as one does who found it in a sink.
func (s *stage) accepted(value string) bool {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/api/v2/me", nil)
	if err != nil {
		s.t.Error(err)
		return false
	}
	req.Header.Set("Authorization", "Bearer "+value)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Error(err)
		return false
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body) // so that the connection is used again
	return res.StatusCode == http.StatusOK
}

// witness looks at places every few moments, until end is called, and reports whoever would be left
// with a token there that is dead, says alive, or with none where one was. It returns how often
// each place held a living one.
func (s *stage) witness(every time.Duration, alive func(string) bool, places ...place) (end func() map[place]int) {
	seen := map[place]int{}
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		reported := map[string]bool{}
		for {
			took := map[string]bool{}
			for _, p := range places {
				v := held(p.path, p.key)
				if v != "" && !took[v] && !reported[v] {
					took[v] = alive(v)
				}
				switch {
				case v == "" && seen[p] > 0:
					s.t.Errorf("%s was there and is gone", p)
				case took[v]:
					seen[p]++
				case v != "" && !reported[v] && held(p.path, p.key) == v: // else it was replaced before it was revoked
					reported[v] = true
					s.t.Errorf("%s is a dead token", p)
				}
			}
			select {
			case <-done:
				return
			case <-time.After(every):
			}
		}
	}()
	stop := sync.OnceFunc(func() { close(done); <-over })
	s.t.Cleanup(stop)
	return func() map[place]int {
		stop()
		return seen
	}
}

const killed = `version: 1
api: {requests_per_minute: 60000}
daemon: {settle: 200ms, fuse: {creates_per_day: 1000, live: 1000}}
defaults: {schedule: "@daily", scopes: [chatbots:read]}
tokens:
  - name: a
    sinks:
      - env_file: {path: app.env, key: A}
      - env_file: {path: other.env, key: A}
  - name: b
    sinks:
      - env_file: {path: app.env, key: B}
`

// TestKilledAt kills the program at the very moments that cost most: between a change of the world
// and the record of it. It knows them by what can be seen from outside.
func TestKilledAt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		fault   sandbox.Fault
		locked  bool // app.env, once the preflight is over
		at      func(s *stage, p place) bool
		creates int // that the rotation takes in all
	}{
		{
			"the create is on its way",
			sandbox.Fault{Op: sandbox.OpCreate, Kind: sandbox.Hang},
			false,
			func(s *stage, _ place) bool { return s.api.Count(sandbox.OpCreate) == 2 }, 1,
		},
		{
			"the create is not answered",
			sandbox.Fault{Op: sandbox.OpCreate, Kind: sandbox.HangAfter},
			false,
			func(s *stage, _ place) bool { return s.api.Made() == 2 }, 2,
		},
		{ // The first /me of a process is about the management token.
			"nobody was given the new token",
			sandbox.Fault{Op: sandbox.OpMe, Kind: sandbox.Hang, After: 1},
			false,
			func(s *stage, _ place) bool { return s.api.Made() == 2 && last(s.api.Requests()).Op == sandbox.OpMe }, 2,
		},
		{
			"one sink was given the new token",
			sandbox.Fault{Op: sandbox.OpMe, Kind: sandbox.Slow, After: 1, Delay: 30 * time.Millisecond},
			true,
			func(_ *stage, p place) bool {
				return held(filepath.Join(filepath.Dir(p.path), "other.env"), "A") != held(p.path, "A")
			}, 1,
		},
		{
			"the revocation is on its way",
			sandbox.Fault{Op: sandbox.OpRevoke, Kind: sandbox.Hang},
			false,
			func(s *stage, _ place) bool { return s.api.Count(sandbox.OpRevoke) == 1 }, 1,
		},
		{
			"the revocation is not answered",
			sandbox.Fault{Op: sandbox.OpRevoke, Kind: sandbox.HangAfter},
			false,
			func(s *stage, _ place) bool { return s.api.Made() == 2 && len(s.api.Live()) == 1 }, 1,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, strings.Split(killed, "  - name: b")[0])
			p, other := place{filepath.Join(s.dir, "app.env"), "A"}, place{filepath.Join(s.dir, "other.env"), "A"}
			s.execute(exitOK, "once")
			old := held(p.path, p.key)
			end := s.witness(time.Millisecond, s.api.Alive, p, other) // a request of its own would meet the fault
			s.api.Inject(c.fault)
			cmd, output := s.process(nil, "rotate", "a", "--compromised")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			until := time.Now().Add(20 * time.Second)
			come := func(what string, so func() bool) {
				for !so() {
					if time.Now().After(until) {
						cmd.Process.Kill()
						cmd.Wait()
						t.Fatalf("%s never came:\n%s", what, output)
					}
					time.Sleep(time.Millisecond)
				}
			}
			free := func() {}
			if c.locked {
				come("the create", func() bool { return s.api.Made() == 2 })
				free = flock(t, filepath.Join(s.dir, ".app.env.lock"))
			}
			come("the moment", func() bool { return c.at(s, p) })
			cmd.Process.Kill()
			if code := ended(t, cmd.Wait()); code >= 0 {
				t.Fatalf("it ended before it was killed, with %d:\n%s", code, output)
			}
			free()
			s.api.Clear()
			out := s.execute(exitOK, "once")
			if now := held(p.path, p.key); now == old || now != held(other.path, other.key) || !s.accepted(now) {
				t.Errorf("the wish was not fulfilled:\n%s", out)
			}
			if s.accepted(old) {
				t.Errorf("the compromised token lives:\n%s", out)
			}
			if made := s.api.Made() - 1; made != c.creates {
				t.Errorf("%d tokens were made for it, want %d:\n%s", made, c.creates, out)
			}
			if live := s.api.Live(); len(live) != 1 {
				t.Errorf("%d tokens live, want 1:\n%s", len(live), out)
			}
			s.accounted(1)
			end()
			s.clean()
		})
	}
}

func last[T any](s []T) (v T) {
	if len(s) > 0 {
		v = s[len(s)-1]
	}
	return v
}

// flock takes the lock of a file that another program could take too.
func flock(t *testing.T, path string) (free func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	free = sync.OnceFunc(func() { f.Close() })
	t.Cleanup(free)
	return free
}

// plaintext is what every token of the stand-in looks like, the management token and half of one too.
var plaintext = regexp.MustCompile(`sgpt_[a-z2-7]{4}`)

// clean asserts that no file of the host holds a plaintext, but for the sinks: the env files, and
// the file of rotatord's own token.
func (s *stage) clean(tokens ...string) {
	s.t.Helper()
	files := 0
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasPrefix(d.Name(), ".") && filepath.Ext(path) == ".env" || path == ownFile(filepath.Join(s.dir, "state")) {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		s.noCanary(path, b, tokens...)
		return err
	})
	if err != nil || files < 3 { // rotation.yaml, the state, its lock
		s.t.Errorf("%d files in %s: %v", files, s.dir, err)
	}
}

// noCanary asserts that a text holds no plaintext, and none of tokens in another form.
func (s *stage) noCanary(where string, text []byte, tokens ...string) {
	s.t.Helper()
	if plaintext.Match(text) {
		s.t.Errorf("%s holds a plaintext", where)
	}
	for _, tok := range append(tokens, s.api.Management().Reveal()) {
		bare := strings.TrimPrefix(tok, "sgpt_")
		for form, v := range map[string]string{
			"without its prefix": bare, "in base64": base64.StdEncoding.EncodeToString([]byte(tok))[:48], "in hexadecimal": hex.EncodeToString([]byte(bare)),
		} {
			if bytes.Contains(text, []byte(v)) {
				s.t.Errorf("%s holds a plaintext %s", where, form)
			}
		}
	}
}

// watched runs a command while a sampler reads the argv and environment of it and of all its
// descendants; it returns those texts, and what was printed.
func (s *stage) watched(want int, env []string, args ...string) (own, children map[string][]byte, output []byte) {
	s.t.Helper()
	cmd, out := s.process(env, args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	own, children = map[string][]byte{}, map[string][]byte{}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for {
		family := map[int]bool{cmd.Process.Pid: true}
		folders, _ := filepath.Glob("/proc/[0-9]*")
		for range 3 { // as deep as descendants go here
			for _, f := range folders {
				stat, err := os.ReadFile(filepath.Join(f, "stat"))
				fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
				if err != nil || len(fields) < 2 {
					continue
				}
				if parent, err := strconv.Atoi(fields[1]); err == nil && family[parent] {
					pid, _ := strconv.Atoi(filepath.Base(f))
					family[pid] = true
				}
			}
		}
		for pid := range family {
			for _, name := range []string{"cmdline", "environ"} {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
				if pid == cmd.Process.Pid {
					own[name+" "+string(b)] = b
				} else if len(b) > 0 {
					children[name+" "+string(b)] = b
				}
			}
		}
		select {
		case err := <-exited:
			if code := ended(s.t, err); code != want {
				s.t.Errorf("rotatord %v: exit code %d, want %d\n%s", args, code, want, out)
			}
			return own, children, out.Bytes()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// TestCanary looks for plaintexts wherever they must not be, around the whole program, while much goes wrong.
func TestCanary(t *testing.T) {
	t.Parallel()
	s := newStage(t, "")
	tools := filepath.Join(filepath.Dir(s.dir), "tools")
	if err := os.Mkdir(tools, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		// Both print the token, and leave what else they were given where the test reads it.
		"good": "#!/bin/sh\ncat >\"$0.held\"\nenv >>\"$0.environ\"\ntr '\\0' ' ' </proc/$$/cmdline >>\"$0.cmdline\"\ncat \"$0.held\"; cat \"$0.held\" >&2\nsleep 0.5\n",
		"bad":  "#!/bin/sh\ncat >\"$0.held\"\nenv >>\"$0.environ\"\ncat \"$0.held\"; cat \"$0.held\" >&2\nsleep 0.5\nexit 7\n",
		// A consumer prints the token that it finds in its sink, and fails.
		"told": "#!/bin/sh\ncat >>\"$0.stdin\"\nenv >>\"$0.environ\"\ntr '\\0' ' ' </proc/$$/cmdline >>\"$0.cmdline\"\ncat app.env; cat app.env >&2\nsleep 0.2\nexit 7\n",
	} {
		if err := os.WriteFile(filepath.Join(tools, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	people := newReceiver(t)
	s.write("shared", "shared")
	s.write("rotation.yaml", fmt.Sprintf(`version: 1
api: {requests_per_minute: 60000}
daemon: {settle: 200ms}
management: {schedule: "@daily"}
consumers:
  told: {exec: {command: [%[1]s/told], log_output: true}}
  hook: {http: {url: %[2]s/, secret: {file: shared}}}
notify:
  json: {webhook: {url: %[2]s/, secret: {file: shared}}, on: [failing, waiting, rotated], after: 0}
  channel: {slack: {url: {env: CHANNEL}}}
tokens:
  - name: bot
    scopes: [chatbots:read, leads:read]
    schedule: "@daily"
    consumers: [told, hook]
    sinks:
      - env_file: {path: app.env, key: BOT_TOKEN}
      - exec: {command: [%[1]s/good], log_output: true}
      - exec: {command: [%[1]s/bad], log_output: true}
        required: false
`, tools, people.URL))
	management := []string{"SITEGPT_API_TOKEN=" + s.api.Management().Reveal()}
	var tokens []string
	var outputs []byte
	for i, kind := range []sandbox.Kind{sandbox.CutAfter, sandbox.GarbledAfter, sandbox.DropAfter} {
		s.api.Inject(sandbox.Fault{Op: sandbox.OpCreate, Kind: kind, Times: 1})
		s.api.Inject(sandbox.Fault{Op: sandbox.OpMe, Kind: sandbox.ServerError, Times: 1, After: i})
		want, args, env := exitOK, []string{"rotate", "bot"}, []string(nil)
		if i == 0 {
			want, args = exitFailed, []string{"once", "--patience", "3s"}
		}
		if i == 2 {
			env = management // its own environment has it then, but no child's
		}
		os.Remove(filepath.Join(tools, "good.held"))
		own, children, out := s.watched(want, env, args...)
		outputs = append(outputs, out...)
		tok := s.token("BOT_TOKEN")
		tokens = append(tokens, tok)
		if b, err := os.ReadFile(filepath.Join(tools, "good.held")); err != nil || strings.TrimSpace(string(b)) != tok {
			t.Errorf("rotatord %v: the program of the exec sink did not get the token: %v\n%s", args, err, out)
		}
		for what, text := range own {
			if i != 2 || strings.HasPrefix(what, "cmdline") {
				s.noCanary("the "+strings.Fields(what)[0]+" of rotatord", text, tokens...)
			}
		}
		if len(own) < 2 || len(children) < 2 {
			t.Errorf("the sampler saw %d texts of rotatord and %d of its children", len(own), len(children))
		}
		for what, text := range children {
			// Between fork and exec, a child shows what its parent is.
			if _, parent := own[what]; !parent {
				s.noCanary("the "+strings.Fields(what)[0]+" of a child", text, tokens...)
			}
		}
		s.api.Clear()
	}
	for _, args := range [][]string{
		{"status"},
		{"status", "--json"},
		{"status", "bot"},
		{"plan"},
		{"plan", "--json"},
		{"once", "--dry-run"},
		{"history"},
		{"history", "--json"},
		{"history", "--format", "jsonl"},
		{"history", "--format", "csv"},
		{"history", "--format", "report"},
		{"validate"},
		{"validate", "--json"},
		{"orphans"},
		{"orphans", "--json"},
		{"adopt", "bot"},
		{"pause", "bot", "--until", "1h"},
		{"pause", "bot", "--end", "--json"},
		{"drill"},
		{"drill", "--json"},
		{"doctor"},
		{"doctor", "--json"},
		{"once"},
		{"notify"},
		{"notify", "--test", "--json"},
		{"plan", "--diff", filepath.Join(s.dir, "rotation.yaml"), "--format", "markdown"},
		{"__complete", "adopt", "bot", "--sink", ""},
		{"simulate", "--until", "5d"},
		{"simulate", "--until", "5d", "--json"},
		{"health"},
		{"version", "--json"},
	} {
		cmd, out := s.process(nil, args...)
		ended(t, cmd.Run())
		if out.Len() == 0 {
			t.Errorf("rotatord %v printed nothing", args)
		}
		outputs = append(outputs, out.Bytes()...)
	}
	for _, tok := range append(tokens, "sgpt_nobodys", s.api.Management().Reveal()) {
		for _, args := range [][]string{{"identify"}, {"identify", "--json"}} {
			cmd, out := s.process(nil, args...)
			cmd.Stdin = strings.NewReader(tok + "\n")
			ended(t, cmd.Run())
			outputs = append(outputs, out.Bytes()...)
		}
	}
	s.execute(exitFailed, "once", "--metrics-file", filepath.Join(s.dir, "rotatord.prom")) // looked at with the other files
	r := s.background("ROTATORD_LISTEN=127.0.0.1:0")
	for _, path := range []string{"/metrics", "/", "/api/status.json", "/readyz"} {
		_, text := r.get(path)
		if len(text) == 0 {
			t.Errorf("GET %s: nothing", path)
		}
		outputs = append(outputs, text...)
	}
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
	own, err := os.ReadFile(ownFile(filepath.Join(s.dir, "state")))
	if err != nil || !plaintext.Match(own) {
		t.Errorf("rotatord's own token was not rotated: %v", err)
	}
	for line := range strings.Lines(string(own)) {
		tokens = append(tokens, strings.Fields(line)[1])
	}
	s.noCanary("what was printed", outputs, tokens...)
	// Two streams of the good one for each token, and of the bad one at least once.
	if n := bytes.Count(outputs, []byte("[redacted]")); n < 8 {
		t.Errorf("what the programs print was logged %d times: there was nothing to redact", n)
	}
	s.clean(tokens...)
	told := people.got()
	if text := strings.Join(told, "\n"); !strings.Contains(text, "tokens.changed") || !strings.Contains(text, "told: exit code 7") || !strings.Contains(text, "this is a test") {
		t.Errorf("consumers and people were told %q", told)
	} else {
		s.noCanary("what consumers and people were told", []byte(text), tokens...)
	}
	if !bytes.Contains(outputs, []byte(`"program":"told"`)) || !bytes.Contains(outputs, []byte("BOT_TOKEN=[redacted]")) {
		t.Error("what the consumer prints was not logged")
	}
	for _, name := range []string{"good.environ", "good.cmdline", "bad.environ", "told.stdin", "told.environ", "told.cmdline"} {
		b, err := os.ReadFile(filepath.Join(tools, name))
		if err != nil || len(b) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		s.noCanary(name, b, tokens...)
		if bytes.Contains(b, []byte("SITEGPT_API_TOKEN=")) {
			t.Errorf("%s: a child's environment names the management token", name)
		}
	}
	if len(s.api.Tokens()) < 6 {
		t.Errorf("%d tokens were made: the lost answers were not played", len(s.api.Tokens()))
	}
}

// TestVaultDown takes a real Vault away from one token: nothing is made for it while nobody could
// take it, and the other token does not notice.
func TestVaultDown(t *testing.T) {
	t.Parallel()
	vault := vaulttest.Start(t)
	s := newStage(t, "")
	file := filepath.Join(filepath.Dir(s.dir), "vault-token")
	if err := os.WriteFile(file, []byte(vault.Root), 0o600); err != nil {
		t.Fatal(err)
	}
	s.write("rotation.yaml", fmt.Sprintf(`version: 1
api: {requests_per_minute: 60000}
daemon: {settle: 200ms}
vault: {address: %s, token_file: %s}
defaults: {schedule: "@daily", scopes: [chatbots:read]}
tokens:
  - name: a
    sinks:
      - vault_kv: {mount: secret, path: apps/a, key: token}
      - env_file: {path: app.env, key: A}
  - name: b
    sinks: [{env_file: {path: app.env, key: B}}]
`, vault.Address, file))
	inVault := func() string {
		out := vault.Must(t, http.MethodGet, "secret/data/apps/a", nil)
		data, _ := out["data"].(map[string]any)
		data, _ = data["data"].(map[string]any)
		v, _ := data["token"].(string)
		return v
	}
	creates := func(entry string) int {
		n := 0
		for _, r := range s.api.Requests() {
			if l, ok := rotator.ParseLabel(r.Label); ok && r.Op == sandbox.OpCreate && l.Entry == entry {
				n++
			}
		}
		return n
	}
	s.execute(exitOK, "once")
	first, other := s.token("A"), s.token("B")
	if inVault() != first || !s.accepted(first) || !s.accepted(other) {
		t.Fatal("after once, the sinks do not hold live tokens")
	}

	vault.Must(t, http.MethodPut, "sys/seal", nil)
	out := s.execute(exitFailed, "rotate", "a", "--timeout", "1s")
	if creates("a") != 1 || s.token("A") != first || !s.accepted(first) {
		t.Errorf("with Vault sealed, %d creates for a, want 1\n%s", creates("a"), out)
	}
	s.execute(exitOK, "rotate", "b")
	if creates("b") != 2 || s.token("B") == other || !s.accepted(s.token("B")) {
		t.Errorf("b was not rotated once: %d creates", creates("b"))
	}
	if creates("a") != 1 {
		t.Errorf("rotate b made a token for a")
	}

	vault.Must(t, http.MethodPut, "sys/unseal", map[string]any{"key": vault.UnsealKey})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for status := 0; status != http.StatusOK; status, _ = vault.Do(t, http.MethodGet, "sys/health", nil) {
		if ctx.Err() != nil {
			t.Fatal("Vault does not come back")
		}
		time.Sleep(10 * time.Millisecond)
	}
	out = s.execute(exitOK, "once")
	second := s.token("A")
	if second == first || inVault() != second || !s.accepted(second) || !s.accepted(first) {
		t.Errorf("with Vault back, once did not fulfil the wish\n%s", out)
	}
	if creates("a") != 2 || creates("b") != 2 {
		t.Errorf("%d creates for a, %d for b, want 2 and 2", creates("a"), creates("b"))
	}
	s.accounted(2)
	s.clean(first, second, other)
}
