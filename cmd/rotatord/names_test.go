package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// twoPushes has two sinks that differ in a value of env alone, which nobody but the program may see.
const twoPushes = `version: 1
api: {requests_per_minute: 6000}
daemon: {settle: 1s}
tokens:
  - name: bot
    scopes: [chatbots:read]
    schedule: "@daily"
    sinks:
      - exec: {command: [./push], read: [./push], env: {INTO: hunter2}}
      - exec: {command: [./push], read: [./push], env: {INTO: hunter3}}
`

const pushProgram = `#!/bin/sh
case "$ROTATORD_ACTION" in
push) cat >"$INTO" ;;
read) if [ -e "$INTO" ]; then cat "$INTO"; fi ;;
esac
`

// Names are shown to whoever looks: none of them tells a value of env, and the state knows the sinks by
// their places as ever.
func TestNamesDoNotTellTheEnvOfAProgram(t *testing.T) {
	s := newStage(t, twoPushes)
	s.write("push", pushProgram)
	if err := os.Chmod(filepath.Join(s.dir, "push"), 0o700); err != nil { //nolint:gosec // it is to run
		t.Fatal(err)
	}
	s.write("before.yaml", strings.Split(twoPushes, "tokens:")[0]+"tokens:\n  - {name: kb, scopes: [leads:read], schedule: \"@daily\", sinks: [{file: {path: kb}}]}\n")
	metrics := filepath.Join(s.dir, "rotatord.prom")
	shown := s.run(exitOK, "once", "--metrics-file", metrics)
	text, err := os.ReadFile(metrics)
	if err != nil {
		t.Fatal(err)
	}
	shown += string(text)
	says(t, string(text), `push\"] (INTO)"`, `push\"] (INTO) #2"`)
	s.write("hunter3", "a person was here\n")
	s.run(exitOK, "once")
	for _, args := range [][]string{
		{"status"},
		{"status", "bot"},
		{"status", "--json"},
		{"plan"},
		{"plan", "--diff", filepath.Join(s.dir, "before.yaml"), "--format", "markdown"},
		{"plan", "--diff", filepath.Join(s.dir, "before.yaml")},
		{"history"},
		{"history", "--format", "jsonl"},
		{"history", "--format", "csv"},
		{"history", "--format", "report"},
		{"validate"},
		{"validate", "--format", "json"},
		{"simulate", "--until", "7d"},
		{"simulate", "--until", "7d", "--worst"},
		{"__complete", "adopt", "bot", "--sink", ""},
	} {
		shown += s.run(exitOK, args...) + s.stderr
	}
	s.run(exitUsage, "adopt", "bot", "--sink", "elsewhere")
	shown += s.stderr
	if strings.Contains(shown, "hunter") {
		for line := range strings.Lines(shown) {
			if strings.Contains(line, "hunter") {
				t.Errorf("a value of env is shown: %s", line)
			}
		}
	}
	says(t, s.run(exitOK, "status", "--json"), `"place": "exec:[\"`+s.dir+`/push\"]{\"INTO\":\"fb8c2e2b85ca\"}"`)
	second := `exec ["` + s.dir + `/push"] (INTO) #2`
	s.run(exitUsage, "adopt", "bot", "--sink", strings.TrimSuffix(second, " #2"))
	says(t, s.stderr, "waiting: "+second)
	says(t, s.run(exitOK, "adopt", "bot", "--sink", second), "bot: adopted")
}

// Two sinks that wait have one name: which one is meant is asked, not guessed.
func TestAdoptAsksWhichSinkOfOneName(t *testing.T) {
	s := newStage(t, strings.Replace(oneToken, "      - env_file: {path: app.env, key: BOT_TOKEN}\n", `      - {name: app, file: {path: one}}
      - {name: app, file: {path: two}}
`, 1))
	s.run(exitOK, "once")
	s.write("one", "a person was here\n")
	s.write("two", "here, too\n")
	s.run(exitOK, "once")
	s.run(exitUsage, "adopt", "bot", "--sink", "app")
	says(t, s.stderr, "2 sinks that wait for a person are called \"app\"", "status --json")
	says(t, s.run(exitOK, "adopt", "bot", "--sink", "file:"+filepath.Join(s.dir, "two")), "still waiting: app")
	s.run(exitOK, "adopt", "bot", "--sink", "app") // one is left
	for _, name := range []string{"one", "two"} {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil || !s.api.Alive(strings.TrimSpace(string(text))) {
			t.Errorf("%s holds no live token: %v", name, err)
		}
	}
}

// A sink is called otherwise since the state noted that it waits: the new name is the one that counts.
func TestAdoptKnowsTheNameThatIsDeclared(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	s.write("app.env", "BOT_TOKEN=a-person-was-here\n")
	s.run(exitOK, "once")
	s.write("rotation.yaml", strings.Replace(oneToken, "- env_file", "- name: the app\n        env_file", 1))
	s.run(exitUsage, "adopt", "bot", "--sink", "app")
	says(t, s.stderr, "waiting: the app")
	s.run(exitOK, "adopt", "bot", "--sink", "the app")
	if !s.api.Alive(s.token("BOT_TOKEN")) {
		t.Error("the sink was not filled")
	}
}
