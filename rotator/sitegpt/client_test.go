package sitegpt_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

const bearer = "sgpt_canary_of_the_management_token"

// client returns a client of a server that a test controls.
func client(t *testing.T, url string, change ...func(*sitegpt.Config)) *sitegpt.Client {
	t.Helper()
	c := sitegpt.Config{
		BaseURL: url, Now: time.Now, Timeout: 20 * time.Second,
		Token: func() rotator.Secret { return rotator.NewSecret(bearer) },
	}
	for _, f := range change {
		f(&c)
	}
	cl, err := sitegpt.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// start returns a running stand-in and a client of it.
func start(t *testing.T, b sandbox.Behavior, change ...func(*sitegpt.Config)) (*sandbox.Server, *sitegpt.Client) {
	t.Helper()
	s := sandbox.New(sandbox.Options{Now: time.Now, Behavior: b})
	url, stop, err := s.Start(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop() }) //nolint:errcheck // it was killed
	return s, client(t, url, append([]func(*sitegpt.Config){func(c *sitegpt.Config) { c.Token = s.Management }}, change...)...)
}

// serve returns a client of a handler.
func serve(t *testing.T, h http.HandlerFunc, change ...func(*sitegpt.Config)) *sitegpt.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return client(t, s.URL, change...)
}

// answer returns a client of a server that always answers so.
func answer(t *testing.T, status int, body string, header ...string) *sitegpt.Client {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body) //nolint:errcheck // a test's client
	})
}

func request(label string) rotator.Request {
	return rotator.Request{Label: label, Scopes: []string{"account:read", "chatbots:read"}, ExpiresAt: time.Now().Add(48 * time.Hour)}
}

// class sorts an error into what a caller can tell.
func class(err error) string {
	var limited *rotator.LimitedError
	var out []string
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &limited):
		out = append(out, "limited")
	case errors.Is(err, rotator.ErrRejected):
		out = append(out, "rejected")
	case errors.Is(err, rotator.ErrRefused):
		out = append(out, "refused")
	default:
		out = append(out, "unknown")
	}
	if errors.Is(err, rotator.ErrUnauthorized) {
		out = append(out, "unauthorized")
	}
	if errors.Is(err, rotator.ErrForbidden) {
		out = append(out, "forbidden")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		out = append(out, "deadline")
	}
	return strings.Join(out, " ")
}

func TestRoundThroughTheStandIn(t *testing.T) {
	for _, b := range []sandbox.Behavior{
		{},
		{CreateStatus: 200, RevokeGone: 200, AnswerExpiry: true, ListMore: true, ListExpired: true, PageSize: 1, MeNeedsScope: true},
	} {
		s, c := start(t, b)
		ctx := t.Context()
		if err := c.Health(ctx); err != nil {
			t.Fatal(err)
		}
		r := request("rotatord/a/b#1 20261201T030000Z aaaaaaaaaaaaaaaa über-bot")
		got, err := c.Create(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		made := s.Tokens()
		if len(made) != 1 || made[0].ID != got.ID || made[0].Name != r.Label || !slices.Equal(made[0].Scopes, r.Scopes) ||
			made[0].Chatbots != nil || !made[0].Expires.Equal(r.ExpiresAt.Truncate(time.Second)) {
			t.Errorf("made %+v, want what was asked for", made)
		}
		if !slices.Equal(got.Scopes, r.Scopes) || !got.Token.IsToken() {
			t.Errorf("issued %+v", got)
		}
		if b.AnswerExpiry != !got.ExpiresAt.IsZero() || b.AnswerExpiry && (!got.ExpiresAt.Equal(made[0].Expires) || got.ExpiresAt.Location() != time.UTC) {
			t.Errorf("the answer's expiry is %v", got.ExpiresAt)
		}
		if err := c.Verify(ctx, got.Token); err != nil {
			t.Errorf("verify a new token: %v", err)
		}
		me, err := c.Me(ctx, got.Token)
		if err != nil || me.ID != "usr_sandbox" || me.Email != "sandbox@example.com" || !slices.Equal(me.Scopes, r.Scopes) {
			t.Errorf("me: %+v, %v", me, err)
		}
		list, err := c.List(ctx)
		if err != nil || len(list) != 2 || list[0].ID != got.ID || list[0].Name != r.Label || list[0].Created.IsZero() {
			t.Fatalf("list: %+v, %v", list, err)
		}
		if more := list[0]; b.ListMore && (!more.Expires.Equal(made[0].Expires) || more.LastUsed.IsZero() || !slices.Equal(more.Scopes, r.Scopes)) ||
			!b.ListMore && (!more.Expires.IsZero() || !more.LastUsed.IsZero() || more.Scopes != nil) {
			t.Errorf("list shows %+v", more)
		}
		for range 2 { // gone is gone
			if err := c.Revoke(ctx, got.ID); err != nil {
				t.Errorf("revoke: %v", err)
			}
		}
		if err := c.Verify(ctx, got.Token); !errors.Is(err, rotator.ErrUnauthorized) {
			t.Errorf("verify a revoked token: %v", err)
		}
		if list, err := c.List(ctx); err != nil || len(list) != 1 {
			t.Errorf("list after revoke: %+v, %v", list, err)
		}
		if d, ok := c.Offset(); !ok || d != 0 {
			t.Errorf("offset to the same clock: %v %v", d, ok)
		}
	}
}

// Every fault, at every operation: what the caller learns, and what there is afterwards.
func TestFaults(t *testing.T) {
	broken := outcome{"unknown", 0, "unknown", "unknown", "unknown", false}
	after := outcome{"unknown", 1, "unknown", "unknown", "unknown", true}
	faults := []struct {
		fault sandbox.Fault
		want  outcome
	}{
		{sandbox.Fault{Kind: sandbox.Limited}, outcome{"limited", 0, "limited", "limited", "limited", false}},
		{sandbox.Fault{Kind: sandbox.Limited, RetryAfter: time.Minute}, outcome{"limited", 0, "limited", "limited", "limited", false}},
		{sandbox.Fault{Kind: sandbox.ServerError}, broken},
		{sandbox.Fault{Kind: sandbox.ServerErrorAfter}, after},
		{sandbox.Fault{Kind: sandbox.Unavailable, RetryAfter: time.Minute}, broken},
		{sandbox.Fault{Kind: sandbox.HTML}, broken},
		{sandbox.Fault{Kind: sandbox.HTML, Status: 200}, broken},
		{sandbox.Fault{Kind: sandbox.HTML, Status: 401}, broken},
		{sandbox.Fault{Kind: sandbox.HTML, Status: 403}, broken},
		{sandbox.Fault{Kind: sandbox.HTML, Status: 404}, broken},
		{sandbox.Fault{Kind: sandbox.HTML, Status: 429}, outcome{"limited", 0, "limited", "limited", "limited", false}},
		{sandbox.Fault{Kind: sandbox.HTMLAfter}, after},
		{sandbox.Fault{Kind: sandbox.Redirect}, broken},
		{sandbox.Fault{Kind: sandbox.Hang}, outcome{"unknown deadline", 0, "unknown deadline", "unknown deadline", "unknown deadline", false}},
		{sandbox.Fault{Kind: sandbox.HangAfter}, outcome{"unknown deadline", 1, "unknown deadline", "unknown deadline", "unknown deadline", true}},
		{sandbox.Fault{Kind: sandbox.Drop}, broken},
		{sandbox.Fault{Kind: sandbox.DropAfter}, after},
		{sandbox.Fault{Kind: sandbox.NotOK}, broken},
		{sandbox.Fault{Kind: sandbox.NotOKAfter}, after},
		{sandbox.Fault{Kind: sandbox.GarbledAfter}, after},
		{sandbox.Fault{Kind: sandbox.CutAfter}, after},
		{sandbox.Fault{Kind: sandbox.Unauthorized}, outcome{"refused unauthorized", 0, "unknown unauthorized", "unknown unauthorized", "unknown unauthorized", false}},
		{sandbox.Fault{Kind: sandbox.Forbidden}, outcome{"rejected forbidden", 0, "ok", "unknown forbidden", "unknown forbidden", false}},
		{sandbox.Fault{Kind: sandbox.Narrow}, outcome{"ok", 1, "ok", "ok", "ok", true}},
		{sandbox.Fault{Kind: sandbox.Repeat}, outcome{"ok", 1, "ok", "unknown", "ok", true}},
		{sandbox.Fault{Kind: sandbox.Slow, Delay: time.Millisecond}, outcome{"ok", 1, "ok", "ok", "ok", true}},
	}
	tested := map[sandbox.Kind]bool{}
	for _, f := range faults {
		tested[f.fault.Kind] = true
		t.Run(fmt.Sprintf("%s %d %s", f.fault.Kind, f.fault.Status, f.fault.RetryAfter), func(t *testing.T) {
			t.Parallel()
			if strings.HasPrefix(string(f.fault.Kind), "hang") {
				// Time passes at once in a bubble, and no network is allowed there.
				synctest.Test(t, func(t *testing.T) {
					s := sandbox.New(sandbox.Options{Now: time.Now})
					c := client(t, "http://localhost", func(c *sitegpt.Config) { c.Token, c.Transport = s.Management, s.Transport() })
					check(t, s, c, f.fault, f.want)
				})
				return
			}
			s, c := start(t, sandbox.Behavior{})
			check(t, s, c, f.fault, f.want)
		})
	}
	for _, k := range sandbox.Kinds() {
		if !tested[k] {
			t.Errorf("no test of fault %s", k)
		}
	}
}

// outcome is what a fault does to each operation.
type outcome struct {
	create      string
	made        int
	verify      string
	list        string
	revoke      string
	revokedDead bool
}

func check(t *testing.T, s *sandbox.Server, c *sitegpt.Client, fault sandbox.Fault, want outcome) {
	ctx := t.Context()
	victim, err := c.Create(ctx, request("victim"))
	if err != nil {
		t.Fatal(err)
	}
	s.Inject(fault)
	got, err := c.Create(ctx, request("new"))
	if class(err) != want.create {
		t.Errorf("create: %s, want %s: %v", class(err), want.create, err)
	}
	if (err == nil) == got.Token.IsZero() {
		t.Errorf("create: %+v with %v", got, err)
	}
	if made := len(s.Tokens()) - 1; made != want.made || s.Count(sandbox.OpCreate) != 2 {
		t.Errorf("create: %d tokens made by %d requests, want %d by 1", made, s.Count(sandbox.OpCreate)-1, want.made)
	}
	if limited, ok := errors.AsType[*rotator.LimitedError](err); ok && limited.After != fault.RetryAfter {
		t.Errorf("limited for %s, want %s", limited.After, fault.RetryAfter)
	}
	verr := c.Verify(ctx, victim.Token)
	if class(verr) != want.verify {
		t.Errorf("verify: %s, want %s: %v", class(verr), want.verify, verr)
	}
	list, lerr := c.List(ctx)
	if class(lerr) != want.list || (lerr == nil) != (list != nil) {
		t.Errorf("list: %s, want %s: %v, %v", class(lerr), want.list, list, lerr)
	}
	rerr := c.Revoke(ctx, victim.ID)
	if class(rerr) != want.revoke {
		t.Errorf("revoke: %s, want %s: %v", class(rerr), want.revoke, rerr)
	}
	if alive := s.Alive(victim.Token.Reveal()); alive == want.revokedDead {
		t.Errorf("after revoke the token lives: %v", alive)
	}
	for _, err := range []error{err, verr, lerr, rerr} {
		silent(t, err, s.Management().Reveal(), victim.Token.Reveal())
	}
	s.Clear()
	if err := c.Verify(ctx, s.Management()); err != nil {
		t.Errorf("once the fault is gone: %v", err)
	}
}

// silent fails the test where an error, or anything behind it, tells a plaintext.
func silent(t *testing.T, err error, plaintexts ...string) {
	t.Helper()
	if err == nil {
		return
	}
	text := fmt.Sprintf("%v|%+v|%#v", err, err, err)
	for _, p := range append(plaintexts, "sgpt_", "Bearer") {
		if strings.Contains(text, p) {
			t.Errorf("an error tells a plaintext: %s", strings.ReplaceAll(text, p, "<HERE>"))
		}
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		silent(t, u.Unwrap(), plaintexts...)
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			silent(t, e, plaintexts...)
		}
	}
}

// What goes over the wire, byte for byte.
func TestCreateSendsWhatIsDocumented(t *testing.T) {
	var got struct {
		sync.Mutex
		body   string
		header http.Header
		proto  string
	}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got.Lock()
		defer got.Unlock()
		got.body, got.header, got.proto = r.Method+" "+r.URL.String()+" "+string(b), r.Header, r.Proto
		io.WriteString(w, `{"ok":true,"data":{"token":{"id":"t1"},"plaintextToken":"sgpt_x"}}`) //nolint:errcheck // a test's client
	})
	r := rotator.Request{
		Label: "l <&> ü", Scopes: []string{"account:read"},
		ExpiresAt: time.Date(2026, 12, 1, 4, 0, 0, 999_999_999, time.FixedZone("", 3600)),
	}
	for _, test := range []struct {
		chatbots []string
		want     string
	}{
		{nil, `POST /api/v2/tokens {"name":"l \u003c\u0026\u003e ü","scopes":["account:read"],"expiresAt":"2026-12-01T03:00:00Z"}`},
		{[]string{"b2", "b1"}, `POST /api/v2/tokens {"name":"l \u003c\u0026\u003e ü","scopes":["account:read"],"chatbotIds":["b2","b1"],"expiresAt":"2026-12-01T03:00:00Z"}`},
		{[]string{}, `POST /api/v2/tokens {"name":"l \u003c\u0026\u003e ü","scopes":["account:read"],"chatbotIds":[],"expiresAt":"2026-12-01T03:00:00Z"}`},
	} {
		r.Chatbots = test.chatbots
		issued, err := c.Create(t.Context(), r)
		if err != nil || issued.ID != "t1" || issued.Scopes != nil || !issued.ExpiresAt.IsZero() {
			t.Errorf("%+v, %v", issued, err)
		}
		got.Lock()
		if got.body != test.want {
			t.Errorf("sent %s\nwant %s", got.body, test.want)
		}
		got.Unlock()
	}
	for k, want := range map[string]string{
		"Authorization": "Bearer " + bearer, "Content-Type": "application/json", "Accept": "application/json", "User-Agent": "rotatord",
	} {
		if v := got.header.Get(k); v != want {
			t.Errorf("%s: %q, want %q", k, v, want)
		}
	}
	for k := range got.header {
		if !slices.Contains([]string{"Authorization", "Content-Type", "Content-Length", "Accept", "Accept-Encoding", "User-Agent", "Connection"}, k) {
			t.Errorf("sent header %s", k)
		}
	}
}

// Over TLS, where reading speaks HTTP/2, a create still has an HTTP/1.1 connection of its own.
func TestCreateOverTLS(t *testing.T) {
	var mu sync.Mutex
	protos := map[string]string{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		protos[r.Method] = r.Proto
		io.WriteString(w, `{"ok":true,"data":{"token":{"id":"t1"},"plaintextToken":"sgpt_x","tokens":[]}}`) //nolint:errcheck // a test's client
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that is to fail
	s.StartTLS()
	t.Cleanup(s.Close)
	c := client(t, s.URL, func(c *sitegpt.Config) { c.Transport = s.Client().Transport })
	if _, err := c.List(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Create(t.Context(), request("x")); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if protos["GET"] != "HTTP/2.0" || protos["POST"] != "HTTP/1.1" {
		t.Errorf("protocols %v", protos)
	}
	// A server that nobody vouches for: the handshake fails, so nothing was sent.
	if _, err := client(t, s.URL).Create(t.Context(), request("x")); class(err) != "refused" {
		t.Errorf("create with an untrusted certificate: %s: %v", class(err), err)
	}
}

func TestCreateRefusedWithoutSending(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	l.Close()
	for name, c := range map[string]*sitegpt.Client{
		"nobody listens": client(t, url),
		"no such host": client(t, "https://sitegpt.invalid", func(c *sitegpt.Config) {
			c.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.DNSError{Err: "no such host", Name: "sitegpt.invalid", IsNotFound: true}
			}}
		}),
		"no token":   client(t, url, func(c *sitegpt.Config) { c.Token = func() rotator.Secret { return rotator.Secret{} } }),
		"a line end": client(t, url, func(c *sitegpt.Config) { c.Token = func() rotator.Secret { return rotator.NewSecret(bearer + "\n") } }),
	} {
		_, err := c.Create(t.Context(), request("x"))
		if class(err) != "refused" {
			t.Errorf("%s: %s: %v", name, class(err), err)
		}
		silent(t, err, bearer)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client(t, url).Create(ctx, request("x")); class(err) != "refused" || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %s: %v", class(err), err)
	}
}

// A canceled create that had a connection is unknown, even if the server has not looked at it yet.
func TestCreateCancelledInFlight(t *testing.T) {
	arrived := make(chan struct{})
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		io.ReadAll(r.Body) //nolint:errcheck // a test's client
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err := c.Create(ctx, request("x"))
	if class(err) != "unknown" || !errors.Is(err, context.Canceled) {
		t.Errorf("%s: %v", class(err), err)
	}
}

// plainServer speaks just enough HTTP/1.1 to misbehave on a connection that is kept alive.
type plainServer struct {
	l     net.Listener
	posts atomic.Int32
	conns atomic.Int32
	wg    sync.WaitGroup
}

// The first request on a connection is answered; at the second one the connection is closed, after
// the request was read whole.
func newPlainServer(t *testing.T) *plainServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &plainServer{l: l}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Add(1)
			p.wg.Go(func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for n := 0; ; n++ {
					r, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					io.Copy(io.Discard, r.Body) //nolint:errcheck // a test's client
					if r.Method == http.MethodPost {
						p.posts.Add(1)
					}
					if n == 1 {
						return
					}
					body := `{"ok":true,"data":{"token":{"id":"t1"},"plaintextToken":"sgpt_x"}}`
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.wg.Wait()
	})
	return p
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// net/http repeats some requests by itself when a connection that it reuses turns out to be dead.
func TestNoCreateIsRepeatedOnADeadConnection(t *testing.T) {
	t.Run("on connections that are kept alive", func(t *testing.T) {
		p := newPlainServer(t)
		keep := &http.Transport{}
		t.Cleanup(keep.CloseIdleConnections)
		var reused atomic.Bool
		c := client(t, "http://"+p.l.Addr().String(), func(c *sitegpt.Config) {
			// Wrapped, so that the client cannot replace it by a safer one.
			c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodPost && r.GetBody != nil {
					t.Error("the body can be rewound")
				}
				return keep.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
					GotConn: func(i httptrace.GotConnInfo) { reused.Store(i.Reused) },
				})))
			})
		})
		if err := c.Verify(t.Context(), rotator.NewSecret(bearer)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Create(t.Context(), request("x"))
		if class(err) != "unknown" || !reused.Load() {
			t.Errorf("%s, reused %v: %v", class(err), reused.Load(), err)
		}
		if n := p.posts.Load(); n != 1 {
			t.Errorf("%d POSTs reached the server, want 1", n)
		}
	})
	t.Run("as the client does it", func(t *testing.T) {
		p := newPlainServer(t)
		c := client(t, "http://"+p.l.Addr().String())
		if err := c.Verify(t.Context(), rotator.NewSecret(bearer)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := c.Create(t.Context(), request("x")); err != nil {
				t.Error(err)
			}
		}
		if posts, conns := p.posts.Load(), p.conns.Load(); posts != 2 || conns != 3 {
			t.Errorf("%d POSTs on %d connections, want 2 on 2 (and 1 for reading)", posts, conns-1)
		}
	})
	t.Run("closed while idle, just before", func(t *testing.T) {
		var posts atomic.Int32
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				posts.Add(1)
			}
			io.WriteString(w, `{"ok":true,"data":{"token":{"id":"t1"},"plaintextToken":"sgpt_x"}}`) //nolint:errcheck // a test's client
		}))
		t.Cleanup(s.Close)
		keep := &http.Transport{}
		t.Cleanup(keep.CloseIdleConnections)
		c := client(t, s.URL, func(c *sitegpt.Config) {
			c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				return keep.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
					GotConn: func(i httptrace.GotConnInfo) {
						if i.Reused {
							i.Conn.Close()
						}
					},
				})))
			})
		})
		if err := c.Verify(t.Context(), rotator.NewSecret(bearer)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Create(t.Context(), request("x"))
		if n := posts.Load(); n > 1 || err == nil && n != 1 || class(err) == "refused" && n != 0 {
			t.Errorf("%d POSTs reached the server: %s: %v", n, class(err), err)
		}
	})
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var strayed atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		strayed.Add(1)
		io.WriteString(w, `{"ok":true,"data":{"token":{"id":"t1"},"plaintextToken":"sgpt_x","tokens":[]}}`) //nolint:errcheck // a test's client
	}))
	t.Cleanup(other.Close)
	for _, status := range []int{300, 301, 302, 303, 304, 307, 308} {
		var requests atomic.Int32
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			w.Header().Set("Location", other.URL+"/?"+bearer)
			w.WriteHeader(status)
		})
		_, err := c.Create(t.Context(), request("x"))
		if class(err) != "unknown" {
			t.Errorf("%d: create: %s: %v", status, class(err), err)
		}
		silent(t, err, bearer)
		if err := c.Verify(t.Context(), rotator.NewSecret(bearer)); class(err) != "unknown" {
			t.Errorf("%d: verify: %s: %v", status, class(err), err)
		}
		if _, err := c.List(t.Context()); class(err) != "unknown" {
			t.Errorf("%d: list: %s: %v", status, class(err), err)
		}
		if err := c.Revoke(t.Context(), "t1"); class(err) != "unknown" {
			t.Errorf("%d: revoke: %s: %v", status, class(err), err)
		}
		if n := requests.Load(); n != 4 {
			t.Errorf("%d: %d requests for 4 calls", status, n)
		}
	}
	if n := strayed.Load(); n != 0 {
		t.Errorf("%d requests went where the redirects led", n)
	}
}

func TestCreateOutcomes(t *testing.T) {
	const no = `{"ok":false,"error":{"code":"%s","message":"no"}}`
	for _, test := range []struct {
		status int
		body   string
		want   string
	}{
		{200, `{"ok":true,"data":{"token":{"id":"t1"},"plaintextToken":"sgpt_x"}}`, "ok"},
		{299, `{"ok":true,"data":{"token":{"id":"t1","scopes":"all","expiresAt":12},"plaintextToken":"sgpt_x","new":1},"meta":7}`, "ok"},
		{201, `{"ok":true,"data":{"token":{"id":""},"plaintextToken":"sgpt_x"}}`, "unknown"},
		{201, `{"ok":true,"data":{"token":{"id":".."},"plaintextToken":"sgpt_x"}}`, "unknown"},
		{201, `{"ok":true,"data":{"token":{"id":"t1"},"plaintextToken":""}}`, "unknown"},
		{201, `{"ok":true,"data":{"token":{"id":"t1"},"plaintextToken":"sgpt_x\n"}}`, "unknown"},
		{201, `{"ok":true,"data":{"token":{"id":"t1"},"plaintextToken":null}}`, "unknown"},
		{201, `{"ok":true,"data":null}`, "unknown"},
		{201, `{"ok":true}`, "unknown"},
		{201, `{"data":{"token":{"id":"t1"},"plaintextToken":"sgpt_x"}}`, "unknown"},
		{201, ``, "unknown"},
		{204, ``, "unknown"},
		{200, fmt.Sprintf(no, "TOKEN_SCOPE_NOT_VALID"), "unknown"},
		{400, fmt.Sprintf(no, "TOKEN_SCOPE_NOT_VALID"), "rejected"},
		{422, fmt.Sprintf(no, ""), "rejected"},
		{400, `{"ok":false}`, "rejected"},
		{400, `{"ok":true,"data":{"token":{"id":"t1"},"plaintextToken":"sgpt_x"}}`, "unknown"},
		{400, `{"error":"bad request"}`, "unknown"},
		{400, `<html>`, "unknown"},
		{401, fmt.Sprintf(no, "TOKEN_NOT_VALID"), "refused unauthorized"},
		{400, fmt.Sprintf(no, "TOKEN_NOT_VALID"), "refused unauthorized"},
		{401, fmt.Sprintf(no, "TOKEN_SCOPE_NOT_ALLOWED"), "rejected forbidden"},
		{403, fmt.Sprintf(no, "TOKEN_SCOPE_NOT_ALLOWED"), "rejected forbidden"},
		{403, fmt.Sprintf(no, "SOMETHING"), "rejected forbidden"},
		{401, `<html>`, "unknown"},
		{403, `<html>`, "unknown"},
		{408, fmt.Sprintf(no, "X"), "unknown"},
		{409, fmt.Sprintf(no, "X"), "unknown"},
		{425, fmt.Sprintf(no, "X"), "unknown"},
		{429, fmt.Sprintf(no, "X"), "limited"},
		{429, `<html>`, "limited"},
		{429, ``, "limited"},
		{500, fmt.Sprintf(no, "TOKEN_NOT_VALID"), "unknown"},
		{599, fmt.Sprintf(no, "X"), "unknown"},
	} {
		issued, err := answer(t, test.status, test.body).Create(t.Context(), request("x"))
		if class(err) != test.want {
			t.Errorf("%d %s: %s, want %s: %v", test.status, test.body, class(err), test.want, err)
		}
		if (err == nil) != (issued.ID == "t1" && issued.Token.Reveal() == "sgpt_x") {
			t.Errorf("%d %s: %+v", test.status, test.body, issued)
		}
		silent(t, err, bearer)
	}
}

func TestVerifyAndRevokeBelieveTheAPIOnly(t *testing.T) {
	const no = `{"ok":false,"error":{"code":"%s","message":"no"}}`
	for _, test := range []struct {
		status         int
		body           string
		verify, revoke string
	}{
		{200, `{"ok":true,"data":{}}`, "ok", "ok"},
		{200, `{"ok":true}`, "ok", "ok"},
		{401, fmt.Sprintf(no, "TOKEN_NOT_VALID"), "unknown unauthorized", "unknown unauthorized"},
		{403, fmt.Sprintf(no, "TOKEN_NOT_VALID"), "unknown unauthorized", "unknown unauthorized"},
		{401, fmt.Sprintf(no, "TOKEN_SCOPE_NOT_ALLOWED"), "ok", "unknown forbidden"},
		{403, fmt.Sprintf(no, "TOKEN_SCOPE_NOT_ALLOWED"), "ok", "unknown forbidden"},
		{404, fmt.Sprintf(no, "TOKEN_NOT_FOUND"), "unknown", "ok"},
		{404, `<html>`, "unknown", "unknown"},
		{404, `{"ok":true}`, "unknown", "unknown"},
		{401, `<html>`, "unknown", "unknown"},
		{403, `{}`, "unknown", "unknown"},
		{429, fmt.Sprintf(no, "TOKEN_NOT_VALID"), "limited", "limited"},
		{503, fmt.Sprintf(no, "TOKEN_NOT_VALID"), "unknown", "unknown"},
	} {
		c := answer(t, test.status, test.body)
		if err := c.Verify(t.Context(), rotator.NewSecret("sgpt_x")); class(err) != test.verify {
			t.Errorf("%d %s: verify: %s, want %s: %v", test.status, test.body, class(err), test.verify, err)
		}
		if err := c.Revoke(t.Context(), "t1"); class(err) != test.revoke {
			t.Errorf("%d %s: revoke: %s, want %s: %v", test.status, test.body, class(err), test.revoke, err)
		}
	}
	_, err := answer(t, 403, fmt.Sprintf(no, "TOKEN_SCOPE_NOT_ALLOWED")).Me(t.Context(), rotator.NewSecret("sgpt_x"))
	if !errors.Is(err, rotator.ErrForbidden) {
		t.Errorf("me: %v", err)
	}
}

func TestRevokeEscapesIDs(t *testing.T) {
	var path atomic.Value
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		path.Store(r.Method + " " + r.RequestURI)
		io.WriteString(w, `{"ok":true,"data":{"token":{}}}`) //nolint:errcheck // a test's client
	})
	for id, want := range map[string]string{
		"tok_1":         "DELETE /api/v2/tokens/tok_1",
		"a/../b?c#d%2F": "DELETE /api/v2/tokens/a%2F..%2Fb%3Fc%23d%252F",
		"...":           "DELETE /api/v2/tokens/...",
	} {
		if err := c.Revoke(t.Context(), id); err != nil || path.Load() != want {
			t.Errorf("%q: %v, want %s: %v", id, path.Load(), want, err)
		}
	}
	path.Store("")
	for _, id := range []string{"", ".", "..", "a b", "a\n"} {
		if err := c.Revoke(t.Context(), id); err == nil || path.Load() != "" {
			t.Errorf("%q: %v, sent %v", id, err, path.Load())
		}
	}
}

func TestListOf250InPages(t *testing.T) {
	s, c := start(t, sandbox.Behavior{})
	for i := range 250 {
		if _, err := c.Create(t.Context(), request(fmt.Sprint("t", i))); err != nil {
			t.Fatal(err)
		}
	}
	made := s.Tokens()
	if err := c.Revoke(t.Context(), made[7].ID); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 7, 251, 250} { // 250: the last page is full
		s.SetBehavior(sandbox.Behavior{PageSize: size})
		list, err := c.List(t.Context())
		if err != nil || len(list) != 250 { // with the management token
			t.Fatalf("page size %d: %d tokens, %v", size, len(list), err)
		}
		names := map[string]bool{}
		for _, l := range list {
			names[l.Name] = true
		}
		if len(names) != 250 || names["t7"] || !names["t249"] {
			t.Errorf("page size %d: %d names", size, len(names))
		}
	}
	s.SetBehavior(sandbox.Behavior{PageParam: "after", PageSize: 10})
	if list, err := c.List(t.Context()); err == nil {
		t.Errorf("a server that ignores our cursor: %d tokens without an error", len(list))
	}
}

func TestListIsCompleteOrAnError(t *testing.T) {
	item := func(id string) string { return `{"id":"` + id + `","name":"n"}` }
	full := make([]string, 100)
	for i := range full {
		full[i] = item(fmt.Sprint("t", i))
	}
	for name, test := range map[string]struct {
		pages []string // of data, by turns
		want  int      // tokens; -1: an error
	}{
		"empty":                       {[]string{`{"tokens":[],"pagination":{"hasNextPage":false}}`}, 0},
		"no tokens":                   {[]string{`{"pagination":{"hasNextPage":false}}`}, -1},
		"tokens null":                 {[]string{`{"tokens":null,"pagination":{"hasNextPage":false}}`}, -1},
		"tokens an object":            {[]string{`{"tokens":{},"pagination":{"hasNextPage":false}}`}, -1},
		"no data":                     {[]string{`null`}, -1},
		"null item":                   {[]string{`{"tokens":[null],"pagination":{"hasNextPage":false}}`}, -1},
		"item without id":             {[]string{`{"tokens":[{"name":"n"}],"pagination":{"hasNextPage":false}}`}, -1},
		"item with a number as id":    {[]string{`{"tokens":[{"id":1}],"pagination":{"hasNextPage":false}}`}, -1},
		"no pagination, short page":   {[]string{`{"tokens":[` + item("a") + `]}`}, 1},
		"no pagination, full page":    {[]string{`{"tokens":[` + strings.Join(full, ",") + `]}`}, -1},
		"cursor without hasNextPage":  {[]string{`{"tokens":[],"pagination":{"nextCursor":"x"}}`}, -1},
		"more, no cursor":             {[]string{`{"tokens":[` + item("a") + `],"pagination":{"hasNextPage":true}}`}, -1},
		"cursor that leads to itself": {[]string{`{"tokens":[` + item("a") + `],"pagination":{"hasNextPage":true,"nextCursor":"x"}}`, `{"tokens":[` + item("b") + `],"pagination":{"hasNextPage":true,"nextCursor":"x"}}`}, -1},
		"page that comes again":       {[]string{`{"tokens":[` + item("a") + `],"pagination":{"hasNextPage":true,"nextCursor":"x"}}`, `{"tokens":[` + item("a") + `],"pagination":{"hasNextPage":false}}`}, -1},
		"one token moved on":          {[]string{`{"tokens":[` + item("a") + `],"pagination":{"hasNextPage":true,"nextCursor":"x"}}`, `{"tokens":[` + item("a") + `,` + item("b") + `],"pagination":{"hasNextPage":false}}`}, 2},
		"numbers as cursors":          {[]string{`{"tokens":[` + item("a") + `],"pagination":{"hasNextPage":true,"nextCursor":17}}`, `{"tokens":[` + item("b") + `],"pagination":{"hasNextPage":false,"nextCursor":null}}`}, 2},
		"empty page in the middle":    {[]string{`{"tokens":[` + item("a") + `],"pagination":{"hasNextPage":true,"nextCursor":"x"}}`, `{"tokens":[],"pagination":{"hasNextPage":true,"nextCursor":"y"}}`, `{"tokens":[` + item("b") + `],"pagination":{"hasNextPage":false}}`}, 2},
		"odd optional fields":         {[]string{`{"tokens":[{"id":"a","name":"n","createdAt":"yesterday","expiresAt":5,"revokedAt":"","lastUsedAt":{},"scopes":"x","more":[1]}],"pagination":{"hasNextPage":false}}`}, 1},
		"revoked ones":                {[]string{`{"tokens":[{"id":"a","name":"n","revokedAt":"2026-01-01T00:00:00Z"}],"pagination":{"hasNextPage":false}}`}, 0},
		"the second page fails":       {[]string{`{"tokens":[` + item("a") + `],"pagination":{"hasNextPage":true,"nextCursor":"x"}}`, `oops`}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				i := int(n.Add(1)) - 1
				fmt.Fprintf(w, `{"ok":true,"data":%s}`, test.pages[min(i, len(test.pages)-1)])
			})
			list, err := c.List(t.Context())
			if test.want < 0 && (err == nil || list != nil) || test.want >= 0 && (err != nil || len(list) != test.want) {
				t.Errorf("%v, %v; want %d", list, err, test.want)
			}
		})
	}
}

func TestListEndsSomewhere(t *testing.T) {
	var n atomic.Int32
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		i := n.Add(1)
		fmt.Fprintf(w, `{"ok":true,"data":{"tokens":[{"id":"t%d"}],"pagination":{"hasNextPage":true,"nextCursor":"c%d"}}}`, i, i)
	})
	if _, err := c.List(t.Context()); err == nil || err.Error() != "list: no end after 1000 pages" {
		t.Error(err)
	}
}

func TestErrorTexts(t *testing.T) {
	long := strings.Repeat("é", 1000)
	for _, test := range []struct {
		status int
		body   string
		header []string
		call   func(*sitegpt.Client) error
		want   string
	}{
		{
			403, `{"ok":false,"error":{"code":"TOKEN_SCOPE_NOT_ALLOWED","message":"Scope not allowed","hint":"ask an admin"},"meta":{"requestId":"req_1"},"requestId":"req_2"}`, nil, create,
			"create: 403 TOKEN_SCOPE_NOT_ALLOWED: Scope not allowed; either the user's role may not grant these scopes or chatbots, or the daemon's own token lacks a scope (creating needs tokens:write, and perhaps each scope that is given) (hint: ask an admin; request req_1)",
		},
		{
			403, `{"ok":false,"error":{"code":"TOKEN_SCOPE_NOT_ALLOWED","message":"no"}}`, nil, list,
			"list: 403 TOKEN_SCOPE_NOT_ALLOWED: no; either the user's role may not list tokens, or the daemon's own token lacks a scope (listing needs tokens:read)",
		},
		{400, `{"ok":false,"error":{"code":"TOKEN_SCOPE_NOT_VALID","message":"no such scope"},"requestId":"req_2"}`, nil, create, "create: 400 TOKEN_SCOPE_NOT_VALID: no such scope (request req_2)"},
		{401, `{"ok":false,"error":{"code":"TOKEN_NOT_VALID","message":"expired"}}`, nil, verify, "verify: 401 TOKEN_NOT_VALID: expired"},
		{500, `{"ok":false,"error":{"message":"oops"},"meta":{"requestId":"req_3"}}`, nil, list, "list: 500 Internal Server Error: oops (request req_3)"},
		{500, `{"ok":false,"error":"oops","meta":null}`, nil, list, "list: 500 Internal Server Error"},
		{200, `{"ok":false}`, nil, list, "list: 200 OK: the answer says that it is not ok"},
		{500, `{"ok":true,"data":{}}`, nil, list, "list: 500 Internal Server Error: the answer contradicts its own status"},
		{502, `<html>` + bearer, nil, create, "create: 502 Bad Gateway: the answer is not the API's (a proxy's page?)"},
		{302, ``, []string{"Location", "https://elsewhere.example/?" + bearer}, create, "create: 302 Found: the answer is a redirect, and none is followed; is the base URL right?"},
		{429, `{"ok":false,"error":{"code":"RATE_LIMITED","message":"slow down"}}`, []string{"Retry-After", "90"}, create, "rate limited for 1m30s: create: 429 RATE_LIMITED: slow down"},
		{429, ``, nil, create, "rate limited: create: 429 Too Many Requests: the answer is not the API's (a proxy's page?)"},
		{200, `{"ok":true,"data":{"token":{"id":"t1"}}}`, nil, create, "create: the answer reports success without a usable token"},
		{
			418, `{"ok":false,"error":{"code":"A\u0000B\nC","message":"  line\r\nbreak \u001b[31mred\u200b you sent ` + bearer + ` and sgpt_Other-1.x, or \"SGPT_up\" ","hint":"` + long + `"},"meta":{"requestId":"r\t1"}}`, nil, revoke,
			"revoke: 418 AB C: line break [31mred you sent [redacted] and [redacted], or \"[redacted]\" (hint: " + strings.Repeat("é", 300) + "…; request r 1)",
		},
	} {
		err := test.call(answer(t, test.status, test.body, test.header...))
		if err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
		silent(t, err, bearer)
		e, ok := errors.AsType[*sitegpt.Error](err)
		if !ok || e.Op == "" {
			t.Errorf("%v is a %T", err, err)
		}
	}
	e, _ := errors.AsType[*sitegpt.Error](verify(answer(t, 401, `{"ok":false,"error":{"code":"TOKEN_NOT_VALID","message":"m","hint":"h"},"meta":{"requestId":"r"}}`)))
	if e.Op != "verify" || e.Status != 401 || e.Code != "TOKEN_NOT_VALID" || e.Message != "m" || e.Hint != "h" || e.RequestID != "r" {
		t.Errorf("%+v", e)
	}
}

func create(c *sitegpt.Client) error {
	_, err := c.Create(context.Background(), rotator.Request{Label: "x", Scopes: []string{"account:read"}})
	return err
}

func list(c *sitegpt.Client) error {
	_, err := c.List(context.Background())
	return err
}

func verify(c *sitegpt.Client) error {
	return c.Verify(context.Background(), rotator.NewSecret(bearer))
}

func revoke(c *sitegpt.Client) error { return c.Revoke(context.Background(), "t1") }

// net/http quotes a line that it does not understand.
func TestMalformedAnswersAreNotQuoted(t *testing.T) {
	for _, raw := range []string{
		bearer + " what\r\n\r\n",
		"HTTP/1.1 200 OK\r\n" + bearer + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: " + bearer + "\r\n\r\n",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			http.ReadRequest(bufio.NewReader(c)) //nolint:errcheck // a test's client
			io.WriteString(c, raw)               //nolint:errcheck // likewise
		})
		err = create(client(t, "http://"+l.Addr().String()))
		if class(err) != "unknown" {
			t.Errorf("%s: %v", class(err), err)
		}
		silent(t, err, bearer)
		l.Close()
		wg.Wait()
	}
}

func TestAnswerTooLarge(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for i := range chunk {
			chunk[i] = ' '
		}
		for range 17 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
		io.WriteString(w, `{"ok":true,"data":{"tokens":[]}}`) //nolint:errcheck // a test's client
	})
	if err := list(c); err == nil || err.Error() != "list: 200 OK: the answer is larger than 16 MiB" {
		t.Error(err)
	}
}

func TestRetryAfter(t *testing.T) {
	const date = "Tue, 01 Dec 2026 03:00:00 GMT"
	for _, test := range []struct {
		header []string
		want   time.Duration
	}{
		{nil, 0},
		{[]string{"Retry-After", "7"}, 7 * time.Second},
		{[]string{"Retry-After", " 7 "}, 7 * time.Second},
		{[]string{"Retry-After", "0"}, 0},
		{[]string{"Retry-After", "-5"}, 0},
		{[]string{"Retry-After", "soon"}, 0},
		{[]string{"Retry-After", "86400"}, time.Hour},
		{[]string{"Retry-After", "99999999999999999999999999"}, time.Hour},
		// By the server's own clock, whatever ours says.
		{[]string{"Date", date, "Retry-After", "Tue, 01 Dec 2026 03:02:00 GMT"}, 2 * time.Minute},
		{[]string{"Date", date, "Retry-After", "Tue, 01 Dec 2026 02:59:00 GMT"}, 0},
		{[]string{"Date", date, "Retry-After", "Wed, 01 Dec 2027 03:00:00 GMT"}, time.Hour},
	} {
		err := create(answer(t, 429, `{"ok":false}`, test.header...))
		limited, ok := errors.AsType[*rotator.LimitedError](err)
		if !ok || limited.After != test.want {
			t.Errorf("%q: %v, want %s", test.header, err, test.want)
		}
	}
}

func TestOffset(t *testing.T) {
	const ok = `{"ok":true}`
	local := time.Date(2026, 12, 1, 3, 0, 0, 400_000_000, time.UTC)
	at := func(d time.Duration) string { return local.Add(d).Format(http.TimeFormat) }
	for _, test := range []struct {
		name   string
		status int
		body   string
		header []string
		want   time.Duration
		known  bool
		skewed bool
	}{
		{"same", 200, ok, []string{"Date", at(0)}, 0, true, false},
		{"less than a second", 200, ok, []string{"Date", at(time.Second)}, time.Second, true, false},
		{"ahead", 200, ok, []string{"Date", at(30 * time.Second)}, 30 * time.Second, true, false},
		{"far ahead", 200, ok, []string{"Date", at(31 * time.Second)}, 31 * time.Second, true, true},
		{"far behind", 200, ok, []string{"Date", at(-time.Hour)}, -time.Hour + time.Second, true, true},
		{"an error tells it too", 401, `{"ok":false}`, []string{"Date", at(time.Minute)}, time.Minute, true, true},
		{"a proxy does not", 502, `<html>`, []string{"Date", at(time.Minute)}, 0, false, false},
		{"nor a cache", 200, ok, []string{"Date", at(-time.Minute), "Age", "60"}, 0, false, false},
		{"nor no date", 200, ok, []string{"Date", "now"}, 0, false, false},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(test.header); i += 2 {
				w.Header().Set(test.header[i], test.header[i+1])
			}
			w.WriteHeader(test.status)
			io.WriteString(w, test.body) //nolint:errcheck // a test's client
		}))
		c := client(t, s.URL, func(c *sitegpt.Config) { c.Now = func() time.Time { return local } })
		if d, ok := c.Offset(); ok || d != 0 {
			t.Errorf("%s: an offset before the first answer", test.name)
		}
		verify(c) //nolint:errcheck // some of them fail
		d, known := c.Offset()
		skew, skewed := c.Skew()
		if d != test.want || known != test.known || skewed != test.skewed || skew != d {
			t.Errorf("%s: %s %v %v", test.name, d, known, skewed)
		}
		s.Close()
	}
}

// What is decided by the clock waits until an answer bore it out, and a jump has to be seen twice.
func TestMeasured(t *testing.T) {
	local := time.Now() // with a monotonic reading
	var served time.Duration
	dated := true
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", local.Add(served).UTC().Format(http.TimeFormat))
		if !dated {
			w.Header()["Date"] = nil
		}
		io.WriteString(w, `{"ok":true}`) //nolint:errcheck // a test's client
	}, func(c *sitegpt.Config) { c.Now = func() time.Time { return local } })
	for _, step := range []struct {
		what string
		do   func()
		want bool
	}{
		{"nothing was asked yet", func() {}, false},
		{"an answer agrees", func() { verify(c) }, true}, //nolint:errcheck // any answer tells
		{"time passes", func() { local = local.Add(5 * time.Hour) }, true},
		{"the server's clock jumps", func() { served = time.Hour; verify(c) }, false},                //nolint:errcheck // any answer tells
		{"and stays there", func() { verify(c) }, true},                                              //nolint:errcheck // any answer tells
		{"this machine's clock steps", func() { local = stepWall(local, 26*time.Hour) }, false},      //
		{"the next answer shows by how much", func() { served -= 26 * time.Hour; verify(c) }, false}, //nolint:errcheck // any answer tells
		{"and one more", func() { verify(c) }, true},                                                 //nolint:errcheck // any answer tells
		{"it steps back", func() { local = stepWall(local, -26*time.Hour) }, false},                  //
		{"an answer without a date has to do", func() { dated = false; verify(c) }, true},            //nolint:errcheck // any answer tells
		{"a small step is none", func() { local = stepWall(local, 20*time.Second) }, true},           //
	} {
		step.do()
		if got := c.Measured(); got != step.want {
			t.Fatalf("%s: measured = %v, want %v", step.what, got, step.want)
		}
	}
}

// stepWall moves the wall clock's half of a reading, and not the monotonic one, as settimeofday
// does: package time has no way to make such a value. The seconds stand above 30 bits of nanoseconds.
func stepWall(t time.Time, d time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(d/time.Second) << 30
	return t
}

func TestTokenIsAskedEachTime(t *testing.T) {
	var bearers []string
	var mu sync.Mutex
	token := "sgpt_one"
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		bearers = append(bearers, r.Method+" "+r.Header.Get("Authorization"))
		io.WriteString(w, `{"ok":true,"data":{"tokens":[]}}`) //nolint:errcheck // a test's client
	}, func(c *sitegpt.Config) { c.Token = func() rotator.Secret { return rotator.NewSecret(token) } })
	list(c) //nolint:errcheck // only what was sent counts
	token = "sgpt_two"
	list(c)                        //nolint:errcheck // likewise
	c.Health(context.Background()) //nolint:errcheck // likewise
	verify(c)                      //nolint:errcheck // likewise
	want := []string{"GET Bearer sgpt_one", "GET Bearer sgpt_two", "GET ", "GET Bearer " + bearer}
	if !slices.Equal(bearers, want) {
		t.Errorf("sent %q, want %q", bearers, want)
	}
}

func TestNew(t *testing.T) {
	good := sitegpt.Config{BaseURL: "https://sitegpt.ai/", Token: func() rotator.Secret { return rotator.Secret{} }, Now: time.Now}
	c, err := sitegpt.New(good)
	if err != nil || c.Origin() != "https://sitegpt.ai" {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*sitegpt.Config){
		"base URL": func(c *sitegpt.Config) { c.BaseURL = "sitegpt.ai" },
		"token":    func(c *sitegpt.Config) { c.Token = nil },
		"clock":    func(c *sitegpt.Config) { c.Now = nil },
		"timeout":  func(c *sitegpt.Config) { c.Timeout = -1 },
		"agent":    func(c *sitegpt.Config) { c.UserAgent = "a\nb" },
	} {
		bad := good
		change(&bad)
		if _, err := sitegpt.New(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestParseOrigin(t *testing.T) {
	for base, want := range map[string]string{
		"https://sitegpt.ai":        "https://sitegpt.ai",
		"https://sitegpt.ai/":       "https://sitegpt.ai",
		"HTTPS://SiteGPT.ai:443//":  "https://sitegpt.ai",
		"https://sitegpt.ai:8443":   "https://sitegpt.ai:8443",
		"http://127.0.0.1:80":       "http://127.0.0.1",
		"http://127.9.9.9:1":        "http://127.9.9.9:1",
		"http://[::1]:8080":         "http://[::1]:8080",
		"http://[::1]":              "http://[::1]",
		"http://localhost:8080/":    "http://localhost:8080",
		"":                          "base URL: is empty; write an origin like https://sitegpt.ai",
		"sitegpt.ai":                "base URL: must start with https:// (or http:// on this machine); write an origin like https://sitegpt.ai",
		"ftp://sitegpt.ai":          "base URL: must start with https:// (or http:// on this machine); write an origin like https://sitegpt.ai",
		"https:sitegpt.ai":          "base URL: names no host; write an origin like https://sitegpt.ai",
		"https://":                  "base URL: names no host; write an origin like https://sitegpt.ai",
		"https://:443":              "base URL: names no host; write an origin like https://sitegpt.ai",
		"https://sitegpt.ai:":       "base URL: names no port after the colon",
		"https://sitegpt.ai:70000":  `base URL: "70000" is no port: it must be 1 to 65535`,
		"https://sitegpt.ai:x/sgpt": "base URL: is no URL; write an origin like https://sitegpt.ai",
		"https://sitegpt.ai/api/v2": `base URL: must be an origin, without the path "/api/v2"; the paths (/api/v2/…) are added`,
		"https://sitegpt.ai?t=sgpt": "base URL: must not have a query (what follows the question mark)",
		"https://sitegpt.ai?":       "base URL: must not have a query (what follows the question mark)",
		"https://sitegpt.ai#sgpt":   "base URL: must not have a fragment (what follows the #)",
		"https://sitegpt.ai/#":      "base URL: must not have a fragment (what follows the #)",
		"https://u:sgpt@sitegpt.ai": "base URL: must not contain a user name or password; the API takes its token apart from the URL",
		"http://sitegpt.ai":         "base URL: plain http to sitegpt.ai would send the token readable over the network; use https (http is for this machine itself: localhost, 127.0.0.1, ::1)",
		"http://localhost.evil.com": "base URL: plain http to localhost.evil.com would send the token readable over the network; use https (http is for this machine itself: localhost, 127.0.0.1, ::1)",
	} {
		got, err := sitegpt.ParseOrigin(base, false)
		if err != nil {
			got = err.Error()
			if strings.Contains(got, "sgpt") {
				t.Errorf("%q: the error repeats what may be a secret: %s", base, got)
			}
		}
		if got != want {
			t.Errorf("%q: %s\nwant %s", base, got, want)
		}
	}
	if got, err := sitegpt.ParseOrigin("http://10.0.0.1:80/", true); got != "http://10.0.0.1" || err != nil {
		t.Errorf("with plain http allowed: %s, %v", got, err)
	}
}

// FuzzAnswer: whatever answers, no call panics, no success lacks what it promises, and no error
// tells what was in the answer.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		``, `null`, `[]`, `{}`, `{"ok":true}`, `{"ok":false}`, `{"ok":"yes"}`, `{"ok":true,"data":null}`, `<html>sgpt_leak</html>`,
		`{"ok":true,"data":{"token":{"id":"t1","name":"n","scopes":["a:b"],"expiresAt":"2026-12-01T03:00:00Z"},"plaintextToken":"sgpt_leak"},"meta":{"requestId":"r"}}`,
		`{"ok":true,"data":{"tokens":[{"id":"t1","name":"n","createdAt":"2026-12-01T03:00:00Z"}],"pagination":{"limit":1,"hasNextPage":true,"nextCursor":"c"}}}`,
		`{"ok":true,"data":{"user":{"id":"u","email":"e","name":"n"},"auth":{"type":"token","scopes":["a:b"]}}}`,
		`{"ok":false,"error":{"code":"TOKEN_NOT_VALID","message":"sgpt_leak","hint":"sgpt_leak","details":[{}]},"meta":{"requestId":"sgpt_leak"}}`,
	} {
		for _, status := range []int{200, 201, 204, 302, 400, 401, 403, 404, 409, 429, 500} {
			f.Add(status, []byte(body), "30", false)
			f.Add(status, []byte(body), "-1", true)
		}
	}
	f.Fuzz(func(t *testing.T, status int, body []byte, after string, cut bool) {
		status = 200 + ((status-200)%400+400)%400 // 200 to 599; those stay as they are
		c, err := sitegpt.New(sitegpt.Config{
			BaseURL: sitegpt.DefaultBaseURL, Now: time.Now,
			Token: func() rotator.Secret { return rotator.NewSecret("sgpt_leak") },
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Body != nil {
					io.Copy(io.Discard, r.Body) //nolint:errcheck // a reader in memory
				}
				return &http.Response{
					StatusCode: status, Header: http.Header{"Retry-After": {after}, "Date": {after}},
					Body: io.NopCloser(whole(body, cut)), Request: r,
				}, nil
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		issued, cerr := c.Create(ctx, rotator.Request{Label: "x", Scopes: []string{"account:read"}})
		if (cerr == nil) != (issued.ID != "" && !issued.Token.IsZero()) {
			t.Errorf("create: %v with %+v", cerr, issued)
		}
		if cerr == nil && !json.Valid(body) {
			t.Errorf("create believes %q", body)
		}
		// Exactly one of token, refused, limited and unknown, and never more certain than the answer.
		limited := (*rotator.LimitedError)(nil)
		refused := errors.Is(cerr, rotator.ErrRefused)
		switch {
		case cut && (cerr == nil || refused):
			t.Errorf("create: half an answer (%d) is believed: %v", status, cerr)
		case refused && (status < 400 || status > 499 || status == 408 || status == 409 || status == 425 || status == 429):
			t.Errorf("create: %d is refused: %v", status, cerr)
		case errors.As(cerr, &limited) && (status != 429 || refused || limited.After < 0 || limited.After > time.Hour):
			t.Errorf("create: %d is limited: %+v", status, cerr)
		case errors.Is(cerr, rotator.ErrRejected) && !refused:
			t.Errorf("create: rejected, and not refused: %v", cerr)
		case errors.Is(cerr, rotator.ErrUnauthorized) && errors.Is(cerr, rotator.ErrForbidden):
			t.Errorf("create: both unauthorized and forbidden: %v", cerr)
		}
		list, lerr := c.List(ctx)
		if (lerr == nil) != (list != nil) {
			t.Errorf("list: %v with %+v", lerr, list)
		}
		for _, x := range list {
			if x.ID == "" || !x.Revoked.IsZero() {
				t.Errorf("list shows %+v", x)
			}
		}
		_, merr := c.Me(ctx, rotator.NewSecret("sgpt_leak"))
		for _, err := range []error{cerr, lerr, merr, c.Verify(ctx, rotator.NewSecret("sgpt_leak")), c.Revoke(ctx, "t1"), c.Health(ctx)} {
			if err == nil {
				continue
			}
			if text := fmt.Sprintf("%+v %#v", err, err); strings.Contains(strings.ToLower(text), "sgpt_") {
				t.Errorf("tells a token: %s", text)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) || len(err.Error()) > 4000 {
				t.Errorf("not fit for a log: %q", err)
			}
		}
	})
}

// whole is a body, or one that breaks off.
func whole(body []byte, cut bool) io.Reader {
	if cut {
		return io.MultiReader(bytes.NewReader(body), iotest.ErrReader(io.ErrUnexpectedEOF))
	}
	return bytes.NewReader(body)
}
