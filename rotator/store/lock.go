package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// HolderKind says what kind of process holds the lock.
type HolderKind string

// The kinds of holder. A daemon waits for a command, which ends soon, but not for another daemon.
const (
	Daemon  HolderKind = "daemon"
	Command HolderKind = "command"
)

// Holder is the process that works on a state, as it describes itself.
type Holder struct {
	Kind    HolderKind `json:"kind"`
	PID     int        `json:"pid"`
	Host    string     `json:"host,omitempty"`
	Command string     `json:"command"` // its name, such as run or rotate; no arguments
	User    string     `json:"user"`
	Since   time.Time  `json:"since"`
	Ready   time.Time  `json:"ready,omitzero"`   // of a daemon: when its first pass was over
	Listen  string     `json:"listen,omitempty"` // of a daemon: where it answers probes
}

// HeldError says that another process holds the lock.
type HeldError struct {
	Dir    string
	Holder Holder // the zero Holder where it did not say who it is
}

func (e *HeldError) Error() string {
	h := e.Holder
	if h.PID == 0 {
		return fmt.Sprintf("another rotatord holds the state in %s", e.Dir)
	}
	s := fmt.Sprintf("another rotatord holds the state in %s: pid %d", e.Dir, h.PID)
	if h.Command != "" {
		s += fmt.Sprintf(" (rotatord %s)", h.Command)
	}
	if h.User != "" {
		s += " of " + h.User
	}
	if !h.Since.IsZero() {
		s += " since " + h.Since.UTC().Format(time.RFC3339)
	}
	return s
}

// Lock is held by the one process that works on a state's tokens. It belongs to the kernel: it
// ends with its process, however that ends.
type Lock struct {
	f *os.File

	mu  sync.Mutex
	who Holder
}

// TakeLock takes the lock of the state in dir, or returns a *HeldError at once. The folder is made
// as by Open, and the same rule on its owner holds. who.PID and who.Host are filled in where they
// are missing.
func TakeLock(ctx context.Context, dir string, who Holder) (*Lock, error) {
	dir, err := enter(dir, os.Geteuid())
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, LockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take the lock: %w", advise(dir, err))
	}
	if err := take(ctx, dir, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if who.PID == 0 {
		who.PID = os.Getpid()
	}
	if who.Host == "" {
		who.Host, _ = os.Hostname() // it is only told to people
	}
	if err := sign(f, who); err != nil {
		return nil, errors.Join(fmt.Errorf("sign the lock: %w", advise(dir, err)), f.Close())
	}
	return &Lock{f: f, who: who}, nil
}

// Describe changes what the lock says of its holder.
func (l *Lock) Describe(change func(*Holder)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.who)
	if err := sign(l.f, l.who); err != nil {
		return fmt.Errorf("sign the lock: %w", err)
	}
	return nil
}

// Who is the holder as the lock describes it.
func (l *Lock) Who() Holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.who
}

// Beat notes for Moved that the holder works. It costs no write to the disk worth counting: it is
// the time of the lock's file.
func (l *Lock) Beat(now time.Time) error { return os.Chtimes(l.f.Name(), now, now) }

// Moved says when the holder of the lock in dir last noted that it works, or took it.
func Moved(dir string) (time.Time, error) {
	info, err := os.Stat(filepath.Join(dir, LockFile))
	if err != nil {
		return time.Time{}, fmt.Errorf("look at the lock: %w", advise(dir, err))
	}
	return info.ModTime(), nil
}

// pause is between two looks at a lock that others look at.
const pause = 5 * time.Millisecond

func take(ctx context.Context, dir string, f *os.File) error {
	for {
		ok, err := flock(f, syscall.LOCK_EX)
		if ok || err != nil {
			return err
		}
		// Whoever asks who holds it has it shared for an instant, and is no holder: holding tells
		// the two apart, since it shares it with one and not with the other.
		h, held, err := holding(f)
		if err != nil {
			return err
		}
		if held {
			return &HeldError{Dir: dir, Holder: h}
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// flock tries to take a lock of a kind; false when others hold one that excludes it.
func flock(f *os.File, how int) (bool, error) {
	for {
		switch err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		default:
			return false, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

// sleep returns early with ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// sign writes who holds the lock into its file, for people.
func sign(f *os.File, who Holder) error {
	text, err := json.Marshal(who)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if _, err := f.WriteAt(text, 0); err != nil { // over what stands there: a full disk has room for that
		return err
	}
	return f.Truncate(int64(len(text)))
}

// WaitLock is TakeLock, but while another process holds the lock and worth says that it is worth
// waiting for (nil: anybody is), it waits, at most for so long. Then it returns the *HeldError.
func WaitLock(ctx context.Context, dir string, who Holder, wait time.Duration, worth func(Holder) bool) (*Lock, error) {
	limit, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		l, err := TakeLock(ctx, dir, who)
		held := (*HeldError)(nil)
		if !errors.As(err, &held) || (worth != nil && !worth(held.Holder)) {
			return l, err
		}
		if sleep(limit, 20*pause) != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, err
		}
	}
}

// Unlock gives the lock back. The file stays.
func (l *Lock) Unlock() error {
	return errors.Join(l.f.Truncate(0), l.f.Close())
}

// Holding says which process holds the lock of the state in dir, without taking it from anybody.
// The zero Holder and true: somebody does who did not say who it is.
func Holding(dir string) (Holder, bool, error) {
	f, err := os.Open(filepath.Join(dir, LockFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Holder{}, false, nil
	case errors.Is(err, fs.ErrPermission):
		return Holder{}, false, forbidden(dir, err)
	case err != nil:
		return Holder{}, false, fmt.Errorf("look at the lock: %w", advise(dir, err))
	}
	defer f.Close() //nolint:errcheck // nothing was written
	return holding(f)
}

func holding(f *os.File) (Holder, bool, error) {
	// A process that has just taken it needs an instant to sign: the text is empty until then.
	for range 40 {
		free, err := flock(f, syscall.LOCK_SH)
		if err != nil {
			return Holder{}, false, err
		}
		if free {
			return Holder{}, false, unlock(f)
		}
		text, err := io.ReadAll(io.NewSectionReader(f, 0, 64<<10))
		if err != nil {
			return Holder{}, false, fmt.Errorf("look at the lock: %w", err)
		}
		var h Holder
		if strings.HasSuffix(string(text), "\n") && json.Unmarshal(text, &h) == nil {
			return h, true, nil
		}
		time.Sleep(pause)
	}
	return Holder{}, true, nil
}

// idle returns a *HeldError when another process works in dir: under its hands nothing is
// migrated. This one may hold the lock itself.
func idle(dir string) error {
	h, held, err := Holding(dir)
	if err != nil || !held {
		return err
	}
	if host, _ := os.Hostname(); h.PID == os.Getpid() && (h.Host == host || h.Host == "") {
		return nil
	}
	return &HeldError{Dir: dir, Holder: h}
}

// lockFolder locks the folder itself until done is called.
func lockFolder(ctx context.Context, dir string) (done func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the state folder: %w", advise(dir, err))
	}
	for {
		ok, err := flock(f, syscall.LOCK_EX)
		if err == nil && !ok {
			err = sleep(ctx, pause)
		}
		switch {
		case err != nil:
			return nil, errors.Join(err, f.Close())
		case ok:
			return func() { f.Close() }, nil //nolint:errcheck // nothing was written
		}
	}
}
