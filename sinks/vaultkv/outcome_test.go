package vaultkv_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/sinks/vaultkv"
	"github.com/rotatord/rotatord/sinks/vaultkv/vaulttest"
)

// seen notes what an observer is told.
type seen struct {
	mu  sync.Mutex
	all []string
}

func (s *seen) world(env map[string]string) vaultkv.World {
	w := world(env)
	w.Observe = func(connection, operation, outcome string, took time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if took < 0 || !slices.Contains(vaultkv.Operations(), operation) || !slices.Contains(vaultkv.Outcomes(), outcome) {
			outcome += "?"
		}
		s.all = append(s.all, strings.TrimSpace(connection+" "+operation+" "+outcome))
	}
	return w
}

func (s *seen) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	s.all = nil
	return all
}

// What is observed names the connection, the operation and the outcome, and never a path.
func TestEveryRequestIsObserved(t *testing.T) {
	vault := vaulttest.Start(t)
	var s seen
	client, err := vaultkv.Dial("team", vaultkv.Connection{Address: vault.Address, CACert: vault.CACert}, s.world(map[string]string{"VAULT_TOKEN": vault.Root}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	sink := open(client, vaultkv.Config{Mount: "secret", Path: "app", Key: "token"})
	if err := push(t, sink, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	got := s.take()
	for _, want := range []string{"team system ok", "team read not_found", "team write ok"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if err := push(t, sink, "sgpt_two"); err != nil {
		t.Fatal(err)
	}
	if got := s.take(); !slices.Contains(got, "team patch ok") {
		t.Errorf("%q lacks a patch", got)
	}
	vault.Must(t, http.MethodPut, "sys/seal", nil)
	if _, err := sink.Read(t.Context()); err == nil {
		t.Fatal("a sealed Vault was read")
	}
	if got := s.take(); !slices.Contains(got, "team read server_error") {
		t.Errorf("%q: Vault is sealed", got)
	}
}

func TestOutcomes(t *testing.T) {
	for _, tt := range []struct {
		status     int
		body, want string
	}{
		{200, `{"data":{"data":{"token":"x"},"metadata":{"version":1}}}`, "ok"},
		{200, `<html>`, "strange"},
		{404, `<html>`, "strange"},
		{404, `{"errors":[]}`, "not_found"},
		{403, `{"errors":["permission denied"]}`, "denied"},
		{400, `{"errors":["check-and-set"]}`, "refused"},
		{429, `{"errors":["too many"]}`, "limited"},
		{503, `{"errors":["Vault is sealed"]}`, "server_error"},
	} {
		var s seen
		client, err := vaultkv.Dial("", vaultkv.Connection{Address: newServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			_, _ = io.WriteString(w, tt.body)
		})}, s.world(map[string]string{"VAULT_TOKEN": "hvs.x"}))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = open(client, vaultkv.Config{Mount: "secret", Path: "app", KVVersion: 2}).Read(t.Context())
		if got := s.take(); !slices.Contains(got, "read "+tt.want) {
			t.Errorf("%d %s: %q, want %s", tt.status, tt.body, got, tt.want)
		}
		client.Close()
	}

	var s seen
	client, err := vaultkv.Dial("", vaultkv.Connection{Address: newServer(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}, s.world(map[string]string{"VAULT_TOKEN": "hvs.x", "VAULT_CLIENT_TIMEOUT": "1"}))
	if err != nil {
		t.Fatal(err)
	}
	sink := open(client, vaultkv.Config{Mount: "secret", Path: "app", KVVersion: 2})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, _ = sink.Read(ctx)
	if got := s.take(); !slices.Contains(got, "read canceled") && !slices.Contains(got, "token canceled") {
		t.Errorf("%q, want that we stopped waiting", got)
	}
	_, _ = sink.Read(t.Context())
	if got := s.take(); !slices.Contains(got, "read no_answer") {
		t.Errorf("%q, want that it did not answer", got)
	}
}
