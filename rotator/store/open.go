package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Names of the files in the state folder.
const (
	File     = "rotatord.db"   // with SQLite's own -wal and -shm beside it
	LockFile = "rotatord.lock" // see Lock
)

const (
	applicationID = 1919906913       // "rota", in the file's header
	busy          = 10 * time.Second // how long a writer waits for another process
	readers       = 4                // connections that read beside the writer
)

//go:embed migrations/sqlite/*.sql
var embedded embed.FS

// schema returns the migrations of this version.
func schema() fs.FS {
	sub, err := fs.Sub(embedded, "migrations/sqlite")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	return sub
}

// VersionError says that a file was written by another version of rotatord, which laid it out
// differently.
type VersionError struct {
	Path  string
	Has   int64 // the file's version
	Knows int64 // the newest that this program knows
}

func (e *VersionError) Error() string {
	if e.Has > e.Knows {
		return fmt.Sprintf("%s has version %d, and this rotatord knows up to %d: run the newer one, or stop it and put the copy %s.before-v%d back in its place",
			e.Path, e.Has, e.Knows, File, e.Knows+1)
	}
	return fmt.Sprintf("%s has version %d, and this rotatord reads version %d: start its daemon, or any command that writes, to bring it up to date",
		e.Path, e.Has, e.Knows)
}

// Open opens the state in dir for its owner, and makes it if there is none: the folder itself,
// mode 0700, but not its parents. A file of an older version is first copied aside, to
// rotatord.db.before-vN, and then brought up to date; nobody may be using it meanwhile. A file
// that is newer, damaged, or no state of rotatord's is left as it is. Several processes may open
// the same state at once; see Lock for the one that works on the tokens.
//
// Errors worth telling apart: *OwnerError, *VersionError, *HeldError.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	return open(ctx, dir, o, schema())
}

func open(ctx context.Context, dir string, o Options, migrations fs.FS) (*Store, error) {
	if o.Euid == nil {
		o.Euid = os.Geteuid
	}
	dir, err := enter(dir, o.Euid())
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, File)
	// One at a time makes, checks and migrates. The folder itself is locked, so that no file is
	// needed for it.
	done, err := lockFolder(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := create(ctx, path, migrations); err != nil {
		return nil, fmt.Errorf("make the state in %s: %w", dir, err)
	}
	writer, err := connect(path, "rw", 1)
	if err != nil {
		return nil, err
	}
	if err := prepare(ctx, writer, path, migrations); err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	reading, err := connect(path, "ro", readers)
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	return newStore(path, writer, &Reader{path: path, db: reading}, o.Told), nil
}

// connect returns a pool of connections to the file, which is never made by it. mode is SQLite's.
func connect(path, mode string, connections int) (*sql.DB, error) {
	q := url.Values{
		"mode":      {mode},
		"_txlock":   {"immediate"},
		"_error_rc": {"1"},
		"_pragma": {
			fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()),
			"synchronous(FULL)",
			"foreign_keys(1)",
			"journal_size_limit(16777216)",
		},
	}
	if mode == "immutable" {
		q.Set("mode", "ro")
		q.Set("immutable", "1")
	}
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// create makes the file if there is none. It gets its name when it is whole, so that an empty
// file under that name is always damage.
func create(ctx context.Context, path string, migrations fs.FS) error {
	switch _, err := os.Lstat(path); {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if st, err := os.Stat(path + "-wal"); err == nil && st.Size() > 0 {
		return fmt.Errorf("%s is gone, but %s-wal with its last changes is still there: put the file back, or move the other one away to begin anew", path, File)
	}
	scratch := path + ".new"
	for _, name := range []string{scratch, scratch + "-journal", scratch + "-wal", scratch + "-shm"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := makePrivate(scratch); err != nil {
		return err
	}
	db, err := connect(scratch, "rw", 1)
	if err != nil {
		return err
	}
	err = migrate(ctx, db, migrations)
	if err == nil {
		err = seed(ctx, db)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return explain(path, err)
	}
	return publish(scratch, path)
}

// makePrivate makes an empty file: SQLite would let others read what it makes itself.
func makePrivate(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// publish gives a file its name when it is durable, and makes the name durable too.
func publish(scratch, path string) error {
	if err := syncPath(scratch); err != nil {
		return err
	}
	if err := os.Rename(scratch, path); err != nil {
		return err
	}
	return syncPath(filepath.Dir(path))
}

// prepare checks the file, and brings it up to date.
func prepare(ctx context.Context, db *sql.DB, path string, migrations fs.FS) error {
	has, knows, err := versions(ctx, db, path, migrations)
	if err != nil {
		return err
	}
	if has > knows {
		return &VersionError{Path: path, Has: has, Knows: knows}
	}
	var mode string
	if err := db.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode); err != nil {
		return explain(path, err)
	}
	if mode != "wal" {
		return fmt.Errorf("%s: this file system has no shared memory, which the state needs (a network share?): use a local disk", path)
	}
	if has < knows {
		if err := idle(filepath.Dir(path)); err != nil {
			return fmt.Errorf("bring %s from version %d to %d: %w", path, has, knows, err)
		}
		if err := copyAside(ctx, db, path, fmt.Sprintf("%s.before-v%d", path, knows)); err != nil {
			return fmt.Errorf("copy %s aside before it is brought to version %d: %w", path, knows, err)
		}
		if err := migrate(ctx, db, migrations); err != nil {
			return fmt.Errorf("bring %s from version %d to %d (a copy is in %s.before-v%d): %w", path, has, knows, File, knows, explain(path, err))
		}
	}
	return check(ctx, db, path)
}

// versions returns the version of the file, and the newest that the migrations know.
func versions(ctx context.Context, db *sql.DB, path string, migrations fs.FS) (has, knows int64, err error) {
	if st, err := os.Stat(path); err == nil && st.Size() == 0 {
		return 0, 0, damaged(path, "it is empty")
	}
	var id int64
	if err := db.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&id); err != nil {
		return 0, 0, explain(path, err)
	}
	if id != applicationID {
		return 0, 0, fmt.Errorf("%s is a database, but not a state of rotatord's: name another state folder, or move that file away", path)
	}
	if err := db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied = 1`).Scan(&has); err != nil {
		return 0, 0, explain(path, err)
	}
	p, err := provider(db, migrations)
	if err != nil {
		return 0, 0, err
	}
	for _, s := range p.ListSources() {
		knows = max(knows, s.Version)
	}
	return has, knows, nil
}

func provider(db *sql.DB, migrations fs.FS) (*goose.Provider, error) {
	p, err := goose.NewProvider(goose.DialectSQLite3, db, migrations, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return p, nil
}

func migrate(ctx context.Context, db *sql.DB, migrations fs.FS) error {
	p, err := provider(db, migrations)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// check reads the tables that the daemon cannot do without. The journal may be large: damage in
// there shows when it is read.
func check(ctx context.Context, db *sql.DB, path string) error {
	for _, table := range []string{"records", "asks", "meta"} {
		var verdict string
		if err := db.QueryRowContext(ctx, `PRAGMA quick_check(`+table+`)`).Scan(&verdict); err != nil {
			return explain(path, err)
		}
		if verdict != "ok" {
			return damaged(path, verdict)
		}
	}
	return nil
}

// copyAside writes a copy of the file, whole and durable, and only then gives it its name. It
// replaces an older copy of the same name: a migration that fails at each start must not fill
// the disk.
func copyAside(ctx context.Context, db *sql.DB, path, to string) error {
	scratch := to + ".new"
	if err := os.Remove(scratch); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makePrivate(scratch); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, `VACUUM INTO $1`, scratch); err != nil {
		return explain(path, err)
	}
	return publish(scratch, to)
}

// syncPath makes a file, or the names in a folder, durable. Never call it on a database that this
// process has open: closing it would drop SQLite's locks.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// OpenReader opens the state in dir for looking only, beside a daemon or without one. Where
// the user may read but not write the folder, and no daemon runs, it sees the file as it stands.
// fs.ErrNotExist says that there is no state; *OwnerError names the user who may look.
func OpenReader(ctx context.Context, dir string) (*Reader, error) {
	return openReader(ctx, dir, schema())
}

func openReader(ctx context.Context, dir string, migrations fs.FS) (*Reader, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, File)
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no state of rotatord's in %s: %w", dir, fs.ErrNotExist)
	case errors.Is(err, fs.ErrPermission):
		return nil, forbidden(dir, err)
	case err != nil:
		return nil, err
	}
	attempt := func(mode string) (*Reader, error) {
		db, err := connect(path, mode, readers)
		if err != nil {
			return nil, err
		}
		has, knows, err := versions(ctx, db, path, migrations)
		if err == nil && has != knows {
			err = &VersionError{Path: path, Has: has, Knows: knows}
		}
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
		return &Reader{path: path, db: db}, nil
	}
	r, err := attempt("ro")
	if err == nil || !unreachable(err) {
		return r, err
	}
	// The file wants its two companions, which cannot be made here. With an empty log it is whole
	// by itself.
	if wal, werr := os.Stat(path + "-wal"); errors.Is(werr, fs.ErrNotExist) || (werr == nil && wal.Size() == 0) {
		if r, ierr := attempt("immutable"); ierr == nil {
			return r, nil
		}
	}
	if uid(st) != os.Geteuid() {
		return nil, forbidden(dir, err)
	}
	return nil, err
}

// unreachable reports whether a file may be fine, but could not be opened in this way.
func unreachable(err error) bool {
	switch code(err) {
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR:
		return true
	}
	return false
}

// code returns the primary SQLite result code of err; 0 where it has none.
func code(err error) int {
	if e := (*sqlite.Error)(nil); errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// explain says what an error of SQLite's means, where, and what to do. Others pass through.
func explain(path string, err error) error {
	dir := filepath.Dir(path)
	if better := advise(dir, err); better != err { //nolint:errorlint // the very same
		return better
	}
	switch code(err) {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: nothing was written; make room in %s: %w", ErrFull, dir, err)
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("another process has been writing to %s for %s: %w", path, busy, err)
	case sqlite3.SQLITE_READONLY:
		return fmt.Errorf("%s cannot be written: the file or its file system is read-only: %w", path, err)
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fmt.Errorf("%s cannot be opened: look at the permissions in %s: %w", path, dir, err)
	case sqlite3.SQLITE_IOERR:
		return fmt.Errorf("the disk under %s fails or is full; look at the system's log: %w", path, err)
	case sqlite3.SQLITE_NOTADB:
		return damaged(path, "it is no database")
	case sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("%w: %w", damaged(path, "parts are missing or overwritten"), err)
	}
	return err
}

// damaged is the error for a file that must not be touched.
func damaged(path, why string) error {
	return fmt.Errorf("%s is damaged: %s; it was left as it is: stop rotatord, keep a copy, and put a backup in its place (without one, move it away: rotatord then begins anew and finds its living tokens by their labels)", path, why)
}
