package atomicfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// isMount says whether name, in a folder, has something mounted on it: no rename can replace it.
// A kernel that cannot tell (before 5.8) says no; then the rename itself says it.
func isMount(folder *os.File, name string) bool {
	var st unix.Statx_t
	err := unix.Statx(int(folder.Fd()), name, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
