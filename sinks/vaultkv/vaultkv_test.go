package vaultkv_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/sinks/sinktest"
	"github.com/rotatord/rotatord/sinks/vaultkv"
	"github.com/rotatord/rotatord/sinks/vaultkv/vaulttest"
)

// world is a process with this environment.
func world(env map[string]string) vaultkv.World {
	return vaultkv.World{Getenv: func(name string) string { return env[name] }, Now: time.Now}
}

// dial returns a client with this token.
func dial(t *testing.T, s *vaulttest.Server, token string) *vaultkv.Client {
	t.Helper()
	c, err := vaultkv.Dial("", vaultkv.Connection{Address: s.Address, CACert: s.CACert}, world(map[string]string{"VAULT_TOKEN": token}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// at returns the sink of one key, for a client that may do everything.
func at(t *testing.T, s *vaulttest.Server, mount, path, key string) *vaultkv.Sink {
	t.Helper()
	return open(dial(t, s, s.Root), vaultkv.Config{Mount: mount, Path: path, Key: key})
}

func open(client *vaultkv.Client, c vaultkv.Config) *vaultkv.Sink {
	c.Resolve("")
	return vaultkv.New(c, client)
}

func push(t *testing.T, s *vaultkv.Sink, token string) error {
	t.Helper()
	return s.Push(t.Context(), rotator.Generation{}, rotator.NewSecret(token))
}

// holds fails the test unless the sink holds the token; "" is nothing.
func holds(t *testing.T, s *vaultkv.Sink, token string) {
	t.Helper()
	got, err := s.Read(t.Context())
	if err != nil {
		t.Errorf("read: %v", err)
	} else if got.Reveal() != token {
		t.Error("the sink holds something else")
	}
}

// secret returns a KV v2 secret's data and version as Vault has them.
func secret(t *testing.T, s *vaulttest.Server, path string) (map[string]any, string) {
	t.Helper()
	_, out := s.Do(t, http.MethodGet, path, nil)
	outer, _ := out["data"].(map[string]any)
	data, _ := outer["data"].(map[string]any)
	meta, _ := outer["metadata"].(map[string]any)
	return data, fmt.Sprint(meta["version"])
}

func TestConformance(t *testing.T) {
	vault := vaulttest.Start(t, vaulttest.TLS())
	vault.Mount(t, "kv1", "1")
	places := 0

	v2 := func(t *testing.T, path, key string) sinktest.Fixture {
		api := "secret/data/" + path
		put := func(data map[string]any) { vault.Must(t, http.MethodPut, api, map[string]any{"data": data}) }
		write := func(value any) {
			data, _ := secret(t, vault, api)
			if data == nil {
				data = map[string]any{}
			}
			if data[key] = value; value == "" {
				delete(data, key)
			}
			put(data)
		}
		twice := func() {
			write("sgpt_a")
			write("sgpt_b")
		}
		versions := map[string]any{"versions": []int{2}}
		return sinktest.Fixture{
			Sink: at(t, vault, "secret", path, key), Other: at(t, vault, "secret", path, key),
			See: func() string {
				data, _ := secret(t, vault, api)
				value, _ := data[key].(string)
				return value
			},
			Write:   func(value string) { write(value) },
			Version: func() string { _, version := secret(t, vault, api); return version },
			Break: func() func() {
				vault.Must(t, http.MethodPut, "sys/seal", nil)
				return func() { vault.Must(t, http.MethodPut, "sys/unseal", map[string]any{"key": vault.UnsealKey}) }
			},
			Siblings: func(t *testing.T) func() {
				put(map[string]any{"a": "x", "nested": map[string]any{"list": []any{1, "two", nil}}, "z": ""})
				siblings := func() string {
					data, _ := secret(t, vault, api)
					delete(data, key)
					return fmt.Sprint(data)
				}
				before := siblings()
				return func() {
					if now := siblings(); now != before {
						t.Errorf("siblings are %s, want %s", now, before)
					}
				}
			},
			Address: "secret",
			Odd: map[string]func(){
				"deleted": func() {
					twice()
					vault.Must(t, http.MethodDelete, api, nil)
				},
				"destroyed": func() {
					twice()
					vault.Must(t, http.MethodPut, "secret/destroy/"+path, versions)
				},
				"undeleted": func() {
					twice()
					vault.Must(t, http.MethodDelete, api, nil)
					vault.Must(t, http.MethodPut, "secret/undelete/"+path, versions)
				},
				"empty":        func() { put(map[string]any{}) },
				"a number":     func() { write(42) },
				"null":         func() { write(nil) },
				"cas required": func() { vault.Must(t, http.MethodPost, "secret/metadata/"+path, map[string]any{"cas_required": true}) },
			},
		}
	}
	t.Run("version 2", func(t *testing.T) {
		sinktest.Run(t, sinktest.Harness{New: func(t *testing.T) sinktest.Fixture {
			places++
			path := fmt.Sprintf("conformance/%d", places)
			f, sibling := v2(t, path, "token"), v2(t, path, "sibling")
			f.Sibling = &sibling
			return f
		}})
	})

	v1 := func(t *testing.T, path, key string, client *vaultkv.Client) sinktest.Fixture {
		api := "kv1/" + path
		get := func() map[string]any {
			_, out := vault.Do(t, http.MethodGet, api, nil)
			data, _ := out["data"].(map[string]any)
			return data
		}
		sink := func() rotator.Sink { return open(client, vaultkv.Config{Mount: "kv1", Path: path, Key: key}) }
		return sinktest.Fixture{
			Sink: sink(), Other: sink(),
			See: func() string {
				value, _ := get()[key].(string)
				return value
			},
			Write: func(value string) {
				data := get()
				if data == nil {
					data = map[string]any{}
				}
				data[key] = value
				vault.Must(t, http.MethodPut, api, data)
			},
		}
	}
	t.Run("version 1", func(t *testing.T) {
		sinktest.Run(t, sinktest.Harness{New: func(t *testing.T) sinktest.Fixture {
			places++
			path := fmt.Sprintf("conformance/%d", places)
			// One client, as in one process: there is no check-and-set that would help two.
			client := dial(t, vault, vault.Root)
			f, sibling := v1(t, path, "token", client), v1(t, path, "sibling", client)
			f.Sibling = &sibling
			return f
		}})
	})
}

func TestPushAndReadBack(t *testing.T) {
	vault := vaulttest.Start(t, vaulttest.TLS())
	vault.Mount(t, "old/kv", "1")
	for _, mount := range []string{"secret", "old/kv"} {
		t.Run(mount, func(t *testing.T) {
			s := at(t, vault, mount, "/team/portal/", "")
			if err := s.Check(t.Context()); err != nil {
				t.Fatalf("check: %v", err)
			}
			holds(t, s, "")
			for _, token := range []string{"sgpt_one", "sgpt_one", "sgpt_<two>&\u2028\"\\", "sgpt_three"} {
				if err := push(t, s, token); err != nil {
					t.Fatalf("push: %v", err)
				}
				holds(t, s, token)
				holds(t, at(t, vault, mount, "team/portal", "token"), token)
			}
			if err := s.Check(t.Context()); err != nil {
				t.Errorf("check: %v", err)
			}
		})
	}
}

func TestAnUnchangedValueMakesNoVersion(t *testing.T) {
	vault := vaulttest.Start(t)
	s := at(t, vault, "secret", "app", "token")
	for range 5 {
		if err := s.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := push(t, s, "sgpt_one"); err != nil {
			t.Fatal(err)
		}
	}
	if _, version := secret(t, vault, "secret/data/app"); version != "1" {
		t.Errorf("version %s after five pushes of one token, want 1", version)
	}
}

// Siblings keep their shape and their digits, whether the policy allows a patch or not.
func TestSiblingsAreKept(t *testing.T) {
	vault := vaulttest.Start(t)
	vault.Mount(t, "kv1", "1")
	const before = `{"big":12345678901234567890,"nested":{"a":[1,2.50,null]},"text":"<&>","token":"sgpt_old"}`
	policy := func(path string, capabilities string) string {
		return fmt.Sprintf("path %q { capabilities = [%s] }", path, capabilities)
	}
	for _, tt := range []struct{ name, mount, path, policy string }{
		{"patch", "secret", "secret/data/app-patch", policy("secret/data/app-patch", `"read", "patch"`)},
		{"no patch", "secret", "secret/data/app-put", policy("secret/data/app-put", `"read", "update"`)},
		{"version 1", "kv1", "kv1/app", policy("kv1/app", `"read", "update"`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var body any = json.RawMessage(before)
			if tt.mount == "secret" {
				body = map[string]any{"data": body}
			}
			vault.Must(t, http.MethodPut, tt.path, body)
			now := func() string { // numbers as Vault gives them out: it rounds big ones itself
				out := vault.Must(t, http.MethodGet, tt.path, nil)["data"]
				if tt.mount == "secret" {
					out = out.(map[string]any)["data"]
				}
				b, err := json.Marshal(out)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			want := strings.Replace(now(), "sgpt_old", "sgpt_new", 1)
			s := open(dial(t, vault, vault.Token(t, tt.policy, true)), vaultkv.Config{Mount: tt.mount, Path: filepath.Base(tt.path)})
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := push(t, s, "sgpt_new"); err != nil {
				t.Fatal(err)
			}
			if got := now(); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// Somebody else changes the same secret a hundred times, also with check-and-set, while ten of our
// tokens go into it. Nobody loses anything.
func TestAConcurrentWriterLosesNothing(t *testing.T) {
	vault := vaulttest.Start(t)
	vault.Must(t, http.MethodPut, "secret/data/shared", map[string]any{"data": map[string]any{"their-0": "x"}})
	client := dial(t, vault, vault.Root)
	// A policy without patch takes the harder way: read, change, write.
	putter := dial(t, vault, vault.Token(t, `path "secret/data/shared" { capabilities = ["read", "update"] }`, true))

	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; i <= 100; i++ {
			status, out := vault.Do(t, http.MethodPatch, "secret/data/shared", map[string]any{"data": map[string]any{fmt.Sprintf("their-%d", i): "x"}})
			if status != http.StatusOK {
				t.Errorf("their write: %d %v", status, out["errors"])
			}
		}
	})
	for i := range 10 {
		c := client
		if i%2 == 1 {
			c = putter
		}
		s := open(c, vaultkv.Config{Mount: "secret", Path: "shared", Key: fmt.Sprintf("our-%d", i)})
		wg.Go(func() {
			tries := 0
			for n := 0; n < 10; {
				err := push(t, s, fmt.Sprintf("sgpt_%d", n))
				if err == nil {
					n++
					continue
				}
				if tries++; tries > 20 || !strings.Contains(err.Error(), "gave up after") { // the engine would try again
					t.Errorf("push: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	data, _ := secret(t, vault, "secret/data/shared")
	for i := 0; i <= 100; i++ {
		if data[fmt.Sprintf("their-%d", i)] != "x" {
			t.Errorf("their key %d is lost", i)
		}
	}
	for i := range 10 {
		if data[fmt.Sprintf("our-%d", i)] != "sgpt_9" {
			t.Errorf("our key %d does not hold what was pushed last", i)
		}
	}
}

// Version 1 has no check-and-set, but our own tokens do not overwrite each other.
func TestOurOwnTokensShareAVersion1Secret(t *testing.T) {
	vault := vaulttest.Start(t)
	vault.Mount(t, "kv1", "1")
	client := dial(t, vault, vault.Root)
	var wg sync.WaitGroup
	for i := range 30 {
		s := open(client, vaultkv.Config{Mount: "kv1", Path: "shared", Key: fmt.Sprintf("k%d", i)})
		wg.Go(func() {
			if err := push(t, s, "sgpt_x"); err != nil {
				t.Errorf("push: %v", err)
			}
		})
	}
	wg.Wait()
	data, _ := vault.Must(t, http.MethodGet, "kv1/shared", nil)["data"].(map[string]any)
	if len(data) != 30 {
		t.Errorf("%d of 30 keys are there", len(data))
	}
}

func TestCheckAndSetRequired(t *testing.T) {
	vault := vaulttest.Start(t)
	vault.Must(t, http.MethodPost, "secret/config", map[string]any{"cas_required": true})
	for _, capabilities := range []string{`"create", "read", "update"`, `"create", "read", "patch"`} {
		token := vault.Token(t, `path "secret/data/app/*" { capabilities = [`+capabilities+`] }`, true)
		s := open(dial(t, vault, token), vaultkv.Config{Mount: "secret", Path: fmt.Sprintf("app/%d", len(capabilities))})
		for _, token := range []string{"sgpt_one", "sgpt_two"} {
			if err := push(t, s, token); err != nil {
				t.Errorf("%s: %v", capabilities, err)
			}
			holds(t, s, token)
		}
	}
}

func TestASecretThatIsGoneIsWrittenAgain(t *testing.T) {
	vault := vaulttest.Start(t)
	for _, tt := range []struct{ name, method, path string }{
		{"deleted", http.MethodDelete, "secret/data/%s"},
		{"destroyed", http.MethodPut, "secret/destroy/%s"},
		{"wiped", http.MethodDelete, "secret/metadata/%s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := at(t, vault, "secret", tt.name, "token")
			for _, token := range []string{"sgpt_one", "sgpt_two"} {
				if err := push(t, s, token); err != nil {
					t.Fatal(err)
				}
			}
			vault.Must(t, tt.method, fmt.Sprintf(tt.path, tt.name), map[string]any{"versions": []int{2}})
			holds(t, s, "")
			if err := s.Check(t.Context()); err != nil {
				t.Errorf("check: %v", err)
			}
			if err := push(t, s, "sgpt_two"); err != nil {
				t.Fatalf("push: %v", err)
			}
			holds(t, s, "sgpt_two")
		})
	}
	t.Run("only described", func(t *testing.T) {
		vault.Must(t, http.MethodPost, "secret/metadata/described", map[string]any{"custom_metadata": map[string]string{"owner": "us"}})
		s := at(t, vault, "secret", "described", "token")
		holds(t, s, "")
		if err := push(t, s, "sgpt_one"); err != nil {
			t.Fatal(err)
		}
		holds(t, s, "sgpt_one")
	})
}

func TestAValueThatIsNoStringIsSomebodyElses(t *testing.T) {
	vault := vaulttest.Start(t)
	for name, value := range map[string]any{"number": 42, "list": []string{"sgpt_canary"}, "object": map[string]string{"a": "canary"}} {
		vault.Must(t, http.MethodPut, "secret/data/"+name, map[string]any{"data": map[string]any{"token": value}})
		s := at(t, vault, "secret", name, "token")
		_, readErr := s.Read(t.Context())
		for what, err := range map[string]error{"check": s.Check(t.Context()), "read": readErr, "push": push(t, s, "sgpt_new")} {
			var foreign *rotator.ForeignError
			if !errors.As(err, &foreign) || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s of a %s: %v; want it to be foreign", what, name, err)
			}
		}
		if _, version := secret(t, vault, "secret/data/"+name); version != "1" {
			t.Errorf("a %s was overwritten", name)
		}
	}
	vault.Must(t, http.MethodPut, "secret/data/null", map[string]any{"data": map[string]any{"token": nil, "b": "c"}})
	s := at(t, vault, "secret", "null", "token")
	holds(t, s, "")
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	holds(t, s, "sgpt_one")
}

func TestPolicies(t *testing.T) {
	vault := vaulttest.Start(t)
	const hint = "this policy would do:\npath \"secret/data/app\" {\n  capabilities = [\"create\", \"read\", \"update\"]\n}"
	rule := func(capabilities string) string {
		return `path "secret/data/app" { capabilities = [` + capabilities + `] }`
	}
	for _, tt := range []struct {
		name, policy string
		exists       bool
		want         string // in the error of check; "" where it passes
		push         bool
	}{
		{"the policy of the hint, first time", rule(`"create", "read", "update"`), false, "", true},
		{"the policy of the hint", rule(`"create", "read", "update"`), true, "", true},
		{"patch alone", rule(`"read", "patch"`), true, "", true},
		{"patch alone, first time", rule(`"read", "patch"`), false, "the policies of the Vault login lack the capability create: " + hint, false},
		{"no read", rule(`"create", "update", "patch"`), true, "the policies of the Vault login lack the capability read: " + hint, false},
		{"read only", rule(`"read"`), true, "lack the capability update or patch: " + hint, false},
		{"denied", rule(`"deny"`), true, "no policy of the token reaches below this mount, or it does not exist; " + hint, false},
		{"nothing", `path "other/*" { capabilities = ["read"] }`, true, "no policy of the token reaches below this mount, or it does not exist; " + hint, false},
	} {
		for _, withDefault := range []bool{true, false} { // without it the token may not ask what it may do
			t.Run(fmt.Sprintf("%s, default policy %v", tt.name, withDefault), func(t *testing.T) {
				vault.Must(t, http.MethodDelete, "secret/metadata/app", nil)
				before := "null"
				if tt.exists {
					vault.Must(t, http.MethodPut, "secret/data/app", map[string]any{"data": map[string]any{"a": "b"}})
					before = "1"
				}
				s := open(dial(t, vault, vault.Token(t, tt.policy, withDefault)), vaultkv.Config{Mount: "secret", Path: "app"})
				err := s.Check(t.Context())
				switch {
				case tt.want == "":
					if err != nil {
						t.Errorf("check: %v", err)
					}
				case err == nil:
					t.Error("check passes")
				case withDefault && !strings.Contains(err.Error(), tt.want):
					t.Errorf("check: %v\nwant %s", err, tt.want)
				case !strings.Contains(err.Error(), hint):
					t.Errorf("check: %v\nwant the policy", err)
				}
				if _, version := secret(t, vault, "secret/data/app"); version != before && !(before == "null" && version == "<nil>") {
					t.Errorf("check wrote: version %s", version)
				}
				err = push(t, s, "sgpt_new")
				if tt.push != (err == nil) {
					t.Errorf("push: %v", err)
				}
				if !tt.push && (err == nil || !strings.Contains(err.Error(), hint) || !strings.Contains(err.Error(), "secret/data/app")) {
					t.Errorf("push: %v\nwant the policy", err)
				}
			})
		}
	}
}

func TestMounts(t *testing.T) {
	vault := vaulttest.Start(t)
	vault.Mount(t, "kv1", "1")
	narrow := vault.Token(t, `path "gone/data/app" { capabilities = ["create", "read", "update"] }`, true)
	for _, tt := range []struct {
		name, token string
		c           vaultkv.Config
		want        string
	}{
		{"missing, for root", vault.Root, vaultkv.Config{Mount: "gone", Path: "app"}, "vault: mount gone does not exist"},
		{"missing, for a policy that names it", narrow, vaultkv.Config{Mount: "gone", Path: "app"}, "vault: mount gone does not exist"},
		{"missing, version given", vault.Root, vaultkv.Config{Mount: "gone", Path: "app", KVVersion: 2}, "mount gone does not exist"},
		{"another engine", vault.Root, vaultkv.Config{Mount: "cubbyhole", Path: "app"}, `mount cubbyhole is an engine of the type "cubbyhole", not kv`},
		{"the other version", vault.Root, vaultkv.Config{Mount: "kv1", Path: "app", KVVersion: 2}, "mount kv1 is KV version 1, and kv_version says 2"},
		{"the other version, too", vault.Root, vaultkv.Config{Mount: "secret", Path: "app", KVVersion: 1}, "mount secret is KV version 2, and kv_version says 1"},
		{"version given", vault.Root, vaultkv.Config{Mount: "kv1", Path: "app", KVVersion: 1}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(dial(t, vault, tt.token), tt.c)
			err := s.Check(t.Context())
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("check: %v\nwant %s", err, tt.want)
			}
		})
	}
	t.Run("a missing mount holds nothing, but not for sure", func(t *testing.T) {
		for _, version := range []int{0, 1, 2} {
			s := open(dial(t, vault, vault.Root), vaultkv.Config{Mount: "gone", Path: "app", KVVersion: version})
			if _, err := s.Read(t.Context()); err == nil {
				t.Errorf("kv_version %d: read says that nothing is held", version)
			}
			if err := push(t, s, "sgpt_one"); err == nil {
				t.Errorf("kv_version %d: push succeeded", version)
			}
		}
	})
	t.Run("a wrong version writes nothing", func(t *testing.T) {
		s := open(dial(t, vault, vault.Root), vaultkv.Config{Mount: "secret", Path: "wrong", KVVersion: 1})
		if err := push(t, s, "sgpt_one"); err == nil {
			t.Error("push succeeded")
		}
	})
}

func TestASealedVault(t *testing.T) {
	vault := vaulttest.Start(t)
	s := at(t, vault, "secret", "app", "token")
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	vault.Must(t, http.MethodPut, "sys/seal", nil)
	_, readErr := s.Read(t.Context())
	for what, err := range map[string]error{"check": s.Check(t.Context()), "read": readErr, "push": push(t, s, "sgpt_two")} {
		if err == nil || !strings.Contains(err.Error(), "503 Vault is sealed: unseal it") {
			t.Errorf("%s: %v; want that it is sealed", what, err)
		}
	}
	vault.Must(t, http.MethodPut, "sys/unseal", map[string]any{"key": vault.UnsealKey})
	holds(t, s, "sgpt_one")
}

// A token that dies is replaced in its file, and nobody restarts anything.
func TestTheTokenFileIsReadAgain(t *testing.T) {
	vault := vaulttest.Start(t)
	policy := `path "secret/data/app" { capabilities = ["create", "read", "update"] }`
	first := vault.Token(t, policy, true)
	path := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first)
	client, err := vaultkv.Dial("", vaultkv.Connection{Address: vault.Address, TokenFile: path}, world(map[string]string{"VAULT_TOKEN": "not-this-one"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := open(client, vaultkv.Config{Mount: "secret", Path: "app"})
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}

	vault.Must(t, http.MethodPost, "auth/token/revoke", map[string]any{"token": first})
	_, readErr := s.Read(t.Context())
	for what, err := range map[string]error{"check": s.Check(t.Context()), "read": readErr, "push": push(t, s, "sgpt_two")} {
		if err == nil || !strings.Contains(err.Error(), "the Vault token has expired or was revoked") || strings.Contains(err.Error(), first) {
			t.Errorf("%s: %v; want that the token is refused", what, err)
		}
	}
	write(vault.Token(t, policy, true))
	if err := push(t, s, "sgpt_two"); err != nil {
		t.Fatal(err)
	}
	holds(t, s, "sgpt_two")

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "token_file") {
		t.Errorf("without the file: %v", err)
	}
}

func TestTheConnectionComesFromTheEnvironment(t *testing.T) {
	vault := vaulttest.Start(t, vaulttest.TLS())
	client, err := vaultkv.Dial("", vaultkv.Connection{}, world(map[string]string{
		"VAULT_ADDR": vault.Address, "VAULT_CACERT": vault.CACert, "VAULT_TOKEN": vault.Root, "VAULT_CLIENT_TIMEOUT": "20",
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := open(client, vaultkv.Config{Mount: "secret", Path: "app"})
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	unknown, err := vaultkv.Dial("", vaultkv.Connection{Address: vault.Address}, world(map[string]string{"VAULT_TOKEN": vault.Root}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unknown.Close)
	if err := open(unknown, vaultkv.Config{Mount: "secret", Path: "app"}).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody we know: %v", err)
	}
}

func TestDialRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    vaultkv.Connection
		env  map[string]string
		want string
	}{
		{"no address", vaultkv.Connection{}, nil, "vault: no address: set address in the vault block, or VAULT_ADDR"},
		{"half an address", vaultkv.Connection{Address: "vault.test:8200"}, nil, "vault: the address must be like https://vault.example.com:8200"},
		{"a password", vaultkv.Connection{Address: "https://me:hunter2@vault.test"}, nil, "vault: the address must hold no user or password"},
		{"a bad timeout", vaultkv.Connection{Address: "https://vault.test"}, map[string]string{"VAULT_CLIENT_TIMEOUT": "soon"}, "vault: VAULT_CLIENT_TIMEOUT must be a number of seconds, or a duration like 30s"},
		{"a CA that is not there", vaultkv.Connection{Address: "https://vault.test", CACert: "/nowhere/ca.pem"}, nil, "vault: TLS: "},
		{"half a pair", vaultkv.Connection{Address: "https://vault.test", ClientCert: "/c.pem"}, nil, "vault: TLS: both client cert and client key must be provided"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := vaultkv.Dial("", tt.c, world(tt.env))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v; want %s", err, tt.want)
			}
		})
	}
}

// newServer serves what no test Vault does, and returns its address.
func newServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// fake serves what no test Vault does: broken nodes, and answers that are not Vault's.
func fake(t *testing.T, h http.HandlerFunc) *vaultkv.Sink {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	client, err := vaultkv.Dial("", vaultkv.Connection{Address: srv.URL}, world(map[string]string{"VAULT_TOKEN": "hvs.canary"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return open(client, vaultkv.Config{Mount: "secret", Path: "app", KVVersion: 2})
}

func TestAnswersThatNoVaultShouldGive(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   string // "": nothing is held
	}{
		{"a page", 200, "<html>canary</html>", "the answer is not Vault's JSON"},
		{"a page that refuses", 403, "<html>canary</html>", "the answer is not Vault's"},
		{"a page that is missing", 404, "<html>canary</html>", "the answer is not Vault's"},
		{"a gateway", 502, "canary", "502: the answer is not Vault's"},
		{"nothing at all", 200, "", "the answer is not Vault's JSON"},
		{"null", 200, "null", "not that of a KV version 2 engine"},
		{"no data", 200, "{}", "not that of a KV version 2 engine"},
		{"data of another shape", 200, `{"data":["canary"]}`, "not that of a KV version 2 engine"},
		{"no metadata", 200, `{"data":{"data":{"token":"canary"}}}`, "not that of a KV version 2 engine"},
		{"a version that is none", 200, `{"data":{"data":{"token":"canary"},"metadata":{"version":"canary"}}}`, "not that of a KV version 2 engine"},
		{"never written", 404, `{"errors":[]}`, ""},
		{"never written, tersely", 404, ``, "the answer is not Vault's"},
		{"words with a token in them", 400, `{"errors":["bad sgpt_canary"]}`, "400 bad [redacted]"},
		{"very many words", 400, `{"errors":["` + strings.Repeat("x", 100_000) + `"]}`, "400 xxx"},
		{"errors of another shape", 500, `{"errors":{"canary":1}}`, "500: the answer is not Vault's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := fake(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			got, err := s.Read(t.Context())
			if tt.want == "" {
				if err != nil || !got.IsZero() {
					t.Errorf("error %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%.300v\nwant %s", err, tt.want)
			}
			if strings.Contains(err.Error(), "canary") || len(err.Error()) > 1000 {
				t.Error("the error quotes the answer")
			}
			if !strings.Contains(err.Error(), "GET secret/data/app") {
				t.Errorf("%v: does not name the request", err)
			}
			_ = s.Check(t.Context()) // must not panic
			_ = push(t, s, "sgpt_x")
		})
	}
}

func TestNodesThatCannotAnswer(t *testing.T) {
	for health, want := range map[int]string{
		429: "this node is a standby that does not reach its active node",
		472: "this node is a disaster recovery secondary",
		501: "this Vault is not initialised",
		503: "this Vault is sealed",
		200: "500 local node not active but active cluster node not found",
	} {
		s := fake(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/sys/health" {
				if r.Header.Get("X-Vault-Token") != "" {
					t.Error("the token was sent where none is needed")
				}
				w.WriteHeader(health)
				_, _ = io.WriteString(w, "{}")
				return
			}
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"errors":["local node not active but active cluster node not found"]}`)
		})
		if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("health %d: %v; want %s", health, err, want)
		}
	}
}

// A standby sends the client on to the active node, with the body.
func TestAStandbySendsUsOn(t *testing.T) {
	vault := vaulttest.Start(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, vault.Address+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(srv.Close)
	client, err := vaultkv.Dial("", vaultkv.Connection{Address: srv.URL}, world(map[string]string{"VAULT_TOKEN": vault.Root}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := open(client, vaultkv.Config{Mount: "secret", Path: "app"})
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"sgpt_one", "sgpt_two"} {
		if err := push(t, s, token); err != nil {
			t.Fatal(err)
		}
		holds(t, at(t, vault, "secret", "app", "token"), token)
	}
}

// Nobody listens: no retries, and no URL in the error.
func TestAVaultThatIsNotThere(t *testing.T) {
	srv := httptest.NewServer(nil)
	srv.Close()
	client, err := vaultkv.Dial("", vaultkv.Connection{Address: srv.URL}, world(map[string]string{"VAULT_TOKEN": "t"}))
	if err != nil {
		t.Fatal(err)
	}
	err = open(client, vaultkv.Config{Mount: "secret", Path: "app"}).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "/v1/") {
		t.Errorf("%v; want connection refused, without the URL", err)
	}
}

func TestServerErrorsAreNotRetried(t *testing.T) {
	requests := 0
	s := fake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/secret/data/app" {
			requests++
		}
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"errors":["internal error"]}`)
	})
	if _, err := s.Read(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if requests != 1 {
		t.Errorf("%d requests; want 1, the engine is who tries again", requests)
	}
}

// A write that Vault carries out after the push gave up must not undo a later push.
func TestALateWriteDoesNotUndoALaterPush(t *testing.T) {
	vault := vaulttest.Start(t)
	begun, release, done := make(chan struct{}), make(chan struct{}), make(chan int, 1)
	var once sync.Once
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		send := func() (int, []byte) {
			req, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, vault.Address+r.URL.Path, strings.NewReader(string(body)))
			if err != nil {
				t.Error(err)
				return 500, nil
			}
			req.Header = r.Header.Clone()
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return 500, nil
			}
			defer resp.Body.Close() //nolint:errcheck // a test
			b, _ := io.ReadAll(resp.Body)
			return resp.StatusCode, b
		}
		if r.Method == http.MethodPatch {
			late := false
			once.Do(func() { late = true })
			if late {
				close(begun)
				<-release
				status, _ := send()
				done <- status
				return
			}
		}
		status, b := send()
		w.WriteHeader(status)
		_, _ = w.Write(b)
	}))
	t.Cleanup(proxy.Close)
	client, err := vaultkv.Dial("", vaultkv.Connection{Address: proxy.URL}, world(map[string]string{"VAULT_TOKEN": vault.Root}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := open(client, vaultkv.Config{Mount: "secret", Path: "app"})
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if err := s.Push(ctx, rotator.Generation{}, rotator.NewSecret("sgpt_two")); !errors.Is(err, context.Canceled) {
		t.Fatalf("push: %v; want canceled", err)
	}
	if err := push(t, s, "sgpt_three"); err != nil {
		t.Fatal(err)
	}
	close(release)
	if status := <-done; status != http.StatusBadRequest {
		t.Errorf("the late write was answered with %d, want 400", status)
	}
	holds(t, s, "sgpt_three")
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    vaultkv.Config
		want string
	}{
		{"fine", vaultkv.Config{Mount: "/team/kv/", Path: "/a b/c/", Key: "the key", KVVersion: 2, Vault: "eu-1"}, ""},
		{"nothing", vaultkv.Config{}, "[mount] is missing: the mount of the KV engine, like secret\n[path] is missing: the path of the secret, like team/portal"},
		{"slashes", vaultkv.Config{Mount: "a//b", Path: "c//d"}, "[mount] has two slashes in a row\n[path] has two slashes in a row"},
		{"dots", vaultkv.Config{Mount: "kv", Path: "a/../b"}, `[path] must not contain ".." as a part of it`},
		{"hash", vaultkv.Config{Mount: "kv", Path: "a#b"}, "[path] must not contain any of # ? *"},
		{"control", vaultkv.Config{Mount: "kv", Path: "a\nb", Key: "a\tb"}, "[path] must not contain control characters, or blanks around a part of it\n[key] must not contain control characters, or blanks around it"},
		{"data", vaultkv.Config{Mount: "kv", Path: "data/a"}, "[path] begins with data/, which belongs to Vault's API and not to the secret's path: it is added where it is needed"},
		{"data in version 1", vaultkv.Config{Mount: "kv", Path: "data/a", KVVersion: 1}, ""},
		{"version", vaultkv.Config{Mount: "kv", Path: "a", KVVersion: 3}, "[kv_version] must be 1 or 2, or left out"},
		{"names", vaultkv.Config{Mount: "k:v", Path: "a", Vault: "E U"}, "[mount] must not contain a colon\n[vault] \"E U\" cannot be the name of an item of vaults"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := field.New()
			tt.c.Validate(p)
			var got []string
			for _, problem := range p.List() {
				got = append(got, fmt.Sprintf("%v %s", problem.Path, problem.Text))
			}
			if strings.Join(got, "\n") != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), tt.want)
			}
		})
	}
}

func TestValidateConnection(t *testing.T) {
	p := field.New()
	c := vaultkv.Connection{Address: "vault", ClientCert: "c.pem", Namespace: " x", TokenFile: "token"}
	c.Resolve("/etc/rotatord")
	c.Validate(p)
	var got []string
	for _, problem := range p.List() {
		got = append(got, fmt.Sprintf("%v %s", problem.Path, problem.Text))
	}
	want := "[address] the address must be like https://vault.example.com:8200\n[] client_cert and client_key come together\n[namespace] has blanks around it"
	if strings.Join(got, "\n") != want {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
	if c.TokenFile != "/etc/rotatord/token" || c.ClientCert != "/etc/rotatord/c.pem" {
		t.Errorf("paths %s, %s", c.TokenFile, c.ClientCert)
	}
}

func TestPlace(t *testing.T) {
	for want, c := range map[string]vaultkv.Config{
		"vault_kv:secret/team/portal#token":   {Mount: "/secret/", Path: "team/portal/"},
		"vault_kv:eu:secret/team/portal#prod": {Mount: "secret", Path: "team/portal", Key: "prod", Vault: "eu"},
	} {
		c.Resolve("/etc/rotatord")
		if got := c.Place(); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}
