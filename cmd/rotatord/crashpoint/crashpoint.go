// Package crashpoint lets a test kill a program at every change that it makes to a disk. It runs the
// program under ptrace, counts the system calls that change something below the folders named
// (writes, truncations, syncs, new names, renames, removals, programs started from there), and kills
// it just before the one that is wanted. So the program needs no hooks, and no point is missed.
//
// It can let the power fail as well: then what was written and not synced is lost, too. A file holds
// what its last fsync covered, and a folder the names that it had when it was last synced.
//
// The tracer is a process of its own, since it has to wait for every child that it has: the test
// program, which calls Main first thing in TestMain.
package crashpoint

// Life is one run of a program, and where it is cut short.
type Life struct {
	Path  string   // the program
	Args  []string // its arguments
	Env   []string
	Dir   string
	Watch []string // folders whose changes count, with all that is below them
	Kill  int      // the change before which it is killed, counted from 1; 0: it lives
	Only  string   // count only changes of this kind (Step.Call); "": all
	Power Power    // what is lost when it is killed, or has ended
}

// Power says what a power cut leaves of changes that were never synced. A disk writes in any order,
// so each of these can happen.
type Power string

// The ways in which the power fails.
const (
	Stays     Power = ""               // it does not: the process dies alone
	LoseAll   Power = "all is lost"    // neither data nor names survive
	LoseData  Power = "data is lost"   // names survive, and lead to what was synced before, or to an empty file
	LoseNames Power = "names are lost" // data survives under the names that were synced before
)

// Step is one change.
type Step struct {
	Call string // what it does: write, truncate, sync, mode, create, rename, remove, link, run
	Path string // the file or folder that it is done to; of a rename, the new name
}

// End is how a life ended.
type End struct {
	Steps  []Step // all that were wanted; the last one was not done where it was killed
	Killed bool   // at the step wanted
	Code   int    // exit code; -1: a signal
	Output string // what it printed, on both streams
}
