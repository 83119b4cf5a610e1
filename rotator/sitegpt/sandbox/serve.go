package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// grace is how long requests that are being answered may take when Serve is to end.
const grace = 2 * time.Second

// Listen opens a port of this machine; "" stands for a free one. Other machines are refused: the
// stand-in speaks plain http, and its control endpoints ask no password.
func Listen(addr string) (net.Listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: want HOST:PORT", addr)
	}
	if host != "localhost" && !loopback(host) {
		return nil, fmt.Errorf("listen on %q: the sandbox serves its own machine only (127.0.0.1, ::1 or localhost)", addr)
	}
	return net.Listen("tcp", addr)
}

// Serve answers on l until ctx ends, then releases requests that hang in a fault, gives the others
// a moment to finish, and closes everything. It returns nil when ctx ended it. It can be called
// again, with another listener: the tokens are still there.
func (s *Server) Serve(ctx context.Context, l net.Listener) error { return s.run(ctx, l, nil) }

// Start serves on addr (as Listen takes it) in the background, and returns the API's base URL.
// The end of ctx stops it as Serve does. stop breaks all connections at once, as if the process
// had been killed, and returns once the port is closed. It may be called more than once.
func (s *Server) Start(ctx context.Context, addr string) (url string, stop func() error, err error) {
	l, err := Listen(addr)
	if err != nil {
		return "", nil, err
	}
	killed, done := make(chan struct{}), make(chan struct{})
	kill := sync.OnceFunc(func() { close(killed) })
	var failed error
	go func() {
		defer close(done)
		failed = s.run(ctx, l, killed)
	}()
	return "http://" + l.Addr().String(), func() error {
		kill()
		<-done
		return failed
	}, nil
}

func (s *Server) run(ctx context.Context, l net.Listener, killed <-chan struct{}) error {
	base, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          log.New(io.Discard, "", 0), // a broken connection is a fault that somebody asked for
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-killed:
		srv.Close() //nolint:errcheck // nobody is left to tell
	case <-ctx.Done():
		release()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if srv.Shutdown(last) != nil {
			srv.Close() //nolint:errcheck // nobody is left to tell
		}
	}
	<-failed
	return nil
}

// Transport returns a transport that reaches the server without a network, whatever the host: for
// tests that run in a bubble of testing/synctest, where no real connection may wait.
func (s *Server) Transport() http.RoundTripper { return direct{s} }

type direct struct{ s *Server }

func (d direct) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	in := r.Clone(r.Context())
	in.RequestURI, in.RemoteAddr, in.Host = r.URL.RequestURI(), "127.0.0.1:1", r.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := &recorder{header: http.Header{}}
	broken := func() (broken bool) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				broken = true
			default:
				panic(p)
			}
		}()
		d.s.ServeHTTP(w, in)
		return false
	}()
	switch {
	case r.Context().Err() != nil:
		return nil, r.Context().Err()
	case broken && w.status == 0:
		return nil, io.ErrUnexpectedEOF
	}
	var body io.Reader = &w.body
	if broken {
		body = io.MultiReader(body, cutOff{})
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(body), ContentLength: -1, Request: r,
	}, nil
}

// recorder takes an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }
func (w *recorder) Flush()              {}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *recorder) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

// cutOff is the end of a body whose connection broke.
type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
