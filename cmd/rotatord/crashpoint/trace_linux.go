package crashpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the environment says that a process of the test program shall be.
const (
	tracerEnv = "CRASHPOINT_TRACER"
	asTracer  = "tracer"
	asProgram = "program" // the one that is traced, once it has arranged to be stopped
)

// Main turns the test program into a tracer where Run wants one; it does not return then.
func Main() {
	var err error
	switch os.Getenv(tracerEnv) {
	case "":
		return
	case asProgram:
		err = become(os.Args[1:])
	default:
		err = serve(os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "trace:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(in io.Reader, out io.Writer) error {
	var l Life
	if err := json.NewDecoder(in).Decode(&l); err != nil {
		return err
	}
	end, err := l.trace()
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(end)
}

// Run runs the program to its end, or to the step before which it is killed. When it returns, no
// process of it is left.
func (l Life) Run(ctx context.Context) (End, error) {
	self, err := os.Executable()
	if err != nil {
		return End{}, err
	}
	order, err := json.Marshal(l)
	if err != nil {
		return End{}, err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = []string{tracerEnv + "=" + asTracer}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(order), &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid := os.Geteuid(); uid != 0 {
		// rotatord keeps its memory from others: to look into it takes root, if only in a namespace.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	// The kernel sends the death signal when the thread ends that started the tracer.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return End{}, fmt.Errorf("trace %s: %w\n%s", l.Path, err, &errs)
	}
	var end End
	return end, json.Unmarshal(out.Bytes(), &end)
}

// tracer is a life while it is traced.
type tracer struct {
	Life
	main    int
	last    int // the thread that was about to take the step before which the program was killed
	end     End
	counted int
	disk    *disk          // nil: the power stays
	syncing map[int]func() // threads within a sync, and what it comes to
	known   map[int]bool   // threads that have begun
}

func (l Life) trace() (end End, err error) {
	runtime.LockOSThread() // all of ptrace is for one thread only
	output, err := os.CreateTemp("", "crashpoint-")
	if err != nil {
		return end, err
	}
	defer os.Remove(output.Name()) //nolint:errcheck // a temporary file
	t := &tracer{Life: l, syncing: map[int]func(){}, known: map[int]bool{}}
	if l.Power != Stays {
		if t.disk, err = newDisk(l.Watch); err != nil {
			return end, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return end, err
	}
	p, err := os.StartProcess(self, append([]string{self, l.Path}, l.Args...), &os.ProcAttr{
		Dir: l.Dir, Env: append([]string{tracerEnv + "=" + asProgram}, l.Env...), Files: []*os.File{nil, output, output},
		Sys: &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return end, err
	}
	t.main = p.Pid
	if err := t.follow(); err != nil {
		return end, err
	}
	if t.disk != nil {
		if err := t.disk.fail(l.Power); err != nil {
			return end, fmt.Errorf("let the power fail: %w", err)
		}
	}
	text, err := os.ReadFile(output.Name())
	t.end.Output = string(text)
	return t.end, err
}

// follow goes from stop to stop until nobody is left.
func (t *tracer) follow() error {
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(t.main, &ws, 0, nil); err != nil || !ws.Stopped() {
		return fmt.Errorf("it did not start: %v %v", ws, err)
	}
	t.known[t.main] = true
	const all = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACESECCOMP |
		unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK
	if err := unix.PtraceSetOptions(t.main, all); err != nil {
		return fmt.Errorf("set options: %w", err)
	}
	if err := t.resume(t.main, 0); err != nil {
		return err
	}
	for {
		id, err := syscall.Wait4(-1, &ws, unix.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD):
			return nil
		case err != nil:
			return err
		}
		if !ws.Stopped() {
			delete(t.known, id) // its number may come again
			if id != t.main {
				continue
			}
			t.end.Code = ws.ExitStatus() // -1: a signal
			// Who was about to take the step goes on only if it is a process that outlives the program.
			if t.last != 0 {
				if err := t.resume(t.last, 0); err != nil {
					return err
				}
				t.last = 0
			}
			continue
		}
		signal := 0
		switch s := ws.StopSignal(); {
		case s == syscall.SIGTRAP|0x80, ws>>16 == unix.PTRACE_EVENT_SECCOMP:
			if err := t.call(id); err != nil {
				return err
			}
		case s == syscall.SIGTRAP && ws>>16 != 0: // a clone, a fork or an exec
		case s == syscall.SIGSTOP && !t.known[id]: // its first stop
		default:
			signal = int(s)
		}
		t.known[id] = true
		if id == t.last {
			continue
		}
		if t.dark() { // it began as the power failed
			if err := kill(id); err != nil {
				return err
			}
			continue
		}
		if err := t.resume(id, signal); err != nil {
			return err
		}
	}
}

// dark reports whether the power has failed: nobody goes on then, whatever outlives the program otherwise.
func (t *tracer) dark() bool { return t.end.Killed && t.disk != nil }

func kill(id int) error {
	if err := unix.Kill(id, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) { // it has just ended
		return fmt.Errorf("kill: %w", err)
	}
	return nil
}

// resume lets a thread go on: to its next change, or, where it syncs, to the end of that.
func (t *tracer) resume(id, signal int) error {
	goOn := unix.PtraceCont
	if t.syncing[id] != nil {
		goOn = unix.PtraceSyscall
	}
	if err := goOn(id, signal); err != nil && !errors.Is(err, unix.ESRCH) { // it was killed meanwhile
		return fmt.Errorf("resume: %w", err)
	}
	return nil
}

// syscallInfo is the kernel's struct ptrace_syscall_info.
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	ip   uint64
	sp   uint64
	nr   uint64 // at the exit: the result
	args [6]uint64
}

const (
	atExit  = 2
	atEntry = 3 // where seccomp stops it
)

// call looks at a thread that begins or ends a system call, and kills where it is time.
func (t *tracer) call(id int) error {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(id), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	switch {
	case errno == unix.ESRCH: // killed
		return nil
	case errno != 0:
		return fmt.Errorf("look at a system call: %w", errno)
	case info.op == atExit:
		if done := t.syncing[id]; done != nil && int64(info.nr) == 0 {
			done()
		}
		delete(t.syncing, id)
		return nil
	case info.op != atEntry || t.end.Killed:
		return nil
	}
	c := call{id: id, nr: info.nr, args: info.args}
	s, ok := c.step()
	if !ok || !t.watched(s.Path) {
		return nil
	}
	t.end.Steps = append(t.end.Steps, s)
	if t.Only == "" || t.Only == s.Call {
		t.counted++
	}
	if t.counted == t.Kill && t.Kill > 0 {
		t.end.Killed, t.last = true, id
		if t.dark() {
			for id := range t.known {
				if err := kill(id); err != nil {
					return err
				}
			}
		}
		return kill(t.main)
	}
	if s.Call == "sync" && t.disk != nil {
		f, err := os.Open(fmt.Sprintf("/proc/%d/fd/%d", id, int32(info.args[0])))
		if err != nil {
			return fmt.Errorf("look at what is synced: %w", err)
		}
		defer f.Close()
		if t.syncing[id], err = t.disk.sync(f); err != nil {
			return fmt.Errorf("look at what is synced: %w", err)
		}
	}
	return nil
}
