package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
)

// A reviewer compares an edit with what is in force: without a state, credentials or a network.
func TestPlanDiffComparesTwoConfigurations(t *testing.T) {
	s := newStage(t, strings.NewReplacer("[chatbots:read]", "[chatbots:read, leads:read]", `"@daily"`, `"0 3 * * MON"`).Replace(oneToken)+`  - name: newcomer
    scopes: [leads:read]
    schedule: "@weekly"
    sinks: [{file: {path: new.txt}}]
`)
	s.env = map[string]string{"SITEGPT_API_TOKEN": "", "SITEGPT_API_BASE": "http://127.0.0.1:1"}
	elsewhere := filepath.Join(t.TempDir(), "old.yaml") // what is relative in it is meant from the new one's folder
	if err := os.WriteFile(elsewhere, []byte(oneToken), 0o600); err != nil {
		t.Fatal(err)
	}
	out := s.run(exitOK, "plan", "--diff", elsewhere)
	says(t, out,
		"~ bot: its token is created again: scopes changed; its schedule moves",
		"scopes: chatbots:read → chatbots:read leads:read (with leads:read)",
		"rotations a month: 30.4 → 4.3", "+ newcomer: appears: a first token is created",
		"sink file ./new.txt is added: it gets the first token",
		"Of the tokens, 1 is created again, 1 appears, 1 moves its schedule.")
	if strings.Contains(out, "app.env") {
		t.Errorf("a sink that did not move is told:\n%s", out)
	}
	if piped := s.feed(oneToken, exitChanges, "plan", "--diff", "-", "--exit-code"); piped != out {
		t.Errorf("from standard input:\n%s\nfrom a file:\n%s", piped, out)
	}
	var got diffJSON
	if err := json.Unmarshal([]byte(s.feed(oneToken, exitOK, "plan", "--diff", "-", "--format", "json")), &got); err != nil || got.Format != 1 || len(got.Tokens) != 2 {
		t.Errorf("json: %v, %+v", err, got)
	}
	if one := s.feed(oneToken, exitOK, "plan", "--diff", "-", "new*"); strings.Contains(one, "bot:") || !strings.Contains(one, "+ newcomer") {
		t.Errorf("only newcomer was asked for:\n%s", one)
	}
	if s.feed(oneToken, exitUsage, "plan", "--diff", "-", "newcomr"); !strings.Contains(s.stderr, `there is no token "newcomr" (did you mean "newcomer"?)`) {
		t.Errorf("a name that neither has: %s", s.stderr)
	}
	same := filepath.Join(s.dir, "rotation.yaml")
	says(t, s.run(exitOK, "plan", "--diff", same, "--exit-code"), "Nothing changes: 2 tokens as before.")
	says(t, s.run(exitOK, "plan", "--diff", same, "bot"), "Nothing changes: 1 token as before.")
	// What goes: also the last token, and back again.
	s.write("rotation.yaml", "version: 1\napi: {requests_per_minute: 6000}\ndaemon: {settle: 1s}\ntokens: []\n")
	says(t, s.run(exitOK, "plan", "--diff", elsewhere, "--allow-empty"), "- bot: goes unmanaged: its token lives on, for 3d14h at most", "it keeps its value")
	s.write("rotation.yaml", strings.Replace(oneToken, "    description", "    on_remove: revoke\n    description", 1))
	says(t, s.feed("version: 1\ntokens: []\n", exitOK, "plan", "--diff", "-"), "+ bot: appears")
	s.write("rotation.yaml", strings.Replace(oneToken, "    description: the support bot\n", "", 1))
	says(t, s.feed(oneToken, exitOK, "plan", "--diff", "-"), "description: no longer the support bot")
	if _, err := os.Stat(filepath.Join(s.dir, "state")); err == nil {
		t.Error("a comparison made a state")
	}
}

func TestPlanDiffComparesFolders(t *testing.T) {
	s := newStage(t, oneToken)
	for _, dir := range []string{"now.d", "before.d"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		s.write(dir+"/a.yaml", oneToken)
	}
	s.write("now.d/b.yaml", "tokens: [{name: more, scopes: [leads:read], schedule: \"@daily\", sinks: [{file: {path: m.txt}}]}]\n")
	out := s.run(exitOK, "plan", "--config", filepath.Join(s.dir, "now.d"), "--diff", filepath.Join(s.dir, "before.d"))
	if says(t, out, "+ more: appears"); strings.Contains(out, "bot:") {
		t.Errorf("bot did not change:\n%s", out)
	}
}

// What is wrong with either is told of both, and which one it is.
func TestPlanDiffOfARefusedConfiguration(t *testing.T) {
	s := newStage(t, strings.Replace(oneToken, "chatbots:read", "chatbots", 1))
	s.feed(strings.Replace(oneToken, `"@daily"`, `"@dayly"`, 1), exitUsage, "plan", "--diff", "-")
	says(t, s.stderr, "The old configuration, standard input:", "-:8:", "The new configuration, ", "rotation.yaml:7:",
		"standard input is refused: 1 error; ", "rotation.yaml is refused: 1 error")
	s.write("rotation.yaml", oneToken)
	s.feed("version: 2\ntokens: []\n", exitUsage, "plan", "--diff", "-")
	if strings.Contains(s.stderr, "The new") {
		t.Errorf("nothing is wrong with the new one:\n%s", s.stderr)
	}
	s.run(exitUsage, "plan", "--diff", filepath.Join(s.dir, "no-such.yaml"))
	says(t, s.stderr, "no-such.yaml to compare with")
	s.run(exitUsage, "plan", "--format", "markdown") // there is nothing to compare with
	s.run(exitUsage, "plan", "--diff", "-", "--format", "html")
	s.run(exitUsage, "plan", "--diff", "-", "--offline")
}

// A comment is read by GitHub: nothing that is written in a configuration may mention somebody, close a
// fold or a cell, or be taken for a link.
func TestPlanDiffMarkdownCannotBeBrokenOut(t *testing.T) {
	const evil = "@everyone </details> | `code` ``x`` [a](http://x) <img src=x>"
	s := newStage(t, strings.Replace(oneToken, "the support bot", `"`+evil+`"`, 1))
	out := s.feed(oneToken, exitOK, "plan", "--diff", "-", "--format", "markdown")
	says(t, out, "### What this does to the tokens\n", "| token | what happens |\n|---|---|\n| `bot` | description changed; no new token is needed |\n",
		"- `description`: `the support bot` → ```"+evil+"``` (in the label of the next token)\n", "\n</details>\n")
	for _, tc := range [][2]string{{"a", "`a`"}, {"`a", "`` `a ``"}, {"a``b", "```a``b```"}, {" ", "(empty)"}, {"a\nb", "`a b`"}, {"a\u009bb\u2028c", "`a b c`"}, {"a\u202ebc", "`a\ufffdbc`"}} {
		if got := code(tc[0]); got != tc[1] {
			t.Errorf("code(%q) is %q, want %q", tc[0], got, tc[1])
		}
	}
}

// A comment of GitHub has at most 65536 characters, however many tokens an edit touches.
func TestPlanDiffMarkdownFitsIntoAComment(t *testing.T) {
	var d config.Diff
	for range 3000 { // a hundred fit into the table, and some dozens of details below it
		d.Tokens = append(d.Tokens, config.TokenDiff{Token: strings.Repeat("t", 64), Fate: config.FateChanged, Changes: []config.Change{{Field: "description", Old: "a", New: strings.Repeat("ä", 1000)}}})
	}
	out := diffMarkdown(&d)
	if len(out) > 65536 {
		t.Errorf("%d bytes", len(out))
	}
	says(t, out, "and 2900 more", "tokens more, which do not fit here", "</details>\n")
}

// Sixty customers whose tokens change alike are told once; whoever differs is told by name.
func TestPlanDiffTellsASetOnce(t *testing.T) {
	set := func(schedule string) string {
		var b strings.Builder
		b.WriteString("version: 1\nsets:\n  - for_each:\n")
		for i := range 60 {
			fmt.Fprintf(&b, "      c%02d: {bot: cb_%d, when: %q}\n", i, i, map[bool]string{true: "@monthly", false: schedule}[i == 7])
		}
		b.WriteString(`    tokens:
      - {name: "{key}-bot", scopes: [leads:read], chatbot_ids: ["{bot}"], schedule: "{when}", sinks: [{file: {path: "{key}/bot"}}]}
      - {name: "{key}-kb", scopes: [leads:read], schedule: "@daily", sinks: [{file: {path: "{key}/kb"}}]}
`)
		return b.String()
	}
	s := newStage(t, set("@weekly"))
	all := s.feed("version: 1\ntokens: []\n", exitOK, "plan", "--diff", "-")
	says(t, all, "+ c00-bot and 58 more: appears", "+ c07-bot: appears", "+ c00-kb and 59 more: appears", "120 appear")
	moved := s.feed(set("@daily"), exitOK, "plan", "--diff", "-")
	says(t, moved, "~ c00-bot and 58 more: its schedule moves", "59 move their schedules, 61 unchanged")
	says(t, s.feed(strings.Replace(set("@daily"), "cb_3,", "cb_3333,", 1), exitOK, "plan", "--diff", "-"),
		"~ c00-bot and 57 more: its schedule moves", "~ c03-bot: its token is created again: chatbot_ids changed; its schedule moves", "cb_3333 → cb_3")
	says(t, s.feed(set("@daily"), exitOK, "plan", "--diff", "-", "--format", "markdown"), "| `c00-bot` and 58 more | its schedule moves |", "**`c00-bot` and 58 more**")
	var got diffJSON
	if err := json.Unmarshal([]byte(s.feed(set("@daily"), exitOK, "plan", "--diff", "-", "--format", "json")), &got); err != nil || len(got.Tokens) != 59 || got.Tokens[0].Template != "{key}-bot" {
		t.Errorf("programs are told of each: %v, %d", err, len(got.Tokens))
	}
}
