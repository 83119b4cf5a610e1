package crashpoint

import "golang.org/x/sys/unix"

// legacy knows the calls that not every machine has.
func (c call) legacy() (Step, bool) {
	if c.nr == unix.SYS_RENAMEAT {
		return Step{"rename", c.path(2, 3)}, true
	}
	return Step{}, false
}

func legacyCalls() []uint32 { return []uint32{unix.SYS_RENAMEAT} }
