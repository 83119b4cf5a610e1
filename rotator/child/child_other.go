//go:build unix && !linux

package child

import (
	"errors"
	"os/exec"
	"syscall"
)

// dieWithParent can do nothing here: there is no death signal.
func dieWithParent(*syscall.SysProcAttr) {}

// awaitExit returns when the program has ended, with the function that says how. There is no
// portable way to be told of the end without reaping.
func awaitExit(cmd *exec.Cmd) (wait func() error) {
	err := cmd.Wait()
	return func() error { return err }
}

// running reports whether the group still has a member.
func running(group int) bool { return !errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) }
