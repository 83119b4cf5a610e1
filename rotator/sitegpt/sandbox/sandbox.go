// Package sandbox stands in for SiteGPT: it serves the token endpoints of API v2 over real HTTP,
// as strictly as they are documented, so that people can rehearse their own rotation.yaml and
// tests can break things at will. Nobody's account is touched.
//
// What is documented, and served so: the envelope and its requestId; the bearer in the
// Authorization header; POST, GET and DELETE of /api/v2/tokens with the fields name (1 to 120
// characters), scopes (at least one, of the 37), chatbotIds, expiresInDays (1 to 365, default 90)
// or expiresAt, never both; a plaintext that is shown once and kept as a hash only; GET
// /api/v2/me and /api/v2/health; the scope tokens:write for creating; a user's role that bounds
// what may be granted; the codes AUTHORIZATION_HEADER_REQUIRED, TOKEN_NOT_VALID,
// TOKEN_SCOPE_NOT_ALLOWED and TOKEN_SCOPE_NOT_VALID.
//
// What is guessed, because nobody outside knows, and can be played the other way with Behavior:
// the status of each code (401, 401, 403, 400), of a create (201) and of revoking a token that is
// gone (404); whether answers carry more than the documented fields (no); whether expired tokens
// are listed (no); the page's size and the paging parameter (cursor); that listing needs
// tokens:read and revoking tokens:write (yes), and /me account:read (no); what an empty
// chatbotIds means (it is refused); how far away expiresAt may be (365 days), and whether it is
// lowered or refused beyond; whether names are unique, live tokens limited in number, and
// requests per minute (no); whether the calling token's scopes bound the new one's (no); what a
// character of a name is. Every code other than those four is invented. So is strictness about
// unknown fields, which refuses them: a client should send what is documented and nothing else.
//
// Faults can be injected: see Fault.
package sandbox

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	mrand "math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt"
)

// Options is what a Server needs. Now is required.
type Options struct {
	Now        func() time.Time // the server's clock, also in its Date header
	Behavior   Behavior         // how it plays what is not known; the zero value is the likeliest
	Management rotator.Secret   // the management token; zero: a fresh one is minted
	Control    bool             // serve /_sandbox/ (to loopback only)
	Seed       uint64           // of the faults' dice; 0: a random one
}

// Server is the stand-in. It is an http.Handler, and safe for concurrent use.
type Server struct {
	now     func() time.Time
	control http.Handler // nil: none
	file    string       // where tokens are kept; "": nowhere
	bearer  rotator.Secret

	saving sync.Mutex // one writer of file
	saved  int        // the version that file holds; guarded by saving

	mu       sync.Mutex
	behavior Behavior
	tokens   []*token // in the order of creation
	byHash   map[string]*token
	byID     map[string]*token
	version  int // counts changes of tokens
	seq      int
	faults   []*fault
	dice     *mrand.Rand
	log      []*Request
	counts   map[Op]int
	made     int
	window   time.Time // the minute being counted for Behavior.RequestsPerMinute
	inWindow int
}

// Token is one token as the server knows it; it never knows the plaintext.
type Token struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Scopes   []string  `json:"scopes"`
	Chatbots []string  `json:"chatbots,omitempty"` // nil: all
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	Revoked  time.Time `json:"revoked,omitzero"`
	LastUsed time.Time `json:"last_used,omitzero"`
}

// Live reports whether the token authenticates at an instant.
func (t Token) Live(at time.Time) bool { return t.Revoked.IsZero() && at.Before(t.Expires) }

type token struct {
	Token
	Seq  int    `json:"seq"`
	Hash string `json:"sha256"`

	management bool // minted by New, never kept
}

// Op is what a request wants.
type Op string

// The operations. OpAny stands for each of them in a Fault.
const (
	OpAny    Op = "any"
	OpCreate Op = "create"
	OpList   Op = "list"
	OpRevoke Op = "revoke"
	OpMe     Op = "me"
	OpHealth Op = "health"
	OpNone   Op = "none" // a request that is none of these
)

// Request is one request as it was answered.
type Request struct {
	At     time.Time `json:"at"`
	Op     Op        `json:"op"`
	Method string    `json:"method"`
	Path   string    `json:"path"`            // with the query
	Bearer string    `json:"bearer"`          // the id of the token that authenticated; "" where none did
	Label  string    `json:"label,omitempty"` // the name that a create asked for
	Body   string    `json:"body,omitempty"`  // of a create
	Status int       `json:"status"`          // 0: no answer was given
	Fault  Kind      `json:"fault,omitempty"`
}

// maxLog bounds the log of requests; the oldest half goes when it is reached.
const maxLog = 20_000

// New returns a server that keeps its tokens in memory. It panics without a clock.
func New(o Options) *Server {
	if o.Now == nil {
		panic("sandbox: Options.Now is required")
	}
	seed := o.Seed
	if seed == 0 {
		seed = mrand.Uint64()
	}
	s := &Server{
		now: o.Now, bearer: o.Management, behavior: o.Behavior.clone(),
		byHash: map[string]*token{}, byID: map[string]*token{}, counts: map[Op]int{},
		dice: mrand.New(mrand.NewPCG(seed, seed)),
	}
	if s.bearer.IsZero() {
		s.bearer = rotator.NewSecret(newPlaintext())
	}
	now := s.now().UTC().Truncate(time.Second)
	s.add(&token{
		Token: Token{ID: "tok_management", Name: "management token of the sandbox", Scopes: allScopes(), Created: now, Expires: now.Add(maxLifetime)},
		Hash:  hash(s.bearer.Reveal()), management: true,
	})
	if o.Control {
		s.control = s.controls()
	}
	return s
}

// Management returns the token that may do everything: what a daemon is given to start with.
func (s *Server) Management() rotator.Secret { return s.bearer }

// Tokens returns every token that was made over the API, the oldest first; not the management
// token that the server was started with.
func (s *Server) Tokens() []Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Token
	for _, t := range s.tokens {
		if !t.management {
			c := t.Token
			c.Scopes, c.Chatbots = slices.Clone(c.Scopes), slices.Clone(c.Chatbots)
			out = append(out, c)
		}
	}
	return out
}

// Live returns those of Tokens that authenticate now.
func (s *Server) Live() []Token {
	now := s.now()
	return slices.DeleteFunc(s.Tokens(), func(t Token) bool { return !t.Live(now) })
}

// Alive reports whether a plaintext authenticates now.
func (s *Server) Alive(plaintext string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byHash[hash(plaintext)]
	return t != nil && t.Live(s.now())
}

// Requests returns the log of requests, the oldest first; of very many, the newest.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Request, len(s.log))
	for i, r := range s.log {
		out[i] = *r
	}
	return out
}

// Count returns how many requests of an operation came in; OpAny: all of them.
func (s *Server) Count(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op != OpAny {
		return s.counts[op]
	}
	n := 0
	for _, c := range s.counts {
		n += c
	}
	return n
}

// Made returns how many tokens were made since the server was started.
func (s *Server) Made() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made
}

// Revoke kills a token behind the daemon's back; false where there is no such token.
func (s *Server) Revoke(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byID[id]
	if t == nil {
		return false
	}
	if t.Revoked.IsZero() {
		t.Revoked = s.now().UTC()
		s.version++
	}
	return true
}

// add registers t; s.mu is held, or s not yet shared.
func (s *Server) add(t *token) {
	if t.Seq == 0 {
		s.seq++
		t.Seq = s.seq
	}
	s.seq = max(s.seq, t.Seq)
	s.tokens = append(s.tokens, t)
	s.byHash[t.Hash], s.byID[t.ID] = t, t
	s.version++
}

// remove forgets t; s.mu is held.
func (s *Server) remove(t *token) {
	s.tokens = slices.DeleteFunc(s.tokens, func(x *token) bool { return x == t })
	delete(s.byHash, t.Hash)
	delete(s.byID, t.ID)
	s.version++
}

func allScopes() []string {
	var out []string
	for _, k := range sitegpt.Scopes() {
		out = append(out, k.Name)
	}
	return out
}

func hash(plaintext string) string {
	h := sha256.Sum256([]byte(plaintext))
	return hex.EncodeToString(h[:])
}

// random returns n characters that nobody can guess.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // crypto/rand never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))[:n]
}

func newPlaintext() string { return "sgpt_" + random(40) }
