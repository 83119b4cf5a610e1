package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
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
is still brought to its sinks then. A second signal stops at once.

An edited configuration is taken over within seconds, at once by SIGHUP or rotatord reload;
one that is refused changes nothing, and at a start the last accepted one runs instead.
systemd is told when it is ready, how its tokens are (systemctl status shows it), and that
its loop moves (Type=notify, WatchdogSec=).

With --sandbox, SiteGPT is a stand-in in this process, state and every sink are below
./sandbox, and the page is on a port of this machine: safe with anybody's configuration.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.daemon(c.Context(), acceptAccount)
		},
	}
	a.sandboxFlag(c, "rehearse: a stand-in API, and all files below ./sandbox")
	c.Flags().StringVar(&a.set.Listen, "listen", a.set.Listen, "show the page, and answer probes, at this host:port (ROTATORD_LISTEN, monitor.listen; default: nowhere)")
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
	s := newService(soft, b, manager, hangup)
	shut, err := s.listen()
	if err != nil {
		manager.describe("not started: " + err.Error())
		b.ended(context.WithoutCancel(hard))
		return err
	}
	defer shut()
	s.keep(soft, hard)
	b.ended(context.WithoutCancel(hard))
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
	var metricsFile string
	patience := durationFlag(30 * time.Second)
	c := &cobra.Command{
		Use:   "once",
		Short: "Do what is due, and exit: for cron, timers and jobs",
		Long: `Do what is due, and exit: 0 when nothing failed, 1 when something did. What falls
due before the next pass counts as due: say with --next-pass how far away that is at most,
1h for a timer that fires each hour. The configuration is then held against that promise:
one pass that fails must not leave a gap (see also validate --next-pass).

A configuration that is refused is replaced by the last accepted one, and the exit code is 2.
A --metrics-file that cannot be written keeps no token waiting, and is a failure all the same.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if dryRun {
				return a.plan(c.Context(), planOptions{once: true})
			}
			return a.once(c.Context(), acceptAccount, time.Duration(patience), metricsFile)
		},
	}
	f := c.Flags()
	a.sandboxFlag(c, "rehearse: a stand-in API, and all files below ./sandbox")
	f.BoolVar(&acceptAccount, "accept-account", false, "tie the state to the account of the present management token")
	f.BoolVar(&a.allowEmpty, "allow-empty", false, "accept a configuration without tokens")
	f.BoolVar(&dryRun, "dry-run", false, "only say what this pass would do (plan says what the daemon would)")
	f.Var(&a.nextPass, "next-pass", "a promise: how far away the next pass is at most (default: no promise, but the distance between the last two)")
	f.StringVar(&metricsFile, "metrics-file", "", "write how every token is to this file, for node_exporter's textfile collector (a name that ends in .prom)")
	f.Var(&patience, "patience", "how long to wait for retries before giving up")
	return c
}

const metaPass = "pass" // when once last ran, and how far it was from the one before

func (a *app) once(ctx context.Context, acceptAccount bool, patience time.Duration, metricsFile string) error {
	if metricsFile != "" && filepath.Ext(metricsFile) != ".prom" {
		return usage("--metrics-file %s: node_exporter collects files that end in .prom alone", metricsFile)
	}
	soft, hard, stop := signals(ctx)
	defer stop()
	b, leave, err := a.enter(soft, hard, how{kind: store.Command, command: "once", wait: patience, acceptAccount: acceptAccount, ahead: time.Duration(a.nextPass)})
	if err != nil {
		return err
	}
	defer leave()
	b.interval = time.Duration(a.nextPass)
	if a.nextPass == 0 {
		if ahead := b.lastPass(soft); ahead > 0 {
			b.interval = ahead
			if err := b.loadEntries(soft, b.config, ahead); err != nil {
				return err
			}
		}
	}
	took := b.beginToTell(soft) // what the last pass left; no rotation waits for it
	b.pass(soft, hard, patience, nil)
	took()
	b.tell(soft)
	unfinished := b.pass(soft, hard, 0, nil) // what waited for a consumer, like a revocation
	now := a.now()
	if _, err := b.store.Prune(hard, now.Add(-b.config.Daemon.Retention), now); err != nil {
		b.log.Warn("drop old history", "error", err)
	}
	b.notify(soft)
	var unwritten error
	if metricsFile != "" { // also of who could not be told
		if err := b.metrics.WriteFile(metricsFile); err != nil {
			unwritten = fmt.Errorf("--metrics-file %s: nobody is told how the tokens are: %w", metricsFile, err)
		}
	}
	own := append(b.unheard(hard), b.ownProblems(hard)...)
	leave()
	return errors.Join(b.verdict(soft, unfinished, own), unwritten)
}

// lastPass returns the distance between the last pass and this one, and notes this one.
func (b *house) lastPass(ctx context.Context) time.Duration {
	now := b.a.now()
	text, _, err := b.store.Meta(ctx, metaPass)
	if err != nil {
		text = ""
	}
	if err := b.store.SetMeta(ctx, metaPass, now.UTC().Format(time.RFC3339)); err != nil {
		b.log.Warn("note this pass", "error", err)
	}
	return sincePass(text, now)
}

// sincePass is how far away the next pass is to be expected, where the last one was noted as text; 0:
// nobody knows.
func sincePass(text string, now time.Time) time.Duration {
	last, err := time.Parse(time.RFC3339, text)
	// Somebody who tries twice by hand did not promise a pass each minute, and one who comes
	// back after a week did not promise a week.
	if d := now.Sub(last); err == nil && d >= 5*time.Minute && d <= 48*time.Hour {
		return d
	}
	return 0
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
