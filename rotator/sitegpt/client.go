// Package sitegpt speaks SiteGPT's API: it creates, lists and revokes tokens, and says of a token
// whether it works. Whatever goes wrong, the caller learns whether a token may have been made.
//
// A create is one POST, on a connection of its own, that nothing repeats: no idempotency key, no
// rewindable body, no redirect. It ends in one of four ways: the token; refused, where certainly
// nothing was made; limited, likewise; or unknown, which is everything that is not certain, like a
// proxy's page, a broken connection, a server error, or a success that lacks the token.
//
// Only an envelope ({"ok": …}) is an answer of the API. A 401, 403 or 404 without one comes from
// something in between, and says nothing about a token. Texts in answers are not trusted: they are
// shortened, stripped of control characters and of all that looks like a token; bodies are never
// quoted.
package sitegpt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

const (
	// DefaultTimeout is how long one request may take when Config names no time.
	DefaultTimeout = 10 * time.Second
	// MaxSkew is the difference between the two clocks from which on people should be told.
	MaxSkew = 30 * time.Second

	maxAnswer     = 16 << 20  // bytes of one answer
	maxRetryAfter = time.Hour // a longer Retry-After is a mistake, or a way to stop us
	pageSize      = 100
	maxPages      = 1000
)

// Config is what a Client needs. BaseURL, Token and Now are required.
type Config struct {
	BaseURL   string // the origin; see ParseOrigin
	AllowHTTP bool   // plain http to other machines too

	// Token returns the management token. It is asked at each request, so that it can be rotated.
	Token func() rotator.Secret

	Timeout   time.Duration // for one request, from connecting to the last byte; 0: DefaultTimeout
	UserAgent string        // default: rotatord

	// Transport carries the requests. nil, and an *http.Transport, are cloned: once for reading,
	// once for creates (a fresh HTTP/1.1 connection each). Anything else is used as it is and must
	// not repeat a request.
	Transport http.RoundTripper

	Limiter *Limiter // told about 429s and about pages nobody waited for; may be nil
	Now     func() time.Time

	// Observe is told how each request went, once it is over; may be nil. It must return at once.
	Observe func(op, outcome string, took time.Duration)
}

// Client is the API. Its methods may be used from many goroutines.
type Client struct {
	origin    string
	token     func() rotator.Secret
	timeout   atomic.Int64 // a duration
	agent     string
	transport http.RoundTripper
	fresh     http.RoundTripper // for creates
	limiter   *Limiter
	now       func() time.Time
	observe   func(op, outcome string, took time.Duration)

	mu       sync.Mutex
	offset   time.Duration
	offsets  bool      // an offset is known
	measured time.Time // when an answer last bore the clocks out, with its monotonic reading; zero: none did since a jump
}

var _ rotator.API = (*Client)(nil)

// New returns a client, or an error that says what of c is wrong. It sends nothing.
func New(c Config) (*Client, error) {
	origin, err := ParseOrigin(c.BaseURL, c.AllowHTTP)
	if err != nil {
		return nil, err
	}
	if c.Token == nil || c.Now == nil {
		return nil, errors.New("sitegpt: a token source and a clock are required")
	}
	if c.Timeout < 0 {
		return nil, fmt.Errorf("timeout: %s is negative", c.Timeout)
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.UserAgent == "" {
		c.UserAgent = "rotatord"
	}
	if strings.ContainsFunc(c.UserAgent, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, errors.New("user agent: has control characters")
	}
	cl := &Client{
		origin: origin, token: c.Token, agent: c.UserAgent,
		transport: c.Transport, fresh: c.Transport, limiter: c.Limiter, now: c.Now, observe: c.Observe,
	}
	cl.SetTimeout(c.Timeout)
	base, isHTTP := c.Transport.(*http.Transport)
	if c.Transport == nil {
		if base, isHTTP = http.DefaultTransport.(*http.Transport); !isHTTP {
			base, isHTTP = &http.Transport{Proxy: http.ProxyFromEnvironment}, true
		}
	}
	if isHTTP {
		cl.transport, cl.fresh = base.Clone(), freshTransport(base)
	}
	return cl, nil
}

// SetTimeout changes how long one request may take, from the next one on.
func (c *Client) SetTimeout(d time.Duration) { c.timeout.Store(int64(d)) }

// freshTransport returns a clone of t that opens a connection for each request. Nothing is ever
// repeated on such a connection, while net/http does repeat some requests on a connection that
// was used before; and no create is lost because a server has just closed an idle connection.
// It speaks HTTP/1.1 only, since HTTP/2 has repetitions of its own.
func freshTransport(t *http.Transport) *http.Transport {
	f := t.Clone()
	f.DisableKeepAlives = true
	f.ForceAttemptHTTP2 = false
	f.Protocols = new(http.Protocols)
	f.Protocols.SetHTTP1(true)
	f.TLSNextProto = nil
	if f.TLSClientConfig != nil {
		f.TLSClientConfig.NextProtos = nil
	}
	return f
}

// Origin returns the API's base URL in its canonical form.
func (c *Client) Origin() string { return c.origin }

// Close closes idle connections.
func (c *Client) Close() {
	if t, ok := c.transport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

// Offset returns what has to be added to the local clock to get the API's, as of the last answer,
// in whole seconds (a Date header is no finer); false as long as no answer told.
func (c *Client) Offset() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset, c.offsets
}

// Measured reports whether the local clock with the offset can be trusted: an answer bore it out
// since this process began, and since either clock last jumped by more than MaxSkew. An offset that
// jumps has to be seen twice: one proxy with a wrong Date header moves nobody's expiry.
func (c *Client) Measured() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.measured.IsZero() && !stepped(c.measured, c.now())
}

// stepped reports whether the wall clock was moved between two of its readings: it went further, or
// less far, than the monotonic clock did. A suspended machine looks the same, and is treated the same.
func stepped(a, b time.Time) bool {
	return (b.Round(0).Sub(a.Round(0)) - b.Sub(a)).Abs() > MaxSkew
}

// Skew returns the offset, and whether it is so large, beyond MaxSkew, that people should be told:
// one of the two clocks is wrong.
func (c *Client) Skew() (time.Duration, bool) {
	d, ok := c.Offset()
	return d, ok && d.Abs() > MaxSkew
}

// Account is who a token belongs to.
type Account struct {
	ID, Email, Name string   // the user; "" where the answer does not say
	Scopes          []string // the token's; nil where the answer does not say

	// Not documented; zero where the answer does not say.
	TokenID string
	Expires time.Time // of the token
}

// Me asks who s belongs to. ErrUnauthorized: the API does not know s. ErrForbidden: it does, and s
// lacks account:read.
func (c *Client) Me(ctx context.Context, s rotator.Secret) (Account, error) {
	data, err := c.do(ctx, call{op: "me", method: http.MethodGet, path: "/api/v2/me", token: s})
	if err != nil {
		return Account{}, err
	}
	var d struct {
		User struct {
			ID    lax[string] `json:"id"`
			Email lax[string] `json:"email"`
			Name  lax[string] `json:"name"`
		} `json:"user"`
		Auth struct {
			Scopes    lax[[]string]  `json:"scopes"`
			TokenID   lax[string]    `json:"tokenId"`
			ExpiresAt lax[time.Time] `json:"expiresAt"`
		} `json:"auth"`
	}
	if json.Unmarshal(data, &d) != nil {
		return Account{}, &Error{Op: "me", Message: "the answer names no user"}
	}
	return Account{
		ID: d.User.ID.v, Email: d.User.Email.v, Name: d.User.Name.v, Scopes: d.Auth.Scopes.v,
		TokenID: d.Auth.TokenID.v, Expires: utc(d.Auth.ExpiresAt.v),
	}, nil
}

// Verify authenticates with s: nil also where s may not see the account, for that proves that it
// is known. ErrUnauthorized only where the API itself says so.
func (c *Client) Verify(ctx context.Context, s rotator.Secret) error {
	_, err := c.do(ctx, call{op: "verify", method: http.MethodGet, path: "/api/v2/me", token: s})
	if errors.Is(err, rotator.ErrForbidden) {
		return nil
	}
	return err
}

// Health asks whether the API is there. It needs no token and sends none.
func (c *Client) Health(ctx context.Context) error {
	_, err := c.do(ctx, call{op: "health", method: http.MethodGet, path: "/api/v2/health", anonymous: true})
	return err
}

// Create makes one token.
func (c *Client) Create(ctx context.Context, r rotator.Request) (rotator.Issued, error) {
	body, err := json.Marshal(struct {
		Name       string    `json:"name"`
		Scopes     []string  `json:"scopes"`
		ChatbotIDs *[]string `json:"chatbotIds,omitempty"`
		ExpiresAt  string    `json:"expiresAt"`
	}{r.Label, r.Scopes, chatbots(r.Chatbots), r.ExpiresAt.UTC().Truncate(time.Second).Format(time.RFC3339)})
	if err != nil {
		return rotator.Issued{}, &Error{Op: "create", Message: "the request cannot be written as JSON", is: []error{rotator.ErrRefused}}
	}
	data, err := c.do(ctx, call{op: "create", method: http.MethodPost, path: "/api/v2/tokens", token: c.token(), body: body})
	if err != nil {
		return rotator.Issued{}, err
	}
	var d struct {
		Token struct {
			ID        string         `json:"id"`
			Scopes    lax[[]string]  `json:"scopes"`
			ExpiresAt lax[time.Time] `json:"expiresAt"`
		} `json:"token"`
		Plaintext string `json:"plaintextToken"`
	}
	// From here on the API has said that there is a token: every error is an unknown outcome.
	if json.Unmarshal(data, &d) != nil {
		return rotator.Issued{}, &Error{Op: "create", Message: "the answer reports success in a form that is not documented"}
	}
	if !usableID(d.Token.ID) {
		return rotator.Issued{}, &Error{Op: "create", Message: "the answer reports success without a usable token id"}
	}
	if d.Plaintext == "" || strings.ContainsFunc(d.Plaintext, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return rotator.Issued{}, &Error{Op: "create", Message: "the answer reports success without a usable token"}
	}
	return rotator.Issued{
		ID:        d.Token.ID,
		Scopes:    d.Token.Scopes.v,
		ExpiresAt: utc(d.Token.ExpiresAt.v),
		Token:     rotator.NewSecret(d.Plaintext),
	}, nil
}

// chatbots keeps nil (all that are accessible) and an empty list apart: only nil is left out.
func chatbots(ids []string) *[]string {
	if ids == nil {
		return nil
	}
	return &ids
}

// List returns every token that the list shows as not revoked; expired ones too, where it shows
// them. A list that repeats itself, breaks off or has no end is an error, never a part.
func (c *Client) List(ctx context.Context) ([]rotator.Listed, error) {
	out := []rotator.Listed{}
	ids, cursors := map[string]bool{}, map[string]bool{"": true}
	cursor := ""
	for page := 1; ; page++ {
		if page > maxPages {
			return nil, &Error{Op: "list", Message: fmt.Sprintf("no end after %d pages", maxPages)}
		}
		if page > 1 && c.limiter != nil {
			c.limiter.Charge(1)
		}
		items, next, err := c.page(ctx, cursor)
		if err != nil {
			return nil, err
		}
		fresh := false
		for _, t := range items {
			// A token can be seen twice when others are made while we turn the page.
			if ids[t.ID] {
				continue
			}
			ids[t.ID], fresh = true, true
			if t.Revoked.IsZero() {
				out = append(out, t)
			}
		}
		if len(items) > 0 && !fresh {
			return nil, &Error{Op: "list", Message: fmt.Sprintf("page %d repeats what was shown before: the list is not complete", page)}
		}
		if next == "" {
			return out, nil
		}
		if cursors[next] {
			return nil, &Error{Op: "list", Message: fmt.Sprintf("page %d leads back to a page that was seen: the list is not complete", page)}
		}
		cursors[next], cursor = true, next
	}
}

// page returns one page of the list and the cursor of the next one, "" at the end.
func (c *Client) page(ctx context.Context, cursor string) ([]rotator.Listed, string, error) {
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	data, err := c.do(ctx, call{op: "list", method: http.MethodGet, path: "/api/v2/tokens?" + query.Encode(), token: c.token()})
	if err != nil {
		return nil, "", err
	}
	bad := func(why string) ([]rotator.Listed, string, error) {
		return nil, "", &Error{Op: "list", Message: why}
	}
	var d struct {
		Tokens []*struct {
			ID        string         `json:"id"`
			Name      string         `json:"name"`
			CreatedAt lax[time.Time] `json:"createdAt"`
			ExpiresAt lax[time.Time] `json:"expiresAt"`
			RevokedAt lax[time.Time] `json:"revokedAt"`
			LastUsed  lax[time.Time] `json:"lastUsedAt"`
			Scopes    lax[[]string]  `json:"scopes"`
		} `json:"tokens"`
		Pagination *struct {
			HasNext *bool    `json:"hasNextPage"`
			Next    pageMark `json:"nextCursor"`
		} `json:"pagination"`
	}
	if json.Unmarshal(data, &d) != nil || d.Tokens == nil {
		return bad("the answer is not the documented list")
	}
	items := make([]rotator.Listed, 0, len(d.Tokens))
	for _, t := range d.Tokens {
		if t == nil || t.ID == "" {
			return bad("the answer shows a token without an id")
		}
		items = append(items, rotator.Listed{
			ID: t.ID, Name: t.Name,
			Created: utc(t.CreatedAt.v), Expires: utc(t.ExpiresAt.v), Revoked: utc(t.RevokedAt.v), LastUsed: utc(t.LastUsed.v),
			Scopes: t.Scopes.v,
		})
	}
	if d.Pagination == nil || d.Pagination.HasNext == nil {
		// Then only a page that is not full proves that it is the last one.
		if d.Pagination != nil && d.Pagination.Next != "" || len(items) >= pageSize {
			return bad("the answer does not say whether there is another page")
		}
		return items, "", nil
	}
	if !*d.Pagination.HasNext {
		return items, "", nil
	}
	if d.Pagination.Next == "" {
		return bad("the answer promises another page and does not say where")
	}
	return items, string(d.Pagination.Next), nil
}

// Revoke makes id useless; an id that the API does not know is dead, too.
func (c *Client) Revoke(ctx context.Context, id string) error {
	if !usableID(id) {
		return &Error{Op: "revoke", Message: "the id is empty or cannot stand in a path"}
	}
	_, err := c.do(ctx, call{op: "revoke", method: http.MethodDelete, path: "/api/v2/tokens/" + url.PathEscape(id), token: c.token()})
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusNotFound && errors.Is(e, errEnvelope) {
		return nil
	}
	return err
}

// usableID reports whether id names one token when it stands in a path.
func usableID(id string) bool {
	return id != "" && id != "." && id != ".." && len(id) <= 512 &&
		!strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// errEnvelope marks an error that the API itself sent.
var errEnvelope = errors.New("answered by the API")

// call is one request.
type call struct {
	op, method, path string
	token            rotator.Secret
	anonymous        bool
	body             []byte
}

// do sends one request and returns the data of a success, or an *Error, or a *rotator.LimitedError.
func (c *Client) do(ctx context.Context, k call) (json.RawMessage, error) {
	begun := c.now()
	data, err := c.ask(ctx, k)
	if c.observe != nil {
		c.observe(k.op, outcome(k.op, err), max(0, c.now().Sub(begun)))
	}
	return data, err
}

// ask is do, unobserved.
func (c *Client) ask(ctx context.Context, k call) (json.RawMessage, error) {
	fail := func(status int, message string, is ...error) error {
		return &Error{Op: k.op, Status: status, Message: message, is: is}
	}
	bearer := k.token.Reveal()
	if !k.anonymous {
		if why := unusable(bearer); why != "" {
			return nil, fail(0, why, notSent(k)...)
		}
	}
	timed, cancel := context.WithTimeout(ctx, time.Duration(c.timeout.Load()))
	defer cancel()

	// Only a request that never had a connection, and whose body nobody read, was certainly not
	// sent: once the transport has both, it may write after it returned.
	var sent atomic.Bool
	traced := httptrace.WithClientTrace(timed, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	req, err := http.NewRequestWithContext(traced, k.method, c.origin+k.path, nil)
	if err != nil { // its text would quote the URL
		return nil, fail(0, "the request cannot be built", notSent(k)...)
	}
	transport := c.transport
	if k.body != nil {
		// No GetBody: a transport cannot rewind the body, so it cannot send it twice.
		req.Body, req.ContentLength = &watchedBody{Reader: bytes.NewReader(k.body), read: &sent}, int64(len(k.body))
		req.Header.Set("Content-Type", "application/json")
		transport = c.fresh
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.agent)
	if !k.anonymous {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}

	// RoundTrip, not an http.Client: no redirects, no cookies, no errors with a URL in them.
	begun := c.now()
	resp, err := transport.RoundTrip(req)
	ended := c.now()
	if err != nil {
		if sent.Load() {
			return nil, c.broken(ctx, timed, k, 0, "no answer", err)
		}
		e := c.broken(ctx, timed, k, 0, "no connection", err)
		e.is = append(e.is, notSent(k)...)
		return nil, e
	}
	defer resp.Body.Close()
	status := resp.StatusCode
	limited := status == http.StatusTooManyRequests
	after := time.Duration(0)
	if limited {
		after = retryAfter(resp.Header, ended)
	}
	if c.limiter != nil {
		if limited {
			c.limiter.Limited(after)
		} else {
			c.limiter.Answered()
		}
	}

	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	var env envelope
	var fault *Error
	switch {
	case err != nil:
		fault = c.broken(ctx, timed, k, status, "the answer broke off", err)
	case len(body) > maxAnswer:
		fault = &Error{Op: k.op, Status: status, Message: fmt.Sprintf("the answer is larger than %d MiB", maxAnswer>>20)}
	case status >= 300 && status <= 399:
		fault = &Error{Op: k.op, Status: status, Message: "the answer is a redirect, and none is followed; is the base URL right?"}
	case json.Unmarshal(body, &env) != nil || env.OK == nil:
		fault = &Error{Op: k.op, Status: status, Message: "the answer is not the API's (a proxy's page?)"}
	}
	if fault == nil {
		c.measure(resp.Header, begun, ended)
		if *env.OK && status >= 200 && status <= 299 {
			return env.Data, nil
		}
		fault = env.error(k.op, status, bearer)
	}
	if limited {
		return nil, &rotator.LimitedError{After: after, Err: fault}
	}
	return nil, fault
}

// notSent is what an error means when nothing was sent.
func notSent(k call) []error {
	if k.op == "create" {
		return []error{rotator.ErrRefused}
	}
	return nil
}

// broken says why there is no whole answer.
func (c *Client) broken(ctx, timed context.Context, k call, status int, what string, err error) *Error {
	e := &Error{Op: k.op, Status: status}
	switch {
	case ctx.Err() != nil:
		e.Message = what + ": stopped waiting"
		e.is = []error{ctx.Err()}
	case timed.Err() != nil:
		e.Message = fmt.Sprintf("%s within %s", what, time.Duration(c.timeout.Load()))
		e.is = []error{timed.Err()}
	default:
		// The text can quote bytes of the answer. The cause itself is not kept for the same reason.
		e.Message = what + ": " + clean(err.Error(), 200, k.token.Reveal())
	}
	return e
}

// unusable says why a bearer cannot stand in a header; "" where it can.
func unusable(bearer string) string {
	switch {
	case bearer == "":
		return "there is no token to authenticate with"
	case strings.ContainsFunc(bearer, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "the token to authenticate with has blanks, line ends or other characters that no token has"
	}
	return ""
}

// measure keeps the difference of the clocks. An answer that took long, that a cache had kept, or
// that has no date measures nothing, and leaves the clocks as they are: there is no better knowledge.
func (c *Client) measure(h http.Header, begun, ended time.Time) {
	date, err := http.ParseTime(h.Get("Date"))
	took := ended.Sub(begun)
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := h.Get("Age"); err != nil || took < 0 || took > 10*time.Second || age != "" && age != "0" {
		c.measured = ended
		return
	}
	// The server's clock stood anywhere in the second that the header names.
	d := date.Add(500 * time.Millisecond).Sub(begun.Add(took / 2)).Truncate(time.Second)
	jumped := (d - c.offset).Abs() > MaxSkew // without an offset: the two clocks are far apart
	c.offset, c.offsets = d, true
	if c.measured = ended; jumped {
		c.measured = time.Time{}
	}
}

// retryAfter reads the header's seconds or date; 0 where there is none, at most maxRetryAfter.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	var d time.Duration
	if n, err := strconv.ParseInt(v, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		d = time.Duration(min(n, int64(maxRetryAfter/time.Second))) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		// A date is one of the server's clock, which may differ from ours.
		if server, err := http.ParseTime(h.Get("Date")); err == nil {
			now = server
		}
		d = t.Sub(now)
	}
	return max(0, min(d, maxRetryAfter))
}

// watchedBody notes that somebody began to read it.
type watchedBody struct {
	*bytes.Reader
	read *atomic.Bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.Reader.Read(p)
}

// WriteTo hides the reader's own, which would not be noticed.
func (b *watchedBody) WriteTo(w io.Writer) (int64, error) {
	b.read.Store(true)
	return b.Reader.WriteTo(w)
}

func (b *watchedBody) Close() error { return nil }

// envelope is what every answer of the API stands in.
type envelope struct {
	OK    *bool           `json:"ok"`
	Data  json.RawMessage `json:"data"`
	Error lax[struct {
		Code    lax[string] `json:"code"`
		Message lax[string] `json:"message"`
		Hint    lax[string] `json:"hint"`
	}] `json:"error"`
	Meta lax[struct {
		RequestID lax[string] `json:"requestId"`
	}] `json:"meta"`
	RequestID lax[string] `json:"requestId"`
}

// error returns what the envelope says went wrong.
func (v *envelope) error(op string, status int, bearer string) *Error {
	id := v.Meta.v.RequestID.v
	if id == "" {
		id = v.RequestID.v
	}
	e := &Error{
		Op: op, Status: status,
		Code:      clean(v.Error.v.Code.v, 64, bearer),
		Message:   clean(v.Error.v.Message.v, 300, bearer),
		Hint:      clean(v.Error.v.Hint.v, 300, bearer),
		RequestID: clean(id, 100, bearer),
	}
	if *v.OK {
		// ok with a status that says otherwise: whoever is right, it is not a refusal.
		e.Message = "the answer contradicts its own status"
		return e
	}
	if status >= 200 && status <= 299 && e.Message == "" {
		e.Message = "the answer says that it is not ok"
	}
	e.is = append(meaning(op, status, e.Code), errEnvelope)
	return e
}

// lax reads a value that is not needed: one of another form counts as missing.
type lax[T any] struct{ v T }

func (l *lax[T]) UnmarshalJSON(b []byte) error {
	var v T
	if json.Unmarshal(b, &v) == nil {
		l.v = v
	}
	return nil
}

// pageMark is a page's mark, whatever its form: it goes back as it came.
type pageMark string

func (c *pageMark) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*c = pageMark(s)
		return nil
	}
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return errors.New("neither text nor number")
	}
	*c = pageMark(n)
	return nil
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
