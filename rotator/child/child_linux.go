package child

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent lets the kernel kill the program when the daemon dies without a word.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// awaitExit returns when the program has ended, with the function that reaps it. Until that is
// called, the group's number cannot be given to anybody else, so the group can be killed safely.
func awaitExit(cmd *exec.Cmd) (wait func() error) {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return cmd.Wait
		}
	}
}

// running reports whether a process of the group is still more than an entry that waits to be
// reaped. Only /proc tells: a signal reaches those entries too.
func running(group int) bool {
	if errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) {
		return false
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return false
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return false
	}
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has just gone
		}
		// PID (NAME) STATE PARENT GROUP …, and NAME may hold anything.
		f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(f) < 3 || string(f[2]) != strconv.Itoa(group) {
			continue
		}
		if s := f[0][0]; s != 'Z' && s != 'X' {
			return true
		}
	}
	return false
}
