package vaultkv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/rotatord/rotatord/rotator/child"
)

// maxBody is more than a secret can be: Vault's own default limit of a request is 32 MiB.
const maxBody = 33 << 20

// Client talks to one Vault. It may be used from many goroutines.
type Client struct {
	vault     *api.Client
	http      *http.Client // inside vault
	timeout   time.Duration
	tokenFile string // read for each request; "": token
	token     string

	tokenMu sync.Mutex // held from choosing the token to building the request with it
	locksMu sync.Mutex
	locks   map[string]*keyLock
}

// Close lets go of idle connections. The client can still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func neverRetry(context.Context, *http.Response, error) (bool, error) { return false, nil }

// Error is an answer of Vault that is not a success.
type Error struct {
	Method string   // of the request
	Path   string   // of the request, without /v1/
	Status int      // of the answer
	Words  []string // Vault's own; empty where the answer was not Vault's
	Hint   string   // what it means and what to do; may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "vault: %s %s: %d", e.Method, e.Path, e.Status)
	if len(e.Words) > 0 {
		fmt.Fprintf(&b, " %s", strings.Join(e.Words, "; "))
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, ": %s", e.Hint)
	}
	return b.String()
}

// says reports whether Vault's words contain text.
func (e *Error) says(text string) bool {
	for _, w := range e.Words {
		if strings.Contains(w, text) {
			return true
		}
	}
	return false
}

// status returns the status of Vault's answer, or 0 where err is not one.
func status(err error) (int, *Error) {
	var e *Error
	if errors.As(err, &e) {
		return e.Status, e
	}
	return 0, nil
}

// do sends one request, once, and decodes the answer into out where that is not nil. An answer
// that is no success is an *Error; its body is decoded into out too, where it is JSON.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := c.request(method, path)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	if in != nil {
		// Not BodyBytes: they would be lost when a standby sends the request on to the active node.
		if err := req.SetJSONBody(in); err != nil {
			return fmt.Errorf("vault: %s %s: the request: %w", method, path, err)
		}
	}
	if method == http.MethodPatch {
		req.Headers.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := c.vault.RawRequestWithContext(ctx, req) //nolint:staticcheck // Logical cannot patch by check-and-set without hiding the status
	if resp != nil {
		defer resp.Body.Close() //nolint:errcheck // nothing is written
	}
	var words *api.ResponseError
	switch {
	case errors.As(err, &words):
		e := &Error{Method: method, Path: path, Status: words.StatusCode}
		if words.RawError {
			e.Hint = "the answer is not Vault's: look at the address, and at what stands in front of it"
		}
		for _, w := range words.Errors {
			if w = tidy(w); !words.RawError && w != "" {
				e.Words = append(e.Words, w)
			}
		}
		if out != nil {
			decode(resp.Body, out) //nolint:errcheck // a refusal without a body is one all the same
		}
		c.explain(ctx, e)
		return e
	case err != nil:
		return fmt.Errorf("vault: %s %s: %w", method, path, network(err))
	case out == nil:
		return nil
	}
	if err := decode(resp.Body, out); err != nil {
		return fmt.Errorf("vault: %s %s: the answer is not Vault's JSON: look at the address, and at what stands in front of it", method, path)
	}
	return nil
}

// request builds a request with the token that is right now.
func (c *Client) request(method, path string) (*api.Request, error) {
	token := c.token
	if c.tokenFile != "" {
		var err error
		if token, err = readToken(c.tokenFile); err != nil {
			return nil, fmt.Errorf("token_file: %w", err)
		}
	}
	if token == "" {
		return nil, errors.New("no token: set token_file in the vault block, or VAULT_TOKEN")
	}
	c.tokenMu.Lock()
	defer c.tokenMu.Unlock()
	if c.vault.Token() != token {
		c.vault.SetToken(token)
	}
	return c.vault.NewRequest(method, "/v1/"+path), nil
}

// explain adds what the status of the node tells, which the answer alone does not.
func (c *Client) explain(ctx context.Context, e *Error) {
	switch {
	case e.Hint != "":
	case e.Status == http.StatusServiceUnavailable && e.says("sealed"):
		e.Hint = "unseal it; rotatord tries again by itself"
	case e.Status == http.StatusForbidden && (e.says("invalid token") || e.says("bad token")):
		e.Hint = "the Vault token has expired or was revoked: give a new one in token_file or VAULT_TOKEN"
	case e.Status >= 500:
		e.Hint = c.node(ctx)
	}
}

// node asks the node what it is, and says so where that explains a failure.
func (c *Client) node(ctx context.Context) string {
	req := c.vault.NewRequest(http.MethodGet, "/v1/sys/health")
	req.Headers.Del(api.NamespaceHeaderName)
	req.ClientToken = ""
	resp, _ := c.vault.RawRequestWithContext(ctx, req) //nolint:staticcheck // see do; every state but active comes with an error too
	if resp == nil {
		return ""
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return "this node is a standby that does not reach its active node: look at the cluster, or give the address of the active node"
	case 472:
		return "this node is a disaster recovery secondary and answers nothing: give the address of the primary"
	case http.StatusNotImplemented:
		return "this Vault is not initialised"
	case http.StatusServiceUnavailable:
		return "this Vault is sealed: unseal it; rotatord tries again by itself"
	}
	return ""
}

// decode reads one JSON value. Numbers stay as they are written, by being left undecoded.
func decode(r io.Reader, out any) error { return json.NewDecoder(r).Decode(out) }

// network returns what went wrong without the URL, which a *url.Error would print.
func network(err error) error {
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return errors.New("the server speaks http, and the address says https")
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// tidy makes one line of Vault's words, of a bearable length and without anything like a token.
func tidy(words string) string {
	s := strings.Join(strings.Fields(words), " ")
	const most = 400
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return child.Redact(s)
}

// keyLock is held by the one push that changes a secret now.
type keyLock struct {
	held  chan struct{}
	users int
}

// lock makes the pushes of this process to one secret follow each other: each one adds its own
// key to what the one before has left. It gives up when ctx ends.
func (c *Client) lock(ctx context.Context, key string) (unlock func(), err error) {
	c.locksMu.Lock()
	l := c.locks[key]
	if l == nil {
		l = &keyLock{held: make(chan struct{}, 1)}
		c.locks[key] = l
	}
	l.users++
	c.locksMu.Unlock()
	leave := func() {
		c.locksMu.Lock()
		defer c.locksMu.Unlock()
		if l.users--; l.users == 0 {
			delete(c.locks, key)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("vault: wait for another push to %s: %w", key, ctx.Err())
	}
}
