package config

import (
	"encoding/json"
	"strings"
	"testing"
)

// The caret stands below the character that is meant, as a terminal shows it.
func TestCaret(t *testing.T) {
	for _, c := range []struct {
		name, source string
		column       int
		line, caret  string
	}{
		{"first", "a: b", 1, "a: b", "^"},
		{"later", "a: b", 4, "a: b", "   ^"},
		{"tab", "a:\tb\t# c", 4, "a:\tb\t# c", "  \t^"},
		{"wide", "名前: x", 5, "名前: x", "      ^"},
		{"emoji", "🔑: x", 4, "🔑: x", "    ^"},
		{"fullwidth", "ｋ: x", 4, "ｋ: x", "    ^"},
		{"combining", "e\u0301: x", 5, "e\u0301: x", "   ^"},
		{"beyond the end", "a:", 9, "a:", "  ^"},
		{"column zero", "a:", 0, "a:", "^"},
		{
			"long, at the start", strings.Repeat("x", 300), 3,
			strings.Repeat("x", 140) + "…", "  ^",
		},
		{
			"long, in the middle", strings.Repeat("x", 150) + "y" + strings.Repeat("z", 150), 151,
			"…" + strings.Repeat("x", 70) + "y" + strings.Repeat("z", 69) + "…", strings.Repeat(" ", 71) + "^",
		},
		{
			"long, at the end", strings.Repeat("x", 300), 300,
			"…" + strings.Repeat("x", 140), strings.Repeat(" ", 140) + "^",
		},
	} {
		line, caret := excerpt(c.source, c.column)
		if line != c.line || caret != c.caret {
			t.Errorf("%s: got\n%s\n%s\nwant\n%s\n%s", c.name, line, caret, c.line, c.caret)
		}
	}
}

// The line of the issue that asked for all this, letter by letter.
func TestString(t *testing.T) {
	p := Problem{
		File: "rotation.yaml", Line: 12, Column: 9, Where: `tokens[2] "kb-writer": scopes`,
		Message: `"knowledge:wirte" is not a known scope (did you mean "knowledge:write"?)`, Severity: Warning,
		Source: "      - knowledge:wirte",
	}
	want := `warning: rotation.yaml:12:9: tokens[2] "kb-writer": scopes: "knowledge:wirte" is not a known scope (did you mean "knowledge:write"?)
      - knowledge:wirte
        ^
`
	if got := p.String(); got != want {
		t.Errorf("got:\n%s", got)
	}
	p.Severity = Error
	if got := p.String(); got != strings.TrimPrefix(want, "warning: ") {
		t.Errorf("got:\n%s", got)
	}
	whole := Problem{File: "rotation.yaml", Message: "is empty", Severity: Error}
	if got := whole.String(); got != "rotation.yaml: is empty\n" {
		t.Errorf("got %q", got)
	}
}

// What is shown on a terminal can neither act on it nor be a secret; columns stay where they are.
func TestMask(t *testing.T) {
	for in, want := range map[string]string{
		"key: sgpt_0123456789abcdef # x":    "key: sgpt_**************** # x",
		"hvs.CAESIJabcdefghijk":             "hvs.*****************",
		"https://root:hunter2@vault:8200/x": "https://*************vault:8200/x",
		"https://vault:8200/a@b":            "https://vault:8200/a@b",
		"sgpt_short":                        "sgpt_short",
		"a\x1b[31mred":                      "a\ufffd[31mred",
		"ab\u202ecd":                        "ab\ufffdcd",
		"tab\tstays":                        "tab\tstays",
	} {
		if got := mask(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestJSON(t *testing.T) {
	_, problems := Parse("rotation.yaml", []byte("version: 1\ntokens:\n  - {name: a, scopes: [knowledge], schedule: \"@daily\", sinks: [{env_file: {path: a.env, key: A}}]}\n"), "/etc", Options{Now: now})
	got, err := json.Marshal(problems)
	if err != nil {
		t.Fatal(err)
	}
	var back []map[string]any
	if err := json.Unmarshal(got, &back); err != nil || len(back) != 1 {
		t.Fatalf("%s, %v", got, err)
	}
	for key, want := range map[string]any{
		"file": "rotation.yaml", "line": 3.0, "column": 24.0, "path": "tokens[0].scopes[0]",
		"where": `tokens[0] "a": scopes`, "severity": "error",
	} {
		if back[0][key] != want {
			t.Errorf("%s: got %v, want %v", key, back[0][key], want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"chatbot_ids", "description", "name", "on_drift", "on_remove", "scopes", "sinks", "was"}
	for in, want := range map[string]string{
		"scope": "scopes", "scpoes": "scopes", "on-drift": "on_drift", "OnDrift": "on_drift", "chatbots": "chatbot_ids",
		"descripton": "description", "nmae": "name", "sink": "sinks",
		"s3": "", "x": "", "interval": "", "": "", strings.Repeat("x", 5000): "",
	} {
		if got := nearest(in, known); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
