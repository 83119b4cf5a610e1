package vaulttest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// AppRole is a role of the AppRole method, and files with its credentials, as a host has them.
type AppRole struct {
	RoleIDFile, SecretIDFile string

	server *Server
	mount  string
}

// AppRole mounts the AppRole method at mount, with a role named rotatord that has this policy
// (HCL), and the further settings of the role.
func (s *Server) AppRole(t testing.TB, mount, policy string, role map[string]any) *AppRole {
	t.Helper()
	s.Must(t, http.MethodPost, "sys/auth/"+mount, map[string]any{"type": "approle"})
	s.role(t, mount, policy, role)
	dir := t.TempDir()
	a := &AppRole{server: s, mount: mount, RoleIDFile: filepath.Join(dir, "role-id"), SecretIDFile: filepath.Join(dir, "secret-id")}
	write(t, a.RoleIDFile, text(s.Must(t, http.MethodGet, "auth/"+mount+"/role/rotatord/role-id", nil), "data", "role_id"))
	a.NewSecretID(t)
	return a
}

// NewSecretID puts a new secret id into the file.
func (a *AppRole) NewSecretID(t testing.TB) {
	t.Helper()
	out := a.server.Must(t, http.MethodPost, "auth/"+a.mount+"/role/rotatord/secret-id", map[string]any{})
	write(t, a.SecretIDFile, text(out, "data", "secret_id"))
}

// Wrap puts the answer to a request into the file, wrapped: that of a new secret id, or of another one.
func (a *AppRole) Wrap(t testing.TB, method, path string) {
	t.Helper()
	out := a.server.wrapped(t, method, path)
	write(t, a.SecretIDFile, text(out, "wrap_info", "token"))
}

// WrapSecretID puts a wrapped secret id into the file.
func (a *AppRole) WrapSecretID(t testing.TB) {
	t.Helper()
	a.Wrap(t, http.MethodPost, "auth/"+a.mount+"/role/rotatord/secret-id")
}

// Revoke ends every login of the role, as an operator does who suspects one.
func (a *AppRole) Revoke(t testing.TB) {
	t.Helper()
	a.server.Must(t, http.MethodPut, "sys/leases/revoke-prefix/auth/"+a.mount, nil)
}

// JWT mounts the JWT method at jwt, with a role named rotatord that has this policy, and returns
// what writes a token for it into a file: of this subject, and valid for so long.
func (s *Server) JWT(t testing.TB, policy string) (sign func(path, subject string, valid time.Duration)) {
	t.Helper()
	key := newKey(t)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	s.Must(t, http.MethodPost, "sys/auth/jwt", map[string]any{"type": "jwt"})
	s.Must(t, http.MethodPost, "auth/jwt/config", map[string]any{
		"jwt_validation_pubkeys": []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
	})
	s.role(t, "jwt", policy, map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_subject": "rotatord", "bound_audiences": []string{"vault"}})
	return func(path, subject string, valid time.Duration) {
		t.Helper()
		now := time.Now()
		write(t, path, Sign(t, key, map[string]any{
			"sub": subject, "aud": "vault", "iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(valid).Unix(),
		}))
	}
}

// Cluster is a stand-in of a Kubernetes API server: it answers token reviews.
type Cluster struct {
	URL, CACert string // CACert is a PEM file

	key *ecdsa.PrivateKey

	mu       sync.Mutex
	accounts map[string][2]string
}

// Kubernetes starts a cluster.
func Kubernetes(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{key: newKey(t), accounts: map[string][2]string{}}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct {
				Token string `json:"token"`
			} `json:"spec"`
		}
		if r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || json.NewDecoder(r.Body).Decode(&review) != nil {
			http.NotFound(w, r)
			return
		}
		status := map[string]any{"authenticated": false, "error": "no such token"}
		c.mu.Lock()
		a, ok := c.accounts[review.Spec.Token]
		c.mu.Unlock()
		if ok {
			status = map[string]any{"authenticated": true, "audiences": []string{"vault"}, "user": map[string]any{
				"username": "system:serviceaccount:" + a[0] + ":" + a[1], "uid": "uid-" + a[1],
				"groups": []string{"system:serviceaccounts", "system:serviceaccounts:" + a[0], "system:authenticated"},
			}}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status})
	}))
	t.Cleanup(srv.Close)
	c.URL, c.CACert = srv.URL, filepath.Join(t.TempDir(), "cluster.pem")
	write(t, c.CACert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	return c
}

// Account writes the token of a service account into a file, as the kubelet does.
func (c *Cluster) Account(t testing.TB, path, namespace, name string) {
	t.Helper()
	now := time.Now()
	token := Sign(t, c.key, map[string]any{
		"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:" + namespace + ":" + name,
		"aud": []string{"vault"}, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": namespace, "serviceaccount": map[string]string{"name": name, "uid": "uid-" + name}},
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accounts[token] = [2]string{namespace, name}
	write(t, path, token)
}

// Kubernetes mounts the Kubernetes method at kubernetes, with a role named rotatord that has this
// policy and binds the service account rotatord in the namespace tokens of a cluster.
func (s *Server) Kubernetes(t testing.TB, policy string) *Cluster {
	t.Helper()
	c := Kubernetes(t)
	ca, err := os.ReadFile(c.CACert)
	if err != nil {
		t.Fatal(err)
	}
	s.Must(t, http.MethodPost, "sys/auth/kubernetes", map[string]any{"type": "kubernetes"})
	s.Must(t, http.MethodPost, "auth/kubernetes/config", map[string]any{
		"kubernetes_host": c.URL, "disable_local_ca_jwt": true, "kubernetes_ca_cert": string(ca),
	})
	s.role(t, "kubernetes", policy, map[string]any{
		"bound_service_account_names": "rotatord", "bound_service_account_namespaces": "tokens", "audience": "vault",
	})
	return c
}

// role makes the role rotatord of an auth method, with a policy of its own.
func (s *Server) role(t testing.TB, mount, policy string, settings map[string]any) {
	t.Helper()
	name := "of-" + mount
	s.Must(t, http.MethodPut, "sys/policies/acl/"+name, map[string]any{"policy": policy})
	role := map[string]any{"token_policies": []string{name}, "token_ttl": "1h"}
	maps.Copy(role, settings)
	s.Must(t, http.MethodPost, "auth/"+mount+"/role/rotatord", role)
}

// Sign makes a JWT.
func Sign(t testing.TB, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	encode := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := encode(map[string]string{"alg": "ES256", "typ": "JWT"}) + "." + encode(claims)
	sum := sha256.Sum256([]byte(signed))
	r, sig, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	both := make([]byte, 64)
	r.FillBytes(both[:32])
	sig.FillBytes(both[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(both)
}

// text returns a string deep in an answer.
func text(answer map[string]any, path ...string) string {
	for _, p := range path[:len(path)-1] {
		answer, _ = answer[p].(map[string]any)
	}
	s, _ := answer[path[len(path)-1]].(string)
	return s
}

// write replaces a file as orchestrators do: by a rename.
func write(t testing.TB, path, text string) {
	t.Helper()
	if text == "" {
		t.Fatalf("vaulttest: nothing to write to %s", filepath.Base(path))
	}
	if err := os.WriteFile(path+".new", []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
