package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// daemon runs the daemon until stop is called, and returns when it works.
func (s *stage) daemon() (stop func()) {
	s.t.Helper()
	env := map[string]string{
		"ROTATORD_CONFIG": filepath.Join(s.dir, "rotation.yaml"), "ROTATORD_STATE_DIR": filepath.Join(s.dir, "state"),
		"SITEGPT_API_BASE": s.url, "SITEGPT_API_TOKEN": s.api.Management().Reveal(),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int)
	start := func(errs *bytes.Buffer, args ...string) int {
		return run(ctx, args, environment{
			stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: errs,
			getenv: func(k string) string { return env[k] }, environ: func() []string { return nil }, now: time.Now,
		})
	}
	var errs bytes.Buffer
	go func() { done <- start(&errs, "run") }()
	stop = func() {
		s.t.Helper()
		cancel()
		if code := <-done; code != exitOK {
			s.t.Errorf("the daemon ended with %d: %s", code, &errs)
		}
	}
	for until := time.Now().Add(20 * time.Second); start(&bytes.Buffer{}, "health") != exitOK; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			stop()
			s.t.Fatalf("the daemon did not start: %s", &errs)
		}
	}
	return stop
}

func TestRotateDoesNotWaitForOptionalSinks(t *testing.T) {
	for _, who := range []string{"the command", "the daemon"} {
		t.Run("worked on by "+who, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, oneToken+`      - file: {path: gone/bot.token}
        required: false
`)
			folder, optional := filepath.Join(s.dir, "gone"), filepath.Join(s.dir, "gone", "bot.token")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			s.run(exitOK, "once")
			if err := os.RemoveAll(folder); err != nil {
				t.Fatal(err)
			}
			stop := func() {}
			if who == "the daemon" {
				stop = s.daemon()
			}
			rotate := func(args ...string) string {
				t.Helper()
				before, begun := s.token("BOT_TOKEN"), time.Now()
				out := s.run(exitOK, append([]string{"rotate", "bot", "--timeout", "30s"}, args...)...)
				if took := time.Since(begun); took > 15*time.Second {
					t.Errorf("rotate %v waited for the optional sink: it took %s", args, took)
				}
				if tok := s.token("BOT_TOKEN"); tok == before || !s.api.Alive(tok) {
					t.Error("the required sink holds no new token")
				}
				return out
			}
			says(t, rotate(), "bot: generation 2 is in every required sink")
			says(t, s.stderr, "✗ bot: ", optional, "does not take the token", "mkdir -p "+folder)
			out := rotate("--json")
			var got wishesJSON
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatal(err)
			}
			if len(got.Wishes) != 1 || !got.Wishes[0].Done || len(got.Problems) != 1 || !strings.Contains(got.Problems[0].Sink, optional) {
				t.Errorf("rotate --json says %s", out)
			}
			stop()
			if n := s.api.Made(); n != 3 {
				t.Errorf("%d tokens were made, want 3", n)
			}
		})
	}
}

func TestRotateWaitsForRequiredSinks(t *testing.T) {
	t.Parallel()
	s := newStage(t, "")
	s.write("rotation.yaml", oneToken+"      - exec: {command: [/bin/sh, -c, 'cat >/dev/null; test ! -e "+s.dir+"/closed']}\n")
	s.run(exitOK, "once")
	s.write("closed", "") // a preflight does not see it
	s.run(exitFailed, "rotate", "bot", "--timeout", "1s")
	says(t, s.stderr, "not done yet: bot", "✗ bot: exec ", "does not take the token", "the wish is saved")
	if err := os.Remove(filepath.Join(s.dir, "closed")); err != nil {
		t.Fatal(err)
	}
	s.run(exitOK, "rotate", "bot")
	if n := s.api.Made(); n != 3 || !s.api.Alive(s.token("BOT_TOKEN")) {
		t.Errorf("%d tokens were made, want 3, and the last one in place", n)
	}
}
