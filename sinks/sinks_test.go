package sinks_test

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/sinks"
	"github.com/rotatord/rotatord/sinks/vaultkv"
)

// one is a small working block of every kind.
var one = map[string]string{
	"env_file": "env_file: {path: app.env, key: TOKEN}",
	"file":     "file: {path: token}",
	"exec":     "exec: {command: [./push.sh, prod]}",
	"vault_kv": "vault_kv: {mount: secret, path: team/app}",
}

func parse(t *testing.T, text string) sinks.Spec {
	t.Helper()
	var s sinks.Spec
	if err := yaml.Load([]byte(text), &s, yaml.WithKnownFields()); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

func opener(t *testing.T) *sinks.Opener {
	t.Helper()
	o := sinks.NewOpener(map[string]vaultkv.Connection{
		"":   {Address: "https://vault.test"},
		"eu": {Address: "https://eu.vault.test"},
		"us": {}, // no address anywhere
	}, sinks.World{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Getenv: func(string) string { return "" }, Now: time.Now})
	t.Cleanup(o.Close)
	return o
}

// Whoever adds a kind and forgets one of its places is told here.
func TestEveryKindIsKnownEverywhere(t *testing.T) {
	var fields []string
	typ := reflect.TypeFor[sinks.Spec]()
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("yaml"), ",")
		fields = append(fields, name)
	}
	if !slices.Equal(fields, sinks.Kinds()) {
		t.Errorf("the fields of Spec are %q, and Kinds says %q", fields, sinks.Kinds())
	}
	for _, kind := range sinks.Kinds() {
		t.Run(kind, func(t *testing.T) {
			if one[kind] == "" {
				t.Fatal("has no example in this test")
			}
			s := parse(t, one[kind])
			if s.Kind() != kind {
				t.Errorf("its block is taken for %q", s.Kind())
			}
			p := field.New()
			s.Validate(p)
			for _, problem := range p.List() {
				t.Errorf("%v %s", problem.Path, problem.Text)
			}
			s.Resolve("/etc/rotatord")
			if !strings.HasPrefix(s.Place(), kind+":") || !strings.HasPrefix(s.Title(), kind+" ") {
				t.Errorf("place %s, title %s; want both to begin with the kind", s.Place(), s.Title())
			}
			if sink, err := opener(t).Open(s); err != nil || sink == nil {
				t.Errorf("open: %v", err)
			}
			under, _ := s.Under("/sandbox")
			if under.Kind() == "" {
				t.Error("has no rehearsal")
			}
		})
	}
}

func TestASpecIsExactlyOneKind(t *testing.T) {
	for text, want := range map[string]string{
		"{}":                             "[] says not where the token goes: it needs one of env_file, file, exec, vault_kv",
		one["file"] + "\n" + one["exec"]: "[] is one sink and names 2 kinds (file, exec): make it as many sinks",
		"vault_kv: {path: team/app}":     "[vault_kv mount] is missing: the mount of the KV engine, like secret",
		"exec: {command: [push], check: [c], id: x}": "",
	} {
		s := parse(t, text)
		p := field.New()
		s.Validate(p)
		var got []string
		for _, problem := range p.List() {
			got = append(got, fmt.Sprintf("%v %s", problem.Path, problem.Text))
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("%s:\ngot  %s\nwant %s", text, strings.Join(got, "\n"), want)
		}
		if want != "" && s.Kind() == "" {
			s.Resolve("/etc")
			what, traits := s.Shares()
			if s.Place() != "" || what != "" || traits != "" {
				t.Errorf("%s: has a place all the same", text)
			}
			if _, err := opener(t).Open(s); err == nil {
				t.Errorf("%s: was opened", text)
			}
		}
	}
}

func TestOpenFindsTheConnection(t *testing.T) {
	o := opener(t)
	for text, want := range map[string]string{
		"vault_kv: {mount: secret, path: a}":            "",
		"vault_kv: {mount: secret, path: a, vault: eu}": "",
		"vault_kv: {mount: secret, path: a, vault: uk}": `vault "uk" is not declared: add it to vaults`,
		"vault_kv: {mount: secret, path: a, vault: us}": "vault: no address: set address in the vault block, or VAULT_ADDR",
	} {
		s := parse(t, text)
		s.Resolve("")
		_, err := o.Open(s)
		if got := fmt.Sprint(err); got != want && !(want == "" && err == nil) {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
	if block, name := parse(t, "vault_kv: {mount: secret, path: a, vault: uk}").Needs(); block != "vaults" || name != "uk" {
		t.Errorf("needs %s %s, want vaults uk", block, name)
	}
	if block, name := parse(t, one["file"]).Needs(); block != "" || name != "" {
		t.Errorf("a file needs %s %s", block, name)
	}
}

// Nothing of a rehearsal is outside of its folder, whatever the paths say.
func TestUnder(t *testing.T) {
	for _, tt := range []struct{ text, kind, path, instead string }{
		{"env_file: {path: /etc/app/app.env, key: TOKEN}", "env_file", "/sandbox/etc/app/app.env", ""},
		{"env_file: {path: conf/../app.env, key: TOKEN}", "env_file", "/sandbox/srv/rotatord/app.env", ""},
		{"env_file: {path: ../../../../app.env, key: TOKEN, owner: app}", "env_file", "/sandbox/app.env", "without changing owner and group"},
		{"file: {path: /run/token}", "file", "/sandbox/run/token", ""},
		{"exec: {command: [push], id: portal}", "file", "/sandbox/exec/portal", "a file instead of the command, which is not run"},
		{"exec: {command: [./push, ../../x]}", "file", "/sandbox/exec/srv_rotatord_push___.._.._x__-", "a file instead of the command, which is not run"},
		{"vault_kv: {mount: secret, path: team/app}", "file", "/sandbox/vault_kv/secret/team/app/token", "a file instead of Vault, which is not asked"},
		{"vault_kv: {mount: secret, path: team/app, vault: eu, key: ..}", "file", "/sandbox/vault_kv-eu/secret/team/app/-", "a file instead of Vault, which is not asked"},
		{"vault_kv: {mount: a/../../.., path: ../../../b}", "file", "/sandbox/vault_kv/b/token", "a file instead of Vault, which is not asked"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			s := parse(t, tt.text)
			s.Resolve("/srv/rotatord")
			before := s.Place()
			under, instead := s.Under("/sandbox")
			if under.Kind() != tt.kind || instead != tt.instead {
				t.Errorf("kind %s, %q; want %s, %q", under.Kind(), instead, tt.kind, tt.instead)
			}
			var path string
			if under.EnvFile != nil {
				path = under.EnvFile.Path
			} else {
				path = under.File.Path
			}
			if strings.HasSuffix(tt.path, "-") { // a hash follows
				path = path[:max(0, len(path)-len("01234567"))]
			}
			if path != tt.path || filepath.Clean(path) != path {
				t.Errorf("path %s; want %s", path, tt.path)
			}
			if s.Place() != before {
				t.Error("the declared sink was changed")
			}
			p := field.New()
			under.Validate(p)
			for _, problem := range p.List() {
				t.Errorf("%v %s", problem.Path, problem.Text)
			}
		})
	}
}

func TestUnderKeepsPlacesApart(t *testing.T) {
	seen := map[string]string{}
	for _, text := range []string{
		"exec: {command: [push, a b]}", "exec: {command: [push, a_b]}", "exec: {command: [push, a, b]}", "exec: {command: [push], id: a_b}",
		"exec: {command: [push], env: {K: hunter2}}", "exec: {command: [push], env: {K: hunter3}}",
		"vault_kv: {mount: secret, path: a, key: 'x y'}", "vault_kv: {mount: secret, path: a, key: x_y}", "vault_kv: {mount: secret, path: a/x_y, key: z}",
	} {
		s := parse(t, text)
		s.Resolve("/srv")
		under, _ := s.Under("/sandbox")
		if other, taken := seen[under.Place()]; taken {
			t.Errorf("%s and %s are both at %s", text, other, under.Place())
		}
		seen[under.Place()] = text
		if strings.Contains(under.Place()+s.Title(), "hunter") {
			t.Errorf("%s: a value of env is in %s, or in %s", text, under.Place(), s.Title())
		}
	}
}
