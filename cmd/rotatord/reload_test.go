//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"

	"github.com/rotatord/rotatord/rotator/store"
)

// more is oneToken with a second token, whose env file is at path.
func more(path string) string {
	return oneToken + `  - name: second
    scopes: [chatbots:read]
    schedule: "@daily"
    sinks:
      - env_file: {path: ` + path + `, key: SECOND_TOKEN}
`
}

// text is what a file of the stage says.
func (s *stage) text(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// until waits for something to become true.
func until(t *testing.T, what string, yes func() bool) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); !yes(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

func TestReloadCommand(t *testing.T) {
	t.Parallel()
	s := newStage(t, oneToken)
	s.run(exitFailed, "reload")
	says(t, s.stderr, "no daemon works on "+filepath.Join(s.dir, "state"), "start it with rotatord run")

	m := newManager(t)
	r := s.background("NOTIFY_SOCKET=" + m.path)
	m.wait(1, "READY=1")

	s.write("rotation.yaml", more("app.env"))
	says(t, s.run(exitOK, "reload"), "reloaded: 2 tokens")
	until(t, "the second token is in its sink", func() bool { return held(filepath.Join(s.dir, "app.env"), "SECOND_TOKEN") != "" })

	// A file that is wrong: the exit code of validate, and its words; all stays as it was.
	s.write("rotation.yaml", strings.ReplaceAll(more("app.env"), "schedule:", "scheduel:"))
	s.run(exitUsage, "reload")
	says(t, s.stderr, `did you mean "schedule"?`, "rotation.yaml is refused: ", "the configuration from before stays in force")
	r.lines.wait(t, "reload refused: the configuration from before stays in force")
	status := s.run(exitOK, "status")
	says(t, status, "rotation.yaml is refused", `did you mean "schedule"?`, "In force is the configuration that was accepted ", "rotatord validate", "second")
	s.run(exitFailed, "status", "--check")
	s.run(exitUsage, "plan")
	s.run(exitOK, "rotate", "second")
	says(t, s.stderr, "this goes by the one that was accepted")

	// A sink that would not take its token is no mistake of the file: it is tried again.
	s.write("rotation.yaml", more("gone/app.env"))
	s.run(exitFailed, "reload")
	says(t, s.stderr, "a new sink would not take its token: second: ", "folder "+filepath.Join(s.dir, "gone")+" does not exist", "stays in force")
	var out statusJSON
	if err := json.Unmarshal([]byte(s.run(exitOK, "status", "--json")), &out); err != nil {
		t.Fatal(err)
	}
	if c := out.Configuration; c.Refused == nil || c.Refused.Wrong || c.Refused.Next.IsZero() || !c.Edited || c.Accepted.IsZero() {
		t.Errorf("status --json says of the configuration: %+v", c)
	}

	// What only a restart changes.
	s.write("rotation.yaml", strings.ReplaceAll("instance: other\n"+more("app.env"), "{requests_per_minute: 6000}", `{requests_per_minute: 6000, token: {env: OTHER}}`))
	s.write("rotation.yaml", "monitor: {listen: 127.0.0.1:9090}\n"+s.text("rotation.yaml"))
	s.run(exitUsage, "reload", "--json")
	s.run(exitUsage, "reload")
	says(t, s.stderr, "only a restart changes instance (other, in force is ", "api.token", "monitor.listen (127.0.0.1:9090)")

	s.write("rotation.yaml", more("app.env"))
	says(t, s.run(exitOK, "reload"), "reloaded: 2 tokens")
	if out := s.run(exitOK, "status"); strings.Contains(out, "refused") {
		t.Errorf("after a good reload, status still says:\n%s", out)
	}
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
	s.accounted(2)
}

// An edit is found without a signal: in place, and as Kubernetes swaps a ConfigMap.
func TestEditsAreFound(t *testing.T) {
	t.Parallel()
	s := newStage(t, "")
	mount := filepath.Join(s.dir, "mount")
	project := func(name, text string) { // as the kubelet does: a new folder, and one rename of a link
		t.Helper()
		for _, err := range []error{
			os.MkdirAll(filepath.Join(mount, name), 0o700),
			os.WriteFile(filepath.Join(mount, name, "rotation.yaml"), []byte(text), 0o600),
			os.Symlink(name, filepath.Join(mount, "..data_tmp")),
			os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	project("..2026_1", strings.ReplaceAll(oneToken, "app.env", filepath.Join(s.dir, "app.env")))
	if err := os.Symlink("..data/rotation.yaml", filepath.Join(mount, "rotation.yaml")); err != nil {
		t.Fatal(err)
	}
	r := s.background("ROTATORD_CONFIG=" + filepath.Join(mount, "rotation.yaml"))
	r.lines.wait(t, "promoted")
	project("..2026_2", strings.ReplaceAll(more("app.env"), "app.env", filepath.Join(s.dir, "app.env")))
	r.lines.wait(t, "the configuration was edited")
	r.lines.wait(t, `"reloaded","tokens":2`)
	until(t, "the second token is in its sink", func() bool { return held(filepath.Join(s.dir, "app.env"), "SECOND_TOKEN") != "" })

	// A broken one is refused once, and the file from before is in force again when it is back.
	project("..2026_3", "version: 1\ntokens: [")
	r.lines.wait(t, "reload refused")
	project("..2026_4", strings.ReplaceAll(oneToken, "app.env", filepath.Join(s.dir, "app.env")))
	r.lines.wait(t, `"reloaded","tokens":1`)
	if n := strings.Count(r.lines.String(), "reload refused"); n != 1 {
		t.Errorf("the refusal was logged %d times", n)
	}
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
}

// A daemon that finds its file wrong at the start runs what was accepted last: its tokens live on.
func TestStartWithABadFile(t *testing.T) {
	t.Parallel()
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	first := s.token("BOT_TOKEN")
	s.write("rotation.yaml", strings.ReplaceAll(oneToken, "version: 1", "version: 7"))
	s.run(exitUsage, "once")
	says(t, s.stderr, "version 1 only", "the last accepted one was used")

	m := newManager(t)
	r := s.background("NOTIFY_SOCKET=" + m.path)
	m.wait(1, "READY=1")
	m.wait(1, "STATUS=rotation.yaml is refused, the one of ")
	r.lines.wait(t, "the configuration is refused: the last accepted one runs instead")
	r.lines.wait(t, "version 1 only")
	says(t, s.run(exitOK, "status"), "rotation.yaml is refused: 1 error", "version 1 only", "bot")
	s.run(exitOK, "rotate", "bot")
	if s.token("BOT_TOKEN") == first {
		t.Error("the daemon did not rotate by the last accepted configuration")
	}
	s.write("rotation.yaml", oneToken)
	s.run(exitOK, "reload")
	m.wait(1, "STATUS=1 token current")
	r.signal(syscall.SIGTERM)
	r.end(exitOK)

	// Without the file it is the same; another file has no last accepted one.
	if err := os.Remove(filepath.Join(s.dir, "rotation.yaml")); err != nil {
		t.Fatal(err)
	}
	r = s.background()
	r.lines.wait(t, "the last accepted one runs instead")
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
	s.background("ROTATORD_CONFIG=" + filepath.Join(s.dir, "other.yaml")).end(exitUsage)
	if n := s.api.Made(); n != 2 {
		t.Errorf("%d tokens were made, want 2", n)
	}
}

// A reload does not wait for a rotation, and a rotation does not suffer from a reload.
func TestReloadInTheMiddleOfARotation(t *testing.T) {
	t.Parallel()
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	m := newManager(t)
	r := s.background("NOTIFY_SOCKET=" + m.path)
	m.wait(1, "READY=1")
	s.api.Inject(sandbox.Fault{Op: sandbox.OpMe, Kind: sandbox.Slow, Delay: 200 * time.Millisecond, Times: 1})
	s.run(exitFailed, "rotate", "bot", "--timeout", "1ms")
	until(t, "the token is made", func() bool { return s.api.Made() == 2 })
	s.write("rotation.yaml", more("app.env"))
	s.run(exitOK, "reload")
	until(t, "both are rotated", func() bool { return s.api.Made() == 3 && held(filepath.Join(s.dir, "app.env"), "SECOND_TOKEN") != "" })
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
	s.run(exitOK, "once")
	s.accounted(2)
}

// Who asks for a reload while the daemon starts is told of what came of it, and not of the start: that
// read the file before.
func TestReloadWhileItStarts(t *testing.T) {
	s := newStage(t, oneToken)
	stop := s.daemon()
	held, ok, err := store.Holding(filepath.Join(s.dir, "state"))
	if err != nil || !ok {
		t.Fatal(held, err)
	}
	var st *store.Reader
	until(t, "there is a state", func() bool {
		st, err = store.OpenReader(t.Context(), filepath.Join(s.dir, "state"))
		return err == nil
	})
	var began trial
	until(t, "how the start went is kept", func() (ok bool) {
		began, ok, err = kept[trial](t.Context(), st, metaTrial)
		return ok && err == nil
	})
	if began.Begun.After(held.Since) {
		t.Errorf("the start began at %s, and the state was its own at %s: a reload in between would take it for its own", began.Begun, held.Since)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	stop()
}
