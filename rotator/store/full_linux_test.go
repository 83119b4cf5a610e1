package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/rotator"
)

// A small disk of its own, in a mount namespace that ends with the second process. Where that is
// not permitted, TestFullDisk stands alone.
func TestFullTmpfs(t *testing.T) {
	c := child(t, "full", t.TempDir())
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := c.Output()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), "mount: ") {
		t.Logf("no disk of its own: %v %s", err, out)
		return
	}
	if err != nil || string(out) != "ok\n" {
		t.Errorf("%v: %s", err, out)
	}
}

func fillDisk(ctx context.Context, dir string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	s, err := Open(ctx, filepath.Join(dir, "state"), Options{})
	if err != nil {
		return err
	}
	r := rotator.Record{Name: "a"}
	if err := s.Save(ctx, &r); err != nil {
		return err
	}
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		return err
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	saved := r.Version
	for err = nil; err == nil; saved = r.Version { // the log may have some room left
		r.Problem = strings.Repeat("x", 10_000)
		err = s.Save(ctx, &r, rotator.Event{Kind: rotator.EventWarning})
	}
	if !errors.Is(err, ErrFull) || r.Version != saved {
		return fmt.Errorf("on a full disk: version %d, was %d: %w", r.Version, saved, err)
	}
	if got, _, err := s.Record(ctx, "a"); err != nil || got.Version != saved {
		return fmt.Errorf("stored version %d, want %d: %w", got.Version, saved, err)
	}
	if _, err := Open(ctx, filepath.Join(dir, "other"), Options{}); !errors.Is(err, ErrFull) && !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("made a state on a full disk: %w", err)
	}
	if err := errors.Join(f.Close(), os.Remove(filler)); err != nil {
		return err
	}
	if err := s.Save(ctx, &r); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	o, err := Open(ctx, filepath.Join(dir, "other"), Options{})
	if err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if err := errors.Join(s.Close(), o.Close()); err != nil {
		return err
	}
	fmt.Println("ok")
	return nil
}
