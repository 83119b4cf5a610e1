//go:build !linux

package main

import (
	"errors"
	"fmt"
	"syscall"
)

// keepMemory keeps plaintexts out of core files; the rest is left to the system's own rules.
func keepMemory() error {
	err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	if err != nil && !errors.Is(err, syscall.ENOSYS) {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
