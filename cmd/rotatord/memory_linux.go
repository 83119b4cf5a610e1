package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// keepMemory keeps this process's memory, which holds plaintexts, to itself: no core file is written
// when it crashes, and no other process of the same user may read it or attach a debugger.
func keepMemory() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep the memory from other processes: %w", err)
	}
	return nil
}
