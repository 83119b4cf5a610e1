//go:build linux

package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the pictures and pages in docs")

// Every picture in docs/time.md is what the command below it draws.
func TestThePicturesOfTime(t *testing.T) {
	const guide = "../../docs/time.md"
	page, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(page, []byte("\n")); n > 200 {
		t.Errorf("%d lines: who reads them?", n)
	}
	drawn := map[string]bool{}
	for _, block := range fenced(t, guide, "sh") {
		args := strings.Fields(strings.TrimPrefix(strings.TrimSpace(block), "rotatord "))
		if len(args) < 2 || args[len(args)-2] != "--svg" {
			t.Errorf("this draws nothing: %s", block)
			continue
		}
		name := args[len(args)-1]
		path := filepath.Join(t.TempDir(), "new.svg")
		args[len(args)-1] = path
		for i := range args {
			if args[i] == "--config" {
				args[i+1] = filepath.Join("../..", args[i+1])
			}
		}
		want := exitOK
		if strings.Contains(name, "70h") { // more than margin and overlap
			want = exitFailed
		}
		newStage(t, oneToken).run(want, args...)
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		drawn[name] = true
		if !bytes.Contains(page, []byte("]("+strings.TrimPrefix(name, "docs/")+")")) {
			t.Errorf("%s is drawn and not shown", name)
		}
		committed := filepath.Join("../..", name)
		if *update {
			if err := os.WriteFile(committed, got, 0o644); err != nil { //nolint:gosec // a picture without secrets
				t.Fatal(err)
			}
		}
		if old, err := os.ReadFile(committed); err != nil || !bytes.Equal(old, got) {
			t.Errorf("%s is not what its command draws (%v): go test ./cmd/rotatord -run Pictures -update", name, err)
		}
	}
	all, err := filepath.Glob("../../docs/time/*.svg")
	if err != nil || len(all) != len(drawn) || len(all) < 8 {
		t.Errorf("%d pictures, %d drawn, %v", len(all), len(drawn), err)
	}
}
