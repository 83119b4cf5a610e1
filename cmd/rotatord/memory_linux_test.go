package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A running rotatord writes no core file, and another process of its user cannot look into it.
func TestMemoryIsKept(t *testing.T) {
	wanted.Do(func() {})
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "identify", "--offline") // it waits for its standard input
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0
	if root { // as root everything could be read anyway: only as somebody else there is something to see
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		for dir := path; dir != "/tmp" && dir != "/"; dir = dir[:strings.LastIndex(dir, "/")] {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() //nolint:errcheck // it ends without a token
	defer in.Close()
	proc := "/proc/" + strconv.Itoa(cmd.Process.Pid)
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		limits, err := os.ReadFile(proc + "/limits")
		if err != nil {
			t.Fatal(err)
		}
		ready := false
		for line := range strings.Lines(string(limits)) {
			if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") {
				ready = f[4] == "0" && f[5] == "0"
			}
		}
		st, err := os.Stat(proc + "/mem")
		if err != nil {
			t.Fatal(err)
		}
		// The kernel gives what a process must not share to root.
		owner := st.Sys().(*syscall.Stat_t).Uid
		if ready && owner == 0 {
			if !root {
				if _, err := os.ReadFile(proc + "/environ"); !errors.Is(err, fs.ErrPermission) {
					t.Errorf("read another process's environment: %v", err)
				}
			}
			return
		}
		if time.Now().After(until) {
			t.Fatalf("core files forbidden: %v; the memory belongs to uid %d, want root", ready, owner)
		}
	}
}
