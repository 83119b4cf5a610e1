// Package vaultkv keeps a token under one key of a secret in HashiCorp Vault's KV engine, version
// 2 or 1, and leaves the secret's other keys alone. In rotation.yaml:
//
//	vault_kv:
//	  mount: secret        # where the engine is mounted
//	  path: team/portal    # the secret, without data/
//	  key: token           # the default
//	  kv_version: 2        # optional: what the mount says
//	  vault: eu            # optional: an item of vaults; the default is the vault block, and VAULT_*
//	  metadata: true       # optional: say in the secret's custom metadata what it holds
//
// A push writes nothing where the key holds the token already. Else it changes the key alone by a
// patch with check-and-set, or, where the policy or an old Vault allows no patch, writes all keys
// back with check-and-set. When somebody else was faster it reads again. So no update of others is
// lost, and nobody needs to agree on who writes when.
//
// A reading asks for the secret's metadata first, and for its data only where they say that it has
// changed since the last reading: thousands of readings a day leave no trace of secrets read.
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
	"regexp"
	"strings"
	"unicode"

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
	Key       string `yaml:"key,omitempty"`        // within the secret
	KVVersion int    `yaml:"kv_version,omitempty"` // 1 or 2; missing: what the mount says
	Vault     string `yaml:"vault,omitempty"`      // the name of the connection, an item of vaults; missing: that of the block vault
	Metadata  bool   `yaml:"metadata,omitempty"`   // write custom metadata: whose token it is, its id, generation and expiry
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
	if c.Metadata && c.KVVersion == 1 {
		p.At("metadata").Errorf("needs KV version 2: version 1 has no metadata")
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
