package rotator

import (
	"cmp"
	"slices"
	"time"
)

// Record is all that is known of one entry's tokens. Its instants are its state: nothing else
// says whether a generation is pending, current or retiring.
type Record struct {
	Name        string       `json:"name"`
	Version     int64        `json:"-"`           // of the stored row, for compare-and-swap
	Last        int          `json:"last"`        // the highest generation number given out
	Generations []Generation `json:"generations"` // newest first; gone ones leave once their expiry has passed
	Sinks       []SinkState  `json:"sinks"`
	Posts       []Post       `json:"posts,omitempty"` // creates of the last 24 hours, for the fuse

	Create  Retry  `json:"create,omitzero"`   // of the path from preflight to issued
	Problem string `json:"problem,omitempty"` // why the last try of that path failed
	// AskTried is the newest wish that the last try of that path knew of: a newer one does not
	// wait for the backoff.
	AskTried time.Time `json:"ask_tried,omitzero"`

	// RefusedSpec is the edit of scopes or chatbots that the API refused, or answered with less
	// than the predecessor had: it is held. "" when none is.
	RefusedSpec string `json:"refused_spec,omitempty"`
	// Blocked says why nothing may be created for this entry (a token that no intent explains,
	// say) until its last quarter of overlap. "" when it may.
	Blocked      string    `json:"blocked,omitempty"`
	BlockedUntil time.Time `json:"blocked_until,omitzero"` // and until when at most; zero: until then

	// Adopt: a person wants the tokens that block it taken over, at the next look at the list.
	Adopt bool `json:"adopt,omitempty"`
	// PausedUntil puts off creates and revocations, as long as nobody breaks by it.
	PausedUntil time.Time `json:"paused_until,omitzero"`
	Heard       int64     `json:"heard,omitempty"` // the number of the last order that was carried out

	OnRemove  OnRemove  `json:"on_remove,omitempty"` // as last declared
	Overlap   Duration  `json:"overlap,omitempty"`   // as last declared: a removed entry's revocations need it
	RemovedAt time.Time `json:"removed_at,omitzero"` // when the entry was found to be no longer declared

	// Past holds what is still worth knowing of forgotten generations: a restored backup may show
	// their values again.
	Past []Past `json:"past,omitempty"`

	Consumers []ConsumerState `json:"consumers,omitempty"` // of those that are told

	Asks []Ask `json:"-"` // wishes about this entry, from the mailbox
}

// Past is the trace of a forgotten generation.
type Past struct {
	Number int    `json:"number"`
	Hash   string `json:"hash"`
}

// maxPast is how many forgotten generations leave a trace.
const maxPast = 100

// Duration is a time.Duration that a record keeps.
type Duration = time.Duration

// Post is one create that was sent, as the fuse counts it.
type Post struct {
	At    time.Time `json:"at"`
	Asked bool      `json:"asked,omitempty"` // by a person; counted apart
}

// Generation is one SiteGPT token created for an entry, or the intent to create it.
type Generation struct {
	Entry  string `json:"entry"`
	Number int    `json:"number"`
	Label  string `json:"label"`
	ID     string `json:"id,omitempty"` // SiteGPT's id; "" while the create's outcome is unknown
	Cause  Cause  `json:"cause"`

	Scopes   []string `json:"scopes"`             // requested
	Chatbots []string `json:"chatbots,omitempty"` // requested; nil: all
	Granted  []string `json:"granted,omitempty"`  // nil where the answer did not say
	Hash     string   `json:"hash,omitempty"`     // keyed, of the plaintext
	Timing   string   `json:"timing"`             // the fingerprint of the timing that Planned was computed from

	Intended  time.Time `json:"intended"`           // c: what Expires and Planned are computed from
	Covers    time.Time `json:"covers,omitzero"`    // the last tick before the next pass of once: its successor comes after that
	Closed    time.Time `json:"closed,omitzero"`    // the create made nothing that was found; the label stays watched
	Searched  time.Time `json:"searched,omitzero"`  // when a complete list first lacked the label
	Created   time.Time `json:"created,omitzero"`   // when id and hash were saved
	Expires   time.Time `json:"expires"`            // the server's word, or what was sent
	Planned   time.Time `json:"planned,omitzero"`   // when the successor is due
	Verified  time.Time `json:"verified,omitzero"`  // it authenticated
	Begun     time.Time `json:"begun,omitzero"`     // a first push was about to start
	Converged time.Time `json:"converged,omitzero"` // promoted
	Used      time.Time `json:"used,omitzero"`      // of rotatord's own token: it made a token itself
	RevokeAt  time.Time `json:"revoke_at,omitzero"` // it retires, and may be revoked from then on
	Forced    bool      `json:"forced,omitempty"`   // a person wants it dead: its revocation waits for nobody
	Leave     bool      `json:"leave,omitempty"`    // it is left to expire by itself
	Lost      time.Time `json:"lost,omitzero"`      // nobody can be proven to hold its plaintext
	Suspect   time.Time `json:"suspect,omitzero"`   // the API refused it, or its list lacked it, first
	Revoked   time.Time `json:"revoked,omitzero"`   // dead, by us or by others
	Died      bool      `json:"died,omitempty"`     // not by us: the API refused it
	Retry     Retry     `json:"retry,omitzero"`     // of verifying and of revoking
	Waits     string    `json:"waits,omitempty"`    // for whom its revocation waits
}

// Retry is one step's backoff: an instant, not a sleep.
type Retry struct {
	Tries  int       `json:"tries,omitempty"`  // failures in a row
	At     time.Time `json:"at,omitzero"`      // not before
	Error  string    `json:"error,omitempty"`  // of the last failure
	Since  time.Time `json:"since,omitzero"`   // of the first failure in a row
	Outage string    `json:"outage,omitempty"` // what is out, where that is why: its end comes before At
}

// Cause says why a generation was created.
type Cause string

// The causes of a rotation.
const (
	CauseFirst   Cause = "first"   // the entry had no token
	CausePlanned Cause = "planned" // its instant has come
	CauseSpec    Cause = "spec"    // scopes or chatbots were edited
	CauseAsked   Cause = "asked"   // a person asked
	CauseDead    Cause = "dead"    // the last one was revoked by others, or expired
	CauseLost    Cause = "lost"    // nobody can be proven to hold the last one
	CauseEarly   Cause = "early"   // falls due before the next pass of once
	CauseAdopted Cause = "adopted" // another state made it
)

// SinkState is what is known of one sink, keyed by its place.
type SinkState struct {
	Place string `json:"place"`
	Name  string `json:"name,omitempty"`

	Begun  int       `json:"begun,omitempty"`  // generation whose push was begun last: until Holds equals it, the sink may hold either
	Holds  int       `json:"holds,omitempty"`  // generation it was last proven, or told, to hold; 0: none
	Since  time.Time `json:"since,omitzero"`   // when that was saved
	Read   time.Time `json:"read,omitzero"`    // when it was last read back
	Proven bool      `json:"proven,omitempty"` // Holds was read back at least once since the push
	Ever   bool      `json:"ever,omitempty"`   // we once proved a push here: another value is foreign, not prior
	Blind  bool      `json:"blind,omitempty"`  // it cannot be read back
	Yield  bool      `json:"yield,omitempty"`  // a person gave up what stands there: the next push may write over it
	Held   string    `json:"held,omitempty"`   // why it waits for a person; "" when it does not
	Tried  int       `json:"tried,omitempty"`  // generation that was tried here at least once
	Retry  Retry     `json:"retry,omitzero"`   // of pushing
	Unread string    `json:"unread,omitempty"` // why the last reading failed

	UnreadOutage string    `json:"unread_outage,omitempty"` // what was out, where that is why
	UnreadSince  time.Time `json:"unread_since,omitzero"`   // when reading first failed in a row
}

// Live reports whether g is a token that the API should accept at now.
func (g *Generation) Live(now time.Time) bool {
	return g.ID != "" && g.Revoked.IsZero() && now.Before(g.Expires)
}

// since is the instant after which the successor's tick is looked for.
func (g *Generation) since() time.Time { return maxTime(g.Intended, g.Covers) }

// Open reports whether g is an intent whose outcome is unknown.
func (g *Generation) Open() bool { return g.ID == "" && g.Closed.IsZero() }

// usable: live, and somebody holds its plaintext.
func (g *Generation) usable(now time.Time) bool { return g.Live(now) && g.Lost.IsZero() }

// Target returns the generation that the sinks should hold: the newest usable one that does not
// retire. nil where there is none.
func (r *Record) Target(now time.Time) *Generation {
	for i := range r.Generations {
		if g := &r.Generations[i]; g.usable(now) && g.RevokeAt.IsZero() {
			return g
		}
	}
	return nil
}

// Current returns the newest usable generation that was promoted; nil where there is none.
func (r *Record) Current(now time.Time) *Generation {
	for i := range r.Generations {
		if g := &r.Generations[i]; g.usable(now) && !g.Converged.IsZero() {
			return g
		}
	}
	return nil
}

// newestAsk is when a person last wished for a newer generation; zero where nobody did.
func (r *Record) newestAsk() time.Time {
	var newest time.Time
	for _, a := range r.Asks {
		if a.Revoke == 0 && !a.order() {
			newest = maxTime(newest, a.At)
		}
	}
	return newest
}

// whoWants names who gave the newest wish that is meant; "" where nobody did.
func (r *Record) whoWants(meant func(Ask) bool) (by string) {
	var at time.Time
	for _, a := range r.Asks {
		if meant(a) && !a.At.Before(at) {
			by, at = a.By, a.At
		}
	}
	return by
}

// Generation returns the generation with this number, or nil.
func (r *Record) Generation(number int) *Generation {
	for i := range r.Generations {
		if r.Generations[i].Number == number {
			return &r.Generations[i]
		}
	}
	return nil
}

// Sink returns the state of the sink at place; nil where nothing is known of it.
func (r *Record) Sink(place string) *SinkState {
	for i := range r.Sinks {
		if r.Sinks[i].Place == place {
			return &r.Sinks[i]
		}
	}
	return nil
}

// sink returns the state of the sink at place, made when it is missing. It may move the others.
func (r *Record) sink(place string) *SinkState {
	if s := r.Sink(place); s != nil {
		return s
	}
	r.Sinks = append(r.Sinks, SinkState{Place: place})
	slices.SortFunc(r.Sinks, func(a, b SinkState) int { return cmp.Compare(a.Place, b.Place) })
	return r.Sink(place)
}

// Clone returns a deep copy. Only what is past is shared: it is added to, and never changed.
func (r *Record) Clone() Record {
	c := *r
	c.Generations = slices.Clone(r.Generations)
	c.Sinks = slices.Clone(r.Sinks)
	c.Posts = slices.Clone(r.Posts)
	c.Past = slices.Clip(r.Past)
	c.Consumers = slices.Clone(r.Consumers)
	c.Asks = slices.Clone(r.Asks)
	return c
}
