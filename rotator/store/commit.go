package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"

	"github.com/rotatord/rotatord/rotator"
)

// batchSize is how many writes share one transaction at most.
const batchSize = 256

// committer takes all writes through one goroutine: those that wait while a transaction is made
// durable share the next one, so a thousand saves cost a few writes to the disk.
type committer struct {
	path string
	db   *sql.DB
	tell func([]rotator.Event)

	mu     sync.Mutex
	some   *sync.Cond
	queue  []*write
	closed bool
	ended  chan struct{}
}

// write is one caller's part of a transaction. do returns the events that it wrote, or
// rotator.ErrConflict if it wrote nothing; any other error undoes the whole transaction. It may be
// called again after it was undone.
type write struct {
	do   func(context.Context, *sql.Tx) ([]rotator.Event, error)
	done chan error
}

func newCommitter(path string, db *sql.DB, tell func([]rotator.Event)) *committer {
	c := &committer{path: path, db: db, tell: tell, ended: make(chan struct{})}
	c.some = sync.NewCond(&c.mu)
	go c.run()
	return c
}

// do has f done, and returns when its outcome is durable, or certain not to be.
func (c *committer) do(ctx context.Context, f func(context.Context, *sql.Tx) ([]rotator.Event, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &write{do: f, done: make(chan error, 1)}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.queue = append(c.queue, w)
	c.some.Signal()
	c.mu.Unlock()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		if c.withdraw(w) {
			return ctx.Err()
		}
		return <-w.done // it is being written: only its end tells
	}
}

// withdraw takes w out of the queue; false when it is no longer there.
func (c *committer) withdraw(w *write) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.queue, w)
	if i < 0 {
		return false
	}
	c.queue = slices.Delete(c.queue, i, i+1)
	return true
}

// take returns the writes of the next transaction; none when the committer is closed and done.
func (c *committer) take() []*write {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 && !c.closed {
		c.some.Wait()
	}
	n := min(len(c.queue), batchSize)
	batch := slices.Clone(c.queue[:n])
	c.queue = slices.Delete(c.queue, 0, n)
	return batch
}

func (c *committer) run() {
	defer close(c.ended)
	for batch := c.take(); len(batch) > 0; batch = c.take() {
		c.commit(batch)
	}
}

// close waits until the queue is empty and the goroutine has ended.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.some.Signal()
	c.mu.Unlock()
	<-c.ended
}

// commit writes a batch and answers each of its callers.
func (c *committer) commit(batch []*write) {
	outcomes, events, culprit, err := c.try(batch)
	if err != nil && culprit && len(batch) > 1 {
		// One of them broke the transaction: each gets its own, so that the others do not suffer.
		for i := range batch {
			c.commit(batch[i : i+1])
		}
		return
	}
	if err == nil && len(events) > 0 {
		c.tell(events)
	}
	for i, w := range batch {
		if err != nil {
			w.done <- explain(c.path, err)
		} else {
			w.done <- outcomes[i]
		}
	}
}

// try writes a batch in one transaction. With an error nothing of it was written; culprit says
// that one of the writes caused it, not the transaction itself. No caller's context is used: one
// caller who leaves must not take the others along.
func (c *committer) try(batch []*write) (outcomes []error, events []rotator.Event, culprit bool, err error) {
	ctx := context.Background()
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, nil, false, err
	}
	outcomes = make([]error, len(batch))
	for i, w := range batch {
		told, err := w.do(ctx, tx)
		switch {
		case errors.Is(err, rotator.ErrConflict):
			outcomes[i] = err
		case err != nil:
			// SQLite may have rolled back by itself, on a full disk for one.
			tx.Rollback() //nolint:errcheck // err says what is wrong
			return nil, nil, true, err
		default:
			events = append(events, told...)
		}
	}
	if err := tx.Commit(); err != nil {
		return nil, nil, false, err
	}
	return outcomes, events, false, nil
}

// teller passes events on to a listener, in order, without ever making the committer wait.
type teller struct {
	told func([]rotator.Event)

	mu     sync.Mutex
	some   *sync.Cond
	queue  [][]rotator.Event
	closed bool
	ended  chan struct{}
}

// newTeller starts the goroutine that close ends. told may be nil.
func newTeller(told func([]rotator.Event)) *teller {
	t := &teller{told: told, ended: make(chan struct{})}
	t.some = sync.NewCond(&t.mu)
	if told == nil {
		close(t.ended)
	} else {
		go t.run()
	}
	return t
}

func (t *teller) tell(events []rotator.Event) {
	if t.told == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = append(t.queue, events)
	t.some.Signal()
}

func (t *teller) run() {
	defer close(t.ended)
	for {
		t.mu.Lock()
		for len(t.queue) == 0 && !t.closed {
			t.some.Wait()
		}
		if len(t.queue) == 0 {
			t.mu.Unlock()
			return
		}
		events := t.queue[0]
		t.queue = slices.Delete(t.queue, 0, 1)
		t.mu.Unlock()
		t.call(events)
	}
}

func (t *teller) call(events []rotator.Event) {
	defer func() { _ = recover() }() // a listener's mistake is not the state's
	t.told(events)
}

func (t *teller) close() {
	t.mu.Lock()
	t.closed = true
	t.some.Signal()
	t.mu.Unlock()
	<-t.ended
}
