package atomicfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// poll is between two tries at a lock that another writer holds, which is for milliseconds. The
// kernel's own waiting could not be ended by a context.
const poll = 5 * time.Millisecond

// lock takes the lock of the place until unlock is called. Whoever waits for a lock file that is
// removed meanwhile would have a lock that nobody else asks for: he goes on with the new file.
func (p *place) lock(ctx context.Context, w wanted) (unlock func(), err error) {
	for {
		f, err := p.openLock(w)
		if err == nil {
			if err := p.take(ctx, f); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			p.locked = f
			if err = p.stillLocked(); err == nil {
				return func() {
					// Said aloud, because a program that is just being started may still have our
					// descriptors for an instant.
					syscall.Flock(int(f.Fd()), syscall.LOCK_UN) //nolint:errcheck // closing unlocks too
					f.Close()                                   //nolint:errcheck // nothing was written
				}, nil
			}
			err = errors.Join(err, f.Close())
		}
		if !errors.Is(err, errLockGone) {
			return nil, p.explain("lock", err)
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("lock %s: nothing was written: %w", p, err)
		}
	}
}

// errLockGone says that the lock we hold is no longer the one that others ask for.
var errLockGone = errors.New("somebody removed the lock file: leave it alone, it is what keeps two writers apart")

// stillLocked makes sure that the lock file we hold still has its name.
func (p *place) stillLocked() error {
	held, err := p.locked.Stat()
	if err != nil {
		return err
	}
	named, err := p.root.Lstat(p.lockName())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(held, named) {
		return errLockGone
	}
	return err
}

func (p *place) lockName() string { return "." + p.name + ".lock" }

// take waits for the lock of an open lock file.
func (p *place) take(ctx context.Context, f *os.File) error {
	var tick *time.Ticker
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return p.explain("lock", err)
		}
		if tick == nil {
			tick = time.NewTicker(poll)
			defer tick.Stop()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s, which another writer holds: nothing was written: %w", f.Name(), ctx.Err())
		case <-tick.C:
		}
	}
}

// openLock opens the lock file, and makes it where there is none. Where a group is wanted that may
// write the file, a new lock belongs to that group too. To others it is closed, since whoever can
// open a lock file, if only to read, can hold its lock for ever.
func (p *place) openLock(w wanted) (*os.File, error) {
	name := p.lockName()
	f, err := p.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err == nil {
		if w.group == "" || w.mode&0o020 == 0 {
			return f, nil
		}
		if err := f.Chown(-1, w.gid); err != nil {
			// The lock locks all the same. Whether the file itself can have the group is tried,
			// and told, later.
			return f, nil
		}
		if err := f.Chmod(0o660); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	// What is opened is compared with what has the name once the lock is held.
	named, err := p.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errLockGone
	case err != nil:
		return nil, err
	case !named.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file: remove it", filepath.Join(p.dir, name))
	}
	if err := p.trusted(w, name, named); err != nil {
		return nil, err
	}
	f, err = p.root.OpenFile(name, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errLockGone
	}
	return f, err
}
