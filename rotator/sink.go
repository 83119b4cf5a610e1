package rotator

import (
	"context"
	"fmt"
	"time"
)

// Sink is one place that holds a plaintext for its consumers. An implementation retries nothing
// (the engine does), starts nothing that outlives a call, and never puts a plaintext into an
// error. Its methods may be called from any goroutine, one at a time for one Sink.
type Sink interface {
	// Check says whether a Push would work now: reachable, permitted, writable. It writes
	// nothing that a reader could see.
	Check(ctx context.Context) error
	// Push makes the sink hold s. nil: a reader now sees s, whole, and it survives a power cut.
	// It is idempotent, and writes nothing where s is held already. Once Push has returned, also
	// with an error or because ctx ended, nothing of it goes on: no later write may come from it.
	Push(ctx context.Context, g Generation, s Secret) error
	// Read returns what the sink holds: the zero Secret where it holds nothing, an error that
	// matches errors.ErrUnsupported where this sink cannot be read at all, and any other error
	// where it cannot be told now.
	Read(ctx context.Context) (Secret, error)
}

// Outlet is a sink as an entry declares it.
type Outlet struct {
	Place    string        // kind and canonical address, unique over all entries: the key of its state
	Name     string        // for people; the default is the place
	Kind     string        // env_file, file, exec, vault_kv
	Required bool          // a rotation converges only when this sink holds it
	TakeOver bool          // a prior value that is no token may be overwritten
	Timeout  time.Duration // for each Check, Push and Read
	Sink     Sink
}

// ForeignError refuses to overwrite a value that is not ours.
type ForeignError struct {
	Prior bool // found where we never pushed, rather than where we once had
}

func (e *ForeignError) Error() string {
	if e.Prior {
		return "holds a value that is no SiteGPT token, which is not overwritten: empty it, or say take_over: true"
	}
	return "holds a value that is none of ours: somebody changed it"
}

// OutageError is a failure that has nothing to do with the one sink that met it: whatever else needs
// the same thing fails, too. The engine then asks for all of them together whether it is over.
type OutageError struct {
	What string // what is out, in words; the same for all sinks that need it
	Err  error  // why
}

func (e *OutageError) Error() string { return e.Err.Error() }

func (e *OutageError) Unwrap() error { return e.Err }

// PanicError is a panic of a sink or the API client, caught at the engine's door.
type PanicError struct{ Value any }

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }
