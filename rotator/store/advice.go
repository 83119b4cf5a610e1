package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	sqlite3 "modernc.org/sqlite/lib"
)

// advise says what to do about a state folder in which nothing can be written: its disk is full or
// read-only, or no more files can be opened. Other errors pass through.
func advise(dir string, err error) error {
	cause := err
	switch code(err) {
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR:
		cause = probe(dir) // SQLite says only what failed, not why
	}
	switch {
	case errors.Is(cause, syscall.ENOSPC), errors.Is(cause, syscall.EDQUOT):
		return fmt.Errorf("%w: nothing was written; make room in %s: %w", ErrFull, dir, err)
	case errors.Is(cause, syscall.EROFS):
		return fmt.Errorf("the disk of %s is read-only: mount it writable, or add ReadWritePaths=-%[1]s to the systemd unit: %w", dir, err)
	case errors.Is(cause, syscall.EMFILE), errors.Is(cause, syscall.ENFILE):
		return fmt.Errorf("too many files are open: raise LimitNOFILE= of the systemd unit, or ulimit -n: %w", err)
	}
	return err
}

// probe asks the system why nothing can be written in dir; nil where it sees no reason.
func probe(dir string) error {
	for range 4 { // as many as SQLite needs at once: it has closed its own by now
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // nothing was written
	}
	const write = 2 // W_OK
	if err := syscall.Access(dir, write); errors.Is(err, syscall.EROFS) {
		return err
	}
	var disk syscall.Statfs_t
	if syscall.Statfs(dir, &disk) == nil && disk.Bavail == 0 {
		return syscall.ENOSPC
	}
	return nil
}
