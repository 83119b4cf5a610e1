package crashpoint

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// call is a system call that a thread is about to make.
type call struct {
	id   int
	nr   uint64
	args [6]uint64
}

// step says what the call changes; false where it changes nothing.
func (c call) step() (s Step, ok bool) {
	switch c.nr {
	case unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2:
		return c.onFile("write")
	case unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE:
		return c.onFile("truncate")
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		return c.onFile("sync")
	case unix.SYS_FCHMOD, unix.SYS_FCHOWN:
		return c.onFile("mode")
	case unix.SYS_OPENAT:
		return c.open(c.path(0, 1), c.args[2])
	case unix.SYS_RENAMEAT2:
		to := c.path(2, 3)
		return Step{"rename", to}, c.args[4]&unix.RENAME_NOREPLACE == 0 || !there(to)
	case unix.SYS_LINKAT:
		return Step{"link", c.path(2, 3)}, true
	case unix.SYS_SYMLINKAT:
		return Step{"link", c.path(1, 2)}, true
	case unix.SYS_UNLINKAT:
		return c.remove(c.path(0, 1))
	case unix.SYS_MKDIRAT:
		return c.makeFolder(c.path(0, 1))
	case unix.SYS_EXECVE:
		return Step{"run", c.path(-1, 0)}, true
	}
	return c.legacy()
}

func (c call) onFile(what string) (Step, bool) {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.id, int32(c.args[0])))
	return Step{what, path}, err == nil
}

// open is a step where it makes a file, or empties one.
func (c call) open(path string, flags uint64) (Step, bool) {
	exists := there(path)
	switch {
	case flags&unix.O_CREAT != 0 && !exists:
		return Step{"create", path}, true
	case flags&unix.O_TRUNC != 0 && exists && flags&unix.O_EXCL == 0:
		return Step{"truncate", path}, true
	}
	return Step{}, false
}

func (c call) remove(path string) (Step, bool) { return Step{"remove", path}, there(path) }

func (c call) makeFolder(path string) (Step, bool) { return Step{"create", path}, !there(path) }

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// path is the one that two arguments name: a folder's descriptor and a text. A negative index stands
// for the working directory.
func (c call) path(dir, text int) string {
	name := c.text(uintptr(c.args[text]))
	if filepath.IsAbs(name) || name == "" {
		return name
	}
	from := fmt.Sprintf("/proc/%d/cwd", c.id)
	if dir >= 0 && int32(c.args[dir]) != unix.AT_FDCWD {
		from = fmt.Sprintf("/proc/%d/fd/%d", c.id, int32(c.args[dir]))
	}
	base, err := os.Readlink(from)
	if err != nil {
		return ""
	}
	return filepath.Join(base, name)
}

// text reads a string from the thread's memory.
func (c call) text(at uintptr) string {
	var s []byte
	for word := make([]byte, 8); len(s) < unix.PathMax; at += 8 {
		n, err := unix.PtracePeekData(c.id, at, word)
		if err != nil {
			return ""
		}
		if i := bytes.IndexByte(word[:n], 0); i >= 0 {
			return string(append(s, word[:i]...))
		}
		s = append(s, word[:n]...)
	}
	return ""
}

// watched reports whether a change there counts. What SQLite keeps in its index of the log is made
// anew after a crash.
func (t *tracer) watched(path string) bool {
	if strings.HasSuffix(path, "-shm") {
		return false
	}
	for _, w := range t.Watch {
		if path == w || strings.HasPrefix(path, w+"/") {
			return true
		}
	}
	return false
}
