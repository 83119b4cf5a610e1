// Package vaulttest starts a real Vault for a test: Vault's own core, built by .ci/vault/build,
// unsealed, with KV version 2 mounted at secret/, on a port of its own. It ends with the test.
package vaulttest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Binary is the environment variable that names the server's binary.
const Binary = "ROTATORD_TEST_VAULT"

// Server is a running Vault.
type Server struct {
	Address   string // http://127.0.0.1:PORT, or https
	Standby   string // address of the second node; "" without one
	Root      string // a token that may do everything
	UnsealKey string // hexadecimal

	// PEM files that clients need; "" without TLS. The authority is a private one; the server asks for
	// the client's certificate only where ClientCerts is given.
	CACert, ClientCert, ClientKey string

	client *http.Client
}

// Option changes how a server is started.
type Option func(*options)

type options struct{ tls, clientCerts, standby bool }

// TLS makes the server speak https, with a certificate of a private authority for localhost and
// 127.0.0.1.
func TLS() Option { return func(o *options) { o.tls = true } }

// ClientCerts makes the server speak https with those alone who have a certificate of the authority.
func ClientCerts() Option { return func(o *options) { o.tls, o.clientCerts = true, true } }

// Standby starts a second node, which is on standby while the first one is unsealed.
func Standby() Option { return func(o *options) { o.standby = true } }

// Start starts a server and waits until it answers. Where its binary is not built, the test fails
// in CI, and is skipped elsewhere with the command that builds it.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	s := &Server{Root: "root", client: &http.Client{}}
	// The kernel chooses the port, and the address comes from our own process's output: nobody
	// else can be listening there.
	args := []string{"-dev", "-listen", "127.0.0.1:0", "-dev-root-token-id", s.Root, "-leash"}
	if o.tls {
		a := newAuthority(t)
		cert, key := a.issue(t, "server")
		s.CACert = a.file
		s.ClientCert, s.ClientKey = a.issue(t, "client")
		args = append(args, "-tls-cert", cert, "-tls-key", key)
		if o.clientCerts {
			args = append(args, "-tls-client-ca", s.CACert)
		}
		own, err := tls.LoadX509KeyPair(s.ClientCert, s.ClientKey)
		if err != nil {
			t.Fatal(err)
		}
		s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: a.pool, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12,
		}}
	}
	if o.standby {
		args = append(args, "-standby", "127.0.0.1:0")
	}

	cmd := exec.Command(binary(t), args...)
	leash, err := cmd.StdinPipe() // the server ends when this does, also when we are killed
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("vaulttest: %v", err)
	}
	ready := make(chan string, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(ready)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if key, ok := strings.CutPrefix(lines.Text(), "unseal key: "); ok {
				s.UnsealKey = key
			}
			if address, ok := strings.CutPrefix(lines.Text(), "standby on "); ok {
				s.Standby = address
			}
			if address, ok := strings.CutPrefix(lines.Text(), "minivault ready on "); ok {
				ready <- address
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = leash.Close()
		_ = cmd.Process.Kill()
		reading.Wait()
		_ = cmd.Wait()
		s.client.CloseIdleConnections()
		if t.Failed() {
			t.Logf("vaulttest: the server's log:\n%s", log.String())
		}
	})
	select {
	case s.Address = <-ready:
	case <-time.After(time.Minute):
	}
	if s.Address == "" {
		t.Fatalf("vaulttest: the server did not start:\n%s", log.String())
	}
	return s
}

// Seal seals the first node.
func (s *Server) Seal(t testing.TB) {
	t.Helper()
	s.Must(t, http.MethodPut, "sys/seal", nil)
}

// Unseal unseals the first node, and waits until it answers.
func (s *Server) Unseal(t testing.TB) {
	t.Helper()
	s.Must(t, http.MethodPut, "sys/unseal", map[string]any{"key": s.UnsealKey})
	for range 1000 {
		if status, _ := s.Do(t, http.MethodGet, "sys/health", nil); status == http.StatusOK {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("vaulttest: the server does not come back")
}

// Do sends a request as root and returns the answer's status and JSON body.
func (s *Server) Do(t testing.TB, method, path string, body any) (int, map[string]any) {
	t.Helper()
	return s.do(t, method, path, body, nil)
}

// wrapped sends a request whose answer Vault wraps.
func (s *Server) wrapped(t testing.TB, method, path string) map[string]any {
	t.Helper()
	status, out := s.do(t, method, path, nil, http.Header{"X-Vault-Wrap-Ttl": {"60"}})
	if status >= 300 {
		t.Fatalf("vaulttest: %s %s: %d %v", method, path, status, out["errors"])
	}
	return out
}

func (s *Server) do(t testing.TB, method, path string, body any, header http.Header) (int, map[string]any) {
	t.Helper()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.Address+"/v1/"+path, in)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	req.Header.Set("X-Vault-Token", s.Root)
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatalf("vaulttest: %s %s: %v", method, path, err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written
	var out map[string]any
	dec := json.NewDecoder(resp.Body)
	dec.UseNumber()
	if err := dec.Decode(&out); err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("vaulttest: %s %s: %v", method, path, err)
	}
	return resp.StatusCode, out
}

// Must is Do for a request that has to succeed.
func (s *Server) Must(t testing.TB, method, path string, body any) map[string]any {
	t.Helper()
	status, out := s.Do(t, method, path, body)
	if status >= 300 {
		t.Fatalf("vaulttest: %s %s: %d %v", method, path, status, out["errors"])
	}
	return out
}

// Mount mounts a KV engine of the given version.
func (s *Server) Mount(t testing.TB, path, version string) {
	t.Helper()
	s.Must(t, http.MethodPost, "sys/mounts/"+path, map[string]any{
		"type": "kv", "options": map[string]string{"version": version},
	})
}

// Token makes a token that has this policy (HCL) alone, and Vault's default policy where withDefault says so.
func (s *Server) Token(t testing.TB, policy string, withDefault bool) string {
	t.Helper()
	sum := sha256.Sum256([]byte(policy))
	name := "test-" + hex.EncodeToString(sum[:8])
	s.Must(t, http.MethodPut, "sys/policies/acl/"+name, map[string]any{"policy": policy})
	out := s.Must(t, http.MethodPost, "auth/token/create", map[string]any{
		"policies": []string{name}, "no_default_policy": !withDefault, "ttl": "1h",
	})
	auth, _ := out["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	if token == "" {
		t.Fatal("vaulttest: no token was made")
	}
	return token
}

// CLI returns a folder with the command vault in it, which knows what the documentation uses.
func CLI(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Symlink(binary(t), filepath.Join(dir, "vault")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// binary finds the server's binary, as .ci/vault/build leaves it.
func binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(Binary); path != "" {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	source := func() string { return filepath.Join(dir, ".ci", "vault") }
	all, err := os.ReadFile(filepath.Join(source(), "go.mod"))
	for err != nil && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		all, err = os.ReadFile(filepath.Join(source(), "go.mod"))
	}
	if err != nil {
		t.Fatal("vaulttest: .ci/vault is not above the test's folder")
	}
	files, err := filepath.Glob(filepath.Join(source(), "*.go")) // sorted, as the shell's
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		cache = filepath.Join(os.Getenv("HOME"), ".cache")
	}
	sum := sha256.Sum256(all)
	path := filepath.Join(cache, "rotatord-ci", "vault-"+hex.EncodeToString(sum[:])[:16], "minivault")
	if _, err := os.Stat(path); err != nil {
		const how = "the Vault server of the tests is not built: run .ci/vault/build (minutes and 3.4 GB of memory, once)"
		if os.Getenv("CI") == "true" {
			t.Fatal(how)
		}
		t.Skip(how) // so that make test needs Go alone; .ci/run builds it first
	}
	return path
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
