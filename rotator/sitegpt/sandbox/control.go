package sandbox

import (
	"encoding/json"
	"io"
	"mime"
	"net"
	"net/http"
)

// controls serves what a rehearsal or a test says to a stand-in that runs as its own process:
//
//	GET    /_sandbox/faults    the faults that can still strike
//	POST   /_sandbox/faults    one more: {"op":"create","kind":"limited","times":2,"retry_after":"30s"}
//	DELETE /_sandbox/faults    none any more
//	GET    /_sandbox/behavior  how it plays what is not known
//	PUT    /_sandbox/behavior  changes the fields that are named: {"answer_expiry":true}
//	GET    /_sandbox/tokens    every token made, with its state, without its plaintext
//	GET    /_sandbox/requests  every request: operation, status, label
//
// It answers loopback only, and asks no password: a web page could reach it from a browser on the
// same machine, were it not for the checks of the Host and of the content type.
func (s *Server) controls() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /_sandbox/faults", func(w http.ResponseWriter, _ *http.Request) { show(w, s.Faults()) })
	m.HandleFunc("POST /_sandbox/faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		if !take(w, r, &f) {
			return
		}
		if err := f.validate(); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.Inject(f)
		show(w, s.Faults())
	})
	m.HandleFunc("DELETE /_sandbox/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.Clear()
		show(w, s.Faults())
	})
	m.HandleFunc("GET /_sandbox/behavior", func(w http.ResponseWriter, _ *http.Request) { show(w, s.Behavior()) })
	m.HandleFunc("PUT /_sandbox/behavior", func(w http.ResponseWriter, r *http.Request) {
		b := s.Behavior()
		if !take(w, r, &b) {
			return
		}
		if err := b.validate(); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.SetBehavior(b)
		show(w, s.Behavior())
	})
	m.HandleFunc("GET /_sandbox/tokens", func(w http.ResponseWriter, _ *http.Request) {
		type state struct {
			Token
			Live bool `json:"live"`
		}
		now := s.now()
		out := []state{}
		for _, t := range s.Tokens() {
			out = append(out, state{t, t.Live(now)})
		}
		show(w, out)
	})
	m.HandleFunc("GET /_sandbox/requests", func(w http.ResponseWriter, _ *http.Request) { show(w, s.Requests()) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		from, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil || !loopback(from) || host != "localhost" && !loopback(host) {
			http.Error(w, "the sandbox is controlled from its own machine only", http.StatusForbidden)
			return
		}
		m.ServeHTTP(w, r)
	})
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// take decodes a request's body, or answers why not.
func take(w http.ResponseWriter, r *http.Request, v any) bool {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		http.Error(w, "send Content-Type: application/json", http.StatusUnsupportedMediaType)
		return false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err == nil {
		err = strict(body, v)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func show(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.Encode(v) //nolint:errcheck // the client may be gone
}
