package crashpoint

import "golang.org/x/sys/unix"

// legacy knows the calls that only old machines have.
func (c call) legacy() (Step, bool) {
	switch c.nr {
	case unix.SYS_OPEN:
		return c.open(c.path(-1, 0), c.args[1])
	case unix.SYS_CREAT:
		return c.open(c.path(-1, 0), unix.O_CREAT|unix.O_TRUNC)
	case unix.SYS_RENAME:
		return Step{"rename", c.path(-1, 1)}, true
	case unix.SYS_RENAMEAT:
		return Step{"rename", c.path(2, 3)}, true
	case unix.SYS_LINK, unix.SYS_SYMLINK:
		return Step{"link", c.path(-1, 1)}, true
	case unix.SYS_UNLINK, unix.SYS_RMDIR:
		return c.remove(c.path(-1, 0))
	case unix.SYS_MKDIR:
		return c.makeFolder(c.path(-1, 0))
	}
	return Step{}, false
}

func legacyCalls() []uint32 {
	return []uint32{
		unix.SYS_OPEN, unix.SYS_CREAT, unix.SYS_RENAME, unix.SYS_RENAMEAT, unix.SYS_LINK, unix.SYS_SYMLINK,
		unix.SYS_UNLINK, unix.SYS_RMDIR, unix.SYS_MKDIR,
	}
}
