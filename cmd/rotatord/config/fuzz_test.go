package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// Whatever the text: no panic, every problem has a place in the file, and what is accepted is
// whole. Nothing that could widen a token comes in by accident.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.yaml", "../../../rotation.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			if len(text) < 8<<10 { // the fuzzer does better with small ones
				f.Add(text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, problems := Parse("rotation.yaml", text, "/etc/rotatord", Options{Now: now})
		if (c == nil) != (problems.Errors() > 0) {
			t.Fatalf("accepted: %v, with %d errors", c != nil, problems.Errors())
		}
		lines := breaks.Split(strings.ToValidUTF8(strings.TrimPrefix(string(text), "\ufeff"), "\ufffd"), -1)
		for _, p := range problems {
			if p.Message == "" || p.File != "rotation.yaml" || !utf8.ValidString(p.String()) {
				t.Errorf("%+v", p)
			}
			if p.Line == 0 && p.Column == 0 && len(problems) == 1 && c == nil {
				continue // of the file as a whole: there is nothing in it
			}
			if p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Column > utf8.RuneCountInString(lines[p.Line-1])+1 {
				t.Errorf("outside of the file, which has %d lines: %+v", len(lines), p)
			}
		}
		if c == nil {
			return
		}
		names, places := map[string]bool{}, map[string]bool{}
		for _, token := range c.Tokens {
			if token.Name == "" || names[token.Name] {
				t.Errorf("name %q", token.Name)
			}
			names[token.Name] = true
			if len(token.Scopes) == 0 || has(token.Scopes, "") {
				t.Errorf("scopes %q", token.Scopes)
			}
			if token.ChatbotIDs != nil && (len(token.ChatbotIDs) == 0 || has(token.ChatbotIDs, "")) {
				t.Errorf("chatbots %q", token.ChatbotIDs)
			}
			if token.Timing.Schedule == nil || token.Timing.Overlap <= 0 || token.Timing.Margin <= 0 || token.Timing.Jitter >= token.Timing.Overlap {
				t.Errorf("timing %+v", token.Timing)
			}
			if len(token.Sinks) == 0 {
				t.Error("no sinks")
			}
			for _, s := range token.Sinks {
				if s.Place == "" || s.Kind == "" || s.Name == "" || s.Timeout <= 0 || places[s.Place] {
					t.Errorf("sink %+v", s)
				}
				places[s.Place] = true
			}
		}
		if c.API.RequestsPerMinute < 1 || c.API.Timeout <= 0 || c.Daemon.ReadBack <= 0 || c.Daemon.Settle <= 0 {
			t.Errorf("%+v %+v", c.API, c.Daemon)
		}
	})
}

func has(list []string, s string) bool {
	for _, x := range list {
		if strings.TrimSpace(x) == s {
			return true
		}
	}
	return false
}
