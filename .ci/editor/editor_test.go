package editor

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode"
)

const head = "version: 1\ndefaults: {schedule: \"@daily\"}\n"

// What people type next is offered, and says what it means.
func TestCompletion(t *testing.T) {
	s := start(t)
	for name, c := range map[string]struct {
		text string
		want map[string]string // label: a part of what is said about it
	}{
		"a kind of sink":          {head + "tokens:\n  - name: a\n    scopes: [leads:read]\n    sinks:\n      - §", map[string]string{"env_file": "one line of an env file", "vault_kv": "Vault", "file": "a file of its own", "exec": "a program"}},
		"a kind of sink, begun":   {head + "tokens:\n  - name: a\n    scopes: [leads:read]\n    sinks:\n      - env§", map[string]string{"env_file": "one line of an env file"}},
		"a scope":                 {head + "tokens:\n  - name: a\n    scopes:\n      - §\n    sinks: [{file: {path: a}}]\n", map[string]string{"knowledge:read": "trained on", "leads:read": "lead"}},
		"a scope in brackets":     {head + "tokens:\n  - name: a\n    scopes: [know§]\n    sinks: [{file: {path: a}}]\n", map[string]string{"knowledge:write": "trained on"}},
		"a key of a token":        {head + "tokens:\n  - name: a\n    scopes: [leads:read]\n    over§\n", map[string]string{"overlap": "predecessor and successor are both valid"}},
		"what drift can be":       {head + "tokens:\n  - name: a\n    scopes: [leads:read]\n    on_drift: §\n", map[string]string{"hold": "", "restore": ""}},
		"a block":                 {"version: 1\n§", map[string]string{"defaults": "every token", "sets": "differ", "vault": "Vault"}},
		"a scope in a set":        {head + "sets:\n  - for_each: {x: {}}\n    tokens:\n      - name: \"{key}\"\n        scopes:\n          - §\n", map[string]string{"leads:read": "lead"}},
		"a kind of sink in a set": {head + "sets:\n  - for_each: {x: {}}\n    tokens:\n      - name: \"{key}\"\n        sinks:\n          - §\n", map[string]string{"vault_kv": "Vault"}},
		"a key within a sink":     {head + "tokens:\n  - name: a\n    sinks:\n      - env_file:\n          pa§\n", map[string]string{"path": "the file"}},
		"who reads an env file":   {head + "tokens:\n  - name: a\n    sinks:\n      - env_file:\n          format: §\n", map[string]string{"systemd": "", "docker": "", "shell": ""}},
		"a reference to a secret": {"version: 1\napi:\n  token:\n    §\n", map[string]string{"file": "a path", "credential": "CREDENTIALS_DIRECTORY", "env": "environment"}},
	} {
		got := s.offers(c.text)
		for label, about := range c.want {
			said, offered := got[label]
			if !offered || !strings.Contains(strings.ToLower(said), strings.ToLower(about)) {
				t.Errorf("%s: %q, which says %q, is not among %v", name, label, about, got)
			}
		}
	}
}

// Whatever one points at explains itself.
func TestHover(t *testing.T) {
	s := start(t)
	for text, want := range map[string]string{
		"ver§sion: 1\n": "always 1",
		head + "tokens:\n  - name: a\n    on_dr§ift: hold\n":                        "hold leaves it",
		head + "tokens:\n  - name: a\n    scopes: [knowledge:wr§ite] \n":            "trained on",
		head + "tokens:\n  - name: a\n    sinks: [{vault§_kv: {mount: m}}]\n":       "a key of a secret in Vault",
		head + "tokens:\n  - name: a\n    sinks: [{env_file: {mo§de: \"0640\"}}]\n": "of the file",
		head + "sets:\n  - for§_each: {x: {}}\n":                                    "rows, by name",
		head + "sets:\n  - tokens: [{over§lap: 1d}]\n":                              "predecessor and successor",
	} {
		if got := s.hover(text); !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// What is right is not marked: the sample, and every file that the parser's tests accept.
func TestNothingIsMarkedWithoutReason(t *testing.T) {
	s := start(t)
	for _, path := range []string{
		"../../rotation.yaml", "../../cmd/rotatord/config/testdata/fleet.yaml", "../../cmd/rotatord/config/testdata/good/everything.yaml",
		"../../cmd/rotatord/config/testdata/good/sets.yaml", "../../cmd/rotatord/config/testdata/good/aliases.yaml", "../../systemd/rotation.yaml",
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range s.marks(string(text)) {
			t.Errorf("%s:%d: %s", path, d.Range.Start.Line, d.Message)
		}
	}
}

// words are what somebody reads, without the marks between them.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' })
}

// within reports whether all of these words come in b, in their order.
func within(a, b string) bool {
	rest := words(b)
	for _, w := range words(a) {
		for {
			if len(rest) == 0 {
				return false
			}
			next := rest[0]
			rest = rest[1:]
			if next == w {
				break
			}
		}
	}
	return true
}

// A mistake is marked on the line that validate names, and with its words: the editor says nothing
// else, only less, since a schema cannot repeat what was written.
func TestMistakesAreMarkedInTheWordsOfValidate(t *testing.T) {
	s := start(t)
	const sinks = "sinks: [{file: {path: a}}]"
	token := func(text string) string {
		return head + "tokens:\n  - name: a\n    scopes: [leads:read]\n    " + text + "\n"
	}
	for text, least := range map[string]string{
		token("sink: [{file: {path: a}}]\n    " + sinks):                                  "unknown key",
		token(sinks) + "tokns: []\n":                                                      "unknown key",
		token("sinks: [{env_file: {path: a, kye: X, key: Y}}]"):                           "unknown key",
		head + "tokens:\n  - name: a\n    scopes: [knowledge:wirte]\n    " + sinks + "\n": "is not a known scope",
		head + "tokens:\n  - name: a\n    scopes: [knowledge wirte]\n    " + sinks + "\n": "is no scope",
		token("overlap: 2 days\n    " + sinks):                                            "is no duration write it like 90s, 36h, 7d or 1w2d",
		token("overlap: [2d]\n    " + sinks):                                              "expected a duration like",
		token("on_drift: overwrite\n    " + sinks):                                        "is none of hold, restore",
		token("sinks: [{env_file: {path: a}}]"):                                           "key is missing",
		head + "tokens:\n  - scopes: [leads:read]\n    " + sinks + "\n":                   "name is missing",
		token("sinks: [{name: x}]"):                                                       "says not where the token goes: it needs one of env_file, file",
		token("sinks: [{file: {path: a}, env_file: {path: b, key: C}}]"):                  "is one sink",
		token("sinks: [{file: {path: a, mode: \"0999\"}}]"):                               "is no file mode (write it as a quoted octal string",
		token("sinks: [{file: {path: 7}}]"):                                               "expected text",
		token("sinks: {file: {path: a}}"):                                                 "expected a list",
		strings.Replace(token(sinks), "version: 1", "version: 2", 1):                      "this rotatord knows version 1 only",
		strings.Replace(token(sinks), "name: a", "name: A", 1):                            "must consist of a-z, 0-9",
		token(sinks) + "management: {schedule: \"@monthly\", expires_at: soon}\n":         "is no instant: write it like",
		head + "sets:\n  - for_each: {x: {}}\n    tokens:\n      - {name: \"{key}\", scops: [leads:read], scopes: [leads:read], " + sinks + "}\n": "unknown key",
		head + "sets:\n  - for_each: {x: {a: 1}}\n    tokens:\n      - {name: \"{key}{a}\", scopes: [leads:read], " + sinks + "}\n":               "expected text",
		head + "sets:\n  - for_each: {x: {}}\n    tokens:\n      - {name: \"{key}\", overlap: 2 d, scopes: [leads:read], " + sinks + "}\n":        "is no duration",
	} {
		text = "# the line that the editor has, too\n" + text
		code := 2
		if least == "is not a known scope" {
			code = 0 // a warning
		}
		var said struct {
			Problems []struct {
				Line    int    `json:"line"`
				Where   string `json:"where"`
				Message string `json:"message"`
			} `json:"problems"`
		}
		if err := json.Unmarshal(rotatord(t, code, text, "validate", "--json", "-"), &said); err != nil {
			t.Fatal(err)
		}
		_, without, _ := strings.Cut(text, "\n")
		marks := s.marks(without)
		found := false
		for _, m := range marks {
			found = found || within(least, m.Message)
			known := false
			for _, p := range said.Problems {
				known = known || p.Line == m.Range.Start.Line+1 && within(m.Message, p.Where+": "+p.Message)
			}
			if !known {
				t.Errorf("the editor says on line %d: %q, and validate:\n%+v\nof:\n%s", m.Range.Start.Line+1, m.Message, said.Problems, text)
			}
		}
		if !found {
			t.Errorf("%q is not marked, only %+v, in:\n%s", least, marks, text)
		}
	}
}
