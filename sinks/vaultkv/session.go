package vaultkv

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// session is what one connection presents to Vault: a token that was given, or one of a login. All
// sinks of the connection share it, so there is one login, however many they are.
type session struct {
	client *Client
	method *method                        // nil: the token is given
	given  func() (rotator.Secret, error) // the token that is given now; zero: none

	turn chan struct{} // held by the one who logs in or renews

	mu     sync.Mutex
	grant  Grant
	failed struct { // the last login, where it failed
		err   error
		with  [sha256.Size]byte // the credentials, hashed
		tries int
		again time.Time
	}
	guessed time.Time // when a login was last made on the chance that the token was dead
	stop    func()    // ends the tending; nil: it does not go on
	closed  bool
}

// Grant is a token's life, as far as Vault tells.
type Grant struct {
	Method    string    // token, approle, kubernetes, jwt
	Since     time.Time // when the login was made, or the token was first seen
	Expires   time.Time // zero: never, or unknown
	Renewable bool

	token   rotator.Secret
	ttl     time.Duration // when it was last granted
	known   bool          // Expires and Renewable are
	renewAt time.Time
}

const (
	// loginBackoff is the wait after the first login that failed. It doubles up to loginPatience: a
	// Vault that was unsealed has us back within a minute, and one that is sealed for hours sees no
	// storm.
	loginBackoff  = time.Second
	loginPatience = 20 * time.Second

	tendEvery = 15 * time.Second // no longer timer: it would stand still in suspend
)

func newSession(c *Client, m *method, given func() (rotator.Secret, error)) *session {
	return &session{client: c, method: m, given: given, turn: make(chan struct{}, 1)}
}

// token returns the token to send a request with. Where there is none that works it logs in; who
// comes meanwhile shares that login.
func (s *session) token(ctx context.Context) (rotator.Secret, error) {
	if s.method == nil {
		return s.givenToken()
	}
	if token := s.valid(); !token.IsZero() {
		return token, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return rotator.Secret{}, fmt.Errorf("vault: wait for the login: %w", ctx.Err())
	}
	if token := s.valid(); !token.IsZero() {
		return token, nil
	}
	return s.login(ctx)
}

// valid returns the token of the login, unless it has ended or is about to.
func (s *session) valid() rotator.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.grant.Expires.IsZero() && !s.client.now().Before(s.grant.Expires.Add(-s.grant.ttl/20)) {
		return rotator.Secret{}
	}
	if !s.grant.token.IsZero() {
		s.tend()
	}
	return s.grant.token
}

// givenToken reads the token that is given: it may have been replaced.
func (s *session) givenToken() (rotator.Secret, error) {
	token, err := s.given()
	if err != nil {
		return rotator.Secret{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grant.token.Reveal() != token.Reveal() {
		s.grant = Grant{Method: "token", Since: s.client.now(), token: token}
	}
	if !token.IsZero() {
		s.tend()
	}
	return token, nil
}

// login logs in, unless the same credentials have failed a moment ago. The caller holds turn.
func (s *session) login(ctx context.Context) (rotator.Secret, error) {
	m := s.method
	doing := "vault: log in by " + m.name
	credentials, err := m.credentials(s.client.getenv)
	if err != nil {
		return rotator.Secret{}, fmt.Errorf("%s: %w", doing, err)
	}
	with := digest(credentials)
	s.mu.Lock()
	if f := s.failed; f.err != nil && f.with == with && s.client.now().Before(f.again) {
		s.mu.Unlock()
		return rotator.Secret{}, f.err
	}
	s.mu.Unlock()
	g, err := s.ask(ctx, credentials)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
			return rotator.Secret{}, err // who asked went away: that says nothing about the next
		}
		if s.failed.with != with {
			s.failed.tries = 0
		}
		s.failed.err, s.failed.with = err, with
		s.failed.tries++
		s.failed.again = s.client.now().Add(min(loginBackoff<<min(s.failed.tries-1, 10), loginPatience))
		return rotator.Secret{}, err
	}
	s.failed.err, s.failed.tries = nil, 0
	s.grant = g
	s.tend()
	return g.token, nil
}

func digest(credentials map[string]string) [sha256.Size]byte {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(credentials)) {
		fmt.Fprintf(h, "%s %d %s\n", name, len(credentials[name]), credentials[name])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// answer is what Vault says of a login, a renewal or a token.
type answer struct {
	Auth *struct {
		ClientToken   string `json:"client_token"`
		LeaseDuration int64  `json:"lease_duration"`
		Renewable     bool   `json:"renewable"`
	} `json:"auth"`
	Data *struct {
		TTL       int64 `json:"ttl"`
		Renewable bool  `json:"renewable"`
	} `json:"data"`
}

// ask sends one login.
func (s *session) ask(ctx context.Context, credentials map[string]string) (Grant, error) {
	m := s.method
	if m.wrapped {
		if s.client.peek {
			return Grant{}, fmt.Errorf("vault: %w", errPeek)
		}
		if err := s.client.unwrap(ctx, m, credentials); err != nil {
			return Grant{}, err
		}
	}
	path := "auth/" + m.mount + "/login"
	var out answer
	err := s.client.send(ctx, "", http.MethodPost, path, credentials, &out)
	switch n, e := status(err); {
	case err == nil:
	case n == 0:
		return Grant{}, err
	case e.Hint == "" && (e.says("no handler for route") || n == http.StatusForbidden && m.name == "approle"):
		e.Hint = "no auth method is mounted at " + m.mount + ": look at mount, and at the namespace"
		return Grant{}, err
	case e.Hint == "" && n < http.StatusInternalServerError:
		e.Hint = m.hint
		return Grant{}, err
	default:
		return Grant{}, err
	}
	if out.Auth == nil || out.Auth.ClientToken == "" {
		return Grant{}, fmt.Errorf("vault: POST %s: the answer holds no token", path)
	}
	g := Grant{Method: m.name, Since: s.client.now(), token: rotator.NewSecret(out.Auth.ClientToken)}
	g.lasts(g.Since, out.Auth.LeaseDuration, out.Auth.Renewable)
	return g, nil
}

// lasts notes how long the token has from now on; 0 seconds: for ever.
func (g *Grant) lasts(now time.Time, seconds int64, renewable bool) {
	g.known, g.Renewable, g.ttl = true, renewable, time.Duration(seconds)*time.Second
	g.Expires, g.renewAt = time.Time{}, time.Time{}
	if g.ttl > 0 {
		g.Expires = now.Add(g.ttl)
		if renewable {
			g.renewAt = now.Add(g.ttl / 2)
		}
	}
}

// refused is told that a request with token was answered by 403. It reports whether the token was
// the reason, and not a policy; then the next call of token returns another one, or says why not.
func (s *session) refused(ctx context.Context, token rotator.Secret, said *Error) bool {
	s.mu.Lock()
	same, fresh := s.grant.token.Reveal() == token.Reveal(), s.client.now().Sub(s.grant.Since) < 5*time.Second
	s.mu.Unlock()
	if !same {
		return true // somebody else has a newer one already
	}
	guessed := false
	if !dead(said) {
		if s.method != nil && fresh {
			return false // just logged in: it is a policy, also where the token may not ask about itself
		}
		// Older Vaults say "permission denied" to both.
		n, e := status(s.client.send(ctx, token.Reveal(), http.MethodGet, "auth/token/lookup-self", nil, nil))
		if n != http.StatusForbidden || s.method == nil && !dead(e) {
			return false
		}
		if guessed = !dead(e); guessed && !s.guess() {
			return false
		}
	}
	s.mu.Lock()
	dropped := s.grant.token.Reveal() == token.Reveal()
	if dropped {
		s.grant = Grant{}
	}
	s.mu.Unlock()
	if dropped && guessed { // it may well be alive
		s.end(ctx, token)
	}
	return true
}

// end ends a login: Vault need not keep what nobody uses any more.
func (s *session) end(ctx context.Context, token rotator.Secret) {
	s.client.send(context.WithoutCancel(ctx), token.Reveal(), http.MethodPost, "auth/token/revoke-self", nil, nil) //nolint:errcheck // else it ends by itself
}

// guess reports whether a login may be made on the mere chance that the token is dead: Vault said the
// same to a token that may not look at itself. One guess that was wrong must not become a storm.
func (s *session) guess() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.client.now()
	if !s.guessed.IsZero() && now.Sub(s.guessed) < guessEvery {
		return false
	}
	s.guessed = now
	return true
}

// guessEvery is how long a login that was made on chance is the last one of its kind.
const guessEvery = 10 * time.Minute

// dead reports whether Vault says that it does not know the token.
func dead(e *Error) bool {
	return e != nil && e.Status == http.StatusForbidden && (e.says("invalid token") || e.says("bad token"))
}

// tend keeps the token alive while the connection is open. The caller holds mu.
func (s *session) tend() {
	if s.stop != nil || s.closed {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			timer := time.NewTimer(s.renew(ctx))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
	}()
	s.stop = func() { cancel(); <-over }
}

// renew renews the token when half of its life is over, and returns when to look again. What cannot
// be renewed ends, and the next request logs in.
func (s *session) renew(ctx context.Context) time.Duration {
	s.mu.Lock()
	g := s.grant
	s.mu.Unlock()
	now := s.client.now()
	switch {
	case g.token.IsZero(), g.known && g.renewAt.IsZero():
		return tendEvery
	case g.known && now.Before(g.renewAt):
		return min(g.renewAt.Sub(now), tendEvery)
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return tendEvery
	}
	path, verb := "auth/token/renew-self", http.MethodPost
	if !g.known { // a token that was given says first what it is
		path, verb = "auth/token/lookup-self", http.MethodGet
	}
	var out answer
	err := s.client.send(ctx, g.token.Reveal(), verb, path, nil, &out)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grant.token.Reveal() != g.token.Reveal() {
		return 0 // another one by now
	}
	now = s.client.now()
	n, _ := status(err)
	switch {
	case err == nil && g.known && out.Auth != nil:
		s.grant.lasts(now, out.Auth.LeaseDuration, out.Auth.Renewable)
		if s.method != nil && s.grant.ttl < g.ttl { // its longest life comes near: it ends, and the next request logs in
			s.grant.Expires, s.grant.renewAt = now.Add(s.grant.ttl), time.Time{}
		}
	case err == nil && !g.known && out.Data != nil:
		s.grant.lasts(now, out.Data.TTL, out.Data.Renewable)
		if s.grant.Renewable { // how much of its life is over is not told: renew it, then we know
			s.grant.renewAt = now
			return 0
		}
	case err == nil, n == http.StatusForbidden, n == http.StatusBadRequest:
		// Not permitted, or its longest life is over: it ends when it ends.
		s.grant.known, s.grant.renewAt = true, time.Time{}
	default:
		// Vault is out: a short while before the next try, as often as its life allows.
		s.grant.renewAt = now.Add(max(time.Second, min(s.grant.Expires.Sub(now)/4, tendEvery)))
		if !s.grant.known {
			return tendEvery
		}
	}
	if s.grant.renewAt.IsZero() {
		return tendEvery
	}
	return max(min(s.grant.renewAt.Sub(now), tendEvery), 100*time.Millisecond)
}

// close ends the tending, and the login.
func (s *session) close(ctx context.Context) {
	s.mu.Lock()
	stop, g := s.stop, s.grant
	s.stop, s.closed = nil, true
	if s.method != nil {
		s.grant = Grant{}
	}
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
	if s.method != nil && !g.token.IsZero() {
		s.end(ctx, g.token)
	}
}
