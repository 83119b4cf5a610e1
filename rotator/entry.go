// Package rotator keeps declared API tokens fresh: it decides when each one needs a successor,
// takes the steps that bring the successor to every sink, and lets the old one die once its users
// have had their time to move. A crash between any two steps loses nothing.
//
// Two halves: Plan is pure and says which steps an Entry and its Record want at an instant; the
// Engine takes them, saves the record, and asks again. The package knows the standard library
// only; the API, the sinks, the store and the clock are handed to it.
package rotator

import (
	"slices"
	"strings"
	"time"
)

// Entry is one item of rotation.yaml: a token that should exist.
type Entry struct {
	Name        string // a slug, the key of everything
	Description string // for people; part of the label
	Scopes      []string
	Chatbots    []string // nil: all that are accessible
	Timing      Timing
	OnDrift     OnDrift
	OnRemove    OnRemove
	Was         string // the name this entry had before
	Outlets     []Outlet
	Consumers   []Consumer    // programs that are told of a new token
	Facts       Facts         // what Timing comes to, from Check; the fuse's limits. Zero: no fuse
	Settle      time.Duration // how long the API is given to agree with itself; 0: DefaultSettle
	Ahead       time.Duration // what falls due within this time is due now: the distance to the next pass of once

	// Removed marks an entry that is no longer declared: its record lives out its life.
	Removed bool
}

// OwnName is the entry of rotatord's own token, with which it asks for all others: no other entry may
// bear it. Its newest generation is never revoked, whoever wishes for it, and the one before lives
// until the newest has made a token.
const OwnName = "management"

// own reports whether e is rotatord's own token.
func (e *Entry) own() bool { return e.Name == OwnName }

// OnDrift says what happens to a foreign value.
type OnDrift string

// What on_drift can be.
const (
	DriftHold    OnDrift = "hold"    // leave it, tell a person
	DriftRestore OnDrift = "restore" // write ours over it
)

// OnRemove says what happens to the tokens of an entry that is removed from rotation.yaml.
type OnRemove string

// What on_remove can be.
const (
	RemoveExpire OnRemove = "expire" // they live until they expire
	RemoveRevoke OnRemove = "revoke" // they are revoked once the overlap has passed and no declared sink holds them
)

// SameSet reports whether a and b hold the same elements, whatever their order or repetition.
// nil and empty are the same.
func SameSet(a, b []string) bool {
	return slices.Equal(sortedSet(a), sortedSet(b))
}

func sortedSet(s []string) []string {
	c := slices.Clone(s)
	slices.Sort(c)
	return slices.Compact(c)
}

// lacks returns the elements of want that have does not hold.
func lacks(have, want []string) []string {
	var out []string
	for _, w := range want {
		if !slices.Contains(have, w) {
			out = append(out, w)
		}
	}
	return out
}

func (e *Entry) outlet(place string) *Outlet {
	for i := range e.Outlets {
		if e.Outlets[i].Place == place {
			return &e.Outlets[i]
		}
	}
	return nil
}

// spec is the part of an entry that needs a new token when it changes: what was requested.
func (e *Entry) spec() string {
	return strings.Join(sortedSet(e.Scopes), " ") + "|" + strings.Join(sortedSet(e.Chatbots), " ")
}
