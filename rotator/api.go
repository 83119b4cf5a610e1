package rotator

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// API is what the engine needs of SiteGPT. An implementation retries nothing, waits for no
// limiter and keeps no state that matters: the engine does all of it. Every method must return
// soon after ctx ends.
type API interface {
	// Create sends exactly one POST. An error for which errors.Is(err, ErrRefused) holds, or
	// errors.As finds a *LimitedError, says that certainly nothing was made. Any other error
	// leaves it unknown.
	Create(ctx context.Context, r Request) (Issued, error)
	// Verify authenticates with s. nil: the token works. ErrUnauthorized: the API does not know
	// the token. Anything else says nothing about the token.
	Verify(ctx context.Context, s Secret) error
	// List returns every live token of the account, or an error; never a part. ErrForbidden:
	// the management token may not list.
	List(ctx context.Context) ([]Listed, error)
	// Revoke makes id useless. nil when the id is dead, also if it was before.
	Revoke(ctx context.Context, id string) error
}

// Request is one create call. The documentation names these fields; nothing else is sent.
type Request struct {
	Label     string    // the token's name at SiteGPT, 1 to 120 characters
	Scopes    []string  // at least one
	Chatbots  []string  // nil: all that are accessible
	ExpiresAt time.Time // UTC, whole seconds
}

// Issued is the answer to a create.
type Issued struct {
	ID        string
	Scopes    []string  // granted; nil where the answer does not say
	ExpiresAt time.Time // zero where the answer does not say
	Token     Secret    // shown this once
	By        int       // the generation of rotatord's own token that asked; 0: none of ours did
}

// Listed is one token as the list shows it. Only ID and Name are documented; a zero value in any
// other field means that the list does not say.
type Listed struct {
	ID, Name                            string
	Created, Expires, Revoked, LastUsed time.Time
	Scopes                              []string
}

var (
	// ErrRefused says that the API, or a failure before a single byte was sent, certainly made nothing.
	ErrRefused = errors.New("refused")
	// ErrRejected is a refusal of the request itself: the API understood it and says no (a scope
	// that the user may not give, say). It matches ErrRefused too.
	ErrRejected = fmt.Errorf("%w by the API", ErrRefused)
	// ErrUnauthorized is the API's 401: the bearer does not authenticate.
	ErrUnauthorized = errors.New("not authorized")
	// ErrForbidden is the API's 403: the bearer authenticates and may not do this.
	ErrForbidden = errors.New("forbidden")
)

// Unsent says, in the words of err, that a request was not even sent: it matches ErrRefused.
func Unsent(err error) error { return unsent{err} }

type unsent struct{ error }

func (u unsent) Unwrap() error { return u.error }

func (unsent) Is(target error) bool { return target == ErrRefused }

// LimitedError is the API's 429: nothing was made, come back later.
type LimitedError struct {
	After time.Duration // the server's Retry-After; 0 where it gave none
	Err   error         // what the API said; may be nil
}

func (e *LimitedError) Error() string {
	s := "rate limited"
	if e.After > 0 {
		s = fmt.Sprintf("rate limited for %s", e.After)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *LimitedError) Unwrap() error { return e.Err }
