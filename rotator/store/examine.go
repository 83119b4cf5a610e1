package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Examination is what a look at a state folder finds.
type Examination struct {
	Missing bool   // there is none yet; the rest is about the folder that it will be made in
	Free    uint64 // bytes of the disk that this user may still write
}

// Examine says whether this process could work on the state in dir, and changes nothing. The error
// says why not.
func Examine(dir string) (Examination, error) {
	var x Examination
	dir, err := filepath.Abs(dir)
	if err != nil {
		return x, err
	}
	where := dir
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		x.Missing, where = true, filepath.Dir(dir)
	} else if err := allowed(dir, os.Geteuid()); err != nil {
		return x, err
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(where, &disk); err != nil {
		return x, fmt.Errorf("the disk of %s: %w", where, err)
	}
	x.Free = disk.Bavail * uint64(disk.Bsize) //nolint:gosec,unconvert // signed on one system, and not on the other
	const write, enter = 2, 1                 // W_OK, X_OK
	if err := syscall.Access(where, write|enter); err != nil {
		return x, fmt.Errorf("write in %s: %w", where, advise(where, err))
	}
	if err := probe(where); err != nil {
		return x, fmt.Errorf("write in %s: %w", where, advise(where, err))
	}
	return x, nil
}
