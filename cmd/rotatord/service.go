package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/monitor"
	"github.com/rotatord/rotatord/rotator/schedule"
	"github.com/rotatord/rotatord/rotator/store"
)

const (
	lookEvery   = 2 * time.Second  // of the daemon at the wall clock
	firstPass   = 10 * time.Second // for the sinks to be read back, before the daemon calls itself ready
	tellEvery   = 10 * time.Second // the service manager's line is worked out again
	extendEvery = 5 * time.Second  // more time to stop is asked for
	beatEvery   = 10 * time.Second // the state notes that the loop moves
	moveBound   = 30 * time.Second // a loop that has not moved for longer hangs
)

// service is the life of a daemon: it looks until it is to stop, and tells whoever supervises it.
type service struct {
	*house
	manager *supervisor
	edits   *reloader
	pulse   *monitor.Pulse
	outages *outageLog

	ready, stopping atomic.Bool

	beaten time.Time // when the pulse was last noted in the state
	pruned time.Time // when old history was last dropped
	told   time.Time // when the service manager was last told how things are
	shown  bool      // of a rehearsal: what landed where
}

// newService makes a daemon of a house. It does nothing yet.
func newService(ctx context.Context, b *house, manager *supervisor, hangup <-chan os.Signal) *service {
	edits := &reloader{house: b, manager: manager, hangup: hangup}
	edits.begin(ctx)
	s := &service{house: b, manager: manager, edits: edits, pulse: monitor.NewPulse(b.a.now), outages: newOutageLog(b.log, b.a.now)}
	b.loop = s.pulse
	return s
}

// keep looks until soft ends, and returns when all that was under way is finished, or hard ended.
func (s *service) keep(soft, hard context.Context) {
	var aside sync.WaitGroup
	aside.Go(func() { s.becomeReady(soft); s.edits.watch(soft) })
	told, end := lingering(soft, consumerGrace)
	defer end()
	defer context.AfterFunc(hard, end)()
	aside.Go(func() {
		schedule.Every(soft, lookEvery, s.log, func(context.Context) { s.teller.Look(told, false) })
	})
	people, endPeople := lingering(soft, notifyGrace)
	defer endPeople()
	defer context.AfterFunc(hard, endPeople)()
	aside.Go(func() { schedule.Every(soft, notifyEvery, s.log, func(context.Context) { s.tellPeople(people) }) })
	schedule.Every(soft, lookEvery, s.log, func(ctx context.Context) { s.beat(ctx, hard) })
	aside.Wait()
	s.stopping.Store(true)
	s.log.Info("stopping")
	s.manager.stopping()
	s.finish()
	s.log.Info("stopped")
}

// beat is one round of the control loop: a look that panics has not moved it.
func (s *service) beat(ctx, hard context.Context) {
	s.look(ctx, hard)
	s.moved()
}

// tellPeople tells them what they do not know yet, once the first pass is over: before it, nobody
// knows how things are.
func (s *service) tellPeople(ctx context.Context) {
	if !s.ready.Load() {
		return
	}
	if err := s.notifier.Look(ctx, false); err != nil && ctx.Err() == nil {
		s.log.Warn("nobody is told", "error", err)
	}
}

// look does what is due.
func (s *service) look(ctx, hard context.Context) {
	s.engine.Look(ctx, hard)
	s.outages.look(s.engine.Outages())
	now := s.a.now()
	if now.Sub(s.pruned) > 24*time.Hour {
		s.pruned = now
		c, _ := s.inForce()
		if _, err := s.store.Prune(ctx, now.Add(-c.Daemon.Retention), now); err != nil && ctx.Err() == nil {
			s.log.Warn("drop old history", "error", err)
		}
		for _, p := range s.ownProblems(ctx) {
			s.log.Warn(p.What)
		}
	}
	if s.a.inSandbox && !s.shown {
		s.shown = s.showSandbox()
	}
	if s.manager.tell != nil && now.Sub(s.told) >= tellEvery {
		s.told = now
		s.describe()
	}
}

// moved lets everybody know that the loop did: it is called when a look has ended, and nowhere else.
func (s *service) moved() {
	s.pulse.Beat()
	s.manager.moved()
	if now := s.a.now(); now.Sub(s.beaten) >= beatEvery {
		s.beaten = now
		if err := s.lock.Beat(now); err != nil {
			s.log.Warn("rotatord health cannot be told that the loop moves", "error", err)
		}
	}
}

// health is what probes are told.
func (s *service) health() monitor.Health {
	return monitor.Health{
		Live: func() error {
			if s.stopping.Load() { // finishing takes its time, and no look is begun any more
				return nil
			}
			return s.pulse.Within(moveBound)
		},
		Ready: func() (string, error) {
			switch {
			case s.stopping.Load():
				return "", errors.New("it is stopping")
			case !s.ready.Load():
				return "", errors.New("the first pass over the tokens is not over yet")
			}
			return s.degraded(), nil
		},
	}
}

// becomeReady tells the service manager that the daemon is up: when every entry was worked on once,
// or a while later. What it depends on may well be down.
func (s *service) becomeReady(ctx context.Context) {
	s.manager.describe("reading the sinks back")
	limit, cancel := context.WithTimeout(ctx, firstPass)
	defer cancel()
	for !s.engine.FirstPass() && limit.Err() == nil {
		select {
		case <-limit.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	if ctx.Err() != nil {
		return
	}
	s.describe()
	s.ready.Store(true)
	s.manager.ready()
	if err := s.lock.Describe(func(h *store.Holder) { h.Ready = s.a.now() }); err != nil {
		s.log.Warn("rotatord health cannot be told that the daemon is ready", "error", err)
	}
}

// describe tells the service manager how things are.
func (s *service) describe() {
	entries, records := s.engine.Snapshot()
	now := s.a.now()
	line := summary(rotator.Describe(entries, records, now), now)
	if why := s.degraded(); why != "" {
		line = why + "; " + line
	}
	s.manager.describe(line)
}

// finish waits for the work that is under way, and asks for the time that it takes.
func (s *service) finish() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.engine.Wait()
		s.teller.Wait()
		s.notifier.Wait()
	}()
	tick := time.NewTicker(extendEvery)
	defer tick.Stop()
	for {
		if names := s.engine.Busy(); len(names) > 0 {
			s.manager.describe("stopping: finishing " + strings.Join(names, ", "))
			s.manager.extend(3 * extendEvery)
		}
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// showSandbox prints, once every token is where it should be, what landed where.
func (b *house) showSandbox() bool {
	if names, _, _ := b.engine.Due(); len(names) > 0 {
		return false
	}
	entries, records := b.engine.Snapshot()
	rep := rotator.Describe(entries, records, b.a.now())
	if len(rep.Tokens) == 0 {
		return true
	}
	out := b.a.stdout
	fmt.Fprintf(out, "\nEvery token is in place:\n\n")
	for _, t := range rep.Tokens {
		fmt.Fprintf(out, "  %s  generation %d, until %s, next rotation %s\n", t.Name, t.Generation, local(t.Expires), local(t.Planned))
		for _, s := range t.Sinks {
			fmt.Fprintf(out, "    in %s\n", s.Name)
		}
	}
	if at := b.lock.Who().Listen; at != "" {
		fmt.Fprintf(out, "\nLook at it: http://%s/\n", at)
	}
	program, config := cmp.Or(b.a.program, "rotatord"), ""
	if b.a.set.Config != "" {
		config = " --config " + b.a.set.Config
	}
	fmt.Fprintf(out, `
Or from another terminal, in this folder (status, plan and history know --sandbox too):

  %[1]s status --sandbox%[2]s
  %[1]s rotate %[3]s --sandbox%[2]s
  %[1]s history --sandbox%[2]s

Running until Ctrl-C.
`, program, config, rep.Tokens[0].Name)
	return true
}
