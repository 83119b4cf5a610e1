// Package vaultkv keeps a token under one key of a secret in HashiCorp Vault's KV engine, version
// 2 or 1, and leaves the secret's other keys alone. In rotation.yaml:
//
//	vault_kv:
//	  mount: secret        # where the engine is mounted
//	  path: team/portal    # the secret, without data/
//	  key: token           # the default
//	  kv_version: 2        # optional: what the mount says
//	  vault: eu            # optional: an item of vaults; the default is the vault block, and VAULT_*
//
// A push reads the secret first and writes nothing where the key holds the token already. Else it
// changes the key alone by a patch with check-and-set, or, where the policy or an old Vault
// allows no patch, writes all keys back with check-and-set. When somebody else was faster it
// reads again. So no update of others is lost, and nobody needs to agree on who writes when.
//
// When its time is over, a push waits a moment longer for the answer to a write that is under way,
// so that its outcome is known. Where Vault hangs for longer, check-and-set is the fence: a write
// that is carried out late names the version that was read before it, and fails as soon as a later
// push has succeeded. Until then it can still succeed, and the next reading finds it.
//
// KV version 1 has no check-and-set: there, a change that somebody else makes between our reading
// and our writing is lost, and a write of a hanging Vault is not fenced. Pushes of one process to
// one secret follow each other, with either version.
package vaultkv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
)

// Kind is the name of this kind of sink in rotation.yaml.
const Kind = "vault_kv"

// DefaultKey is the key within the secret where none is given.
const DefaultKey = "token"

// Config is the vault_kv block of a sink.
type Config struct {
	Mount     string `yaml:"mount"`                // where the KV engine is mounted
	Path      string `yaml:"path"`                 // the secret below the mount, without data/
	Key       string `yaml:"key,omitempty"`        // within the secret; DefaultKey
	KVVersion int    `yaml:"kv_version,omitempty"` // 1 or 2; 0: what the mount says
	Vault     string `yaml:"vault,omitempty"`      // the name of the connection; "": the default one
}

// Resolve fills in the defaults and takes the slashes around mount and path away. dir is not
// needed: nothing here is a file.
func (c *Config) Resolve(string) {
	c.Mount = strings.Trim(c.Mount, "/")
	c.Path = strings.Trim(c.Path, "/")
	if c.Key == "" {
		c.Key = DefaultKey
	}
}

var connectionName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// Validate reports what is wrong with c. That the connection exists is for the caller to look at.
func (c *Config) Validate(p field.Problems) {
	validatePath(p.At("mount"), c.Mount, "the mount of the KV engine, like secret")
	validatePath(p.At("path"), c.Path, "the path of the secret, like team/portal")
	if strings.ContainsRune(c.Mount, ':') {
		p.At("mount").Errorf("must not contain a colon")
	}
	if first, _, _ := strings.Cut(strings.Trim(c.Path, "/"), "/"); c.KVVersion != 1 && (first == "data" || first == "metadata") {
		p.At("path").Warnf("begins with %s/, which belongs to Vault's API and not to the secret's path: it is added where it is needed", first)
	}
	if strings.ContainsFunc(c.Key, unicode.IsControl) || c.Key != strings.TrimSpace(c.Key) {
		p.At("key").Errorf("must not contain control characters, or blanks around it")
	}
	if c.KVVersion < 0 || c.KVVersion > 2 {
		p.At("kv_version").Errorf("must be 1 or 2, or left out")
	}
	if c.Vault != "" && !connectionName.MatchString(c.Vault) {
		p.At("vault").Errorf("%q cannot be the name of an item of vaults", c.Vault)
	}
}

func validatePath(p field.Problems, s, what string) {
	if s = strings.Trim(s, "/"); s == "" {
		p.Errorf("is missing: %s", what)
		return
	}
	for seg := range strings.SplitSeq(s, "/") {
		switch {
		case seg == "":
			p.Errorf("has two slashes in a row")
		case seg == "." || seg == "..":
			p.Errorf("must not contain %q as a part of it", seg)
		case seg != strings.TrimSpace(seg) || strings.ContainsFunc(seg, unicode.IsControl):
			p.Errorf("must not contain control characters, or blanks around a part of it")
		case strings.ContainsAny(seg, "#?*"):
			p.Errorf("must not contain any of # ? *")
		default:
			continue
		}
		return
	}
}

// Place is the key of the sink's state: connection, mount, path and key.
func (c *Config) Place() string {
	place := Kind + ":"
	if c.Vault != "" {
		place += c.Vault + ":"
	}
	return place + c.Mount + "/" + c.Path + "#" + c.Key
}

// Shares is empty: sinks of one secret have nothing in common that must agree.
func (c *Config) Shares() (what, traits string) { return "", "" }

// Sink is one key of one secret.
type Sink struct {
	config  Config
	client  *Client
	version int // of the KV engine; 0 until it is known
}

// New returns the sink that c, which Resolve has seen, declares in the Vault of client.
func New(c Config, client *Client) *Sink {
	return &Sink{config: c, client: client, version: c.KVVersion}
}

var _ rotator.Sink = (*Sink)(nil)

// maxTries bounds how often a push reads again because somebody else was faster.
const maxTries = 16

// writeGrace is how long a push whose time is over waits for the answer to its write.
const writeGrace = 2 * time.Second

// casMismatch is in Vault's words where the version is not the one that a write names.
const casMismatch = "check-and-set parameter did not match"

// Check says whether a push would work: the mount is there and is a KV engine, the secret can be
// read, and the token's policies allow the writing. It writes nothing. A missing permission is an
// *Error whose hint is the policy that would do.
func (s *Sink) Check(ctx context.Context) error {
	version, lookup := s.lookup(ctx)
	if n, _ := status(lookup); lookup != nil && n != http.StatusForbidden {
		return lookup // unreachable, sealed, no KV engine
	}
	if lookup == nil {
		if s.config.KVVersion != 0 && version != s.config.KVVersion {
			return fmt.Errorf("vault: mount %s is KV version %d, and kv_version says %d", s.config.Mount, version, s.config.KVVersion)
		}
		s.version = version
	}
	allowed, err := s.capabilities(ctx)
	if err != nil {
		return err
	}
	if lookup != nil && s.config.KVVersion == 0 {
		// A denied lookup with permissions below the mount: Vault answers so for a mount that is not there.
		if can(allowed, "read", "create", "update", "patch") {
			return fmt.Errorf("vault: mount %s does not exist, although the policies of the token name it: look at mount, and at the namespace", s.config.Mount)
		}
		_, e := status(lookup)
		if e.Hint == "" {
			e.Hint = "no policy of the token reaches below this mount, or it does not exist; this policy would do:\n" + s.policy()
		}
		return lookup
	}
	cur, err := s.read(ctx)
	if err != nil {
		return err
	}
	if _, err := s.value(cur); err != nil {
		return err
	}
	writes := []string{"create"}
	if cur.known {
		writes = []string{"update"}
		if s.version == 2 && cur.data != nil {
			writes = []string{"update", "patch"}
		}
	}
	if allowed == nil {
		return s.probe(ctx, cur)
	}
	if !can(allowed, writes...) {
		return s.denied(&Error{
			Method: http.MethodPut, Path: s.path(), Status: http.StatusForbidden,
			Words: []string{"the token lacks the capability " + strings.Join(writes, " or ")},
		})
	}
	return nil
}

// Push makes the key hold the token; see the package's comment on how. Where the key holds
// something that is no string, nothing is written.
func (s *Sink) Push(ctx context.Context, _ rotator.Generation, secret rotator.Secret) error {
	if err := s.detect(ctx); err != nil {
		return err
	}
	unlock, err := s.client.lock(ctx, s.config.Mount+"/"+s.config.Path)
	if err != nil {
		return err
	}
	defer unlock()
	if !utf8.ValidString(secret.Reveal()) {
		return errors.New("vault: the token is not UTF-8, and JSON cannot hold it")
	}
	patch := s.version == 2
	for range maxTries {
		cur, err := s.read(ctx)
		if err != nil {
			return err
		}
		held, err := s.value(cur)
		if err != nil {
			return err
		}
		if held.Reveal() == secret.Reveal() {
			return nil
		}
		err = s.write(ctx, cur, secret, patch && cur.data != nil)
		n, e := status(err)
		switch {
		case err == nil:
			return nil
		case s.version == 2 && n == http.StatusBadRequest && e.says(casMismatch):
			// Somebody else wrote. Read again.
		case patch && cur.data != nil && n == http.StatusNotFound:
			// Somebody else deleted it. Read again.
		case patch && cur.data != nil && (n == http.StatusForbidden || n == http.StatusMethodNotAllowed) && !e.says("invalid token"):
			patch = false // not permitted, or an old Vault: write it whole
		case n == http.StatusForbidden:
			return s.denied(e)
		default:
			return err
		}
	}
	return fmt.Errorf("vault: %s: somebody else changes the secret all the time: gave up after %d tries", s.path(), maxTries)
}

// Read returns what the key holds; the zero Secret where the secret or its key is missing,
// deleted, empty or null. A value that is no string is an error that matches
// *rotator.ForeignError.
func (s *Sink) Read(ctx context.Context) (rotator.Secret, error) {
	if err := s.detect(ctx); err != nil {
		return rotator.Secret{}, err
	}
	cur, err := s.read(ctx)
	if err != nil {
		return rotator.Secret{}, err
	}
	return s.value(cur)
}

// detect finds out the engine's version where it is not known yet.
func (s *Sink) detect(ctx context.Context) error {
	if s.version != 0 {
		return nil
	}
	version, err := s.lookup(ctx)
	if err != nil {
		if n, e := status(err); n == http.StatusForbidden && e.Hint == "" {
			e.Hint = "no policy of the token reaches below this mount, or it does not exist; this policy would do:\n" + s.policy()
		}
		return err
	}
	s.version = version
	return nil
}

// lookup asks Vault which version of KV is mounted. Any token with a permission below the mount
// may ask.
func (s *Sink) lookup(ctx context.Context) (int, error) {
	var answer struct {
		Data struct {
			Type    string            `json:"type"`
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	if err := s.client.do(ctx, http.MethodGet, "sys/internal/ui/mounts/"+s.config.Mount, nil, &answer); err != nil {
		return 0, err
	}
	switch typ := answer.Data.Type; {
	case typ != "kv" && typ != "generic":
		return 0, fmt.Errorf("vault: mount %s is an engine of the type %q, not kv", s.config.Mount, typ)
	case answer.Data.Options["version"] == "2":
		return 2, nil
	}
	return 1, nil
}

// capabilities asks Vault what the token may do with the secret; nil where it may not even ask,
// which leaves it to the push to find out.
func (s *Sink) capabilities(ctx context.Context) ([]string, error) {
	path := s.path()
	var answer struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	err := s.client.do(ctx, http.MethodPost, "sys/capabilities-self", map[string]any{"paths": []string{path}}, &answer)
	if n, e := status(err); n == http.StatusForbidden && !e.says("invalid token") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var allowed []string
	if raw, ok := answer.Data[path]; ok {
		if err := json.Unmarshal(raw, &allowed); err != nil {
			return nil, nil //nolint:nilerr // an answer that is not understood says nothing
		}
	}
	return allowed, nil
}

// probe finds out whether writing is permitted where the token may not ask: by writes that name a
// version far from the real one, so that Vault either refuses the token or the version. Without
// check-and-set there is no such question, and the push will tell.
func (s *Sink) probe(ctx context.Context, cur current) error {
	if s.version != 2 {
		return nil
	}
	methods := []string{http.MethodPut}
	if cur.data != nil {
		methods = []string{http.MethodPatch, http.MethodPut}
	}
	var denied error
	for _, method := range methods {
		err := s.client.do(ctx, method, s.path(), map[string]any{
			"options": map[string]int{"cas": cur.version + 1<<30},
			"data":    map[string]string{},
		}, nil)
		switch n, e := status(err); {
		case n == http.StatusBadRequest && e.says(casMismatch):
			return nil
		case n == http.StatusForbidden:
			denied = s.denied(e)
		case n == http.StatusMethodNotAllowed, n == http.StatusNotFound:
			denied = err
		default:
			return err
		}
	}
	return denied
}

// can reports whether allowed holds one of the capabilities.
func can(allowed []string, capabilities ...string) bool {
	if slices.Contains(allowed, "deny") {
		return false
	}
	return slices.Contains(allowed, "root") || slices.ContainsFunc(capabilities, func(c string) bool {
		return slices.Contains(allowed, c)
	})
}

// current is the secret as Vault holds it now.
type current struct {
	known   bool                       // Vault knows of the secret, alive or deleted
	data    map[string]json.RawMessage // nil where there is none, or the latest version is deleted
	version int                        // the latest one, for check-and-set
}

func (s *Sink) read(ctx context.Context) (current, error) {
	var answer struct {
		Data     json.RawMessage `json:"data"`
		Warnings []string        `json:"warnings"`
	}
	err := s.client.do(ctx, http.MethodGet, s.path(), nil, &answer)
	n, e := status(err)
	missing := len(answer.Data) == 0 || bytes.Equal(answer.Data, []byte("null"))
	switch {
	case n == http.StatusNotFound && missing && len(answer.Warnings) > 0:
		// The other version of the engine is mounted there, for one.
		for _, w := range answer.Warnings {
			e.Words = append(e.Words, tidy(w))
		}
		return current{}, e
	case n == http.StatusNotFound && e.says("no handler for route"):
		e.Hint = "mount " + s.config.Mount + " does not exist: look at mount, and at the namespace"
		return current{}, e
	case n == http.StatusNotFound && (len(e.Words) > 0 || e.Hint != ""):
		return current{}, err
	case n == http.StatusForbidden:
		return current{}, s.denied(e)
	case err != nil && n != http.StatusNotFound:
		return current{}, err
	}
	if n == http.StatusNotFound && missing {
		return current{}, nil // never written
	}
	if s.version == 1 {
		var data map[string]json.RawMessage
		if json.Unmarshal(answer.Data, &data) != nil {
			return current{}, s.strange()
		}
		return current{known: n == 0, data: data}, nil
	}
	var v2 struct {
		Data     map[string]json.RawMessage `json:"data"`
		Metadata struct {
			Version *int `json:"version"`
		} `json:"metadata"`
	}
	if json.Unmarshal(answer.Data, &v2) != nil || v2.Metadata.Version == nil {
		return current{}, s.strange()
	}
	if n == http.StatusNotFound {
		v2.Data = nil // deleted or destroyed
	} else if v2.Data == nil {
		v2.Data = map[string]json.RawMessage{}
	}
	return current{known: true, data: v2.Data, version: *v2.Metadata.Version}, nil
}

func (s *Sink) strange() error {
	return fmt.Errorf("vault: GET %s: the answer is not that of a KV version %d engine: look at mount and kv_version", s.path(), s.version)
}

// value returns what the key holds.
func (s *Sink) value(cur current) (rotator.Secret, error) {
	raw, ok := cur.data[s.config.Key]
	if !ok || bytes.Equal(raw, []byte("null")) {
		return rotator.Secret{}, nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return rotator.Secret{}, fmt.Errorf("vault: %s: key %q is no string: %w", s.path(), s.config.Key, &rotator.ForeignError{Prior: true})
	}
	return rotator.NewSecret(text), nil
}

// write changes the key in Vault, provided that the secret still is as cur says.
func (s *Sink) write(ctx context.Context, cur current, secret rotator.Secret, patch bool) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("vault: write %s: not begun: %w", s.path(), err)
	}
	lenient, cancel := extend(ctx, writeGrace)
	defer cancel()
	err := s.send(lenient, cur, secret, patch)
	if n, _ := status(err); err != nil && n == 0 && lenient.Err() != nil && ctx.Err() != nil {
		return fmt.Errorf("vault: write %s: no answer in time, and it may still be carried out: %w", s.path(), ctx.Err())
	}
	return err
}

// extend returns a context that ends a while after ctx does.
func extend(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(by)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-out.Done():
		}
	})
	return out, func() { stop(); cancel() }
}

func (s *Sink) send(ctx context.Context, cur current, secret rotator.Secret, patch bool) error {
	value, err := json.Marshal(secret.Reveal())
	if err != nil {
		return errors.New("vault: the token cannot be written as JSON")
	}
	data := map[string]json.RawMessage{s.config.Key: value}
	method := http.MethodPatch
	if !patch {
		method = http.MethodPut
		whole := maps.Clone(cur.data)
		if whole == nil {
			whole = map[string]json.RawMessage{}
		}
		whole[s.config.Key] = value
		data = whole
	}
	if s.version == 1 {
		return s.client.do(ctx, method, s.path(), data, nil)
	}
	return s.client.do(ctx, method, s.path(), map[string]any{
		"options": map[string]int{"cas": cur.version},
		"data":    data,
	}, nil)
}

// path is where Vault's API has the secret.
func (s *Sink) path() string {
	if s.version == 1 {
		return s.config.Mount + "/" + s.config.Path
	}
	return s.config.Mount + "/data/" + s.config.Path
}

// denied adds to a refusal the policy that would do, unless the token itself is refused.
func (s *Sink) denied(e *Error) error {
	if e.Hint == "" {
		e.Hint = "this policy would do:\n" + s.policy()
	}
	return e
}

// policy is the smallest policy with which every push works, ready to paste.
func (s *Sink) policy() string {
	rule := func(path string) string {
		return fmt.Sprintf("path %q {\n  capabilities = [\"create\", \"read\", \"update\"]\n}\n", path)
	}
	v1, v2 := s.config.Mount+"/"+s.config.Path, s.config.Mount+"/data/"+s.config.Path
	switch s.version {
	case 1:
		return rule(v1)
	case 2:
		return rule(v2)
	}
	return rule(v2) // KV version 2, which nearly every mount is; its lookup needs no more than this
}
