package vaultkv

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
)

// Auth is how rotatord logs in at one Vault. At most one of its fields is set; where none is, the
// token is that of token_file or VAULT_TOKEN, or a Vault agent in between has one of its own.
type Auth struct {
	AppRole    *AppRole    `yaml:"approle,omitempty"`    // a role id and a secret id
	Kubernetes *Kubernetes `yaml:"kubernetes,omitempty"` // the pod's service account
	JWT        *JWT        `yaml:"jwt,omitempty"`        // a signed token, as CI systems and SPIFFE issue them
}

// AppRole logs in with a role id and a secret id.
type AppRole struct {
	Mount    string          `yaml:"mount,omitempty"`   // of the auth method; the default is approle
	RoleID   field.SecretRef `yaml:"role_id"`           // read at each login
	SecretID field.SecretRef `yaml:"secret_id"`         // read at each login
	Wrapped  bool            `yaml:"wrapped,omitempty"` // secret_id holds a wrapping token: it is unwrapped once, and the secret id stays in memory
}

// Kubernetes logs in as the service account of the pod.
type Kubernetes struct {
	Mount     string `yaml:"mount,omitempty"`      // of the auth method; the default is kubernetes
	Role      string `yaml:"role"`                 // of the auth method: it binds the service account
	TokenFile string `yaml:"token_file,omitempty"` // read at each login; the default is where Kubernetes mounts it
}

// JWT logs in with a signed token from a file that somebody else keeps fresh.
type JWT struct {
	Mount string          `yaml:"mount,omitempty"` // of the auth method; the default is jwt
	Role  string          `yaml:"role"`            // of the auth method: it says which tokens it takes
	Token field.SecretRef `yaml:"token"`           // read at each login
}

const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path

var mountShape = regexp.MustCompile(`^[^/\s#?*]+(/[^/\s#?*]+)*$`)

// resolve makes relative paths relative to dir.
func (a *Auth) resolve(dir string) {
	if r := a.AppRole; r != nil {
		c := *r // the blocks may be shared with who keeps the file as it was
		c.RoleID.File, c.SecretID.File = field.Absolute(dir, c.RoleID.File), field.Absolute(dir, c.SecretID.File)
		a.AppRole = &c
	}
	if r := a.Kubernetes; r != nil {
		c := *r
		c.TokenFile = field.Absolute(dir, c.TokenFile)
		a.Kubernetes = &c
	}
	if r := a.JWT; r != nil {
		c := *r
		c.Token.File = field.Absolute(dir, c.Token.File)
		a.JWT = &c
	}
}

func (a *Auth) validate(p field.Problems) {
	var kinds []string
	mount := func(p field.Problems, mount string) {
		if mount != "" && !mountShape.MatchString(strings.Trim(mount, "/")) {
			p.At("mount").Errorf("%q is no mount of an auth method: write it like approle, without auth/", mount)
		}
		if strings.HasPrefix(mount, "auth/") {
			p.At("mount").Warnf("begins with auth/, which is added where it is needed")
		}
	}
	role := func(p field.Problems, role string) {
		if role == "" {
			p.At("role").Errorf("is missing: the role of the auth method in Vault")
		}
	}
	if r := a.AppRole; r != nil {
		kinds = append(kinds, "approle")
		p := p.At("approle")
		mount(p, r.Mount)
		r.RoleID.Validate(p.At("role_id"))
		r.SecretID.Validate(p.At("secret_id"))
		if r.Wrapped && r.SecretID.File == "" && r.SecretID.Credential == "" {
			p.At("wrapped").Errorf("needs a secret_id from a file: a wrapping token works once, and has to be replaced")
		}
	}
	if r := a.Kubernetes; r != nil {
		kinds = append(kinds, "kubernetes")
		mount(p.At("kubernetes"), r.Mount)
		role(p.At("kubernetes"), r.Role)
	}
	if r := a.JWT; r != nil {
		kinds = append(kinds, "jwt")
		mount(p.At("jwt"), r.Mount)
		role(p.At("jwt"), r.Role)
		r.Token.Validate(p.At("jwt", "token"))
	}
	switch len(kinds) {
	case 0:
		p.Errorf("names no method: it needs one of approle, kubernetes, jwt; a token needs no auth, but token_file or VAULT_TOKEN")
	case 1:
	default:
		p.Errorf("names %s: one connection has one login", strings.Join(kinds, " and "))
	}
}

// method is one way to log in.
type method struct {
	name  string // approle, kubernetes, jwt
	mount string // below auth/
	where string // where the credentials are, for people
	hint  string // what to look at when Vault refuses them
	// credentials reads what the login is sent with. It differs from the last time where somebody
	// has replaced it.
	credentials func(getenv func(string) string) (map[string]string, error)
	wrapped     bool // its secret_id is a wrapping token
}

// method returns the one that is set; nil: a token is given.
func (a *Auth) method() *method {
	switch {
	case a == nil:
		return nil
	case a.AppRole != nil:
		r := a.AppRole
		return &method{
			name: "approle", mount: cmp.Or(strings.Trim(r.Mount, "/"), "approle"), where: r.SecretID.String(), wrapped: r.Wrapped,
			hint: "look at role_id and secret_id: a secret id expires, can be used up, belongs to one role, and can be bound to addresses; a new one in its file is taken at once",
			credentials: func(getenv func(string) string) (map[string]string, error) {
				return read(getenv, map[string]field.SecretRef{"role_id": r.RoleID, "secret_id": r.SecretID}, nil)
			},
		}
	case a.Kubernetes != nil:
		r := a.Kubernetes
		token := field.SecretRef{File: cmp.Or(r.TokenFile, serviceAccountToken)}
		m := &method{name: "kubernetes", mount: cmp.Or(strings.Trim(r.Mount, "/"), "kubernetes"), where: token.String()}
		m.hint = fmt.Sprintf("look at auth/%s/role/%s (does it bind this pod's service account and namespace?), and at auth/%s/config (may Vault ask this cluster for token reviews?)", m.mount, r.Role, m.mount)
		m.credentials = func(getenv func(string) string) (map[string]string, error) {
			return read(getenv, map[string]field.SecretRef{"jwt": token}, map[string]string{"role": r.Role})
		}
		return m
	case a.JWT != nil:
		r := a.JWT
		m := &method{name: "jwt", mount: cmp.Or(strings.Trim(r.Mount, "/"), "jwt"), where: r.Token.String()}
		m.hint = fmt.Sprintf("look at auth/%s/role/%s (bound_audiences, bound_subject, bound_claims), and at whether the token in %s is fresh", m.mount, r.Role, m.where)
		m.credentials = func(getenv func(string) string) (map[string]string, error) {
			return read(getenv, map[string]field.SecretRef{"jwt": r.Token}, map[string]string{"role": r.Role})
		}
		return m
	}
	return nil
}

// read reads references, and adds what stands in the configuration itself.
func read(getenv func(string) string, refs map[string]field.SecretRef, plain map[string]string) (map[string]string, error) {
	out := map[string]string{}
	for name, ref := range refs {
		text, err := ref.Read(getenv)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = text
	}
	for name, text := range plain {
		out[name] = text
	}
	return out, nil
}

// Unwrapped remembers what came out of wrapping tokens, which work only once: longer than the client
// that used one up, since an edited configuration makes another client, and may be refused after
// that. The zero value is ready to use.
type Unwrapped struct {
	mu sync.Mutex
	of map[origin]wrap
}

// origin is where a wrapping token stands, and for which Vault: nobody else gets what was in it.
type origin struct{ address, namespace, mount, where string }

type wrap struct {
	token    rotator.Secret
	secretID rotator.Secret
}

func (u *Unwrapped) get(o origin, token string) (secretID rotator.Secret) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if w := u.of[o]; w.token.Reveal() == token {
		return w.secretID
	}
	return rotator.Secret{}
}

func (u *Unwrapped) put(o origin, w wrap) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of == nil {
		u.of = map[origin]wrap{}
	}
	u.of[o] = w
}

// unwrap exchanges the wrapping token in credentials for the secret id in it. Before that it asks
// Vault what made the token: whoever could replace the file could else make us use a secret id of
// theirs.
func (c *Client) unwrap(ctx context.Context, m *method, credentials map[string]string) error {
	token := credentials["secret_id"]
	from := origin{c.vault.Address(), c.vault.Namespace(), m.mount, m.where}
	secretID := c.unwrapped.get(from, token)
	if secretID.IsZero() {
		var info struct {
			Data struct {
				CreationPath string `json:"creation_path"`
			} `json:"data"`
		}
		if err := c.send(ctx, "", http.MethodPost, "sys/wrapping/lookup", map[string]string{"token": token}, &info); err != nil {
			return spent(err, m)
		}
		if ok, err := filepath.Match("auth/"+m.mount+"/role/*/secret-id", info.Data.CreationPath); err != nil || !ok {
			return fmt.Errorf("vault: %s: the wrapping token was made by %s, and not by auth/%s/role/…/secret-id: somebody else put it there", m.where, tidy(info.Data.CreationPath), m.mount)
		}
		var inside struct {
			Data struct {
				SecretID string `json:"secret_id"`
			} `json:"data"`
		}
		// Whoever asked for the login may go away: the answer comes only once.
		if err := c.send(context.WithoutCancel(ctx), token, http.MethodPost, "sys/wrapping/unwrap", nil, &inside); err != nil {
			return spent(err, m)
		}
		if inside.Data.SecretID == "" {
			return fmt.Errorf("vault: %s: what is wrapped there is no secret id", m.where)
		}
		secretID = rotator.NewSecret(inside.Data.SecretID)
		c.unwrapped.put(from, wrap{rotator.NewSecret(token), secretID})
	}
	credentials["secret_id"] = secretID.Reveal()
	return nil
}

// spent explains a wrapping token that Vault does not take.
func spent(err error, m *method) error {
	if n, e := status(err); n == http.StatusBadRequest || n == http.StatusForbidden {
		e.Hint = "the wrapping token of " + m.where + " was used already, or has expired: deliver a new one. If nobody of yours used it, somebody else has the secret id: destroy it"
	}
	return err
}
