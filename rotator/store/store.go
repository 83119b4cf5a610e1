// Package store keeps what rotatord knows through crashes and restarts: the record of each entry,
// the journal of everything that happened, and the wishes that people leave for a running daemon.
// It all stands in one SQLite file in the state folder, beside the lock that says which rotatord
// works there. It holds no plaintext, ever: nobody gives it one.
//
// A Store writes and is opened by the state's owner only; a Reader looks, beside a daemon or
// without one. When a method that writes returns nil, what it wrote survives a power cut.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

var (
	// ErrFull says that the disk is full. Nothing was written; with room, the same Store works on.
	ErrFull = errors.New("the disk is full")
	// ErrClosed says that the Store was closed before it began to write. Nothing was written.
	ErrClosed = errors.New("the state is closed")
)

// Options of Open. The zero value is a good one.
type Options struct {
	// Told is called with the events of each write, after they are durable, in the order in which
	// they were written, from one goroutine. It may take its time: no write waits for it, but
	// Close does, until it was told everything. A panic in it is dropped.
	Told func([]rotator.Event)
	// Euid returns the user who must own the state; nil: os.Geteuid.
	Euid func() int
}

// Store is an open state. Its methods may be called from any goroutine. A write whose context
// ends while it waits for its turn returns the context's error, and certainly wrote nothing; one
// that has begun is waited for, so that an outcome is never unknown.
type Store struct {
	*Reader
	writer *sql.DB // one connection
	commit *committer
	close  func() error
}

var _ rotator.Store = (*Store)(nil)

// newStore starts the goroutines that Close ends.
func newStore(path string, writer *sql.DB, reader *Reader, told func([]rotator.Event)) *Store {
	tell := newTeller(told)
	s := &Store{Reader: reader, writer: writer, commit: newCommitter(path, writer, tell.tell)}
	s.close = sync.OnceValue(func() error {
		s.commit.close()
		tell.close()
		// The writer goes last: it is the one that may fold the write-ahead log into the file.
		return errors.Join(reader.Close(), writer.Close())
	})
	return s
}

// Close finishes the writes that wait, tells the listener the rest, and closes the file.
// Closing twice is closing once.
func (s *Store) Close() error { return s.close() }

// Save implements rotator.Store. Many callers at once share one write to the disk, and each of
// them gets an outcome of its own.
func (s *Store) Save(ctx context.Context, r *rotator.Record, told ...rotator.Event) error {
	body, err := encode(r)
	if err != nil {
		return err
	}
	name, version := r.Name, r.Version
	told = named(name, told)
	if err := s.commit.do(ctx, func(ctx context.Context, tx *sql.Tx) ([]rotator.Event, error) {
		var row *sql.Row
		if version == 0 {
			row = tx.QueryRowContext(ctx, `INSERT INTO records (name, version, body) VALUES ($1, 1, $2)
				ON CONFLICT (name) DO NOTHING RETURNING id`, name, body)
		} else {
			row = tx.QueryRowContext(ctx, `UPDATE records SET version = version + 1, body = $1
				WHERE name = $2 AND version = $3 RETURNING id`, body, name, version)
		}
		id, err := swapped(row)
		if err != nil {
			return nil, err
		}
		return told, record(ctx, tx, id, told)
	}); err != nil {
		return err
	}
	r.Version++
	return nil
}

// Rename implements rotator.Store. The records' generations, their wishes and their history go with
// them; what the journal says of the past keeps the old names.
func (s *Store) Rename(ctx context.Context, all ...rotator.Renaming) ([]rotator.Record, error) {
	renamed := make([]rotator.Record, 0, len(all))
	bodies := make([]string, 0, len(all))
	for _, a := range all {
		r := a.Record.Clone()
		r.Name = a.To
		for i := range r.Generations {
			r.Generations[i].Entry = a.To
		}
		for i := range r.Asks {
			r.Asks[i].Entry = a.To
		}
		body, err := encode(&r)
		if err != nil {
			return nil, err
		}
		r.Version++
		renamed, bodies = append(renamed, r), append(bodies, body)
	}
	if err := s.commit.do(ctx, func(ctx context.Context, tx *sql.Tx) (told []rotator.Event, err error) {
		// A conflict takes back this write alone, and others may share the transaction.
		if _, err := tx.ExecContext(ctx, `SAVEPOINT renames`); err != nil {
			return nil, err
		}
		for i, a := range all {
			ev, err := rename(ctx, tx, a, bodies[i])
			if errors.Is(err, rotator.ErrConflict) {
				if _, back := tx.ExecContext(ctx, `ROLLBACK TO renames`); back != nil {
					return nil, back
				}
			}
			if err != nil {
				return nil, err
			}
			told = append(told, ev...)
		}
		_, err = tx.ExecContext(ctx, `RELEASE renames`)
		return told, err
	}); err != nil {
		return nil, err
	}
	return renamed, nil
}

// rename gives one record its new name.
func rename(ctx context.Context, tx *sql.Tx, a rotator.Renaming, body string) ([]rotator.Event, error) {
	from := a.Record.Name
	id, err := swapped(tx.QueryRowContext(ctx, `UPDATE records SET name = $1, version = version + 1, body = $2
		WHERE name = $3 AND version = $4 AND NOT EXISTS (SELECT 1 FROM records WHERE name = $1)
		RETURNING id`, a.To, body, from, a.Record.Version))
	if err != nil {
		return nil, err
	}
	// A wish that was left for the new name before it existed gives way.
	for _, q := range []string{
		`DELETE FROM asks WHERE entry = $1 AND EXISTS (SELECT 1 FROM asks AS o
			WHERE o.entry = $2 AND o.revoke = asks.revoke AND o.than = asks.than)`,
		`UPDATE asks SET entry = $1 WHERE entry = $2`,
		`UPDATE orders SET entry = $1 WHERE entry = $2`,
	} {
		if _, err := tx.ExecContext(ctx, q, a.To, from); err != nil {
			return nil, err
		}
	}
	told := named(a.To, []rotator.Event{a.Told})
	return told, record(ctx, tx, id, told)
}

// swapped reads the id that a compare-and-swap returned.
func swapped(row *sql.Row) (id int64, err error) {
	if err = row.Scan(&id); errors.Is(err, sql.ErrNoRows) {
		err = rotator.ErrConflict
	}
	return id, err
}

// named returns a copy of events in which those that name no entry name this one.
func named(entry string, events []rotator.Event) []rotator.Event {
	events = slices.Clone(events)
	for i := range events {
		if events[i].Entry == "" {
			events[i].Entry = entry
		}
	}
	return events
}

// record appends events to the journal; id is their record's, 0 where there is none yet.
func record(ctx context.Context, tx *sql.Tx, id int64, events []rotator.Event) error {
	for i := range events {
		e := &events[i]
		if _, err := tx.ExecContext(ctx, `INSERT INTO events (at, kind, record, entry, generation, label, token_id,
				expires_at, place, sink, detail, error, next_at, done_by, hash, version)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
			e.At.UnixMicro(), string(e.Kind), sql.NullInt64{Int64: id, Valid: id != 0}, e.Entry, e.Generation, e.Label, e.ID,
			micros(e.Expires), e.Place, e.Sink, e.Detail, e.Error, micros(e.Next), e.By, e.Hash, e.Version); err != nil {
			return fmt.Errorf("write the journal: %w", err)
		}
	}
	return nil
}

// micros is an instant as the file keeps it; the zero time is NULL.
func micros(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMicro(), Valid: !t.IsZero()}
}

// Ask leaves a wish, and says so in the journal. Asking twice is asking once: the same wish again
// adds what it wants more (compromised, now); a plain one gives way to a plain one for a newer
// generation. Wishes that differ otherwise stand side by side, since none says what the other does.
func (s *Store) Ask(ctx context.Context, a rotator.Ask) error {
	if a.Entry == "" {
		return errors.New("a wish must name its entry")
	}
	if a.Adopt || !a.Pause.IsZero() {
		return s.order(ctx, a)
	}
	if a.Revoke != 0 {
		a.Than, a.Compromised, a.Now, a.Override = 0, false, false, false
	}
	event := rotator.Event{At: a.At, Kind: rotator.EventAsked, Entry: a.Entry, Generation: a.Than, By: a.By}
	switch {
	case a.Revoke != 0:
		event.Generation, event.Detail = a.Revoke, fmt.Sprintf("revoke generation %d", a.Revoke)
	case a.Now && a.Compromised:
		event.Detail = fmt.Sprintf("a generation newer than %d: it is compromised, and dies at once", a.Than)
	case a.Now:
		event.Detail = fmt.Sprintf("a generation newer than %d, which dies at once", a.Than)
	case a.Compromised:
		event.Detail = fmt.Sprintf("a generation newer than %d: it is compromised", a.Than)
	default:
		event.Detail = fmt.Sprintf("a generation newer than %d", a.Than)
	}
	if a.Override {
		event.Detail += ", whatever the fuse says"
	}
	return s.commit.do(ctx, func(ctx context.Context, tx *sql.Tx) ([]rotator.Event, error) {
		if _, err := tx.ExecContext(ctx, `INSERT INTO asks (entry, revoke, than, compromised, at_once, override, asked_by, asked_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (entry, revoke, than) DO UPDATE SET
				override = CASE WHEN excluded.override > asks.override THEN 1 ELSE asks.override END,
				compromised = CASE WHEN excluded.compromised > asks.compromised THEN 1 ELSE asks.compromised END,
				at_once = CASE WHEN excluded.at_once > asks.at_once THEN 1 ELSE asks.at_once END,
				asked_by = excluded.asked_by, asked_at = excluded.asked_at`,
			a.Entry, a.Revoke, a.Than, digit(a.Compromised), digit(a.Now), digit(a.Override), a.By, a.At.UnixMicro()); err != nil {
			return nil, err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM asks WHERE entry = $1 AND revoke = 0 AND compromised = 0 AND at_once = 0 AND override = 0
			AND than < (SELECT MAX(than) FROM asks WHERE entry = $1 AND revoke = 0)`, a.Entry); err != nil {
			return nil, err
		}
		return note(ctx, tx, event)
	})
}

// order leaves an order. Each one is carried out, also one that was given before.
func (s *Store) order(ctx context.Context, a rotator.Ask) error {
	event := rotator.Event{At: a.At, Kind: rotator.EventAsked, Entry: a.Entry, Sink: a.Sink, By: a.By}
	if a.Adopt {
		event.Detail = "adopt what waits for a person"
	} else {
		event.Detail, event.Next = "pause", a.Pause
	}
	return s.commit.do(ctx, func(ctx context.Context, tx *sql.Tx) ([]rotator.Event, error) {
		if _, err := tx.ExecContext(ctx, `INSERT INTO orders (entry, adopt, sink, pause, asked_by, asked_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			a.Entry, digit(a.Adopt), a.Sink, micros(a.Pause), a.By, a.At.UnixMicro()); err != nil {
			return nil, err
		}
		return note(ctx, tx, event)
	})
}

// Tell writes into the journal what belongs to no save of a record. It needs no lock: events are
// appended, and never changed.
func (s *Store) Tell(ctx context.Context, events ...rotator.Event) error {
	return s.commit.do(ctx, func(ctx context.Context, tx *sql.Tx) ([]rotator.Event, error) { return note(ctx, tx, events...) })
}

// note writes events into the journal, each with the record of its entry.
func note(ctx context.Context, tx *sql.Tx, events ...rotator.Event) ([]rotator.Event, error) {
	for i := range events {
		var id int64
		if err := tx.QueryRowContext(ctx, `SELECT id FROM records WHERE name = $1`, events[i].Entry).Scan(&id); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		if err := record(ctx, tx, id, events[i:i+1]); err != nil {
			return nil, err
		}
	}
	return events, nil
}

func digit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// pruneAtOnce is how many rows one transaction deletes: other writers wait no longer than that.
const pruneAtOnce = 500

// lasting are the kinds that tell what became of a token.
var lasting = []rotator.EventKind{
	rotator.EventIntended, rotator.EventCreated, rotator.EventVerified, rotator.EventPushed, rotator.EventConverged,
	rotator.EventAdopted, rotator.EventLost, rotator.EventRevoked, rotator.EventDied,
}

// Prune deletes events older than before, and returns how many; at is now, and what it deletes leaves
// an event that says so. What tells where a token comes from and how it ended (its intent, creation,
// pushes, promotion, revocation) stays until the token's expiry lies before that instant as well: the
// label of an intent is watched as long as its token may live, and a report of a living token is
// whole. So does the last event that tells which configuration is in force, which account, and which
// version ran. Wishes go when they are older than before by the longest life of a token. before must
// not lie in the future.
func (s *Store) Prune(ctx context.Context, before, at time.Time) (int, error) {
	cut := before.UnixMicro()
	args := []any{cut}
	kept := func(kinds ...rotator.EventKind) string {
		var in []string
		for _, k := range kinds {
			args = append(args, string(k))
			in = append(in, fmt.Sprintf("$%d", len(args)))
		}
		return strings.Join(in, ", ")
	}
	old := ` FROM events WHERE at < $1
		AND NOT (kind = '` + string(rotator.EventIntended) + `' AND expires_at IS NULL)
		AND NOT (kind IN (` + kept(lasting...) + `) AND expires_at >= $1 AND expires_at IS NOT NULL)
		AND seq NOT IN (SELECT MAX(seq) FROM events WHERE kind IN (` +
		kept(rotator.EventConfigured, rotator.EventAccount, rotator.EventStarted) + `) GROUP BY kind)`
	said := false
	if err := s.commit.do(ctx, func(ctx context.Context, tx *sql.Tx) ([]rotator.Event, error) {
		for _, table := range []string{"asks", "orders"} {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE asked_at < $1`, before.Add(-rotator.MaxLifetime).UnixMicro()); err != nil {
				return nil, err
			}
		}
		n := 0
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*)`+old, args...).Scan(&n); err != nil || n == 0 {
			return nil, err
		}
		said = true
		return note(ctx, tx, rotator.Event{
			At: at, Kind: rotator.EventPruned, Next: before, Detail: fmt.Sprintf("history is kept for so long: %d events from before %s are dropped", n, before.UTC().Format(time.RFC3339)),
		})
	}); err != nil || !said {
		return 0, err
	}
	total := 0
	for {
		deleted := 0
		if err := s.commit.do(ctx, func(ctx context.Context, tx *sql.Tx) ([]rotator.Event, error) {
			if _, err := tx.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ($1, $2)`, metaPruning, cut); err != nil {
				return nil, err
			}
			res, err := tx.ExecContext(ctx, `DELETE FROM events WHERE seq IN (SELECT seq`+old+fmt.Sprintf(` ORDER BY at LIMIT %d)`, pruneAtOnce), args...)
			if err != nil {
				return nil, err
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM meta WHERE name = $1`, metaPruning); err != nil {
				return nil, err
			}
			n, err := res.RowsAffected()
			deleted = int(n)
			return nil, err
		}); err != nil {
			return total, err
		}
		if total += deleted; deleted < pruneAtOnce {
			return total, nil
		}
	}
}

// Names of the store's own values; others may not begin with a dot.
const (
	metaKey      = ".key"
	metaInstance = ".instance"
	metaAccount  = ".account"
	metaPruning  = ".pruning" // within one transaction: the trigger lets go of what is older than this
)

// SetMeta keeps a small value under a name, for whoever owns that name: what people were told
// last, say. It is not for secrets. The events that tell of it are written with it, or not at all.
func (s *Store) SetMeta(ctx context.Context, name, value string, told ...rotator.Event) error {
	if name == "" || strings.HasPrefix(name, ".") {
		return fmt.Errorf("%q is no name for a value: it is empty, or the store's own", name)
	}
	return s.setMeta(ctx, name, value, told...)
}

func (s *Store) setMeta(ctx context.Context, name, value string, told ...rotator.Event) error {
	return s.commit.do(ctx, func(ctx context.Context, tx *sql.Tx) ([]rotator.Event, error) {
		if _, err := tx.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value); err != nil {
			return nil, err
		}
		return note(ctx, tx, told...)
	})
}

var instanceShape = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// Instance returns the short name of this installation. A declared one wins, and is remembered;
// with "" it is the remembered one, or the one that was made up when the state was made. The journal
// is told of another name than the one that labels may bear, and that by asked for it at that instant.
func (s *Store) Instance(ctx context.Context, declared, by string, at time.Time) (string, error) {
	known, err := s.Reader.Instance(ctx, declared)
	if err != nil || declared == "" {
		return known, err
	}
	was, err := s.Reader.Instance(ctx, "")
	if err != nil || was == declared {
		return declared, err
	}
	_, _, used, err := s.Pinned(ctx)
	switch {
	case err != nil:
		return declared, err
	case !used: // no label bears the name that was made up
		return declared, s.setMeta(ctx, metaInstance, declared)
	}
	return declared, s.call(ctx, was, declared, by, at)
}

// call notes another name of this installation, and tells the journal.
func (s *Store) call(ctx context.Context, was, is, by string, at time.Time) error {
	return s.setMeta(ctx, metaInstance, is, rotator.Event{
		At: at, Kind: rotator.EventRenamed, By: by, Detail: fmt.Sprintf("this installation is called %s from now on, and was %s", is, was),
	})
}

// NewInstance gives this installation another name than it had, a made-up one where name is "", and
// tells the journal who wanted it. A name that is declared in rotation.yaml wins over it.
func (s *Store) NewInstance(ctx context.Context, name, by string, at time.Time) (was, is string, err error) {
	if was, err = s.Reader.Instance(ctx, ""); err != nil {
		return "", "", err
	}
	if name == "" {
		name = madeUp()
	}
	if is, err = s.Reader.Instance(ctx, name); err != nil || is == was {
		return was, is, err
	}
	return was, is, s.call(ctx, was, is, by, at)
}

// madeUp is a name for an installation that nobody named.
func madeUp() string { return "r-" + rotator.NewNonce(4)[:6] }

// Pin ties the state to an account: the API's origin, and the user of the management token.
// It replaces an earlier pin; see Pinned. The events that tell of it are written with it.
func (s *Store) Pin(ctx context.Context, origin, user string, told ...rotator.Event) error {
	text, err := json.Marshal(account{Origin: origin, User: user})
	if err != nil {
		return err
	}
	return s.setMeta(ctx, metaAccount, string(text), told...)
}

type account struct {
	Origin string `json:"origin"`
	User   string `json:"user"`
}

// DataVersion returns a number that changes when, and only when, another process or another Store
// wrote to the file. It means nothing by itself, and nothing to another Store.
func (s *Store) DataVersion(ctx context.Context) (int64, error) {
	// Asked of the connection that writes: its own writes do not count for it.
	conn, err := s.writer.Conn(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close() //nolint:errcheck // it goes back to the pool
	var v int64
	// Not with ctx: an interrupted connection is thrown away, and the number with it.
	err = conn.QueryRowContext(context.WithoutCancel(ctx), `PRAGMA data_version`).Scan(&v)
	return v, explain(s.path, err)
}

// seed gives a new file what is made once: the key of the keyed hashes, and a default instance.
func seed(ctx context.Context, db *sql.DB) error {
	key := make([]byte, 32)
	rand.Read(key) //nolint:errcheck // crypto/rand never fails
	_, err := db.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ($1, $2), ($3, $4)`,
		metaKey, hex.EncodeToString(key), metaInstance, madeUp())
	return err
}
