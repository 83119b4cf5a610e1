package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// later is the schema of a version that does not exist yet: one more migration.
func later(t *testing.T, sql string) fs.FS {
	t.Helper()
	out := fstest.MapFS{"00004_later.sql": {Data: []byte("-- +goose Up\n" + sql)}}
	must(t, fs.WalkDir(schema(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(schema(), path)
		out[path] = &fstest.MapFile{Data: data}
		return err
	}))
	return out
}

// closed makes a state with one record, and returns its folder.
func closed(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	s := reopen(t, dir, Options{})
	r := full("a")
	must(t, s.Save(t.Context(), &r, rotator.Event{At: noon, Kind: rotator.EventCreated}))
	must(t, s.Close())
	return dir
}

func TestFileIsWhatItShouldBe(t *testing.T) {
	s := fresh(t, Options{})
	for db, want := range map[*sql.DB]map[string]string{
		s.writer: {"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000", "foreign_keys": "1"},
		s.db:     {"journal_mode": "wal", "busy_timeout": "10000"},
	} {
		for pragma, value := range want {
			var got string
			if err := db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != value {
				t.Errorf("%s is %q, %v; want %q", pragma, got, err, value)
			}
		}
	}
	if _, err := s.db.Exec(`DELETE FROM meta`); err == nil {
		t.Error("a connection for reading can write")
	}
	if n := s.writer.Stats().MaxOpenConnections; n != 1 {
		t.Errorf("%d connections write", n)
	}
}

func TestFolderNames(t *testing.T) {
	for _, name := range []string{"a b", "what?", "50%25", "a#b", "ü&mode=memory"} {
		dir := filepath.Join(t.TempDir(), name)
		s := reopen(t, dir, Options{})
		r := rotator.Record{Name: "a"}
		must(t, s.Save(t.Context(), &r))
		if _, err := os.Stat(filepath.Join(dir, File)); err != nil {
			t.Error(err)
		}
		look, err := OpenReader(t.Context(), dir)
		must(t, err)
		if records, err := look.Records(t.Context()); err != nil || len(records) != 1 {
			t.Errorf("%s: %v %v", name, records, err)
		}
		must(t, look.Close())
	}
}

func TestFolderThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "odd"), 0o700))
	must(t, os.Symlink("elsewhere", filepath.Join(dir, "odd", File)))
	for path, want := range map[string]string{
		"no/parent": filepath.Join(dir, "no") + " does not exist",
		"file":      "is not a folder",
		"odd":       "is not a regular file",
	} {
		if _, err := Open(t.Context(), filepath.Join(dir, path), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := TakeLock(t.Context(), filepath.Join(dir, path), Holder{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: lock: %v", path, err)
		}
	}
}

// With the user injected: who may write, by the owner of the folder and of the files.
func TestOwner(t *testing.T) {
	me := os.Geteuid()
	as := func(uid int) Options { return Options{Euid: func() int { return uid }} }
	dir := closed(t)
	var oe *OwnerError
	_, err := Open(t.Context(), dir, as(me+4242))
	if !errors.As(err, &oe) || oe.Dir != dir || oe.Path != dir || oe.OwnerUID != me || oe.Owner != userName(me) || oe.UID != me+4242 {
		t.Errorf("another user: %+v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("another user left %v, %v", left, err)
	}
	// A volume that is handed over by group belongs to nobody who works in it: its files tell.
	must(t, os.Chmod(dir, 0o770))
	if _, err := Open(t.Context(), dir, as(me+4242)); !errors.As(err, &oe) || oe.Path != filepath.Join(dir, File) {
		t.Errorf("another user in a shared folder: %v", err)
	}
	volume := t.TempDir()
	must(t, os.Chmod(volume, 0o770))
	s, err := Open(t.Context(), volume, as(me+4242))
	must(t, err)
	must(t, s.Close())

	for want, e := range map[string]*OwnerError{
		"the state in /s belongs to rotatord: run this command as that user (sudo -u rotatord …)":                                                                  {Dir: "/s", Path: "/s", Owner: "rotatord", OwnerUID: 7, User: "root"},
		"the state in /a b belongs to root: run this command as that user (sudo …), or give the state to rotatord (sudo chown -R rotatord '/a b')":                 {Dir: "/a b", Path: "/a b", Owner: "root", User: "rotatord", UID: 7},
		"/s/rotatord.db belongs to eve, not to rotatord: run this command as that user (sudo -u eve …), or give the state to this one (sudo chown -R rotatord /s)": {Dir: "/s", Path: "/s/rotatord.db", Owner: "eve", OwnerUID: 8, User: "rotatord", UID: 7},
	} {
		if e.Error() != want {
			t.Errorf("says\n%s\nwant\n%s", e, want)
		}
	}
}

func TestDamagedFilesAreLeftAlone(t *testing.T) {
	good, err := os.ReadFile(filepath.Join(closed(t), File))
	must(t, err)
	hole := bytes.Clone(good)
	clear(hole[4096:]) // all but the header
	other := func(t *testing.T) []byte {
		path := filepath.Join(t.TempDir(), "other.db")
		db, err := sql.Open("sqlite", path)
		must(t, err)
		_, err = db.Exec(`CREATE TABLE records (name TEXT)`)
		must(t, errors.Join(err, db.Close()))
		data, err := os.ReadFile(path)
		must(t, err)
		return data
	}(t)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":            {nil, "is damaged: it is empty"},
		"a text":           {[]byte(strings.Repeat("this is no database. ", 500)), "is damaged: it is no database"},
		"a short text":     {[]byte("hello"), "is damaged: it is no database"},
		"cut off":          {good[:len(good)/2/4096*4096], "is damaged: parts are missing or overwritten"},
		"cut in a page":    {good[:len(good)-5000], "is damaged: parts are missing or overwritten"},
		"overwritten":      {hole, "is damaged: parts are missing or overwritten"},
		"another database": {other, "is a database, but not a state of rotatord's"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, File)
			must(t, os.WriteFile(path, c.data, 0o600))
			_, err := Open(t.Context(), dir, Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("open: %v", err)
			}
			if r, err := OpenReader(t.Context(), dir); err == nil {
				_, err = r.Records(t.Context())
				must(t, r.Close())
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("look: %v", err)
				}
			} else if !strings.Contains(err.Error(), c.want) {
				t.Errorf("look: %v", err)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, c.data) {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}

func TestFileGoneButItsLogThere(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, File+"-wal"), []byte("changes"), 0o600))
	if _, err := Open(t.Context(), dir, Options{}); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("open: %v", err)
	}
}

// A start that was killed while it made the file left a half one under another name.
func TestHalfMadeFileIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{File + ".new", File + ".new-journal"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600))
	}
	s := reopen(t, dir, Options{})
	if _, err := s.Key(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMigration(t *testing.T) {
	dir := closed(t)
	path := filepath.Join(dir, File)
	ctx := t.Context()
	before, err := os.ReadFile(path)
	must(t, err)

	// Not under the hands of another process.
	c := child(t, "lock", dir)
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	newer := later(t, `ALTER TABLE asks ADD COLUMN why TEXT NOT NULL DEFAULT '';`)
	var held *HeldError
	if _, err := open(ctx, dir, Options{}, newer); !errors.As(err, &held) {
		t.Errorf("beside another process: %v", err)
	}
	must(t, in.Close())
	must(t, c.Wait())

	// Our own lock is no hindrance. A migration that fails leaves all as it was.
	l, err := TakeLock(ctx, dir, Holder{Kind: Daemon})
	must(t, err)
	defer l.Unlock() //nolint:errcheck // the test ends
	if _, err := open(ctx, dir, Options{}, later(t, "CREATE TABLE half (x TEXT);\nCREATE TABLE asks (x TEXT);")); err == nil || !strings.Contains(err.Error(), "from version 3 to 4") {
		t.Errorf("a broken migration: %v", err)
	}
	s := reopen(t, dir, Options{})
	if r, ok, err := s.Record(ctx, "a"); !ok || err != nil || r.Version != 1 {
		t.Errorf("after a broken migration: %+v %v", r, err)
	}
	if _, err := s.db.Exec(`SELECT * FROM half`); err == nil {
		t.Error("half of the broken migration stayed")
	}
	must(t, s.Close())

	// A reader of the newer version does not migrate.
	var ve *VersionError
	if _, err := openReader(ctx, dir, newer); !errors.As(err, &ve) || ve.Has != 3 || ve.Knows != 4 {
		t.Errorf("the newer reader: %v", err)
	}
	s, err = open(ctx, dir, Options{}, newer)
	must(t, err)
	if r, ok, err := s.Record(ctx, "a"); !ok || err != nil || r.Version != 1 {
		t.Errorf("after the migration: %+v %v", r, err)
	}
	must(t, s.Close())

	// The copy is whole, private, and can be put back.
	copied := path + ".before-v4"
	if st, err := os.Stat(copied); err != nil || st.Mode() != 0o600 {
		t.Errorf("the copy: %v %v", st, err)
	}
	if _, err := os.Stat(copied + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	after, err := os.ReadFile(path)
	must(t, err)
	if _, err := Open(ctx, dir, Options{}); !errors.As(err, &ve) || ve.Has != 4 || ve.Knows != 3 || !strings.Contains(err.Error(), "rotatord.db.before-v4") {
		t.Errorf("the older version: %v", err)
	}
	if _, err := OpenReader(ctx, dir); !errors.As(err, &ve) {
		t.Errorf("the older reader: %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, after) || bytes.Equal(now, before) {
		t.Errorf("the older version changed the newer file: %v", err)
	}
	must(t, os.Rename(copied, path))
	s = reopen(t, dir, Options{})
	events, err := s.History(ctx, Query{})
	must(t, err)
	if r, ok, err := s.Record(ctx, "a"); !ok || err != nil || r.Last != 7 || len(events) != 1 {
		t.Errorf("the copy holds %+v, %d events, %v", r, len(events), err)
	}
}

func TestReaderBesideWriter(t *testing.T) {
	dir := closed(t)
	s := reopen(t, dir, Options{})
	look, err := OpenReader(t.Context(), dir)
	must(t, err)
	defer look.Close() //nolint:errcheck // nothing was written
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		r, _, err := s.Record(context.Background(), "a")
		for err == nil {
			select {
			case <-stop:
				return
			default:
				r.Last++
				err = s.Save(context.Background(), &r, rotator.Event{Kind: rotator.EventWarning})
			}
		}
		t.Error(err)
	})
	last := 0
	for range 200 {
		r, ok, err := look.Record(t.Context(), "a")
		if err != nil || !ok || r.Last < last || int64(r.Last-6) != r.Version {
			t.Fatalf("saw %d in version %d after %d: %v %v", r.Last, r.Version, last, ok, err)
		}
		last = r.Last
	}
	close(stop)
	wg.Wait()
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state") // made by the lock: a daemon takes it before it opens
	ctx := t.Context()
	if _, held, err := Holding(dir); held || err != nil {
		t.Errorf("nothing is held: %v %v", held, err)
	}
	command, err := TakeLock(ctx, dir, Holder{Kind: Command, Command: "rotate", Since: noon})
	must(t, err)
	isCommand := func(h Holder) bool { return h.Kind == Command }

	// Asking who holds it, a thousand times, gets in nobody's way.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, _, err := Holding(dir); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	// A daemon waits for a command, until it is done.
	got := make(chan *Lock, 1)
	asked := make(chan struct{})
	wg.Go(func() {
		l, err := WaitLock(context.Background(), dir, Holder{Kind: Daemon, Command: "run"}, time.Minute, func(h Holder) bool {
			select {
			case asked <- struct{}{}:
			default:
			}
			return isCommand(h)
		})
		if err != nil {
			t.Error(err)
		}
		got <- l
	})
	<-asked
	must(t, command.Unlock())
	daemon := <-got
	// Another daemon does not wait for this one, and nobody waits for ever.
	var held *HeldError
	if _, err := WaitLock(ctx, dir, Holder{Kind: Daemon}, time.Hour, isCommand); !errors.As(err, &held) || held.Holder.Kind != Daemon {
		t.Errorf("a second daemon: %v", err)
	}
	if _, err := WaitLock(ctx, dir, Holder{}, time.Millisecond, nil); !errors.As(err, &held) {
		t.Errorf("waited long enough: %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := WaitLock(gone, dir, Holder{}, time.Hour, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who left: %v", err)
	}
	for range 20 {
		must(t, daemon.Unlock())
		if daemon, err = TakeLock(ctx, dir, Holder{Kind: Daemon}); err != nil {
			t.Fatalf("somebody who only asked was taken for a holder: %v", err)
		}
	}
	close(stop)
	wg.Wait()
	must(t, daemon.Unlock())
	// A second unlocking would free what is somebody else's by now.
	if err := daemon.Unlock(); err == nil {
		t.Error("unlocked twice")
	}
	names, err := os.ReadDir(dir)
	must(t, err)
	if !slices.ContainsFunc(names, func(e fs.DirEntry) bool { return e.Name() == LockFile }) {
		t.Error("the lock's file went away: two could hold locks of the same name")
	}
}
