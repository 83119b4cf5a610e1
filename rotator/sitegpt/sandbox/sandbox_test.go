package sandbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

// clock is a clock that a test sets.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 12, 1, 3, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

type reply struct {
	status int
	header http.Header
	ok     bool
	code   string
	data   map[string]any
	raw    string
}

// at looks a value up: "token.id".
func (r reply) at(path string) any {
	var v any = r.data
	for k := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// send sends one request without a network.
func send(t *testing.T, s *sandbox.Server, bearer, method, path, body string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Transport().RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var env struct {
		OK    *bool
		Data  map[string]any
		Error *struct{ Code, Message string }
		Meta  struct{ RequestID string }
	}
	if err := json.Unmarshal(b, &env); err != nil || env.OK == nil || !strings.HasPrefix(env.Meta.RequestID, "req_") {
		t.Fatalf("%s %s: no envelope: %s", method, path, b)
	}
	out := reply{status: resp.StatusCode, header: resp.Header, ok: *env.OK, data: env.Data, raw: string(b)}
	if env.Error != nil {
		out.code = env.Error.Code
	}
	if out.ok != (out.code == "") || out.ok != (out.status < 400) {
		t.Errorf("%s %s: %d with %s", method, path, out.status, b)
	}
	return out
}

// make makes a token and returns its id and plaintext.
func create(t *testing.T, s *sandbox.Server, fields string) (id, plaintext string) {
	t.Helper()
	r := send(t, s, s.Management().Reveal(), "POST", "/api/v2/tokens", "{"+fields+"}")
	if !r.ok {
		t.Fatalf("create {%s}: %s", fields, r.raw)
	}
	return r.at("token.id").(string), r.at("plaintextToken").(string)
}

func TestStrictness(t *testing.T) {
	c := newClock()
	s := sandbox.New(sandbox.Options{Now: c.now})
	name := func(n string) string { return `{"name":"` + n + `","scopes":["account:read"]}` }
	with := func(f string) string { return `{"name":"n","scopes":["account:read"],` + f + `}` }
	for _, test := range []struct {
		body string
		want string // status and code
	}{
		{name("n"), "201 "},
		{name(strings.Repeat("ü", 120)), "201 "},
		{name(strings.Repeat("ü", 121)), "400 VALIDATION_ERROR"},
		{name(""), "400 VALIDATION_ERROR"},
		{`{"scopes":["account:read"]}`, "400 VALIDATION_ERROR"},
		{`{"name":null,"scopes":["account:read"]}`, "400 VALIDATION_ERROR"},
		{`{"name":1,"scopes":["account:read"]}`, "400 VALIDATION_ERROR"},
		{`{"name":"n"}`, "400 VALIDATION_ERROR"},
		{`{"name":"n","scopes":[]}`, "400 VALIDATION_ERROR"},
		{`{"name":"n","scopes":"account:read"}`, "400 VALIDATION_ERROR"},
		{`{"name":"n","scopes":["account:reed"]}`, "400 TOKEN_SCOPE_NOT_VALID"},
		{`{"name":"n","scopes":[""]}`, "400 TOKEN_SCOPE_NOT_VALID"},
		{with(`"expiresInDays":1`), "201 "},
		{with(`"expiresInDays":365`), "201 "},
		{with(`"expiresInDays":0`), "400 VALIDATION_ERROR"},
		{with(`"expiresInDays":366`), "400 VALIDATION_ERROR"},
		{with(`"expiresInDays":1.5`), "400 VALIDATION_ERROR"},
		{with(`"expiresAt":"2026-12-01T03:00:01Z"`), "201 "},
		{with(`"expiresAt":"2026-12-01T05:00:00+01:00"`), "201 "},
		{with(`"expiresAt":"2027-12-01T03:00:00Z"`), "201 "},
		{with(`"expiresAt":"2027-12-01T03:00:01Z"`), "400 VALIDATION_ERROR"},
		{with(`"expiresAt":"2026-12-01T03:00:00Z"`), "400 VALIDATION_ERROR"},
		{with(`"expiresAt":"2026-12-02"`), "400 VALIDATION_ERROR"},
		{with(`"expiresAt":1764558000`), "400 VALIDATION_ERROR"},
		{with(`"expiresAt":"2026-12-02T03:00:00Z","expiresInDays":1`), "400 VALIDATION_ERROR"},
		{with(`"chatbotIds":["b1"]`), "201 "},
		{with(`"chatbotIds":[]`), "400 VALIDATION_ERROR"},
		{with(`"chatbotIds":[""]`), "403 CHATBOT_NOT_ALLOWED"},
		{with(`"color":"red"`), "400 VALIDATION_ERROR"},
		{`{`, "400 VALIDATION_ERROR"},
		{``, "400 VALIDATION_ERROR"},
		{`[]`, "400 VALIDATION_ERROR"},
		{name("n") + `{}`, "400 VALIDATION_ERROR"},
	} {
		before := len(s.Tokens())
		r := send(t, s, s.Management().Reveal(), "POST", "/api/v2/tokens", test.body)
		if got := fmt.Sprint(r.status, " ", r.code); got != test.want {
			t.Errorf("%s: %s, want %s: %s", test.body, got, test.want, r.raw)
		}
		if made := len(s.Tokens()) - before; (made == 1) != r.ok || made > 1 {
			t.Errorf("%s: %d tokens made with status %d", test.body, made, r.status)
		}
	}
	r := send(t, s, s.Management().Reveal(), "POST", "/api/v2/tokens", name("n"), "Content-Type", "text/plain")
	if r.status != 415 {
		t.Errorf("text/plain: %s", r.raw)
	}
	r = send(t, s, s.Management().Reveal(), "POST", "/api/v2/tokens", name(strings.Repeat("x", 1<<20)))
	if r.status != 413 {
		t.Errorf("a body of more than 1 MiB: %d", r.status)
	}
	made := s.Tokens()
	if d := made[0].Expires.Sub(made[0].Created); d != 90*24*time.Hour {
		t.Errorf("without an expiry a token lives %s, want 90 days", d)
	}
	for _, m := range made {
		if m.Expires.Nanosecond() != 0 || m.Expires.Location() != time.UTC {
			t.Errorf("expires %s", m.Expires)
		}
	}
}

func TestRoutes(t *testing.T) {
	s := sandbox.New(sandbox.Options{Now: newClock().now})
	all := s.Management().Reveal()
	for _, test := range []struct {
		bearer, method, path, want string
	}{
		{"", "GET", "/api/v2/health", "200 "},
		{"sgpt_unknown", "GET", "/api/v2/health", "200 "},
		{all, "GET", "/api/v2/me", "200 "},
		{"", "GET", "/api/v2/me", "401 AUTHORIZATION_HEADER_REQUIRED"},
		{"", "GET", "/api/v2/tokens", "401 AUTHORIZATION_HEADER_REQUIRED"},
		{"", "POST", "/api/v2/tokens", "401 AUTHORIZATION_HEADER_REQUIRED"},
		{"", "DELETE", "/api/v2/tokens/x", "401 AUTHORIZATION_HEADER_REQUIRED"},
		{"sgpt_unknown", "GET", "/api/v2/me", "401 TOKEN_NOT_VALID"},
		{all, "PUT", "/api/v2/tokens", "405 METHOD_NOT_ALLOWED"},
		{all, "GET", "/api/v2/tokens/x", "405 METHOD_NOT_ALLOWED"},
		{all, "POST", "/api/v2/me", "405 METHOD_NOT_ALLOWED"},
		{all, "DELETE", "/api/v2/tokens/x", "404 TOKEN_NOT_FOUND"},
		{all, "DELETE", "/api/v2/tokens/x%2Fy", "404 TOKEN_NOT_FOUND"},
		{all, "DELETE", "/api/v2/tokens/x/y", "404 ROUTE_NOT_FOUND"},
		{all, "DELETE", "/api/v2/tokens/", "404 ROUTE_NOT_FOUND"},
		{all, "GET", "/api/v1/me", "404 ROUTE_NOT_FOUND"},
		{all, "GET", "/", "404 ROUTE_NOT_FOUND"},
		{all, "GET", "/_sandbox/tokens", "404 ROUTE_NOT_FOUND"},
		{all, "GET", "/api/v2/tokens?limit=0", "400 VALIDATION_ERROR"},
		{all, "GET", "/api/v2/tokens?cursor=x", "400 VALIDATION_ERROR"},
		{all, "GET", "/api/v2/tokens?includeRevoked=maybe", "400 VALIDATION_ERROR"},
	} {
		r := send(t, s, test.bearer, test.method, test.path, "")
		if got := fmt.Sprint(r.status, " ", r.code); got != test.want {
			t.Errorf("%s %s: %s, want %s", test.method, test.path, got, test.want)
		}
		if r.header.Get("Date") != "Tue, 01 Dec 2026 03:00:00 GMT" {
			t.Errorf("%s %s: Date %q is not the server's clock", test.method, test.path, r.header.Get("Date"))
		}
		if allow := r.header.Get("Allow"); (r.status == 405) != (allow != "") {
			t.Errorf("%s %s: Allow %q", test.method, test.path, allow)
		}
	}
	if r := send(t, s, "", "GET", "/api/v2/me", "", "Authorization", "Basic "+all); r.code != "TOKEN_NOT_VALID" {
		t.Errorf("another scheme: %s", r.raw)
	}
}

func TestScopesAreEnforced(t *testing.T) {
	s := sandbox.New(sandbox.Options{Now: newClock().now})
	victim, _ := create(t, s, `"name":"v","scopes":["account:read"]`)
	_, reader := create(t, s, `"name":"r","scopes":["tokens:read"]`)
	_, writer := create(t, s, `"name":"w","scopes":["tokens:write"]`)
	const body = `{"name":"n","scopes":["account:read"]}`
	for _, test := range []struct {
		who, bearer, method, path string
		want                      int
	}{
		{"reader", reader, "GET", "/api/v2/tokens", 200},
		{"reader", reader, "POST", "/api/v2/tokens", 403},
		{"reader", reader, "DELETE", "/api/v2/tokens/" + victim, 403},
		{"reader", reader, "GET", "/api/v2/me", 200},
		{"writer", writer, "GET", "/api/v2/tokens", 403},
		{"writer", writer, "POST", "/api/v2/tokens", 201},
		{"writer", writer, "DELETE", "/api/v2/tokens/" + victim, 200},
	} {
		r := send(t, s, test.bearer, test.method, test.path, body)
		if r.status != test.want || r.status == 403 && r.code != "TOKEN_SCOPE_NOT_ALLOWED" {
			t.Errorf("%s %s %s: %s, want %d", test.who, test.method, test.path, r.raw, test.want)
		}
	}
}

func TestALifeOfAToken(t *testing.T) {
	c := newClock()
	s := sandbox.New(sandbox.Options{Now: c.now, Behavior: sandbox.Behavior{ListMore: true}})
	all := s.Management().Reveal()
	id, plaintext := create(t, s, `"name":"n","scopes":["account:read"],"expiresAt":"2026-12-01T04:00:00Z"`)
	_, other := create(t, s, `"name":"m","scopes":["account:read"]`)
	if !strings.HasPrefix(plaintext, "sgpt_") || plaintext == other {
		t.Error("a plaintext is sgpt_ and something that nobody else has")
	}
	if !s.Alive(plaintext) || s.Alive("sgpt_x") || s.Alive("") {
		t.Error("alive is what authenticates")
	}
	c.pass(time.Minute)
	if r := send(t, s, plaintext, "GET", "/api/v2/me", ""); !r.ok || fmt.Sprint(r.at("auth.scopes")) != "[account:read]" {
		t.Errorf("me: %s", r.raw)
	}
	if used := s.Tokens()[0].LastUsed; !used.Equal(c.now()) {
		t.Errorf("last used %s", used)
	}
	r := send(t, s, all, "GET", "/api/v2/tokens", "")
	if strings.Contains(r.raw, plaintext) || !strings.Contains(r.raw, `"lastUsedAt":"2026-12-01T03:01:00.000Z"`) {
		t.Errorf("list: %s", r.raw)
	}
	c.pass(59 * time.Minute)
	if s.Alive(plaintext) || send(t, s, plaintext, "GET", "/api/v2/me", "").code != "TOKEN_NOT_VALID" {
		t.Error("an expired token still works")
	}
	if r := send(t, s, all, "GET", "/api/v2/tokens", ""); strings.Contains(r.raw, id) {
		t.Errorf("an expired token is listed: %s", r.raw)
	}
	s.SetBehavior(sandbox.Behavior{ListExpired: true})
	if r := send(t, s, all, "GET", "/api/v2/tokens", ""); !strings.Contains(r.raw, id) || strings.Contains(r.raw, "expiresAt") {
		t.Errorf("an expired token is not listed, or with fields that are not documented: %s", r.raw)
	}
	if r := send(t, s, all, "DELETE", "/api/v2/tokens/"+id, ""); !r.ok || r.at("token.id") != id {
		t.Errorf("revoke: %s", r.raw)
	}
	if r := send(t, s, all, "GET", "/api/v2/tokens", ""); strings.Contains(r.raw, id) {
		t.Errorf("a revoked token is listed: %s", r.raw)
	}
	if r := send(t, s, all, "GET", "/api/v2/tokens?includeRevoked=true", ""); !strings.Contains(r.raw, id) {
		t.Errorf("a revoked token is not listed when asked for: %s", r.raw)
	}
	if live := s.Live(); len(live) != 1 || live[0].Name != "m" {
		t.Errorf("live: %+v", live)
	}
	if !s.Revoke(live(s, "m")) || s.Alive(other) || s.Revoke("tok_x") {
		t.Error("revoked behind the daemon's back")
	}
}

func live(s *sandbox.Server, name string) string {
	for _, t := range s.Live() {
		if t.Name == name {
			return t.ID
		}
	}
	return ""
}

// Every switch, each way.
func TestBehavior(t *testing.T) {
	const n = `"name":"n","scopes":["account:read","tokens:write"]`
	post := func(b sandbox.Behavior, body string) (*sandbox.Server, reply) {
		s := sandbox.New(sandbox.Options{Now: newClock().now, Behavior: b})
		return s, send(t, s, s.Management().Reveal(), "POST", "/api/v2/tokens", "{"+body+"}")
	}
	for name, test := range map[string]struct {
		b    sandbox.Behavior
		body string
		want string // status, code, granted scopes, expiresAt
	}{
		"likeliest":               {sandbox.Behavior{}, n, "201  [account:read tokens:write] <nil>"},
		"status":                  {sandbox.Behavior{CreateStatus: 200}, n, "200  [account:read tokens:write] <nil>"},
		"expiry told":             {sandbox.Behavior{AnswerExpiry: true}, n + `,"expiresInDays":1`, "201  [account:read tokens:write] 2026-12-02T03:00:00.000Z"},
		"role":                    {sandbox.Behavior{Role: []string{"account:read"}}, n, "403 TOKEN_SCOPE_NOT_ALLOWED <nil> <nil>"},
		"role narrows":            {sandbox.Behavior{Role: []string{"account:read"}, Narrow: true}, n, "201  [account:read] <nil>"},
		"role leaves nothing":     {sandbox.Behavior{Role: []string{}, Narrow: true}, n, "403 TOKEN_SCOPE_NOT_ALLOWED <nil> <nil>"},
		"other status":            {sandbox.Behavior{Role: []string{}, Statuses: map[string]int{"TOKEN_SCOPE_NOT_ALLOWED": 400}}, n, "400 TOKEN_SCOPE_NOT_ALLOWED <nil> <nil>"},
		"chatbots":                {sandbox.Behavior{Chatbots: []string{"b1"}}, n + `,"chatbotIds":["b2"]`, "403 CHATBOT_NOT_ALLOWED <nil> <nil>"},
		"lifetime":                {sandbox.Behavior{MaxLifetime: time.Hour}, n + `,"expiresAt":"2026-12-02T03:00:00Z"`, "400 VALIDATION_ERROR <nil> <nil>"},
		"lifetime lowered":        {sandbox.Behavior{MaxLifetime: time.Hour, CapExpiry: true, AnswerExpiry: true}, n + `,"expiresAt":"2026-12-02T03:00:00Z"`, "201  [account:read tokens:write] 2026-12-01T04:00:00.000Z"},
		"default lifetime":        {sandbox.Behavior{MaxLifetime: time.Hour, AnswerExpiry: true}, n, "201  [account:read tokens:write] 2026-12-01T04:00:00.000Z"},
		"too many":                {sandbox.Behavior{MaxLive: 1}, n, "403 TOKEN_LIMIT_REACHED <nil> <nil>"},
		"name taken":              {sandbox.Behavior{UniqueNames: true}, `"name":"management token of the sandbox","scopes":["account:read"]`, "409 NAME_TAKEN <nil> <nil>"},
		"JavaScript's length":     {sandbox.Behavior{UTF16Names: true}, `"name":"` + strings.Repeat("😀", 61) + `","scopes":["account:read"]`, "400 VALIDATION_ERROR <nil> <nil>"},
		"everybody else's":        {sandbox.Behavior{}, `"name":"` + strings.Repeat("😀", 61) + `","scopes":["account:read"]`, "201  [account:read] <nil>"},
		"no chatbots: all":        {sandbox.Behavior{EmptyChatbots: "all"}, n + `,"chatbotIds":[]`, "201  [account:read tokens:write] <nil>"},
		"no chatbots: none":       {sandbox.Behavior{EmptyChatbots: "none"}, n + `,"chatbotIds":[]`, "201  [account:read tokens:write] <nil>"},
		"a scope asked for twice": {sandbox.Behavior{}, `"name":"n","scopes":["account:read","account:read"]`, "201  [account:read] <nil>"},
	} {
		s, r := post(test.b, test.body)
		if got := fmt.Sprint(r.status, " ", r.code, " ", r.at("token.scopes"), " ", r.at("token.expiresAt")); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		if b := test.b.EmptyChatbots; b != "" && (s.Tokens()[0].Chatbots == nil) != (b == "all") {
			t.Errorf("%s: chatbots %v", name, s.Tokens()[0].Chatbots)
		}
	}

	s, r := post(sandbox.Behavior{MeNeedsScope: true, CapToCaller: true, ListFree: true, RevokeFree: true, RevokeGone: 200}, `"name":"n","scopes":["tokens:write"]`)
	writer := r.at("plaintextToken").(string)
	if r := send(t, s, writer, "GET", "/api/v2/me", ""); r.status != 403 {
		t.Errorf("me without account:read: %s", r.raw)
	}
	if r := send(t, s, writer, "POST", "/api/v2/tokens", `{"name":"n","scopes":["account:read"]}`); r.status != 403 {
		t.Errorf("a scope that the caller lacks: %s", r.raw)
	}
	if r := send(t, s, writer, "GET", "/api/v2/tokens", ""); !r.ok {
		t.Errorf("list: %s", r.raw)
	}
	_, nobody := create(t, s, `"name":"n","scopes":["leads:read"]`)
	if r := send(t, s, nobody, "DELETE", "/api/v2/tokens/tok_gone", ""); r.status != 200 {
		t.Errorf("revoke what is gone: %s", r.raw)
	}

	c := newClock()
	s = sandbox.New(sandbox.Options{Now: c.now, Behavior: sandbox.Behavior{RequestsPerMinute: 2}})
	c.pass(20 * time.Second)
	for i, want := range []int{200, 200, 429, 429} {
		r := send(t, s, s.Management().Reveal(), "GET", "/api/v2/me", "")
		if r.status != want || want == 429 && r.header.Get("Retry-After") != "40" {
			t.Errorf("request %d: %d, Retry-After %q", i, r.status, r.header.Get("Retry-After"))
		}
	}
	c.pass(40 * time.Second)
	if r := send(t, s, s.Management().Reveal(), "GET", "/api/v2/me", ""); !r.ok {
		t.Errorf("the next minute: %s", r.raw)
	}
}

func TestPages(t *testing.T) {
	c := newClock()
	s := sandbox.New(sandbox.Options{Now: c.now, Behavior: sandbox.Behavior{PageSize: 4, PageParam: "from"}})
	var want []string
	for i := range 10 {
		create(t, s, fmt.Sprintf(`"name":"t%d","scopes":["account:read"]`, i))
		want = append([]string{fmt.Sprint("t", i)}, want...)
	}
	want = append(want, "management token of the sandbox")
	var got []string
	cursor := ""
	for pages := 1; ; pages++ {
		r := send(t, s, s.Management().Reveal(), "GET", "/api/v2/tokens?limit=100&from="+cursor, "")
		for _, item := range r.at("tokens").([]any) {
			got = append(got, item.(map[string]any)["name"].(string))
		}
		next, more := r.at("pagination.nextCursor").(string)
		if more != r.at("pagination.hasNextPage").(bool) || r.at("pagination.limit") != 4.0 {
			t.Fatalf("pagination: %s", r.raw)
		}
		if !more {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		cursor = next
		// What comes or goes meanwhile moves nothing that was not seen yet.
		create(t, s, `"name":"new","scopes":["account:read"]`)
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

func TestFaultsComeAndGo(t *testing.T) {
	s := sandbox.New(sandbox.Options{Now: newClock().now, Seed: 1})
	me := func() int { return send(t, s, s.Management().Reveal(), "GET", "/api/v2/me", "").status }
	s.Inject(sandbox.Fault{Op: sandbox.OpList, Kind: sandbox.Forbidden})
	s.Inject(sandbox.Fault{Op: sandbox.OpMe, Kind: sandbox.Unavailable, After: 1, Times: 2})
	s.Inject(sandbox.Fault{Op: sandbox.OpAny, Kind: sandbox.Unauthorized, After: 4})
	var got []int
	for range 6 {
		got = append(got, me())
	}
	if want := []int{200, 503, 503, 200, 401, 401}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if left := s.Faults(); len(left) != 2 || left[0].Kind != sandbox.Forbidden || left[1].After != 0 {
		t.Errorf("left: %+v", left)
	}
	if n := s.Count(sandbox.OpMe); n != 6 || s.Count(sandbox.OpAny) != 6 || s.Count(sandbox.OpList) != 0 {
		t.Errorf("counted %d", n)
	}
	log := s.Requests()
	if r := log[1]; r.Op != sandbox.OpMe || r.Status != 503 || r.Fault != sandbox.Unavailable || r.Path != "/api/v2/me" || r.Bearer != "" {
		t.Errorf("logged %+v", r)
	}
	if r := log[0]; r.Status != 200 || r.Fault != "" || r.Bearer != "tok_management" {
		t.Errorf("logged %+v", r)
	}
	s.Clear()
	if me() != 200 || len(s.Faults()) != 0 {
		t.Error("cleared faults strike")
	}
	s.Inject(sandbox.Fault{Kind: sandbox.ServerError, Probability: 0.5})
	struck := 0
	for range 200 {
		if me() == 500 {
			struck++
		}
	}
	if struck < 60 || struck > 140 {
		t.Errorf("a fault of probability ½ struck %d of 200 times", struck)
	}
	defer func() {
		if recover() == nil {
			t.Error("a fault that there is not was taken")
		}
	}()
	s.Inject(sandbox.Fault{Kind: "flood"})
}

func TestTokensOutliveARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "deeper", "tokens.json")
	c := newClock()
	o := sandbox.Options{Now: c.now}
	s, err := sandbox.Open(file, o)
	if err != nil {
		t.Fatal(err)
	}
	id, kept := create(t, s, `"name":"kept","scopes":["account:read","leads:read"],"chatbotIds":["b1"]`)
	gone, revoked := create(t, s, `"name":"revoked","scopes":["account:read"]`)
	_, expired := create(t, s, `"name":"expired","scopes":["account:read"],"expiresInDays":1`)
	send(t, s, s.Management().Reveal(), "DELETE", "/api/v2/tokens/"+gone, "")
	before := s.Tokens()

	st, err := os.Stat(file)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{kept, revoked, expired, s.Management().Reveal(), "sgpt_"} {
		if bytes.Contains(b, []byte(p)) {
			t.Error("the file holds a plaintext")
		}
	}

	again, err := sandbox.Open(file, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(again.Tokens()), fmt.Sprint(before); got != want {
		t.Errorf("after a restart:\n%s\nwant\n%s", got, want)
	}
	if !again.Alive(kept) || again.Alive(revoked) || again.Alive(s.Management().Reveal()) || !again.Alive(again.Management().Reveal()) {
		t.Error("who is alive has changed")
	}
	if r := send(t, again, kept, "GET", "/api/v2/me", ""); !r.ok {
		t.Errorf("me: %s", r.raw)
	}
	// Paging still works on what was there and what is new.
	create(t, again, `"name":"new","scopes":["account:read"]`)
	if r := send(t, again, again.Management().Reveal(), "GET", "/api/v2/tokens?limit=1", ""); r.at("pagination.hasNextPage") != true || !strings.Contains(r.raw, `"new"`) {
		t.Errorf("list: %s", r.raw)
	}

	// What has been dead for a week is forgotten; a management token that was made here stays.
	c.pass(8*24*time.Hour + time.Second)
	o.Management = rotator.NewSecret(kept)
	late, err := sandbox.Open(file, o)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, t := range late.Tokens() {
		names = append(names, t.Name)
	}
	if !slices.Equal(names, []string{"kept", "new"}) {
		t.Errorf("kept %v", names)
	}
	if r := send(t, late, kept, "DELETE", "/api/v2/tokens/"+id, ""); r.status != 403 {
		t.Errorf("the given management token has scopes it was not made with: %s", r.raw)
	}

	for _, damage := range []string{"{", `{"version":2}`, `{"version":1,"tokens":[{"id":"x"}]}`} {
		if err := os.WriteFile(file, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := sandbox.Open(file, o); err == nil || !strings.Contains(err.Error(), "remove it to start afresh") {
			t.Errorf("%s: %v", damage, err)
		}
	}
}

func TestNothingIsMadeThatCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	s, err := sandbox.Open(filepath.Join(dir, "tokens.json"), sandbox.Options{Now: newClock().now})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	r := send(t, s, s.Management().Reveal(), "POST", "/api/v2/tokens", `{"name":"n","scopes":["account:read"]}`)
	if r.status != 500 || len(s.Tokens()) != 0 || s.Made() != 0 {
		t.Errorf("%s, %v", r.raw, s.Tokens())
	}
}

func TestManyAtOnceAreAllKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens.json")
	o := sandbox.Options{Now: newClock().now}
	s, err := sandbox.Open(file, o)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				create(t, s, fmt.Sprintf(`"name":"t%d-%d","scopes":["account:read"]`, i, j))
				s.Requests()
			}
		})
	}
	wg.Wait()
	again, err := sandbox.Open(file, o)
	if err != nil || len(again.Tokens()) != 400 || s.Made() != 400 {
		t.Errorf("%d of %d kept, %v", len(again.Tokens()), s.Made(), err)
	}
}

func get(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestControl(t *testing.T) {
	s := sandbox.New(sandbox.Options{Now: newClock().now, Control: true})
	url, stop, err := s.Start(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer stop() //nolint:errcheck // it is killed
	_, plaintext := create(t, s, `"name":"n","scopes":["account:read"]`)

	const fault = `{"op":"create","kind":"limited","times":2,"retry_after":"1m30s"}`
	if status, body := get(t, "POST", url+"/_sandbox/faults", fault); status != 200 || !strings.Contains(body, `"retry_after": "1m30s"`) {
		t.Errorf("%d %s", status, body)
	}
	if f := s.Faults(); len(f) != 1 || f[0] != (sandbox.Fault{Op: sandbox.OpCreate, Kind: sandbox.Limited, Times: 2, RetryAfter: 90 * time.Second}) {
		t.Errorf("%+v", f)
	}
	r := send(t, s, s.Management().Reveal(), "POST", "/api/v2/tokens", `{"name":"l","scopes":["account:read"]}`)
	if r.status != 429 || r.header.Get("Retry-After") != "90" {
		t.Errorf("%d %v", r.status, r.header)
	}
	if status, body := get(t, "GET", url+"/_sandbox/faults", ""); status != 200 || !strings.Contains(body, `"times": 1`) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := get(t, "DELETE", url+"/_sandbox/faults", ""); status != 200 || strings.TrimSpace(body) != "[]" || len(s.Faults()) != 0 {
		t.Errorf("%d %s", status, body)
	}

	s.SetBehavior(sandbox.Behavior{ListMore: true, Role: []string{"leads:read"}})
	const change = `{"answer_expiry":true,"max_lifetime":"2h","role":null,"statuses":{"TOKEN_NOT_VALID":403}}`
	if status, body := get(t, "PUT", url+"/_sandbox/behavior", change); status != 200 || !strings.Contains(body, `"max_lifetime": "2h0m0s"`) {
		t.Errorf("%d %s", status, body)
	}
	b := s.Behavior()
	if !b.AnswerExpiry || !b.ListMore || b.Role != nil || b.MaxLifetime != 2*time.Hour || b.Statuses["TOKEN_NOT_VALID"] != 403 {
		t.Errorf("%+v", b)
	}
	if _, body := get(t, "GET", url+"/_sandbox/behavior", ""); !strings.Contains(body, `"list_more": true`) {
		t.Error(body)
	}

	status, body := get(t, "GET", url+"/_sandbox/tokens", "")
	if status != 200 || !strings.Contains(body, `"live": true`) || !strings.Contains(body, `"name": "n"`) || strings.Contains(body, plaintext) || strings.Contains(body, "sgpt_") {
		t.Errorf("%d %s", status, body)
	}
	status, body = get(t, "GET", url+"/_sandbox/requests", "")
	if status != 200 || !strings.Contains(body, `"label": "n"`) || !strings.Contains(body, `"status": 429`) || strings.Contains(body, "sgpt_") {
		t.Errorf("%d %s", status, body)
	}

	for _, test := range []struct {
		method, path, body string
		header             []string
		want               int
	}{
		{"POST", "faults", `{"kind":"flood"}`, nil, 400},
		{"POST", "faults", `{"kind":"drop","op":"login"}`, nil, 400},
		{"POST", "faults", `{"kind":"drop","colour":"red"}`, nil, 400},
		{"POST", "faults", `{"kind":"drop","retry_after":"soon"}`, nil, 400},
		{"POST", "faults", `{"kind":"drop","probability":2}`, nil, 400},
		{"POST", "faults", `{"kind":"drop","times":-1}`, nil, 400},
		{"POST", "faults", `{"kind":"drop"} x`, nil, 400},
		{"PUT", "behavior", `{"colour":"red"}`, nil, 400},
		{"PUT", "behavior", `{"empty_chatbots":"some"}`, nil, 400},
		{"PUT", "behavior", `{"create_status":7}`, nil, 400},
		{"PUT", "behavior", `{"page_size":-1}`, nil, 400},
		{"PUT", "behavior", `{"statuses":{"X":200}}`, nil, 400},
		{"PUT", "behavior", `{"max_lifetime":"long"}`, nil, 400},
		{"PUT", "faults", `{}`, nil, 405},
		{"GET", "plaintexts", ``, nil, 404},
		// What a web page could send from a browser on this machine.
		{"POST", "faults", `{"kind":"drop"}`, []string{"Content-Type", "text/plain"}, 415},
		{"GET", "tokens", ``, []string{"Host", "rebound.example"}, 403},
	} {
		if status, body := get(t, test.method, url+"/_sandbox/"+test.path, test.body, test.header...); status != test.want {
			t.Errorf("%s %s %s: %d %s, want %d", test.method, test.path, test.body, status, body, test.want)
		}
	}
	if len(s.Faults()) != 0 || s.Behavior().PageSize != 0 {
		t.Error("a refused request changed something")
	}

	closed := sandbox.New(sandbox.Options{Now: newClock().now})
	if r := send(t, closed, "", "POST", "/_sandbox/faults", fault); r.status != 404 {
		t.Errorf("control without the option: %s", r.raw)
	}
}

func TestStartAndStop(t *testing.T) {
	s := sandbox.New(sandbox.Options{Now: newClock().now})
	url, stop, err := s.Start(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Errorf("serves %s", url)
	}
	id, _ := create(t, s, `"name":"n","scopes":["account:read"]`)

	// A request that hangs ends with the server, whichever way it is stopped.
	hanging := func(url string) <-chan error {
		s.Inject(sandbox.Fault{Kind: sandbox.Hang, Times: 1})
		n := s.Count(sandbox.OpHealth)
		done := make(chan error, 1)
		go func() {
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(must(http.NewRequest(http.MethodGet, url+"/api/v2/health", nil)))
			if err == nil {
				resp.Body.Close()
			}
			done <- err
		}()
		for s.Count(sandbox.OpHealth) == n {
			time.Sleep(time.Millisecond)
		}
		return done
	}
	done := hanging(url)
	for range 2 {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err == nil {
		t.Error("a hanging request was answered when the server was killed")
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		t.Error("the port is still open")
	}

	// The same server again, with what it knew.
	ctx, cancel := context.WithCancel(t.Context())
	l, err := sandbox.Listen("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	url = "http://" + l.Addr().String()
	if status, body := get(t, "GET", url+"/api/v2/tokens", "", "Authorization", "Bearer "+s.Management().Reveal()); status != 200 || !strings.Contains(body, id) {
		t.Errorf("%d %s", status, body)
	}
	done = hanging(url)
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("a hanging request was answered when the server stopped")
	}

	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "example.com:80", "127.0.0.1"} {
		if _, _, err := s.Start(t.Context(), addr); err == nil || !strings.Contains(err.Error(), addr) {
			t.Errorf("listens on %q: %v", addr, err)
		}
	}
}

func must(r *http.Request, err error) *http.Request {
	if err != nil {
		panic(err)
	}
	return r
}

// A client that goes away sets a request free that hangs, over a real connection.
func TestHangEndsWithItsClient(t *testing.T) {
	s := sandbox.New(sandbox.Options{Now: newClock().now})
	url, stop, err := s.Start(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	s.Inject(sandbox.Fault{Kind: sandbox.HangAfter, Op: sandbox.OpCreate})
	ctx, cancel := context.WithCancel(t.Context())
	r := must(http.NewRequestWithContext(ctx, http.MethodPost, url+"/api/v2/tokens", strings.NewReader(`{"name":"n","scopes":["account:read"]}`)))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+s.Management().Reveal())
	done := make(chan error, 1)
	go func() {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	for s.Made() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := stop(); err != nil || len(s.Live()) != 1 {
		t.Errorf("%v, %v", err, s.Live())
	}
}

func TestNoPlaintextIsRemembered(t *testing.T) {
	s := sandbox.New(sandbox.Options{Now: newClock().now, Control: true})
	_, plaintext := create(t, s, `"name":"n","scopes":["account:read"]`)
	send(t, s, plaintext, "GET", "/api/v2/me", "")
	for what, v := range map[string]any{"tokens": s.Tokens(), "requests": s.Requests(), "server": s} {
		text := fmt.Sprintf("%+v %#v", v, v)
		if strings.Contains(text, plaintext) || strings.Contains(text, s.Management().Reveal()) {
			t.Errorf("%s hold a plaintext", what)
		}
	}
}
