package consumers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/rotator/field"
)

// Flag is an empty file that is made when a token changed, and removed by whoever acts on it, before
// it does: a unit of systemd that watches it with PathExists=, say, and restarts a service. We need
// no right to restart anything.
//
// It is a name in the folder of flags ($RUNTIME_DIRECTORY), of the service NAME.service; or a path.
type Flag string

var flagShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:_.@-]{0,127}$`)

// marker is a file beside the flags that says that the folder is still the one that they were made in.
const marker = ".rotatord-flags"

// Validate reports what is wrong with the name.
func (f Flag) Validate(p field.Problems) {
	switch s := string(f); {
	case s == "":
		p.Errorf("is empty: write the name of the service, like \"bot\" for bot.service, or an absolute path")
	case strings.ContainsFunc(s, unicode.IsControl):
		p.Errorf("holds a control character")
	case strings.HasPrefix(s, "/"):
		if filepath.Clean(s) != s || s == "/" {
			p.Errorf("%q is no plain path of a file: write it without \"..\", \"//\" and a slash at its end", s)
		}
	case !flagShape.MatchString(s):
		p.Errorf("%q is neither a name of letters, digits and \":_.@-\" nor an absolute path", s)
	}
}

func (f Flag) title() string {
	if strings.HasPrefix(string(f), "/") {
		return string(f)
	}
	return strings.TrimSuffix(string(f), ".service") + ".service"
}

func (f Flag) open(dir string) (Consumer, error) {
	path := string(f)
	if !filepath.IsAbs(path) {
		if dir == "" {
			return nil, fmt.Errorf("flag %q has no folder: set RuntimeDirectory= in the systemd unit (or the variable RUNTIME_DIRECTORY), or write an absolute path", f)
		}
		path = filepath.Join(dir, path)
	}
	return &flag{path: path}, nil
}

// Timeout implements Consumer.
func (*flag) Timeout() time.Duration { return quick }

// Check implements Consumer: nothing is made.
func (f *flag) Check(context.Context) (string, error) {
	dir := filepath.Dir(f.path)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", f.noFolder()
	case err != nil:
		return "", fmt.Errorf("look at the folder of flags: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("%s is no folder", dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return "", fmt.Errorf("create files in %s: %w (we run as uid %d)", dir, err, os.Geteuid())
	}
	if _, err := os.Lstat(f.path); err == nil {
		return "a flag can be raised in " + dir + "; it is up now, and waits for whoever takes it", nil
	}
	return "a flag can be raised in " + dir, nil
}

type flag struct {
	path string
	lost bool // the folder is not the one any more that it was raised in
}

// Tell implements Consumer. A flag that is there still says what is to be said: the token was in its
// sinks before we looked, and whoever removes the flag acts after that.
func (f *flag) Tell(_ context.Context, _ []Change) (bool, error) {
	if err := f.look(); err != nil {
		return false, err
	}
	f.lost = false
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	switch {
	case errors.Is(err, fs.ErrExist):
		info, err := os.Lstat(f.path)
		if err == nil && !info.Mode().IsRegular() {
			return false, fmt.Errorf("%s is no regular file: remove it", f.path)
		}
		return false, nil
	case err != nil:
		return false, fmt.Errorf("raise the flag: %w (we run as uid %d, which must be able to create files in %s)", err, os.Geteuid(), filepath.Dir(f.path))
	}
	if err := file.Close(); err != nil {
		return false, fmt.Errorf("raise the flag: %w", err)
	}
	return false, nil
}

// Taken implements Consumer. A folder that went with a service that stopped, or with a boot, took
// its flags along, and proves nothing; also while we run, where it is another service's.
func (f *flag) Taken(context.Context) (Outcome, error) {
	if err := f.look(); err != nil {
		return "", err
	}
	switch _, err := os.Lstat(f.path); {
	case err == nil:
		return Waiting, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("look at the flag: %w", err)
	case f.lost:
		return Lost, nil
	}
	return Taken, nil
}

// look sees whether the folder is the one that the flag was raised in.
func (f *flag) look() error {
	// A marker for each flag: they may be looked at one after another, and each must see it missing.
	name := filepath.Join(filepath.Dir(f.path), marker+"-"+filepath.Base(f.path))
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	switch {
	case errors.Is(err, fs.ErrExist):
	case errors.Is(err, fs.ErrNotExist):
		return f.noFolder()
	case err != nil:
		return fmt.Errorf("look at the folder of flags: %w (we run as uid %d, which must be able to create files in %s)", err, os.Geteuid(), filepath.Dir(f.path))
	default:
		f.lost = true
		if err := file.Close(); err != nil {
			return fmt.Errorf("look at the folder of flags: %w", err)
		}
	}
	return nil
}

func (f *flag) noFolder() error {
	return fmt.Errorf("folder %s does not exist: create it with mkdir -p (it is not created for you), or set RuntimeDirectory= in the systemd unit", filepath.Dir(f.path))
}
