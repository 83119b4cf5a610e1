// Command minivault serves a real HashiCorp Vault core over HTTP(S): the token store, KV v1/v2,
// AppRole, JWT, Kubernetes and userpass logins, policies, audit-file and the whole sys/ API, without
// the cloud plugins. Called by the name vault, it stands in for Vault's command line.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/userpass"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

type registry struct {
	m map[consts.PluginType]map[string]logical.Factory
}

func (r registry) Contains(n string, t consts.PluginType) bool { _, ok := r.m[t][n]; return ok }
func (r registry) Get(n string, t consts.PluginType) (func() (interface{}, error), bool) {
	f, ok := r.m[t][n]
	return func() (interface{}, error) { return f, nil }, ok
}

func (r registry) Keys(t consts.PluginType) (ks []string) {
	for k := range r.m[t] {
		ks = append(ks, k)
	}
	return
}

func (r registry) DeprecationStatus(n string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(n, t)
}
func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func main() {
	if filepath.Base(os.Args[0]) == "vault" {
		os.Exit(cli(os.Args[1:]))
	}
	listen := flag.String("listen", "127.0.0.1:8200", "address")
	standby := flag.String("standby", "", "address of a second node, which is on standby while the first is unsealed")
	cert := flag.String("tls-cert", "", "PEM")
	key := flag.String("tls-key", "", "PEM")
	clientCA := flag.String("tls-client-ca", "", "PEM: demand a client certificate that it signed")
	dir := flag.String("dir", "", "storage folder (default: memory)")
	dev := flag.Bool("dev", false, "initialise, unseal and mount KV v2 at secret/")
	root := flag.String("dev-root-token-id", "root", "root token with -dev")
	level := flag.String("log-level", "warn", "log level")
	leash := flag.Bool("leash", false, "exit when standard input ends: dies with the test that started it")
	flag.Parse()
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.LevelFromString(*level)})

	conf, scheme := (*tls.Config)(nil), "http"
	if *cert != "" {
		conf, scheme = serverTLS(*cert, *key, *clientCA), "https"
	}
	open := func(address string) net.Listener {
		ln, err := net.Listen("tcp", address)
		fatal(err)
		return ln
	}
	ln := open(*listen)
	var phys physical.Backend
	var err error
	switch {
	case *standby != "":
		phys, err = inmem.NewInmemHA(nil, logger)
	case *dir == "":
		phys, err = inmem.NewInmem(nil, logger)
	default:
		phys, err = file.NewFileBackend(map[string]string{"path": *dir}, logger)
	}
	fatal(err)
	self := func(ln net.Listener) string { return scheme + "://" + ln.Addr().String() }
	core := newCore(phys, self(ln), logger)
	var unsealKey []byte
	if *dev {
		unsealKey, err = devInit(core, *root)
		fatal(err)
		fmt.Printf("unseal key: %x\n", unsealKey)
	}
	cores := []*vault.Core{core}
	servers := []*http.Server{serve(core, ln, conf)}
	if *standby != "" {
		ln := open(*standby)
		second := newCore(phys, self(ln), logger)
		if ok, err := second.Unseal(append([]byte(nil), unsealKey...)); err != nil || !ok {
			fatal(fmt.Errorf("unseal the second node: %v %v", ok, err))
		}
		cores, servers = append(cores, second), append(servers, serve(second, ln, conf))
		fmt.Printf("standby on %s\n", self(ln))
	}
	fmt.Printf("minivault ready on %s\n", self(ln))

	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	if *leash {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			c <- syscall.SIGTERM
		}()
	}
	<-c
	for i, core := range cores {
		_ = servers[i].Close()
		fatal(core.Shutdown())
	}
}

// newCore makes a node. One that shares phys with others is active or on standby; it is reached at
// the address self.
func newCore(phys physical.Backend, self string, logger hclog.Logger) *vault.Core {
	secrets := map[string]logical.Factory{"kv": kv.Factory}
	creds := map[string]logical.Factory{
		"approle": approle.Factory, "jwt": jwtauth.Factory, "kubernetes": kubernetes.Factory, "userpass": userpass.Factory,
	}
	c := &vault.CoreConfig{
		Physical: phys, Logger: logger, DisableMlock: true,
		LogicalBackends: secrets, CredentialBackends: creds,
		AuditBackends: map[string]audit.Factory{"file": audit.NewFileBackend},
		BuiltinRegistry: registry{map[consts.PluginType]map[string]logical.Factory{
			consts.PluginTypeSecrets: secrets, consts.PluginTypeCredential: creds,
		}},
	}
	if ha, ok := phys.(physical.HABackend); ok && ha.HAEnabled() {
		c.HAPhysical, c.RedirectAddr = ha, self
	}
	core, err := vault.NewCore(c)
	fatal(err)
	return core
}

// serve answers for a node until the server is closed.
func serve(core *vault.Core, ln net.Listener, conf *tls.Config) *http.Server {
	if conf != nil {
		ln = tls.NewListener(ln, conf)
	}
	srv := &http.Server{Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core: core, ListenerConfig: &configutil.Listener{MaxRequestDuration: 30 * time.Second, MaxRequestSize: 1 << 20},
	})}
	go func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			fatal(err)
		}
	}()
	return srv
}

func serverTLS(cert, key, clientCA string) *tls.Config {
	pair, err := tls.LoadX509KeyPair(cert, key)
	fatal(err)
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	if clientCA != "" {
		pem, err := os.ReadFile(clientCA)
		fatal(err)
		conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			fatal(errors.New("-tls-client-ca holds no certificate"))
		}
	}
	return conf
}

// devInit makes a node usable at once, and returns the key that unseals it.
func devInit(core *vault.Core, root string) ([]byte, error) {
	ctx := namespace.ContextWithNamespace(context.Background(), namespace.RootNamespace)
	sc := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1, Name: "shamir"}
	res, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: sc})
	if err != nil {
		return nil, err
	}
	unsealKey := res.SecretShares[0]
	if ok, err := core.Unseal(append([]byte(nil), unsealKey...)); err != nil || !ok {
		return nil, fmt.Errorf("unseal: %v %v", ok, err)
	}
	if err := active(core); err != nil {
		return nil, err
	}
	do := func(path string, data map[string]interface{}) error {
		_, err := core.HandleRequest(ctx, &logical.Request{
			ID: "dev", Operation: logical.UpdateOperation,
			ClientToken: res.RootToken, Path: path, Data: data,
		})
		return err
	}
	if err := do("auth/token/create", map[string]interface{}{"id": root, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true}); err != nil {
		return nil, err
	}
	return unsealKey, do("sys/mounts/secret", map[string]interface{}{"type": "kv", "path": "secret/", "options": map[string]string{"version": "2"}})
}

// active waits until a node that was unsealed has become the active one.
func active(core *vault.Core) error {
	for range 1000 {
		if standby, err := core.Standby(); err == nil && !standby {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("the node does not become active")
}

func fatal(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
