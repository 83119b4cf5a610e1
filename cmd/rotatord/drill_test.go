package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const severalTokens = `version: 1
defaults: {scopes: [chatbots:read], schedule: "@daily", overlap: 24h}
tokens:
  - name: bot
    sinks:
      - env_file: {path: app.env, key: BOT_TOKEN}
      - exec: {command: [/bin/sh, -c, "touch ran"]}
  - name: one
    sinks: [env_file: {path: app.env, key: ONE}]
  - name: two
    sinks: [env_file: {path: app.env, key: TWO}]
`

func TestDrillCommand(t *testing.T) {
	s := newStage(t, severalTokens)
	out := s.run(exitOK, "drill")
	says(t, out, "bot\n", "one (and, alike, two)", "push env_file app.env#BOT_TOKEN", "the process dies", "429",
		"SiteGPT is down for 6h", "every sink held a working token all the time")
	var got drillJSON
	if err := json.Unmarshal([]byte(s.run(exitOK, "drill", "two", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Format != 1 || got.Broken || got.Trials < 100 || len(got.Tokens) != 1 || got.Tokens[0].Token != "two" {
		t.Errorf("got format %d, broken %v, %d trials, %d tokens", got.Format, got.Broken, got.Trials, len(got.Tokens))
	}
	s.run(exitUsage, "drill", "no-such-token")
	// It touched nothing.
	files, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files[0].Name() != "rotation.yaml" || s.api.Made() != 0 {
		t.Errorf("after the drill: %v in %s, %d tokens made", files, filepath.Base(s.dir), s.api.Made())
	}
	if strings.Contains(out, s.dir) {
		t.Errorf("the table is wider than it must be:\n%s", out)
	}
}
