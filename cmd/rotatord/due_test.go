package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const monthlyToken = `version: 1
tokens:
  - name: bot
    scopes: [chatbots:read]
    schedule: "0 3 1 * *"
    sinks: [{env_file: {path: app.env, key: BOT_TOKEN}}]
`

// The daemon, plan, simulate and validate ask one function when a token is due: where that one says
// an hour later, all four do, and by exactly an hour.
func TestAllAskOneFunctionForDueTimes(t *testing.T) {
	wanted.Do(func() {})
	as, err := built()
	if err != nil {
		t.Fatal(err)
	}
	timing, err := filepath.Abs("../../rotator/timing.go")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(timing)
	if err != nil {
		t.Fatal(err)
	}
	const last = "\treturn tick.Add(t.share(name))\n"
	if strings.Count(string(text), last) != 1 {
		t.Fatalf("%s has changed: this test looks for the last line of due, %q", timing, last)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		timing: write("timing.go", strings.Replace(string(text), last, "\treturn tick.Add(t.share(name) + time.Hour)\n", 1)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	later := filepath.Join(dir, "rotatord")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", write("overlay.json", string(overlay)), "-o", later, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	normal, shifted := dueTimes(t, as), dueTimes(t, later)
	for who, at := range normal {
		if at.IsZero() {
			t.Errorf("%s says no due time", who)
		}
		if moved := shifted[who].Sub(at); moved != time.Hour {
			t.Errorf("%s: the one function moved by an hour, and this moved by %s, from %s to %s", who, moved, at, shifted[who])
		}
		if !at.Equal(normal["validate"]) {
			t.Errorf("%s says %s, and validate %s", who, at, normal["validate"])
		}
	}
}

// dueTimes is when a program says that the first token of a new host is to be succeeded.
func dueTimes(t *testing.T, program string) map[string]time.Time {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rotation.yaml"), []byte(monthlyToken), 0o600); err != nil {
		t.Fatal(err)
	}
	command := func(ctx context.Context, args ...string) *exec.Cmd {
		c := exec.CommandContext(ctx, program, args...)
		c.Dir, c.Env = dir, []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "ROTATORD_STATE_DIR=" + filepath.Join(dir, "state")}
		return c
	}
	ask := func(into any, args ...string) bool {
		out, err := command(t.Context(), args...).Output()
		return err == nil && json.Unmarshal(out, into) == nil
	}
	due := map[string]time.Time{}

	var promised struct {
		Tokens []struct {
			Next []time.Time `json:"next_rotations"`
		} `json:"tokens"`
	}
	if !ask(&promised, "validate", "--json") || len(promised.Tokens) != 1 || len(promised.Tokens[0].Next) == 0 {
		t.Fatalf("validate: %+v", promised)
	}
	due["validate"] = promised.Tokens[0].Next[0]

	var plan struct {
		Tokens []planned `json:"tokens"`
	}
	if !ask(&plan, "plan", "--offline", "--json") || len(plan.Tokens) != 1 {
		t.Fatalf("plan: %+v", plan)
	}
	due["plan"] = plan.Tokens[0].Next

	var played simulated
	if !ask(&played, "simulate", "--until", "70d", "--json") || len(played.Tokens) != 1 || len(played.Tokens[0].Lives) < 2 {
		t.Fatalf("simulate: %+v", played)
	}
	due["simulate"] = played.Tokens[0].Lives[1].Created

	ctx, stop := context.WithCancel(t.Context())
	daemon := command(ctx, "run", "--sandbox")
	daemon.Cancel = func() error { return daemon.Process.Signal(os.Interrupt) }
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	var status statusJSON
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && due["daemon"].IsZero(); time.Sleep(50 * time.Millisecond) {
		if ask(&status, "status", "--sandbox", "--json") && len(status.Tokens) == 1 {
			due["daemon"] = status.Tokens[0].Planned
		}
	}
	stop()
	daemon.Wait() //nolint:errcheck // it was interrupted
	return due
}
