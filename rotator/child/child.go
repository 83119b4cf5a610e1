// Package child runs a program for a sink or a consumer and makes sure that nothing of it is left
// when Run returns: its whole process group is killed when the time is over, and also when the
// program itself has ended and left something behind.
//
// The program gets an environment of a few harmless names plus what the caller gives it; never
// what the daemon was started with. Its output is kept up to a limit, and what looks like a token
// is cut out of it. Nothing here prints an argument or an output: errors name the program alone.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// Defaults of a Cmd's fields.
const (
	DefaultMaxOutput = 64 << 10
	DefaultGrace     = 2 * time.Second
)

// The names that a program inherits from our environment. PATH has a fallback, because a service
// may be started without one.
var inherited = [...]string{"PATH", "HOME", "LANG", "TZ"}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Cmd is one run of a program.
type Cmd struct {
	Argv []string // the program, by path or by a name to be found in PATH, and its arguments
	Dir  string   // working directory; "" is ours
	Env  []string // NAME=value, on top of PATH, HOME, LANG and TZ; the last one of a name wins

	// Stdin is what the program reads. A program that does not read it all has not failed.
	Stdin []byte

	MaxOutput int           // bytes kept of each of stdout and stderr; 0: DefaultMaxOutput
	Grace     time.Duration // between SIGTERM and SIGKILL; 0: DefaultGrace, negative: none

	// Redact holds what must not stand in the output. Everything that has the shape of a SiteGPT
	// token is cut out as well.
	Redact []rotator.Secret
	// SecretStdout leaves stdout as it is, because it is a secret itself. Stderr is still redacted.
	SecretStdout bool
}

// Result is how a run ended.
type Result struct {
	ExitCode       int // -1 where a signal ended the program, or it did not start
	Stdout, Stderr []byte
	Truncated      bool // more was printed than was kept
}

// ExitError says that the program ran and failed.
type ExitError struct {
	Name   string         // base name of the program
	Code   int            // exit code; -1 where a signal ended it
	Signal syscall.Signal // 0 where it exited
}

func (e *ExitError) Error() string {
	if e.Signal != 0 {
		return fmt.Sprintf("%s: ended by signal %d (%s)", e.Name, int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("%s: exit code %d", e.Name, e.Code)
}

// Name is what may be said of an argv: the base name of its program.
func Name(argv []string) string {
	if len(argv) == 0 || argv[0] == "" {
		return "(no program)"
	}
	return filepath.Base(argv[0])
}

// Find returns the path of the program that argv would run, or says why it cannot run: it is
// missing, a directory, or not executable.
func Find(argv []string) (string, error) {
	if len(argv) == 0 || argv[0] == "" {
		return "", errors.New("the command is empty")
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return "", fmt.Errorf("%s: %w", Name(argv), bare(err))
	}
	return path, nil
}

// bare returns what went wrong without the path or argument that it went wrong with.
func bare(err error) error {
	var ee *exec.Error
	if errors.As(err, &ee) {
		err = ee.Err
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return err
}

// Run runs the program to its end and returns how it ended. nil: exit code 0. *ExitError: it ran
// and failed. An error that matches ctx's: it was stopped because ctx ended, first with SIGTERM
// and after the grace with SIGKILL, both to the whole process group.
//
// When Run returns, no process of the group runs any more. A program that puts itself into a
// session of its own (setsid) leaves the group, and is out of reach.
func Run(ctx context.Context, c Cmd) (Result, error) {
	res := Result{ExitCode: -1}
	name := Name(c.Argv)
	if err := ctx.Err(); err != nil {
		return res, fmt.Errorf("%s: not started: %w", name, err)
	}
	path, err := Find(c.Argv)
	if err != nil {
		return res, err
	}
	if c.MaxOutput <= 0 {
		c.MaxOutput = DefaultMaxOutput
	}
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}

	// What lies beyond the limit is needed to recognise a secret that begins before it.
	beyond := 0
	for _, s := range c.Redact {
		beyond = max(beyond, len(s.Reveal()))
	}
	stdout := &head{max: c.MaxOutput + beyond}
	stderr := &head{max: c.MaxOutput + beyond}

	cmd := &exec.Cmd{
		Path: path, Args: c.Argv, Dir: c.Dir, Env: environment(c.Env),
		Stdin: bytes.NewReader(c.Stdin), Stdout: stdout, Stderr: stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
		// For a process that left the group and still holds our pipes.
		WaitDelay: time.Second,
	}
	// The kernel sends the death signal when the thread ends that started the program, so the
	// thread has to be ours until the program is gone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dieWithParent(cmd.SysProcAttr)

	if err := cmd.Start(); err != nil {
		return res, fmt.Errorf("%s: start: %w", name, bare(err))
	}
	group := cmd.Process.Pid
	exited := make(chan func() error)
	go func() { exited <- awaitExit(cmd) }()

	var wait func() error
	var interrupted error
	select {
	case wait = <-exited:
	case <-ctx.Done():
		interrupted = ctx.Err()
		signalGroup(group, syscall.SIGTERM)
		if c.Grace > 0 {
			grace := time.NewTimer(c.Grace)
			select {
			case wait = <-exited:
			case <-grace.C:
			}
			grace.Stop()
		}
	}
	signalGroup(group, syscall.SIGKILL) // the rest of it, or all
	if wait == nil {
		wait = <-exited
	}
	lingering := awaitGroup(group)
	werr := wait()
	reapAdopted(group)

	res.ExitCode = cmd.ProcessState.ExitCode()
	res.Stdout, res.Stderr = stdout.buf.Bytes(), stderr.buf.Bytes()
	if !c.SecretStdout {
		res.Stdout = redact(res.Stdout, c.MaxOutput, c.Redact)
	}
	res.Stdout = res.Stdout[:min(len(res.Stdout), c.MaxOutput)]
	res.Stderr = redact(res.Stderr, c.MaxOutput, c.Redact)
	res.Stderr = res.Stderr[:min(len(res.Stderr), c.MaxOutput)]
	res.Truncated = stdout.total > c.MaxOutput || stderr.total > c.MaxOutput

	switch status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus); {
	case interrupted != nil:
		err = fmt.Errorf("%s: stopped: %w", name, interrupted)
	case status.Signaled():
		err = &ExitError{Name: name, Code: -1, Signal: status.Signal()}
	case res.ExitCode != 0:
		err = &ExitError{Name: name, Code: res.ExitCode}
	case werr != nil && !errors.Is(werr, exec.ErrWaitDelay):
		err = fmt.Errorf("%s: %w", name, bare(werr))
	default:
		err = nil
	}
	if lingering {
		err = errors.Join(err, fmt.Errorf("%s: a process of its group does not die: it hangs in the kernel", name))
	}
	return res, err
}

// environment is what the program sees.
func environment(explicit []string) []string {
	var env []string
	for _, name := range inherited {
		if v, ok := os.LookupEnv(name); ok && v != "" {
			env = append(env, name+"="+v)
		} else if name == "PATH" {
			env = append(env, name+"="+defaultPath)
		}
	}
	return append(env, explicit...) // exec.Cmd keeps the last one of each name
}

func signalGroup(group int, sig syscall.Signal) {
	_ = syscall.Kill(-group, sig) // ESRCH: it is gone, which is what was wanted
}

// awaitGroup returns when no process of a killed group runs any more; true where one still does
// after a while, which only a hang in the kernel can cause.
func awaitGroup(group int) (lingering bool) {
	const step = 2 * time.Millisecond
	for waited := time.Duration(0); running(group); waited += step {
		if waited > 5*time.Second {
			return true
		}
		time.Sleep(step)
	}
	return false
}

// reapAdopted takes leave of the group's orphans where they became our own children: when we are
// process 1 of a container, nobody else would.
func reapAdopted(group int) {
	for {
		pid, err := syscall.Wait4(-group, nil, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}

// head keeps the first max bytes that are written to it, and counts the rest.
type head struct {
	max, total int
	buf        bytes.Buffer
}

func (h *head) Write(p []byte) (int, error) {
	h.total += len(p)
	h.buf.Write(p[:min(len(p), max(0, h.max-h.buf.Len()))])
	return len(p), nil
}

var _ io.Writer = (*head)(nil)

const (
	mark        = "[redacted]"
	tokenPrefix = "sgpt_"
)

// Redact returns text without the secrets, and without anything that has the shape of a SiteGPT
// token.
func Redact(text string, secrets ...rotator.Secret) string {
	return string(redact([]byte(text), len(text), secrets))
}

// redact returns text with everything cut out that is secret and begins before limit; what comes
// after limit and belongs to no such secret is dropped.
func redact(text []byte, limit int, secrets []rotator.Secret) []byte {
	if len(text) == 0 {
		return text
	}
	var out []byte
	for i := 0; i < min(len(text), limit); {
		n := 0
		for _, s := range secrets {
			if v := s.Reveal(); v != "" && bytes.HasPrefix(text[i:], []byte(v)) {
				n = max(n, len(v))
			}
		}
		if n == 0 && bytes.HasPrefix(text[i:], []byte(tokenPrefix)) {
			n = len(tokenPrefix)
		}
		if n == 0 {
			out = append(out, text[i])
			i++
			continue
		}
		// A token ends where its alphabet does, so that also a longer one than ours is cut out whole.
		if bytes.HasPrefix(text[i:], []byte(tokenPrefix)) {
			for i+n < len(text) && tokenByte(text[i+n]) {
				n++
			}
		}
		out = append(out, mark...)
		i += n
	}
	return out
}

func tokenByte(b byte) bool {
	return strings.IndexByte("_-", b) >= 0 ||
		'0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}
