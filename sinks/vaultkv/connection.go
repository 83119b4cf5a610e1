package vaultkv

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
)

// DefaultTimeout bounds a request where neither the connection nor VAULT_CLIENT_TIMEOUT does.
const DefaultTimeout = 30 * time.Second

// Connection is how to reach one Vault: the vault block of rotation.yaml, or an item of vaults.
// What is absent comes from the VAULT_* variable of the same meaning. How often and how fast to
// ask Vault is rotatord's own affair, so VAULT_MAX_RETRIES and VAULT_RATE_LIMIT are not looked at.
type Connection struct {
	Address       string         `yaml:"address,omitempty"`         // VAULT_AGENT_ADDR, then VAULT_ADDR
	Namespace     string         `yaml:"namespace,omitempty"`       // VAULT_NAMESPACE
	CACert        string         `yaml:"ca_cert,omitempty"`         // a PEM file; VAULT_CACERT, VAULT_CACERT_BYTES, VAULT_CAPATH
	ClientCert    string         `yaml:"client_cert,omitempty"`     // a PEM file; VAULT_CLIENT_CERT
	ClientKey     string         `yaml:"client_key,omitempty"`      // a PEM file; VAULT_CLIENT_KEY
	TLSServerName string         `yaml:"tls_server_name,omitempty"` // VAULT_TLS_SERVER_NAME
	Timeout       field.Duration `yaml:"timeout,omitempty"`         // of one request; VAULT_CLIENT_TIMEOUT
	TokenFile     string         `yaml:"token_file,omitempty"`      // a token, as an agent's sink writes it; read for each request; VAULT_TOKEN
	Auth          *Auth          `yaml:"auth,omitempty"`            // or a login of rotatord's own
}

// Resolve makes relative paths relative to dir, the folder of the configuration.
func (c *Connection) Resolve(dir string) {
	for _, path := range []*string{&c.CACert, &c.ClientCert, &c.ClientKey, &c.TokenFile} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	if c.Auth != nil {
		auth := *c.Auth
		auth.resolve(dir)
		c.Auth = &auth
	}
}

// Validate reports what is wrong with c, as far as it can be told without the environment.
func (c *Connection) Validate(p field.Problems) {
	if c.Address != "" {
		if err := checkAddress(c.Address); err != nil {
			p.At("address").Errorf("%s", err)
		}
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		p.Errorf("client_cert and client_key come together")
	}
	if c.Auth != nil {
		c.Auth.validate(p.At("auth"))
		if c.TokenFile != "" {
			p.At("token_file").Errorf("gives a token, and auth a login: leave one of them out")
		}
	}
	if c.Namespace != strings.TrimSpace(c.Namespace) {
		p.At("namespace").Errorf("has blanks around it")
	}
}

func checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return errors.New("the address is no URL")
	case u.Scheme == "unix" && u.Path != "":
		return nil
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return errors.New("the address must be like https://vault.example.com:8200")
	case u.User != nil:
		return errors.New("the address must hold no user or password")
	}
	return nil
}

// World is what a client needs of the process around it.
type World struct {
	Getenv func(string) string // os.Getenv or a stand-in
	Now    func() time.Time
	// Peek is for who only looks: no wrapped secret id is used up, which could be done only once.
	Peek bool
	// Unwrapped is shared by all clients of a process. nil: the client remembers for itself.
	Unwrapped *Unwrapped
	// Observe is told how each request went, once it is over; may be nil. It must return at once.
	// connection is the name in vaults; "" is the default one.
	Observe func(connection, operation, outcome string, took time.Duration)
}

// Dial makes the client of one connection; all sinks of the connection share it. It sends nothing.
// name is the connection's in vaults; "" is the default one.
func Dial(name string, c Connection, w World) (*Client, error) {
	getenv := w.Getenv
	env := func(own string, names ...string) string {
		for _, name := range names {
			if own == "" {
				own = getenv(name)
			}
		}
		return own
	}
	address := env(c.Address, api.EnvVaultAgentAddr, api.EnvVaultAddress)
	if address == "" {
		return nil, errors.New("vault: no address: set address in the vault block, or VAULT_ADDR")
	}
	if err := checkAddress(address); err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	timeout, err := c.timeout(getenv)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	tlsConfig := &api.TLSConfig{
		CACert:        env(c.CACert, api.EnvVaultCACert),
		ClientCert:    env(c.ClientCert, api.EnvVaultClientCert),
		ClientKey:     env(c.ClientKey, api.EnvVaultClientKey),
		TLSServerName: env(c.TLSServerName, api.EnvVaultTLSServerName),
	}
	if tlsConfig.CACert == "" {
		tlsConfig.CACertBytes = []byte(getenv(api.EnvVaultCACertBytes))
		tlsConfig.CAPath = getenv(api.EnvVaultCAPath)
	}
	if v := getenv(api.EnvVaultSkipVerify); v != "" {
		if tlsConfig.Insecure, err = strconv.ParseBool(v); err != nil {
			return nil, fmt.Errorf("vault: %s must be true or false", api.EnvVaultSkipVerify)
		}
	}

	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, fmt.Errorf("vault: the VAULT_* environment: %w", config.Error)
	}
	config.Address, config.AgentAddress = address, ""
	config.MaxRetries = 0
	config.CheckRetry = neverRetry
	config.Limiter = nil
	config.Timeout = 0 // ours is in the context of each request
	if err := config.ConfigureTLS(tlsConfig); err != nil {
		return nil, fmt.Errorf("vault: TLS: %w", err)
	}
	vault, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	vault.ClearToken() // it was read from our environment; the token is ours to choose
	vault.ClearNamespace()
	if namespace := env(c.Namespace, api.EnvVaultNamespace); namespace != "" {
		vault.SetNamespace(namespace)
	}
	vault.SetWrappingLookupFunc(func(string, string) string { return "" }) // whatever VAULT_WRAP_TTL says
	if t, ok := config.HttpClient.Transport.(*http.Transport); ok {
		t.MaxConnsPerHost, t.MaxIdleConnsPerHost = maxConnections, maxConnections
	}
	config.HttpClient.Transport = capped{config.HttpClient.Transport}
	client := &Client{
		name: strings.TrimSpace("vault "+name) + " at " + address, vault: vault, http: config.HttpClient, timeout: timeout,
		now: w.Now, getenv: getenv, peek: w.Peek, unwrapped: cmp.Or(w.Unwrapped, &Unwrapped{}), locks: map[string]*keyLock{}, mounts: map[string]mount{},
	}
	if w.Observe != nil {
		client.observe = func(operation, outcome string, took time.Duration) { w.Observe(name, operation, outcome, took) }
	}
	client.session = newSession(client, c.Auth.method(), c.given(getenv))
	return client, nil
}

// maxConnections bounds the connections to one Vault, however many sinks it has.
const maxConnections = 16

// Unverified reports whether the environment switches the verification of certificates off.
func Unverified(getenv func(string) string) bool {
	off, err := strconv.ParseBool(getenv(api.EnvVaultSkipVerify))
	return err == nil && off
}

// given returns what reads the token that is given to rotatord; zero: none is, and who stands in
// front of Vault may have one.
func (c *Connection) given(getenv func(string) string) func() (rotator.Secret, error) {
	if c.TokenFile == "" {
		token := rotator.NewSecret(strings.TrimSpace(getenv(api.EnvVaultToken)))
		return func() (rotator.Secret, error) { return token, nil }
	}
	ref := field.SecretRef{File: c.TokenFile}
	return func() (rotator.Secret, error) {
		text, err := ref.Read(getenv)
		if err != nil {
			return rotator.Secret{}, fmt.Errorf("vault: token_file: %w", err)
		}
		return rotator.NewSecret(text), nil
	}
}

func (c *Connection) timeout(getenv func(string) string) (time.Duration, error) {
	if c.Timeout > 0 {
		return time.Duration(c.Timeout), nil
	}
	v := getenv(api.EnvVaultClientTimeout)
	if v == "" {
		return DefaultTimeout, nil
	}
	if n, err := strconv.ParseUint(v, 10, 31); err == nil { // Vault's own clients read a bare number as seconds
		v = strconv.FormatUint(n, 10) + "s"
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s must be a number of seconds, or a duration like 30s", api.EnvVaultClientTimeout)
	}
	return d, nil
}

// capped ends a response body that no Vault would send.
type capped struct{ http.RoundTripper }

func (c capped) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	if resp != nil && resp.Body != nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxBody)
	}
	return resp, err
}

// CloseIdleConnections lets http.Client reach the transport inside.
func (c capped) CloseIdleConnections() {
	if t, ok := c.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
