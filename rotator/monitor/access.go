package monitor

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/rotatord/rotatord/rotator"
)

// Access is who may see more of a daemon than its probes. The zero value: nobody.
//
// This machine may, where no other one reaches the address; whoever shows the token may; everybody
// may where that is said out loud. A browser must not lend its place to a page of somebody else: what
// such a page asks for is refused, and so is a name that is not known to be ours (DNS rebinding), unless
// the token was shown with it.
type Access struct {
	Local    bool                           // no other machine reaches the address
	Token    func() (rotator.Secret, error) // nil: there is none; an error: nobody may look
	Insecure bool                           // whoever reaches the address may look
	Hosts    []string                       // names of the address besides localhost, in lower case
}

// refusal is why somebody may not look.
type refusal struct {
	status int
	why    string
}

const closed = `Others can reach this address, so it answers /healthz and /readyz alone.
To open it, name a token in rotation.yaml:

    monitor: {token: {file: /run/secrets/rotatord-monitor}}

and log in with any user name and the token as password, or send "Authorization: Bearer TOKEN".
Or let it listen on 127.0.0.1, or say monitor: {insecure: true}.`

// look decides on a request; nil: it may pass.
func (a *Access) look(r *http.Request) *refusal {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &refusal{http.StatusMethodNotAllowed, "there is nothing to be changed here: GET and HEAD are answered"}
	}
	if foreign(r) {
		return &refusal{http.StatusForbidden, "another site's page asked for this: it may not"}
	}
	switch {
	case a.Token != nil:
		want, err := a.Token()
		if err != nil {
			return &refusal{http.StatusServiceUnavailable, "monitor.token cannot be read: rotatord's log says why"}
		}
		if !same(shown(r), want.Reveal()) {
			return &refusal{http.StatusUnauthorized, "log in with any user name and the token of monitor.token as password, or send \"Authorization: Bearer TOKEN\""}
		}
		return nil
	case !a.Local && !a.Insecure:
		return &refusal{http.StatusForbidden, closed}
	case !a.knows(r.Host):
		return &refusal{http.StatusForbidden, fmt.Sprintf("%q is no name of this address: monitor: {hosts: [NAME]} in rotation.yaml makes it one", hostname(r.Host))}
	}
	return nil
}

// foreign reports whether a page of another site is behind a request. To follow a link to the page is
// nobody's harm, to read, embed or scrape it is. Programs that are no browsers say none of this.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		followed := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
		if !followed || r.URL.Path != "/" {
			return true
		}
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || u.Host == "" || u.Host != r.Host
}

// shown is the token that a request bears: as a bearer, or as the password of any user.
func shown(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(token)
	}
	return ""
}

// same compares without telling by its time how much is right.
func same(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return want != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// knows reports whether a name that was asked for is one of ours. An address can be no name of
// somebody else's; on the loopback, only its own ones make sense.
func (a *Access) knows(host string) bool {
	name := hostname(host)
	if ip := net.ParseIP(name); ip != nil {
		return ip.IsLoopback() || !a.Local || slices.Contains(a.Hosts, name)
	}
	return name == "localhost" || slices.Contains(a.Hosts, name)
}

// hostname is a Host header without its port, in lower case.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// guard lets pass to next who may look.
func guard(access func() Access, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		a := access()
		no := a.look(r)
		if no == nil {
			next.ServeHTTP(w, r)
			return
		}
		switch no.status {
		case http.StatusMethodNotAllowed:
			h.Set("Allow", "GET, HEAD")
		case http.StatusUnauthorized:
			h.Set("WWW-Authenticate", `Bearer realm="rotatord"`)
			if dest := r.Header.Get("Sec-Fetch-Dest"); dest == "" || dest == "document" { // a page that refreshes itself must not open a dialogue each time
				h.Add("WWW-Authenticate", `Basic realm="rotatord", charset="UTF-8"`)
			}
		}
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(no.status)
		fmt.Fprintln(w, no.why)
	})
}
