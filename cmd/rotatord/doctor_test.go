package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
	"github.com/rotatord/rotatord/sinks/vaultkv/vaulttest"
)

// examine runs doctor, and returns its findings.
func (s *stage) examine(want int) []finding {
	s.t.Helper()
	var out struct {
		Format   int       `json:"format"`
		OK       bool      `json:"ok"`
		Findings []finding `json:"findings"`
	}
	text := s.run(want, "doctor", "--json")
	if err := json.Unmarshal([]byte(text), &out); err != nil || out.Format != 1 || out.OK != (want == exitOK) {
		s.t.Fatalf("%v: %s", err, text)
	}
	return out.Findings
}

// found fails the test unless there is a finding in the area that stands so and says this.
func found(t *testing.T, all []finding, area string, v health, says string) {
	t.Helper()
	if !slices.ContainsFunc(all, func(f finding) bool {
		return f.Area == area && f.Verdict == v && strings.Contains(f.Subject+" "+f.Says+" → "+f.Do, says)
	}) {
		t.Errorf("no %s of %s says %q in\n%s", v, area, says, table(all))
	}
}

func table(all []finding) string {
	var b strings.Builder
	(&patient{findings: all}).print(&b, 0)
	return b.String()
}

// doctored is a stage with a token in Vault and in a file.
func doctored(t *testing.T, vault *vaulttest.Server, role *vaulttest.AppRole, auth string) *stage {
	t.Helper()
	return newStage(t, fmt.Sprintf(`version: 1
api: {requests_per_minute: 60000}
daemon: {settle: 200ms}
vaults:
  eu:
    address: %s
    auth: {approle: {role_id: {file: %s}, secret_id: {file: %s}%s}}
tokens:
  - name: bot
    scopes: [chatbots:read]
    schedule: "@daily"
    sinks:
      - vault_kv: {vault: eu, mount: secret, path: apps/bot}
      - env_file: {path: app.env, key: BOT_TOKEN}
`, vault.Address, role.RoleIDFile, role.SecretIDFile, auth))
}

func TestDoctorFindsNothingAndChangesNothing(t *testing.T) {
	t.Parallel()
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", vaultRules, nil)
	s := doctored(t, vault, role, "")
	all := s.examine(exitOK)
	found(t, all, "configuration", works, "1 token in 2 sinks")
	found(t, all, "state", works, "is not there yet, and can be made")
	if _, err := os.Stat(filepath.Join(s.dir, "state")); err == nil {
		t.Error("doctor made the state")
	}
	s.run(exitOK, "once")
	seen := vault.Audit(t)
	made, secret := s.api.Made(), stored(t, vault, 0)
	all = s.examine(exitOK)
	for area, says := range map[string]string{
		"configuration": "1 token in 2 sinks", "state": "writable, ", "api": "answers, and lists 2 tokens",
		"clock": "agrees with SiteGPT's", "management": "is accepted, and belongs to ",
		"vault": "vault eu at " + vault.Address + " logs in by approle, for 1h at a time, and is renewed",
		"sink":  "bot: vault_kv eu:secret/apps/bot#token a push would work",
	} {
		found(t, all, area, works, says)
	}
	found(t, all, "management", works, "tokens:write")
	found(t, all, "sink", works, "app.env")
	found(t, all, "daemon", doubts, "no rotatord works on this state now")
	if text := s.run(exitOK, "doctor"); len(strings.Split(text, "\n")) > len(all)+5 || !strings.Contains(text, "Nothing was changed.") {
		t.Errorf("more than a line each:\n%s", text)
	}
	if s.api.Made() != made || stored(t, vault, 0) != secret {
		t.Error("doctor made or wrote a token")
	}
	for name := range requests(seen()) {
		if !slices.Contains([]string{
			"update auth/approle/login", "update auth/token/revoke-self", "read auth/token/lookup-self",
			"read sys/internal/ui/mounts/secret", "update sys/capabilities-self", "read secret/data/apps/*", "read secret/metadata/apps/*",
		}, name) {
			t.Errorf("doctor asked Vault to %s", name)
		}
	}
	s.noPlaintext(s.token("BOT_TOKEN"))
}

// Each thing that can be wrong has a line of its own, which says what to do.
func TestDoctorFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", vaultRules, nil)
	s := doctored(t, vault, role, "")
	s.run(exitOK, "once")
	policy := func(text string) {
		vault.Must(t, http.MethodPut, "sys/policies/acl/of-approle", map[string]any{"policy": text})
	}

	policy(`path "secret/data/apps/bot" { capabilities = ["read"] }`)
	all := s.examine(exitFailed)
	found(t, all, "sink", fails, "the policies of the Vault login lack the capability update or patch: this policy would do:\npath \"secret/data/apps/bot\" {\n")
	if text := s.run(exitFailed, "doctor"); !strings.Contains(text, "\n        path \"secret/data/apps/bot\" {\n          capabilities = [\"create\", \"read\", \"update\"]\n") {
		t.Errorf("the policy is not to be pasted:\n%s", text)
	}
	policy(`path "secret/data/apps/bot" { capabilities = ["create", "read", "update"] }`)
	found(t, s.examine(exitOK), "sink", doubts, `does not allow to read secret/metadata/apps/bot, so every reading back fetches the secret itself: allow "read" there`)
	policy(vaultRules)

	vault.Must(t, http.MethodPatch, "secret/data/apps/bot", map[string]any{"data": map[string]string{"token": "somebody's"}})
	found(t, s.examine(exitOK), "sink", doubts, "holds a value that is none of ours: it would be left alone, and wait for a person")
	s.run(exitOK, "adopt", "bot")

	vault.Seal(t)
	all = s.examine(exitFailed)
	found(t, all, "vault", fails, "503 Vault is sealed: unseal it; rotatord tries again by itself")
	found(t, all, "sink", skipped, "see vault eu at ")
	vault.Unseal(t)

	good, err := os.ReadFile(role.SecretIDFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(role.SecretIDFile, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	found(t, s.examine(exitFailed), "vault", fails, "400 invalid role or secret ID: look at role_id and secret_id")
	if err := os.Remove(role.SecretIDFile); err != nil {
		t.Fatal(err)
	}
	found(t, s.examine(exitFailed), "vault", fails, "log in by approle: secret_id: ")
	if err := os.WriteFile(role.SecretIDFile, good, 0o600); err != nil {
		t.Fatal(err)
	}

	s.api.Inject(sandbox.Fault{Op: sandbox.OpList, Kind: sandbox.Forbidden})
	found(t, s.examine(exitOK), "management", doubts, "it may not list tokens (tokens:read)")
	s.api.Clear()
	s.api.Inject(sandbox.Fault{Op: sandbox.OpAny, Kind: sandbox.Unauthorized})
	all = s.examine(exitFailed)
	found(t, all, "api", works, "answers")
	found(t, all, "management", fails, "SiteGPT refuses it: it has expired, or was revoked → give rotatord another one")
	s.api.Clear()
	s.api.Inject(sandbox.Fault{Op: sandbox.OpAny, Kind: sandbox.HTML})
	all = s.examine(exitFailed)
	found(t, all, "api", fails, "look at this machine's network")
	found(t, all, "clock", skipped, "")
	s.api.Clear()

	s.env = map[string]string{"VAULT_SKIP_VERIFY": "true"}
	found(t, s.examine(exitOK), "vault", doubts, "the server's certificate is NOT verified")
	s.env = map[string]string{"SITEGPT_API_TOKEN": ""}
	found(t, s.examine(exitFailed), "management", fails, "no management token: set SITEGPT_API_TOKEN")
	s.env = nil
	s.write("rotation.yaml", "version: 1\ntokens: [{name: bot, sinks: [], scopes: []}]\n")
	if text := s.run(exitUsage, "doctor"); !strings.Contains(text, "FAIL  configuration") || !strings.Contains(text, "is refused") {
		t.Errorf("a configuration that is refused:\n%s", text)
	}
	if err := os.Remove(filepath.Join(s.dir, "rotation.yaml")); err != nil {
		t.Fatal(err)
	}
	s.run(exitUsage, "doctor")
}

// A wrapped secret id works once: neither doctor nor plan uses it up.
func TestLookingUsesNoWrappedSecretIDUp(t *testing.T) {
	t.Parallel()
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", vaultRules, nil)
	s := doctored(t, vault, role, ", wrapped: true")
	role.WrapSecretID(t)
	all := s.examine(exitOK)
	found(t, all, "vault", works, "a wrapped secret id waits in file "+role.SecretIDFile)
	found(t, all, "sink", skipped, "see vault eu at ")
	if out := s.run(exitOK, "plan"); !strings.Contains(out, "a login would use up the wrapped secret id") {
		t.Errorf("plan: %s", out)
	}
	s.run(exitOK, "once")
	if s.token("BOT_TOKEN") == "" {
		t.Error("once had no login")
	}
	// That it cannot log in is no reason not to see that nobody is there.
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close() //nolint:errcheck // it is only to be gone
	text, err := os.ReadFile(filepath.Join(s.dir, "rotation.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	role.WrapSecretID(t)
	s.write("rotation.yaml", strings.ReplaceAll(string(text), vault.Address, "http://"+gone.Addr().String()))
	found(t, s.examine(exitFailed), "vault", fails, "nothing listens there: look at the address")
}
