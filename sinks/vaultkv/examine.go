package vaultkv

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator/field"
)

// Examination is what a look at a connection finds.
type Examination struct {
	Says   string // how it is logged in, and for how long
	Doubts string // what works, and should not stay so; "" is nothing
	Peeked bool   // there is a login to be had, and it was not made, since that would use it up
}

// errPeek says that a login was not made, since it would use up a wrapped secret id.
var errPeek = errors.New("not asked: a login would use up the wrapped secret id, which the daemon needs")

// expiresSoon is how near the end of a token that cannot be renewed is worth a word.
const expiresSoon = 7 * 24 * time.Hour

// Examine logs in, where that is not done yet, and says what came of it.
func (c *Client) Examine(ctx context.Context) (Examination, error) {
	var x Examination
	var doubts []string
	if Unverified(c.getenv) {
		doubts = append(doubts, "the server's certificate is NOT verified (VAULT_SKIP_VERIFY): name the authority with ca_cert instead")
	}
	token, err := c.session.token(ctx)
	switch {
	case errors.Is(err, errPeek):
		x.Peeked, x.Says = true, "a wrapped secret id waits in "+c.session.method.where+"; it is not used up by looking, so nothing else was asked"
		says, err := c.node(ctx)
		if says != "" {
			err = fmt.Errorf("vault: GET sys/health: %s", says)
		}
		return x, err
	case err != nil:
		return x, err
	}
	var about struct {
		Data struct {
			TTL       int64    `json:"ttl"`
			Renewable bool     `json:"renewable"`
			Policies  []string `json:"policies"`
		} `json:"data"`
	}
	err = c.do(ctx, http.MethodGet, "auth/token/lookup-self", nil, &about)
	switch n, e := status(err); {
	case n == http.StatusForbidden && e.Hint == "":
		x.Says = "the login works; its policy does not let the token look at itself, so how long it lasts is not known"
		return x, nil
	case err != nil:
		return x, err
	}
	ttl := time.Duration(about.Data.TTL) * time.Second
	if c.session.method != nil {
		c.session.mu.Lock()
		ttl = c.session.grant.ttl // the login is a moment old by now
		c.session.mu.Unlock()
	}
	switch {
	case token.IsZero():
		x.Says = "no token is needed: who stands in front of Vault has one"
	case c.session.method == nil:
		x.Says = "the given token works"
	default:
		x.Says = "logs in by " + c.session.method.name
	}
	switch {
	case ttl == 0:
		x.Says += ", and does not expire"
	case about.Data.Renewable:
		x.Says += ", for " + field.FormatDuration(ttl) + " at a time, and is renewed"
	case c.session.method != nil:
		x.Says += ", for " + field.FormatDuration(ttl) + " at a time; it cannot be renewed, and is made again"
	default:
		x.Says += ", for " + field.FormatDuration(ttl) + " more; it cannot be renewed"
		if ttl < expiresSoon {
			doubts = append(doubts, "give another one before that, or let rotatord log in by itself (auth)")
		}
	}
	if slices.Contains(about.Data.Policies, "root") {
		doubts = append(doubts, "it is a root token, which may do everything: give rotatord one with the policy of docs/vault.md")
	}
	x.Doubts = strings.Join(doubts, "; ")
	return x, nil
}
