package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/rotator"
)

// stranger is a user that owns nothing.
const stranger = 65534

// TestMain lets the test program be its own second process.
func TestMain(m *testing.M) {
	if task := os.Getenv("STORE_TEST_TASK"); task != "" {
		if err := work(task, os.Getenv("STORE_TEST_DIR")); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// work is what a second process does.
func work(task, dir string) error {
	ctx := context.Background()
	task, as, _ := strings.Cut(task, "@")
	if as != "" { // as another user
		id, err := strconv.Atoi(as)
		if err != nil {
			return err
		}
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id)); err != nil {
			return err
		}
	}
	switch task {
	case "open": // make or open, once
		s, err := Open(ctx, dir, Options{})
		if err != nil {
			return err
		}
		key, err := s.Key(ctx)
		fmt.Printf("%x\n", key)
		return errors.Join(err, s.Close())
	case "save": // for ever, saying what was acknowledged
		s, err := Open(ctx, dir, Options{})
		if err != nil {
			return err
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				r := rotator.Record{Name: fmt.Sprintf("t-%d", i)}
				for {
					if err := s.Save(ctx, &r, rotator.Event{Kind: rotator.EventWarning, Generation: int(r.Version) + 1}); err != nil {
						fmt.Println("error:", err)
						return
					}
					fmt.Println(r.Name, r.Version)
				}
			})
		}
		wg.Wait()
		return nil
	case "count": // add 50 to a shared record, by compare-and-swap
		s, err := Open(ctx, dir, Options{})
		if err != nil {
			return err
		}
		defer s.Close() //nolint:errcheck // a test's second process
		for done := 0; done < 50; {
			r, _, err := s.Record(ctx, "counter")
			if err != nil {
				return err
			}
			r.Name = "counter"
			r.Last++
			switch err := s.Save(ctx, &r); {
			case err == nil:
				done++
			case !errors.Is(err, rotator.ErrConflict):
				return err
			}
		}
		return nil
	case "lock": // and hold it until stdin ends
		l, err := TakeLock(ctx, dir, Holder{Kind: Command, Command: "rotate", User: "eve", Since: noon})
		if err != nil {
			return err
		}
		fmt.Println("held")
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			return err
		}
		return l.Unlock()
	case "look": // count the records
		r, err := OpenReader(ctx, dir)
		if err != nil {
			return err
		}
		records, err := r.Records(ctx)
		fmt.Println(len(records))
		return errors.Join(err, r.Close())
	case "full":
		return fillDisk(ctx, dir)
	}
	return fmt.Errorf("no such task: %s", task)
}

func child(t *testing.T, task, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	c := exec.CommandContext(t.Context(), self)
	c.Env = append(os.Environ(), "STORE_TEST_TASK="+task, "STORE_TEST_DIR="+dir)
	c.Stderr = os.Stderr
	return c
}

func TestEverySaveThatReturnedSurvivesAKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	for round := range 3 {
		c := child(t, "save", filepath.Join(dir, strconv.Itoa(round)))
		must(t, os.MkdirAll(dir, 0o700))
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		acked := map[string]int64{}
		lines := 0
		for in := bufio.NewScanner(out); in.Scan(); lines++ {
			name, version, ok := strings.Cut(in.Text(), " ")
			n, err := strconv.ParseInt(version, 10, 64)
			if !ok || err != nil {
				t.Fatalf("the child says %q", in.Text())
			}
			acked[name] = max(acked[name], n)
			if lines == 60+37*round {
				must(t, c.Process.Kill()) // what is in the pipe was acknowledged too
			}
		}
		if err := c.Wait(); err == nil {
			t.Fatal("the child was not killed")
		}
		s := reopen(t, filepath.Join(dir, strconv.Itoa(round)), Options{})
		for name, version := range acked {
			r, _, err := s.Record(t.Context(), name)
			must(t, err)
			if r.Version < version {
				t.Errorf("round %d: %s: version %d was acknowledged, %d is there", round, name, version, r.Version)
			}
			events, err := s.History(t.Context(), Query{Entries: []string{name}})
			must(t, err)
			if int64(len(events)) != r.Version {
				t.Errorf("round %d: %s: %d events with version %d", round, name, len(events), r.Version)
			}
		}
		if lines < 60 || len(acked) != 8 {
			t.Errorf("round %d: only %d saves of %d records", round, lines, len(acked))
		}
	}
}

func TestFourStartAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var wg sync.WaitGroup
	keys := make([]string, 4)
	for i := range keys {
		c := child(t, "open", dir)
		wg.Go(func() {
			out, err := c.Output()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			keys[i] = string(out)
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] || len(k) != 65 {
			t.Errorf("keys differ: %q", keys)
		}
	}
	names, err := os.ReadDir(dir)
	must(t, err)
	for _, n := range names {
		if n.Name() != File {
			t.Errorf("left behind: %s", n.Name())
		}
	}
}

func TestTwoProcessesCount(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := reopen(t, dir, Options{})
	var wg sync.WaitGroup
	for range 2 {
		c := child(t, "count", dir)
		wg.Go(func() {
			if out, err := c.Output(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	r, _, err := s.Record(t.Context(), "counter")
	must(t, err)
	if r.Last != 100 || r.Version != 100 {
		t.Errorf("counted to %d in %d versions, want 100", r.Last, r.Version)
	}
}

// shared returns a folder that other users can reach.
func shared(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	return dir
}

// The state is made readable to everybody, its folder writable to nobody who looks.
func TestReaderWithoutWritePermission(t *testing.T) {
	dir := filepath.Join(shared(t), "state")
	s := reopen(t, dir, Options{})
	r := rotator.Record{Name: "a"}
	must(t, s.Save(t.Context(), &r))
	as := ""
	if os.Geteuid() == 0 {
		as = "@" + strconv.Itoa(stranger)
	}
	look := func(want string) {
		t.Helper()
		if out, err := child(t, "look"+as, dir).Output(); err != nil || string(out) != want {
			t.Errorf("a reader sees %q, %v; want %q", out, err, want)
		}
	}
	allow := func(file, folder os.FileMode) {
		t.Helper()
		files, err := os.ReadDir(dir)
		must(t, err)
		for _, f := range files {
			must(t, os.Chmod(filepath.Join(dir, f.Name()), file))
		}
		must(t, os.Chmod(dir, folder))
	}
	allow(0o644, 0o555)
	look("1\n") // beside the daemon
	allow(0o600, 0o755)
	must(t, s.Close())
	allow(0o444, 0o555)
	look("1\n") // without one: the log is gone, and cannot be made
	files, err := os.ReadDir(dir)
	must(t, err)
	if len(files) != 1 {
		t.Errorf("the reader left something: %v", files)
	}
	allow(0o600, 0o700)
}

// As root: nobody but the owner gets in, and all are told who that is. As somebody else, the
// injected user stands for the others (see TestOwner).
func TestOtherUsersAreSentToTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	dir := filepath.Join(shared(t), "state")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.Chown(dir, stranger, stranger))
	owner := userName(stranger)

	var mine *OwnerError
	_, err := Open(t.Context(), dir, Options{})
	if !errors.As(err, &mine) || !strings.Contains(err.Error(), "belongs to "+owner+": run this command as that user (sudo -u "+owner+" …)") {
		t.Errorf("root opens: %v", err)
	}
	if _, err := TakeLock(t.Context(), dir, Holder{}); !errors.As(err, &mine) {
		t.Errorf("root locks: %v", err)
	}
	must(t, os.Chmod(dir, 0o770)) // what a group may do is not for root
	if _, err := Open(t.Context(), dir, Options{}); !errors.As(err, &mine) {
		t.Errorf("root opens a shared folder: %v", err)
	}
	must(t, os.Chmod(dir, 0o700))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("root left %v, %v", left, err)
	}
	as := "@" + strconv.Itoa(stranger)
	if out, err := child(t, "open"+as, dir).Output(); err != nil {
		t.Fatalf("the owner opens: %v: %s", err, out)
	}
	// root may look, and leaves nothing of its own that would lock the owner out.
	r, err := OpenReader(t.Context(), dir)
	must(t, err)
	if _, err := r.Records(t.Context()); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range left {
		if st, err := f.Info(); err != nil || uid(st) != stranger {
			t.Errorf("%s belongs to %d, %v", f.Name(), uid(st), err)
		}
	}
	must(t, r.Close())
	if out, err := child(t, "open"+as, dir).Output(); err != nil {
		t.Errorf("the owner opens after root has looked: %v: %s", err, out)
	}
	// A folder that root made can be handed over; a file in it that root made is named.
	must(t, os.Chown(dir, 0, 0))
	if out, err := child(t, "open"+as, dir).Output(); err == nil ||
		!strings.Contains(string(out), "belongs to root: run this command as that user (sudo …), or give the state to "+owner+" (sudo chown -R "+owner+" "+dir+")") {
		t.Errorf("the service's user at root's folder: %v: %s", err, out)
	}
	if out, err := child(t, "look"+as, dir).Output(); err == nil || !strings.Contains(string(out), "belongs to root") {
		t.Errorf("the service's user looks into root's folder: %v: %s", err, out)
	}
	must(t, os.Chown(dir, stranger, stranger))
	must(t, os.Chown(filepath.Join(dir, File), 0, 0))
	if out, err := child(t, "open"+as, dir).Output(); err == nil || !strings.Contains(string(out), filepath.Join(dir, File)+" belongs to root") {
		t.Errorf("the service's user at root's file: %v: %s", err, out)
	}
}

func TestLockIsFreeAfterAKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	c := child(t, "lock", dir)
	in, err := c.StdinPipe()
	must(t, err)
	defer in.Close() //nolint:errcheck // it keeps the child waiting
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	me := Holder{Kind: Daemon, Command: "run", User: "me", Since: noon}
	_, err = TakeLock(t.Context(), dir, me)
	var held *HeldError
	if !errors.As(err, &held) || held.Holder.PID != c.Process.Pid || held.Holder.Kind != Command {
		t.Fatalf("beside the child: %v", err)
	}
	for _, part := range []string{dir, strconv.Itoa(c.Process.Pid), "rotatord rotate", "eve", "2026-11-23T12:00:00Z"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if h, ok, err := Holding(dir); h.PID != c.Process.Pid || !ok || err != nil {
		t.Errorf("holding: %+v %v %v", h, ok, err)
	}
	must(t, c.Process.Kill())
	if err := c.Wait(); err == nil {
		t.Fatal("the child was not killed")
	}
	if h, ok, err := Holding(dir); ok || err != nil {
		t.Errorf("a dead process holds: %+v %v", h, err)
	}
	l, err := TakeLock(t.Context(), dir, me)
	must(t, err)
	if h, ok, err := Holding(dir); h.PID != os.Getpid() || h.Command != "run" || !ok || err != nil {
		t.Errorf("holding: %+v %v %v", h, ok, err)
	}
	must(t, l.Unlock())
}

func TestReaderSaysThatNothingIsThere(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Join(dir, "missing")} {
		if _, err := OpenReader(t.Context(), d); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), d) {
			t.Errorf("%s: %v", d, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("looking made %v, %v", left, err)
	}
}
