//go:build linux

package main

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/atomicfile/disktest"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
	"github.com/rotatord/rotatord/rotator/store"
)

// What a machine runs out of while the program works: room, a writable disk, descriptors. And what
// may have become of the state meanwhile.

// alone is disktest.Alone with the program at hand.
func alone(t *testing.T) bool {
	t.Helper()
	wanted.Do(func() {})
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return disktest.Alone(t, builtEnv+"="+path)
}

// disk mounts a small disk on a folder of the host.
func (s *stage) disk(name string, kib int) (dir string) {
	s.t.Helper()
	dir = filepath.Join(s.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	disktest.Tmpfs(s.t, dir, kib)
	return dir
}

// creates counts the tokens that were asked for, for an entry.
func (s *stage) creates(entry string) (n int) {
	for _, r := range s.api.Requests() {
		if l, ok := rotator.ParseLabel(r.Label); ok && r.Op == sandbox.OpCreate && l.Entry == entry {
			n++
		}
	}
	return n
}

// intended asserts that each create was in the journal.
func (s *stage) intended() {
	s.t.Helper()
	history := s.run(exitOK, "history", "--format", "jsonl", "--limit", "0")
	for _, r := range s.api.Requests() {
		if r.Op == sandbox.OpCreate && !strings.Contains(history, `"`+r.Label+`"`) {
			s.t.Errorf("no intent of %s is in the journal", r.Label)
		}
	}
}

// small has a on the disk that gets full, c there and elsewhere, and b elsewhere.
const small = `version: 1
api: {requests_per_minute: 60000}
daemon: {settle: 200ms}
defaults: {schedule: "@daily", scopes: [chatbots:read]}
tokens:
  - name: a
    sinks:
      - env_file: {path: disk/app.env, key: A}
      - file: {path: disk/a.env}
  - name: b
    sinks: [{env_file: {path: app.env, key: B}}]
  - name: c
    sinks:
      - env_file: {path: disk/app.env, key: C}
      - env_file: {path: app.env, key: C}
`

// everywhere is what the sinks of small hold.
func (s *stage) everywhere() map[string]string {
	s.t.Helper()
	file, err := os.ReadFile(filepath.Join(s.dir, "disk", "a.env"))
	if err != nil {
		s.t.Error(err)
	}
	out := map[string]string{"a in a.env": strings.TrimSpace(string(file))}
	for _, p := range []place{{"disk/app.env", "A"}, {"disk/app.env", "C"}, {"app.env", "B"}, {"app.env", "C"}} {
		out[strings.ToLower(p.key)+" in "+p.path] = held(filepath.Join(s.dir, p.path), p.key)
	}
	for where, v := range out {
		if !s.accepted(v) {
			s.t.Errorf("%s is no live token", where)
		}
	}
	return out
}

// whole asserts that the sinks hold what they held before, but for those that are named.
func (s *stage) whole(before map[string]string, changed ...string) {
	s.t.Helper()
	for where, v := range s.everywhere() {
		other := false
		for _, c := range changed {
			other = other || strings.HasPrefix(where, c)
		}
		if (v != before[where]) != other {
			s.t.Errorf("%s has changed: %t, want %t", where, v != before[where], other)
		}
	}
}

func TestDiskOfSinksIsFull(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	s := newStage(t, small)
	dir := s.disk("disk", 256)
	s.execute(exitOK, "once")
	before := s.everywhere()
	free := disktest.Fill(t, dir)
	out := s.execute(exitFailed, "rotate", "--all", "--timeout", "1s")
	for range 2 {
		says(t, out, filepath.Join(dir, "app.env"), filepath.Join(dir, "a.env"), "the disk is full", "free some space", "the old content is whole")
		if a, b, c := s.creates("a"), s.creates("b"), s.creates("c"); a != 1 || b != 2 || c != 1 {
			t.Errorf("%d, %d and %d creates, want 1, 2 and 1", a, b, c)
		}
		s.whole(before, "b")
		out = s.execute(exitFailed, "once", "--patience", "1s")
	}
	free()
	s.execute(exitOK, "once")
	if a, b, c := s.creates("a"), s.creates("b"), s.creates("c"); a != 2 || b != 2 || c != 2 {
		t.Errorf("with room again, %d, %d and %d creates, want 2 each", a, b, c)
	}
	s.whole(before, "a", "b", "c")
	s.accounted(3)
	s.clean()
}

// The disk fills up behind the preflight's back: the token is made already.
func TestDiskOfSinksFillsUp(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	s := newStage(t, small)
	dir := s.disk("disk", 256)
	s.execute(exitOK, "once")
	before := s.everywhere()
	end := s.witness(time.Millisecond, s.api.Alive, place{filepath.Join(dir, "app.env"), "A"}, place{filepath.Join(dir, "app.env"), "C"}, place{filepath.Join(s.dir, "app.env"), "C"})
	// The first /me is about the management token.
	s.api.Inject(sandbox.Fault{Op: sandbox.OpMe, Kind: sandbox.Slow, After: 1, Delay: 50 * time.Millisecond})
	cmd, output := s.process(nil, "rotate", "a", "c", "--timeout", "1s")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(20 * time.Second); s.api.Made() < 5 && time.Now().Before(until); time.Sleep(time.Millisecond) {
	}
	free := disktest.Fill(t, dir)
	if code := ended(t, cmd.Wait()); code != exitFailed {
		t.Errorf("rotate ends with %d\n%s", code, output)
	}
	s.api.Clear()
	says(t, output.String(), filepath.Join(dir, "app.env"), filepath.Join(dir, "a.env"), "the disk is full", "free some space", "the old content is whole")
	now := s.everywhere()
	if now["c in app.env"] == before["c in app.env"] {
		t.Error("the sink on the other disk did not get its token")
	}
	s.whole(before, "c in app.env")
	s.execute(exitFailed, "once", "--patience", "1s")
	s.whole(before, "c in app.env")
	free()
	s.execute(exitOK, "once")
	// Nobody has the plaintext of a's second token any more; c's is copied.
	if a, b, c := s.creates("a"), s.creates("b"), s.creates("c"); a != 3 || b != 1 || c != 2 {
		t.Errorf("with room again, %d, %d and %d creates, want 3, 1 and 2", a, b, c)
	}
	s.whole(before, "a", "c")
	if v := s.everywhere(); v["c in app.env"] != now["c in app.env"] || v["c in disk/app.env"] != now["c in app.env"] || v["a in a.env"] != v["a in disk/app.env"] {
		t.Error("the sinks differ")
	}
	end()
	s.accounted(3)
	s.clean()
}

func TestDiskOfSinksIsReadOnly(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	s := newStage(t, small)
	dir := s.disk("disk", 256)
	s.execute(exitOK, "once")
	before := s.everywhere()
	writable := disktest.ReadOnly(t, dir)
	out := s.execute(exitFailed, "rotate", "--all", "--timeout", "1s")
	says(t, out, filepath.Join(dir, "app.env"), "the file system is read-only", "ReadWritePaths=-"+dir)
	if a, b, c := s.creates("a"), s.creates("b"), s.creates("c"); a != 1 || b != 2 || c != 1 {
		t.Errorf("%d, %d and %d creates, want 1, 2 and 1", a, b, c)
	}
	s.whole(before, "b")
	writable()
	s.execute(exitOK, "once")
	if a, b, c := s.creates("a"), s.creates("b"), s.creates("c"); a != 2 || b != 2 || c != 2 {
		t.Errorf("on a writable disk, %d, %d and %d creates, want 2 each", a, b, c)
	}
	s.accounted(3)
}

const onlyOne = `version: 1
api: {requests_per_minute: 60000}
daemon: {settle: 200ms}
defaults: {schedule: "@daily", scopes: [%s]}
tokens:
  - name: a
    sinks: [{env_file: {path: app.env, key: A}}]
`

func TestDiskOfStateIsFullOrReadOnly(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	for _, c := range []struct {
		name  string
		says  string
		spoil func(t *testing.T, dir string) (mend func())
	}{
		{"full", "the disk is full: nothing was written; make room in DIR", disktest.Fill},
		{"read-only", "read-only: mount it writable, or add ReadWritePaths=-DIR", disktest.ReadOnly},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, fmt.Sprintf(onlyOne, "chatbots:read"))
			dir := s.disk("state", 1024)
			s.execute(exitOK, "once")
			first := s.token("A")
			// An edit makes a create due, whether or not a wish can be saved.
			s.write("rotation.yaml", fmt.Sprintf(onlyOne, "leads:read"))
			mend := c.spoil(t, dir)
			for _, args := range [][]string{{"once", "--patience", "1s"}, {"rotate", "a", "--timeout", "1s"}, {"once", "--patience", "1s"}} {
				out := s.execute(exitFailed, args...)
				says(t, out, strings.ReplaceAll(c.says, "DIR", dir))
				if n := strings.Count(out, "\n"); n > 30 {
					t.Errorf("rotatord %v says %d lines", args, n)
				}
			}
			if s.token("A") != first || !s.accepted(first) {
				t.Error("the sink lost its token")
			}
			if c.name == "read-only" && s.creates("a") != 1 {
				t.Errorf("%d creates without a durable intent", s.creates("a")-1)
			}
			s.execute(exitOK, "status")
			mend()
			s.execute(exitOK, "once")
			if s.token("A") == first || !s.accepted(s.token("A")) {
				t.Error("it did not recover by itself")
			}
			s.intended()
			s.accounted(1)
			s.clean()
		})
	}
}

// With the state's disk full under its feet, the daemon makes nothing that it cannot record, does
// not spin, and goes on when there is room.
func TestDiskOfStateFillsUpUnderTheDaemon(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	s := newStage(t, fmt.Sprintf(onlyOne, "chatbots:read"))
	dir := s.disk("state", 1024)
	s.execute(exitOK, "once")
	first := s.token("A")
	end := s.witness(time.Millisecond, s.accepted, place{filepath.Join(s.dir, "app.env"), "A"})
	cmd, _ := s.process(nil, "run")
	output := &lines{}
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	output.wait(t, `"started"`)
	free := disktest.Fill(t, dir)
	s.write("rotation.yaml", fmt.Sprintf(onlyOne, "leads:read")) // a create is due
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	output.wait(t, "next try at")
	time.Sleep(3 * time.Second)
	says(t, output.String(), "the disk is full", "make room in "+dir)
	if n := strings.Count(output.String(), "next try at"); n > 3 {
		t.Errorf("it tried %d times in three seconds:\n%s", n, output)
	}
	if n := s.creates("a"); n != 1 {
		t.Errorf("%d creates without a durable intent:\n%s", n-1, output)
	}
	free()
	for until := time.Now().Add(40 * time.Second); s.token("A") == first; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Errorf("with room again, nothing happens:\n%s", output)
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := ended(t, cmd.Wait()); code != exitOK {
		t.Errorf("the daemon ends with %d:\n%s", code, output)
	}
	end()
	s.output.WriteString(output.String())
	s.execute(exitOK, "once")
	if n := s.creates("a"); n != 2 {
		t.Errorf("%d creates, want 2:\n%s", n, output)
	}
	s.intended()
	s.accounted(1)
	s.clean()
}

// The intent had room, and its outcome has none: the token just made is revoked.
func TestDiskOfStateFillsUpAfterTheIntent(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	s := newStage(t, fmt.Sprintf(onlyOne, "chatbots:read"))
	dir := s.disk("state", 1024)
	s.execute(exitOK, "once")
	first := s.token("A")
	s.api.Inject(sandbox.Fault{Op: sandbox.OpCreate, Kind: sandbox.Slow, Delay: 50 * time.Millisecond, Times: 1})
	cmd, output := s.process(nil, "rotate", "a", "--timeout", "1s")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(20 * time.Second); s.api.Made() < 2 && time.Now().Before(until); time.Sleep(time.Millisecond) {
	}
	free := disktest.Fill(t, dir)
	if code := ended(t, cmd.Wait()); code != exitFailed {
		t.Errorf("rotate ends with %d\n%s", code, output)
	}
	says(t, output.String(), "the disk is full", "make room in "+dir)
	if n := len(s.api.Live()); n != 1 || s.creates("a") != 2 || s.token("A") != first || !s.accepted(first) {
		t.Errorf("%d tokens live after %d creates, want the first one alone after 2:\n%s", n, s.creates("a"), output)
	}
	free()
	s.execute(exitOK, "once")
	if n := s.creates("a"); n != 3 || s.token("A") == first || !s.accepted(s.token("A")) {
		t.Errorf("with room again, %d creates, want 3", n)
	}
	s.intended()
	s.accounted(1)
	s.clean()
}

// limited runs a command that may have so many files open.
func (s *stage) limited(files int, args ...string) (code int, output string) {
	s.t.Helper()
	cmd, out := s.process(nil, args...)
	sh, err := exec.LookPath("sh")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.Args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, files), "sh", cmd.Path}, args...)
	cmd.Path = sh
	code = ended(s.t, cmd.Run())
	s.output.WriteString(out.String())
	return code, out.String()
}

func TestNoDescriptorsAreLeft(t *testing.T) {
	t.Parallel()
	s := newStage(t, small)
	if err := os.Mkdir(filepath.Join(s.dir, "disk"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.execute(exitOK, "once")
	before := s.everywhere()
	files := 8 // with fewer, Go itself gives up
	for ; ; files++ {
		code, out := s.limited(files, "rotate", "b", "--timeout", "1s")
		s.everywhere()
		if code == exitOK {
			break
		}
		if code != exitFailed || files == 64 {
			t.Fatalf("with %d descriptors, rotate ends with %d\n%s", files, code, out)
		}
		if !strings.Contains(out, "too many files are open: raise LimitNOFILE=") && !strings.Contains(out, "too many open files") {
			t.Errorf("with %d descriptors, rotate says\n%s", files, out)
		}
	}
	if files < 12 {
		t.Errorf("%d descriptors were enough: this test tests nothing", files)
	}
	s.execute(exitOK, "once")
	s.whole(before, "b")
	s.intended()
	s.accounted(3)
	s.clean()
}

func TestStateIsDamaged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, path string, whole []byte)
		says  []string
	}{
		{"truncated", func(t *testing.T, path string, whole []byte) {
			put(t, path, whole[:len(whole)/2])
		}, []string{"is damaged", "it was left as it is", "put a backup in its place"}},
		{"cut to a few bytes", func(t *testing.T, path string, whole []byte) {
			put(t, path, whole[:100])
		}, []string{"is damaged", "it was left as it is", "put a backup in its place"}},
		{"empty", func(t *testing.T, path string, _ []byte) {
			put(t, path, nil)
		}, []string{"is damaged: it is empty", "put a backup in its place"}},
		{"garbage", func(t *testing.T, path string, whole []byte) {
			put(t, path, bytes.Repeat([]byte("garbage\n"), len(whole)/8))
		}, []string{"is damaged: it is no database", "put a backup in its place"}},
		{"garbage in its middle", func(t *testing.T, path string, whole []byte) {
			for i := 4096; i < len(whole); i++ {
				whole[i] = 'x'
			}
			put(t, path, whole)
		}, []string{"is damaged", "put a backup in its place"}},
		{"newer", func(t *testing.T, path string, _ []byte) {
			db, err := sql.Open("sqlite", path)
			if err == nil {
				_, err = db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`)
				err = errors.Join(err, db.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}, []string{"has version 999", "run the newer one"}},
		{"another program's", func(t *testing.T, path string, _ []byte) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			db, err := sql.Open("sqlite", path)
			if err == nil {
				_, err = db.Exec(`CREATE TABLE theirs (x)`)
				err = errors.Join(err, db.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}, []string{"not a state of rotatord's", "name another state folder, or move that file away"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, oneToken)
			s.run(exitOK, "once")
			path := filepath.Join(s.dir, "state", store.File)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c.spoil(t, path, bytes.Clone(whole))
			spoilt, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"once"}, {"run"}, {"rotate", "bot"}, {"status"}, {"plan"}, {"history"}} {
				s.run(exitFailed, args...)
				says(t, s.stderr, append(c.says, path)...)
				if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, spoilt) {
					t.Fatalf("rotatord %v changed the file (%v)", args, err)
				}
			}
			if n := s.api.Made(); n != 1 || !s.api.Alive(s.token("BOT_TOKEN")) {
				t.Errorf("%d tokens were made, want 1, alive", n)
			}
			put(t, path, whole) // the backup
			s.run(exitOK, "once")
			s.accounted(1)
		})
	}
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// An env file that is mounted as a single file, as containers do, cannot be replaced: that is found
// before a token is made, and by a reload.
func TestEnvFileIsASingleMount(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	s := newStage(t, fmt.Sprintf(onlyOne, "chatbots:read"))
	s.write("elsewhere.env", "OTHER=1\n")
	s.write("app.env", "")
	disktest.Bind(t, filepath.Join(s.dir, "elsewhere.env"), filepath.Join(s.dir, "app.env"))
	out := s.execute(exitFailed, "once", "--patience", "1s")
	says(t, out, "replace "+filepath.Join(s.dir, "app.env"), "a single file that is mounted here, which cannot be replaced: mount the folder "+s.dir+" instead")
	says(t, s.execute(exitOK, "plan"), "mount the folder "+s.dir+" instead")
	if n := s.api.Made(); n != 0 {
		t.Errorf("%d tokens were made", n)
	}
	if got := s.text("elsewhere.env"); got != "OTHER=1\n" {
		t.Errorf("the mounted file says %q", got)
	}
	s.write("rotation.yaml", strings.ReplaceAll(fmt.Sprintf(onlyOne, "chatbots:read"), "app.env", "fine.env"))
	r := s.background()
	r.lines.wait(t, "promoted")
	s.write("rotation.yaml", strings.ReplaceAll(fmt.Sprintf(onlyOne, "chatbots:read"), "[{env_file: {path: app.env, key: A}}]",
		"[{env_file: {path: fine.env, key: A}}, {env_file: {path: app.env, key: A}}]"))
	says(t, s.execute(exitFailed, "reload"), "a new sink would not take its token: a: ", "mount the folder "+s.dir+" instead")
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
}
