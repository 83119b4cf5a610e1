package vaultkv_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/sinks/vaultkv"
	"github.com/rotatord/rotatord/sinks/vaultkv/vaulttest"
)

// rules is the policy that docs/vault.md recommends, for every secret below team/.
const rules = `
path "secret/data/team/*"     { capabilities = ["create", "read", "update", "patch"] }
path "secret/metadata/team/*" { capabilities = ["read", "patch"] }
`

func appRole(a *vaulttest.AppRole) *vaultkv.Auth {
	return &vaultkv.Auth{AppRole: &vaultkv.AppRole{
		RoleID: field.SecretRef{File: a.RoleIDFile}, SecretID: field.SecretRef{File: a.SecretIDFile},
	}}
}

// connect returns a client with a login of its own.
func connect(t *testing.T, s *vaulttest.Server, auth *vaultkv.Auth) *vaultkv.Client {
	t.Helper()
	c, err := vaultkv.Dial("", vaultkv.Connection{Address: s.Address, CACert: s.CACert, Auth: auth}, world(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func team(client *vaultkv.Client, path string) *vaultkv.Sink {
	return open(client, vaultkv.Config{Mount: "secret", Path: "team/" + path})
}

// count returns how many of the requests are of this operation and path.
func count(requests []vaulttest.Request, operation, path string) (n int) {
	for _, r := range requests {
		if ok, _ := filepath.Match(path, r.Path); ok && r.Operation == operation {
			n++
		}
	}
	return n
}

// Logins that last for seconds: they are renewed while they can be, and made again when they
// cannot, and no push notices.
func TestAShortLogin(t *testing.T) {
	vault := vaulttest.Start(t)
	seen := vault.Audit(t)
	role := vault.AppRole(t, "approle", rules, map[string]any{"token_ttl": "1s", "token_max_ttl": "3s"})
	s := team(connect(t, vault, appRole(role)), "app")
	var all []vaulttest.Request
	for n := 0; count(all, "update", "auth/approle/login") < 3; n++ {
		if err := s.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		token := fmt.Sprintf("sgpt_%d", n)
		if err := push(t, s, token); err != nil {
			t.Fatal(err)
		}
		holds(t, s, token)
		time.Sleep(200 * time.Millisecond) // the life of a login is real time
		if all = append(all, seen()...); n > 300 {
			t.Fatal("the login lives for ever")
		}
	}
	if n := count(all, "update", "auth/token/renew-self"); n < 2 {
		t.Errorf("%d renewals, want one at least for each login", n)
	}
}

// A login that an operator revokes between preflight and push is one new login, and no failure.
func TestARevokedLogin(t *testing.T) {
	for _, kind := range []string{"service", "batch"} {
		t.Run(kind, func(t *testing.T) {
			vault := vaulttest.Start(t)
			role := vault.AppRole(t, "approle", rules, map[string]any{"token_type": kind})
			client := connect(t, vault, appRole(role))
			seen := vault.Audit(t)
			for round := range 3 {
				s := team(client, "app")
				if err := s.Check(t.Context()); err != nil {
					t.Fatal(err)
				}
				if kind == "service" {
					role.Revoke(t)
				}
				if err := push(t, s, fmt.Sprintf("sgpt_%d", round)); err != nil {
					t.Fatal(err)
				}
				holds(t, s, fmt.Sprintf("sgpt_%d", round))
			}
			want := 4 // the first, and one for each that was revoked
			if kind == "batch" {
				want = 1
			}
			if n := count(seen(), "update", "auth/approle/login"); n != want {
				t.Errorf("%d logins, want %d", n, want)
			}
		})
	}
}

// A policy that denies is no reason to log in again.
func TestADenialIsNoReasonToLogIn(t *testing.T) {
	vault := vaulttest.Start(t)
	for _, noDefault := range []bool{false, true} { // without it, the token may not ask about itself
		mount := fmt.Sprintf("approle-%v", noDefault)
		role := vault.AppRole(t, mount, `path "secret/data/team/app" { capabilities = ["read"] }`, map[string]any{"token_no_default_policy": noDefault})
		auth := appRole(role)
		auth.AppRole.Mount = mount
		s := team(connect(t, vault, auth), "app")
		seen := map[bool]func() []vaulttest.Request{}
		if !noDefault {
			seen[noDefault] = vault.Audit(t)
			defer func() {
				if n := count(seen[false](), "update", "auth/*/login"); n != 2 {
					t.Errorf("%d logins of two roles that were denied, want 2", n)
				}
			}()
		}
		for range 3 {
			if err := push(t, s, "sgpt_one"); err == nil || !strings.Contains(err.Error(), "this policy would do") {
				t.Errorf("%v; want the policy", err)
			}
		}
	}
}

// A thousand sinks whose login is refused make one login, and each says why.
func TestARefusedLoginMakesNoStorm(t *testing.T) {
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", rules, nil)
	good, err := os.ReadFile(role.SecretIDFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(role.SecretIDFile, []byte("00000000-canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	client := connect(t, vault, appRole(role))
	seen := vault.Audit(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	texts := map[string]int{}
	for i := range 1000 {
		s := team(client, fmt.Sprint(i))
		wg.Go(func() {
			err := s.Check(t.Context())
			var out *rotator.OutageError
			mu.Lock()
			defer mu.Unlock()
			if !errors.As(err, &out) {
				t.Errorf("%v; want an outage, since all sinks share it", err)
				return
			}
			texts[out.Error()]++
		})
	}
	wg.Wait()
	if n := count(seen(), "update", "auth/approle/login"); n > 3 { // a second has passed, perhaps
		t.Errorf("%d logins", n)
	}
	want := "vault: POST auth/approle/login: 400 invalid role or secret ID: look at role_id and secret_id: a secret id expires"
	for _, text := range slices.Collect(maps.Keys(texts)) {
		if !strings.HasPrefix(text, want) || strings.Contains(text, "canary") {
			t.Errorf("got  %s\nwant %s", text, want)
		}
	}
	if err := os.WriteFile(role.SecretIDFile, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := team(client, "1").Check(t.Context()); err != nil {
		t.Errorf("with another secret id, at once: %v", err)
	}
}

func TestAWrappedSecretID(t *testing.T) {
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", rules, nil)
	auth := appRole(role)
	auth.AppRole.Wrapped = true
	role.WrapSecretID(t)
	client := connect(t, vault, auth)
	seen := vault.Audit(t)
	s := team(client, "app")
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	role.Revoke(t) // the wrapping token is spent, and the secret id still known
	if err := push(t, s, "sgpt_two"); err != nil {
		t.Fatal(err)
	}
	requests := seen()
	if n := count(requests, "update", "sys/wrapping/unwrap"); n != 1 {
		t.Errorf("%d times unwrapped, want 1", n)
	}
	if n := count(requests, "update", "auth/approle/login"); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}

	other := connect(t, vault, auth) // as after a restart
	if err := team(other, "app").Check(t.Context()); err == nil || !strings.Contains(err.Error(), "was used already, or has expired: deliver a new one") {
		t.Errorf("a spent wrapping token: %v", err)
	}
	role.WrapSecretID(t)
	if err := team(other, "app").Check(t.Context()); err != nil {
		t.Errorf("a new wrapping token: %v", err)
	}
	role.Wrap(t, http.MethodGet, "auth/approle/role/rotatord")
	if err := team(connect(t, vault, auth), "app").Check(t.Context()); err == nil || !strings.Contains(err.Error(), "the wrapping token was made by auth/approle/role/rotatord, and not by") {
		t.Errorf("a wrapping token of something else: %v", err)
	}
}

// The one who asked for the login goes away while the wrapping token is exchanged: what was in it is
// not lost with them.
func TestAWrappedSecretIDOutlivesWhoAsked(t *testing.T) {
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", rules, nil)
	auth := appRole(role)
	auth.AppRole.Wrapped = true
	role.WrapSecretID(t)
	ctx, cancel := context.WithCancel(t.Context())
	target, err := url.Parse(vault.Address)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		if strings.HasSuffix(r.In.URL.Path, "/sys/wrapping/unwrap") {
			r.Out = r.Out.WithContext(t.Context()) // the request has left, and is not taken back
			cancel()
			time.Sleep(100 * time.Millisecond)
		}
	}})
	t.Cleanup(front.Close)
	client, err := vaultkv.Dial("", vaultkv.Connection{Address: front.URL, Auth: auth}, world(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := team(client, "app").Check(ctx); err == nil {
		t.Fatal("the one who asked is still there")
	}
	if err := team(client, "app").Check(t.Context()); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func TestJWT(t *testing.T) {
	vault := vaulttest.Start(t)
	sign := vault.JWT(t, rules)
	path := filepath.Join(t.TempDir(), "jwt")
	auth := &vaultkv.Auth{JWT: &vaultkv.JWT{Role: "rotatord", Token: field.SecretRef{File: path}}}
	sign(path, "rotatord", time.Hour)
	s := team(connect(t, vault, auth), "app")
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	holds(t, s, "sgpt_one")
	for what, bad := range map[string]func(){
		"somebody else's": func() { sign(path, "somebody", time.Hour) },
		"an expired one":  func() { sign(path, "rotatord", -time.Hour) },
	} {
		bad()
		err := team(connect(t, vault, auth), "app").Check(t.Context())
		if err == nil || !strings.Contains(err.Error(), "look at auth/jwt/role/rotatord (bound_audiences") || !strings.Contains(err.Error(), "POST auth/jwt/login: 400") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestKubernetes(t *testing.T) {
	vault := vaulttest.Start(t)
	cluster := vault.Kubernetes(t, rules)
	path := filepath.Join(t.TempDir(), "token")
	auth := &vaultkv.Auth{Kubernetes: &vaultkv.Kubernetes{Role: "rotatord", TokenFile: path}}
	cluster.Account(t, path, "tokens", "rotatord")
	client := connect(t, vault, auth)
	s := team(client, "app")
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	holds(t, s, "sgpt_one")

	cluster.Account(t, path, "tokens", "rotatord") // the kubelet replaces it every hour
	vault.Must(t, http.MethodPut, "sys/leases/revoke-prefix/auth/kubernetes", nil)
	if err := push(t, s, "sgpt_two"); err != nil {
		t.Errorf("with a new service account token: %v", err)
	}
	cluster.Account(t, path, "default", "default")
	err := team(connect(t, vault, auth), "app").Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does it bind this pod's service account and namespace?") {
		t.Errorf("another service account: %v", err)
	}
}

// What nobody uses any more ends in Vault, too.
func TestCloseEndsTheLogin(t *testing.T) {
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", rules, nil)
	client := connect(t, vault, appRole(role))
	s := team(client, "app")
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	seen := vault.Audit(t)
	client.Close()
	if n := count(seen(), "update", "auth/token/revoke-self"); n != 1 {
		t.Errorf("%d logins were ended, want 1", n)
	}
	holds(t, s, "sgpt_one")
}

// A token that is given is kept alive, as long as it lets itself be.
func TestAGivenTokenIsRenewed(t *testing.T) {
	vault := vaulttest.Start(t)
	seen := vault.Audit(t)
	vault.Must(t, http.MethodPut, "sys/policies/acl/team", map[string]any{"policy": rules})
	out := vault.Must(t, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"team"}, "period": "2s"})
	s := team(dial(t, vault, out["auth"].(map[string]any)["client_token"].(string)), "app")
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	for n, tries := 0, 0; n < 4; tries++ { // four renewals are more than two lives
		time.Sleep(100 * time.Millisecond)
		if n += count(seen(), "update", "auth/token/renew-self"); tries > 300 {
			t.Fatalf("%d renewals", n)
		}
	}
	holds(t, s, "sgpt_one")
}

// An agent in between has a token of its own, and we need none.
func TestAnAgentWithATokenOfItsOwn(t *testing.T) {
	vault := vaulttest.Start(t)
	target, err := url.Parse(vault.Address)
	if err != nil {
		t.Fatal(err)
	}
	its := vault.Root
	agent := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Set("X-Vault-Token", its)
	}}
	srv := httptest.NewServer(agent)
	t.Cleanup(srv.Close)
	client, err := vaultkv.Dial("", vaultkv.Connection{}, world(map[string]string{"VAULT_AGENT_ADDR": srv.URL, "VAULT_ADDR": "http://127.0.0.1:1"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := team(client, "app")
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	holds(t, s, "sgpt_one")
	// What its policy denies is no outage, and no want of a token of ours.
	its = vault.Token(t, `path "secret/data/team/other" { capabilities = ["read"] }`, true)
	out := (*rotator.OutageError)(nil)
	if err := team(client, "denied").Check(t.Context()); err == nil || errors.As(err, &out) || !strings.Contains(err.Error(), "this policy would do") {
		t.Errorf("a denial by the agent's own policy: %v", err)
	}
	if err := team(dial(t, vault, ""), "app").Check(t.Context()); err == nil || !strings.Contains(err.Error(), "no token: set token_file or auth") {
		t.Errorf("no token, and no agent: %v", err)
	}
}

func TestClientCertificates(t *testing.T) {
	vault := vaulttest.Start(t, vaulttest.ClientCerts())
	for _, tt := range []struct {
		name string
		c    vaultkv.Connection
		want string
	}{
		{"all", vaultkv.Connection{CACert: vault.CACert, ClientCert: vault.ClientCert, ClientKey: vault.ClientKey}, ""},
		{"a name of the certificate", vaultkv.Connection{CACert: vault.CACert, ClientCert: vault.ClientCert, ClientKey: vault.ClientKey, TLSServerName: "localhost"}, ""},
		{"none of ours", vaultkv.Connection{CACert: vault.CACert}, "set client_cert and client_key"},
		{"an authority nobody knows", vaultkv.Connection{}, "set ca_cert to the PEM file of the authority"},
		{"another name", vaultkv.Connection{CACert: vault.CACert, ClientCert: vault.ClientCert, ClientKey: vault.ClientKey, TLSServerName: "vault.test"}, "use a name of the certificate in address, or set tls_server_name"},
		{"http", vaultkv.Connection{Address: strings.Replace(vault.Address, "https:", "http:", 1)}, "the server speaks https, and the address says http"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.c.Address == "" {
				tt.c.Address = vault.Address
			}
			client, err := vaultkv.Dial("", tt.c, world(map[string]string{"VAULT_TOKEN": vault.Root}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			err = team(client, "app").Check(t.Context())
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v; want %q", err, tt.want)
			}
		})
	}
}

// A standby sends us on to the active node, and takes over when that is sealed.
func TestAStandbyTakesOver(t *testing.T) {
	vault := vaulttest.Start(t, vaulttest.Standby())
	client, err := vaultkv.Dial("", vaultkv.Connection{Address: vault.Standby}, world(map[string]string{"VAULT_TOKEN": vault.Root}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := team(client, "app")
	if err := push(t, s, "sgpt_one"); err != nil {
		t.Fatal(err)
	}
	holds(t, s, "sgpt_one")
	vault.Seal(t)
	for try := 0; ; try++ {
		if err = push(t, s, "sgpt_two"); err == nil {
			break
		}
		if out := (*rotator.OutageError)(nil); !errors.As(err, &out) || try > 300 {
			t.Fatalf("no active node: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	holds(t, s, "sgpt_two")
}

// Namespaces are Enterprise: that they are asked for is all that can be seen here.
func TestTheNamespaceIsAskedFor(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]string{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.URL.Path] = r.Header.Get("X-Vault-Namespace")
		if strings.HasSuffix(r.URL.Path, "/login") {
			fmt.Fprint(w, `{"auth":{"client_token":"hvs.x","lease_duration":3600}}`)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[]}`)
	}))
	t.Cleanup(srv.Close)
	role := filepath.Join(t.TempDir(), "role")
	if err := os.WriteFile(role, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	auth := &vaultkv.Auth{AppRole: &vaultkv.AppRole{RoleID: field.SecretRef{File: role}, SecretID: field.SecretRef{File: role}}}
	client, err := vaultkv.Dial("", vaultkv.Connection{Address: srv.URL, Namespace: "team/a", Auth: auth}, world(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := open(client, vaultkv.Config{Mount: "secret", Path: "app", KVVersion: 2}).Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, path := range []string{"/v1/auth/approle/login", "/v1/secret/data/app"} {
		if asked[path] != "team/a" {
			t.Errorf("%s was asked for in %q", path, asked[path])
		}
	}
}

func TestAnAuthMethodThatIsNotThere(t *testing.T) {
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", rules, nil)
	auth := appRole(role)
	auth.AppRole.Mount = "elsewhere"
	if err := team(connect(t, vault, auth), "app").Check(t.Context()); err == nil || !strings.Contains(err.Error(), "no auth method is mounted at elsewhere") {
		t.Errorf("%v", err)
	}
	auth.AppRole.Mount, auth.AppRole.SecretID.File = "", filepath.Join(t.TempDir(), "gone")
	if err := team(connect(t, vault, auth), "app").Check(t.Context()); err == nil || !strings.Contains(err.Error(), "vault: log in by approle: secret_id: ") {
		t.Errorf("%v", err)
	}
}

func TestValidateAuth(t *testing.T) {
	ref := field.SecretRef{File: "x"}
	for _, tt := range []struct {
		name string
		a    vaultkv.Auth
		want string
	}{
		{"approle", vaultkv.Auth{AppRole: &vaultkv.AppRole{RoleID: ref, SecretID: ref, Mount: "team/approle"}}, ""},
		{"none", vaultkv.Auth{}, "[auth] names no method: it needs one of approle, kubernetes, jwt; a token needs no auth, but token_file or VAULT_TOKEN"},
		{"two", vaultkv.Auth{Kubernetes: &vaultkv.Kubernetes{Role: "r"}, JWT: &vaultkv.JWT{Role: "r", Token: ref}}, "[auth] names kubernetes and jwt: one connection has one login"},
		{"nothing in it", vaultkv.Auth{AppRole: &vaultkv.AppRole{}}, "[auth approle role_id] needs exactly one of file, credential and env\n[auth approle secret_id] needs exactly one of file, credential and env"},
		{"wrapped in the environment", vaultkv.Auth{AppRole: &vaultkv.AppRole{RoleID: ref, SecretID: field.SecretRef{Env: "X"}, Wrapped: true}}, "[auth approle wrapped] needs a secret_id from a file: a wrapping token works once, and has to be replaced"},
		{"a mount of the API", vaultkv.Auth{Kubernetes: &vaultkv.Kubernetes{Mount: "auth/k"}}, "[auth kubernetes mount] begins with auth/, which is added where it is needed\n[auth kubernetes role] is missing: the role of the auth method in Vault"},
		{"no mount", vaultkv.Auth{JWT: &vaultkv.JWT{Mount: "a//b", Role: "r", Token: ref}}, `[auth jwt mount] "a//b" is no mount of an auth method: write it like approle, without auth/`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := field.New()
			c := vaultkv.Connection{Auth: &tt.a}
			c.Resolve("/etc/rotatord")
			c.Validate(p)
			var got []string
			for _, problem := range p.List() {
				got = append(got, fmt.Sprintf("%v %s", problem.Path, problem.Text))
			}
			if strings.Join(got, "\n") != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), tt.want)
			}
		})
	}
	both := vaultkv.Connection{TokenFile: "t", Auth: &vaultkv.Auth{AppRole: &vaultkv.AppRole{RoleID: ref, SecretID: ref}}}
	p := field.New()
	both.Resolve("/etc/rotatord")
	both.Validate(p)
	if len(p.List()) != 1 || both.Auth.AppRole.RoleID.File != "/etc/rotatord/x" {
		t.Errorf("%v, %+v", p.List(), both.Auth.AppRole)
	}
}

// A token that may not look at itself is denied something, again and again, long after its login: one
// login is made on the chance that it is dead, and no more.
func TestADenialThatNobodyExplainsMakesNoStorm(t *testing.T) {
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", `path "secret/data/team/app" { capabilities = ["read"] }`, map[string]any{"token_no_default_policy": true})
	var later atomic.Int64
	w := world(nil)
	w.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	client, err := vaultkv.Dial("", vaultkv.Connection{Address: vault.Address, CACert: vault.CACert, Auth: appRole(role)}, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := team(client, "app")
	seen := vault.Audit(t)
	for range 8 {
		if err := push(t, s, "sgpt_one"); err == nil || !strings.Contains(err.Error(), "this policy would do") {
			t.Errorf("%v; want the policy", err)
		}
		later.Add(int64(10 * time.Second))
	}
	if n := count(seen(), "update", "auth/*/login"); n > 2 {
		t.Errorf("%d logins for eight denials", n)
	}
}
