package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// Reader looks at a state and changes nothing. Its methods may be called from any goroutine; each
// call sees one moment, whatever is being written.
type Reader struct {
	path string
	db   *sql.DB
}

// Close closes the file.
func (r *Reader) Close() error { return r.db.Close() }

// Path returns where the state's file is.
func (r *Reader) Path() string { return r.path }

// Records returns every record, sorted by name. One that this version cannot read whole is an
// error: half of the truth would be acted upon.
func (r *Reader) Records(ctx context.Context) ([]rotator.Record, error) {
	return r.records(ctx, `SELECT name, version, body FROM records ORDER BY name`)
}

// Record returns one record, and whether there is one of that name.
func (r *Reader) Record(ctx context.Context, name string) (rotator.Record, bool, error) {
	records, err := r.records(ctx, `SELECT name, version, body FROM records WHERE name = $1`, name)
	if err != nil || len(records) == 0 {
		return rotator.Record{}, false, err
	}
	return records[0], true, nil
}

func (r *Reader) records(ctx context.Context, query string, args ...any) ([]rotator.Record, error) {
	var out []rotator.Record
	err := r.query(ctx, func(rows *sql.Rows) (bool, error) {
		var name, body string
		var version int64
		if err := rows.Scan(&name, &version, &body); err != nil {
			return false, err
		}
		rec, err := decode(name, []byte(body))
		rec.Version = version
		out = append(out, rec)
		return true, err
	}, query, args...)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// query calls each for the rows of a query until it wants no more.
func (r *Reader) query(ctx context.Context, each func(*sql.Rows) (bool, error), query string, args ...any) error {
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return explain(r.path, err)
	}
	defer rows.Close() //nolint:errcheck // Err says what there is to say
	for rows.Next() {
		if more, err := each(rows); err != nil || !more {
			return explain(r.path, err)
		}
	}
	return explain(r.path, rows.Err())
}

// encode writes a record as the file keeps it.
func encode(r *rotator.Record) (string, error) {
	if r.Name == "" {
		return "", errors.New("a record must have a name")
	}
	body, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode record %q: %w", r.Name, err)
	}
	return string(body), nil
}

// decode reads a record. A field that this version does not know is an error: saving the record
// would lose it.
func decode(name string, body []byte) (rotator.Record, error) {
	var r rotator.Record
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(&r)
	if err == nil {
		if _, extra := d.Token(); extra != io.EOF { //nolint:errorlint // Token returns it bare
			err = errors.New("something follows its end")
		}
	}
	if err == nil && r.Name != name {
		err = fmt.Errorf("it calls itself %q", r.Name)
	}
	if err != nil {
		return rotator.Record{}, fmt.Errorf("record %q cannot be read by this version of rotatord, run the one that wrote it or a newer one: %w", name, err)
	}
	return r, nil
}

// Intended reports whether the journal holds an intent with this label, and for which entry, by
// the name that it has now.
func (r *Reader) Intended(ctx context.Context, label string) (entry string, ok bool, err error) {
	err = r.query(ctx, func(rows *sql.Rows) (bool, error) {
		ok = true
		return false, rows.Scan(&entry)
	}, `SELECT COALESCE(records.name, events.entry) FROM events LEFT JOIN records ON records.id = events.record
		WHERE events.kind = 'intended' AND events.label = $1 LIMIT 1`, label)
	return entry, ok && err == nil, err
}

// Asks returns the wishes that are in the mailbox, sorted by entry, and then the orders in the order
// in which they were given. Prune keeps it short.
func (r *Reader) Asks(ctx context.Context) ([]rotator.Ask, error) {
	var out []rotator.Ask
	err := r.query(ctx, func(rows *sql.Rows) (bool, error) {
		var a rotator.Ask
		var compromised, now, override int
		var at int64
		err := rows.Scan(&a.Entry, &a.Revoke, &a.Than, &compromised, &now, &override, &a.By, &at)
		a.Compromised, a.Now, a.Override, a.At = compromised != 0, now != 0, override != 0, instant(at)
		out = append(out, a)
		return true, err
	}, `SELECT entry, revoke, than, compromised, at_once, override, asked_by, asked_at FROM asks ORDER BY entry, revoke, than`)
	if err != nil {
		return nil, err
	}
	err = r.query(ctx, func(rows *sql.Rows) (bool, error) {
		var a rotator.Ask
		var adopt int
		var pause sql.NullInt64
		var at int64
		err := rows.Scan(&a.Seq, &a.Entry, &adopt, &a.Sink, &pause, &a.By, &at)
		if a.Adopt, a.At = adopt != 0, instant(at); pause.Valid {
			a.Pause = instant(pause.Int64)
		}
		out = append(out, a)
		return true, err
	}, `SELECT seq, entry, adopt, sink, pause, asked_by, asked_at FROM orders ORDER BY seq`)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// instant reads what UnixMicro wrote; equal numbers give times that are == each other.
func instant(micro int64) time.Time { return time.UnixMicro(micro).UTC() }

// Query says which events History returns. The zero value means all of them, oldest first.
type Query struct {
	// Entries are names or globs (as of path.Match); none is every entry, and what belongs to none.
	// They are compared with the name at that time and with the name that the entry has now.
	Entries []string
	Plus    bool                // and what belongs to no entry
	Renamed bool                // an event's Entry is the name that its entry has now
	Since   time.Time           // the earliest; zero: from the beginning
	Until   time.Time           // the first that is too late; zero: to the end
	Kinds   []rotator.EventKind // none: all
	Newest  bool                // newest first
	Limit   int                 // at most so many; 0: all
}

// History returns events of the journal in the order in which they were written. Their instants
// are in UTC, in whole microseconds.
func (r *Reader) History(ctx context.Context, q Query) (out []rotator.Event, err error) {
	if err := r.Each(ctx, q, func(e rotator.Event) error { out = append(out, e); return nil }); err != nil {
		return nil, err
	}
	return out, nil
}

// Each calls f for what History would return, one after the other, until it returns an error.
func (r *Reader) Each(ctx context.Context, q Query, f func(rotator.Event) error) error {
	var where []string
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	var names []string
	for _, pattern := range q.Entries {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("%q is no pattern for names: %w", pattern, err)
		}
		is := ""
		if strings.ContainsAny(pattern, `*?[\`) { // the file finds candidates, path.Match decides
			is = `LIKE ` + arg(like(pattern)) + ` ESCAPE '!'`
		} else {
			is = "= " + arg(pattern)
		}
		names = append(names, fmt.Sprintf(`entry %s OR record IN (SELECT id FROM records WHERE name %[1]s)`, is))
	}
	if len(names) > 0 {
		if q.Plus {
			names = append(names, `entry = ''`)
		}
		where = append(where, "("+strings.Join(names, " OR ")+")")
	}
	if !q.Since.IsZero() {
		where = append(where, "at >= "+arg(q.Since.UnixMicro()))
	}
	if !q.Until.IsZero() {
		where = append(where, "at < "+arg(q.Until.UnixMicro()))
	}
	if len(q.Kinds) > 0 {
		var in []string
		for _, k := range q.Kinds {
			in = append(in, arg(string(k)))
		}
		where = append(where, "kind IN ("+strings.Join(in, ", ")+")")
	}
	text := `SELECT at, kind, entry, generation, label, token_id, expires_at, place, sink, detail, error, next_at, done_by, hash, version,
		COALESCE((SELECT name FROM records WHERE id = events.record), entry) FROM events`
	if len(where) > 0 {
		text += " WHERE " + strings.Join(where, " AND ")
	}
	text += " ORDER BY seq"
	if q.Newest {
		text += " DESC"
	}
	n := 0
	return r.query(ctx, func(rows *sql.Rows) (bool, error) {
		var e rotator.Event
		var at int64
		var expires, next sql.NullInt64
		var name string
		if err := rows.Scan(&at, &e.Kind, &e.Entry, &e.Generation, &e.Label, &e.ID, &expires,
			&e.Place, &e.Sink, &e.Detail, &e.Error, &next, &e.By, &e.Hash, &e.Version, &name); err != nil {
			return false, err
		}
		if len(q.Entries) > 0 && !(q.Plus && e.Entry == "") && !anyMatches(q.Entries, e.Entry) && !anyMatches(q.Entries, name) {
			return true, nil
		}
		if q.Renamed {
			e.Entry = name
		}
		e.At = instant(at)
		if expires.Valid {
			e.Expires = instant(expires.Int64)
		}
		if next.Valid {
			e.Next = instant(next.Int64)
		}
		n++
		if err := f(e); err != nil {
			return false, err
		}
		return q.Limit <= 0 || n < q.Limit, nil
	}, text, args...)
}

func anyMatches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return p == name || matches(p, name) })
}

func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// like turns a glob into a LIKE pattern (with ! as its escape) that matches at least as much.
func like(glob string) string {
	var b strings.Builder
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; c {
		case '*', '[': // a class, and what follows it, may be anything
			b.WriteByte('%')
			if c == '[' {
				return b.String()
			}
		case '?':
			b.WriteByte('_')
		case '%', '_', '!':
			b.WriteByte('!')
			b.WriteByte(c)
		case '\\':
			if i++; i < len(glob) {
				b.WriteByte('!')
				b.WriteByte(glob[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Meta returns a value that SetMeta kept, and whether there is one.
func (r *Reader) Meta(ctx context.Context, name string) (value string, ok bool, err error) {
	err = r.query(ctx, func(rows *sql.Rows) (bool, error) {
		ok = true
		return false, rows.Scan(&value)
	}, `SELECT value FROM meta WHERE name = $1`, name)
	return value, ok && err == nil, err
}

// Key returns the 32 random bytes that were made with the state: the key of the keyed hashes.
func (r *Reader) Key(ctx context.Context) ([]byte, error) {
	text, _, err := r.Meta(ctx, metaKey)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != 32 {
		// Not made again: with another key, every value that the sinks hold would look foreign.
		return nil, fmt.Errorf("%s has lost the key of its hashes: restore the file from a backup", r.path)
	}
	return key, nil
}

// Instance returns the short name of this installation: the declared one, or with "" the one that
// the state remembers.
func (r *Reader) Instance(ctx context.Context, declared string) (string, error) {
	if declared != "" {
		if len(declared) > rotator.MaxInstance || !instanceShape.MatchString(declared) {
			return "", fmt.Errorf("instance %q: use at most %d lower-case letters, digits and hyphens", declared, rotator.MaxInstance)
		}
		return declared, nil
	}
	name, ok, err := r.Meta(ctx, metaInstance)
	if err == nil && !ok {
		err = fmt.Errorf("%s has lost the name of its instance: declare it in rotation.yaml", r.path)
	}
	return name, err
}

// Pinned returns the account that the state is tied to; false where it is tied to none yet.
func (r *Reader) Pinned(ctx context.Context) (origin, user string, ok bool, err error) {
	text, ok, err := r.Meta(ctx, metaAccount)
	if err != nil || !ok {
		return "", "", false, err
	}
	var a account
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return "", "", false, fmt.Errorf("read the pinned account: %w", err)
	}
	return a.Origin, a.User, true, nil
}
