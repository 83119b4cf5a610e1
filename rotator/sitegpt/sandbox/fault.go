package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Kind is what goes wrong.
type Kind string

// The kinds of faults. Those that end in After let the operation succeed first: the token is made
// (or revoked), and then the caller does not learn of it.
const (
	Limited          Kind = "limited"            // 429, with Retry-After where the fault names one
	ServerError      Kind = "server-error"       // 500 with an envelope
	ServerErrorAfter Kind = "server-error-after" // the same, too late
	Unavailable      Kind = "unavailable"        // 503 with an envelope
	HTML             Kind = "html"               // a proxy's page, 502 or the fault's Status
	HTMLAfter        Kind = "html-after"         //
	Redirect         Kind = "redirect"           // 302 to a login page
	Hang             Kind = "hang"               // no answer until the client goes or the server stops
	HangAfter        Kind = "hang-after"         //
	Drop             Kind = "drop"               // the connection breaks
	DropAfter        Kind = "drop-after"         //
	NotOK            Kind = "not-ok"             // 200 with ok:false
	NotOKAfter       Kind = "not-ok-after"       //
	GarbledAfter     Kind = "garbled-after"      // the answer is half of its JSON
	CutAfter         Kind = "cut-after"          // the connection breaks in the middle of the answer
	Unauthorized     Kind = "unauthorized"       // 401
	Forbidden        Kind = "forbidden"          // 403
	Narrow           Kind = "narrow"             // a create grants all scopes but the last (of two or more)
	Repeat           Kind = "repeat"             // the list's first page comes again and again
	Slow             Kind = "slow"               // the answer trickles, with Delay between its pieces
)

// Kinds returns all kinds of faults.
func Kinds() []Kind {
	return []Kind{
		Limited, ServerError, ServerErrorAfter, Unavailable, HTML, HTMLAfter, Redirect, Hang, HangAfter,
		Drop, DropAfter, NotOK, NotOKAfter, GarbledAfter, CutAfter, Unauthorized, Forbidden, Narrow, Repeat, Slow,
	}
}

// Fault is one thing that goes wrong with some requests. The first fault that strikes a request
// is the only one.
type Fault struct {
	Op          Op            `json:"op"` // "": any
	Kind        Kind          `json:"kind"`
	Times       int           `json:"times"`       // how often it strikes; 0: always
	After       int           `json:"after"`       // how many requests of Op pass before
	Probability float64       `json:"probability"` // that it strikes a request; 0: 1
	Status      int           `json:"status"`      // of an HTML page; 0: 502
	RetryAfter  time.Duration `json:"-"`           // of Limited and Unavailable, whole seconds; 0: no header
	Delay       time.Duration `json:"-"`           // of Slow, between 16 pieces; 0: 100 ms
}

// fault is a Fault and what became of it.
type fault struct {
	Fault
	seen, struck int
}

type faultAlias Fault

// faultJSON is Fault with its durations as text.
type faultJSON struct {
	*faultAlias
	RetryAfter string `json:"retry_after,omitempty"`
	Delay      string `json:"delay,omitempty"`
}

// MarshalJSON writes durations as Go does: "1m30s".
func (f Fault) MarshalJSON() ([]byte, error) {
	aux := faultJSON{faultAlias: (*faultAlias)(&f)}
	if f.RetryAfter != 0 {
		aux.RetryAfter = f.RetryAfter.String()
	}
	if f.Delay != 0 {
		aux.Delay = f.Delay.String()
	}
	return json.Marshal(aux)
}

// UnmarshalJSON reads what MarshalJSON writes and refuses fields that there are not.
func (f *Fault) UnmarshalJSON(data []byte) error {
	var n Fault
	aux := faultJSON{faultAlias: (*faultAlias)(&n)}
	if err := strict(data, &aux); err != nil {
		return err
	}
	for text, d := range map[*string]*time.Duration{&aux.RetryAfter: &n.RetryAfter, &aux.Delay: &n.Delay} {
		if *text == "" {
			continue
		}
		v, err := time.ParseDuration(*text)
		if err != nil {
			return err
		}
		*d = v
	}
	*f = n
	return nil
}

func (f Fault) validate() error {
	if !slices.Contains(Kinds(), f.Kind) {
		return fmt.Errorf("kind: there is no fault %q; there are %q", f.Kind, Kinds())
	}
	if !slices.Contains([]Op{"", OpAny, OpCreate, OpList, OpRevoke, OpMe, OpHealth}, f.Op) {
		return fmt.Errorf("op: there is no operation %q; there are any, create, list, revoke, me and health", f.Op)
	}
	if f.Probability < 0 || f.Probability > 1 {
		return fmt.Errorf("probability: %v is not between 0 and 1", f.Probability)
	}
	if f.Times < 0 || f.After < 0 || f.RetryAfter < 0 || f.Delay < 0 {
		return fmt.Errorf("times, after, retry_after and delay must not be negative")
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return fmt.Errorf("status: %d is no HTTP status", f.Status)
	}
	return nil
}

// Inject adds a fault. It panics where there is no such fault.
func (s *Server) Inject(f Fault) {
	if err := f.validate(); err != nil {
		panic("sandbox: inject: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &fault{Fault: f})
}

// Clear removes all faults. Requests that hang go on hanging.
func (s *Server) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Faults returns the faults that can still strike, with the Times that are left.
func (s *Server) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Fault{}
	for _, f := range s.faults {
		left := f.Fault
		left.After = max(0, f.After-f.seen)
		if f.Times > 0 {
			if left.Times = f.Times - f.struck; left.Times == 0 {
				continue
			}
		}
		out = append(out, left)
	}
	return out
}

// draw returns the fault that strikes this request, or nil; s.mu is held.
func (s *Server) draw(op Op) *Fault {
	var hit *Fault
	for _, f := range s.faults {
		if f.Op != "" && f.Op != OpAny && f.Op != op {
			continue
		}
		f.seen++
		switch {
		case hit != nil, f.seen <= f.After, f.Times > 0 && f.struck >= f.Times:
			continue
		case f.Probability > 0 && s.dice.Float64() >= f.Probability:
			continue
		}
		f.struck++
		c := f.Fault
		hit = &c
	}
	return hit
}

// before plays a fault that strikes before the operation. It returns false where the operation
// is to be carried out.
func (s *Server) before(w http.ResponseWriter, x *exchange, f *Fault) bool {
	switch f.Kind {
	case Limited:
		r := refuse(http.StatusTooManyRequests, "RATE_LIMITED", "too many requests")
		s.write(w, x, retryAfter(r, f.RetryAfter))
	case ServerError:
		s.write(w, x, refuse(http.StatusInternalServerError, "INTERNAL_ERROR", "something went wrong"))
	case Unavailable:
		s.write(w, x, retryAfter(refuse(http.StatusServiceUnavailable, "UNAVAILABLE", "down for maintenance"), f.RetryAfter))
	case HTML:
		s.page(w, x, f)
	case Redirect:
		w.Header().Set("Location", "/login")
		s.head(w, x, http.StatusFound)
	case Hang:
		s.hang(x)
	case Drop:
		panic(http.ErrAbortHandler)
	case NotOK:
		s.write(w, x, refuse(http.StatusOK, "INTERNAL_ERROR", "something went wrong"))
	case Unauthorized:
		s.write(w, x, refuse(http.StatusUnauthorized, "TOKEN_NOT_VALID", "the token is not valid"))
	case Forbidden:
		s.write(w, x, refuse(http.StatusForbidden, "TOKEN_SCOPE_NOT_ALLOWED", "the token lacks a scope"))
	default:
		return false
	}
	return true
}

// after plays a fault that strikes once the operation has succeeded.
func (s *Server) after(w http.ResponseWriter, x *exchange, f *Fault, r reply) {
	switch f.Kind {
	case ServerErrorAfter:
		s.write(w, x, refuse(http.StatusInternalServerError, "INTERNAL_ERROR", "something went wrong"))
	case HTMLAfter:
		s.page(w, x, f)
	case HangAfter:
		s.hang(x)
	case DropAfter:
		panic(http.ErrAbortHandler)
	case NotOKAfter:
		s.write(w, x, refuse(http.StatusOK, "INTERNAL_ERROR", "something went wrong"))
	case GarbledAfter:
		body := r.encode()
		s.head(w, x, r.status)
		w.Write(body[:len(body)/2]) //nolint:errcheck // the client may be gone
	case CutAfter:
		body := r.encode()
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		s.head(w, x, r.status)
		w.Write(body[:len(body)/2])           //nolint:errcheck // the client may be gone
		http.NewResponseController(w).Flush() //nolint:errcheck // likewise
		panic(http.ErrAbortHandler)
	case Slow:
		s.trickle(w, x, r, f.Delay)
	default:
		s.write(w, x, r)
	}
}

// hang waits until the client goes or the server stops.
func (s *Server) hang(x *exchange) {
	<-x.http.Context().Done()
	panic(http.ErrAbortHandler)
}

// page writes what a proxy shows when it has no answer.
func (s *Server) page(w http.ResponseWriter, x *exchange, f *Fault) {
	status := f.Status
	if status == 0 {
		status = http.StatusBadGateway
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	s.head(w, x, status)
	w.Write([]byte("<!doctype html><title>Bad gateway</title><h1>Please try again later</h1>\n")) //nolint:errcheck // the client may be gone
}

// trickle writes an answer in sixteen pieces.
func (s *Server) trickle(w http.ResponseWriter, x *exchange, r reply, delay time.Duration) {
	if delay == 0 {
		delay = 100 * time.Millisecond
	}
	body := r.encode()
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	s.head(w, x, r.status)
	for piece := range slices.Chunk(body, len(body)/16+1) {
		w.Write(piece)                        //nolint:errcheck // the client may be gone
		http.NewResponseController(w).Flush() //nolint:errcheck // likewise
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-x.http.Context().Done():
			t.Stop()
			panic(http.ErrAbortHandler)
		}
	}
}

// retryAfter adds the header, rounded up to whole seconds.
func retryAfter(r reply, d time.Duration) reply {
	if d > 0 {
		r.header = http.Header{"Retry-After": {strconv.Itoa(int((d + time.Second - 1) / time.Second))}}
	}
	return r
}
