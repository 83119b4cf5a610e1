package vaultkv

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/child"
)

// maxBody is more than a secret can be: Vault's own default limit of a request is 32 MiB.
const maxBody = 33 << 20

// Client talks to one Vault. It may be used from many goroutines.
type Client struct {
	name    string // for people, and the same for all sinks of the connection
	vault   *api.Client
	http    *http.Client // inside vault
	timeout time.Duration
	now     func() time.Time
	getenv  func(string) string
	session *session
	peek    bool // use nothing up
	gate    gate
	observe func(operation, outcome string, took time.Duration) // nil: nobody wants to know

	unwrapped *Unwrapped

	requests sync.Mutex // held while a request is built
	locksMu  sync.Mutex
	locks    map[string]*keyLock
	mountsMu sync.Mutex
	mounts   map[string]mount
}

// Name returns what people call the connection.
func (c *Client) Name() string { return c.name }

// closing bounds how long Close waits for Vault.
const closing = 3 * time.Second

// Close ends the login, if it is one of ours, and lets go of idle connections. The client can still
// be used: it logs in again.
func (c *Client) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	c.session.close(ctx)
	c.http.CloseIdleConnections()
}

func neverRetry(context.Context, *http.Response, error) (bool, error) { return false, nil }

// Error is an answer of Vault that is not a success.
type Error struct {
	Method string   // of the request; "": none was sent, since it would be refused
	Path   string   // of the request, without /v1/
	Status int      // of the answer
	Words  []string // Vault's own; empty where the answer was not Vault's
	Hint   string   // what it means and what to do; may be empty

	raw bool // the answer is not Vault's
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("vault: ")
	if e.Method == "" {
		fmt.Fprintf(&b, "%s:", e.Path)
	} else {
		fmt.Fprintf(&b, "%s %s: %d", e.Method, e.Path, e.Status)
	}
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

// do sends one request with the token of the connection, and decodes the answer into out where
// that is not nil. An answer that is no success is an *Error; its body is decoded into out too,
// where it is JSON. A failure that has nothing to do with this very request is a
// *rotator.OutageError. A request is sent again only where the token was refused, and another one
// is to be had.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	token, err := c.session.token(ctx)
	if err != nil {
		return c.outage(err)
	}
	err = c.send(ctx, token.Reveal(), method, path, in, out)
	n, e := status(err)
	if n != http.StatusForbidden || e.Hint != "" {
		return c.shared(ctx, err)
	}
	if token.IsZero() {
		if c.send(ctx, "", http.MethodGet, "auth/token/lookup-self", nil, nil) == nil {
			return err // who stands in front of Vault has a token: it is that one's policy
		}
		e.Hint = "no token: set token_file or auth in the vault block, or VAULT_TOKEN"
		return c.outage(err)
	}
	if !c.session.refused(ctx, token, e) {
		return err
	}
	again, terr := c.session.token(ctx)
	switch {
	case terr != nil:
		return c.outage(terr)
	case again.Reveal() == token.Reveal():
		e.Hint = "the Vault token has expired or was revoked: give a new one in token_file or VAULT_TOKEN"
		return c.outage(err)
	}
	return c.shared(ctx, c.send(ctx, again.Reveal(), method, path, in, out))
}

// outage marks a failure that all sinks of the connection share.
func (c *Client) outage(err error) error { return &rotator.OutageError{What: c.name, Err: err} }

// shared marks err where its cause is not this very request: Vault does not answer, is sealed, or
// has no active node.
func (c *Client) shared(ctx context.Context, err error) error {
	n, e := status(err)
	switch {
	case err == nil, errors.Is(ctx.Err(), context.Canceled):
		return err
	case n == 0 && !errors.Is(err, errStrange):
		return c.outage(err)
	case n == http.StatusInternalServerError && e.Hint == "":
		return err
	case n >= http.StatusInternalServerError:
		return c.outage(err)
	}
	return err
}

// errStrange says that an answer was a success, and not Vault's.
var errStrange = errors.New("the answer is not Vault's JSON: look at the address, and at what stands in front of it")

// send sends one request, once, with this token; "" is none.
func (c *Client) send(ctx context.Context, token, method, path string, in, out any) error {
	if err := c.gate.enter(c.now()); err != nil {
		return err
	}
	begun := c.now()
	err := c.ask(ctx, begun, token, method, path, in, out)
	if c.observe != nil {
		c.observe(operation(method, path), outcome(ctx, err), max(0, c.now().Sub(begun)))
	}
	return err
}

// ask is send, past the gate and unobserved.
func (c *Client) ask(ctx context.Context, begun time.Time, token, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req := c.request(token, method, path)
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
		c.gate.answered()
		e := &Error{Method: method, Path: path, Status: words.StatusCode, raw: words.RawError}
		if words.RawError {
			e.Hint = "the answer is not Vault's: look at the address, and at what stands in front of it"
			if strings.Contains(strings.Join(words.Errors, " "), "HTTP request to an HTTPS server") {
				e.Hint = "the server speaks https, and the address says http"
			}
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
		err = fmt.Errorf("vault: %s %s: %w", method, path, network(err))
		if !errors.Is(ctx.Err(), context.Canceled) {
			c.gate.silent(begun, c.now(), c.name, err)
		}
		return err
	}
	c.gate.answered()
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := decode(resp.Body, out); err != nil {
		return fmt.Errorf("vault: %s %s: %w", method, path, errStrange)
	}
	return nil
}

// request builds a request. The library keeps the token of the next request in the client, so that
// two cannot be built at once.
func (c *Client) request(token, method, path string) *api.Request {
	c.requests.Lock()
	defer c.requests.Unlock()
	if c.vault.Token() != token {
		c.vault.SetToken(token)
	}
	return c.vault.NewRequest(method, "/v1/"+path)
}

// explain adds what the status of the node tells, which the answer alone does not.
func (c *Client) explain(ctx context.Context, e *Error) {
	switch {
	case e.Hint != "":
	case e.Status == http.StatusServiceUnavailable && e.says("sealed"):
		e.Hint = "unseal it; rotatord tries again by itself"
	case e.Status >= 500:
		e.Hint, _ = c.node(ctx)
	}
}

// node asks the node what it is, and says so where that explains a failure. An error says that it
// does not answer.
func (c *Client) node(ctx context.Context) (says string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req := c.request("", http.MethodGet, "sys/health")
	req.Headers.Del(api.NamespaceHeaderName)
	resp, err := c.vault.RawRequestWithContext(ctx, req) //nolint:staticcheck // see do; every state but active comes with an error too
	if resp == nil {
		return "", fmt.Errorf("vault: GET sys/health: %w", network(err))
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return "this node is a standby that does not reach its active node: look at the cluster, or give the address of the active node", nil
	case 472:
		return "this node is a disaster recovery secondary and answers nothing: give the address of the primary", nil
	case http.StatusNotImplemented:
		return "this Vault is not initialised", nil
	case http.StatusServiceUnavailable:
		return "this Vault is sealed: unseal it; rotatord tries again by itself", nil
	}
	return "", nil
}

// decode reads one JSON value. Numbers stay as they are written, by being left undecoded.
func decode(r io.Reader, out any) error { return json.NewDecoder(r).Decode(out) }

// network returns what went wrong without the URL, which a *url.Error would print, and what to do
// where that can be told.
func network(err error) error {
	text := err.Error()
	if strings.Contains(text, "server gave HTTP response to HTTPS client") {
		return errors.New("the server speaks http, and the address says https")
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer in time: look at the network between here and Vault, and at its load: %w", err)
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: set ca_cert to the PEM file of the authority that signed the server's certificate, or VAULT_CACERT", err)
	case errors.As(err, &name):
		return fmt.Errorf("%w: use a name of the certificate in address, or set tls_server_name", err)
	case strings.Contains(text, "tls: certificate required"), strings.Contains(text, "tls: bad certificate"):
		return fmt.Errorf("%w: the server asks for a certificate of ours: set client_cert and client_key", err)
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), strings.Contains(text, "http2: client conn"):
		// With TLS 1.3 a server refuses us after its part of the handshake, and what it says can come too late.
		return fmt.Errorf("%w: the server hung up; if it asks for a certificate of ours, set client_cert and client_key", err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Errorf("%w: look at the address", err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nothing listens there: look at the address, and at whether Vault runs", err)
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
		return nil, fmt.Errorf("vault: wait for somebody else of ours at %s: %w", key, ctx.Err())
	}
}
