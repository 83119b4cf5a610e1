// Package management keeps the one credential whose loss ends everything: the token with which
// rotatord itself asks SiteGPT for all others.
//
// The operator gives one. Where rotation.yaml says so, rotatord rotates it like any other token; its
// only sink is a file in the state folder, which holds the newest two. A new one is written beside the
// one in use and never over it, after it has proven that it can do the job, so a crash at any instant
// leaves at least one that works.
//
// Which one is used is decided at the first request, after a restart, and when the API refuses the
// one in use: a credential that the operator has just replaced, then the newest rotated one, then
// the one before, then the given one. The first that the API does not refuse is taken.
package management

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/atomicfile"
)

// Config is what a Keeper needs; all of it is required, but for Chose.
type Config struct {
	File string // of the rotated tokens; made at the first rotation
	Key  []byte // of the keyed hash by which a replaced credential is noticed

	// Given returns the operator's credential; zero where there is none (any more).
	Given func() rotator.Secret
	// Note and SetNote keep what must outlive the process: a short text without secrets.
	Note    func(ctx context.Context) (string, error)
	SetNote func(ctx context.Context, note string) error
	// Works asks the API whether it accepts a token; an error that matches rotator.ErrUnauthorized
	// says that it does not, any other one says nothing.
	Works func(ctx context.Context, s rotator.Secret) error
	// Prove says whether a new token can take over: it creates and lists tokens, and the list that
	// it gets holds its own id.
	Prove func(ctx context.Context, s rotator.Secret, id string) error
	// Chose is told which candidate is in use from now on: its generation, 0 for the operator's, and
	// then a keyed hash that tells one credential from another. nil: nobody wants to know.
	Chose func(ctx context.Context, generation int, mark string)
}

// Keeper knows the candidates, and which of them is in use. Its methods may be called from many
// goroutines.
type Keeper struct {
	c Config

	choosing sync.Mutex // held while the API is asked

	mu     sync.Mutex
	chosen bool
	use    candidate
	note   note
	noted  bool   // note was read
	given  string // the hash of the given credential that the choice knew
}

// candidate is one token that may be the one to use.
type candidate struct {
	number int // its generation; 0: the operator's
	secret rotator.Secret
}

// note is what outlives the process.
type note struct {
	Given string `json:"given"` // keyed hash of the operator's credential that was last taken
	Over  int    `json:"over"`  // it was new when this was the newest generation: later ones come before it
}

// New returns a keeper that has chosen nothing yet.
func New(c Config) *Keeper { return &Keeper{c: c} }

// Bearer returns the token to ask with, and its generation; 0 for the operator's. Before the first
// choice it is the first candidate.
func (k *Keeper) Bearer() (rotator.Secret, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.chosen {
		return k.c.Given(), 0
	}
	return k.use.secret, k.use.number
}

// Refused says that the API refused s: the next request chooses again.
func (k *Keeper) Refused(s rotator.Secret) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.chosen && k.use.secret.Reveal() == s.Reveal() {
		k.chosen = false
	}
}

// Choose makes sure that a candidate is in use, and that it is the operator's if that was replaced.
// An error that matches rotator.ErrUnauthorized says that the API refuses every one.
func (k *Keeper) Choose(ctx context.Context) error {
	k.choosing.Lock()
	defer k.choosing.Unlock()
	given := k.c.Given()
	mark := k.mark(given)
	k.mu.Lock()
	settled := k.chosen && (mark == k.given || given.IsZero())
	k.mu.Unlock()
	if settled {
		return nil
	}
	n, err := k.readNote(ctx)
	if err != nil {
		return err
	}
	all, err := k.candidates(given, mark, n)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("no management token: none is given, and none was rotated")
	}
	var refused []error
	for _, c := range all {
		err := k.c.Works(ctx, c.secret)
		if errors.Is(err, rotator.ErrUnauthorized) && len(all) == 1 {
			return err
		}
		if errors.Is(err, rotator.ErrUnauthorized) {
			refused = append(refused, fmt.Errorf("%s: %w", c, err))
			continue
		}
		if err != nil {
			return err
		}
		if c.number == 0 && mark != n.Given {
			if err := k.setNote(ctx, note{Given: mark, Over: newest(all)}); err != nil {
				return err
			}
		}
		k.mu.Lock()
		k.chosen, k.use, k.given = true, c, mark
		k.mu.Unlock()
		if k.c.Chose != nil {
			k.c.Chose(ctx, c.number, mark)
		}
		return nil
	}
	return errors.Join(refused...)
}

func (c candidate) String() string {
	if c.number == 0 {
		return "the given credential"
	}
	return fmt.Sprintf("generation %d of rotatord's own token", c.number)
}

// mark is how a credential is told from its successor.
func (k *Keeper) mark(s rotator.Secret) string {
	if s.IsZero() {
		return ""
	}
	return s.Hash(k.c.Key)
}

// candidates lists all tokens there are, in the order in which they are tried. What was rotated
// after the operator's credential was taken comes before it, everything else behind.
func (k *Keeper) candidates(given rotator.Secret, mark string, n note) ([]candidate, error) {
	rotated, err := k.rotated()
	if err != nil {
		return nil, err
	}
	over := n.Over
	if mark != n.Given && n.Given != "" {
		over = newest(rotated) // replaced just now: it comes before all
	}
	var after, before []candidate
	for _, c := range rotated {
		if c.number > over {
			after = append(after, c)
		} else {
			before = append(before, c)
		}
	}
	if given.IsZero() {
		return append(after, before...), nil
	}
	return slices.Concat(after, []candidate{{0, given}}, before), nil
}

func newest(all []candidate) int {
	n := 0
	for _, c := range all {
		n = max(n, c.number)
	}
	return n
}

func (k *Keeper) readNote(ctx context.Context) (note, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.noted {
		return k.note, nil
	}
	text, err := k.c.Note(ctx)
	if err != nil {
		return note{}, fmt.Errorf("read which management token was last given: %w", err)
	}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &k.note); err != nil {
			return note{}, fmt.Errorf("read which management token was last given: %w", err)
		}
	}
	k.noted = true
	return k.note, nil
}

func (k *Keeper) setNote(ctx context.Context, n note) error {
	text, err := json.Marshal(n)
	if err == nil {
		err = k.c.SetNote(ctx, string(text))
	}
	if err != nil {
		return fmt.Errorf("note which management token was given: %w", err)
	}
	k.mu.Lock()
	k.note, k.noted = n, true
	k.mu.Unlock()
	return nil
}

// rotated returns the tokens in the file, newest first.
func (k *Keeper) rotated() ([]candidate, error) {
	text, err := atomicfile.Read(k.c.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parse(text), nil
}

// parse reads the file's lines, "NUMBER TOKEN", newest first. What is none is passed over: somebody
// wrote into our file, and the other candidates are as good as before.
func parse(text []byte) []candidate {
	var out []candidate
	for line := range strings.Lines(string(text)) {
		number, token, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(number)
		if s := rotator.NewSecret(token); err == nil && n > 0 && s.IsToken() && !strings.ContainsAny(token, " \t") {
			out = append(out, candidate{n, s})
		}
	}
	slices.SortStableFunc(out, func(a, b candidate) int { return cmp.Compare(b.number, a.number) })
	return out
}

// format is what parse reads.
func format(all []candidate) []byte {
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, "%d %s\n", c.number, c.secret.Reveal())
	}
	return []byte(b.String())
}
