package atomicfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// poll is between two tries at a lock that another writer holds, which is for milliseconds. The
// kernel's own waiting could not be ended by a context.
const poll = 5 * time.Millisecond

// lock takes the lock of the place until unlock is called.
func (p *place) lock(ctx context.Context, w wanted) (unlock func(), err error) {
	f, err := p.openLock(w)
	if err != nil {
		return nil, p.explain("lock", err)
	}
	var tick *time.Ticker
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case err == nil:
			return func() {
				// Said aloud, because a program that is just being started may still have our
				// descriptors for an instant.
				syscall.Flock(int(f.Fd()), syscall.LOCK_UN) //nolint:errcheck // closing unlocks too
				f.Close()                                   //nolint:errcheck // nothing was written
			}, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, p.explain("lock", errors.Join(err, f.Close()))
		}
		if tick == nil {
			tick = time.NewTicker(poll)
			defer tick.Stop()
		}
		select {
		case <-ctx.Done():
			err := fmt.Errorf("wait for %s, which another writer holds: nothing was written: %w", f.Name(), ctx.Err())
			return nil, errors.Join(err, f.Close())
		case <-tick.C:
		}
	}
}

// openLock opens the lock file, and makes it where there is none. Where a group is wanted for the
// file, a new lock belongs to it too: whoever of that group may write the file may lock it.
func (p *place) openLock(w wanted) (*os.File, error) {
	name := "." + p.name + ".lock"
	f, err := p.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err == nil {
		if w.group == "" {
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
	f, err = p.root.OpenFile(name, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil {
		var named fs.FileInfo
		named, err = p.root.Lstat(name)
		if err == nil && !(os.SameFile(opened, named) && opened.Mode().IsRegular()) {
			err = fmt.Errorf("%s is no regular file: remove it", name)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
