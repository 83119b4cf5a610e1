// Package sinktest tells whether a kind of sink keeps the promises of rotator.Sink. Every kind runs
// it in its own tests, against a real place:
//
//	func TestConformance(t *testing.T) {
//		sinktest.Run(t, sinktest.Harness{New: func(t *testing.T) sinktest.Fixture {
//			path := filepath.Join(t.TempDir(), "token")
//			return sinktest.Fixture{
//				Sink:  New(Config{Path: path}),
//				Other: New(Config{Path: path}),
//				See:   func() string { … },
//			}
//		}})
//	}
//
// What a kind promises beyond that, it tests itself.
package sinktest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// Harness is one kind of sink, or one way to configure it.
type Harness struct {
	// New makes a place of its own, which holds nothing yet. Each case calls it once; t.Cleanup
	// takes it away.
	New func(t *testing.T) Fixture

	Unreadable bool // the error of Read matches errors.ErrUnsupported
	Lines      bool // a newline at the end, as editors leave it, is not part of the value
}

// Fixture is one place, with everything that the suite does to it. Sink, Other and See are
// required; a case that needs more runs only where it is given. See is also called while pushes
// are going on, everything else is not.
type Fixture struct {
	// Sink and Other are two handles on the place, as two processes would have: they share no memory.
	Sink, Other rotator.Sink
	// See returns what a consumer of the place would take for the token; "" where nothing is.
	See func() string
	// Write puts a value there, or takes it away (""), without the sink, as a person would.
	Write func(value string)
	// Break makes every write fail until mend is called, which does not touch what is there.
	Break func() (mend func())
	// Siblings puts neighbours beside the value, as other lines of its file, and returns what fails
	// the test unless they are still the same, to the byte.
	Siblings func(t *testing.T) (check func())

	// Sibling is another place that is kept together with this one, for another token: another key
	// of one file. Its Sink and See are used.
	Sibling *Fixture
	// Version differs after every write: a file's inode and change time, a revision.
	Version func() string
	// Address stands in the errors of a broken place; "" is not looked for.
	Address string
	// Dir is a folder; no name below it may contain a plaintext.
	Dir string
	// Odd puts the place into states that nobody should make, by their names, the same ones each time.
	Odd map[string]func()
}

// Run runs all cases as subtests of t.
func Run(t *testing.T, h Harness) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newSuite(t, h)
			c.run(s)
			s.names()
			s.prints()
		})
	}
}

// suite is one case at work.
type suite struct {
	*testing.T
	h    Harness
	p    Fixture
	a, b rotator.Sink // two handles on p
}

func newSuite(t *testing.T, h Harness) *suite {
	p := h.New(t)
	return &suite{T: t, h: h, p: p, a: p.Sink, b: p.Other}
}

var cases = []struct {
	name string
	run  func(*suite)
}{
	{"empty", (*suite).empty},
	{"check", (*suite).check},
	{"push", (*suite).push},
	{"idempotent", (*suite).idempotent},
	{"replace", (*suite).replace},
	{"other handle", (*suite).otherHandle},
	{"by hand", (*suite).byHand},
	{"newline", (*suite).newline},
	{"siblings", (*suite).siblings},
	{"shapes", (*suite).shapes},
	{"cancelled", (*suite).cancelled},
	{"cut off", (*suite).cutOff},
	{"concurrent", (*suite).concurrent},
	{"concurrent siblings", (*suite).concurrentSiblings},
	{"broken", (*suite).broken},
	{"odd", (*suite).odd},
}

// canary is in every value of the suite, and in no text that a person may see.
const canary = "sgpt_canary"

// token returns the n-th value: of differing lengths, and none a prefix of another.
func token(n int) string {
	return fmt.Sprintf("%s%03d_%s", canary, n, strings.Repeat(string(rune('a'+n%26)), 8+n*37%90))
}

// generation is the one that the suite pushes every value as.
func generation() rotator.Generation {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	return rotator.Generation{
		Entry: "sinktest", Number: 1, Label: "rotatord/test/sinktest#1", ID: "tok_sinktest",
		Cause: rotator.CauseFirst, Scopes: []string{"leads:read"},
		Intended: at, Created: at, Verified: at, Begun: at, Planned: at.Add(24 * time.Hour), Expires: at.Add(72 * time.Hour),
	}
}

// describe names a value without telling it.
func describe(value string) string {
	if value == "" {
		return "nothing"
	}
	for n := range 1000 {
		if value == token(n) {
			return fmt.Sprintf("value %d", n)
		}
	}
	return fmt.Sprintf("something else, of %d bytes", len(value))
}

// quiet fails the test when an error tells a plaintext.
func (s *suite) quiet(err error) error {
	s.Helper()
	if err != nil {
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
			if strings.Contains(text, canary) {
				s.Errorf("an error contains a plaintext")
				return errors.New("(not shown: it contains a plaintext)")
			}
		}
	}
	return err
}

// put pushes value by sink and returns the error.
func (s *suite) put(ctx context.Context, sink rotator.Sink, value string) error {
	s.Helper()
	return s.quiet(sink.Push(ctx, generation(), rotator.NewSecret(value)))
}

// must pushes value by sink, which has to work.
func (s *suite) must(sink rotator.Sink, value string) {
	s.Helper()
	if err := s.put(s.Context(), sink, value); err != nil {
		s.Fatalf("push %s: %v", describe(value), err)
	}
}

// read returns what sink reads; known is false where that cannot be told.
func (s *suite) read(sink rotator.Sink) (value string, known bool) {
	s.Helper()
	secret, err := sink.Read(s.Context())
	s.quiet(err)
	switch {
	case s.h.Unreadable && !errors.Is(err, errors.ErrUnsupported):
		s.Errorf("read: %v; this kind cannot be read, so the error has to match errors.ErrUnsupported", err)
	case !s.h.Unreadable && errors.Is(err, errors.ErrUnsupported):
		s.Errorf("read: %v; this kind can be read", err)
	}
	if err != nil {
		if !secret.IsZero() {
			s.Errorf("read returned an error and a value")
		}
		return "", false
	}
	return secret.Reveal(), true
}

// holds fails the test unless a consumer sees value, and sink reads it.
func (s *suite) holds(p *Fixture, sink rotator.Sink, value string) {
	s.Helper()
	if seen := p.See(); seen != value {
		s.Errorf("a consumer sees %s, want %s", describe(seen), describe(value))
	}
	if s.h.Unreadable {
		s.read(sink)
		return
	}
	if got, known := s.read(sink); !known {
		s.Errorf("the place cannot be read, want %s", describe(value))
	} else if got != value {
		s.Errorf("read: %s, want %s", describe(got), describe(value))
	}
}

// version is Version, or always the same where there is none.
func (s *suite) version() string {
	s.Helper()
	if s.p.Version == nil {
		return ""
	}
	return s.p.Version()
}

// names looks for a plaintext in the names of files.
func (s *suite) names() {
	if s.p.Dir == "" {
		return
	}
	err := filepath.WalkDir(s.p.Dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(path, canary) {
			s.Errorf("the name of a file contains a plaintext")
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		s.Error(err)
	}
}

// prints looks for a plaintext in the handles themselves, as a log or a debugger would show them.
func (s *suite) prints() {
	for _, sink := range []rotator.Sink{s.a, s.b} {
		for _, verb := range []string{"%v", "%+v", "%#v"} {
			if strings.Contains(fmt.Sprintf(verb, sink), canary) {
				s.Errorf("a sink printed by %s tells a plaintext", verb)
			}
		}
	}
}

// A place that holds nothing reads as the zero Secret, without an error.
func (s *suite) empty() { s.holds(&s.p, s.a, "") }

// Check says that a push would work, and nobody can see that it was asked.
func (s *suite) check() {
	for _, value := range []string{"", token(1)} {
		if value != "" {
			s.must(s.a, value)
		}
		before := s.version()
		for range 2 {
			if err := s.quiet(s.a.Check(s.Context())); err != nil {
				s.Errorf("check of a place that works and holds %s: %v", describe(value), err)
			}
		}
		if s.version() != before {
			s.Errorf("check wrote to the place")
		}
		s.holds(&s.p, s.a, value)
	}
}

// What was pushed is there whole.
func (s *suite) push() {
	s.must(s.a, token(1))
	s.holds(&s.p, s.a, token(1))
}

// What is held already is not written again.
func (s *suite) idempotent() {
	s.must(s.a, token(1))
	before := s.version()
	s.must(s.a, token(1))
	s.must(s.b, token(1))
	if s.version() != before {
		s.Errorf("a push of the value that is held wrote again")
	}
	s.holds(&s.p, s.a, token(1))
}

// A push replaces all of the value before, be it longer or shorter.
func (s *suite) replace() {
	for n := range 6 {
		before := s.version()
		s.must(s.a, token(n))
		s.holds(&s.p, s.a, token(n))
		if s.p.Version != nil && s.version() == before {
			s.Errorf("the harness is wrong: Version did not change with a write")
		}
	}
}

// A handle remembers nothing that another one has changed.
func (s *suite) otherHandle() {
	b := s.b
	s.must(s.a, token(1))
	s.holds(&s.p, b, token(1))
	s.must(b, token(2))
	s.holds(&s.p, s.a, token(2))
	s.must(s.a, token(1)) // as pushed before, and no longer there
	s.holds(&s.p, b, token(1))
}

// What a person wrote is read, and can be replaced.
func (s *suite) byHand() {
	if s.p.Write == nil {
		return
	}
	s.p.Write(token(1))
	s.holds(&s.p, s.a, token(1))
	s.must(s.a, token(2))
	s.holds(&s.p, s.a, token(2))
	s.p.Write(token(3))
	s.holds(&s.p, s.a, token(3))
	s.must(s.a, token(2)) // pushed before, and overwritten since
	s.holds(&s.p, s.a, token(2))
	s.p.Write("")
	s.holds(&s.p, s.a, "")
	s.must(s.a, token(2))
	s.holds(&s.p, s.a, token(2))
}

// Editors end files with a newline.
func (s *suite) newline() {
	if !s.h.Lines || s.h.Unreadable || s.p.Write == nil {
		return
	}
	s.p.Write(token(1) + "\n")
	if got, known := s.read(s.a); !known || got != token(1) {
		s.Errorf("read: %s (known: %t), want %s without the newline", describe(got), known, describe(token(1)))
	}
	s.must(s.a, token(1))
	s.holds(&s.p, s.a, token(1))
}

// A push changes its own value only.
func (s *suite) siblings() {
	if s.p.Siblings != nil {
		untouched := s.p.Siblings(s.T)
		for _, what := range []struct {
			by    rotator.Sink
			value string
		}{{s.a, token(1)}, {s.b, token(2)}, {s.b, token(2)}, {s.a, token(3)}} {
			s.must(what.by, what.value)
			s.holds(&s.p, s.a, what.value)
			untouched()
		}
		if err := s.quiet(s.a.Check(s.Context())); err != nil {
			s.Errorf("check of a place with siblings: %v", err)
		}
		untouched()
	}
	if s.p.Sibling == nil {
		return
	}
	s.must(s.a, token(4))
	sib := s.p.Sibling
	b := sib.Sink
	s.holds(sib, b, "")
	s.must(s.a, token(5))
	s.holds(sib, b, "")
	s.must(b, token(6))
	s.holds(&s.p, s.a, token(5))
	s.must(s.a, token(7))
	s.holds(sib, b, token(6))
	s.holds(&s.p, s.a, token(7))
}

// A value that cannot be kept is refused before anything is written; otherwise it is kept whole.
func (s *suite) shapes() {
	held := token(1)
	s.must(s.a, held)
	for _, c := range []struct{ what, value string }{
		{"hyphens at its end", canary + "--"},
		{"an underscore at its end", canary + "_"},
		{"digits alone", canary + "0123456789"},
		{"no lower case", canary + "ABCXYZ-_-"},
		{"512 bytes", canary + strings.Repeat("x", 501)},
		{"4 kB", canary + strings.Repeat("-y", 2048)},
		{"few bytes", canary},
	} {
		if err := s.put(s.Context(), s.a, c.value); err == nil {
			held = c.value
		}
		seen := s.p.See()
		got, known := s.read(s.b)
		if seen != held || !s.h.Unreadable && (!known || got != held) {
			s.Errorf("after a push of a value with %s: a consumer sees %s, read: %s (known: %t), want %s",
				c.what, describe(seen), describe(got), known, describe(held))
		}
	}
}

// A context that has ended already lets nothing through.
func (s *suite) cancelled() {
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	for _, held := range []string{"", token(1)} {
		if held != "" {
			s.must(s.a, held)
		}
		before := s.version()
		if err := s.put(ctx, s.a, token(2)); err == nil {
			s.Errorf("push with a context that has ended: no error")
		}
		s.quiet(s.a.Check(ctx))
		_, err := s.a.Read(ctx)
		s.quiet(err)
		if s.version() != before {
			s.Errorf("something was written under a context that had ended")
		}
		s.holds(&s.p, s.b, held)
	}
}

// A push that is cut off, wherever it is then, leaves the old or the new value, and once it has
// returned it writes no more: what is seen then stays, and so does a value pushed afterwards.
func (s *suite) cutOff() {
	before := ""
	for n, limit := 0, 20*time.Microsecond; n < 48; n += 2 {
		ctx, cancel := context.WithTimeout(s.Context(), limit/2+rand.N(limit))
		err := s.put(ctx, s.a, token(n))
		cancel()
		seen := s.p.See()
		if seen != token(n) && (err == nil || seen != before) {
			s.Fatalf("a consumer sees %s after a push of %s was cut off (%v), want that or %s",
				describe(seen), describe(token(n)), err, describe(before))
		}
		if err := s.quiet(s.b.Check(s.Context())); err != nil {
			s.Errorf("check after a push was cut off: %v", err)
		}
		s.stays(seen)
		before = token(n + 1)
		s.must(s.b, before)
		s.stays(before)
		if n%4 == 2 {
			limit = limit * 9 / 5 // up to some tens of milliseconds
		}
	}
}

// stays fails the test when something is written that nobody pushes now.
func (s *suite) stays(value string) {
	s.Helper()
	s.read(s.b)
	s.read(s.a)
	if seen := s.p.See(); seen != value {
		s.Fatalf("a consumer sees %s, want %s: a push that had returned wrote later", describe(seen), describe(value))
	}
}

// rounds is how many values each of the racing handles pushes.
const rounds = 10

// race lets pushers push at the same time, each by a handle of its own, while watch is called.
func (s *suite) race(watch func(), pushers ...func() error) {
	s.Helper()
	errs := make(chan error, len(pushers))
	var wg sync.WaitGroup
	for _, push := range pushers {
		wg.Go(func() { errs <- push() })
	}
	defer wg.Wait() // also when watch ends the test
	for n := 0; n < len(pushers); {
		watch()
		select {
		case err := <-errs:
			n++
			if err := s.quiet(err); err != nil {
				s.Errorf("push: %v", err)
			}
		default:
		}
	}
}

// pusher returns what pushes the values one after another.
func (s *suite) pusher(sink rotator.Sink, values ...string) func() error {
	ctx := s.Context()
	return func() error {
		for _, v := range values {
			if err := sink.Push(ctx, generation(), rotator.NewSecret(v)); err != nil {
				return err
			}
		}
		return nil
	}
}

// keeper returns what pushes the values one after another, and looks whether each is still there
// when the next one comes: nobody else writes there.
func (s *suite) keeper(sink rotator.Sink, values ...string) func() error {
	ctx := s.Context()
	return func() error {
		for n, v := range values {
			if n > 0 && !s.h.Unreadable {
				held, err := sink.Read(ctx)
				if err != nil {
					return fmt.Errorf("read: %w", err)
				}
				if held.Reveal() != values[n-1] {
					return fmt.Errorf("%s was lost to a sibling, and %s is there", describe(values[n-1]), describe(held.Reveal()))
				}
			}
			if err := sink.Push(ctx, generation(), rotator.NewSecret(v)); err != nil {
				return err
			}
		}
		return nil
	}
}

// Pushes of different values at the same time end in one of them, and nobody ever sees a mixture.
func (s *suite) concurrent() {
	var pushers []func() error
	pushed, last := map[string]bool{"": true}, map[string]bool{}
	for w, sink := range []rotator.Sink{s.a, s.b} {
		var values []string
		for r := range rounds {
			values = append(values, token(1+w*rounds+r))
			pushed[token(1+w*rounds+r)] = true
		}
		last[values[rounds-1]] = true
		pushers = append(pushers, s.pusher(sink, values...))
	}
	s.race(func() {
		seen := s.p.See()
		if !pushed[seen] {
			s.Errorf("during pushes a consumer sees %s", describe(seen))
		}
		if seen != "" {
			delete(pushed, "")
		}
	}, pushers...)
	seen := s.p.See()
	if !last[seen] {
		s.Errorf("a consumer sees %s, which is no writer's last value", describe(seen))
	}
	s.holds(&s.p, s.a, seen)
}

// Pushes to siblings at the same time lose nothing.
func (s *suite) concurrentSiblings() {
	if s.p.Sibling == nil {
		return
	}
	sib := s.p.Sibling
	var mine, theirs []string
	for n := range rounds {
		mine, theirs = append(mine, token(100+n)), append(theirs, token(200+n))
	}
	s.race(func() { s.p.See() }, s.keeper(s.a, mine...), s.keeper(sib.Sink, theirs...))
	s.holds(&s.p, s.a, mine[len(mine)-1])
	s.holds(sib, sib.Sink, theirs[len(theirs)-1])
}

// A broken place is told before and at the push, the old value stays whole, and everything works
// again once it is mended.
func (s *suite) broken() {
	if s.p.Break == nil {
		return
	}
	s.must(s.a, token(1))
	mend := s.p.Break()
	for what, err := range map[string]error{
		"check": s.quiet(s.a.Check(s.Context())),
		"push":  s.put(s.Context(), s.a, token(2)),
	} {
		if err == nil {
			s.Errorf("%s of a broken place: no error", what)
		} else if !strings.Contains(err.Error(), s.p.Address) {
			s.Errorf("%s of a broken place: %q does not name it (%s)", what, err, s.p.Address)
		}
	}
	_, err := s.a.Read(s.Context())
	s.quiet(err)
	mend()
	s.holds(&s.p, s.a, token(1))
	if err := s.quiet(s.a.Check(s.Context())); err != nil {
		s.Errorf("check of a mended place: %v", err)
	}
	s.must(s.a, token(2))
	s.holds(&s.p, s.a, token(2))
}

// Whatever state the place is in, no method panics, and a push that claims success has done it.
func (s *suite) odd() {
	for _, name := range slices.Sorted(maps.Keys(s.p.Odd)) {
		s.Run(name, func(t *testing.T) {
			o := newSuite(t, s.h)
			o.p.Odd[name]()
			_, err := o.a.Read(t.Context())
			o.quiet(err)
			check := o.quiet(o.a.Check(t.Context()))
			push := o.put(t.Context(), o.a, token(1))
			if check == nil && push != nil {
				t.Errorf("check says that a push would work, and it says %v", push)
			}
			if push == nil {
				o.holds(&o.p, o.a, token(1))
			}
			o.names()
			o.prints()
		})
	}
}
