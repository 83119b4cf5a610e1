// Package consumers tells programs that a token of theirs changed, after it has reached every sink:
// so that a service is restarted with the new value, by whoever may restart it.
//
// It is level-triggered. A consumer is told while what it was told of differs from what is promoted;
// the record of each entry says so, and survives a crash. Tokens that change together are one
// telling; a consumer can be told twice of the same token, and never misses the last one.
//
// A new kind of consumer is a file beside flag.go, a field of Spec and a case in one.
package consumers

import (
	"context"
	"strings"

	"github.com/rotatord/rotatord/rotator/field"
)

// Consumer is one program. Its methods are called from one goroutine.
type Consumer interface {
	// Tell says that tokens changed. taken: the program surely has them by now; where that cannot be
	// known, Taken is asked from then on. It may be called again for the same changes.
	Tell(ctx context.Context, changes []Change) (taken bool, err error)
	// Taken says what became of the last telling, also of one by an earlier process.
	Taken(ctx context.Context) (Outcome, error)
}

// Rehearsed is a consumer of a rehearsal: it takes everything at once, and nobody is restarted.
type Rehearsed struct{}

// Tell implements Consumer.
func (Rehearsed) Tell(context.Context, []Change) (bool, error) { return true, nil }

// Taken implements Consumer.
func (Rehearsed) Taken(context.Context) (Outcome, error) { return Taken, nil }

// Change is one token that changed.
type Change struct {
	Entry      string
	Generation int
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
}

// Kinds returns the names of all kinds, as they stand in rotation.yaml.
func Kinds() []string { return []string{"flag"} }

// Validate reports what is wrong with a declared consumer.
func (s Spec) Validate(p field.Problems) {
	if s.Flag == nil {
		p.Errorf("says not how the program is told: it needs one of %s", strings.Join(Kinds(), ", "))
		return
	}
	s.Flag.Validate(p.At("flag"))
}

// Title is what people call it; "" where the spec names no kind.
func (s Spec) Title() string {
	if s.Flag == nil {
		return ""
	}
	return s.Flag.title()
}

// Place is what no two consumers may share; "" where the spec names no kind.
func (s Spec) Place() string {
	if s.Flag == nil {
		return ""
	}
	return "flag:" + string(*s.Flag)
}

// Open makes the consumer. dir is the folder of flags that have no path; "" for none.
func (s Spec) Open(dir string) (Consumer, error) { return s.Flag.open(dir) }
