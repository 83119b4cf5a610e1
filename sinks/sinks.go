// Package sinks knows every kind of place that a token can be kept in: it is the one-of block of
// rotation.yaml, and opens what such a block declares. It is the only place where a kind of sink
// is named; a new kind is a folder beside the others, a field of Spec and a case of Opener.Open.
package sinks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/sinks/command"
	"github.com/rotatord/rotatord/sinks/envfile"
	"github.com/rotatord/rotatord/sinks/file"
	"github.com/rotatord/rotatord/sinks/vaultkv"
)

// Spec is one sink as rotation.yaml declares it: exactly one of its fields is set.
type Spec struct {
	EnvFile *envfile.Config `yaml:"env_file,omitempty"` // one line of an env file
	File    *file.Config    `yaml:"file,omitempty"`     // a file of its own
	Exec    *command.Config `yaml:"exec,omitempty"`     // a program of your own
	VaultKV *vaultkv.Config `yaml:"vault_kv,omitempty"` // a key of a secret in Vault's KV engine
}

// block is what each kind's Config can do.
type block interface {
	Resolve(dir string)
	Validate(p field.Problems)
	Place() string
	Shares() (what, traits string)
}

// Kinds returns the names of all kinds, as they stand in rotation.yaml.
func Kinds() []string { return []string{"env_file", "file", "exec", "vault_kv"} }

// blocks returns the blocks that are set, by kind, in the order of Kinds.
func (s Spec) blocks() (kinds []string, blocks []block) {
	add := func(kind string, b block) {
		kinds, blocks = append(kinds, kind), append(blocks, b)
	}
	if s.EnvFile != nil {
		add("env_file", s.EnvFile)
	}
	if s.File != nil {
		add("file", s.File)
	}
	if s.Exec != nil {
		add("exec", s.Exec)
	}
	if s.VaultKV != nil {
		add("vault_kv", s.VaultKV)
	}
	return kinds, blocks
}

// one returns the only block that is set; "" and nil where there is none, or more than one.
func (s Spec) one() (string, block) {
	if kinds, blocks := s.blocks(); len(blocks) == 1 {
		return kinds[0], blocks[0]
	}
	return "", nil
}

// Kind returns the name of the kind; "" where the spec does not name exactly one.
func (s Spec) Kind() string {
	kind, _ := s.one()
	return kind
}

// Resolve fills in defaults and makes relative paths relative to dir, the folder of the
// configuration. It changes what the fields point to.
func (s Spec) Resolve(dir string) {
	if _, b := s.one(); b != nil {
		b.Resolve(dir)
	}
}

// Validate reports what is wrong: not exactly one kind, or the kind's own problems at its block.
func (s Spec) Validate(p field.Problems) {
	kinds, blocks := s.blocks()
	switch len(blocks) {
	case 0:
		p.Errorf("says not where the token goes: it needs one of %s", strings.Join(Kinds(), ", "))
	case 1:
		blocks[0].Validate(p.At(kinds[0]))
	default:
		p.Errorf("is one sink and names %d kinds (%s): make it as many sinks", len(kinds), strings.Join(kinds, ", "))
	}
}

// Place returns the kind and canonical address of a resolved spec: the key of the sink's state.
// "" where the spec does not name exactly one kind.
func (s Spec) Place() string {
	if _, b := s.one(); b != nil {
		return b.Place()
	}
	return ""
}

// Title is what people call a resolved spec: its kind and address, without what may be a secret. Two
// places can have one title.
func (s Spec) Title() string {
	if s.Exec != nil {
		return command.Kind + " " + s.Exec.Title()
	}
	return strings.Replace(s.Place(), ":", " ", 1)
}

// Shares returns what a resolved spec has in common with other sinks (a file, say) and those of
// its traits that all of them must agree on. Both are "" where nothing is shared.
func (s Spec) Shares() (what, traits string) {
	if _, b := s.one(); b != nil {
		return b.Shares()
	}
	return "", ""
}

// Needs returns the block of rotation.yaml and the name in it that the spec refers to; both are ""
// where it refers to none.
func (s Spec) Needs() (block, name string) {
	if s.VaultKV != nil && s.VaultKV.Vault != "" {
		return "vaults", s.VaultKV.Vault
	}
	return "", ""
}

// Under returns the spec for a rehearsal: a sink that touches nothing outside of dir. A file keeps
// its kind and moves to the same path below dir, and belongs to whoever runs the rehearsal;
// everything else becomes a file. instead says so to a person; it is "" where nothing but the path
// has changed. The spec has to be resolved; the folders are for the caller to make.
func (s Spec) Under(dir string) (rehearsal Spec, instead string) {
	switch {
	case s.EnvFile != nil:
		c := *s.EnvFile
		c.Path = below(dir, c.Path)
		instead = disown(&c.Owner, &c.Group)
		return Spec{EnvFile: &c}, instead
	case s.File != nil:
		c := *s.File
		c.Path = below(dir, c.Path)
		instead = disown(&c.Owner, &c.Group)
		return Spec{File: &c}, instead
	case s.Exec != nil:
		path := filepath.Join(dir, "exec", fileNameOf(s.Exec.Title(), strings.TrimPrefix(s.Exec.Place(), command.Kind+":")))
		return Spec{File: &file.Config{Path: path}}, "a file instead of the command, which is not run"
	case s.VaultKV != nil:
		c, vault := s.VaultKV, "vault_kv"
		if c.Vault != "" {
			vault += "-" + c.Vault
		}
		path := filepath.Join(dir, vault, below("", c.Mount), below("", c.Path), fileName(c.Key))
		return Spec{File: &file.Config{Path: path}}, "a file instead of Vault, which is not asked"
	}
	return Spec{}, ""
}

// below is path moved to dir: never outside of it, whatever path is.
func below(dir, path string) string {
	return filepath.Join(dir, filepath.Join("/", path)[1:])
}

// disown leaves a file to whoever makes it.
func disown(owner, group *string) (instead string) {
	if *owner != "" || *group != "" {
		instead = "without changing owner and group"
	}
	*owner, *group = "", ""
	return instead
}

// fileName is a name as part of a path, readable and never twice the same for two names.
func fileName(name string) string { return fileNameOf(name, name) }

// fileNameOf is fileName of a whole of which only shown may be read.
func fileNameOf(shown, whole string) string {
	plain := strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, shown)
	if plain == whole && strings.Trim(whole, ".") != "" && len(whole) <= 64 {
		return whole
	}
	sum := sha256.Sum256([]byte(whole))
	return strings.TrimLeft(plain[:min(len(plain), 48)], "._") + "-" + hex.EncodeToString(sum[:4])
}

// Opener opens sinks, and lets those of one Vault share its connection. It may be used from many
// goroutines.
type Opener struct {
	connections map[string]vaultkv.Connection
	w           World

	mu      sync.Mutex
	clients map[string]*shared // by the name of the connection; made when first needed
	before  map[string]*shared // of the opener that this one follows; taken over where they are needed

	unwrapped *vaultkv.Unwrapped // shared with the one that this one follows
}

// World is what sinks need of the process around them.
type World struct {
	Logger *slog.Logger        // of what programs print, and of warnings
	Getenv func(string) string // os.Getenv or a stand-in
	Now    func() time.Time
	// Peek is for who only looks, and must not use up what works only once.
	Peek bool
	// Observe is told how each request to a Vault went; may be nil. It must return at once. vault is
	// the name in vaults; "" is the one of sinks that name none.
	Observe func(vault, operation, outcome string, took time.Duration)
}

// VaultRequests returns what Observe can be told: every operation and every outcome.
func VaultRequests() (operations, outcomes []string) { return vaultkv.Operations(), vaultkv.Outcomes() }

// shared is a client that openers share, as long as one of them has it.
type shared struct {
	*vaultkv.Client
	connection vaultkv.Connection

	mu    sync.Mutex
	users int
}

func (s *shared) keep() *shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
	return s
}

func (s *shared) drop() {
	s.mu.Lock()
	s.users--
	last := s.users == 0
	s.mu.Unlock()
	if last {
		s.Client.Close()
	}
}

// NewOpener returns an Opener. connections are the Vaults by name; the one named "" is that of
// sinks that name none, and comes from the VAULT_* environment where it is missing.
func NewOpener(connections map[string]vaultkv.Connection, w World) *Opener {
	return &Opener{connections: connections, w: w, clients: map[string]*shared{}, unwrapped: &vaultkv.Unwrapped{}}
}

// Follow makes o use the clients of the opener before it where their connections are still the same:
// a configuration that is read again is no reason for a new login. It comes before the first Open,
// and before the other one's Close.
func (o *Opener) Follow(old *Opener) {
	old.mu.Lock()
	defer old.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.before, o.unwrapped = maps.Clone(old.clients), old.unwrapped
}

// Open makes the sink that a resolved and validated spec declares. It touches neither the place
// nor the network: the sink's Check does.
func (o *Opener) Open(s Spec) (rotator.Sink, error) {
	switch kind := s.Kind(); kind {
	case "env_file":
		return envfile.New(*s.EnvFile), nil
	case "file":
		return file.New(*s.File), nil
	case "exec":
		return command.New(*s.Exec, o.w.Logger), nil
	case "vault_kv":
		client, err := o.vault(s.VaultKV.Vault)
		if err != nil {
			return nil, err
		}
		return vaultkv.New(*s.VaultKV, client), nil
	}
	return nil, errors.New("a sink needs exactly one of " + strings.Join(Kinds(), ", "))
}

// vault returns the client of a connection, the same one each time.
func (o *Opener) vault(name string) (*vaultkv.Client, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.clients[name]; c != nil {
		return c.Client, nil
	}
	connection, ok := o.connections[name]
	if !ok && name != "" {
		return nil, fmt.Errorf("vault %q is not declared: add it to vaults", name)
	}
	if c := o.before[name]; c != nil && reflect.DeepEqual(c.connection, connection) {
		o.clients[name] = c.keep()
		return c.Client, nil
	}
	c, err := vaultkv.Dial(name, connection, vaultkv.World{Getenv: o.w.Getenv, Now: o.w.Now, Peek: o.w.Peek, Unwrapped: o.unwrapped, Observe: o.w.Observe})
	if err != nil {
		return nil, err
	}
	if vaultkv.Unverified(o.w.Getenv) {
		o.w.Logger.Warn("the certificate of Vault is NOT verified: whoever stands in between reads every token; unset VAULT_SKIP_VERIFY, and name the authority with ca_cert", "vault", c.Name())
	}
	o.clients[name] = (&shared{Client: c, connection: connection}).keep()
	return c, nil
}

// Close ends logins and lets go of idle connections, unless an opener that follows this one has
// them. Sinks that were opened still work.
func (o *Opener) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.clients {
		c.drop()
	}
	clear(o.clients)
}

// Finding is what a look at something that many sinks share has found.
type Finding struct {
	What   string // the same as that of a rotator.OutageError
	Says   string // what is so
	Doubts string // what works, and should not stay so; "" is nothing
	Err    error  // why it does not work
	Peeked bool   // whether it works was not tried, since that would use something up
}

// Examine looks at everything that the opened sinks share: each Vault and the login there.
func (o *Opener) Examine(ctx context.Context) []Finding {
	o.mu.Lock()
	clients := maps.Clone(o.clients)
	o.mu.Unlock()
	var out []Finding
	for _, name := range slices.Sorted(maps.Keys(clients)) {
		c := clients[name]
		x, err := c.Examine(ctx)
		out = append(out, Finding{What: c.Name(), Says: x.Says, Doubts: x.Doubts, Err: err, Peeked: x.Peeked})
	}
	return out
}

// Advice says what a sink can do without, and what it would be better to give it; it follows a Check
// that found nothing wrong. "" is nothing.
func Advice(s rotator.Sink) string {
	if v, ok := s.(*vaultkv.Sink); ok {
		return v.Advice()
	}
	return ""
}
