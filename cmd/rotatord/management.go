package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/management"
	"github.com/rotatord/rotatord/rotator/sitegpt"
)

const (
	metaOwn        = "management"         // what the keeper notes
	metaOwnExpires = "management-expires" // when the operator's credential expires, as SiteGPT last told
)

// ownFile is where rotatord's own rotated tokens are: the only plaintext in the state folder.
func ownFile(dir string) string { return filepath.Join(dir, "management") }

// bearer returns where the management token comes from. The function is asked at each request, so
// a file that is replaced counts from then on. None is no error where rotatord rotated its own in
// the state at dir.
func (a *app) bearer(c *config.Config, dir string) (func() rotator.Secret, error) {
	if !a.set.Token.IsZero() {
		if strings.ContainsFunc(a.set.Token.Reveal(), func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return nil, usage("SITEGPT_API_TOKEN has blanks or other characters that no token has: set it to the token alone")
		}
		return func() rotator.Secret { return a.set.Token.Secret }, nil
	}
	ref := c.API.Token
	if a.set.TokenFile != "" {
		ref.File, ref.Credential, ref.Env = a.set.TokenFile, "", ""
	}
	const credential = "sitegpt-api-token" //nolint:gosec // a file's name
	if dir := a.getenv("CREDENTIALS_DIRECTORY"); ref.IsZero() && dir != "" {
		if _, err := os.Stat(filepath.Join(dir, credential)); err == nil {
			ref.Credential = credential
		}
	}
	_, err := os.Stat(ownFile(dir))
	rotated := err == nil
	if ref.IsZero() && rotated {
		return func() rotator.Secret { return rotator.Secret{} }, nil
	}
	if ref.IsZero() {
		return nil, usage("no management token: set SITEGPT_API_TOKEN or SITEGPT_API_TOKEN_FILE, or api.token in the configuration")
	}
	text, err := ref.Read(a.getenv)
	if err != nil && !rotated {
		return nil, usage("management token: %w", err)
	}
	var mu sync.Mutex
	last := rotator.NewSecret(text)
	return func() rotator.Secret {
		mu.Lock()
		defer mu.Unlock()
		if text, err := ref.Read(a.getenv); err == nil {
			last = rotator.NewSecret(text)
		}
		return last // while the file is being replaced, the last one
	}, nil
}

// account is the one that the state belongs to: no candidate of another one is taken. It is also the
// API that the engine asks, since the list tells when the operator's credential expires.
type account struct {
	rotator.API
	house  *house
	given  func() rotator.Secret
	accept bool // whatever account it is

	mu sync.Mutex
	id string // of the operator's credential, where SiteGPT tells it
}

// works asks SiteGPT whose a candidate is: whoever gets an answer works.
func (c *account) works(ctx context.Context, s rotator.Secret) error {
	who, err := c.house.client.Me(ctx, s)
	if err != nil && !errors.Is(err, rotator.ErrForbidden) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	origin, user, known, err := c.house.store.Pinned(ctx)
	if err != nil {
		return err
	}
	if known && user != "" && who.ID != "" && user != who.ID && !c.accept {
		return fmt.Errorf("it belongs to user %s, and this state to user %s: use another --state-dir, or --accept-account", who.ID, user)
	}
	if !known || c.accept || (user == "" && who.ID != "") {
		now := c.house.client.Origin()
		if err := c.house.store.Pin(ctx, now, who.ID, c.house.pinned(now, who.ID, origin, user, known)...); err != nil {
			return err
		}
		c.accept = false // this account, and no third one
	}
	if s.Reveal() == c.given().Reveal() {
		c.id = who.TokenID
		c.house.seen(ctx, who.Expires)
	}
	return nil
}

// List implements rotator.API.
func (c *account) List(ctx context.Context) ([]rotator.Listed, error) {
	listed, err := c.API.List(ctx)
	c.mu.Lock()
	id := c.id
	c.mu.Unlock()
	if i := slices.IndexFunc(listed, func(t rotator.Listed) bool { return t.ID == id }); i >= 0 && !listed[i].Expires.IsZero() {
		c.house.seen(ctx, listed[i].Expires)
	}
	return listed, err
}

// asker is the API for a command that holds no lock: it asks with the token that the daemon would
// use, and notes nothing.
func (a *app) asker(ctx context.Context, l *look) (*sitegpt.Client, rotator.API, error) {
	given, err := a.bearer(l.config, l.dir)
	if err != nil {
		return nil, nil, err
	}
	note := ""
	if st, err := a.reader(ctx, l.dir); err == nil {
		defer st.Close() //nolint:errcheck // only read
		if note, _, err = st.Meta(ctx, metaOwn); err != nil {
			return nil, nil, err
		}
	}
	var keeper *management.Keeper
	client, _, err := a.client(l.config, func() rotator.Secret { s, _ := keeper.Bearer(); return s }, nil)
	if err != nil {
		return nil, nil, err
	}
	keeper = management.New(management.Config{
		File: ownFile(l.dir), Key: l.key, Given: given, Works: client.Verify,
		Note:    func(context.Context) (string, error) { return note, nil },
		SetNote: func(context.Context, string) error { return nil },
	})
	return client, &management.API{API: client, Keeper: keeper}, nil
}

// prove returns the test that a new management token has to pass before it takes over: it lists its
// own id. Where the one in use may not list either, that says nothing.
func (b *house) prove(c *config.Config, limiter *sitegpt.Limiter) func(context.Context, rotator.Secret, string) error {
	return func(ctx context.Context, s rotator.Secret, id string) error {
		client, _, err := b.a.client(c, func() rotator.Secret { return s }, b.metrics.API)
		if err != nil {
			return err
		}
		defer client.Close()
		if err := limiter.Wait(ctx, 1); err != nil {
			return err
		}
		listed, err := client.List(ctx)
		if errors.Is(err, rotator.ErrForbidden) {
			if err := limiter.Wait(ctx, 1); err != nil {
				return err
			}
			if _, old := b.client.List(ctx); errors.Is(old, rotator.ErrForbidden) {
				return nil
			}
		}
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(listed, func(t rotator.Listed) bool { return t.ID == id }) {
			return errors.New("list: its own id is missing (another account, or SiteGPT has not caught up yet)")
		}
		return nil
	}
}

// seen notes when the operator's credential expires; zero where SiteGPT does not say.
func (b *house) seen(ctx context.Context, expires time.Time) {
	text := ""
	if !expires.IsZero() {
		text = expires.UTC().Format(time.RFC3339)
	}
	if old, _, err := b.store.Meta(ctx, metaOwnExpires); err == nil && old == text {
		return
	}
	if err := b.store.SetMeta(ctx, metaOwnExpires, text); err != nil {
		b.log.Warn("note when the management token expires", "error", err)
	}
}

const (
	ownWarns = 30 * 24 * time.Hour // before its expiry, a management token is worth a word
	ownFails = 7 * 24 * time.Hour  // and from then on it is a failure: nobody else will mend it
)

// ownExpiry warns of a management token that nobody rotates and that is about to expire. seen is
// what SiteGPT told of it; what the configuration says counts only where it told nothing.
func ownExpiry(c *config.Config, records []rotator.Record, seen string, now time.Time) []rotator.Problem {
	expires, rotated := ownExpires(c, records, seen, now)
	if rotated {
		return nil // that one is watched like every entry
	}
	left := expires.Sub(now)
	if expires.IsZero() || left > ownWarns {
		return nil
	}
	what := fmt.Sprintf("the management token expires %s (%s): nothing can be created or revoked after that", in(expires, now), local(expires))
	if left <= 0 {
		what = fmt.Sprintf("the management token expired %s: nothing can be created or revoked", ago(expires, now))
	}
	return []rotator.Problem{{Kind: rotator.ProblemOwnExpiry, Token: rotator.OwnName, What: what, Failing: left <= ownFails}}
}

// ownExpires is when the management token in use expires, and whether it is one that rotatord rotated;
// zero where nobody knows.
func ownExpires(c *config.Config, records []rotator.Record, seen string, now time.Time) (at time.Time, rotated bool) {
	for i := range records {
		if g := records[i].Current(now); records[i].Name == rotator.OwnName && g != nil {
			return g.Expires, true
		}
	}
	at, err := time.Parse(time.RFC3339, seen)
	if err != nil {
		at = c.Management.ExpiresAt
	}
	return at, false
}

// ownSeen is when the operator's credential expires, as SiteGPT last told; "" where it did not.
func (b *house) ownSeen(ctx context.Context) string {
	seen, _, err := b.store.Meta(ctx, metaOwnExpires)
	if err != nil {
		b.log.Warn("look when the management token expires", "error", err)
	}
	return seen
}

// ownProblems is ownExpiry for whoever holds the state.
func (b *house) ownProblems(ctx context.Context) []rotator.Problem {
	seen := b.ownSeen(ctx)
	_, records := b.engine.Snapshot()
	c, _ := b.inForce()
	return ownExpiry(c, records, seen, b.a.now())
}
