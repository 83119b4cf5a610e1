package vaultkv_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/sinks/vaultkv"
	"github.com/rotatord/rotatord/sinks/vaultkv/vaulttest"
)

// A thousand readings of a secret that nobody touches read it once.
func TestOnlyAVersionThatMovedIsFetched(t *testing.T) {
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", rules, nil)
	s := team(connect(t, vault, appRole(role)), "app")
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	seen := vault.Audit(t)
	for range 100 {
		holds(t, s, "sgpt_one")
	}
	requests := seen()
	if data, meta := count(requests, "read", "secret/data/team/app"), count(requests, "read", "secret/metadata/team/app"); data != 1 || meta != 99 {
		t.Errorf("%d readings of the data and %d of the metadata, want 1 and 99", data, meta)
	}

	const data = "secret/data/team/app"
	versions := func(n int) map[string]any { return map[string]any{"versions": []int{n}} }
	for _, step := range []struct {
		name         string
		method, path string
		body         any
		want         string
	}{
		{"another key changes", http.MethodPatch, data, map[string]any{"data": map[string]string{"other": "x"}}, "sgpt_one"},
		{"the key changes", http.MethodPatch, data, map[string]any{"data": map[string]string{"token": "sgpt_theirs"}}, "sgpt_theirs"},
		{"the key is emptied", http.MethodPatch, data, map[string]any{"data": map[string]string{"token": ""}}, ""},
		{"the key is taken away", http.MethodPut, data, map[string]any{"data": map[string]string{"other": "x"}}, ""},
		{"it comes back", http.MethodPut, data, map[string]any{"data": map[string]string{"token": "sgpt_back"}}, "sgpt_back"},
		{"it is deleted", http.MethodDelete, data, nil, ""},
		{"it is undeleted", http.MethodPut, "secret/undelete/team/app", versions(6), "sgpt_back"},
		{"it is destroyed", http.MethodPut, "secret/destroy/team/app", versions(6), ""},
		{"it is wiped", http.MethodDelete, "secret/metadata/team/app", nil, ""},
		{"it is made again", http.MethodPut, data, map[string]any{"data": map[string]string{"token": "sgpt_again"}}, "sgpt_again"},
		{"it is wiped again", http.MethodDelete, "secret/metadata/team/app", nil, ""},
	} {
		vault.Must(t, step.method, step.path, step.body)
		got, err := s.Read(t.Context())
		if err != nil || got.Reveal() != step.want {
			t.Errorf("%s: the sink reads something else, error %v", step.name, err)
		}
		holds(t, s, step.want)
	}

	// Wiped and written between two readings: it has the same version, and is another secret.
	vault.Must(t, http.MethodPut, data, map[string]any{"data": map[string]string{"token": "sgpt_first"}})
	holds(t, s, "sgpt_first")
	vault.Must(t, http.MethodDelete, "secret/metadata/team/app", nil)
	vault.Must(t, http.MethodPut, data, map[string]any{"data": map[string]string{"token": "sgpt_second"}})
	holds(t, s, "sgpt_second")
}

// Whoever may read the data and not the metadata reads the data, and says nothing.
func TestWithoutMetadata(t *testing.T) {
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", `path "secret/data/team/app" { capabilities = ["create", "read", "update"] }`, nil)
	s := team(connect(t, vault, appRole(role)), "app")
	seen := vault.Audit(t)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"sgpt_one", "sgpt_two"} {
		if err := push(t, s, token); err != nil {
			t.Fatal(err)
		}
		holds(t, s, token)
		holds(t, s, token)
	}
	for _, r := range seen() {
		if r.Refused && r.Path != "secret/data/team/app" { // a secret that is not there yet counts as refused
			t.Errorf("a request that the policy does not allow: %+v", r)
		}
	}
}

// How many requests a rotation takes is a figure of docs/vault.md.
func TestRequestsOfARotation(t *testing.T) {
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", rules, nil)
	s := team(connect(t, vault, appRole(role)), "app")
	seen := vault.Audit(t)
	rotation := func(token string) {
		t.Helper()
		if err := s.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := push(t, s, token); err != nil {
			t.Fatal(err)
		}
		holds(t, s, token)
	}
	rotation("sgpt_one")
	seen()
	rotation("sgpt_two")
	var got []string
	for _, r := range seen() {
		got = append(got, r.Operation+" "+r.Path)
	}
	want := "update sys/capabilities-self\nread secret/metadata/team/app\npatch secret/data/team/app\nread secret/data/team/app"
	if strings.Join(got, "\n") != want {
		t.Errorf("a rotation asks\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

func TestCustomMetadata(t *testing.T) {
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", rules, nil)
	client := connect(t, vault, appRole(role))
	s := open(client, vaultkv.Config{Mount: "secret", Path: "team/app", Metadata: true})
	expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	g := rotator.Generation{Entry: "bot", Number: 1, ID: "tok_1", Label: "rotatord/x/bot#1", Expires: expires}
	custom := func() map[string]any {
		out := vault.Must(t, http.MethodGet, "secret/metadata/team/app", nil)["data"].(map[string]any)
		m, _ := out["custom_metadata"].(map[string]any)
		return m
	}
	if err := s.Push(t.Context(), g, rotator.NewSecret("sgpt_canary")); err != nil {
		t.Fatal(err)
	}
	vault.Must(t, http.MethodPatch, "secret/metadata/team/app", map[string]any{"custom_metadata": map[string]string{"owner": "us"}})
	g.Number, g.ID, g.Label = 2, "tok_2", "rotatord/x/bot#2"
	if err := s.Push(t.Context(), g, rotator.NewSecret("sgpt_canary2")); err != nil {
		t.Fatal(err)
	}
	other := open(client, vaultkv.Config{Mount: "secret", Path: "team/app", Key: "other", Metadata: true})
	if err := other.Push(t.Context(), rotator.Generation{Entry: "batch", Number: 7, ID: "tok_7", Expires: expires}, rotator.NewSecret("sgpt_canary3")); err != nil {
		t.Fatal(err)
	}
	want := "map[batch.expires_at:2030-01-02T03:04:05Z batch.generation:7 batch.token_id:tok_7 " +
		"bot.expires_at:2030-01-02T03:04:05Z bot.generation:2 bot.label:rotatord/x/bot#2 bot.token_id:tok_2 owner:us]"
	if got := fmt.Sprint(custom()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if strings.Contains(fmt.Sprint(custom()), "canary") {
		t.Error("the metadata hold a plaintext")
	}

	// A policy that does not allow it costs nobody a token.
	narrow := vault.Token(t, `path "secret/data/team/app" { capabilities = ["create", "read", "update"] }`, true)
	s = open(dial(t, vault, narrow), vaultkv.Config{Mount: "secret", Path: "team/app", Metadata: true})
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), rotator.Generation{Entry: "bot", Number: 3, Expires: expires}, rotator.NewSecret("sgpt_canary4")); err != nil {
		t.Fatal(err)
	}
	holds(t, s, "sgpt_canary4")
}

// A mount that is moved away is no empty secret; where another one takes its place, that one counts.
func TestAMountThatMoves(t *testing.T) {
	vault := vaulttest.Start(t)
	vault.Mount(t, "kv", "2")
	for _, token := range []string{vault.Root, vault.Token(t, strings.ReplaceAll(rules, `"secret/`, `"kv/`), true)} {
		vault.Must(t, http.MethodPut, "kv/data/team/app", map[string]any{"data": map[string]string{"token": "sgpt_one"}})
		s := open(dial(t, vault, token), vaultkv.Config{Mount: "kv", Path: "team/app"})
		holds(t, s, "sgpt_one")
		vault.Must(t, http.MethodPost, "sys/remount", map[string]any{"from": "kv", "to": "moved"})
		for try := 0; ; try++ { // it moves in the background
			if status, _ := vault.Do(t, http.MethodGet, "moved/data/team/app", nil); status == http.StatusOK {
				break
			}
			if try > 300 {
				t.Fatal("it does not move")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if _, err := s.Read(t.Context()); err == nil {
			t.Error("read says that nothing is held")
		}
		if err := s.Check(t.Context()); err == nil {
			t.Error("check passes")
		}
		if err := push(t, s, "sgpt_two"); err == nil {
			t.Error("push succeeds")
		}
		vault.Mount(t, "kv", "1")
		if token == vault.Root {
			s.Read(t.Context()) //nolint:errcheck // finds out
			if err := push(t, s, "sgpt_two"); err != nil {
				t.Errorf("the new mount is of version 1: %v", err)
			}
			holds(t, s, "sgpt_two")
		}
		vault.Must(t, http.MethodDelete, "sys/mounts/kv", nil)
		vault.Must(t, http.MethodPost, "sys/remount", map[string]any{"from": "moved", "to": "kv"})
		for try := 0; ; try++ {
			if status, _ := vault.Do(t, http.MethodGet, "kv/data/team/app", nil); status == http.StatusOK {
				break
			}
			if try > 300 {
				t.Fatal("it does not move back")
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// A Vault that hangs costs one sink its time, and not a thousand.
func TestAVaultThatHangs(t *testing.T) {
	var asked, ahead atomic.Int64
	srv := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			ahead.Add(int64(30 * time.Second)) // that long it was silent
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[]}`)
	})
	client, err := vaultkv.Dial("eu", vaultkv.Connection{Address: srv}, vaultkv.World{
		Getenv: func(string) string { return "" }, Now: func() time.Time { return time.Unix(1<<31, ahead.Load()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	sink := func() *vaultkv.Sink { return open(client, vaultkv.Config{Mount: "secret", Path: "app", KVVersion: 2}) }
	if _, err := sink().Read(t.Context()); err == nil {
		t.Fatal("no error")
	}
	for range 1000 {
		_, err := sink().Read(t.Context())
		var out *rotator.OutageError
		if !errors.As(err, &out) || !strings.Contains(err.Error(), "vault eu at "+srv+" does not answer, and is asked again soon: vault: GET secret/data/app: ") {
			t.Fatalf("%v", err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	ahead.Add(int64(11 * time.Second))
	if _, err := sink().Read(t.Context()); err != nil {
		t.Errorf("once it answers again: %v", err)
	}
}
