package atomicfile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// childEnv names what this binary does instead of testing, when a test starts it again.
const childEnv = "ATOMICFILE_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		if err := beChild(what, os.Args[1]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func beChild(what, path string) error {
	ctx := context.Background()
	switch what, arg, _ := strings.Cut(what, " "); what {
	case "append": // 20 lines, one update each
		for n := range 20 {
			err := Update(ctx, path, Options{}, func(old []byte, _ bool) ([]byte, error) {
				return fmt.Appendf(old, "%s-%d\n", arg, n), nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	case "alternate": // for ever, until it is killed
		for n := 0; ; n++ {
			if err := Update(ctx, path, Options{}, to(whole(n))); err != nil {
				return err
			}
			if n == 0 {
				fmt.Println("started")
			}
		}
	case "hold": // the lock, with a temporary half written, until it is killed
		return Update(ctx, path, Options{}, func([]byte, bool) ([]byte, error) {
			tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
			if err := os.WriteFile(tmp, []byte("hal"), 0o600); err != nil {
				return nil, err
			}
			fmt.Println("started")
			select {}
		})
	case "full":
		signal.Ignore(syscall.SIGXFSZ)
		limit := &syscall.Rlimit{Cur: 1 << 12, Max: 1 << 12}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, limit); err != nil {
			return err
		}
		return Update(ctx, path, Options{}, to(strings.Repeat("n", 1<<16)))
	case "starve": // with every number of free descriptors, from none
		return starve(ctx, path)
	case "update":
		return Update(ctx, path, Options{}, to("new"))
	case "check":
		return Check(ctx, path, Options{Owner: arg})
	case "give": // the file to another user
		return Update(ctx, path, Options{Owner: arg}, to("new"))
	}
	return fmt.Errorf("no child does %q", what)
}

func starve(ctx context.Context, path string) error {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}); err != nil {
		return err
	}
	var open []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if errors.Is(err, syscall.EMFILE) {
			break
		}
		if err != nil {
			return err
		}
		open = append(open, f)
	}
	starved := 0
	for free := range 12 {
		for _, what := range []string{"check", "update"} {
			before, rerr := Read(path)
			var err error
			if what == "check" {
				err = Check(ctx, path, Options{})
			} else {
				err = Update(ctx, path, Options{}, to("new "+strconv.Itoa(free)))
			}
			if err == nil && rerr != nil {
				return fmt.Errorf("with %d descriptors, it needs less than to read: %w", free, rerr)
			}
			if err != nil {
				starved++
				fmt.Printf("%s: %v\n", what, err)
				if after, err := Read(path); rerr == nil && (err != nil || string(after) != string(before)) {
					return fmt.Errorf("with %d descriptors, the file holds %q, and did %q: %w", free, after, before, err)
				}
			}
		}
		if err := open[free].Close(); err != nil {
			return err
		}
	}
	if got, err := Read(path); err != nil || string(got) != "new 11" || starved == 0 {
		return fmt.Errorf("it starved %d times, and holds %q: %w", starved, got, err)
	}
	return nil
}

// whole is content that shows whether it is whole.
func whole(n int) string { return strings.Repeat(strconv.Itoa(n%10), 100_000+n%10) }

func child(t *testing.T, what, path string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, path)
	c.Env = append(os.Environ(), childEnv+"="+what)
	return c
}

// started starts a child and waits until it says that it is at work.
func started(t *testing.T, what, path string) *exec.Cmd {
	t.Helper()
	c := child(t, what, path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "started\n" {
		t.Fatalf("the child says %q (%v)", line, err)
	}
	return c
}

func kill(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
}

func TestProcessesLoseNoUpdate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.env")
	var children []*exec.Cmd
	for n := range 6 {
		c := child(t, "append "+strconv.Itoa(n), path)
		c.Stdout = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		children = append(children, c)
	}
	for _, c := range children {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	content, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(content))
	seen := map[string]bool{}
	for _, l := range lines {
		seen[l] = true
	}
	if len(lines) != 120 || len(seen) != 120 {
		t.Errorf("%d lines, %d of them different, want 120", len(lines), len(seen))
	}
	wantNames(t, dir, "app.env", ".app.env.lock")
}

// Killed at any moment, a writer leaves something whole, and is in nobody's way.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	for range 12 {
		c := started(t, "alternate", path)
		// Other updates between ours: wherever it is now, that is where it is killed.
		update(t, path, Options{}, whole(3))
		kill(t, c)
		content, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(content) == 0 || string(content) != whole(int(content[0]-'0')) {
			t.Fatalf("%d bytes, which are not whole", len(content))
		}
		update(t, path, Options{}, "mine")
		wantContent(t, path, "mine")
		wantNames(t, dir, "token", ".token.lock")
	}
}

func TestKilledWithTheLockAndHalfATemporary(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	update(t, path, Options{}, "old")
	kill(t, started(t, "hold", path))
	wantContent(t, path, "old")
	wantNames(t, dir, "token", ".token.lock", ".token.tmp")
	update(t, path, Options{}, "new")
	wantContent(t, path, "new")
	wantNames(t, dir, "token", ".token.lock")
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	update(t, path, Options{}, "old")
	out, err := child(t, "full", path).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "limit on the size of files") || !strings.Contains(string(out), "the old content is whole") {
		t.Errorf("the child says %q (%v)", out, err)
	}
	wantContent(t, path, "old")
	wantNames(t, dir, "token", ".token.lock")
}

func TestNoDescriptorsAreLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	update(t, path, Options{}, "old")
	out, err := child(t, "starve", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		for _, want := range []string{dir, "too many files are open", "LimitNOFILE=", "ulimit -n"} {
			if !strings.Contains(line, want) {
				t.Errorf("%q does not say %q", line, want)
			}
		}
	}
	wantNames(t, dir, "token", ".token.lock")
}

// stranger makes c run as a user to whom nothing belongs. An ordinary user is one already.
func stranger(c *exec.Cmd) {
	if os.Geteuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

// public returns a folder that every user can reach, with a copy of this binary for them.
func public(t *testing.T) (dir, self string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "atomicfile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	self = filepath.Join(dir, "self")
	if err := os.WriteFile(self, content, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, self} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir, self
}

func TestForbidden(t *testing.T) {
	outer, self := public(t)
	for _, c := range []struct {
		name, what string
		dir, file  os.FileMode
		owned      bool // by the one who writes
		says       []string
	}{
		{"update in a folder that may not be written", "update", 0o555, 0o644, false, []string{"we run as uid", "ReadWritePaths=-"}},
		{"check of a folder that may not be written", "check", 0o555, 0o644, false, []string{"we run as uid", "ReadWritePaths=-"}},
		{"a folder that may not be entered", "check", 0o000, 0o644, false, []string{"we run as uid", "folder"}},
		{"a file that may not be read", "update", 0o755, 0o000, true, []string{"read", "we run as uid"}},
		{"a file for somebody else", "give 0", 0o755, 0o644, true, []string{"must belong to uid 0", "may not give"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := os.MkdirTemp(outer, "dir")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "token")
			write(t, path, "old", c.file)
			if c.owned && os.Geteuid() == 0 {
				for _, p := range []string{path, dir} {
					if err := os.Chown(p, 65534, 65534); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := os.Chmod(dir, c.dir); err != nil {
				t.Fatal(err)
			}
			cmd := child(t, c.what, path)
			cmd.Path, cmd.Dir = self, "/"
			stranger(cmd)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Error("no error")
			}
			for _, s := range c.says {
				if !strings.Contains(string(out), s) {
					t.Errorf("the child says %q, and not %q", out, s)
				}
			}
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, 0o644); err != nil {
				t.Fatal(err)
			}
			wantContent(t, path, "old")
			if _, err := os.Lstat(filepath.Join(dir, ".token.tmp")); err == nil {
				t.Error("the temporary is still there")
			}
		})
	}
}

// In a folder like /tmp nobody replaces another one's file; a check knows it.
func TestAnotherOnesFileInASharedFolder(t *testing.T) {
	if !asRoot(t) {
		return
	}
	outer, self := public(t)
	dir := filepath.Join(outer, "shared")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "token")
	write(t, path, "old", 0o644)
	if err := os.Chown(path, 0, 65534); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"check", "update", "check 65534", "give 65534"} {
		cmd := child(t, what, path)
		cmd.Path, cmd.Dir = self, "/"
		stranger(cmd)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "as uid 65534") {
			t.Errorf("%s: the child says %q (%v)", what, out, err)
		}
	}
	wantContent(t, path, "old")
	wantNames(t, dir, "token", ".token.lock")
}
