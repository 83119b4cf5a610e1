package sinktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// room is a place in memory: what its handles share, as processes share a file.
type room struct {
	mu      sync.Mutex
	values  map[string]string
	version int
	broken  bool
	late    func() // a write that comes when nobody expects it any more
}

// ref is a right sink. Each of its knobs makes it a wrong one.
type ref struct {
	room  *room
	key   string
	dir   string
	last  rotator.Secret // pushed by this handle
	shown string         // never by a right one

	wrong string // which knob
}

var errBroken = errors.New("room 101 is locked")

func (r *ref) is(wrong string) bool { return r.wrong == wrong }

func (r *ref) Check(context.Context) error {
	r.room.mu.Lock()
	defer r.room.mu.Unlock()
	switch {
	case r.is("check writes"):
		r.room.set(r.key, "probe")
	case r.is("check touches"):
		r.room.version++
	case r.is("check is always pleased"):
		return nil
	case r.is("check never pleased"):
		return errBroken
	case r.is("check does not name the place") && r.room.broken:
		return errors.New("locked")
	}
	if r.room.broken {
		return errBroken
	}
	return nil
}

func (r *room) set(key, value string) {
	r.values[key] = value
	r.version++
}

func (r *ref) Push(ctx context.Context, _ rotator.Generation, s rotator.Secret) error {
	if err := ctx.Err(); err != nil && !r.is("ignores its context") {
		return err
	}
	v := s.Reveal()
	if r.is("keeps half of a value") {
		v = v[:min(len(v), 256)]
	}
	if r.is("adds a line") {
		v += "\n# rotated"
	}
	if r.is("shows what it holds") {
		r.shown = v
	}
	if r.is("panics at odd places") && r.room.values == nil {
		panic("odd")
	}
	if r.is("remembers its last push") && r.last.Reveal() == v {
		return nil
	}
	if r.is("names a file by it") {
		if err := os.WriteFile(filepath.Join(r.dir, v[:min(len(v), 60)]), nil, 0o600); err != nil {
			return errors.New("write")
		}
	}
	r.room.mu.Lock()
	defer r.room.mu.Unlock()
	if r.room.late != nil {
		defer r.room.late()
		r.room.late = nil
	}
	if r.room.broken {
		switch {
		case r.is("pushes nothing when broken"):
			return nil
		case r.is("tells the plaintext"):
			return fmt.Errorf("%w: cannot keep %q", errBroken, v)
		case r.is("destroys when broken"):
			r.room.set(r.key, "")
		}
		return errBroken
	}
	if ctx.Err() != nil && r.is("ignores its context") {
		r.room.set(r.key, v)
		return nil
	}
	if _, limited := ctx.Deadline(); limited && r.is("writes late") {
		r.room.late = func() { r.room.set(r.key, v) }
		return context.DeadlineExceeded
	}
	if _, limited := ctx.Deadline(); limited && r.is("cut in half") {
		r.room.set(r.key, v[:len(v)/2])
		return context.DeadlineExceeded
	}
	r.last = rotator.NewSecret(v)
	old := r.room.values[r.key]
	switch {
	case old == v && !r.is("always writes"):
		return nil
	case r.is("pushes nothing"):
	case r.is("leaves a tail") && len(old) > len(v):
		r.room.set(r.key, v+old[len(v):])
	case r.is("writes in two steps"):
		r.room.set(r.key, v[:len(v)/2])
		r.room.mu.Unlock()
		time.Sleep(5 * time.Millisecond) // lets others look, also on a busy machine
		r.room.mu.Lock()
		r.room.set(r.key, v)
	case r.is("drops siblings"):
		r.room.values = map[string]string{r.key: v}
		r.room.version++
	case r.is("loses updates"):
		was, version := maps.Clone(r.room.values), r.room.version
		for n := 0; n < 50 && r.room.version == version; n++ { // until another one has written
			r.room.mu.Unlock()
			time.Sleep(time.Millisecond) // a busy machine has to get both writers in here, at each round
			r.room.mu.Lock()
		}
		was[r.key] = v
		r.room.values = was
		r.room.version++
	default:
		r.room.set(r.key, v)
	}
	return nil
}

func (r *ref) Read(context.Context) (rotator.Secret, error) {
	r.room.mu.Lock()
	defer r.room.mu.Unlock()
	v := r.room.values[r.key]
	switch {
	case r.is("cannot be read"):
		return rotator.Secret{}, errors.ErrUnsupported
	case r.is("an error where nothing is") && v == "":
		return rotator.Secret{}, os.ErrNotExist
	case r.is("reads what it pushed"):
		v = r.last.Reveal()
	}
	if !r.is("keeps the newline") {
		v = strings.TrimSuffix(v, "\n")
	}
	return rotator.NewSecret(v), nil
}

// harness is the reference sink with one knob turned; "" is the right one.
func harness(wrong string) Harness {
	return Harness{Lines: true, New: func(t *testing.T) Fixture {
		r := &room{values: map[string]string{}}
		dir := t.TempDir()
		see := func(key string) string {
			r.mu.Lock()
			defer r.mu.Unlock()
			return strings.TrimSuffix(r.values[key], "\n")
		}
		open := func(key string) rotator.Sink { return &ref{room: r, key: key, dir: dir, wrong: wrong} }
		return Fixture{
			Sink: open("a"), Other: open("a"),
			See:   func() string { return see("a") },
			Write: func(value string) { r.set("a", value) },
			Break: func() func() {
				r.broken = true
				return func() { r.broken = false }
			},
			Siblings: func(t *testing.T) func() {
				r.set("c", "not ours\n")
				return func() {
					if r.values["c"] != "not ours\n" {
						t.Errorf("the neighbour is %q", r.values["c"])
					}
				}
			},
			Sibling: &Fixture{Sink: open("b"), Other: open("b"), See: func() string { return see("b") }},
			Version: func() string {
				r.mu.Lock()
				defer r.mu.Unlock()
				return strconv.Itoa(r.version)
			},
			Address: "room 101",
			Dir:     dir,
			Odd: map[string]func(){
				"without values": func() { r.values, r.broken = nil, true },
				"with a probe":   func() { r.values["a"] = "probe\n\n" },
			},
		}
	}}
}

func TestARightSinkPasses(t *testing.T) { Run(t, harness("")) }

// A kind that can do less is asked less.
func TestASinkWithoutExtrasPasses(t *testing.T) {
	h := harness("cannot be read")
	h.Unreadable, h.Lines = true, false
	inner := h.New
	h.New = func(t *testing.T) Fixture {
		p := inner(t)
		return Fixture{Sink: p.Sink, Other: p.Other, See: p.See}
	}
	Run(t, h)
}

// wrongs are the wrong sinks, and a case that has to find each.
var wrongs = []struct{ wrong, found string }{
	{"check writes", "check"},
	{"check touches", "check"},
	{"check is always pleased", "broken"},
	{"check is always pleased", "odd/without_values"},
	{"check never pleased", "check"},
	{"check does not name the place", "broken"},
	{"ignores its context", "cancelled"},
	{"keeps half of a value", "shapes"},
	{"adds a line", "push"},
	{"shows what it holds", "push"},
	{"panics at odd places", "odd"},
	{"remembers its last push", "other_handle"},
	{"tells the plaintext", "broken"},
	{"names a file by it", "push"},
	{"pushes nothing when broken", "broken"},
	{"destroys when broken", "broken"},
	{"writes late", "cut_off"},
	{"cut in half", "cut_off"},
	{"always writes", "idempotent"},
	{"pushes nothing", "push"},
	{"leaves a tail", "replace"},
	{"writes in two steps", "concurrent"},
	{"drops siblings", "siblings"},
	{"loses updates", "concurrent_siblings"},
	{"cannot be read", "empty"},
	{"an error where nothing is", "empty"},
	{"reads what it pushed", "by_hand"},
	{"keeps the newline", "newline"},
}

// wrongEnv names the wrong sink that a child process runs the suite with.
const wrongEnv = "SINKTEST_WRONG"

func TestWrongSink(t *testing.T) {
	if wrong := os.Getenv(wrongEnv); wrong != "" {
		Run(t, harness(wrong))
	}
}

// Every wrong sink is found, by the case that was written for it, and nothing is told in the report.
func TestWrongSinksFail(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	known := slices.Collect(func(yield func(string) bool) {
		for _, c := range cases {
			if !yield(strings.ReplaceAll(c.name, " ", "_")) {
				return
			}
		}
	})
	caught := map[string]bool{}
	for _, w := range wrongs {
		caught[strings.Split(w.found, "/")[0]] = true
		t.Run(w.wrong+"/"+w.found, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestWrongSink$", "-test.v")
			cmd.Env = append(os.Environ(), wrongEnv+"="+w.wrong)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("the suite is content with a sink that %s", w.wrong)
			}
			if panicked := w.wrong == "panics at odd places"; !panicked && !bytes.Contains(out, []byte("--- FAIL: TestWrongSink/"+w.found+" ")) {
				t.Errorf("case %s did not find it:\n%s", w.found, out)
			}
			if bytes.Contains(out, []byte(canary)) && w.wrong != "panics at odd places" {
				t.Error("the report contains a plaintext")
			}
		})
	}
	for _, name := range known {
		if !caught[name] {
			t.Errorf("no wrong sink shows that case %s can fail", name)
		}
	}
}
