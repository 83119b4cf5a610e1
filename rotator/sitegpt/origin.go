package sitegpt

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// DefaultBaseURL is where SiteGPT lives.
const DefaultBaseURL = "https://sitegpt.ai"

// ParseOrigin checks the API's base URL and returns it in its one canonical form: scheme and host
// in lower case, without the scheme's own port and without a slash at the end. It must be an
// origin, since the API's paths are fixed. Plain http is refused except to this machine itself:
// the bearer would cross the network readable; allowHTTP takes that risk.
//
// No error repeats a user name, password, query or fragment.
func ParseOrigin(base string, allowHTTP bool) (string, error) {
	if base == "" {
		return "", errors.New("base URL: is empty; write an origin like " + DefaultBaseURL)
	}
	u, err := url.Parse(base)
	if err != nil { // its text would repeat all of base
		return "", errors.New("base URL: is no URL; write an origin like " + DefaultBaseURL)
	}
	scheme := strings.ToLower(u.Scheme)
	port := u.Port()
	switch {
	case u.User != nil:
		return "", errors.New("base URL: must not contain a user name or password; the API takes its token apart from the URL")
	case scheme != "https" && scheme != "http":
		return "", errors.New("base URL: must start with https:// (or http:// on this machine); write an origin like " + DefaultBaseURL)
	case u.Hostname() == "" || u.Opaque != "":
		return "", errors.New("base URL: names no host; write an origin like " + DefaultBaseURL)
	case u.RawQuery != "" || u.ForceQuery:
		return "", errors.New("base URL: must not have a query (what follows the question mark)")
	case u.Fragment != "" || strings.Contains(base, "#"):
		return "", errors.New("base URL: must not have a fragment (what follows the #)")
	case strings.Trim(u.Path, "/") != "":
		return "", fmt.Errorf("base URL: must be an origin, without the path %q; the paths (/api/v2/…) are added", u.Path)
	}
	if strings.HasSuffix(u.Host, ":") {
		return "", errors.New("base URL: names no port after the colon")
	}
	if port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return "", fmt.Errorf("base URL: %q is no port: it must be 1 to 65535", port)
		}
	}
	host := strings.ToLower(u.Hostname())
	if scheme == "http" && !allowHTTP && !isLoopback(host) {
		return "", fmt.Errorf("base URL: plain http to %s would send the token readable over the network; use https (http is for this machine itself: localhost, 127.0.0.1, ::1)", host)
	}
	if port == map[string]string{"https": "443", "http": "80"}[scheme] {
		port = ""
	}
	switch {
	case port != "":
		host = net.JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	return scheme + "://" + host, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
