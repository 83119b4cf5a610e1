package disktest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const aloneEnv = "DISKTEST_ALONE"

// Alone reports whether the test runs in a process that has its mounts for itself, so that what it
// mounts is seen by nobody else and ends with it. Where it does not, the test is run in such a
// process, with env on top of the environment, and fails if it failed there: return then.
//
// It takes root, or a system that lets users have namespaces. Without either the test is skipped,
// but fails where CI is set.
func Alone(t *testing.T, env ...string) bool {
	t.Helper()
	if os.Getenv(aloneEnv) == t.Name() {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatalf("keep our mounts to ourselves: %v", err)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(t.Name(), "/")
	for i, p := range parts {
		parts[i] = "^" + p + "$"
	}
	args := []string{"-test.run=" + strings.Join(parts, "/"), "-test.count=1"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(append(os.Environ(), aloneEnv+"="+t.Name()), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		if testing.Verbose() {
			t.Logf("in a process of its own:\n%s", out)
		}
	case errors.As(err, &exit):
		t.Errorf("in a process of its own: %v\n%s", err, out)
	case os.Getenv("CI") == "" && os.Geteuid() != 0:
		t.Skipf("this user gets no mounts of its own: %v", err)
	default:
		t.Fatalf("start a process with mounts of its own: %v", err)
	}
	return false
}

// Tmpfs mounts an empty disk of so many KiB on dir until the test ends.
func Tmpfs(t *testing.T, dir string, kib int) {
	t.Helper()
	mounted(t, dir, syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dk,mode=0755", kib)))
}

// Bind mounts the file or folder at from on the one at to until the test ends.
func Bind(t *testing.T, from, to string) {
	t.Helper()
	mounted(t, to, syscall.Mount(from, to, "", syscall.MS_BIND, ""))
}

func mounted(t *testing.T, on string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("mount on %s: %v", on, err)
	}
	t.Cleanup(func() { syscall.Unmount(on, syscall.MNT_DETACH) }) //nolint:errcheck // the process ends with its mounts
}

// ReadOnly makes the disk on dir read-only until writable is called.
func ReadOnly(t *testing.T, dir string) (writable func()) {
	t.Helper()
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatalf("mount %s again: %v", dir, err)
		}
	}
	remount(syscall.MS_RDONLY)
	return func() { t.Helper(); remount(0) }
}

// Fill writes a file into dir until its disk is full. What is free after that is less than 4 KiB.
// free makes room again.
func Fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill %s: %v", dir, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
