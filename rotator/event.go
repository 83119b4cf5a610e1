package rotator

import (
	"strings"
	"time"
)

// Event is one thing that happened, as the journal keeps it. It is saved in the transaction of
// the record it belongs to, and told to listeners after that. It never holds a plaintext.
type Event struct {
	At         time.Time `json:"at"`
	Kind       EventKind `json:"event"`
	Entry      string    `json:"entry,omitempty"`
	Generation int       `json:"generation,omitempty"`
	Label      string    `json:"label,omitempty"`
	ID         string    `json:"id,omitempty"`      // SiteGPT's id
	Expires    time.Time `json:"expires,omitzero"`  // of the generation
	Place      string    `json:"place,omitempty"`   // of the sink
	Sink       string    `json:"sink,omitempty"`    // its name for people
	Detail     string    `json:"detail,omitempty"`  // why, in words
	Error      string    `json:"error,omitempty"`   // what failed
	Outage     string    `json:"outage,omitempty"`  // what is out, where that is why it failed
	Next       time.Time `json:"next,omitzero"`     // the next try, or what happens next; of pruned: what is older is gone
	By         string    `json:"by,omitempty"`      // the OS user who asked, and who that was before sudo
	Hash       string    `json:"hash,omitempty"`    // of a configuration
	Version    string    `json:"version,omitempty"` // of rotatord, where it began to work
}

// notRequired ends the detail of a push to a sink that a rotation does not wait for.
const notRequired = "not required"

// Optional reports whether the event is a push to a sink that was not required then.
func (ev *Event) Optional() bool {
	return ev.Kind == EventPushed && strings.HasSuffix(ev.Detail, notRequired)
}

// EventKind names what happened.
type EventKind string

// The kinds of event, in the order of a token's life.
const (
	EventIntended  EventKind = "intended"  // a create is about to be sent; has the label
	EventRefused   EventKind = "refused"   // the create certainly made nothing
	EventLimited   EventKind = "limited"   // 429
	EventUnknown   EventKind = "unknown"   // the create's outcome is unknown
	EventClosed    EventKind = "closed"    // an intent whose token was not found
	EventCreated   EventKind = "created"   // id and expiry are known
	EventVerified  EventKind = "verified"  // authenticates
	EventPushed    EventKind = "pushed"    // a sink holds it
	EventFailed    EventKind = "failed"    // a step failed and will be tried again at Next
	EventConverged EventKind = "converged" // every required sink holds it: promoted
	EventLost      EventKind = "lost"      // nobody can prove to hold the plaintext
	EventOrphan    EventKind = "orphan"    // a token of a recorded intent that no record holds
	EventRevoked   EventKind = "revoked"
	EventExpired   EventKind = "expired"
	EventHeld      EventKind = "held"     // waits for a person
	EventReleased  EventKind = "released" // no longer held
	EventDrift     EventKind = "drift"    // a sink no longer holds what we put there
	EventDied      EventKind = "died"     // revoked by somebody else
	EventReplanned EventKind = "replanned"
	EventAdopted   EventKind = "adopted"  // a person, or a new state, took over what was there
	EventPaused    EventKind = "paused"   // nothing is created or revoked until Next
	EventRemoved   EventKind = "removed"  // the entry left the configuration
	EventRestored  EventKind = "restored" // and came back
	EventRenamed   EventKind = "renamed"
	EventAsked     EventKind = "asked"   // a person asked for a rotation or a revocation
	EventTold      EventKind = "told"    // a consumer was told of a new token; Detail says which one
	EventTaken     EventKind = "taken"   // and uses it
	EventWaiting   EventKind = "waiting" // a revocation waits; Detail says for whom
	EventWarning   EventKind = "warning"
)

// The kinds of event that belong to no token, but to the installation.
const (
	EventStarted    EventKind = "started"    // rotatord began to work on the state; has its version
	EventStopped    EventKind = "stopped"    // and ended in order
	EventConfigured EventKind = "configured" // a configuration came into force; has its hash
	EventDeclined   EventKind = "declined"   // a configuration was refused: the one before stays in force
	EventAccount    EventKind = "account"    // the account, or the token that rotatord itself asks with, is another one
	EventPruned     EventKind = "pruned"     // history from before Next was dropped
)

// EventKinds returns every kind of event, in the order of a token's life.
func EventKinds() []EventKind {
	return []EventKind{
		EventIntended, EventRefused, EventLimited, EventUnknown, EventClosed, EventCreated, EventVerified, EventPushed, EventFailed,
		EventConverged, EventLost, EventOrphan, EventRevoked, EventExpired, EventHeld, EventReleased, EventDrift, EventDied,
		EventReplanned, EventAdopted, EventPaused, EventRemoved, EventRestored, EventRenamed, EventAsked, EventTold, EventTaken,
		EventWaiting, EventWarning, EventStarted, EventStopped, EventConfigured, EventDeclined, EventAccount, EventPruned,
	}
}
