//go:build linux

package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/sinks/vaultkv/vaulttest"
)

// fenced returns the blocks of a language in a page.
func fenced(t *testing.T, path, language string) (out []string) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
		out = append(out, m[1])
	}
	if len(out) == 0 {
		t.Fatalf("%s has no block of %s", path, language)
	}
	return out
}

// Every command of docs/vault.md works, in its order, in a real Vault behind a private authority; and
// rotatord asks that Vault for nothing that the page's policy does not allow.
func TestTheGuideToVault(t *testing.T) {
	t.Parallel()
	const guide = "../../docs/vault.md"
	vault := vaulttest.Start(t, vaulttest.TLS())
	seen := vault.Audit(t)
	s := newStage(t, "")
	cluster := vaulttest.Kubernetes(t)
	cluster.Account(t, filepath.Join(s.dir, "service-account-token"), "tokens", "rotatord")
	s.process(nil) // builds
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	tools := vaulttest.CLI(t)
	if err := os.Symlink(program, filepath.Join(tools, "rotatord")); err != nil {
		t.Fatal(err)
	}
	shell := func(script string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
		cmd.Dir = s.dir
		cmd.Env = []string{
			"PATH=" + tools + ":" + os.Getenv("PATH"), "HOME=" + s.dir, "ROTATORD_STATE_DIR=" + filepath.Join(s.dir, "state"),
			"SITEGPT_API_BASE=" + s.url, "SITEGPT_API_TOKEN=" + s.api.Management().Reveal(),
			"VAULT_ADDR=" + vault.Address, "VAULT_CACERT=" + vault.CACert, "VAULT_TOKEN=" + vault.Root,
			"KUBERNETES_API=" + cluster.URL, "KUBERNETES_CA=" + cluster.CACert,
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v:\n%s\n%s", err, script, out)
		}
		return string(out)
	}
	var all strings.Builder
	for _, block := range fenced(t, guide, "sh") {
		all.WriteString(shell(block))
	}
	for _, want := range []string{
		"1 token in 1 sink", "logs in by approle, for 1h at a time, and is renewed", "logs in by kubernetes",
		"a push would work", "portal.token_id", "generation 2 is in every required sink",
	} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("nothing said %q:\n%s", want, all.String())
		}
	}
	token := shell("vault kv get -mount=apps -field=sitegpt_token portal")
	if !s.api.Alive(token) {
		t.Error("in the end, Vault holds no live token")
	}
	shell("vault kv delete -mount=apps portal; rotatord once; rotatord once")
	if shell("vault kv get -mount=apps -field=sitegpt_token portal") == "" {
		t.Error("a secret that was deleted is not filled again")
	}

	// What the default policy allows every token, and the logins, need no rule of the page.
	allowed := []string{
		"update auth/approle/login", "update auth/kubernetes/login", "update sys/wrapping/lookup", "update sys/wrapping/unwrap",
		"read auth/token/lookup-self", "update auth/token/renew-self", "update auth/token/revoke-self",
		"update sys/capabilities-self", "read sys/internal/ui/mounts/apps",
	}
	var rules []string
	for _, m := range regexp.MustCompile(`path "([^"]+)" \{\s+capabilities = \[([^\]]+)\]`).FindAllStringSubmatch(strings.Join(fenced(t, guide, "sh"), ""), -1) {
		for capability := range strings.SplitSeq(m[2], ",") {
			rules = append(rules, strings.Trim(capability, ` "`)+" "+m[1])
		}
	}
	used := requests(seen())
	for name, n := range used {
		if !slices.Contains(allowed, name) && !slices.Contains(rules, name) {
			t.Errorf("rotatord asked Vault %d times to %s, and the policy of the page has no such rule", n, name)
		}
	}
	for _, rule := range rules {
		if used[rule] == 0 {
			t.Errorf("the policy of the page allows to %s, and nothing asked for that", rule)
		}
	}
	for _, block := range fenced(t, guide, "yaml") {
		s.write("rotation.yaml", "version: 1\n"+block)
		if _, problems, err := config.Load(filepath.Join(s.dir, "rotation.yaml"), config.Options{}); err != nil || problems.Errors() > 0 {
			t.Errorf("%v %v:\n%s", err, problems, block)
		}
	}
}

// Nobody is refused by the policy of the page: a refusal in Vault's audit log wakes people.
func TestThePolicyOfTheGuideIsEnough(t *testing.T) {
	t.Parallel()
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", vaultRules, nil)
	s := vaultStage(t, vault, role, 1)
	seen := vault.Audit(t)
	s.run(exitOK, "once")
	s.run(exitOK, "rotate", "t0")
	vault.Must(t, http.MethodDelete, "secret/data/apps/t0", nil)
	s.run(exitOK, "once")
	for _, r := range seen() {
		if r.Refused && r.Operation != "read" { // of a secret that is not there, or was deleted
			t.Errorf("Vault refused %+v", r)
		}
	}
	if stored(t, vault, 0) == "" {
		t.Error("the secret is empty")
	}
}
