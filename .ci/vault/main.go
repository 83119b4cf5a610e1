// Command minivault serves a real HashiCorp Vault core over HTTP(S): the token store, KV v1/v2,
// AppRole, userpass, policies, audit-file and the whole sys/ API, without the cloud plugins.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	hclog "github.com/hashicorp/go-hclog"
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
	listen := flag.String("listen", "127.0.0.1:8200", "address")
	cert := flag.String("tls-cert", "", "PEM")
	key := flag.String("tls-key", "", "PEM")
	dir := flag.String("dir", "", "storage folder (default: memory)")
	dev := flag.Bool("dev", false, "initialise, unseal and mount KV v2 at secret/")
	root := flag.String("dev-root-token-id", "root", "root token with -dev")
	level := flag.String("log-level", "warn", "log level")
	leash := flag.Bool("leash", false, "exit when standard input ends: dies with the test that started it")
	flag.Parse()
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.LevelFromString(*level)})

	var phys physical.Backend
	var err error
	if *dir == "" {
		phys, err = inmem.NewInmem(nil, logger)
	} else {
		phys, err = file.NewFileBackend(map[string]string{"path": *dir}, logger)
	}
	fatal(err)
	secrets := map[string]logical.Factory{"kv": kv.Factory}
	creds := map[string]logical.Factory{"approle": approle.Factory, "userpass": userpass.Factory}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical: phys, Logger: logger, DisableMlock: true,
		LogicalBackends: secrets, CredentialBackends: creds,
		AuditBackends: map[string]audit.Factory{"file": audit.NewFileBackend},
		BuiltinRegistry: registry{map[consts.PluginType]map[string]logical.Factory{
			consts.PluginTypeSecrets: secrets, consts.PluginTypeCredential: creds,
		}},
	})
	fatal(err)
	h := vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core: core, ListenerConfig: &configutil.Listener{MaxRequestDuration: 30 * time.Second, MaxRequestSize: 1 << 20},
	})
	if *dev {
		fatal(devInit(core, *root))
	}
	ln, err := net.Listen("tcp", *listen)
	fatal(err)
	scheme := "http"
	if *cert != "" {
		c, err := tls.LoadX509KeyPair(*cert, *key)
		fatal(err)
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{"h2", "http/1.1"}})
		scheme = "https"
	}
	srv := &http.Server{Handler: h}
	go func() {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
		if *leash {
			go func() {
				_, _ = io.Copy(io.Discard, os.Stdin)
				c <- syscall.SIGTERM
			}()
		}
		<-c
		_ = srv.Close()
	}()
	fmt.Printf("minivault ready on %s://%s\n", scheme, ln.Addr())
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		fatal(err)
	}
	fatal(core.Shutdown())
}

func devInit(core *vault.Core, root string) error {
	ctx := namespace.ContextWithNamespace(context.Background(), namespace.RootNamespace)
	sc := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1, Name: "shamir"}
	res, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: sc})
	if err != nil {
		return err
	}
	fmt.Printf("unseal key: %x\n", res.SecretShares[0])
	if ok, err := core.Unseal(append([]byte(nil), res.SecretShares[0]...)); err != nil || !ok {
		return fmt.Errorf("unseal: %v %v", ok, err)
	}
	do := func(path string, data map[string]interface{}) error {
		_, err := core.HandleRequest(ctx, &logical.Request{
			ID: "dev", Operation: logical.UpdateOperation,
			ClientToken: res.RootToken, Path: path, Data: data,
		})
		return err
	}
	if err := do("auth/token/create", map[string]interface{}{"id": root, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true}); err != nil {
		return err
	}
	return do("sys/mounts/secret", map[string]interface{}{"type": "kv", "path": "secret/", "options": map[string]string{"version": "2"}})
}

func fatal(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
