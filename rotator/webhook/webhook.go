// Package webhook posts JSON to a URL of yours, signed so that the receiver knows that it comes from
// here, is whole, and is not an old one sent again.
//
// The signature is the one of Standard Webhooks (www.standardwebhooks.com), for which there are
// libraries in most languages: the header webhook-signature holds "v1," and the base64 of the
// HMAC-SHA-256, under the shared secret, of webhook-id, webhook-timestamp and the body, joined by
// dots. The id is the same each time that the same message is sent.
//
// No redirect is followed, nothing is repeated here, and no error holds a body, or more of the URL
// than its host.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
)

// Config is a block of rotation.yaml that names a URL to post to.
type Config struct {
	URL       field.URL         `yaml:"url"`                  // where to; by reference where the URL itself is a secret
	Secret    *field.SecretRef  `yaml:"secret,omitempty"`     // shared with the receiver, signs each message: whsec_… or any text without blanks
	Bearer    *field.SecretRef  `yaml:"bearer,omitempty"`     // sent as "Authorization: Bearer …"
	Headers   map[string]string `yaml:"headers,omitempty"`    // further headers; no secrets
	Timeout   *field.Duration   `yaml:"timeout,omitempty"`    // of one message
	AllowHTTP bool              `yaml:"allow_http,omitempty"` // plain http also to another machine
}

// DefaultTimeout is that of one message.
const DefaultTimeout = 15 * time.Second

// Resolve makes paths absolute, from dir, the folder of the configuration.
func (c *Config) Resolve(dir string) {
	c.URL.File = field.Absolute(dir, c.URL.File)
	for _, ref := range []**field.SecretRef{&c.Secret, &c.Bearer} {
		if *ref != nil {
			found := **ref
			found.File = field.Absolute(dir, found.File)
			*ref = &found
		}
	}
}

// Validate reports what is wrong with c.
func (c *Config) Validate(p field.Problems) {
	c.URL.Validate(p.At("url"), c.AllowHTTP)
	if c.Secret != nil {
		c.Secret.Validate(p.At("secret"))
	}
	if c.Bearer != nil {
		c.Bearer.Validate(p.At("bearer"))
	}
	if c.Timeout != nil && *c.Timeout <= 0 {
		p.At("timeout").Errorf("must be longer than 0: leave it out for the default, %s", field.FormatDuration(DefaultTimeout))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		at, value := p.At("headers", name), c.Headers[name]
		lower := strings.ToLower(name)
		switch {
		case !headerName(name):
			at.Errorf("%q cannot be the name of a header", name)
		case lower == "authorization" || lower == "cookie" || lower == "x-api-key" || strings.Contains(value, "sgpt_"):
			at.Errorf("a secret has no place in this file: use bearer, or secret, which name where one is found")
		case lower == "host" || lower == "content-type" || lower == "content-length" || lower == "transfer-encoding" || strings.HasPrefix(lower, "webhook-"):
			at.Errorf("is set by rotatord")
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			at.Errorf("holds a control character")
		}
	}
}

func headerName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	})
}

// World is what a Poster needs of the machine.
type World struct {
	Getenv    func(string) string
	Now       func() time.Time
	Agent     string            // User-Agent
	Transport http.RoundTripper // nil: the standard one, with the proxies of the environment
}

// Poster posts to one URL.
type Poster struct {
	c Config
	w World
}

// New returns the Poster of c.
func New(c Config, w World) *Poster {
	if w.Transport == nil {
		t := &http.Transport{Proxy: http.ProxyFromEnvironment}
		if std, ok := http.DefaultTransport.(*http.Transport); ok {
			t = std.Clone()
		}
		t.DisableKeepAlives = true // there are hours between two messages
		w.Transport = t
	}
	return &Poster{c, w}
}

// Timeout is how long one message may take.
func (p *Poster) Timeout() time.Duration {
	if p.c.Timeout != nil {
		return time.Duration(*p.c.Timeout)
	}
	return DefaultTimeout
}

// StatusError says that the receiver did not take a message.
type StatusError struct {
	Host string
	Code int
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s answered %d", e.Host, e.Code)
	if name := http.StatusText(e.Code); name != "" {
		text += " " + name
	}
	switch e.Code / 100 {
	case 3:
		text += ", a redirect, and none is followed: write the URL that it leads to"
	case 4:
		if e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden || e.Code == http.StatusNotFound || e.Code == http.StatusGone {
			text += ": is the URL, or its secret, still right?"
		}
	}
	return text
}

// Post sends a message with a stable id. nil: the receiver has answered with 2xx. An error in which
// errors.As finds a *rotator.LimitedError knows when to come back.
func (p *Poster) Post(ctx context.Context, id string, body []byte) error {
	u, err := p.c.URL.Read(p.w.Getenv, p.c.AllowHTTP)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	req, err := p.request(ctx, http.MethodPost, u, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range p.c.Headers {
		req.Header.Set(textproto.CanonicalMIMEHeaderKey(name), value)
	}
	at := p.w.Now()
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(at.Unix(), 10))
	if p.c.Secret != nil {
		secret, err := p.c.Secret.Read(p.w.Getenv)
		if err != nil {
			return fmt.Errorf("secret: %w", err)
		}
		key, err := Key(secret)
		if err != nil {
			return fmt.Errorf("secret: %s: %w", p.c.Secret, err)
		}
		req.Header.Set("Webhook-Signature", Sign(key, id, at, body))
	}
	if p.c.Bearer != nil {
		bearer, err := p.c.Bearer.Read(p.w.Getenv)
		if err != nil {
			return fmt.Errorf("bearer: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	code, after, err := p.roundTrip(req)
	switch {
	case err != nil:
		return err
	case code/100 == 2:
		return nil
	case after > 0:
		return &rotator.LimitedError{After: after, Err: &StatusError{u.Host, code}}
	}
	return &StatusError{u.Host, code}
}

// Check looks whether a message could be sent, and sends none: the secrets can be read, and the
// server answers a HEAD, whatever it says.
func (p *Poster) Check(ctx context.Context) (says string, err error) {
	var errs []error
	u, err := p.c.URL.Read(p.w.Getenv, p.c.AllowHTTP)
	if err != nil {
		errs = append(errs, fmt.Errorf("url: %w", err))
	}
	if p.c.Secret != nil {
		secret, err := p.c.Secret.Read(p.w.Getenv)
		if err == nil {
			_, err = Key(secret)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("secret: %w", err))
		}
	}
	if p.c.Bearer != nil {
		if _, err := p.c.Bearer.Read(p.w.Getenv); err != nil {
			errs = append(errs, fmt.Errorf("bearer: %w", err))
		}
	}
	if len(errs) > 0 {
		return "", errors.Join(errs...)
	}
	req, err := p.request(ctx, http.MethodHead, u, nil)
	if err != nil {
		return "", err
	}
	code, _, err := p.roundTrip(req)
	switch {
	case err != nil:
		return "", err
	case code >= 500:
		return "", &StatusError{u.Host, code}
	}
	return u.Host + " answers; nothing was posted", nil
}

func (p *Poster) request(ctx context.Context, method string, u *url.URL, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil { // its text would repeat the URL
		return nil, errors.New("url: cannot be asked")
	}
	req.Header.Set("User-Agent", p.w.Agent)
	return req, nil
}

// roundTrip returns the status, and when the receiver wants to be asked again.
func (p *Poster) roundTrip(req *http.Request) (code int, after time.Duration, err error) {
	// RoundTrip, not an http.Client: no redirects, no cookies, no errors with a URL in them.
	resp, err := p.w.Transport.RoundTrip(req)
	if err != nil {
		if ctx := req.Context().Err(); errors.Is(ctx, context.DeadlineExceeded) {
			return 0, 0, fmt.Errorf("%s did not answer in time: %w", req.URL.Host, ctx)
		}
		return 0, 0, fmt.Errorf("%s: %w", req.URL.Host, told(err))
	}
	defer resp.Body.Close()                                //nolint:errcheck // what it says is nobody's business
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) //nolint:errcheck // likewise
	return resp.StatusCode, retryAfter(resp.Header, p.w.Now()), nil
}

// told is what may be said of an error. What the network, TLS and name services say holds names and
// addresses; what is said of an answer quotes it, and an answer can repeat the request with its URL.
func told(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var (
		network net.Error
		system  syscall.Errno
		trust   *tls.CertificateVerificationError
		alert   tls.AlertError
		record  tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return errors.New("it speaks http, and the URL says https")
	case errors.As(err, &trust):
		return trust
	case errors.As(err, &alert):
		return alert
	case errors.As(err, &record):
		return errors.New("it does not speak TLS")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it hung up without an answer")
	case errors.As(err, &network): // also of a proxy on the way
		return network
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &system):
		return system
	}
	return errors.New("its answer, or that of a proxy before it, cannot be read as HTTP")
}

// longest is how long a receiver may have us wait.
const longest = time.Hour

func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if text == "" {
		return 0
	}
	if n, err := strconv.Atoi(text); err == nil {
		return min(max(0, time.Duration(min(n, 1e6))*time.Second), longest)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(0, at.Sub(now)), longest)
	}
	return 0
}

// Key is the key that a shared secret stands for: after whsec_ it is written in base64, else it is
// the text itself.
func Key(secret string) ([]byte, error) {
	coded, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return []byte(secret), nil
	}
	key, err := base64.StdEncoding.DecodeString(coded)
	if err != nil || len(key) == 0 {
		return nil, errors.New("what follows whsec_ must be base64")
	}
	return key, nil
}

// Sign returns the value of webhook-signature.
func Sign(key []byte, id string, at time.Time, body []byte) string {
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "%s.%d.%s", id, at.Unix(), body)
	return "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
}
