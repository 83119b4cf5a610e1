package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/monitor"
	"github.com/rotatord/rotatord/rotator/store"
)

const (
	lockWait = 2 * time.Minute  // of a daemon, for a command that works
	grace    = 60 * time.Second // for a token that was just made, once the daemon is to stop
)

func (a *app) runCommand() *cobra.Command {
	var acceptAccount bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon: rotate every token when its time comes",
		Long: `Run the daemon. It rotates every token when its time comes, reads the sinks back,
and retries what fails, until it gets SIGTERM or SIGINT: a token that was just made
is still brought to its sinks then. A second signal stops at once. An edited configuration
is taken over within seconds, at once by SIGHUP or rotatord reload; one that is refused
changes nothing, and at a start the last accepted one runs instead. systemd is told when it is ready, how its tokens are (systemctl
status shows it), and that its loop moves (Type=notify, WatchdogSec=).

With --sandbox, SiteGPT is a stand-in in this process, and state and every sink are
below ./sandbox: safe with anybody's configuration.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.daemon(c.Context(), acceptAccount)
		},
	}
	a.sandboxFlag(c, "rehearse: a stand-in API, and all files below ./sandbox")
	c.Flags().StringVar(&a.set.Listen, "listen", a.set.Listen, "answer probes at this host:port, /healthz and /readyz (ROTATORD_LISTEN, daemon.listen; default: nowhere)")
	c.Flags().BoolVar(&acceptAccount, "accept-account", false, "tie the state to the account of the present management token")
	c.Flags().BoolVar(&a.allowEmpty, "allow-empty", false, "accept a configuration without tokens")
	return c
}

// signals returns two contexts: soft ends at the first SIGTERM or SIGINT, hard at the second one,
// or when the grace after the first has passed.
func signals(ctx context.Context) (soft, hard context.Context, stop func()) {
	soft, cancelSoft := context.WithCancel(ctx)
	hard, cancelHard := context.WithCancel(context.WithoutCancel(ctx))
	c := make(chan os.Signal, 2)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case <-c:
		case <-ctx.Done():
		case <-done:
			return
		}
		cancelSoft()
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-c:
		case <-timer.C:
		case <-done:
		}
		cancelHard()
	}()
	return soft, hard, func() {
		signal.Stop(c)
		close(done)
		cancelSoft()
		cancelHard()
	}
}

func (a *app) daemon(ctx context.Context, acceptAccount bool) error {
	soft, hard, stop := signals(ctx)
	defer stop()
	hangup := make(chan os.Signal, 1) // from here on: unheard, it would kill us
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	manager := newSupervisor(a.getenv)
	manager.describe("opening the state")
	manager.extend(lockWait + 30*time.Second)
	b, leave, err := a.enter(soft, hard, how{kind: store.Daemon, command: "run", wait: lockWait, acceptAccount: acceptAccount})
	if err != nil {
		manager.describe("not started: " + err.Error())
		return err
	}
	defer leave()
	b.log.Info("started", "version", buildVersion(), "tokens", len(b.config.Tokens), "api", b.client.Origin())
	manager.warn(b.log, a.getenv)
	edits := &reloader{house: b, manager: manager, hangup: hangup}
	edits.begin(soft)
	s := &service{house: b, manager: manager, edits: edits, pulse: monitor.NewPulse(a.now), outages: newOutageLog(b.log, a.now)}
	shut, err := s.listen()
	if err != nil {
		manager.describe("not started: " + err.Error())
		return err
	}
	defer shut()
	s.keep(soft, hard)
	return nil
}

// local writes an instant for a person: in the machine's own time zone.
func local(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format("Mon 2 Jan 15:04")
}

func (a *app) onceCommand() *cobra.Command {
	var acceptAccount, dryRun bool
	patience := durationFlag(30 * time.Second)
	c := &cobra.Command{
		Use:   "once",
		Short: "Do what is due, and exit: for cron, timers and jobs",
		Long: `Do what is due, and exit: 0 when nothing failed, 1 when something did. What falls
due before the next pass counts as due: say with --next-pass how far away that is at most,
1h for a timer that fires each hour. The configuration is then held against that promise:
one pass that fails must not leave a gap (see also validate --next-pass).

A configuration that is refused is replaced by the last accepted one, and the exit code is 2.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if dryRun {
				return a.plan(c.Context(), planOptions{})
			}
			return a.once(c.Context(), acceptAccount, time.Duration(patience))
		},
	}
	f := c.Flags()
	a.sandboxFlag(c, "rehearse: a stand-in API, and all files below ./sandbox")
	f.BoolVar(&acceptAccount, "accept-account", false, "tie the state to the account of the present management token")
	f.BoolVar(&a.allowEmpty, "allow-empty", false, "accept a configuration without tokens")
	f.BoolVar(&dryRun, "dry-run", false, "only say what would happen (the same as plan)")
	f.Var(&a.nextPass, "next-pass", "a promise: how far away the next pass is at most (default: no promise, but the distance between the last two)")
	f.Var(&patience, "patience", "how long to wait for retries before giving up")
	return c
}

const metaPass = "pass" // when once last ran, and how far it was from the one before

func (a *app) once(ctx context.Context, acceptAccount bool, patience time.Duration) error {
	soft, hard, stop := signals(ctx)
	defer stop()
	b, leave, err := a.enter(soft, hard, how{kind: store.Command, command: "once", wait: patience, acceptAccount: acceptAccount, ahead: time.Duration(a.nextPass)})
	if err != nil {
		return err
	}
	defer leave()
	if a.nextPass == 0 {
		if ahead := b.lastPass(soft); ahead > 0 {
			if err := b.loadEntries(soft, b.config, ahead); err != nil {
				return err
			}
		}
	}
	b.tell(soft, true)
	unfinished := b.pass(soft, hard, patience, nil)
	b.tell(soft, true)
	if _, err := b.store.Prune(hard, a.now().Add(-b.config.Daemon.Retention)); err != nil {
		b.log.Warn("drop old history", "error", err)
	}
	own := b.ownProblems(hard)
	leave()
	return b.verdict(soft, unfinished, own)
}

// lastPass returns the distance between the last pass and this one, and notes this one.
func (b *house) lastPass(ctx context.Context) time.Duration {
	now := b.a.now()
	text, ok, err := b.store.Meta(ctx, metaPass)
	var ahead time.Duration
	if last, perr := time.Parse(time.RFC3339, text); ok && err == nil && perr == nil {
		// Somebody who tries twice by hand did not promise a pass each minute, and one who comes
		// back after a week did not promise a week.
		if d := now.Sub(last); d >= 5*time.Minute && d <= 48*time.Hour {
			ahead = d
		}
	}
	if err := b.store.SetMeta(ctx, metaPass, now.UTC().Format(time.RFC3339)); err != nil {
		b.log.Warn("note this pass", "error", err)
	}
	return ahead
}

// verdict prints what a pass left, and turns it into an exit code. own is what is wrong with the
// operator's credential.
func (b *house) verdict(soft context.Context, unfinished []string, own []rotator.Problem) error {
	entries, records := b.engine.Snapshot()
	rep := rotator.Describe(entries, records, b.a.now())
	rep.Problems = append(own, rep.Problems...)
	failing := rep.Failing()
	for _, p := range rep.Problems {
		// What waits for a person is no failure, but it can be why a token is not finished.
		if p.Failing || slices.Contains(unfinished, p.Token) || p.Kind == rotator.ProblemOwnExpiry {
			printProblem(b.a.stderr, p, b.a.now(), false)
		}
	}
	switch {
	case soft.Err() != nil:
		return &codeError{exitFailed, errors.New("stopped before everything was done")}
	case b.fallback != nil: // said first: what is due was done, but not what the file may want
		b.a.complain(b.fallback.refused)
		return &codeError{exitUsage, fmt.Errorf("%w; the last accepted one was used instead (%s)", b.fallback.refused, local(b.fallback.At))}
	case len(failing) > 0:
		return &codeError{exitFailed, fmt.Errorf("%s", count(len(failing), "problem"))}
	case len(unfinished) > 0:
		return &codeError{exitFailed, fmt.Errorf("not finished: %s", strings.Join(unfinished, ", "))}
	}
	return nil
}
