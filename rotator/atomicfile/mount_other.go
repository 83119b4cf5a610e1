//go:build !linux

package atomicfile

import "os"

// isMount cannot tell here. Only Linux mounts single files.
func isMount(*os.File, string) bool { return false }
