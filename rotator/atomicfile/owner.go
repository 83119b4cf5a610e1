package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// ids are a user and a group. -1 stands for none.
type ids struct{ uid, gid int }

// owner says whom a file belongs to.
func owner(info fs.FileInfo) ids {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return ids{int(st.Uid), int(st.Gid)}
	}
	return ids{-1, -1}
}

// wanted are Options with numbers for names. -1 leaves what is there.
type wanted struct {
	ids
	mode  fs.FileMode
	group string // as it was given
}

func (o Options) resolve() (wanted, error) {
	w := wanted{ids: ids{-1, -1}, mode: o.Mode, group: o.Group}
	if w.mode == 0 {
		w.mode = defaultMode
	}
	if w.mode != w.mode.Perm() {
		return w, fmt.Errorf("mode %v: permission bits alone can be given, such as 0640", w.mode)
	}
	var err error
	if o.Owner != "" {
		w.uid, err = number(o.Owner, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
		if err != nil {
			return w, fmt.Errorf("owner %q is no user of this machine: name one, or its number: %w", o.Owner, err)
		}
	}
	if o.Group != "" {
		w.gid, err = number(o.Group, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
		if err != nil {
			return w, fmt.Errorf("group %q is no group of this machine: name one, or its number: %w", o.Group, err)
		}
	}
	return w, nil
}

// number takes a number as it is and looks up everything else.
func number(s string, lookup func(string) (string, error)) (int, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		if n == 1<<32-1 { // -1 for the system: "leave it"
			return -1, errors.New("that number means nobody at all")
		}
		return int(n), nil
	}
	id, err := lookup(s)
	if err != nil {
		return -1, err
	}
	n, err := strconv.ParseUint(id, 10, 32)
	return int(n), err
}

// met says whether a file looks as it should.
func (w wanted) met(info fs.FileInfo) bool {
	const bits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	is := owner(info)
	return info.Mode()&bits == w.mode && (w.uid < 0 || w.uid == is.uid) && (w.gid < 0 || w.gid == is.gid)
}

// keeping fills in what is to be left as it is: a file that takes another one's place would
// otherwise belong to whoever makes it. info is nil where there is no file yet.
func (w wanted) keeping(info fs.FileInfo) wanted {
	if info == nil {
		return w
	}
	is := owner(info)
	if w.uid < 0 {
		w.uid = is.uid
	}
	if w.gid < 0 {
		w.gid = is.gid
	}
	return w
}

// apply gives a new file its group, mode and owner. The owner comes last: with the file goes the
// right to change it, for a process that may give files away and nothing more.
func (w wanted) apply(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	is := owner(info)
	if w.gid >= 0 && w.gid != is.gid {
		if err := f.Chown(-1, w.gid); err != nil {
			return &ownerError{w: w, err: err}
		}
	}
	if err := f.Chmod(w.mode); err != nil {
		return err
	}
	if w.uid >= 0 && w.uid != is.uid {
		if err := f.Chown(w.uid, -1); err != nil {
			return &ownerError{w: w, err: err}
		}
	}
	if info, err = f.Stat(); err == nil && !w.met(info) {
		err = errors.New("this file system keeps no modes or owners: choose another folder")
	}
	return err
}

// ownerError says that a file cannot be given to somebody.
type ownerError struct {
	w   wanted
	err error
}

func (e *ownerError) Error() string {
	return fmt.Sprintf("it must belong to uid %s and gid %s, and we, as uid %d, may not give it to them: run as root or as that user and in that group, or name another owner and group: %v",
		orAny(e.w.uid), orAny(e.w.gid), os.Geteuid(), e.err)
}

func (e *ownerError) Unwrap() error { return e.err }

func orAny(id int) string {
	if id < 0 {
		return "(any)"
	}
	return strconv.Itoa(id)
}
