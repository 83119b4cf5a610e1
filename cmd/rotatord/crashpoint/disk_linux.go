package crashpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// disk knows what of the watched folders has reached it for certain.
type disk struct {
	watch   []string
	folders map[string]listing
	files   map[uint64]*image // by inode
	begun   int               // syncs so far
}

// listing is what a folder had when it was last synced.
type listing struct {
	names map[string]uint64 // to inodes
	sync  int               // which sync that was: of two at once, the one that began later covers more
}

// image is one file.
type image struct {
	open   *os.File // keeps the inode, also when its last name is gone, so that its number names no other file
	synced []byte   // what the last sync covered
	sync   int      // which one that was
	mode   fs.FileMode
	uid    int
	gid    int
}

// newDisk takes all that there is as synced.
func newDisk(watch []string) (*disk, error) {
	d := &disk{watch: watch, folders: map[string]listing{}, files: map[uint64]*image{}}
	return d, d.walk(func(folder string) error {
		names, err := d.names(folder)
		if err != nil {
			return err
		}
		d.folders[folder] = listing{names: names}
		for _, ino := range names {
			done, err := d.files[ino].begin(0)
			if err != nil {
				return err
			}
			done()
		}
		return nil
	})
}

// walk calls f for each folder that there is.
func (d *disk) walk(f func(folder string) error) error {
	for _, w := range d.watch {
		err := filepath.WalkDir(w, func(path string, e fs.DirEntry, err error) error {
			switch {
			case path == w && errors.Is(err, fs.ErrNotExist):
				return nil // it is still to be made
			case err != nil || !e.IsDir():
				return err
			}
			return f(path)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// names returns the regular files of a folder, and gets to know those that are new.
func (d *disk) names(folder string) (map[string]uint64, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	names := map[string]uint64{}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		f, err := os.Open(filepath.Join(folder, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			return d.names(folder) // another thread was just at it
		}
		if err != nil {
			return nil, err
		}
		ino, err := d.know(f)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		names[e.Name()] = ino
	}
	return names, nil
}

// know takes an open file for what the inode is kept by, or closes it.
func (d *disk) know(f *os.File) (uint64, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	if d.files[st.Ino] != nil {
		return st.Ino, f.Close()
	}
	d.files[st.Ino] = &image{open: f, mode: 0o600, uid: int(st.Uid), gid: int(st.Gid)}
	return st.Ino, nil
}

// sync is called when a thread begins to sync what f is; done, when it has succeeded. What is written
// in between may be lost.
func (d *disk) sync(f *os.File) (done func(), err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	d.begun++
	now := d.begun
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if info.IsDir() {
		folder, err := os.Readlink(path)
		if err != nil {
			return nil, err
		}
		names, err := d.names(folder)
		return func() {
			if d.folders[folder].sync < now {
				d.folders[folder] = listing{names, now}
			}
		}, err
	}
	again, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	ino, err := d.know(again)
	if err != nil {
		return nil, err
	}
	return d.files[ino].begin(now)
}

// begin is the sync of one file.
func (i *image) begin(now int) (done func(), err error) {
	content, err := i.now()
	if err != nil {
		return nil, err
	}
	info, err := i.open.Stat()
	if err != nil {
		return nil, err
	}
	return func() {
		if i.sync <= now {
			i.synced, i.mode, i.sync = content, info.Mode().Perm(), now
		}
	}, nil
}

// now is what the file holds.
func (i *image) now() ([]byte, error) {
	info, err := i.open.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, info.Size())
	n, err := i.open.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

// fail leaves in the folders what a power cut leaves.
func (d *disk) fail(p Power) error {
	return d.walk(func(folder string) error {
		current, err := d.names(folder)
		if err != nil {
			return err
		}
		left := current
		if p != LoseData {
			left = d.folders[folder].names
		}
		content := map[string][]byte{}
		for name, ino := range left {
			content[name] = d.files[ino].synced
			if p == LoseNames {
				if content[name], err = d.files[ino].now(); err != nil {
					return err
				}
			}
		}
		for name := range current {
			if _, stays := left[name]; stays {
				continue
			}
			if err := os.Remove(filepath.Join(folder, name)); err != nil {
				return err
			}
		}
		for name, ino := range left {
			if err := d.files[ino].put(filepath.Join(folder, name), content[name]); err != nil {
				return err
			}
		}
		return nil
	})
}

// put leaves a content under a name, in one go: who looks on sees either what was there or what the
// power cut has left.
func (i *image) put(path string, content []byte) error {
	scratch := path + ".crashpoint"
	if err := os.WriteFile(scratch, content, 0o600); err != nil {
		return err
	}
	return errors.Join(os.Lchown(scratch, i.uid, i.gid), os.Chmod(scratch, i.mode), os.Rename(scratch, path))
}
