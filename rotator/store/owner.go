package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// OwnerError refuses to work on a state as another user than its owner: what that user left in
// the folder would lock its owner out.
type OwnerError struct {
	Dir      string // the state folder
	Path     string // what belongs to Owner: Dir, or a file in it
	Owner    string // a name, or the number where it has none
	OwnerUID int
	User     string // who tried
	UID      int
}

func (e *OwnerError) Error() string {
	sudo := "sudo -u " + e.Owner + " …"
	if e.OwnerUID == 0 {
		sudo = "sudo …"
	}
	give := fmt.Sprintf("sudo chown -R %s %s", e.User, quote(e.Dir))
	switch {
	case e.Path != e.Dir:
		return fmt.Sprintf("%s belongs to %s, not to %s: run this command as that user (%s), or give the state to this one (%s)",
			e.Path, e.Owner, e.User, sudo, give)
	case e.OwnerUID == 0:
		return fmt.Sprintf("the state in %s belongs to root: run this command as that user (%s), or give the state to %s (%s)",
			e.Dir, sudo, e.User, give)
	default:
		return fmt.Sprintf("the state in %s belongs to %s: run this command as that user (%s)", e.Dir, e.Owner, sudo)
	}
}

var plainPath = regexp.MustCompile(`^[A-Za-z0-9_./@%+=:,-]+$`)

// quote writes a path as a shell takes it.
func quote(path string) string {
	if plainPath.MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

func uid(st fs.FileInfo) int {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

func ownerError(dir, path string, owner, euid int) *OwnerError {
	return &OwnerError{
		Dir: dir, Path: path,
		Owner: userName(owner), OwnerUID: owner, User: userName(euid), UID: euid,
	}
}

// enter makes the state folder if it is missing, and makes sure that euid may work in it: what it
// will leave there must belong to the state's owner. It returns the folder's absolute path.
func enter(dir string, euid int) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		if err := syncPath(filepath.Dir(dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return "", fmt.Errorf("make the state folder: %w", err)
		}
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("make the state folder %s: %s does not exist: make that one first, or name another state folder", dir, filepath.Dir(dir))
	case !errors.Is(err, fs.ErrExist):
		if _, missing := os.Stat(dir); missing == nil {
			break // it is there, on a file system that takes no new folders
		}
		return "", fmt.Errorf("make the state folder %s for %s: %w", dir, userName(euid), advise(filepath.Dir(dir), err))
	}
	return dir, allowed(dir, euid)
}

// allowed says why euid may not work in the state folder dir.
func allowed(dir string, euid int) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("the state folder: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("the state folder %s is not a folder: name another one", dir)
	}
	// A mounted volume may belong to root and be handed to its user by group: then the files
	// tell. root itself is never such a user.
	if owner := uid(st); owner != euid && (euid == 0 || st.Mode().Perm()&0o022 == 0) {
		return ownerError(dir, dir, owner, euid)
	}
	for _, name := range []string{File, File + "-wal", File + "-shm", LockFile} {
		path := filepath.Join(dir, name)
		st, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("the state folder: %w", err)
		case !st.Mode().IsRegular():
			return fmt.Errorf("%s is not a regular file: move it away, or name another state folder", path)
		case uid(st) != euid:
			return ownerError(dir, path, uid(st), euid)
		}
	}
	return nil
}

// forbidden names the user who may look into dir, where the system says only that this one may not.
func forbidden(dir string, err error) error {
	st, serr := os.Stat(dir)
	if serr != nil || uid(st) == os.Geteuid() {
		return fmt.Errorf("the state in %s cannot be read: %w", dir, err)
	}
	return ownerError(dir, dir, uid(st), os.Geteuid())
}
