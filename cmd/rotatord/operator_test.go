package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What a person reads at night: the right exit code, each cause once, and what to do.

func TestWrongArguments(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	for _, tc := range []struct{ args, want string }{
		{"stauts", `there is no command "stauts" (did you mean "status"?)`},
		{"help nope", `there is no command "nope"`},
		{"completion klingon", `there is no command "klingon"`},
		{"health x", `no arguments are taken, and "x" is one`},
		{"history bot b", `there is no token "b"; there is bot`},
		{"validate a b", "there is no a: name it with --config or ROTATORD_CONFIG"},
		{"revoke", "one NAME is needed, not 0"},
		{"rotate", "name the tokens to rotate, or say --all"},
		{"adopt", "a NAME is needed: which tokens are to be adopted?"},
		{"history --limit -1", "--limit -1: use a number of events, or 0 for all"},
		{"history --format yaml", `--format "yaml": use table, json, jsonl, csv or report`},
		{"history bto", `there is no token "bto" (did you mean "bot"?)`},
		{"revoke other", `there is no token "other"; there is bot`},
		{"status both", `there is no token "both" (did you mean "bot"?)`},
		{"validate nope.yaml", "there is no nope.yaml: name it with --config or ROTATORD_CONFIG"},
		{"status --config nope.yaml", "there is no nope.yaml: name it with --config or ROTATORD_CONFIG"},
	} {
		s.run(exitUsage, strings.Fields(tc.args)...)
		if first, _, _ := strings.Cut(s.stderr, "\n"); first != "rotatord: "+tc.want {
			t.Errorf("%s: it says %q, want %q", tc.args, first, tc.want)
		}
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// Whoever sends what a command prints into a file, and that is not whole, is told so by the exit code.
func TestWhatCannotBePrintedFails(t *testing.T) {
	s := newStage(t, "notify: {people: {webhook: {url: \"http://127.0.0.1:1/\"}}}\n"+oneToken)
	s.run(exitOK, "once")
	token := s.token("BOT_TOKEN")
	s.stdout = full{}
	for _, args := range []string{
		"status", "status --json", "status --check", "plan", "plan --json", "history", "history --json", "history --format csv",
		"history --format report", "identify", "orphans", "orphans --json", "pause bot --until 1h", "pause bot --end", "validate", "validate --json", "doctor", "notify", "notify --json",
		"simulate", "drill", "schema", "version", "completion bash", "help", "help status", "--help", "rotate --help", "adopt bot", "rotate bot", "revoke bot --generation 1",
	} {
		in := ""
		if args == "identify" {
			in = token
		}
		s.feed(in, exitFailed, strings.Fields(args)...)
		says(t, s.stderr, "what it prints cannot be written", syscall.ENOSPC.Error())
		if n := strings.Count(s.stderr, syscall.ENOSPC.Error()); n != 1 {
			t.Errorf("%s says it %d times: %s", args, n, s.stderr)
		}
	}
	s.feed("", exitUsage, "status", "nobody") // what is wrong with the command comes first
}

func TestCommandsWithoutAState(t *testing.T) {
	s := newStage(t, oneToken)
	want := "there is no state in " + filepath.Join(s.dir, "state") + ": rotatord run, or once, makes it"
	for _, args := range []string{"history", "history bot", "revoke bot --generation 1"} {
		s.run(exitUsage, strings.Fields(args)...)
		if !strings.Contains(s.stderr, want) {
			t.Errorf("%s: it says %q, want %q", args, s.stderr, want)
		}
	}
	s.feed("sgpt_x\n", exitUsage, "identify")
	if out := s.run(exitOK, "status"); !strings.HasPrefix(out, "There is no state in ") {
		t.Errorf("status says %q", out)
	}
	t.Chdir(s.dir)
	for _, args := range []string{"status", "plan", "history", "rotate bot", "revoke bot --generation 1"} {
		s.run(exitUsage, append(strings.Fields(args), "--sandbox")...)
		if want := "there is no rehearsal in ./sandbox: rotatord run --sandbox begins one"; !strings.Contains(s.stderr, want) {
			t.Errorf("%s --sandbox: it says %q, want %q", args, s.stderr, want)
		}
	}
	for _, left := range []string{"state", "sandbox"} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("commands that only look made %s", left)
		}
	}
}

func TestPlanSaysACauseOnce(t *testing.T) {
	s := newStage(t, strings.ReplaceAll(oneToken, "path: app.env", "path: sub/app.env"))
	cause := "folder " + filepath.Join(s.dir, "sub") + " does not exist"
	once := func(what, text string) {
		t.Helper()
		if n := strings.Count(text, cause); n != 1 {
			t.Errorf("%s names the cause %d times, want once:\n%s", what, n, text)
		}
		if n := strings.Count(text, "check:"); n > 0 {
			t.Errorf("%s names the call:\n%s", what, text)
		}
	}
	out := s.run(exitOK, "plan", "--exit-code") // nothing would change
	once("plan, before", out)
	if !strings.Contains(out, "! bot: create generation 1: it has no token yet; scopes chatbots:read; but a required sink would not take it") {
		t.Errorf("plan does not say that the create has to wait:\n%s", out)
	}
	if n := s.api.Made(); n != 0 {
		t.Fatalf("plan made %d tokens", n)
	}
	s.run(exitFailed, "once", "--patience", "1ms")
	out = s.run(exitOK, "plan")
	once("plan, after a failure", out)
	for _, want := range []string{"next try due in", "→ mend the sink"} {
		if !strings.Contains(out, want) {
			t.Errorf("plan, after a failure, lacks %q:\n%s", want, out)
		}
	}
	once("plan --offline", s.run(exitOK, "plan", "--offline"))
	once("status", s.run(exitOK, "status"))
	if err := os.Mkdir(filepath.Join(s.dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.run(exitOK, "rotate", "bot") // and waits for no backoff
	s.run(exitOK, "status", "--check")
}

func TestPlanLooksIntoTheSinks(t *testing.T) {
	config := strings.ReplaceAll(oneToken, "  - name: bot", "  - name: bot\n    on_drift: hold") + "      - file: {path: copy.token}\n"
	s := newStage(t, config)
	s.write("app.env", "BOT_TOKEN=precious\n")
	if out := s.run(exitOK, "plan", "--exit-code"); !strings.Contains(out, "say take_over: true") {
		t.Errorf("of a prior value plan says:\n%s", out)
	}
	s.run(exitFailed, "once", "--patience", "1ms")
	if !strings.Contains(s.stderr, "say take_over: true") {
		t.Errorf("of a prior value once says:\n%s", s.stderr)
	}
	s.write("app.env", "")
	s.run(exitOK, "rotate", "bot")
	first := s.token("BOT_TOKEN")
	s.run(exitOK, "rotate", "bot")
	second := s.token("BOT_TOKEN")
	for _, tc := range []struct {
		value, copied string
		code          int
		want          string
	}{
		{second, second, exitOK, "\nNothing to do."},
		{"", second, exitChanges, "it would be filled again, without a new one"},
		{"", second, exitChanges, "+ bot: push generation 2: "},
		{first, second, exitChanges, "holds generation 1 of bot: it would be overwritten with generation 2"},
		{"", "", exitChanges, "no longer holds the token, and no other sink does: it would get a new one"},
		{"", "", exitChanges, "+ bot: create generation 3: no sink is proven to hold generation 2"},
		{first, "", exitChanges, "holds generation 1 of bot: it would be overwritten with a new token, since no sink holds the present one"},
		{"precious", second, exitOK, "it would be left alone"},
		{"precious", second, exitOK, "\nNothing to do now, but see what is said of 1 sink above."},
	} {
		s.write("app.env", "BOT_TOKEN="+tc.value+"\n")
		s.write("copy.token", tc.copied)
		if out := s.run(tc.code, "plan", "--exit-code"); !strings.Contains(out, tc.want) {
			t.Errorf("plan does not say %q:\n%s", tc.want, out)
		}
	}
	s.write("rotation.yaml", strings.ReplaceAll(config, "on_drift: hold", "on_drift: restore"))
	if out := s.run(exitChanges, "plan", "--exit-code"); !strings.Contains(out, "it would be overwritten with generation 2 (on_drift: restore)") {
		t.Errorf("plan says:\n%s", out)
	}
	// A sink that waits for a person does so no longer, once the configuration lets it be written.
	s.write("rotation.yaml", config)
	s.run(exitOK, "once")
	says(t, s.run(exitOK, "plan", "--exit-code"), "holds a value that is none of ours", "adopt bot")
	s.write("rotation.yaml", strings.ReplaceAll(config, "on_drift: hold", "on_drift: restore"))
	if out := s.run(exitChanges, "plan", "--exit-code"); !strings.Contains(out, "it would be overwritten with generation 2 (on_drift: restore)") || strings.Contains(out, "adopt") {
		t.Errorf("plan says:\n%s", out)
	}
	if n := s.api.Made(); n != 2 {
		t.Errorf("%d tokens were made, want 2", n)
	}
}

// What waits for a person is no failure, but once must not leave a token unfinished without a word.
func TestOnceSaysWhyItIsNotFinished(t *testing.T) {
	s := newStage(t, oneOfAcme)
	s.plant("rotatord/acme/bot#9 20270301T000000Z abcdefghijklmnop") // and the state knows nothing of it
	s.run(exitFailed, "once", "--patience", "1ms")
	says(t, s.stderr, "nothing is created: ", "→ rotatord orphans shows them", "not finished: bot")
}

func TestStateFolderThatCannotBe(t *testing.T) {
	s := newStage(t, oneToken)
	s.write("file", "x")
	for dir, want := range map[string]string{
		"file":   "is not a folder: name another one with --state-dir",
		"no/dir": "does not exist; make that one first",
	} {
		s.env = map[string]string{"ROTATORD_STATE_DIR": filepath.Join(s.dir, dir)}
		for _, args := range []string{"status", "plan", "once", "rotate bot", "history", "health", "revoke bot --generation 1"} {
			s.run(exitUsage, strings.Fields(args)...)
			if !strings.Contains(s.stderr, want) {
				t.Errorf("%s with %s: it says %q, want %q", args, dir, s.stderr, want)
			}
		}
	}
}

// Who only looks leaves nothing in a home; who works makes what is missing there.
func TestLookingMakesNoFolders(t *testing.T) {
	s := newStage(t, oneToken)
	home := filepath.Join(s.dir, "home")
	s.env = map[string]string{"ROTATORD_STATE_DIR": "", "HOME": home}
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		args string
	}{
		{exitOK, "plan"},
		{exitOK, "status"},
		{exitOK, "validate"},
		{exitOK, "doctor"},
		{exitOK, "simulate --until 5d"},
		{exitUsage, "history"},
		{exitUsage, "identify"},
		{exitUsage, "orphans"},
		{exitUsage, "new-instance other"},
		{exitUsage, "revoke bot --generation 1"},
		{exitFailed, "health"},
		{exitFailed, "reload"},
		{exitOK, "__complete revoke b"},
	} {
		s.run(c.code, strings.Fields(c.args)...)
		left, err := os.ReadDir(home)
		if err != nil || len(left) > 0 {
			t.Fatalf("%s left %v in the home (%v)", c.args, left, err)
		}
	}
	s.run(exitOK, "rotate", "bot")
	if _, err := os.Stat(filepath.Join(home, ".local", "state", "rotatord", "rotatord.db")); err != nil {
		t.Error(err)
	}
	for _, command := range []string{"once", "pause --until 1d"} {
		s.env["HOME"] = filepath.Join(s.dir, "another", strings.Fields(command)[0])
		s.run(exitOK, strings.Fields(command)...)
	}
	s.run(exitOK, "status")
	// Where a package made a folder for it, the state is there.
	s.system = filepath.Join(s.dir, "system")
	if err := os.Mkdir(s.system, 0o700); err != nil {
		t.Fatal(err)
	}
	says(t, s.run(exitOK, "status"), "There is no state in "+s.system)
}

func TestRefusedManagementTokenIsToldOnce(t *testing.T) {
	s := newStage(t, oneToken)
	s.env = map[string]string{"SITEGPT_API_TOKEN": "sgpt_not_this_one"}
	s.run(exitFailed, "once", "--patience", "1ms")
	for _, args := range []string{"status", "plan"} {
		out := s.run(exitOK, args)
		for _, want := range []string{"the API refuses the management token", "management token: me: 401 TOKEN_NOT_VALID", "→ give rotatord another token of its own"} {
			if strings.Count(out, want) != 1 {
				t.Errorf("%s does not say once %q:\n%s", args, want, out)
			}
		}
	}
	if out := s.run(exitOK, "history"); strings.Contains(out, "refused: ") {
		t.Errorf("history says twice that it was refused:\n%s", out)
	}
	s.env = map[string]string{"SITEGPT_API_TOKEN": "sgpt_a b"}
	s.run(exitUsage, "once")
	if !strings.Contains(s.stderr, "SITEGPT_API_TOKEN has blanks") || strings.Contains(s.stderr, "sgpt_") {
		t.Errorf("of a token with blanks it says %q", s.stderr)
	}
	s.env = map[string]string{"SITEGPT_API_BASE": "ftp://sitegpt.ai"}
	s.run(exitUsage, "once")
	if !strings.Contains(s.stderr, "SITEGPT_API_BASE: ") {
		t.Errorf("of a bad base URL it says %q", s.stderr)
	}
}

func TestWishThatNobodyCanFulfilIsNotKept(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	s.env = map[string]string{"SITEGPT_API_TOKEN": ""}
	s.run(exitUsage, "rotate", "bot")
	if !strings.Contains(s.stderr, "no management token") {
		t.Errorf("it says %q", s.stderr)
	}
	s.env = nil
	s.run(exitOK, "once")
	if n := s.api.Made(); n != 1 {
		t.Errorf("%d tokens were made, want 1: the refused wish was kept", n)
	}
}

func TestFactsAsJSON(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	token := s.token("BOT_TOKEN")
	for _, tc := range []struct {
		args string
		code int
		want string // a key besides format
	}{
		{"validate", exitOK, "tokens"},
		{"status", exitOK, "problems"},
		{"plan", exitOK, "tokens"},
		{"history", exitOK, "events"},
		{"history --since 1ns", exitOK, "events"},
		{"identify", exitOK, "alive"},
		{"rotate bot", exitOK, "wishes"},
		{"revoke bot --generation 1", exitOK, "wishes"},
		{"adopt bot", exitOK, "wishes"},
		{"pause bot --until 8h", exitOK, "wishes"},
		{"health", exitFailed, "daemon"},
		{"version", exitOK, "version"},
	} {
		out := s.feed(token+"\n", tc.code, append(strings.Fields(tc.args), "--json")...)
		var v map[string]any
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Errorf("%s: %v:\n%s", tc.args, err, out)
			continue
		}
		if _, ok := v[tc.want]; v["format"] != 1.0 || !ok {
			t.Errorf("%s: want format 1 and %s:\n%s", tc.args, tc.want, out)
		}
	}
	if s.api.Alive(token) {
		t.Error("revoke --json did not revoke")
	}
	s.noPlaintext(s.token("BOT_TOKEN"))
}

func TestRehearsal(t *testing.T) {
	s := newStage(t, oneToken+`
  - name: vaulted
    scopes: [leads:read]
    schedule: "@daily"
    sinks:
      - vault_kv: {mount: secret, path: apps/x, key: token}
      - exec: {command: [/bin/false]}
`)
	t.Chdir(s.dir)
	s.run(exitOK, "once", "--sandbox")
	for _, want := range []string{"a file instead of Vault, which is not asked", "a file instead of the command, which is not run"} {
		if !strings.Contains(s.stderr, want) {
			t.Errorf("once --sandbox does not say %q:\n%s", want, s.stderr)
		}
	}
	s.run(exitOK, "once", "--sandbox") // the stand-in listens elsewhere by now
	for _, tc := range []struct{ args, want string }{
		{"status", "bot      current  1"},
		{"status vaulted", "2/2"},
		{"plan", "Nothing to do."},
		{"plan --exit-code", "bot: nothing; next rotation"},
		{"history bot", "converged"},
		{"rotate bot", "generation 2 is in every required sink"},
		{"revoke bot --generation 2 --force", "generation 2 is revoked"},
		{"status --json", "./sandbox" + filepath.Join(s.dir, "app.env") + " BOT_TOKEN"},
		{"pause vaulted --until 8h", "vaulted: paused until"},
		{"adopt bot", "bot: adopted"},
		{"history vaulted --format jsonl", "./sandbox/vault_kv/secret/apps/x/token"},
		{"rotate vaulted --compromised --json", `"done": true`},
	} {
		if out := s.run(exitOK, append(strings.Fields(tc.args), "--sandbox")...); !strings.Contains(out, tc.want) {
			t.Errorf("%s --sandbox lacks %q:\n%s", tc.args, tc.want, out)
		}
	}
	s.onlySandbox()
}

// onlySandbox fails if a rehearsal left anything outside of its folder, or asked the API in the
// environment.
func (s *stage) onlySandbox() {
	s.t.Helper()
	left, err := os.ReadDir(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range left {
		if n := f.Name(); n != "rotation.yaml" && n != "sandbox" {
			s.t.Errorf("the rehearsal left %s outside of ./sandbox", n)
		}
	}
	if r := s.api.Requests(); len(r) > 0 {
		s.t.Errorf("the rehearsal asked the API in the environment: %+v", r)
	}
}

// lines is a writer that other goroutines may read meanwhile.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) wait(t *testing.T, want string) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !strings.Contains(l.String(), want); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%q did not come:\n%s", want, l)
		}
	}
}

// A reload must not let a rehearsal out of its folder.
func TestReloadOfARehearsal(t *testing.T) {
	s := newStage(t, oneToken)
	t.Chdir(s.dir)
	ours := make(chan os.Signal, 1) // SIGHUP kills whoever does not listen
	signal.Notify(ours, syscall.SIGHUP)
	defer signal.Stop(ours)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan int)
	var out, errs lines
	go func() {
		done <- run(ctx, []string{"run", "--sandbox", "--config", "./rotation.yaml"}, environment{
			stdin: strings.NewReader(""), stdout: &out, stderr: &errs, program: "bin/rotatord",
			getenv: func(string) string { return "" }, environ: func() []string { return nil }, now: time.Now,
		})
	}()
	out.wait(t, "Every token is in place")
	out.wait(t, "\n  bin/rotatord status --sandbox --config ./rotation.yaml\n") // it can be copied as it is
	s.write("rotation.yaml", strings.ReplaceAll(oneToken, "app.env", "other.env"))
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	errs.wait(t, "reloaded")
	errs.wait(t, "other.env BOT_TOKEN")
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("it ended with %d:\n%s", code, &errs)
	}
	s.onlySandbox()
}

func TestSchemaCommand(t *testing.T) {
	s := newStage(t, oneToken)
	var schema struct {
		Draft string `json:"$schema"`
	}
	if err := json.Unmarshal([]byte(s.run(exitOK, "schema")), &schema); err != nil || !strings.Contains(schema.Draft, "2020-12") {
		t.Errorf("%+v %v", schema, err)
	}
}
