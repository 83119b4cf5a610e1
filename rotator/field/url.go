package field

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// URL is a URL as it is written, or where it is found, if it is a secret itself: many webhooks let in
// whoever knows their URL.
type URL struct {
	SecretRef `yaml:",inline"`

	Text string `yaml:"-"`
}

// UnmarshalText reads a URL that is written out.
func (u *URL) UnmarshalText(text []byte) error {
	u.Text = string(text)
	return nil
}

// IsZero reports whether neither a URL nor a reference was given.
func (u URL) IsZero() bool { return u == URL{} }

// Validate reports what is wrong with a URL that is written out, or with the reference to one.
func (u URL) Validate(p Problems, allowHTTP bool) {
	switch {
	case u.IsZero():
		p.Errorf("is missing: write a URL like https://hooks.example.com/rotatord, or {file: PATH} where the URL is a secret")
	case u.Text == "":
		u.SecretRef.Validate(p)
	default:
		if _, err := parseURL(u.Text, allowHTTP); err != nil {
			p.Errorf("%s", err)
		}
	}
}

// Read returns the URL, which is checked as if it were written out.
func (u URL) Read(getenv func(string) string, allowHTTP bool) (*url.URL, error) {
	if u.Text != "" {
		return parseURL(u.Text, allowHTTP)
	}
	text, err := u.SecretRef.Read(getenv)
	if err != nil {
		return nil, err
	}
	parsed, err := parseURL(text, allowHTTP)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.SecretRef, err)
	}
	return parsed, nil
}

// Host is what may be said of the URL: its host, or where it is found.
func (u URL) Host() string {
	if u.Text == "" {
		return u.String()
	}
	if parsed, err := url.Parse(u.Text); err == nil {
		return parsed.Host
	}
	return "its URL"
}

// parseURL reads a URL that something is posted to. Plain http is refused, except to this machine
// itself or with allowHTTP. No error repeats the text, which may be a secret.
func parseURL(text string, allowHTTP bool) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil { // its text would repeat all of it
		return nil, errors.New("is no URL: write one like https://hooks.example.com/rotatord")
	}
	switch scheme := strings.ToLower(u.Scheme); {
	case scheme != "https" && scheme != "http":
		return nil, errors.New("must begin with https:// (or http:// to this machine)")
	case u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("names no host: write it like https://hooks.example.com/rotatord")
	case u.User != nil:
		return nil, errors.New("must not contain a user name or password: give a secret by reference, with bearer or as the whole URL")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return nil, errors.New("must not have a fragment (what follows the #)")
	case scheme == "http" && !allowHTTP && !loopback(u.Hostname()):
		return nil, errors.New("is plain http to another machine, readable on the way: use https, or say allow_http: true where the network is trusted")
	}
	return u, nil
}

// loopback reports whether a host is this machine itself.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
