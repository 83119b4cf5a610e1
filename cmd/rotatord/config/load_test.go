package config

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/schedule"
	"github.com/rotatord/rotatord/sinks"
)

// The sample at the root of the repository is what people begin with: it must be right.
func TestSample(t *testing.T) {
	c, problems, err := Load("../../../rotation.yaml", Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if len(problems) > 0 {
		t.Fatalf("the sample has problems:\n%s", render(problems))
	}
	if len(c.Tokens) != 3 {
		t.Errorf("%d tokens", len(c.Tokens))
	}
	for _, token := range c.Tokens {
		if token.Facts.Lifetime <= 0 || len(token.Facts.Next) == 0 {
			t.Errorf("%s: %+v", token.Name, token.Facts)
		}
	}
	entries, err := c.Entries(openNowhere, rotator.Outlet{})
	if err != nil || len(entries) != 3 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

// Everything that can be said is said, and arrives.
func TestEverything(t *testing.T) {
	text := `
version: 1
instance: prod-eu
api:
  base_url: https://SiteGPT.ai/
  timeout: 20s
  requests_per_minute: 100
  token: {file: secrets/bearer}
daemon:
  read_back: 1h
  settle: 30s
  retention: 1w
  fuse: {creates_per_day: 50, live: 30}
monitor:
  listen: 10.0.0.5:9090
  token: {file: secrets/monitor}
  hosts: [Rotatord.Example.com]
consumers: {bot: {flag: bot}, report: {flag: /run/flags/report}}
defaults:
  scopes: [knowledge:read]
  schedule: "@daily"
  margin: 6h
  consumers: [report]
  on_remove: revoke
  require_chatbot_ids: true
tokens:
  - name: first
    description: the first one
    scopes: [leads:read, leads:write]
    chatbot_ids: [cb_1, cb_2]
    schedule: "0 3 * * MON"
    timezone: Europe/Berlin
    overlap: 1d
    lifetime: 10d
    jitter: 1m
    on_drift: restore
    on_remove: expire
    was: zeroth
    sinks:
      - name: the app
        required: false
        take_over: true
        timeout: 5s
        env_file: {path: app.env, key: TOKEN}
      - exec: {command: [./push.sh], id: portal}
  - name: second
    chatbot_ids: [cb_1]
    consumers: [bot, report]
    overlap: 8m
    sinks: [{env_file: {path: /srv/b.env, key: B}}]
`
	c, problems := Parse("rotation.yaml", []byte(text), "/etc/rotatord", Options{Now: now})
	if len(problems) > 0 {
		t.Fatal(render(problems))
	}
	if want := (API{
		BaseURL: "https://sitegpt.ai", Timeout: 20 * time.Second, RequestsPerMinute: 100,
		Token: field.SecretRef{File: "/etc/rotatord/secrets/bearer"},
	}); c.API != want {
		t.Errorf("api: %+v", c.API)
	}
	if want := (Daemon{
		ReadBack: time.Hour, Settle: 30 * time.Second, Retention: 7 * 24 * time.Hour,
		Fuse: Fuse{CreatesPerDay: 50, Live: 30},
	}); c.Daemon != want {
		t.Errorf("daemon: %+v", c.Daemon)
	}
	if want := (Monitor{
		Listen: "10.0.0.5:9090", Token: field.SecretRef{File: "/etc/rotatord/secrets/monitor"}, Hosts: []string{"rotatord.example.com"},
	}); !reflect.DeepEqual(c.Monitor, want) {
		t.Errorf("monitor: %+v", c.Monitor)
	}
	entries, err := c.Entries(openNowhere, rotator.Outlet{})
	if err != nil {
		t.Fatal(err)
	}
	first, second := entries[0], entries[1]
	for _, e := range entries { // what is compared by itself
		if got := e.Facts.MaxPosts(); got < 50 || e.Facts.MaxLive() != 30 {
			t.Errorf("%s: the fuse allows %d creates, %d live", e.Name, got, e.Facts.MaxLive())
		}
	}
	if got := first.Timing.Schedule.String(); got != "0 3 * * MON Europe/Berlin" {
		t.Errorf("schedule: %s", got)
	}
	day := 24 * time.Hour
	if first.Timing.Overlap != day || first.Timing.Lifetime != 10*day || first.Timing.Jitter != time.Minute ||
		first.Timing.Margin != c.Tokens[0].Facts.Margin || first.Timing.Margin <= 0 {
		t.Errorf("timing: %+v", first.Timing)
	}
	if second.Timing.Overlap != 8*time.Minute || second.Timing.Margin != 6*time.Hour || second.Timing.Jitter != 2*time.Minute {
		t.Errorf("timing of the second: %+v", second.Timing)
	}
	first.Timing, first.Facts, second.Timing, second.Facts = rotator.Timing{}, rotator.Facts{}, rotator.Timing{}, rotator.Facts{}
	if want := (rotator.Entry{
		Name: "first", Description: "the first one", Was: "zeroth",
		Scopes: []string{"leads:read", "leads:write"}, Chatbots: []string{"cb_1", "cb_2"},
		OnDrift: rotator.DriftRestore, OnRemove: rotator.RemoveExpire, Settle: 30 * time.Second,
		Consumers: []rotator.Consumer{{Name: "report", Title: "/run/flags/report"}},
		Outlets: []rotator.Outlet{
			{Place: c.Tokens[0].Sinks[0].Place, Name: "the app", Kind: "env_file", TakeOver: true, Timeout: 5 * time.Second, Sink: nowhere{}},
			{Place: "exec:portal", Name: "exec portal", Kind: "exec", Required: true, Timeout: 30 * time.Second, Sink: nowhere{}},
		},
	}); !reflect.DeepEqual(first, want) {
		t.Errorf("got  %+v\nwant %+v", first, want)
	}
	if place := c.Tokens[0].Sinks[0].Place; !strings.Contains(place, "/etc/rotatord/app.env") {
		t.Errorf("the place %q does not start from the file's folder", place)
	}
	if want := (rotator.Entry{
		Name: "second", Scopes: []string{"knowledge:read"}, Chatbots: []string{"cb_1"},
		OnDrift: rotator.DriftHold, OnRemove: rotator.RemoveRevoke, Settle: 30 * time.Second,
		Consumers: []rotator.Consumer{{Name: "bot", Title: "bot.service"}, {Name: "report", Title: "/run/flags/report"}},
		Outlets:   second.Outlets,
	}); !reflect.DeepEqual(second, want) {
		t.Errorf("got  %+v\nwant %+v", second, want)
	}
}

func TestDefaults(t *testing.T) {
	c, problems := Parse("rotation.yaml", []byte(`
version: 1
tokens:
  - name: only
    scopes: [knowledge:read]
    schedule: "@weekly"
    sinks: [{env_file: {path: a.env, key: A}}]
`), "/etc/rotatord", Options{Now: now})
	if len(problems) > 0 {
		t.Fatal(render(problems))
	}
	if want := (API{Timeout: 10 * time.Second, RequestsPerMinute: 60}); c.API != want {
		t.Errorf("api: %+v", c.API)
	}
	if want := (Daemon{ReadBack: 15 * time.Minute, Settle: 10 * time.Second, Retention: 400 * 24 * time.Hour}); c.Daemon != want {
		t.Errorf("daemon: %+v", c.Daemon)
	}
	if !reflect.DeepEqual(c.Monitor, Monitor{}) {
		t.Errorf("monitor: %+v", c.Monitor)
	}
	token := c.Tokens[0]
	if token.Timing.Overlap != 48*time.Hour || token.Timing.Margin != 12*time.Hour || token.Timing.Jitter != 5*time.Minute || token.Timing.Lifetime != 0 {
		t.Errorf("timing: %+v", token.Timing)
	}
	if token.ChatbotIDs != nil || token.Timezone != "UTC" || token.OnDrift != rotator.DriftHold || token.OnRemove != rotator.RemoveExpire {
		t.Errorf("%+v", token)
	}
	if s := token.Sinks[0]; !s.Required || s.TakeOver || s.Timeout != 30*time.Second || !strings.HasPrefix(s.Name, "env_file /etc/rotatord/a.env") {
		t.Errorf("%+v", s)
	}
	if token.File != "rotation.yaml" || token.Line != 4 {
		t.Errorf("stands in %s:%d", token.File, token.Line)
	}
}

func TestEmptyListIsAllowedOnDemand(t *testing.T) {
	text := []byte("version: 1\ntokens: []\n")
	if c, _ := Parse("rotation.yaml", text, ".", Options{Now: now}); c != nil {
		t.Error("accepted without being asked to")
	}
	if c, problems := Parse("rotation.yaml", text, ".", Options{Now: now, AllowEmpty: true}); c == nil || len(problems) > 0 {
		t.Errorf("refused:\n%s", render(problems))
	}
	// A list that is missing is a slip, not a wish.
	if c, _ := Parse("rotation.yaml", []byte("version: 1\n"), ".", Options{Now: now, AllowEmpty: true}); c != nil {
		t.Error("a missing list was accepted")
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	tokenA = "tokens:\n  - {name: a, scopes: [knowledge:read], sinks: [{env_file: {path: a.env, key: A}}]}\n"
	tokenB = "tokens:\n  - {name: b, scopes: [knowledge:read], sinks: [{env_file: {path: a.env, key: B}}]}\n"
)

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"00-base.yaml": "version: 1\ninstance: prod\ndefaults: {schedule: \"@daily\"}\n",
		"10-a.yaml":    tokenA,
		"20-b.yaml":    "version: 1\n" + tokenB,
		".hidden.yaml": "nonsense: true\n",
		"notes.txt":    "nonsense",
	})
	// As a ConfigMap is mounted: the names are links.
	if err := os.Symlink("10-a.yaml", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, problems, err := Load(dir, Options{Now: now})
	if err != nil || len(problems) > 0 {
		t.Fatalf("%v\n%s", err, render(problems))
	}
	if len(c.Tokens) != 2 || c.Tokens[0].Name != "a" || c.Tokens[1].Name != "b" || c.Instance != "prod" || len(c.Files) != 3 {
		t.Errorf("%+v", c)
	}
	if want := filepath.Join(dir, "20-b.yaml"); c.Tokens[1].File != want || c.Tokens[1].Line != 3 {
		t.Errorf("b stands in %s:%d", c.Tokens[1].File, c.Tokens[1].Line)
	}
	before := c.Hash
	write(t, dir, map[string]string{"10-a.yaml": tokenA + "# edited\n"})
	if c, _, _ = Load(dir, Options{Now: now}); c.Hash == before || len(c.Hash) != 64 {
		t.Errorf("hash %q after %q", c.Hash, before)
	}
}

func TestFolderWithProblems(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"00-base.yaml":  "version: 1\ninstance: prod\ndefaults: {schedule: \"@daily\"}\n",
		"10-a.yaml":     tokenA,
		"20-again.yaml": "version: 2\ninstance: test\n" + tokenA,
		"30-typo.yaml":  "tokns: []\n",
		"40-old.yml":    "version: 1\n",
		"50-text.yaml":  "a: b: c\n",
		"60-gone.yaml":  "# - {name: gone}\n",
	})
	c, problems, err := Load(dir, Options{Now: now})
	if err != nil || c != nil {
		t.Fatalf("accepted, or unreadable: %v", err)
	}
	golden(t, "testdata/folder.txt", relative(problems, dir))
}

func relative(problems Problems, dir string) Problems {
	for i := range problems {
		problems[i].File = strings.TrimPrefix(problems[i].File, dir+"/")
		problems[i].Message = strings.ReplaceAll(problems[i].Message, dir+"/", "")
	}
	return problems
}

// What cannot be read at all is an error, not a problem of the text.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"secret.yaml": "version: 1\n"})
	if err := os.Chmod(filepath.Join(dir, "secret.yaml"), 0); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"empty", "dangling"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling", "a.yaml")); err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"none.yaml": "no such file",
		"pipe":      "no regular file",
		"empty":     "no file that ends in .yaml",
		"dangling":  `a.yaml: is a link to "nowhere": file does not exist`,
	}
	if os.Getuid() != 0 {
		tests["secret.yaml"] = "permission denied"
	}
	for name, want := range tests {
		c, problems, err := Load(filepath.Join(dir, name), Options{Now: now})
		if c != nil || problems != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v", name, problems, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"rotation.yaml": "version: 1\n" + strings.Repeat("# filler\n", 1<<19)})
	c, problems, err := Load(filepath.Join(dir, "rotation.yaml"), Options{Now: now})
	if c != nil || err != nil || len(problems) != 1 || problems[0].Message != "is larger than 4 MiB: this is no rotation.yaml" {
		t.Errorf("got %v, %v", problems, err)
	}
}

// Every sink that cannot be opened is named.
// What a program writes may be one line, in which everything is wrong: each problem shows its own
// place, and all of them together are not a thousand times the file.
func TestOneLongLine(t *testing.T) {
	var text strings.Builder
	text.WriteString(`{version: 1, tokens: [`)
	const n = 3000
	for i := range n {
		fmt.Fprintf(&text, `{nam: t%d, description: sgpt_0123456789abcdef, api: secret-%d}, `, i, i)
	}
	text.WriteString("]}")
	_, problems := Parse("rotation.yaml", []byte(text.String()), "/etc", Options{Now: now})
	if len(problems) < 2*n {
		t.Fatalf("%d problems", len(problems))
	}
	shown := 0
	line := []rune(text.String())
	for _, p := range problems {
		shown += len(p.Source)
		got, want := []rune(p.Source)[p.Column-max(p.SourceFrom, 1)], line[p.Column-1]
		if got != want {
			t.Fatalf("%+v: shows %q for %q", p, got, want)
		}
		if strings.Contains(p.Source, "sgpt_0") || strings.Contains(p.Source, "secret-") {
			t.Fatalf("%+v", p)
		}
		out := strings.Split(p.String(), "\n")
		if caret := len([]rune(out[2])) - 1; []rune(out[1])[caret] != want {
			t.Fatalf("the caret stands wrong:\n%s", &p)
		}
	}
	if most := len(problems) * maxSource; shown > most {
		t.Errorf("%d problems show %d bytes of a line of %d", len(problems), shown, text.Len())
	}
}

func TestEntriesNamesWhatCannotBeOpened(t *testing.T) {
	c, problems := Parse("rotation.yaml", []byte("version: 1\ndefaults: {schedule: \"@daily\"}\n"+tokenA), "/etc", Options{Now: now})
	if c == nil {
		t.Fatal(render(problems))
	}
	broken := errors.New("out of order")
	entries, err := c.Entries(func(sinks.Spec) (rotator.Sink, error) { return nil, broken }, rotator.Outlet{})
	if entries != nil || !errors.Is(err, broken) || !strings.Contains(err.Error(), "token a: sink env_file /etc/a.env") {
		t.Errorf("got %v, %v", entries, err)
	}
}

// A byte order mark, carriage returns and anchors are how some files are, and change nothing.
func TestWaysOfWriting(t *testing.T) {
	plain := "version: 1\ndefaults: {schedule: \"@daily\"}\n" + tokenA
	for name, text := range map[string]string{
		"byte order mark":  "\ufeff" + plain,
		"carriage returns": strings.ReplaceAll(plain, "\n", "\r\n"),
		"one document":     "---\n" + plain + "...\n",
		"nothing after it": plain + "---\n# nothing\n---\n...\n",
		"anchors":          strings.ReplaceAll(plain, "\"@daily\"", "&daily \"@daily\"") + "    \n",
		"json":             `{"version": 1, "tokens": [{"name": "a", "scopes": ["knowledge:read"], "schedule": "@daily", "sinks": [{"env_file": {"path": "a.env", "key": "A"}}]}]}`,
	} {
		c, problems := Parse("rotation.yaml", []byte(text), "/etc", Options{Now: now})
		if len(problems) > 0 {
			t.Errorf("%s:\n%s", name, render(problems))
			continue
		}
		if len(c.Tokens) != 1 || c.Tokens[0].Schedule != "@daily" {
			t.Errorf("%s: %+v", name, c.Tokens)
		}
	}
}

// The domain writes durations by itself, since it imports nothing of ours: rotation.yaml's units, in
// its problems as in ours.
func TestDurationsAreWrittenAlike(t *testing.T) {
	yearly, err := schedule.Parse("@every 360d", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		d := time.Duration(1 + random.Int64N(int64(1)<<(10+i%44)))
		if i%3 == 0 {
			d = d.Round([]time.Duration{time.Minute, time.Hour, 24 * time.Hour}[i/3%3]) + time.Duration(i%2)*time.Second
		}
		if d <= 0 {
			continue
		}
		_, problems := rotator.Timing{Schedule: yearly, Overlap: d, Jitter: d, Margin: time.Hour}.Check(now)
		want := field.FormatDuration(d) + " must be shorter than the overlap, " + field.FormatDuration(d)
		if !slices.ContainsFunc(problems, func(p rotator.TimingProblem) bool { return p.Field == "jitter" && p.Text == want }) {
			t.Fatalf("%s: %+v, want %q", d, problems, want)
		}
	}
}

// What is not said of rotatord's own token: it can do what it must, and give what the tokens have;
// and it takes nothing from the defaults.
func TestManagement(t *testing.T) {
	text := `
version: 1
management: {schedule: "@monthly", expires_at: 2027-01-31}
defaults: {overlap: 3h, schedule: "@daily", scopes: [leads:read], on_remove: revoke}
tokens:
  - {name: a, sinks: [{env_file: {path: a.env, key: A}}]}
  - {name: b, scopes: [knowledge:read, tokens:read], sinks: [{env_file: {path: a.env, key: B}}]}
`
	c, problems := Parse("rotation.yaml", []byte(text), "/etc/rotatord", Options{Now: now})
	if len(problems) > 0 {
		t.Fatal(render(problems))
	}
	if want := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC); !c.Management.ExpiresAt.Equal(want) {
		t.Errorf("expires_at: %s", c.Management.ExpiresAt)
	}
	own := rotator.Outlet{Place: "management"}
	entries, err := c.Entries(openNowhere, own)
	if err != nil || len(entries) != 3 || len(c.Tokens) != 2 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	e := entries[2]
	if want := []string{"knowledge:read", "leads:read", "tokens:read", "tokens:write"}; e.Name != rotator.OwnName || !slices.Equal(e.Scopes, want) || e.Chatbots != nil {
		t.Errorf("%s: %v %v", e.Name, e.Scopes, e.Chatbots)
	}
	if e.Timing.Overlap != DefaultOverlap || e.OnRemove != rotator.RemoveExpire || e.OnDrift != rotator.DriftRestore || len(e.Outlets) != 1 || e.Outlets[0].Place != own.Place {
		t.Errorf("%+v", e)
	}
	without, problems := Parse("rotation.yaml", []byte(strings.Replace(text, `schedule: "@monthly", `, "", 1)), "/etc/rotatord", Options{Now: now})
	if len(problems) > 0 || without.Management.Token != nil {
		t.Errorf("without a schedule: %+v\n%s", without, render(problems))
	}
}
