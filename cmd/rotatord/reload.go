package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/store"
)

const (
	pollEvery  = 5 * time.Second // the files are looked at
	tryAgainIn = time.Minute     // what was refused although the files are right
)

func (a *app) reloadCommand() *cobra.Command {
	timeout := durationFlag(2 * time.Minute)
	var asJSON bool
	c := &cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its configuration again",
		Long: `Have the daemon read its configuration again, and wait for what comes of it: exit code 0
when it is in force, 2 when it is wrong, 1 when something else is in the way (a new sink that
cannot be written, say). Whatever is refused, the configuration from before stays in force.

The daemon also looks by itself every few seconds whether its files were edited. What only a
restart changes: the state folder, instance, api.base_url, api.token, monitor.listen, and
every variable of the environment.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.reload(c.Context(), time.Duration(timeout), asJSON)
		},
	}
	c.Flags().Var(&timeout, "timeout", "how long to wait for the outcome")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	a.sandboxFlag(c, "reload the rehearsal in ./sandbox")
	return c
}

// reload signals the daemon and prints what comes of it.
func (a *app) reload(ctx context.Context, timeout time.Duration, asJSON bool) error {
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	held, err := daemonOf(dir)
	if err != nil {
		return err
	}
	st, err := a.reader(ctx, dir)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // only read
	if err := a.told(ctx, dir, rotator.Event{At: a.now(), Kind: rotator.EventAsked, By: a.whoami(), Detail: "read the configuration again"}); err != nil {
		fmt.Fprintf(a.stderr, "the journal does not tell who asked: %s\n", err) // an edit must not wait for that
	}
	sent := a.now()
	if err := syscall.Kill(held.PID, syscall.SIGHUP); err != nil {
		return fmt.Errorf("signal the daemon, pid %d of %s: %w: run this as that user, or as root", held.PID, held.User, err)
	}
	for a.now().Before(sent.Add(timeout)) {
		t, ok, err := kept[trial](ctx, st, metaTrial)
		if err != nil {
			return err
		}
		if ok && !t.Begun.Before(sent) {
			return a.outcome(t, asJSON)
		}
		if now, err := daemonOf(dir); err != nil || now.PID != held.PID {
			return errors.New("the daemon ended meanwhile: its log says why")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("no outcome within %s: rotatord status, or the daemon's log, shows it when it is there", timeout)
}

// daemonOf returns the daemon that works on the state in dir, if it can be signalled from here.
func daemonOf(dir string) (store.Holder, error) {
	held, ok, err := store.Holding(dir)
	if err != nil {
		return held, err
	}
	if !ok || held.Kind != store.Daemon {
		return held, fmt.Errorf("no daemon works on %s: start it with rotatord run, or name its folder with --state-dir", dir)
	}
	if host, err := os.Hostname(); err == nil && held.Host != "" && held.Host != host {
		return held, fmt.Errorf("the daemon of %s runs on %s: run this there (in its container, where it has one)", dir, held.Host)
	}
	return held, nil
}

// outcome prints how a reload ended.
func (a *app) outcome(t trial, asJSON bool) error {
	code := exitOK
	switch {
	case t.Wrong:
		code = exitUsage
	case t.Error != "":
		code = exitFailed
	}
	if asJSON {
		if t.Problems == nil {
			t.Problems = []string{}
		}
		if err := printJSON(a.stdout, struct {
			Format   int      `json:"format"`
			Accepted bool     `json:"accepted"`
			Tokens   int      `json:"tokens"`
			Error    string   `json:"error,omitempty"`
			Problems []string `json:"problems"`
		}{1, code == exitOK, t.Tokens, t.Error, t.Problems}); err != nil {
			return err
		}
		if code != exitOK {
			return &codeError{code: code}
		}
		return nil
	}
	if code == exitOK {
		_, err := fmt.Fprintf(a.stdout, "reloaded: %s\n", count(t.Tokens, "token"))
		return err
	}
	for _, p := range t.Problems {
		fmt.Fprint(a.stderr, p)
	}
	return &codeError{code, fmt.Errorf("%s\nthe configuration from before stays in force", t.Error)}
}

// reloader takes over what was edited: at a signal, and when the files are others than before.
type reloader struct {
	*house
	manager *supervisor
	hangup  <-chan os.Signal

	tried string    // fingerprint of what was tried last
	seen  string    // fingerprint of something else, at the last look
	again time.Time // when that is tried again which was refused for a passing reason; zero: never
	last  string    // why the last try was refused
}

// begin notes how the start went: with the file's configuration, or with the last accepted one.
func (r *reloader) begin(ctx context.Context) {
	c, f := r.inForce()
	// By the instant at which it was read: who asks for a reload after that is not told of this one.
	t := trial{Begun: r.read, Ended: r.a.now(), Tokens: len(c.Tokens)}
	r.tried = c.Hash
	if f != nil {
		source, err := config.Read(r.a.configPath())
		r.tried = fingerprint(source, unreadableOrNil(r.a.configPath(), err))
		t.Error, t.Problems, t.Wrong = f.refused.Error(), words(f.refused), true
		logProblems(r.house, f.refused)
		r.log.Error("the configuration is refused: the last accepted one runs instead", "error", f.refused, "accepted", f.At.UTC().Format(time.RFC3339))
	}
	r.reloads.Store(&t)
	if err := keep(ctx, r.store, metaTrial, t); err != nil && ctx.Err() == nil {
		r.log.Warn("nobody is told which configuration is in force", "error", err)
	}
}

// watch takes over edits until ctx ends.
func (r *reloader) watch(ctx context.Context) {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hangup:
			r.try(ctx)
		case <-poll.C:
			if r.edited() {
				r.try(ctx)
			}
		}
	}
}

// edited reports whether the files are others than those that were tried last. A file may be half
// written at the moment: it counts when two looks have seen the same.
func (r *reloader) edited() bool {
	source, err := config.Read(r.a.configPath())
	now := fingerprint(source, unreadableOrNil(r.a.configPath(), err))
	before := r.seen
	r.seen = now
	switch {
	case now == r.tried:
		return !r.again.IsZero() && !r.a.now().Before(r.again)
	case now != before:
		return false
	}
	r.log.Info("the configuration was edited")
	return true
}

// try takes over the configuration, and tells everybody what came of it.
func (r *reloader) try(ctx context.Context) {
	r.manager.reloading()
	t := trial{Begun: r.a.now()}
	c, err := r.takeOver(ctx)
	if ctx.Err() != nil {
		return // it is to stop: nobody waits for a reload any more
	}
	t.Ended, r.again = r.a.now(), time.Time{}
	if err == nil {
		t.Tokens = len(c.Tokens)
		r.last = ""
		r.log.Info("reloaded", "tokens", t.Tokens)
	} else {
		t.Error, t.Problems, t.Wrong = err.Error(), words(err), exitCode(err) == exitUsage
		if !t.Wrong {
			r.again = t.Ended.Add(tryAgainIn)
			t.Next = r.again
		}
		r.refused(err)
		r.declined(ctx, r.tried, err)
	}
	r.reloads.Store(&t)
	if err := keep(ctx, r.store, metaTrial, t); err != nil {
		r.log.Warn("nobody is told what came of the reload", "error", err)
	}
	r.manager.ready()
}

// refused logs why the configuration from before stays in force; the same reason only once.
func (r *reloader) refused(err error) {
	if err.Error() == r.last && !r.again.IsZero() {
		return
	}
	r.last = err.Error()
	logProblems(r.house, err)
	args := []any{"error", err}
	if !r.again.IsZero() {
		args = append(args, "next", r.again.UTC().Format(time.RFC3339))
	}
	r.log.Error("reload refused: the configuration from before stays in force", args...)
}

// takeOver reads, checks, builds and loads the configuration. On an error, also a panic, all is as before.
func (r *reloader) takeOver(ctx context.Context) (c *config.Config, err error) {
	defer func() {
		if v := recover(); v != nil {
			r.log.Error("a reload panicked", "panic", v, "stack", string(debug.Stack()))
			err = &rotator.PanicError{Value: v}
		}
	}()
	c, source, err := r.a.try()
	r.tried = fingerprint(source, err)
	if err != nil {
		return nil, err
	}
	if err := r.fixed(c); err != nil {
		return nil, err
	}
	if r.move != nil {
		if err := r.move(c); err != nil {
			return nil, err
		}
	}
	entries, made, err := r.build(c)
	if err != nil {
		return nil, err
	}
	required, optional := r.engine.CheckNew(ctx, entries)
	if required != nil {
		made.opener.Close()
		return nil, fmt.Errorf("a new sink would not take its token: %w", required)
	}
	if optional != nil {
		r.log.Warn("a new sink that is not required would not take its token", "error", optional)
	}
	if err := r.adopt(ctx, c, entries, made); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.house.fallback = nil
	r.mu.Unlock()
	r.client.SetTimeout(c.API.Timeout)
	r.limiter.SetRate(c.API.RequestsPerMinute)
	r.engine.Tune(c.Daemon.ReadBack, c.Daemon.Settle, each(c))
	if err := r.accept(ctx); err != nil {
		r.log.Warn("the last accepted configuration stays the one before", "error", err)
	}
	return c, nil
}

// fixed refuses what only a restart can change.
func (r *reloader) fixed(c *config.Config) error {
	old, _ := r.inForce()
	var what []string
	if c.Instance != "" && c.Instance != r.instance {
		what = append(what, fmt.Sprintf("instance (%s, in force is %s)", c.Instance, r.instance))
	}
	if r.move == nil && r.a.base(c) != r.a.base(old) {
		what = append(what, fmt.Sprintf("api.base_url (%s, in force is %s)", r.a.base(c), r.a.base(old)))
	}
	if c.API.Token != old.API.Token {
		what = append(what, "api.token (another text in the same file counts at once)")
	}
	if r.move == nil && r.a.set.Listen == "" && c.Monitor.Listen != old.Monitor.Listen {
		what = append(what, fmt.Sprintf("monitor.listen (%s)", cmp.Or(c.Monitor.Listen, "removed")))
	}
	if len(what) == 0 {
		return nil
	}
	return usage("only a restart changes %s", strings.Join(what, ", "))
}

// logProblems logs each problem of a refused configuration on a line of its own.
func logProblems(b *house, err error) {
	var refused *refusedError
	if !errors.As(err, &refused) {
		return
	}
	for _, p := range refused.problems {
		if p.Severity != config.Error {
			continue
		}
		text := p.Message
		if p.Where != "" {
			text = p.Where + ": " + text
		}
		b.log.Error(text, "file", p.File, "line", p.Line)
	}
}

// unreadableOrNil is unreadable for those errors that are some.
func unreadableOrNil(path string, err error) error {
	if err == nil {
		return nil
	}
	return unreadable(path, err)
}

// degraded says, where the configuration in force is not the file's, what runs instead.
func (b *house) degraded() string {
	c, f := b.inForce()
	if f == nil {
		return ""
	}
	return fmt.Sprintf("%s is refused, the one of %s runs with %s", filepath.Base(f.Source.Path), briefly(f.At, b.a.now()), count(len(c.Tokens), "token"))
}
