package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
)

// validate runs the command with nothing around it: no environment, no credentials, no state.
func validate(t *testing.T, code int, stdin string, args ...string) (out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	got := run(t.Context(), append([]string{"validate"}, args...), environment{
		stdin: strings.NewReader(stdin), stdout: &o, stderr: &e,
		getenv: func(string) string { return "" }, environ: func() []string { return nil }, now: time.Now,
	})
	if got != code {
		t.Fatalf("validate %v ended with %d, not %d:\n%s%s", args, got, code, &o, &e)
	}
	return o.String(), e.String()
}

func file(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const doubtful = `version: 1
tokens:
  - name: bot
    scopes: [knowledge:wirte]
    schedule: "@daily"
    sinks: [{file: {path: bot}}]
`

// Warnings pass, unless they are not to; what is refused ends with 2, and all of it is told.
func TestValidateExitCodes(t *testing.T) {
	dir := t.TempDir()
	path := file(t, dir, "rotation.yaml", doubtful)
	out, _ := validate(t, exitOK, "", path)
	says(t, out, "warning: "+path+":4:14: tokens[0] \"bot\": scopes: \"knowledge:wirte\" is not a known scope", "is right: 1 token, 1 warning.")
	out, errs := validate(t, exitUsage, "", "--strict", path)
	says(t, out, path+":4:14: ")
	says(t, errs, "1 error, 0 warnings")
	if strings.Contains(out, "warning") || strings.Contains(out, "is right") {
		t.Errorf("strictly, there are no warnings:\n%s", out)
	}

	out, errs = validate(t, exitUsage, strings.Replace(doubtful, "@daily", "@dayly", 1)+"extra: 1\n", "-")
	says(t, out, "warning: -:4:14:", "-:5:15:", "-:7:1: unknown key \"extra\"")
	says(t, errs, "-: 2 errors, 1 warning")
	validate(t, exitUsage, "", filepath.Join(dir, "none.yaml"))
	for _, args := range [][]string{{"--format", "xml", path}, {"--json", "--format", "github", path}, {"--expand", "--json", path}, {"-", path}, {dir, path}, {path, dir}} {
		validate(t, exitUsage, "", args...)
	}
}

// A folder, and several files, are one configuration.
func TestValidateManyFiles(t *testing.T) {
	dir := t.TempDir()
	a := file(t, dir, "a.yaml", "version: 1\ndefaults: {schedule: \"@daily\"}\n")
	b := file(t, dir, "b.yaml", "sets:\n- for_each: {x: {}, y: {}}\n  tokens:\n  - {name: \"{key}\", scopes: [leads:read], sinks: [{file: {path: \"{key}\"}}]}\n")
	for _, args := range [][]string{{dir}, {a, b}} {
		out, _ := validate(t, exitOK, "", args...)
		says(t, out, "x and y", "2 tokens, 0 warnings")
	}
	if _, errs := validate(t, exitUsage, "", b); !strings.Contains(errs, "2 errors") {
		t.Errorf("b alone has neither version nor schedule: %s", errs)
	}
	file(t, dir, "c.yaml", "defaults: {schedule: \"@daily\"}\n")
	out, _ := validate(t, exitUsage, "", dir)
	says(t, out, "defaults: is given in "+a+":2 already")
}

// GitHub reads a command on each line: whatever a message, a path or a line holds, it stays one.
func TestValidateForGitHub(t *testing.T) {
	for _, c := range []struct {
		p    config.Problem
		want string
	}{
		{
			config.Problem{File: "conf.d/a.yaml", Line: 3, Column: 7, Where: "tokens[0]: overlap", Message: "is 50%", Severity: config.Error},
			"::error file=conf.d/a.yaml,line=3,col=7::tokens[0]: overlap: is 50%25",
		},
		{
			config.Problem{File: "./a,b:c%.yaml", Line: 1, Column: 1, Message: "one\r\n::error::two", Severity: config.Warning},
			"::warning file=a%2Cb%3Ac%25.yaml,line=1,col=1::one%0D%0A::error::two",
		},
		{config.Problem{File: "x\n::y.yaml", Message: "is empty", Severity: config.Error}, "::error file=x%0A%3A%3Ay.yaml::is empty"},
		{config.Problem{File: "-", Line: 2, Column: 1, Message: "m", Severity: config.Error}, "::error line=2,col=1::m"},
		{config.Problem{File: "-", Message: "m", Severity: config.Error}, "::error::m"},
	} {
		if got := annotation(&c.p); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	out, _ := validate(t, exitOK, doubtful, "--format", "github", "-")
	says(t, out, "::warning line=4,col=14::tokens[0] \"bot\": scopes: \"knowledge:wirte\" is not", "is right")
	out, _ = validate(t, exitUsage, doubtful, "--format", "github", "--strict", "-")
	says(t, out, "::error line=4,col=14::")
	if strings.Contains(out, "::warning") || strings.Count(out, "\n") != 1 {
		t.Errorf("got %s", out)
	}
}

// Every reference to a secret may lead nowhere: where a secret is, and not what it is, is looked at.
func TestValidateNeedsNoSecrets(t *testing.T) {
	dir := t.TempDir()
	locked := filepath.Join(dir, "locked")
	if err := os.Mkdir(locked, 0o000); err != nil {
		t.Fatal(err)
	}
	path := file(t, dir, "rotation.yaml", `version: 1
api: {base_url: "https://sitegpt.invalid", token: {file: locked/bearer}}
vault: {address: "https://vault.invalid:8200", ca_cert: locked/ca.pem, auth: {approle: {role_id: {env: NOBODY_SET_THIS}, secret_id: {credential: none}}}}
tokens:
  - name: bot
    scopes: [leads:read]
    schedule: "@daily"
    sinks:
      - vault_kv: {mount: secret, path: bot}
      - file: {path: /locked/nowhere/bot}
      - exec: {command: [/nonexistent/push]}
`)
	began := time.Now()
	out, _ := validate(t, exitOK, "", path)
	says(t, out, "is right: 1 token, 0 warnings")
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s: who was waited for?", took)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("validate left something: %v %v", left, err)
	}
}

// For each token there is what it promises, in the table and for programs; of a fleet, each promise
// is read once.
func TestValidatePromises(t *testing.T) {
	const fleet = "config/testdata/fleet.yaml"
	out, _ := validate(t, exitOK, "", fleet)
	says(t, out, "acme-chat and 59 more", "acme-leads and 59 more", "outage < 18h", "outage < 3d18h", "180 tokens")
	if n := strings.Count(out, "\n"); n > 8 {
		t.Errorf("a fleet takes %d lines:\n%s", n, out)
	}
	var got struct {
		Tokens []promise `json:"tokens"`
	}
	out, _ = validate(t, exitOK, "", "--format", "json", fleet)
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	const h = 3600.0
	if len(got.Tokens) != 180 {
		t.Fatalf("%d tokens", len(got.Tokens))
	}
	if p := got.Tokens[0]; p.Token != "acme-chat" || p.Row != "acme" || p.Live != 2 || p.KeepsOverlap != 18*h || p.NoGap != 90*h || p.Every != (7*24-1)*h || len(p.Next) != 5 {
		t.Errorf("%+v", p)
	}

	// Without sets, a few are told one by one, and many together.
	var few, many strings.Builder
	for i, b := range []*strings.Builder{&few, &many} {
		b.WriteString("version: 1\ndefaults: {schedule: \"@daily\", scopes: [leads:read]}\ntokens:\n")
		for j := range []int{5, 50}[i] {
			n := string(rune('a'+j/10)) + string(rune('0'+j%10))
			b.WriteString("  - {name: " + n + ", sinks: [{file: {path: " + n + "}}]}\n")
		}
	}
	out, _ = validate(t, exitOK, few.String(), "-")
	says(t, out, "a0 ", "a4 ")
	out, _ = validate(t, exitOK, many.String(), "-")
	says(t, out, "a0 and 49 more")
}

// What --expand prints on standard output is a configuration and nothing else, and it is right.
func TestValidateExpand(t *testing.T) {
	dir := t.TempDir()
	path := file(t, dir, "rotation.yaml", strings.Replace(doubtful, "tokens:", "sets:\n- for_each: {x: {}, y: {}}\n  tokens:", 1))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte("bot"), []byte("\"bot-{key}\"")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs := validate(t, exitOK, "", "--expand", path)
	says(t, out, "name: \"bot-x\"", "path: \"bot-y\"")
	says(t, errs, "is not a known scope", "in every row")
	if strings.Contains(out, "warning") || strings.Contains(out, "sets:") || !strings.HasSuffix(out, "\n") {
		t.Errorf("printed:\n%s", out)
	}
	again, _ := validate(t, exitOK, out, "--expand", "-")
	if again != out {
		t.Errorf("once more:\n%s\nand first:\n%s", again, out)
	}
	if out, _ := validate(t, exitUsage, doubtful+"x: 1\n", "--expand", "-"); strings.Contains(out, "version") {
		t.Errorf("a refused one is printed:\n%s", out)
	}
}

// A folder whose file is a link that leads nowhere, as in a ConfigMap that is half there, is not a folder
// that is not there.
func TestValidateNamesTheLinkThatLeadsNowhere(t *testing.T) {
	s := newStage(t, oneToken)
	folder := filepath.Join(s.dir, "conf.d")
	if err := errors.Join(os.Mkdir(folder, 0o700), os.Symlink("nowhere", filepath.Join(folder, "a.yaml"))); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"validate", folder}, {"plan", "--diff", folder}} {
		if s.run(exitUsage, args...); !strings.Contains(s.stderr, `conf.d/a.yaml: is a link to "nowhere"`) {
			t.Errorf("%v: %s", args, s.stderr)
		}
	}
}
