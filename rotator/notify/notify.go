// Package notify tells people what is wrong, and when it is well again: a channel, or a program that
// wakes somebody.
//
// What is told is the difference between the problems now and those last told, which the state keeps:
// a restart neither repeats nor forgets. Problems of one cause are one trouble: a Vault that is out of
// reach for five hundred tokens is one message, then a summary, then one all-clear. What heals within
// a moment is told to nobody, unless somebody breaks by it.
//
// Every target is told at least once of what lasts, by a goroutine of its own, with its own backoff.
// Nothing is queued: while a target cannot be reached, the difference is worked out again at each
// try, and is one message in the end.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/webhook"
)

// Store keeps what listeners were told.
type Store interface {
	Notes(ctx context.Context) (string, error) // "" where there are none
	SetNotes(ctx context.Context, notes string) error
}

// Notifier tells targets how things are. Its methods may be called by one goroutine at a time.
type Notifier struct {
	Targets  func() map[string]Target                          // those of the configuration in force
	Report   func(ctx context.Context) (rotator.Report, error) // how things are now
	Hint     func(rotator.Problem) string                      // what to do about a problem
	Store    Store
	World    webhook.World // its Now is also ours
	Instance string
	Host     string
	Log      *slog.Logger
	// Instead is told in place of the targets, in a rehearsal; nil: for real.
	Instead func(target, text string)

	saving  sync.Mutex // taken before mu
	mu      sync.Mutex
	loaded  bool
	of      map[string]*memory
	busy    map[string]bool
	unsaved bool      // there is something to keep that no message keeps
	again   time.Time // not before then, where that did not work: a full disk must not spin
	running sync.WaitGroup
}

// Look begins to tell whoever is to be told now, and waits for nobody: see Wait. hurry: nobody will
// look again soon, so neither a grace nor a backoff is waited for.
func (n *Notifier) Look(ctx context.Context, hurry bool) error {
	if err := n.load(ctx); err != nil {
		return err
	}
	targets := n.Targets()
	if len(targets) == 0 && !n.any() {
		return nil
	}
	rep, err := n.Report(ctx)
	if err != nil {
		return err
	}
	if n.tell(ctx, targets, rep, hurry) {
		n.save(ctx)
	}
	return nil
}

// tell begins to tell targets, and reports whether what is known of them is to be kept now.
func (n *Notifier) tell(ctx context.Context, targets map[string]Target, rep rotator.Report, hurry bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	rep.Problems = append(slices.Clone(rep.Problems), problemsOf(n.of, targets)...)
	maps.DeleteFunc(n.of, func(name string, _ *memory) bool {
		_, declared := targets[name]
		forget := !declared && !n.busy[name]
		n.unsaved = n.unsaved || forget // declared again, it is somebody new, also to the next process
		return forget
	})
	now := n.World.Now()
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		m := n.of[name]
		if m == nil {
			m = &memory{}
			n.of[name] = m
		}
		if m.Retry.At.After(now.Add(longestWait)) {
			m.Retry.At = now // the clock was set back
		}
		if n.busy[name] {
			continue
		}
		t := targets[name]
		n.unsaved = m.move(&t) || n.unsaved
		n.unsaved = m.baseline(&t, rep.Tokens, now) || n.unsaved
		if m.Retry.At.After(now) && !hurry {
			continue
		}
		msg, next := m.compare(name, &t, rep, now, hurry)
		if msg == nil {
			*m = next
			continue
		}
		msg.Instance, msg.Host = n.Instance, n.Host
		msg.advise(n.Hint)
		n.busy[name] = true
		n.running.Go(func() { n.send(ctx, name, &t, msg, next) })
	}
	return n.unsaved && !n.again.After(now)
}

// Wait returns when nobody is being told any more.
func (n *Notifier) Wait() { n.running.Wait() }

func (n *Notifier) any() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.of) > 0
}

// load reads, once, what was told before.
func (n *Notifier) load(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.loaded {
		return nil
	}
	text, err := n.Store.Notes(ctx)
	if err != nil {
		return fmt.Errorf("read what people were told: %w", err)
	}
	n.of, n.busy, n.loaded = read(text), map[string]bool{}, true
	return nil
}

// read is lenient: what cannot be read is told once more.
func read(text string) map[string]*memory {
	var of map[string]*memory
	if json.Unmarshal([]byte(text), &of) != nil || of == nil { // also "", where there are none
		return map[string]*memory{}
	}
	maps.DeleteFunc(of, func(_ string, m *memory) bool { return m == nil })
	for _, m := range of {
		maps.DeleteFunc(m.Open, func(_ string, t *told) bool { return t == nil })
	}
	return of
}

const longestWait = time.Hour

// send tells one target, and keeps that it did.
func (n *Notifier) send(ctx context.Context, name string, t *Target, msg *Message, next memory) {
	err := n.post(ctx, name, t, msg)
	n.mu.Lock()
	delete(n.busy, name)
	m := n.of[name]
	switch {
	case m == nil:
	case err == nil:
		if m.Retry.Tries > 0 {
			n.Log.Info("people can be told again", "target", name, "after", m.Retry.Tries)
		}
		next.Retry = retry{}
		*m = next
	case ctx.Err() != nil: // it is to stop: the next process tells
		n.mu.Unlock()
		return
	default:
		now := n.World.Now()
		if m.Retry.Tries == 0 {
			m.Retry.Since = now
			n.Log.Warn("people cannot be told", "target", name, "error", err)
		}
		m.Retry.Tries++
		wait := min(5*time.Second<<min(m.Retry.Tries-1, 10), 5*time.Minute)
		if limited := (*rotator.LimitedError)(nil); errors.As(err, &limited) {
			wait = max(wait, min(limited.After, longestWait))
		}
		m.Retry.At, m.Retry.Error = now.Add(wait), clean(err.Error())
	}
	n.mu.Unlock()
	n.save(ctx)
}

// save keeps what is known of all targets.
func (n *Notifier) save(ctx context.Context) {
	n.saving.Lock() // or what is older could be kept last
	defer n.saving.Unlock()
	n.mu.Lock()
	notes, err := n.notes()
	n.unsaved = false
	n.mu.Unlock()
	if err == nil {
		err = n.Store.SetNotes(context.WithoutCancel(ctx), notes)
	}
	if err != nil {
		n.Log.Warn("note what people were told", "error", err)
		n.mu.Lock()
		n.unsaved, n.again = true, n.World.Now().Add(patience)
		n.mu.Unlock()
	}
}

// notes is what the state keeps: nothing of what nobody was told.
func (n *Notifier) notes() (string, error) {
	of := map[string]memory{}
	for name, m := range n.of {
		c := m.clone()
		maps.DeleteFunc(c.Open, func(_ string, t *told) bool { return t.At.IsZero() })
		of[name] = c
	}
	b, err := json.Marshal(of)
	return string(b), err
}

// post sends a message to a target. A panic is its error.
func (n *Notifier) post(ctx context.Context, name string, t *Target, msg *Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if n.Instead != nil {
		n.Instead(name, msg.text(textLimit, func(s string) string { return s }))
		return nil
	}
	poster := t.Open(n.World)
	ctx, cancel := context.WithTimeout(ctx, poster.Timeout())
	defer cancel()
	body := msg.body()
	if t.Slack != nil {
		body = msg.slack()
	}
	return poster.Post(ctx, msg.ID, body)
}

// Test sends a message that says that it is one. Nothing is noted.
func (n *Notifier) Test(ctx context.Context, name string, t Target) error {
	now := n.World.Now()
	msg := &Message{Type: TypeTest, ID: "rotatord_test_" + rotator.NewNonce(8), At: now, Instance: n.Instance, Host: n.Host}
	return n.post(ctx, name, &t, msg)
}

// Standing is how things are with one target.
type Standing struct {
	Target string    `json:"target"`
	Open   []Item    `json:"open"` // what it was told of, and is wrong still
	Tries  int       `json:"tries,omitempty"`
	Since  time.Time `json:"failing_since,omitzero"`
	Next   time.Time `json:"next,omitzero"`
	Error  string    `json:"error,omitempty"`
}

// Standings reads from notes how things are with targets.
func Standings(notes string, targets map[string]Target) []Standing {
	of := read(notes)
	out := []Standing{}
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		s := Standing{Target: name, Open: []Item{}}
		if m := of[name]; m != nil {
			s.Tries, s.Since, s.Next, s.Error = m.Retry.Tries, m.Retry.Since, m.Retry.At, m.Retry.Error
			for _, key := range slices.Sorted(maps.Keys(m.Open)) {
				k := m.Open[key]
				s.Open = append(s.Open, Item{Key: key, Kind: k.Kind, Title: k.Title, Since: k.Since, Count: k.Count})
			}
		}
		out = append(out, s)
	}
	return out
}

// Problems reads from notes which targets cannot be told.
func Problems(notes string, targets map[string]Target) []rotator.Problem {
	return problemsOf(read(notes), targets)
}

func problemsOf(of map[string]*memory, targets map[string]Target) []rotator.Problem {
	var out []rotator.Problem
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		if m := of[name]; m != nil && m.Retry.Tries > 0 {
			t := targets[name]
			out = append(out, rotator.Problem{
				Kind: rotator.ProblemNotify, Consumer: name, What: "people cannot be told: " + t.Title(name),
				Error: m.Retry.Error, Since: m.Retry.Since, Next: m.Retry.At, Failing: true,
			})
		}
	}
	return out
}
