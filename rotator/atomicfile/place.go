package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// place is a name in a folder. The folder is held open, so that nobody can put another one under
// its path while we work in it.
type place struct {
	dir    string // without symlinks
	name   string
	root   *os.Root
	links  []fs.FileInfo // that led here
	shared bool          // everybody may put files into the folder
	locked *os.File      // the lock file, once its lock is held
}

func (p *place) String() string { return filepath.Join(p.dir, p.name) }

func (p *place) close() { p.root.Close() } //nolint:errcheck // nothing is written through it

// maxLinks is how many symlinks in a row are followed.
const maxLinks = 16

// locate finds where path leads to. A symlink is followed only as long as it stays in its folder.
func locate(path string) (*place, error) {
	path = filepath.Clean(path)
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return nil, &openError{path: path, err: err}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &openError{path: path, err: err}
	}
	p := &place{dir: dir, name: filepath.Base(path), root: root}
	if err := p.follow(path); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// follow moves p to the final target of path, and refuses what is no regular file.
func (p *place) follow(path string) error {
	for range maxLinks {
		info, err := p.root.Lstat(p.name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return p.explain("look at", err)
		case info.Mode()&fs.ModeSymlink == 0:
			return p.regular(info)
		}
		p.links = append(p.links, info)
		link, err := p.root.Readlink(p.name)
		if err != nil {
			return p.explain("look at", err)
		}
		// Not cleaned: "sub/../x" is another file than "x" where sub is a symlink itself.
		to, name := filepath.Split(link)
		if !filepath.IsAbs(link) {
			to = p.dir + string(filepath.Separator) + to
		}
		real, err := filepath.EvalSymlinks(to)
		if err != nil || real != p.dir || name == "" || name == "." || name == ".." {
			return fmt.Errorf("%s is a symlink that leads out of its folder: name the file that it leads to instead", path)
		}
		p.name = name
	}
	return fmt.Errorf("%s is a symlink that leads to itself, or by more than %d others: remove it", path, maxLinks)
}

// regular refuses what is in the place of a file and is none.
func (p *place) regular(info fs.FileInfo) error {
	switch m := info.Mode(); {
	case m.IsRegular():
		return nil
	case m.IsDir():
		return fmt.Errorf("%s is a directory: name a file in it, or remove it", p)
	default:
		return fmt.Errorf("%s is no regular file but a special one (%s): name another path, or remove it", p, m.Type())
	}
}

// safe refuses a folder in which somebody else may replace our file. Where the sticky bit is set, as
// in /tmp, only the file's owner may, and the folder's.
func (p *place) safe(w wanted) error {
	info, err := p.root.Stat(".")
	if err != nil {
		return p.explain("look at the folder of", err)
	}
	if info.Mode().Perm()&0o002 == 0 {
		return nil
	}
	if info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("folder %s is writable by everybody, who could replace %s: chmod o-w %[1]s", p.dir, p.name)
	}
	p.shared = true
	if uid := owner(info).uid; uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("folder %s is writable by everybody and belongs to uid %d, who could replace %s: use a folder of your own", p.dir, uid, p.name)
	}
	for _, link := range p.links {
		if err := p.trusted(w, link.Name(), link); err != nil {
			return err
		}
	}
	return nil
}

// trusted refuses what lies in a folder where everybody may put files, and belongs neither to us
// nor to root nor to whom our file shall belong: whoever put it there would keep it, and with it
// what is written, since a file's owner is left as it is.
func (p *place) trusted(w wanted, name string, info fs.FileInfo) error {
	uid, me := owner(info).uid, os.Geteuid()
	if !p.shared || uid == me || uid == 0 || uid == w.uid {
		return nil
	}
	return fmt.Errorf("%s belongs to uid %d, who is neither us (uid %d) nor its owner by configuration, in a folder that everybody may write to: remove it, or use a folder of your own",
		filepath.Join(p.dir, name), uid, me)
}

// replaceable says whether the file that is there now could be renamed over, as far as that can be
// told without doing it.
func (p *place) replaceable(info fs.FileInfo) error {
	f, err := p.root.Open(".")
	if err != nil {
		return p.explain("look at the folder of", err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	folder, err := f.Stat()
	if err != nil {
		return p.explain("look at the folder of", err)
	}
	if isMount(f, p.name) {
		return p.explain("replace", syscall.EBUSY)
	}
	me := os.Geteuid()
	if folder.Mode()&fs.ModeSticky != 0 && me != 0 && owner(info).uid != me && owner(folder).uid != me {
		return p.explain("replace", syscall.EPERM)
	}
	return nil
}

// clear removes a scratch file, if it is there.
func (p *place) clear(name string) error {
	err := p.root.Remove(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.EEXIST):
		return fmt.Errorf("%s is a directory with something in it, where a scratch file has to be: remove it: %w", filepath.Join(p.dir, name), err)
	}
	return err
}

// sync makes a rename in the folder durable, where the file system can do that at all.
func (p *place) sync() error {
	f, err := p.root.Open(".")
	if err == nil {
		if err = f.Sync(); errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
			err = nil
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("sync folder %s: the new content is in place, but a power cut may undo it: %w", p.dir, err)
	}
	return nil
}

// openError says that the folder of a path cannot be entered.
type openError struct {
	path string
	err  error
}

func (e *openError) Error() string {
	s := fmt.Sprintf("open folder %s: %v", filepath.Dir(e.path), e.err)
	switch {
	case noDescriptors(e.err):
		s += " (" + raiseDescriptors + ")"
	case errors.Is(e.err, fs.ErrPermission):
		s += fmt.Sprintf(" (we run as uid %d: let it enter that folder and those above it)", os.Geteuid())
	}
	return s
}

func (e *openError) Unwrap() error { return e.err }

// missingError says that the folder of a path is not there; the system's own words would only say
// it again.
type missingError struct {
	dir string
	err error
}

func (e *missingError) Error() string {
	return fmt.Sprintf("folder %s does not exist: create it with mkdir -p %s (it is not created for you)", e.dir, shellWord(e.dir))
}

func (e *missingError) Unwrap() error { return e.err }

func missingFolder(path string, err error) error {
	return &missingError{dir: filepath.Dir(filepath.Clean(path)), err: err}
}

// shellWord quotes a path for a command that somebody may paste.
func shellWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// raiseDescriptors is what to do when noDescriptors.
const raiseDescriptors = "too many files are open: raise LimitNOFILE= of the systemd unit, or ulimit -n"

// noDescriptors reports whether the process, or the machine, can open no more files.
func noDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// explain adds to an error of the system what it means here and what to do.
func (p *place) explain(doing string, err error) error {
	hint := ""
	is := func(errnos ...error) bool {
		for _, e := range errnos {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case is(syscall.ENOSPC, syscall.EDQUOT):
		hint = "the disk is full, or our quota of it, or it takes no more files: free some space; the old content is whole: "
	case noDescriptors(err):
		hint = raiseDescriptors + "; the old content is whole: "
	case is(syscall.EFBIG):
		hint = "the limit on the size of files is reached (ulimit -f): raise it; the old content is whole: "
	case is(syscall.EROFS):
		hint = fmt.Sprintf("the file system is read-only: mount it writable, or add ReadWritePaths=-%s to the systemd unit and restart it: ", p.dir)
	case is(syscall.EBUSY, syscall.EXDEV):
		hint = fmt.Sprintf("it is probably a single file that is mounted here, which cannot be replaced: mount the folder %s instead: ", p.dir)
	case errors.As(err, new(*ownerError)):
	case doing == "read" && is(syscall.EACCES, syscall.EPERM):
		hint = fmt.Sprintf("we run as uid %d, which may not read it: change its owner or mode: ", os.Geteuid())
	case is(syscall.EACCES, syscall.EPERM):
		hint = fmt.Sprintf("we run as uid %d, which must be able to create and replace files in %s: change its owner or mode, or add ReadWritePaths=-%[2]s to the systemd unit and restart it: ",
			os.Geteuid(), p.dir)
	}
	return fmt.Errorf("%s %s: %s%w", doing, p, hint, err)
}
