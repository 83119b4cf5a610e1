package rotator

import (
	"context"
	"errors"
	"time"
)

// ErrConflict says that a record was changed by somebody else since it was read.
var ErrConflict = errors.New("the record was changed by another process")

// Store keeps records and their journal. Save is durable when it returns nil.
type Store interface {
	// Records returns every record, sorted by name.
	Records(ctx context.Context) ([]Record, error)
	// Save writes r if the stored version still is r.Version (0: it must not exist yet), with
	// its events in the same transaction, and then raises r.Version by one. ErrConflict: nothing
	// was written. On any error r is unchanged.
	Save(ctx context.Context, r *Record, told ...Event) error
	// Rename gives records other names, all of them or none, in one transaction with their events;
	// it returns the new records in the same order. ErrConflict as for Save, also when a name is taken.
	Rename(ctx context.Context, all ...Renaming) ([]Record, error)
	// Intended reports whether the journal holds an intent with this label, and for which entry.
	Intended(ctx context.Context, label string) (entry string, ok bool, err error)
	// Asks returns the wishes of people that are younger than a generation's longest life.
	Asks(ctx context.Context) ([]Ask, error)
}

// Renaming is one record that gets another name.
type Renaming struct {
	Record Record
	To     string
	Told   Event
}

// Ask is a person's durable wish about one entry.
//
// A wish for a newer generation or for a death holds no clock: it is fulfilled as soon as what it
// wants is so, and asking twice is asking once. An order (Adopt, Pause) is carried out once, in the
// order of the numbers that the store gives: the record notes the last one it heard.
type Ask struct {
	Entry       string    `json:"entry"`
	Than        int       `json:"than"`        // wants a generation newer than this number
	Compromised bool      `json:"compromised"` // every generation up to Than dies as soon as a newer one converged
	Now         bool      `json:"now"`         // and those die at once, converged or not
	Override    bool      `json:"override"`    // the fuse does not stop it
	Revoke      int       `json:"revoke"`      // instead: kill this one generation; 0: no
	By          string    `json:"by"`          // the OS user
	At          time.Time `json:"at"`

	Seq   int64     `json:"seq,omitempty"`   // of an order; 0: it is none
	Adopt bool      `json:"adopt,omitempty"` // what waits for a person need not wait any more
	Sink  string    `json:"sink,omitempty"`  // adopt: at this sink only, by its name; "": everywhere
	Pause time.Time `json:"pause,omitzero"`  // nothing is created or revoked before; an instant of the past ends a pause
}

// order reports whether a is carried out once, rather than fulfilled.
func (a *Ask) order() bool { return a.Seq != 0 }
