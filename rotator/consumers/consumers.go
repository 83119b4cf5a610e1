// Package consumers tells programs that a token of theirs changed, after it has reached every sink:
// so that a service is restarted with the new value, by whoever may restart it.
//
// It is level-triggered. A consumer is told while what it was told of differs from what is promoted;
// the record of each entry says so, and survives a crash. Tokens that change together are one
// telling; a consumer can be told twice of the same token, and never misses the last one.
//
// A new kind of consumer is a file beside flag.go, a field of Spec and a case in each of its methods.
package consumers

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator/field"
)

// Consumer is one program. Its methods are called by one goroutine at a time.
type Consumer interface {
	// Tell says that tokens changed. taken: the program surely has them by now; where that cannot be
	// known, Taken is asked from then on. It may be called again for the same changes.
	Tell(ctx context.Context, changes []Change) (taken bool, err error)
	// Taken says what became of the last telling, also of one by an earlier process.
	Taken(ctx context.Context) (Outcome, error)
	// Check says whether a telling would work, and what was seen. It tells nothing.
	Check(ctx context.Context) (says string, err error)
	// Timeout is how long each of these may take.
	Timeout() time.Duration
}

// Rehearsed is a consumer of a rehearsal: it takes everything at once, and nobody is restarted.
type Rehearsed struct{}

// Tell implements Consumer.
func (Rehearsed) Tell(context.Context, []Change) (bool, error) { return true, nil }

// Taken implements Consumer.
func (Rehearsed) Taken(context.Context) (Outcome, error) { return Taken, nil }

// Check implements Consumer.
func (Rehearsed) Check(context.Context) (string, error) { return "is not told in a rehearsal", nil }

// Timeout implements Consumer.
func (Rehearsed) Timeout() time.Duration { return quick }

// Change is one token that changed.
type Change struct {
	Entry      string
	Generation int
	Promoted   time.Time // when every required sink held it
	Expires    time.Time
}

// Outcome is what became of a telling.
type Outcome string

// The outcomes.
const (
	Taken   Outcome = "taken"   // the program has what it was told of
	Waiting Outcome = "waiting" // it has not reacted yet
	Lost    Outcome = "lost"    // nobody knows: it must be told again
)

// Spec is a consumer as rotation.yaml declares it: exactly one kind.
type Spec struct {
	Flag *Flag `yaml:"flag,omitempty"` // a file that is there until somebody took the news
	Exec *Exec `yaml:"exec,omitempty"` // a program that is run
	HTTP *HTTP `yaml:"http,omitempty"` // a URL that is posted to
}

// Kinds returns the names of all kinds, as they stand in rotation.yaml.
func Kinds() []string { return []string{"flag", "exec", "http"} }

// given are the kinds that the spec names.
func (s Spec) given() (kinds []string) {
	for kind, there := range map[string]bool{"flag": s.Flag != nil, "exec": s.Exec != nil, "http": s.HTTP != nil} {
		if there {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// Validate reports what is wrong with a declared consumer.
func (s Spec) Validate(p field.Problems) {
	switch n := len(s.given()); {
	case n == 0:
		p.Errorf("says not how the program is told: it needs one of %s", strings.Join(Kinds(), ", "))
		return
	case n > 1:
		p.Errorf("is told in %d ways: declare a consumer for each, and name all of them in the token", n)
	}
	if s.Flag != nil {
		s.Flag.Validate(p.At("flag"))
	}
	if s.Exec != nil {
		s.Exec.Validate(p.At("exec"))
	}
	if s.HTTP != nil {
		s.HTTP.Validate(p.At("http"))
	}
}

// Resolve makes paths absolute, from dir, the folder of the configuration.
func (s Spec) Resolve(dir string) Spec {
	if s.Exec != nil {
		e := *s.Exec
		e.resolve(dir)
		s.Exec = &e
	}
	if s.HTTP != nil {
		h := *s.HTTP
		h.Resolve(dir)
		s.HTTP = &h
	}
	return s
}

// Title is what people call a consumer of this name; "" where the spec names no kind.
func (s Spec) Title(name string) string {
	switch {
	case s.Flag != nil:
		return s.Flag.title()
	case s.Exec != nil:
		return fmt.Sprintf("%s (%s)", name, s.Exec.title())
	case s.HTTP != nil:
		return fmt.Sprintf("%s (%s)", name, s.HTTP.title())
	}
	return ""
}

// Place is what no two consumers may share; "" where they may.
func (s Spec) Place() string {
	if s.Flag == nil {
		return ""
	}
	return "flag:" + string(*s.Flag)
}

// World is what consumers need to know of the machine and of us.
type World struct {
	Flags     string // the folder of flags that have no path; "" for none
	Instance  string // the name of this installation
	Agent     string // how we call ourselves
	Getenv    func(string) string
	Now       func() time.Time
	Logger    *slog.Logger      // what programs print, where that is wanted
	Transport http.RoundTripper // nil: the standard one
}

// Open makes the consumer of this name.
func (s Spec) Open(name string, w World) (Consumer, error) {
	switch {
	case s.Exec != nil:
		return &execConsumer{name: name, c: *s.Exec, w: w}, nil
	case s.HTTP != nil:
		return s.HTTP.open(name, w), nil
	}
	return s.Flag.open(w.Flags)
}

// quick is the time for what has nobody to wait for.
const quick = 30 * time.Second

// positive is a timeout as it was given, or the default.
func positive(given *field.Duration, otherwise time.Duration) time.Duration {
	if given != nil {
		return time.Duration(*given)
	}
	return otherwise
}
