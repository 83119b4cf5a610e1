//go:build linux

package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/sinks/vaultkv/vaulttest"
)

// vaultRules is a policy for every secret below apps/.
const vaultRules = `
path "secret/data/apps/*"     { capabilities = ["create", "read", "update", "patch"] }
path "secret/metadata/apps/*" { capabilities = ["read"] }
`

// vaultStage is a stage whose connection logs in by AppRole, with count tokens in Vault.
func vaultStage(t *testing.T, vault *vaulttest.Server, role *vaulttest.AppRole, count int) *stage {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `version: 1
api: {requests_per_minute: 600000}
daemon: {settle: 200ms, fuse: {creates_per_day: 100, live: 100}}
vault:
  address: %s
  ca_cert: %q
  auth: {approle: {role_id: {file: %s}, secret_id: {file: %s}}}
defaults: {schedule: "@daily", scopes: [chatbots:read]}
tokens:
`, vault.Address, vault.CACert, role.RoleIDFile, role.SecretIDFile)
	for i := range count {
		fmt.Fprintf(&b, "  - {name: t%d, sinks: [{vault_kv: {mount: secret, path: apps/t%d}}]}\n", i, i)
	}
	return newStage(t, strings.Replace(b.String(), "  ca_cert: \"\"\n", "", 1))
}

// stored is what Vault holds for a token of a vaultStage.
func stored(t *testing.T, vault *vaulttest.Server, i int) string {
	t.Helper()
	_, out := vault.Do(t, http.MethodGet, fmt.Sprintf("secret/data/apps/t%d", i), nil)
	data, _ := out["data"].(map[string]any)
	data, _ = data["data"].(map[string]any)
	v, _ := data["token"].(string)
	return v
}

// requests counts what the audit device has seen, by operation and path.
func requests(seen []vaulttest.Request) map[string]int {
	n := map[string]int{}
	for _, r := range seen {
		path := r.Path
		for _, prefix := range []string{"secret/data/apps/", "secret/metadata/apps/"} {
			if strings.HasPrefix(path, prefix) {
				path = prefix + "*"
			}
		}
		n[r.Operation+" "+path]++
	}
	return n
}

// A daemon whose Vault is sealed creates nothing and says so once, and has filled every sink soon
// after it is unsealed, with one more login at most.
func TestVaultSealedUnderADaemon(t *testing.T) {
	t.Parallel()
	const tokens = 30
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", vaultRules, nil)
	s := vaultStage(t, vault, role, tokens)
	s.run(exitOK, "once")
	before := map[int]string{}
	for i := range tokens {
		if before[i] = stored(t, vault, i); !s.api.Alive(before[i]) {
			t.Fatalf("t%d is not filled", i)
		}
	}
	seen := vault.Audit(t)
	cmd, output := s.process(nil, "run")
	var log lines
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if code := ended(t, cmd.Wait()); code != exitOK {
			t.Errorf("the daemon ended with %d: %s%s", code, output, log.String())
		}
	}
	waitFor(t, "the daemon", func() bool { return strings.Contains(log.String(), `"started"`) })

	vault.Seal(t)
	made := s.api.Made()
	s.run(exitFailed, "rotate", "--all", "--timeout", "3s")
	waitFor(t, "the warning", func() bool { return strings.Contains(log.String(), "out of reach: its sinks wait") })
	if n := s.api.Made() - made; n != 0 {
		t.Errorf("%d creates while Vault is sealed", n)
	}
	out := s.run(exitOK, "status")
	for _, want := range []string{"503 Vault is sealed: unseal it; rotatord tries again by itself", "→ bring back vault"} {
		if !strings.Contains(out, want) {
			t.Errorf("status does not say %q:\n%s", want, out)
		}
	}
	vault.Unseal(t)
	waitFor(t, "the rotations", func() bool {
		for i := range tokens {
			if v := stored(t, vault, i); v == before[i] || !s.api.Alive(v) {
				return false
			}
		}
		return true
	})
	waitFor(t, "the end", func() bool { return strings.Contains(log.String(), "within reach again") })
	stop()
	if n := s.api.Made() - made; n != tokens {
		t.Errorf("%d creates, want %d", n, tokens)
	}
	warnings := 0
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, `"WARN"`) {
			warnings++
		}
	}
	if warnings != 1 {
		t.Errorf("%d warnings, want 1:\n%s", warnings, log.String())
	}
	if n := requests(seen())["update auth/approle/login"]; n > 2 {
		t.Errorf("%d logins", n)
	}
}

// A thousand tokens into one Vault: one login, and no more requests than are needed.
func TestThousandTokensIntoVault(t *testing.T) {
	t.Parallel()
	const tokens = 1000
	vault := vaulttest.Start(t, vaulttest.TLS())
	role := vault.AppRole(t, "approle", vaultRules, nil)
	s := vaultStage(t, vault, role, tokens)
	seen := vault.Audit(t)
	s.run(exitOK, "once")
	first := requests(seen())
	s.run(exitOK, "rotate", "--all")
	second := requests(seen())
	for i := range tokens {
		if !s.api.Alive(stored(t, vault, i)) {
			t.Fatalf("t%d holds no live token", i)
		}
	}
	t.Logf("first tokens: %v", first)
	t.Logf("rotations: %v", second)
	for name, got := range map[string]map[string]int{"first tokens": first, "rotations": second} {
		all := 0
		for _, n := range got {
			all += n
		}
		if n := got["read sys/internal/ui/mounts/secret"]; n > tokens/20 { // once a minute
			t.Errorf("%s: the mount was asked about %d times", name, n)
		}
		if got["update auth/approle/login"] != 1 || got["update auth/token/revoke-self"] != 1 {
			t.Errorf("%s: %d logins, and %d ended, want 1", name, got["update auth/approle/login"], got["update auth/token/revoke-self"])
		}
		if per := float64(all) / tokens; per > 6.5 { // sinks are read back meanwhile
			t.Errorf("%s: %.2f requests a token, want 6 at most", name, per)
		}
	}
}

// waitFor waits until something is so, and fails the test where it takes too long.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	for until := time.Now().Add(2 * time.Minute); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}
