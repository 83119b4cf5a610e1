// Package atomicfile changes a file that others read, so that a reader sees the old content or the
// new one, whole, whatever happens: a crash, a full disk, a power cut, two writers at once.
//
// Writers take turns by a lock (flock) on ".NAME.lock" beside the file. That lock file is made once
// and never renamed or removed, and its lock belongs to the kernel: it ends with its process. A
// lock on the file itself would not do, because every change puts another file in its place. Any
// other program that takes the same lock is safe with this one. Where somebody removes the lock
// file all the same, whoever waited for it goes on with the new one, and whoever held it writes
// nothing more.
//
// A change is written to ".NAME.tmp", which has its mode and owner before it gets its real name;
// one that a crash has left behind is removed by the next change. A hard link to the file keeps
// the old content.
package atomicfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// MaxSize is the largest content that is read or written, in bytes. What is larger is no file of
// secrets but a wrong path.
const MaxSize = 1 << 20

// defaultMode is what a file gets that nobody named a mode for.
const defaultMode fs.FileMode = 0o600

// Options say what the file looks like after a change.
type Options struct {
	// Mode holds the permission bits wanted, whatever the umask says. 0: 0600.
	Mode fs.FileMode
	// Owner and Group are names or numbers. "" leaves what the file has; a new file belongs to
	// whoever makes it, and to the group of a setgid folder.
	Owner, Group string
}

// Update replaces the content of the file at path by what change makes of it. Under the lock, which
// it waits for as long as ctx allows, it gives change the old content, which change must not
// modify (nil, false where there is no file). An error of change is returned as it is, and nothing
// is written.
//
// nil: a reader sees the new content, and it survives a power cut. Nothing is written where content,
// mode and owner are right already. After an error the old file is in place, whole, unless the
// error says that the folder could not be synced. Nothing is written after ctx ended.
//
// It refuses what it would spoil: a directory, a device or a pipe, a symlink that leads out of its
// folder (one that stays in it is followed), a folder in which everybody may replace files. In one
// like /tmp, where everybody may add files but replace only his own, it refuses files that somebody
// else put there. It makes no folders.
func Update(ctx context.Context, path string, o Options, change func(old []byte, exists bool) ([]byte, error)) error {
	return withLock(ctx, path, o, func(p *place, w wanted) error {
		old, info, err := p.read()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return p.explain("read", err)
		}
		exists := err == nil
		if exists {
			if err := p.trusted(w, p.name, info); err != nil {
				return err
			}
		}
		content, err := change(old, exists)
		if err != nil {
			return err
		}
		if len(content) > MaxSize {
			return fmt.Errorf("write %s: %d bytes are more than the %d that are allowed", p, len(content), MaxSize)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("write %s: nothing was written: %w", p, err)
		}
		if exists && bytes.Equal(old, content) && w.met(info) {
			return p.settle()
		}
		return p.replace(ctx, p.name, content, w.keeping(info))
	})
}

// Check says whether an Update would work now. It does on a scratch file in the same folder
// whatever Update does to the real one (lock, create, write, chown, chmod, sync, rename), shows
// nothing under the real name, and leaves nothing but the lock file.
func Check(ctx context.Context, path string, o Options) error {
	return withLock(ctx, path, o, func(p *place, w wanted) error {
		old, info, err := p.read()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return p.explain("read", err)
		}
		if err == nil {
			if err := errors.Join(p.trusted(w, p.name, info), p.replaceable(info)); err != nil {
				return err
			}
		}
		scratch := "." + p.name + ".check"
		if err := p.clear(scratch); err != nil { // of a check that was killed
			return p.explain("remove a leftover of", err)
		}
		// What it is renamed over, as over the file that exists.
		f, err := p.root.OpenFile(scratch, createFlags, 0o600)
		if err != nil {
			return p.explain("try to write", err)
		}
		room := make([]byte, len(old)+4096) // zeros: is there room for a little more than now?
		err = f.Close()
		if err == nil {
			err = p.replace(ctx, scratch, room, w.keeping(info))
		}
		return errors.Join(err, p.clear(scratch))
	})
}

// Read returns the content of the file at path, and an error for which errors.Is(err,
// fs.ErrNotExist) holds where there is no file or no folder. It needs no lock: a file is only ever
// replaced whole. What Update refuses to replace because of its kind, Read refuses to read.
func Read(path string) ([]byte, error) {
	p, err := locate(path)
	if err != nil {
		return nil, err
	}
	defer p.close()
	content, _, err := p.read()
	if err != nil {
		return nil, p.explain("read", err)
	}
	return content, nil
}

// withLock calls f for the place that path leads to, under its lock.
func withLock(ctx context.Context, path string, o Options, f func(*place, wanted) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	w, err := o.resolve()
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	p, err := locate(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missingFolder(path, err)
	case err != nil:
		return err
	}
	defer p.close()
	if err := p.safe(w); err != nil {
		return err
	}
	unlock, err := p.lock(ctx, w)
	if err != nil {
		return err
	}
	defer unlock()
	return f(p, w)
}

const createFlags = os.O_CREATE | os.O_EXCL | os.O_WRONLY | syscall.O_NOFOLLOW

// replace puts content under name, by a temporary file that has everything right before it is
// renamed. The temporary is gone afterwards, in any case.
func (p *place) replace(ctx context.Context, name string, content []byte, w wanted) (err error) {
	tmp := "." + p.name + ".tmp"
	if err := p.stillLocked(); err != nil {
		return p.explain("write", err)
	}
	if err := p.clear(tmp); err != nil { // we have the lock: whoever made it is dead
		return p.explain("remove a leftover of", err)
	}
	f, err := p.root.OpenFile(tmp, createFlags, 0o600)
	if err != nil {
		return p.explain("write", err)
	}
	defer func() {
		if err != nil && !errors.Is(err, errLockGone) { // else it may be another writer's by now
			err = errors.Join(err, p.clear(tmp))
		}
	}()
	if err := fill(f, content, w); err != nil {
		return p.explain("write", errors.Join(err, f.Close()))
	}
	if err := f.Close(); err != nil {
		return p.explain("write", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write %s: nothing was written: %w", p, err)
	}
	if err := p.stillLocked(); err != nil {
		return p.explain("write", err)
	}
	if err := p.root.Rename(tmp, name); err != nil {
		return p.explain("replace", err)
	}
	return p.sync()
}

// fill makes f what the real file shall be, down to the disk.
func fill(f *os.File, content []byte, w wanted) error {
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := w.apply(f); err != nil {
		return err
	}
	return f.Sync()
}

// settle makes durable what is right already: whoever wrote it may have died before he could.
func (p *place) settle() error {
	f, err := p.root.OpenFile(p.name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return p.explain("sync", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return p.explain("sync", err)
	}
	return p.sync()
}

// read returns the content of the real file, and what it looks like.
func (p *place) read() ([]byte, fs.FileInfo, error) {
	// Without O_NONBLOCK, opening a pipe that was put here in this instant would wait for ever.
	f, err := p.root.OpenFile(p.name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if err := p.regular(info); err != nil {
		return nil, nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, nil, err
	}
	if len(content) > MaxSize {
		return nil, nil, fmt.Errorf("it holds more than %d bytes: is this the right file?", MaxSize)
	}
	return content, info, nil
}
