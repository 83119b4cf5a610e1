package monitor_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/monitor"
)

// site is a handler whose facts are a canary.
func site(a monitor.Access) http.Handler {
	well := monitor.Health{Live: func() error { return nil }, Ready: func() (string, error) { return "", nil }}
	return monitor.Handler(monitor.Site{
		Health: well, Access: func() monitor.Access { return a },
		Facts: func(context.Context) (*monitor.Facts, error) {
			return monitor.NewFacts([]byte(`{"fact":1}`), "the fact", time.Time{}), nil
		},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "fact 1") }),
	})
}

// ask asks as somebody who says some headers: "Name: value".
func ask(h http.Handler, method, target, host string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = host
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Who may look, and who may not: at the page, the JSON, and what there is not.
func TestAccess(t *testing.T) {
	const token = "correct-horse-battery"
	shows := func() (rotator.Secret, error) { return rotator.NewSecret(token), nil }
	const (
		bearer = "Authorization: Bearer " + token
		basic  = "Authorization: Basic YW55Ym9keTpjb3JyZWN0LWhvcnNlLWJhdHRlcnk=" // anybody:TOKEN
	)
	local := monitor.Access{Local: true, Hosts: []string{"wall.example.com"}}
	guarded := monitor.Access{Token: shows}
	open := monitor.Access{Insecure: true, Hosts: []string{"wall"}}
	for _, tc := range []struct {
		name    string
		access  monitor.Access
		host    string
		headers []string
		status  int
	}{
		{"nobody said who", monitor.Access{}, "127.0.0.1:9090", nil, 403},
		{"others reach it", monitor.Access{Hosts: []string{"wall"}}, "wall", nil, 403},
		{"this machine", local, "127.0.0.1:9090", nil, 200},
		{"this machine, by name", local, "LocalHost:9090", nil, 200},
		{"this machine, IPv6", local, "[::1]:9090", nil, 200},
		{"a name that was declared", local, "wall.example.com", nil, 200},
		{"a name that was rebound", local, "evil.example.com:9090", nil, 403},
		{"a name that begins like ours", local, "localhost.evil.example.com", nil, 403},
		{"somebody else's address", local, "10.0.0.5:9090", nil, 403},
		{"no name", local, "", nil, 403},
		{"insecure, by address", open, "10.0.0.5:9090", nil, 200},
		{"insecure, by a declared name", open, "wall:9090", nil, 200},
		{"insecure, rebound", open, "evil.example.com:9090", nil, 403},
		{"no token", guarded, "10.0.0.5:9090", nil, 401},
		{"the token", guarded, "any.example.com", []string{bearer}, 200},
		{"the token as a password", guarded, "any.example.com", []string{basic}, 200},
		{"half the token", guarded, "10.0.0.5", []string{"Authorization: Bearer correct-horse"}, 401},
		{"the token and more", guarded, "10.0.0.5", []string{bearer + "x"}, 401},
		{"an empty bearer", guarded, "10.0.0.5", []string{"Authorization: Bearer "}, 401},
		{"the token in another scheme", guarded, "10.0.0.5", []string{"Authorization: Digest " + token}, 401},
		{"a token also on this machine", monitor.Access{Local: true, Token: shows}, "127.0.0.1", nil, 401},
		{
			"an empty token opens nothing",
			monitor.Access{Token: func() (rotator.Secret, error) { return rotator.Secret{}, nil }},
			"10.0.0.5",
			[]string{"Authorization: Bearer "},
			401,
		},
		{
			"a token that cannot be read",
			monitor.Access{Token: func() (rotator.Secret, error) { return rotator.Secret{}, errors.New("/run/x") }},
			"10.0.0.5",
			[]string{bearer},
			503,
		},
		{"our own page", local, "localhost:9090", []string{"Sec-Fetch-Site: same-origin", "Origin: http://localhost:9090"}, 200},
		{"typed by hand", local, "localhost", []string{"Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 200},
		{"another site's script", local, "localhost", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"}, 403},
		{"another site's script, with the token of the browser", guarded, "wall", []string{basic, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"}, 403},
		{"a neighbour's script", local, "localhost", []string{"Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors"}, 403},
		{"another site's frame", local, "localhost", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403},
		{"another origin, in an old browser", local, "localhost:9090", []string{"Origin: http://evil.example.com"}, 403},
		{"another port's origin", local, "localhost:9090", []string{"Origin: http://localhost:3000"}, 403},
		{"no origin that has a name", local, "localhost:9090", []string{"Origin: null"}, 403},
	} {
		h := site(tc.access)
		for _, path := range []string{"/", "/api/status.json", "/metrics"} {
			w := ask(h, http.MethodGet, path, tc.host, tc.headers...)
			if w.Code != tc.status {
				t.Errorf("%s: %s answers %d, want %d: %s", tc.name, path, w.Code, tc.status, w.Body)
			}
			if shown := strings.Contains(w.Body.String(), "fact"); shown != (tc.status == 200) {
				t.Errorf("%s: %s: facts shown: %v\n%s", tc.name, path, shown, w.Body)
			}
			if strings.Contains(w.Body.String(), "/run/x") || strings.Contains(w.Body.String(), token) {
				t.Errorf("%s: %s says what nobody should read: %s", tc.name, path, w.Body)
			}
			for _, name := range []string{"Access-Control-Allow-Origin", "Set-Cookie"} {
				if w.Header().Get(name) != "" {
					t.Errorf("%s: %s has %s", tc.name, path, name)
				}
			}
			for name, want := range map[string]string{
				"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
				"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %s: %s is %q, want %q", tc.name, path, name, got, want)
				}
			}
			if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: %s: Content-Security-Policy: %s", tc.name, path, csp)
			}
		}
		if w := ask(h, http.MethodGet, "/healthz", "evil.example.com"); w.Code != http.StatusOK {
			t.Errorf("%s: a probe is answered %d", tc.name, w.Code)
		}
	}
}

// A link from a chat or a dashboard leads to the page, and to nothing else.
func TestALinkToThePage(t *testing.T) {
	h := site(monitor.Access{Local: true})
	followed := []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}
	if w := ask(h, http.MethodGet, "/", "localhost", followed...); w.Code != http.StatusOK {
		t.Errorf("the page: %d", w.Code)
	}
	for _, path := range []string{"/api/status.json", "/metrics"} {
		if w := ask(h, http.MethodGet, path, "localhost", followed...); w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// A browser asks a person who opens the page for the token, but not a page that refreshes itself.
func TestLogin(t *testing.T) {
	h := site(monitor.Access{Token: func() (rotator.Secret, error) { return rotator.NewSecret("correct-horse-battery"), nil }})
	offers := func(w *httptest.ResponseRecorder) string {
		return strings.Join(w.Header().Values("WWW-Authenticate"), ", ")
	}
	if got := offers(ask(h, http.MethodGet, "/", "wall")); got != `Bearer realm="rotatord", Basic realm="rotatord", charset="UTF-8"` {
		t.Errorf("a person is offered %s", got)
	}
	if got := offers(ask(h, http.MethodGet, "/api/status.json", "wall", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: empty")); got != `Bearer realm="rotatord"` {
		t.Errorf("a script is offered %s", got)
	}
}

func TestNothingIsChangedHere(t *testing.T) {
	h := site(monitor.Access{Local: true})
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"} {
		for _, path := range []string{"/", "/api/status.json", "/healthz", "/elsewhere"} {
			w := ask(h, method, path, "localhost")
			if w.Code != http.StatusMethodNotAllowed || strings.Contains(w.Body.String(), "fact") || w.Header().Get("Allow") == "" {
				t.Errorf("%s %s answers %d, allows %q: %s", method, path, w.Code, w.Header().Get("Allow"), w.Body)
			}
		}
	}
	if w := ask(h, http.MethodHead, "/", "localhost"); w.Code != http.StatusOK {
		t.Errorf("HEAD answers %d", w.Code)
	}
	if w := ask(h, http.MethodGet, "/elsewhere", "localhost"); w.Code != http.StatusNotFound {
		t.Errorf("what there is not answers %d", w.Code)
	}
}

// Who asks again is told that nothing changed, although the clock went on; and little is sent.
func TestFactsAreSentOnce(t *testing.T) {
	at := time.Date(2026, 11, 5, 10, 0, 0, 0, time.UTC)
	looks := 0
	value := strings.Repeat("the same ", 1000)
	now := at
	h := monitor.Handler(monitor.Site{
		Health: monitor.Health{}, Access: func() monitor.Access { return monitor.Access{Local: true} },
		Facts: monitor.Shared(func() time.Time { return now }, time.Second, func(context.Context) (*monitor.Facts, error) {
			looks++
			return monitor.NewFacts([]byte(`{"at":"`+now.Format(time.RFC3339Nano)+`","value":"`+value+`"}`), "", now), nil
		}),
	})
	get := func(headers ...string) *httptest.ResponseRecorder {
		return ask(h, http.MethodGet, "/api/status.json", "localhost", headers...)
	}
	first := get()
	tag := first.Header().Get("Etag")
	if first.Code != http.StatusOK || tag == "" || !strings.Contains(first.Body.String(), "10:00:00") {
		t.Fatalf("%d, tag %q: %.60s", first.Code, tag, first.Body)
	}
	now = now.Add(900 * time.Millisecond)
	get()
	if looks != 1 {
		t.Errorf("within a second, %d looks", looks)
	}
	now = now.Add(time.Minute)
	if w := get("If-None-Match: " + tag); w.Code != http.StatusNotModified || w.Body.Len() != 0 || looks != 2 {
		t.Errorf("unchanged: %d, %d bytes, %d looks", w.Code, w.Body.Len(), looks)
	}
	value = strings.Repeat("another ", 1000)
	now = now.Add(time.Minute)
	if w := get("If-None-Match: "+tag, "Accept-Encoding: gzip"); w.Code != http.StatusOK || w.Header().Get("Content-Encoding") != "gzip" || w.Body.Len() > 1000 {
		t.Errorf("changed: %d, %s, %d bytes", w.Code, w.Header().Get("Content-Encoding"), w.Body.Len())
	}
	now = now.Add(-time.Hour) // the clock was set back: what was seen then is not of now
	get()
	if looks != 4 {
		t.Errorf("after a step of the clock, %d looks", looks)
	}
}

// What cannot be looked at is said, in both forms, and the page is there all the same.
func TestFactsThatCannotBeHad(t *testing.T) {
	h := monitor.Handler(monitor.Site{
		Access: func() monitor.Access { return monitor.Access{Local: true} },
		Facts:  func(context.Context) (*monitor.Facts, error) { return nil, errors.New("<disk> gone") },
	})
	if w := ask(h, http.MethodGet, "/api/status.json", "localhost"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `"error":"\u003cdisk\u003e gone"`) {
		t.Errorf("JSON: %d %s", w.Code, w.Body)
	}
	if w := ask(h, http.MethodGet, "/", "localhost"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "&lt;disk&gt; gone") {
		t.Errorf("page: %d %s", w.Code, w.Body)
	}
}

// The policy names the very style and script that the page holds, so that a browser runs no others.
func TestThePolicyFitsThePage(t *testing.T) {
	w := ask(site(monitor.Access{Local: true}), http.MethodGet, "/", "localhost")
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	policy := w.Header().Get("Content-Security-Policy")
	for _, tag := range []string{"style", "script"} {
		parts := strings.Split(string(body), "<"+tag+">")
		if len(parts) != 2 {
			t.Fatalf("the page holds %d of %s", len(parts)-1, tag)
		}
		text, _, _ := strings.Cut(parts[1], "</"+tag+">")
		if !strings.Contains(policy, tag+"-src "+sha(text)) {
			t.Errorf("the policy does not name the %s of the page: %s", tag, policy)
		}
	}
	for _, bad := range []string{"http://", "https://", "innerHTML", " style=", " onclick", "document.write", "eval(", "@text@", "@style@"} {
		if strings.Contains(strings.ReplaceAll(string(body), "http://www.w3.org/2000/svg", ""), bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
}

// sha is a text as a policy names it.
func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
