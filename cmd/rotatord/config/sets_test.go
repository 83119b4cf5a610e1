package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// same forgets where each token stands: that is all in which an expanded file may differ.
func same(c *Config) Config {
	out := *c
	out.Files, out.Hash, out.Source = nil, "", Source{}
	out.Tokens = nil
	for _, t := range c.Tokens {
		t.File, t.Line, t.Row, t.Template, t.generic = "", 0, "", "", nil
		out.Tokens = append(out.Tokens, t)
	}
	if m := out.Management.Token; m != nil {
		t := *m
		t.File, t.Line = "", 0
		out.Management.Token = &t
	}
	return out
}

// What validate --expand prints is the same configuration, to the last field; and expanding it once
// more changes nothing.
func TestExpand(t *testing.T) {
	paths, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(paths) < 5 {
		t.Fatal(paths, err)
	}
	for _, path := range append(paths, "../../../rotation.yaml", "testdata/fleet.yaml") {
		s, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		want, problems := s.Parse(Options{Now: now})
		if want == nil {
			t.Fatalf("%s:\n%s", path, render(problems))
		}
		text, _, err := s.Expand(Options{Now: now})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		again := Source{Files: []Text{{Name: path, Text: string(text)}}}
		got, problems := again.Parse(Options{Now: now})
		if got == nil {
			t.Fatalf("%s, expanded:\n%s\n%s", path, text, render(problems))
		}
		if bytes.Contains(text, []byte("sets:")) || bytes.Contains(text, []byte("<<")) || bytes.Contains(text, []byte(" &")) {
			t.Errorf("%s is not expanded:\n%s", path, text)
		}
		if a, b := same(want), same(got); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: expanded, it is another configuration:\n%s", path, text)
		}
		twice, _, err := again.Expand(Options{Now: now})
		if err != nil || !bytes.Equal(twice, text) {
			t.Errorf("%s, expanded twice: %v\n%s", path, err, twice)
		}
	}
}

// The agency: sixty customers with three tokens each stand on two screens.
func TestFleet(t *testing.T) {
	text, err := os.ReadFile("testdata/fleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const screen = 50 // lines
	if n := bytes.Count(text, []byte("\n")); n > 2*screen {
		t.Errorf("%d lines are more than two screens", n)
	}
	for i, line := range strings.Split(string(text), "\n") {
		if len(line) > 110 {
			t.Errorf("line %d has %d characters", i+1, len(line))
		}
	}
	c, problems := Parse("fleet.yaml", text, "/etc/rotatord", Options{Now: now})
	if c == nil || len(problems) > 0 {
		t.Fatal(render(problems))
	}
	if len(c.Tokens) != 180 {
		t.Errorf("%d tokens", len(c.Tokens))
	}
	places := map[string]bool{}
	for i := range c.Tokens {
		x := &c.Tokens[i]
		if len(x.ChatbotIDs) != 1 || !strings.HasPrefix(x.ChatbotIDs[0], "cb_") {
			t.Errorf("%s may use %q", x.Name, x.ChatbotIDs)
		}
		places[x.Sinks[0].Place] = true
		if x.Row == "" || !strings.Contains(x.Template, "{key}") || strings.Contains(x.Name+x.Description+x.Sinks[0].Place, "{") {
			t.Errorf("%+v", x)
		}
	}
	if len(places) != 180 {
		t.Errorf("%d places", len(places))
	}
}

// A string is cut at its variables and nowhere else; what they are replaced by is not looked at again.
func TestSubstitute(t *testing.T) {
	values := map[string]string{"key": "acme", "bot": "{key}", "x_1": `a\b`}
	for in, want := range map[string]string{
		"{key}":                   "acme",
		"a-{key}-b-{key}":         "a-acme-b-acme",
		"{bot}":                   "{key}", // once is enough
		"{x_1}":                   `a\b`,
		`\{key}`:                  "{key}",
		`\\{key}`:                 `\acme`,
		`\\\{key}`:                `\{key}`,
		`a\b`:                     `a\b`,
		`\{3}`:                    `\{3}`,
		"{{.Token}}":              "{{.Token}}",
		"{{key}}":                 "{{key}}",
		"{{{key}}}":               "{{{key}}}",
		"{{if .X}}{key}{{end}}":   "{{if .X}}acme{{end}}",
		`{{"{key}"}}`:             `{{"{key}"}}`,
		"{{ {key}":                "{{ {key}", // never closed: the other template's error
		`{"token": "{{.Token}}"}`: `{"token": "{{.Token}}"}`,
		`{"who": "{key}"}`:        `{"who": "acme"}`,
		"{}":                      "{}",
		"{ key }":                 "{ key }",
		"{Key}":                   "{Key}",
		"{key":                    "{key",
		"key}":                    "key}",
		"{other}":                 "{other}",
		"{a{key}b}":               "{aacmeb}",
		"$" + "{key}":             "$acme",
		"日本{key}語":                "日本acme語",
		"":                        "",
	} {
		if got := substitute(in, func(name string) (string, bool) { v, ok := values[name]; return v, ok }); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// In a folder, sets of every file count, and a token of one file may not be in a set of another.
func TestSetsInAFolder(t *testing.T) {
	write := func(files map[string]string) string {
		dir := t.TempDir()
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	set := func(row, name string) string {
		return fmt.Sprintf("sets: [{for_each: {%s: {}}, tokens: [{name: %q, scopes: [leads:read], sinks: [{file: {path: %q}}]}]}]\n", row, name, name)
	}
	dir := write(map[string]string{
		"a.yaml": "version: 1\ndefaults: {schedule: '@daily'}\n",
		"b.yaml": set("x", "{key}-1") + "tokens: [{name: y, scopes: [leads:read], sinks: [{file: {path: y}}]}]\n",
		"c.yaml": set("z", "{key}-2"),
	})
	c, problems, err := Load(dir, Options{Now: now})
	if err != nil || c == nil {
		t.Fatal(err, render(problems))
	}
	var names []string
	for _, x := range c.Tokens {
		names = append(names, x.Name)
	}
	if got := strings.Join(names, " "); got != "y x-1 z-2" {
		t.Errorf("got %s", got)
	}
	if c.Tokens[2].File != filepath.Join(dir, "c.yaml") || c.Tokens[2].Line != 1 || c.Tokens[2].Row != "z" {
		t.Errorf("%+v", c.Tokens[2])
	}
	s, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := s.Expand(Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	got, problems := Source{Files: []Text{{filepath.Join(dir, "one.yaml"), string(text)}}}.Parse(Options{Now: now})
	if got == nil || !reflect.DeepEqual(same(c), same(got)) {
		t.Errorf("expanded:\n%s\n%s", text, render(problems))
	}

	dir = write(map[string]string{
		"a.yaml": "version: 1\ndefaults: {schedule: '@daily'}\n",
		"b.yaml": set("x", "{key}-1"),
		"c.yaml": set("x", "{key}-1"),
	})
	_, problems, err = Load(dir, Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"x-1" is the name of sets[0].tokens[0] "x-1" (` + filepath.Join(dir, "b.yaml") + ":1) already (in the row x, line 1)", "writes the same place as"} {
		if !strings.Contains(render(problems), want) {
			t.Errorf("%q is missing in:\n%s", want, render(problems))
		}
	}
}

// Sets cannot blow a small file up to more than this machine has.
func TestSetsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\nsets:\n- for_each:\n")
	for i := range 1500 {
		fmt.Fprintf(&b, "    r%d: {}\n", i)
	}
	b.WriteString("  tokens:\n")
	for i := range 100 {
		fmt.Fprintf(&b, "  - {name: \"{key}-%d\", scopes: [leads:read], sinks: [{file: {path: \"{key}-%d\"}}]}\n", i, i)
	}
	c, problems := Parse("rotation.yaml", []byte(b.String()), "/etc", Options{Now: now})
	if c != nil || !strings.Contains(render(problems), "come to more than 100000 values") {
		t.Errorf("%d problems", len(problems))
	}
}
