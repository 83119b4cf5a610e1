package atomicfile

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// to makes a change that ignores what is there.
func to(content string) func([]byte, bool) ([]byte, error) {
	return func([]byte, bool) ([]byte, error) { return []byte(content), nil }
}

func update(t *testing.T, path string, o Options, content string) {
	t.Helper()
	if err := Update(t.Context(), path, o, to(content)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s holds %q (%v), want %q", path, got, err, want)
	}
}

// wantNames fails unless exactly these names are in dir.
func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

// wantSays fails unless err says all of what.
func wantSays(t *testing.T, err error, what ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one that says %q", what)
		return
	}
	for _, w := range what {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func stat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func asRoot(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		return true
	}
	t.Log("only root can give files away: that part is left out")
	return false
}

func TestUpdateMakesAndReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	err := Update(t.Context(), path, Options{}, func(old []byte, exists bool) ([]byte, error) {
		if exists || old != nil {
			t.Errorf("change got %q, %t for a file that is not there", old, exists)
		}
		return []byte("one"), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = Update(t.Context(), path, Options{}, func(old []byte, exists bool) ([]byte, error) {
		if !exists || string(old) != "one" {
			t.Errorf("change got %q, %t, want one, true", old, exists)
		}
		return append(old, " two"...), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Read(path); err != nil || string(got) != "one two" {
		t.Errorf("read %q (%v)", got, err)
	}
	wantNames(t, dir, "token", ".token.lock")
	if m := stat(t, filepath.Join(dir, ".token.lock")).Mode(); m != 0o600 {
		t.Errorf("the lock file has mode %v, want 0600", m)
	}
}

// Somebody holds the old file open: what he reads does not change under him.
func TestReaderKeepsWhatItOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	update(t, path, Options{}, "old")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	update(t, path, Options{}, "new and longer")
	got := make([]byte, 64)
	n, err := f.Read(got)
	if err != nil || string(got[:n]) != "old" {
		t.Errorf("read %q (%v) from the old file", got[:n], err)
	}
}

func TestReadOfNothing(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "no", "folder")} {
		if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("read %s: %v, want fs.ErrNotExist", path, err)
		}
	}
	wantNames(t, dir)
}

func TestWritesNothingThatIsRightAlready(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	o := Options{Mode: 0o640, Owner: strconv.Itoa(os.Geteuid()), Group: strconv.Itoa(os.Getegid())}
	update(t, path, o, "same")
	before := stat(t, path)
	update(t, path, o, "same")
	if !os.SameFile(before, stat(t, path)) {
		t.Error("an update to what was there wrote again")
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	update(t, path, o, "same")
	if m := stat(t, path).Mode(); m != 0o640 {
		t.Errorf("mode %v was not corrected to 0640", m)
	}
	wantContent(t, path, "same")
}

func TestModeDoesNotDependOnTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, mode := range []fs.FileMode{0, 0o600, 0o640, 0o664, 0o444} {
		path := filepath.Join(t.TempDir(), "token")
		update(t, path, Options{Mode: mode}, "one")
		update(t, path, Options{Mode: mode}, "two") // also over one that may not be written
		want := mode
		if want == 0 {
			want = 0o600
		}
		if m := stat(t, path).Mode(); m != want {
			t.Errorf("mode %v, want %v", m, want)
		}
	}
	err := Update(t.Context(), filepath.Join(t.TempDir(), "token"), Options{Mode: 0o600 | fs.ModeSetuid}, to("x"))
	wantSays(t, err, "permission bits")
}

func TestOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	wantSays(t, Update(t.Context(), path, Options{Owner: "nobody-of-that-name"}, to("x")), "owner", "nobody-of-that-name", "no user")
	wantSays(t, Check(t.Context(), path, Options{Group: "no-such-group"}), "group", "no-such-group", "no group")
	wantSays(t, Update(t.Context(), path, Options{Owner: "4294967295"}, to("x")), "owner")
	if !asRoot(t) {
		return
	}
	update(t, path, Options{Mode: 0o640, Owner: "1234", Group: "2345"}, "one")
	if got := owner(stat(t, path)); got != (ids{1234, 2345}) {
		t.Errorf("belongs to %v, want 1234, 2345", got)
	}
	// Who may read the file could hold the lock for ever if he could open it; who may write needs it.
	lock := filepath.Join(filepath.Dir(path), ".token.lock")
	if m := stat(t, lock).Mode(); m != 0o600 {
		t.Errorf("the lock has mode %v, want 0600", m)
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	update(t, path, Options{Mode: 0o660, Owner: "1234", Group: "2345"}, "one")
	if info := stat(t, lock); info.Mode() != 0o660 || owner(info).gid != 2345 {
		t.Errorf("the lock has mode %v and group %d, want 0660 of 2345", info.Mode(), owner(info).gid)
	}
	// What is not named stays, although root makes the new file.
	update(t, path, Options{Mode: 0o640}, "two")
	if got := owner(stat(t, path)); got != (ids{1234, 2345}) {
		t.Errorf("belongs to %v after a change without an owner, want still 1234, 2345", got)
	}
	// Only the owner is wrong.
	update(t, path, Options{Mode: 0o640, Owner: "0"}, "two")
	if got := owner(stat(t, path)); got != (ids{0, 2345}) {
		t.Errorf("belongs to %v, want 0, 2345", got)
	}
	wantContent(t, path, "two")
}

func TestSetgidFolderGivesItsGroup(t *testing.T) {
	if !asRoot(t) {
		return
	}
	dir := t.TempDir()
	if err := errors.Join(os.Chown(dir, 0, 3456), os.Chmod(dir, 0o770|fs.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "token")
	update(t, path, Options{Mode: 0o640}, "one")
	if got := owner(stat(t, path)); got.gid != 3456 {
		t.Errorf("group %d, want the folder's, 3456", got.gid)
	}
}

func TestSymlinks(t *testing.T) {
	for _, c := range []struct {
		name, link, to string // to: where it is written to, "" where it is refused
	}{
		{"in its folder", "real", "real"},
		{"by an absolute path", "DIR/real", "real"},
		{"through another", "again", "real"},
		{"through its folder's other name", "alias/real", "real"},
		{"to nothing yet", "fresh", "fresh"},
		{"to another folder", "sub/real", ""},
		{"up and out", "../real", ""},
		{"out through a symlink and back by name", "alias2/../real", ""},
		{"to a folder", "sub", ""},
		{"to its folder", ".", ""},
		{"to itself", "token", ""},
		{"to a folder that is not there", "gone/real", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			outer, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(outer, "dir")
			if err := os.MkdirAll(filepath.Join(dir, "sub", "deep"), 0o755); err != nil {
				t.Fatal(err)
			}
			for name, target := range map[string]string{
				"token": strings.ReplaceAll(c.link, "DIR", dir), "again": "real", "alias": ".", "alias2": "sub/deep",
			} {
				if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			for _, path := range []string{"real", "sub/real", "../real"} {
				write(t, filepath.Join(dir, path), "old", 0o600)
			}
			path := filepath.Join(dir, "token")
			check, err := Check(t.Context(), path, Options{}), Update(t.Context(), path, Options{}, to("new"))
			if (check == nil) != (err == nil) {
				t.Errorf("check: %v, update: %v", check, err)
			}
			if stat(t, path).Mode()&fs.ModeSymlink == 0 {
				t.Error("the symlink was replaced")
			}
			if c.to == "" {
				wantSays(t, err, dir)
				for _, path := range []string{"real", "sub/real", "../real"} {
					wantContent(t, filepath.Join(dir, path), "old")
				}
				if _, err := Read(path); err == nil || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("read: %v, want that it is refused", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantContent(t, filepath.Join(dir, c.to), "new")
			if got, err := Read(path); err != nil || string(got) != "new" {
				t.Errorf("read %q (%v)", got, err)
			}
			stat(t, filepath.Join(dir, "."+c.to+".lock")) // one lock, by whichever name one comes
			if _, err := os.Lstat(filepath.Join(dir, ".token.lock")); err == nil {
				t.Error("there is a lock of the symlink's name")
			}
		})
	}
}

// A folder may be reached by a symlink: its files are in it.
func TestFolderBySymlink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "alias")); err != nil {
		t.Fatal(err)
	}
	update(t, filepath.Join(dir, "alias", "token"), Options{}, "x")
	wantContent(t, filepath.Join(dir, "real", "token"), "x")
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, dir string) // the path is dir/token
		says    []string
		readsOK bool
	}{
		{"a directory", func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, "token"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, []string{"directory", "name a file"}, false},
		{"a pipe", func(t *testing.T, dir string) {
			if err := syscall.Mkfifo(filepath.Join(dir, "token"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"special", "another path"}, false},
		{"a large file", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "token"), strings.Repeat("x", MaxSize+1), 0o600)
		}, []string{"more than 1048576 bytes"}, false},
		{"a folder that everybody may write", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "token"), "old", 0o600)
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, []string{"writable by everybody", "chmod o-w"}, true},
		{"a folder that is not there", func(t *testing.T, dir string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
		}, []string{"does not exist", "create it with mkdir -p", "not created for you"}, false},
		{"a file for a folder", func(t *testing.T, dir string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "", 0o600)
		}, []string{"not a directory"}, false},
		{"a lock that is a symlink", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "token"), "old", 0o600)
			write(t, filepath.Join(dir, "other"), "", 0o600)
			if err := os.Symlink("other", filepath.Join(dir, ".token.lock")); err != nil {
				t.Fatal(err)
			}
		}, []string{"/dir/.token.lock", "remove it"}, true},
		{"a pipe for a lock", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "token"), "old", 0o600)
			if err := syscall.Mkfifo(filepath.Join(dir, ".token.lock"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"/dir/.token.lock", "remove it"}, true},
		{"a full directory for the temporary", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "token"), "old", 0o600)
			if err := os.MkdirAll(filepath.Join(dir, ".token.tmp", "x"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, []string{"/dir/.token.tmp", "directory", "remove it"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			c.prepare(t, dir)
			path := filepath.Join(dir, "token")
			wantSays(t, Check(t.Context(), path, Options{}), c.says...)
			wantSays(t, Update(t.Context(), path, Options{}, to("new")), c.says...)
			if got, err := Read(path); (err == nil) != c.readsOK || c.readsOK && string(got) != "old" {
				t.Errorf("read %d bytes (%v)", len(got), err)
			}
		})
	}
}

func TestSharedFolderWithStickyBit(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "token")
	if err := Check(t.Context(), path, Options{}); err != nil {
		t.Error(err)
	}
	update(t, path, Options{}, "x")
}

// What others put where everybody may put something is not taken for ours.
func TestPlantedInASharedFolder(t *testing.T) {
	if !asRoot(t) {
		return
	}
	const stranger = 1234
	give := func(t *testing.T, path string) {
		t.Helper()
		if err := os.Lchown(path, stranger, stranger); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, dir string) // the path is dir/token
		owner   string
		says    string // "": it is taken
	}{
		{"the folder", give, "", "folder DIR is writable by everybody and belongs to uid 1234, who could replace token: use a folder of your own"},
		{"the file", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "token"), "old", 0o666)
			give(t, filepath.Join(dir, "token"))
		}, "", "DIR/token belongs to uid 1234"},
		{"the file of its owner", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "token"), "old", 0o600)
			give(t, filepath.Join(dir, "token"))
		}, "1234", ""},
		{"the lock", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, ".token.lock"), "", 0o666)
			give(t, filepath.Join(dir, ".token.lock"))
		}, "", "DIR/.token.lock belongs to uid 1234"},
		{"a symlink", func(t *testing.T, dir string) {
			if err := os.Symlink("elsewhere", filepath.Join(dir, "token")); err != nil {
				t.Fatal(err)
			}
			give(t, filepath.Join(dir, "token"))
		}, "", "DIR/token belongs to uid 1234"},
		{"the temporary", func(t *testing.T, dir string) { // root may remove it
			write(t, filepath.Join(dir, ".token.tmp"), "bait", 0o666)
			give(t, filepath.Join(dir, ".token.tmp"))
		}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "shared")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
				t.Fatal(err)
			}
			c.prepare(t, dir)
			path := filepath.Join(dir, "token")
			o := Options{Owner: c.owner}
			errs := []error{Check(t.Context(), path, o), Update(t.Context(), path, o, to("new"))}
			if c.says != "" {
				for _, err := range errs {
					wantSays(t, err, strings.ReplaceAll(c.says, "DIR", dir), "use a folder of your own")
				}
				for _, name := range []string{"token", "elsewhere"} {
					if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) == "new" {
						t.Errorf("%s got the new content", name)
					}
				}
				return
			}
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			wantContent(t, path, "new")
			if uid, want := owner(stat(t, path)).uid, c.owner; strconv.Itoa(uid) != want && (want != "" || uid != 0) {
				t.Errorf("it belongs to uid %d", uid)
			}
		})
	}
}

func TestLeftoverTemporary(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, dir, tmp string){
		"half a file": func(t *testing.T, _, tmp string) { write(t, tmp, "hal", 0o400) },
		"a symlink": func(t *testing.T, dir, tmp string) {
			if err := os.Symlink(filepath.Join(dir, "victim"), tmp); err != nil {
				t.Fatal(err)
			}
		},
		"a symlink that leads nowhere": func(t *testing.T, _, tmp string) {
			if err := os.Symlink("/nowhere/at/all", tmp); err != nil {
				t.Fatal(err)
			}
		},
		"an empty directory": func(t *testing.T, _, tmp string) {
			if err := os.Mkdir(tmp, 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"a pipe": func(t *testing.T, _, tmp string) {
			if err := syscall.Mkfifo(tmp, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "token")
			write(t, filepath.Join(dir, "victim"), "theirs", 0o600)
			leave(t, dir, filepath.Join(dir, ".token.tmp"))
			leave(t, dir, filepath.Join(dir, ".token.check"))
			if err := Check(t.Context(), path, Options{}); err != nil {
				t.Error(err)
			}
			leave(t, dir, filepath.Join(dir, ".token.tmp"))
			update(t, path, Options{}, "new")
			wantContent(t, path, "new")
			wantContent(t, filepath.Join(dir, "victim"), "theirs")
			wantNames(t, dir, "token", "victim", ".token.lock")
		})
	}
}

// flock holds the lock of a file until free is called.
func flock(t *testing.T, path string) (free func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}

// A lock file that is removed leaves those who wait for it with a lock that nobody else asks for.
func TestLockFileIsReplacedWhileOneWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	lock := filepath.Join(filepath.Dir(path), ".token.lock")
	update(t, path, Options{}, "old")
	first := flock(t, lock)
	inside, done := make(chan struct{}), make(chan error)
	go func() {
		done <- Update(t.Context(), path, Options{}, func(old []byte, _ bool) ([]byte, error) {
			close(inside)
			return append(bytes.Clone(old), "er"...), nil
		})
	}()
	time.Sleep(5 * poll) // it waits by now
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	second := flock(t, lock)
	first()
	select {
	case <-inside:
		t.Error("two writers are at work at once")
	case <-time.After(10 * poll):
	}
	second()
	if err := <-done; err != nil {
		t.Error(err)
	}
	wantContent(t, path, "older")
}

func TestLockFileIsRemovedUnderTheWriter(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	lock := filepath.Join(dir, ".token.lock")
	update(t, path, Options{}, "old")
	for name, after := range map[string]func(){
		"removed": func() {},
		"another": func() { write(t, lock, "", 0o600) },
	} {
		err := Update(t.Context(), path, Options{}, func([]byte, bool) ([]byte, error) {
			if err := os.Remove(lock); err != nil {
				t.Fatal(err)
			}
			after()
			return []byte("new"), nil
		})
		wantSays(t, err, path, "removed the lock file", "leave it alone")
		wantContent(t, path, "old")
		if _, err := os.Lstat(filepath.Join(dir, ".token.tmp")); err == nil {
			t.Errorf("%s: a temporary is left", name)
		}
	}
	update(t, path, Options{}, "new")
}

func TestTooMuchIsNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	update(t, path, Options{}, "old")
	err := Update(t.Context(), path, Options{}, to(strings.Repeat("x", MaxSize+1)))
	wantSays(t, err, "more than")
	wantContent(t, path, "old")
	update(t, path, Options{}, strings.Repeat("x", MaxSize))
}

func TestErrorOfChange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	update(t, path, Options{}, "old")
	mine := errors.New("line 3 has no name")
	err := Update(t.Context(), path, Options{}, func([]byte, bool) ([]byte, error) { return []byte("new"), mine })
	if err != mine { //nolint:errorlint // as it is, not wrapped
		t.Errorf("got %v, want the error of change as it is", err)
	}
	wantContent(t, path, "old")
	wantNames(t, dir, "token", ".token.lock")
	update(t, path, Options{}, "new") // the lock is free
}

// A change that panics lets go of the lock.
func TestPanicInChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	func() {
		defer func() { recover() }() //nolint:errcheck // it is the one below
		Update(t.Context(), path, Options{}, func([]byte, bool) ([]byte, error) { panic("here") })
	}()
	update(t, path, Options{}, "new")
}

func TestContext(t *testing.T) {
	t.Run("over before", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "token")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range []error{Update(ctx, path, Options{}, to("new")), Check(ctx, path, Options{})} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want context.Canceled", err)
			}
		}
		wantNames(t, dir)
	})
	t.Run("over inside change", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "token")
		update(t, path, Options{}, "old")
		ctx, cancel := context.WithCancel(t.Context())
		err := Update(ctx, path, Options{}, func([]byte, bool) ([]byte, error) { cancel(); return []byte("new"), nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		wantContent(t, path, "old")
		wantNames(t, dir, "token", ".token.lock")
	})
	t.Run("over while the file is written", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "token")
		update(t, path, Options{}, "old")
		// The first look is at the door, the second before the temporary, the third before the rename.
		err := Update(&fading{Context: t.Context(), looks: 2}, path, Options{}, to("new"))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		wantContent(t, path, "old")
		wantNames(t, dir, "token", ".token.lock")
	})
	t.Run("over while another one has the lock", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "token")
		update(t, path, Options{}, "old")
		err := Update(t.Context(), path, Options{}, func(old []byte, _ bool) ([]byte, error) {
			for _, f := range []func(context.Context) error{
				func(ctx context.Context) error { return Update(ctx, path, Options{}, to("rival")) },
				func(ctx context.Context) error { return Check(ctx, path, Options{}) },
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				err := f(ctx)
				cancel()
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want context.DeadlineExceeded", err)
				}
				wantSays(t, err, ".token.lock", "another writer")
			}
			return append(bytes.Clone(old), "er"...), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		wantContent(t, path, "older")
	})
}

// fading is a context that is over after some looks at it.
type fading struct {
	context.Context
	looks int
}

func (f *fading) Err() error {
	if f.looks--; f.looks < 0 {
		return context.Canceled
	}
	return nil
}

func TestCheckLeavesNothing(t *testing.T) {
	for _, old := range []string{"", "old"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "token")
		want := []string{".token.lock"}
		var before fs.FileInfo
		if old != "" {
			write(t, path, old, 0o604)
			before = stat(t, path)
			want = append(want, "token")
		}
		// Of a check that was killed.
		write(t, filepath.Join(dir, ".token.check"), "left", 0o600)
		write(t, filepath.Join(dir, ".token.tmp"), "left", 0o600)
		if err := Check(t.Context(), path, Options{Mode: 0o640}); err != nil {
			t.Error(err)
		}
		wantNames(t, dir, want...)
		if old != "" {
			after := stat(t, path)
			if !os.SameFile(before, after) || after.Mode() != 0o604 || !after.ModTime().Equal(before.ModTime()) {
				t.Error("check changed the file")
			}
			wantContent(t, path, old)
		}
	}
	dir := t.TempDir()
	if err := Check(&fading{Context: t.Context(), looks: 1}, filepath.Join(dir, "token"), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	wantNames(t, dir, ".token.lock")
}

func TestExplain(t *testing.T) {
	p := &place{dir: "/srv/app", name: "token"}
	for _, c := range []struct {
		err  error
		says string
	}{
		{syscall.ENOSPC, "the disk is full"},
		{syscall.EDQUOT, "the disk is full"},
		{syscall.EFBIG, "limit on the size"},
		{syscall.EROFS, "ReadWritePaths=-/srv/app"},
		{syscall.EBUSY, "mount the folder /srv/app instead"},
		{syscall.EXDEV, "mount the folder /srv/app instead"},
		{syscall.EACCES, "we run as uid " + strconv.Itoa(os.Geteuid())},
		{syscall.EPERM, "we run as uid " + strconv.Itoa(os.Geteuid())},
		{syscall.EIO, "input/output error"},
	} {
		err := p.explain("replace", &fs.PathError{Op: "renameat", Path: "token", Err: c.err})
		wantSays(t, err, "replace /srv/app/token: ", c.says)
		if !errors.Is(err, c.err) {
			t.Errorf("%v does not match %v", err, c.err)
		}
	}
}

func TestMissingFolderCommandIsQuoted(t *testing.T) {
	err := Update(t.Context(), filepath.Join(t.TempDir(), "it's; here", "token"), Options{}, to("x"))
	wantSays(t, err, `it'\''s; here'`)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not match fs.ErrNotExist", err)
	}
}
