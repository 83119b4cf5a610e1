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
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
	"github.com/rotatord/rotatord/sinks/vaultkv/vaulttest"
)

// built builds the program once, when the first test wants it. TestMain removes it.
var built = sync.OnceValues(func() (string, error) {
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
	code := m.Run()
	unused := false
	wanted.Do(func() { unused = true })
	if !unused {
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

// held is what an env file holds for a key; "": nothing.
func held(path, key string) string {
	b, _ := os.ReadFile(path)
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

// TestKilled kills the program again and again, at any moment of its life, while a witness looks
// whether somebody who reads the sinks is left with a dead token.
func TestKilled(t *testing.T) {
	t.Parallel()
	const rounds = 40
	seed := rand.Uint64()
	if text := os.Getenv("ROTATORD_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	dice := rand.New(rand.NewPCG(seed, seed))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("ROTATORD_TEST_SEED=%d draws the same delays", seed)
		}
	})
	s := newStage(t, killed)
	type place struct{ path, key string }
	var places []place
	for _, p := range []place{{"app.env", "A"}, {"other.env", "A"}, {"app.env", "B"}} {
		places = append(places, place{filepath.Join(s.dir, p.path), p.key})
	}

	done, seen := make(chan struct{}), make(map[place]int)
	var witness sync.WaitGroup
	witness.Go(func() {
		dead := map[string]bool{} // told already
		for {
			for _, p := range places {
				v := held(p.path, p.key)
				switch {
				case v == "" && seen[p] > 0:
					t.Errorf("%s of %s was there and is gone", p.key, p.path)
				case v == "" || dead[v]:
				case s.api.Alive(v):
					seen[p]++
				case held(p.path, p.key) == v: // else it was replaced before it was revoked
					dead[v] = true
					t.Errorf("%s of %s is a dead token", p.key, p.path)
				}
			}
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	end := sync.OnceFunc(func() { close(done); witness.Wait() })
	defer end()

	// How long is a life? The first one makes tokens, the second one replaces them.
	commands := [][]string{{"once"}, {"rotate", "--all", "--compromised"}, {"rotate", "--all"}, {"rotate", "a", "--compromised"}, {"run"}}
	var life time.Duration
	measure := func() {
		begun := time.Now()
		s.execute(exitOK, "rotate", "--all", "--compromised")
		life = time.Since(begun)
	}
	struck, rotations := 0, s.api.Made()
	for round := range rounds {
		if round == 10 {
			measure() // until then, the first life counts: from nothing
		}
		if life == 0 {
			life = 150 * time.Millisecond
		}
		args := commands[1+dice.IntN(len(commands)-1)]
		if round < 5 {
			args = commands[0] // nothing is there yet
		}
		cmd, output := s.process(nil, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		delay := time.Duration(dice.Int64N(int64(life)*6/5 + 1))
		var err error
		select {
		case err = <-exited:
		case <-time.After(delay):
			cmd.Process.Kill() //nolint:errcheck // it may just have ended
			err = <-exited
		}
		if code := ended(t, err); code > 0 {
			t.Fatalf("round %d: rotatord %v: exit code %d\n%s", round, args, code, output)
		} else if code < 0 {
			struck++
		}
		if round < 5 && round%2 == 0 {
			continue // killed twice in a row
		}
		for try := 0; ; try++ {
			cmd, output := s.process(nil, "once")
			code := ended(t, cmd.Run())
			if code == exitOK {
				break
			}
			if try == 5 {
				t.Fatalf("round %d: after kill -9 in %v, once ends with %d again and again:\n%s", round, args, code, output)
			}
		}
		for _, p := range places {
			if !s.api.Alive(held(p.path, p.key)) {
				t.Errorf("round %d: after kill -9 in %v, %s of %s is no live token", round, args, p.key, p.path)
			}
		}
		if held(places[0].path, "A") != held(places[1].path, "A") {
			t.Errorf("round %d: the two sinks of a hold different tokens", round)
		}
		s.accounted(2)
		if t.Failed() {
			t.Fatalf("round %d: %v was killed after %v", round, args, delay)
		}
	}
	end()
	for _, p := range places {
		if seen[p] == 0 {
			t.Errorf("the witness never saw %s of %s", p.key, p.path)
		}
	}
	if struck < rounds/4 || s.api.Made()-rotations < rounds/4 {
		t.Errorf("%d kills struck and %d tokens were made: this test tests nothing", struck, s.api.Made()-rotations)
	}
	s.clean(filepath.Join(s.dir, "state"))
}

// plaintext is what every token of the stand-in looks like, the management token and half of one too.
var plaintext = regexp.MustCompile(`sgpt_[a-z2-7]{4}`)

// clean asserts that no file below a folder holds a plaintext.
func (s *stage) clean(dir string, tokens ...string) {
	s.t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		s.noCanary(path, b, tokens...)
		return err
	})
	if err != nil || files == 0 {
		s.t.Errorf("%d files in %s: %v", files, dir, err)
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
// descendants; it returns them by process, and its output.
func (s *stage) watched(env []string, args ...string) (own, children map[string][]byte, output []byte) {
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
			ended(s.t, err)
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
		// Both print all that they know, and keep it where the test can read it.
		"good": "#!/bin/sh\ncat >\"$0.held\"\ncat \"$0.held\" >>\"$0.all\"\nenv >>\"$0.environ\"\ntr '\\0' ' ' </proc/$$/cmdline >>\"$0.cmdline\"\ncat \"$0.held\"; cat \"$0.held\" >&2\nsleep 0.1\n",
		"bad":  "#!/bin/sh\ncat >\"$0.held\"\nenv >>\"$0.environ\"\ncat \"$0.held\"; cat \"$0.held\" >&2\nsleep 0.1\nexit 7\n",
	} {
		if err := os.WriteFile(filepath.Join(tools, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.write("rotation.yaml", fmt.Sprintf(`version: 1
api: {requests_per_minute: 60000}
daemon: {settle: 200ms}
tokens:
  - name: bot
    scopes: [chatbots:read, leads:read]
    schedule: "@daily"
    sinks:
      - env_file: {path: app.env, key: BOT_TOKEN}
      - exec: {command: [%[1]s/good], log_output: true}
      - exec: {command: [%[1]s/bad], log_output: true}
        required: false
`, tools))
	management := []string{"SITEGPT_API_TOKEN=" + s.api.Management().Reveal()}
	var tokens []string
	var outputs []byte
	for i, kind := range []sandbox.Kind{sandbox.CutAfter, sandbox.GarbledAfter, sandbox.DropAfter} {
		s.api.Inject(sandbox.Fault{Op: sandbox.OpCreate, Kind: kind, Times: 1})
		s.api.Inject(sandbox.Fault{Op: sandbox.OpMe, Kind: sandbox.ServerError, Times: 1, After: i})
		args, env := []string{"rotate", "bot", "--timeout", "20s"}, []string(nil)
		if i == 0 {
			args = []string{"once", "--patience", "3s"}
		}
		if i == 2 {
			env = management // its own environment has it then, but no child's
		}
		own, children, out := s.watched(env, args...)
		outputs = append(outputs, out...)
		tok := s.token("BOT_TOKEN")
		tokens = append(tokens, tok)
		if b, err := os.ReadFile(filepath.Join(tools, "good.held")); err != nil || strings.TrimSpace(string(b)) != tok {
			t.Errorf("rotatord %v: the program of the exec sink did not get the token: %v\n%s", args, err, out)
		}
		if _, err := os.Stat(filepath.Join(tools, "bad.held")); err != nil {
			t.Errorf("the failing sink was not tried: %v", err)
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
		{"status"}, {"status", "--json"}, {"status", "bot"}, {"plan"}, {"plan", "--json"}, {"history"}, {"history", "--format", "jsonl"},
		{"validate"}, {"validate", "--json"}, {"health"}, {"version", "--json"},
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
	s.noCanary("what was printed", outputs, tokens...)
	s.clean(filepath.Join(s.dir, "state"), tokens...)
	for _, name := range []string{"good.environ", "good.cmdline", "bad.environ"} {
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
	if inVault() != first || !s.api.Alive(first) || !s.api.Alive(other) {
		t.Fatal("after once, the sinks do not hold live tokens")
	}

	vault.Must(t, http.MethodPut, "sys/seal", nil)
	out := s.execute(exitFailed, "rotate", "a", "--timeout", "1s")
	if creates("a") != 1 || s.token("A") != first || !s.api.Alive(first) {
		t.Errorf("with Vault sealed, %d creates for a, want 1\n%s", creates("a"), out)
	}
	s.execute(exitOK, "rotate", "b")
	if creates("b") != 2 || s.token("B") == other || !s.api.Alive(s.token("B")) {
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
	if second == first || inVault() != second || !s.api.Alive(second) || !s.api.Alive(first) {
		t.Errorf("with Vault back, once did not fulfil the wish\n%s", out)
	}
	if creates("a") != 2 || creates("b") != 2 {
		t.Errorf("%d creates for a, %d for b, want 2 and 2", creates("a"), creates("b"))
	}
	s.accounted(2)
	s.clean(filepath.Join(s.dir, "state"), first, second, other)
}
