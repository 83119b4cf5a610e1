package main

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/rotatord/rotatord/rotator"
)

// supervisor tells the service manager, systemd, how the daemon is: the protocol of sd_notify(3).
// Where there is none it says nothing. Its methods may be called from any goroutine.
type supervisor struct {
	tell func(state string) error // nil: there is no service manager

	mu     sync.Mutex // held while something is told, so that it arrives in order
	status string     // as last told
	failed error      // of the last try to tell something
}

// newSupervisor finds the service manager by its variables.
func newSupervisor(getenv func(string) string) *supervisor {
	if getenv("NOTIFY_SOCKET") == "" {
		return &supervisor{}
	}
	return &supervisor{tell: func(state string) error {
		_, err := daemon.SdNotify(false, state)
		return err
	}}
}

// say sends assignments, one a line. What cannot be told must not stop the daemon: whoever waits
// for it will say so.
func (s *supervisor) say(assignments ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send(assignments...)
}

// send is say for who holds the mutex.
func (s *supervisor) send(assignments ...string) {
	if s.tell != nil {
		s.failed = s.tell(strings.Join(assignments, "\n"))
	}
}

// trouble is why the last telling failed; nil where it did not.
func (s *supervisor) trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// describe sends the one line that "systemctl status" shows, where it is another one than before.
func (s *supervisor) describe(line string) {
	line = strings.Join(strings.Fields(line), " ")
	s.mu.Lock()
	defer s.mu.Unlock() // also while it is sent: the line that was sent last must be the one that we remember
	if line != s.status {
		s.status = line
		s.send("STATUS=" + line)
	}
}

// extend asks for more time to start or to stop: so much from now on.
func (s *supervisor) extend(d time.Duration) {
	s.say("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(d.Microseconds(), 10))
}

func (s *supervisor) ready() { s.say(daemon.SdNotifyReady) }

// moved answers the watchdog. It is called by the control loop after a look that ended, and by
// nothing else: a loop that hangs must be seen.
func (s *supervisor) moved() { s.say(daemon.SdNotifyWatchdog) }

func (s *supervisor) stopping() { s.say(daemon.SdNotifyStopping) }

// reloading begins a reload, which ready ends.
func (s *supervisor) reloading() {
	s.say(daemon.SdNotifyReloading, strings.TrimSuffix(daemon.SdNotifyMonotonicUsec(), "\n"))
}

// warn logs what a person should know about the service manager.
func (s *supervisor) warn(log *slog.Logger, getenv func(string) string) {
	if err := s.trouble(); err != nil {
		log.Warn("the service manager cannot be told anything", "error", err)
	}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if d := time.Duration(usec) * time.Microsecond; err == nil && d < 10*lookEvery {
		log.Warn("WatchdogSec is short for a loop that waits for a disk now and then: use at least "+(10*lookEvery).String(), "watchdog", d.String())
	}
}

// summary is a report in one line: how many tokens are well, what comes next, and what is not well.
func summary(rep rotator.Report, now time.Time) string {
	failing := map[string]bool{} // tokens with more than a sink that fails
	sinks, held := 0, 0
	for _, p := range rep.Problems {
		switch {
		case p.Kind == rotator.ProblemHeldSink:
			held++
		case p.Failing && p.Sink != "":
			sinks++
		case p.Failing:
			failing[p.Token] = true
		}
	}
	states := map[string]int{}
	var next rotator.TokenStatus
	for _, t := range rep.Tokens {
		state := t.State
		switch {
		case failing[t.Name]:
			state = "failing"
		case state == "failing", state == "held", state == "paused": // its token is current all the same
			state = "current"
		}
		states[state]++
		if t.Planned.After(now) && (next.Planned.IsZero() || t.Planned.Before(next.Planned)) {
			next = t
		}
	}
	parts := []string{count(states["current"], "token") + " current"}
	for _, s := range []struct{ state, words string }{{"rotating", "rotating"}, {"due", "due"}, {"none", "not made yet"}} {
		if n := states[s.state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s.words))
		}
	}
	if !next.Planned.IsZero() {
		parts = append(parts, "next: "+next.Name+" "+briefly(next.Planned, now))
	}
	add := func(n int, what, how string) {
		if n > 0 {
			parts = append(parts, count(n, what)+" "+how)
		}
	}
	add(len(failing), "token", "failing")
	add(sinks, "sink", "failing")
	add(held, "sink", "held for a person")
	add(states["unmanaged"], "token", "no longer declared")
	return strings.Join(parts, ", ")
}

// briefly is an instant in few characters, in the machine's own time zone.
func briefly(t, now time.Time) string {
	if t.Sub(now) < 6*24*time.Hour {
		return t.Local().Format("Mon 15:04")
	}
	return t.Local().Format("2 Jan 15:04")
}
