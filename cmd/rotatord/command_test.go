package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

// stage is a folder with a configuration, a state and a stand-in: what a person has on a host.
type stage struct {
	t      *testing.T
	dir    string
	api    *sandbox.Server
	url    string
	output strings.Builder // everything that any command printed
	env    map[string]string
	stderr string           // of the last command
	now    func() time.Time // of commands and stand-in
	system string           // folder of the state that a package made; "": none did
	stdout io.Writer        // of commands, where what they print is not wanted
}

func newStage(t *testing.T, config string) *stage {
	t.Helper()
	s := &stage{t: t, dir: filepath.Join(t.TempDir(), "host"), now: time.Now}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.write("rotation.yaml", config)
	s.api = sandbox.New(sandbox.Options{Now: func() time.Time { return s.now() }, Behavior: sandbox.Behavior{AnswerExpiry: true}})
	url, stop, err := s.api.Start(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	s.url = url
	return s
}

func (s *stage) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// run runs one command, and expects an exit code.
func (s *stage) run(want int, args ...string) string {
	s.t.Helper()
	return s.feed("", want, args...)
}

func (s *stage) feed(stdin string, want int, args ...string) string {
	s.t.Helper()
	code, out := s.give(stdin, args...)
	if code != want {
		s.t.Fatalf("rotatord %v: exit code %d, want %d\n%s%s", args, code, want, out, s.stderr)
	}
	return out
}

// try runs one command that may end in any way.
func (s *stage) try(args ...string) (code int, out string) { return s.give("", args...) }

func (s *stage) give(stdin string, args ...string) (code int, told string) {
	env := map[string]string{
		"ROTATORD_CONFIG": filepath.Join(s.dir, "rotation.yaml"), "ROTATORD_STATE_DIR": filepath.Join(s.dir, "state"),
		"SITEGPT_API_BASE": s.url, "SITEGPT_API_TOKEN": s.api.Management().Reveal(), "ROTATORD_LOG_LEVEL": "debug",
	}
	maps.Copy(env, s.env)
	var out, errs bytes.Buffer
	stdout := io.Writer(&out)
	if s.stdout != nil {
		stdout = s.stdout
	}
	code = run(context.Background(), args, environment{
		stdin: strings.NewReader(stdin), stdout: stdout, stderr: &errs,
		getenv: func(k string) string { return env[k] }, environ: func() []string { return nil }, now: s.now, system: s.system,
	})
	s.output.WriteString(out.String() + errs.String())
	s.stderr = errs.String()
	return code, out.String()
}

// token is what the env file holds for a key.
func (s *stage) token(key string) string {
	s.t.Helper()
	values := s.values("app.env", key)
	if len(values) == 0 {
		s.t.Fatalf("app.env holds no %s", key)
	}
	return values[0]
}

const oneToken = `version: 1
api: {requests_per_minute: 6000}
daemon: {settle: 1s}
tokens:
  - name: bot
    description: the support bot
    scopes: [chatbots:read]
    schedule: "@daily"
    sinks:
      - env_file: {path: app.env, key: BOT_TOKEN}
`

func TestOnceRotateAndTheRest(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "validate")
	s.run(exitChanges, "plan", "--exit-code")
	s.run(exitOK, "once")
	first := s.token("BOT_TOKEN")
	if !s.api.Alive(first) {
		t.Fatal("the env file holds no live token")
	}
	s.run(exitOK, "once")
	if n := s.api.Made(); n != 1 {
		t.Fatalf("a second pass made tokens: %d in all", n)
	}
	for _, r := range s.api.Requests() {
		if r.Op == sandbox.OpCreate {
			if l, ok := rotator.ParseLabel(r.Label); !ok || l.Entry != "bot" || len(r.Label) > rotator.MaxLabel {
				t.Errorf("label %q", r.Label)
			}
		}
	}

	s.run(exitOK, "rotate", "b*")
	second := s.token("BOT_TOKEN")
	if second == first || !s.api.Alive(first) || !s.api.Alive(second) {
		t.Error("after rotate, the env file must hold a new token, and the old one must live on")
	}
	s.run(exitOK, "rotate", "bot", "--compromised")
	third := s.token("BOT_TOKEN")
	if s.api.Alive(first) || s.api.Alive(second) || !s.api.Alive(third) {
		t.Error("after --compromised, every older token must be dead and the new one alive")
	}
	if out := s.feed(third+"\n", exitOK, "identify"); !strings.Contains(out, "generation 3 of bot, current") || !strings.Contains(out, "ACCEPTS") {
		t.Errorf("identify: %s", out)
	}
	s.feed("sgpt_nobodys\n", exitFailed, "identify")
	if out := s.run(exitOK, "status"); !strings.Contains(out, "1/1") {
		t.Errorf("status: %s", out)
	}
	s.run(exitOK, "status", "--json", "--check")
	s.run(exitOK, "plan", "--json")
	s.run(exitOK, "history", "bot")
	s.run(exitOK, "history", "--format", "jsonl", "--limit", "3")
	s.run(exitUsage, "revoke", "bot")
	s.run(exitUsage, "revoke", "bot", "--generation", "3")
	s.run(exitOK, "revoke", "bot", "--generation", "3", "--force")
	if s.api.Alive(third) {
		t.Error("revoke --force left the token alive")
	}
	s.run(exitUsage, "rotate", "bto")
	s.run(exitUsage, "nonsense")
	s.run(exitFailed, "health")
	s.run(exitOK, "version", "--json")
	s.noPlaintext(first, second, third)
}

// noPlaintext is the canary: no token in anything that was printed, logged or kept, but in the sink.
func (s *stage) noPlaintext(tokens ...string) {
	s.t.Helper()
	tokens = append(tokens, s.api.Management().Reveal())
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(path) == "app.env" {
			return err
		}
		b, err := os.ReadFile(path)
		for _, tok := range tokens {
			if bytes.Contains(b, []byte(tok)) {
				s.t.Errorf("%s holds a plaintext", path)
			}
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for i, tok := range tokens {
		if strings.Contains(s.output.String(), tok) {
			s.t.Errorf("plaintext %d was printed", i)
		}
	}
}

func TestOnceThroughFaultsOfTheAPI(t *testing.T) {
	for _, kind := range sandbox.Kinds() {
		switch kind {
		case sandbox.Hang, sandbox.HangAfter, sandbox.Slow:
			continue // these take the client's whole timeout; its own tests play them
		}
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, oneToken)
			s.api.Inject(sandbox.Fault{Op: sandbox.OpCreate, Kind: kind, Times: 1})
			s.run(exitOK, "once")
			live := s.api.Live()
			if len(live) != 1 || !s.api.Alive(s.token("BOT_TOKEN")) {
				t.Errorf("live tokens: %v, want the one in the env file", live)
			}
			s.noPlaintext(s.token("BOT_TOKEN"))
		})
	}
}

func TestThousandTokens(t *testing.T) {
	const tokens, shared = 1000, 300
	var b strings.Builder
	b.WriteString("version: 1\napi: {requests_per_minute: 600000}\ndefaults: {schedule: \"@daily\", scopes: [leads:read]}\ntokens:\n")
	for i := range tokens {
		file := fmt.Sprintf("t%d.env", i)
		if i < shared {
			file = "app.env"
		}
		fmt.Fprintf(&b, "  - {name: t%d, sinks: [{env_file: {path: %s, key: T%d}}]}\n", i, file, i)
	}
	s := newStage(t, b.String())
	s.run(exitOK, "once")

	creates, live, label := map[string]int{}, map[string]int{}, map[string]string{}
	entry := func(name string) string {
		l, ok := rotator.ParseLabel(name)
		if !ok {
			t.Fatalf("%q is no label of ours", name)
		}
		return l.Entry
	}
	for _, r := range s.api.Requests() {
		if r.Op == sandbox.OpCreate {
			creates[entry(r.Label)]++
		}
	}
	for _, tok := range s.api.Live() {
		live[entry(tok.Name)]++
		label[tok.ID] = tok.Name
	}
	if s.api.Made() != tokens || len(creates) != tokens || len(live) != tokens {
		t.Errorf("%d tokens were made; creates for %d entries, live tokens of %d", s.api.Made(), len(creates), len(live))
	}
	for i := range tokens {
		name, key, file := fmt.Sprintf("t%d", i), fmt.Sprintf("T%d", i), fmt.Sprintf("t%d.env", i)
		if creates[name] != 1 || live[name] != 1 {
			t.Errorf("%s: %d creates, %d live tokens, want one each", name, creates[name], live[name])
		}
		if i < shared {
			file = "app.env"
		}
		values := s.values(file, key)
		if len(values) != 1 {
			t.Fatalf("%s stands %d times in %s", key, len(values), file)
		}
		s.me(values[0])
	}
	asked := s.api.Requests() // of /me, by each value in turn
	for i, r := range asked[len(asked)-tokens:] {
		if r.Status != http.StatusOK || entry(label[r.Bearer]) != fmt.Sprintf("t%d", i) {
			t.Errorf("the value of T%d belongs to %q: %+v", i, label[r.Bearer], r)
		}
	}
}

// values are all that an env file says of a key.
func (s *stage) values(file, key string) (out []string) {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			out = append(out, strings.TrimSuffix(v, "\n"))
		}
	}
	return out
}

// me calls /me as a token.
func (s *stage) me(token string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+"/api/v2/me", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body) //nolint:errcheck // what it says stands in the stand-in's log
	resp.Body.Close()
}

func TestSecondDaemonIsTold(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	stop := s.daemon()
	s.run(exitHeld, "run")
	before := s.token("BOT_TOKEN")
	s.run(exitOK, "rotate", "bot") // the daemon does it
	if s.token("BOT_TOKEN") == before {
		t.Error("the daemon did not fulfil the wish")
	}
	stop()
}

// A promised distance between passes is held against the configuration before anything is made.
// What once says that it would do is what it then does: also what falls due before the next pass.
func TestDryRunIsOnce(t *testing.T) {
	s := newStage(t, strings.Replace(oneToken, "@daily", "0 3 * * *", 1))
	begun, at := time.Now(), time.Date(2027, 1, 4, 3, 10, 0, 0, time.UTC)
	s.now = func() time.Time { return at.Add(time.Since(begun)) }
	next := func(out string) (next string) {
		for line := range strings.Lines(out) {
			if _, after, ok := strings.Cut(line, "next rotation: "); ok {
				_, next, _ = strings.Cut(after, "(")
			}
		}
		return next
	}
	s.run(exitOK, "once")
	at = at.Add(19 * time.Hour) // the next tick is five hours away
	says(t, s.run(exitOK, "plan"), "bot: nothing; next rotation in")
	says(t, s.run(exitOK, "once", "--dry-run", "--next-pass", "1h"), "bot: nothing; next rotation in")
	out := s.run(exitOK, "once", "--dry-run", "--next-pass", "6h")
	says(t, out, "bot: create generation 2: due at 2027-01-05T03:", "before the next pass")
	says(t, s.run(exitOK, "once", "--dry-run"), "bot: create generation 2: due at") // the last pass is 19 hours ago
	if n := s.api.Made(); n != 1 {
		t.Fatalf("%d tokens were made", n)
	}
	s.run(exitOK, "once", "--next-pass", "6h")
	if n := s.api.Made(); n != 2 {
		t.Errorf("%d tokens were made", n)
	}
	if then := s.run(exitOK, "plan"); next(out) == "" || !strings.Contains(then, "("+next(out)[:len("Tue 5 Jan")]) {
		t.Errorf("first it was said:\n%s\nand then:\n%s", out, then)
	}
}

func TestOnceHoldsThePromise(t *testing.T) {
	s := newStage(t, strings.ReplaceAll(oneToken, `schedule: "@daily"`, "schedule: \"@daily\"\n    overlap: 8h\n    margin: 2h"))
	s.run(exitUsage, "once", "--next-pass", "10h")
	says(t, s.stderr, "used up by a single pass that fails, since the next one comes 10h later")
	if n := s.api.Made(); n != 0 {
		t.Errorf("%d tokens were made", n)
	}
	says(t, s.run(exitOK, "validate", "--next-pass", "1h"), "1d13h", "outage < 1h  ", "outage < 9h")
	s.run(exitOK, "once", "--next-pass", "1h")
	for _, tok := range s.api.Live() {
		if tok.Expires.Sub(tok.Created) < 10*time.Hour {
			t.Errorf("it lives from %s to %s", tok.Created, tok.Expires)
		}
	}
}
