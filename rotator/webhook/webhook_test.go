package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/webhook"
)

var at = time.Unix(1614265330, 0)

func world(env map[string]string) webhook.World {
	return webhook.World{Getenv: func(k string) string { return env[k] }, Now: func() time.Time { return at }, Agent: "rotatord/test"}
}

// The published example of Standard Webhooks, and its libraries.
func TestSignatureIsTheStandardOne(t *testing.T) {
	key, err := webhook.Key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := webhook.Sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if key, err := webhook.Key("any text"); err != nil || string(key) != "any text" {
		t.Errorf("%q, %v", key, err)
	}
	for _, text := range []string{"whsec_?", "whsec_"} {
		if key, err := webhook.Key(text); err == nil {
			t.Errorf("%s is the key %q", text, key)
		}
	}
}

// What arrives can be verified with what the receiver knows, and says nothing else.
func TestPost(t *testing.T) {
	const shared = "a shared secret"
	var got *http.Request
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	defer s.Close()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("whsec_"+base64.StdEncoding.EncodeToString([]byte(shared))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := webhook.New(webhook.Config{
		URL: field.URL{Text: s.URL + "/hook?key=k"}, Secret: &field.SecretRef{File: file},
		Bearer: &field.SecretRef{Env: "B"}, Headers: map[string]string{"x-team": "ops"},
	}, world(map[string]string{"B": "bearer"}))
	if err := p.Post(t.Context(), "m1", []byte(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(shared))
	fmt.Fprintf(mac, "%s.%s.%s", got.Header.Get("webhook-id"), got.Header.Get("webhook-timestamp"), body)
	want := map[string]string{
		"webhook-id": "m1", "webhook-timestamp": "1614265330", "x-team": "ops", "authorization": "Bearer bearer",
		"content-type": "application/json", "user-agent": "rotatord/test",
		"webhook-signature": "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)),
	}
	for name, v := range want {
		if h := got.Header.Get(name); h != v {
			t.Errorf("%s: %q, want %q", name, h, v)
		}
	}
	if string(body) != `{"a":1}` || got.Method != http.MethodPost || got.URL.RawQuery != "key=k" {
		t.Errorf("%s %s: %s", got.Method, got.URL, body)
	}
	// Another text in the file counts from the next message on.
	old := got.Header.Get("webhook-signature")
	if err := os.WriteFile(file, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Post(t.Context(), "m1", []byte(`{"a":1}`)); err != nil || got.Header.Get("webhook-signature") == old {
		t.Errorf("the new secret is not used: %v", err)
	}
}

// Between two messages are hours: nothing is held open for them, by us or by the receiver.
func TestNoConnectionIsKept(t *testing.T) {
	var mu sync.Mutex
	states := map[http.ConnState]int{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		states[state]++
	}
	s.Start()
	p := webhook.New(webhook.Config{URL: field.URL{Text: s.URL}}, world(nil))
	for range 3 {
		if err := p.Post(t.Context(), "m", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	mu.Lock()
	defer mu.Unlock()
	if states[http.StateNew] != 3 || states[http.StateIdle] != 0 {
		t.Errorf("three messages took %d connections, of which %d waited for more", states[http.StateNew], states[http.StateIdle])
	}
}

// No error says more than the host and the status, and a redirect is not followed.
func TestWhatGoesWrong(t *testing.T) {
	asked := map[string]int{}
	mux := http.NewServeMux()
	answer := func(path string, code int, header ...string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			asked[path]++
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			io.WriteString(w, "BODY")
		})
	}
	answer("/gone", 410)
	answer("/moved", 307, "Location", "/there")
	answer("/there", 200)
	answer("/busy", 429, "Retry-After", "90")
	answer("/down", 503, "Retry-After", at.Add(2*time.Hour).UTC().Format(http.TimeFormat))
	answer("/bad", 500)
	mux.HandleFunc("/cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("/hangs", func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() })
	s := httptest.NewServer(mux)
	defer s.Close()
	closed := httptest.NewServer(mux)
	closed.Close()
	for _, c := range []struct {
		url, want string
		after     time.Duration
	}{
		{s.URL + "/gone?key=QUERY", "answered 410 Gone: is the URL, or its secret, still right?", 0},
		{s.URL + "/moved?key=QUERY", "answered 307 Temporary Redirect, a redirect, and none is followed: write the URL that it leads to", 0},
		{s.URL + "/busy?key=QUERY", "rate limited for 1m30s", 90 * time.Second},
		{s.URL + "/down?key=QUERY", "answered 503", time.Hour},
		{s.URL + "/bad?key=QUERY", "answered 500", 0},
		{s.URL + "/cut?key=QUERY", "it hung up without an answer", 0},
		{s.URL + "/hangs?key=QUERY", "did not answer in time", 0},
		{closed.URL + "/x?key=QUERY", "connection refused", 0},
		{"http://hooks.example.com/QUERY", "url: is plain http to another machine", 0},
		{"http://u:QUERY@localhost/", "url: must not contain a user name or password", 0},
		{"http://local host/QUERY", "url: is no URL", 0},
	} {
		p := webhook.New(webhook.Config{URL: field.URL{Text: c.url}}, world(nil))
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := p.Post(ctx, "m", []byte("CONTENT"))
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.url, err, c.want)
			continue
		}
		for _, secret := range []string{"QUERY", "BODY", "CONTENT"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v repeats %s", c.url, err, secret)
			}
		}
		var limited *rotator.LimitedError
		if errors.As(err, &limited) != (c.after > 0) || limited != nil && limited.After != c.after {
			t.Errorf("%s: asks to wait %+v, want %s", c.url, limited, c.after)
		}
	}
	if asked["/there"] != 0 {
		t.Error("a redirect was followed")
	}
}

// What is wrong with an answer is said without a word of it: it may be our own request, sent back.
func TestEcho(t *testing.T) {
	for _, answer := range []string{"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: SECRET\r\n\r\n", "SECRET\r\n"} {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				b := make([]byte, 4096)
				n, _ := c.Read(b)
				c.Write([]byte(answer)) //nolint:errcheck // the other side judges
				c.Write(b[:n])          //nolint:errcheck // likewise
				c.Close()               //nolint:errcheck // likewise
			}
		})
		p := webhook.New(webhook.Config{URL: field.URL{Text: "http://" + l.Addr().String() + "/SECRET"}}, world(nil))
		post := p.Post(t.Context(), "m", []byte("SECRET"))
		_, check := p.Check(t.Context())
		for _, err := range []error{post, check} {
			if err == nil || strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), "cannot be read as HTTP") {
				t.Errorf("after %q: %v", answer, err)
			}
		}
		l.Close() //nolint:errcheck // it ends the goroutine
		serving.Wait()
	}
}

// A look posts nothing.
func TestCheck(t *testing.T) {
	var methods []string
	code := http.StatusMethodNotAllowed
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		methods = append(methods, r.Method)
		w.WriteHeader(code)
	}))
	defer s.Close()
	c := webhook.Config{URL: field.URL{SecretRef: field.SecretRef{Env: "URL"}}, Secret: &field.SecretRef{Env: "S"}, Bearer: &field.SecretRef{Env: "B"}}
	env := map[string]string{"URL": s.URL + "/secret", "S": "s", "B": "b"}
	p := webhook.New(c, world(env))
	if says, err := p.Check(t.Context()); err != nil || strings.Contains(says, "secret") || !strings.Contains(says, "answers; nothing was posted") {
		t.Errorf("%q, %v", says, err)
	}
	code = 502
	if _, err := p.Check(t.Context()); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a server that fails: %v", err)
	}
	if len(methods) != 2 || methods[0] != http.MethodHead || methods[1] != http.MethodHead {
		t.Errorf("it was asked %q", methods)
	}
	// Without one of its secrets nothing is sent, neither by a look nor by a message.
	full := maps.Clone(env)
	for name, what := range map[string]string{"URL": "url", "S": "secret", "B": "bearer"} {
		maps.Copy(env, full)
		delete(env, name)
		want := what + ": environment variable " + name + ": is empty"
		if _, err := p.Check(t.Context()); err == nil || err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
		if err := p.Post(t.Context(), "m", []byte("{}")); err == nil || err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
	clear(env)
	if _, err := p.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "url: environment variable URL: is empty\nsecret: environment variable S: is empty") {
		t.Errorf("without secrets: %v", err)
	}
	if len(methods) != 2 {
		t.Errorf("it was asked %q", methods)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		config webhook.Config
		want   string
	}{
		{webhook.Config{URL: field.URL{Text: "https://a.example/x?y=z"}}, ""},
		{webhook.Config{URL: field.URL{Text: "http://127.0.0.1:8080/x"}}, ""},
		{webhook.Config{URL: field.URL{Text: "http://[::1]/x"}}, ""},
		{webhook.Config{URL: field.URL{Text: "http://a.example/x"}, AllowHTTP: true}, ""},
		{webhook.Config{URL: field.URL{SecretRef: field.SecretRef{File: "x"}}, Headers: map[string]string{"X-A": "b"}}, ""},
		{webhook.Config{}, "[url] is missing"},
		{webhook.Config{URL: field.URL{Text: "http://a.example/x"}}, "[url] is plain http to another machine"},
		{webhook.Config{URL: field.URL{Text: "hooks.example.com"}}, "[url] must begin with https://"},
		{webhook.Config{URL: field.URL{Text: "https:///x"}}, "[url] names no host"},
		{webhook.Config{URL: field.URL{Text: "https://a/#x"}}, "[url] must not have a fragment"},
		{webhook.Config{URL: field.URL{SecretRef: field.SecretRef{File: "x", Env: "Y"}}}, "[url] needs exactly one of"},
		{webhook.Config{URL: field.URL{Text: "https://a/"}, Headers: map[string]string{"Authorization": "x"}}, "[headers Authorization] a secret has no place in this file"},
		{webhook.Config{URL: field.URL{Text: "https://a/"}, Headers: map[string]string{"X-A": "Bearer sgpt_x"}}, "[headers X-A] a secret has no place in this file"},
		{webhook.Config{URL: field.URL{Text: "https://a/"}, Headers: map[string]string{"Webhook-Id": "x"}}, "[headers Webhook-Id] is set by rotatord"},
		{webhook.Config{URL: field.URL{Text: "https://a/"}, Headers: map[string]string{"Host": "x"}}, "[headers Host] is set by rotatord"},
		{webhook.Config{URL: field.URL{Text: "https://a/"}, Headers: map[string]string{"content-Type": "x"}}, "[headers content-Type] is set by rotatord"},
		{webhook.Config{URL: field.URL{Text: "https://a/"}, Headers: map[string]string{"": "x"}}, "cannot be the name of a header"},
		{webhook.Config{URL: field.URL{Text: "https://a/"}, Secret: &field.SecretRef{File: "x", Env: "Y"}}, "[secret] needs exactly one of"},
		{webhook.Config{URL: field.URL{Text: "https://a/"}, Bearer: &field.SecretRef{}}, "[bearer] needs exactly one of"},
		{webhook.Config{URL: field.URL{Text: "https://a/"}, Headers: map[string]string{"X A": "x"}}, "cannot be the name of a header"},
		{webhook.Config{URL: field.URL{Text: "https://a/"}, Headers: map[string]string{"X-A": "x\r\ny"}}, "holds a control character"},
		{webhook.Config{URL: field.URL{Text: "https://a/"}, Timeout: new(field.Duration)}, "[timeout] must be longer than 0"},
	} {
		p := field.New()
		c.config.Validate(p)
		var got []string
		for _, problem := range p.List() {
			got = append(got, fmt.Sprint(problem.Path)+" "+problem.Text)
		}
		if text := strings.Join(got, "\n"); (c.want == "") != (text == "") || !strings.Contains(text, c.want) || len(got) > 1 {
			t.Errorf("%+v: %q, want %q", c.config, text, c.want)
		}
	}
}
