package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/rotator/store"
)

func TestExamineChangesNothing(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "state")
	x, err := store.Examine(dir)
	if err != nil || !x.Missing || x.Free == 0 {
		t.Errorf("no state yet: %+v, %v", x, err)
	}
	if all, _ := os.ReadDir(parent); len(all) != 0 {
		t.Errorf("looking has made %v", all)
	}
	if _, err := store.Examine(filepath.Join(parent, "gone", "state")); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("no folder to make it in: %v", err)
	}
	s, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if x, err := store.Examine(dir); err != nil || x.Missing || x.Free == 0 {
		t.Errorf("a state: %+v, %v", x, err)
	}
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Examine(file); err == nil || !strings.Contains(err.Error(), "is not a folder: name another one") {
		t.Errorf("a file: %v", err)
	}
}
