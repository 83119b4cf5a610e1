package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/consumers"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/management"
	"github.com/rotatord/rotatord/rotator/monitor"
	"github.com/rotatord/rotatord/rotator/notify"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/rotator/store"
	"github.com/rotatord/rotatord/sinks"
)

// unreadable says that there is no configuration to be had at path.
func unreadable(path string, err error) error {
	if absent(path, err) {
		return usage("there is no %s: name it with --config or ROTATORD_CONFIG", path)
	}
	return usage("%w", err)
}

// absent reports whether path itself is what is not there: of a folder, it may be where a link leads.
func absent(path string, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err = os.Lstat(path)
	return err != nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// base is the API's origin: environment first, then the file, then the official one.
func (a *app) base(c *config.Config) string {
	return cmp.Or(a.set.Base, c.API.BaseURL, sitegpt.DefaultBaseURL)
}

// client builds the API client and its limiter. observe is told of each request; nil: nobody is.
func (a *app) client(c *config.Config, bearer func() rotator.Secret, observe func(op, outcome string, took time.Duration)) (*sitegpt.Client, *sitegpt.Limiter, error) {
	limiter := sitegpt.NewLimiter(c.API.RequestsPerMinute, a.now)
	client, err := sitegpt.New(sitegpt.Config{
		BaseURL: a.base(c), Token: bearer, Timeout: c.API.Timeout,
		UserAgent: "rotatord/" + buildVersion(), Limiter: limiter, Now: a.now, Observe: observe,
	})
	if err != nil {
		name := "api.base_url"
		if a.set.Base != "" {
			name = "SITEGPT_API_BASE"
		}
		return nil, nil, usage("%s: %w", name, err)
	}
	return client, limiter, nil
}

// corrected is the local clock plus what the API's Date header was last seen to differ. Less than
// two seconds is the header's own grain.
func corrected(now func() time.Time, client *sitegpt.Client) func() time.Time {
	return func() time.Time {
		if d, ok := client.Offset(); ok && d.Abs() >= 2*time.Second {
			return now().Add(d)
		}
		return now()
	}
}

// house is everything that works on tokens needs: made for run, once, rotate and revoke.
type house struct {
	a        *app
	log      *slog.Logger
	store    *store.Store
	lock     *store.Lock
	client   *sitegpt.Client
	limiter  *sitegpt.Limiter
	keeper   *management.Keeper
	engine   *rotator.Engine
	teller   *consumers.Teller
	notifier *notify.Notifier
	instance string
	only     []string
	move     func(*config.Config) error // of a rehearsal; nil: for real
	metrics  *monitor.Metrics
	read     time.Time             // when the configuration that it began with was read
	interval time.Duration         // of once: to the next pass, as far as that is known; 0: it is not
	loop     *monitor.Pulse        // of a daemon; nil: there is no loop
	reloads  atomic.Pointer[trial] // how the last try to take over a configuration ended; nil: there was none

	mu        sync.Mutex     // guards what a reload changes
	config    *config.Config // in force
	opener    *sinks.Opener
	consumers map[string]consumers.Consumer // by name
	fallback  *fallback                     // the configuration in force is not what the file says; nil: it is
}

// each is what the request limit makes of one rotation.
func each(c *config.Config) time.Duration {
	return 2 * time.Minute / time.Duration(c.API.RequestsPerMinute)
}

// how tells open what the command wants.
type how struct {
	kind          store.HolderKind
	command       string
	wait          time.Duration // for a lock that a command holds
	ahead         time.Duration // of once: the distance to the next pass
	only          []string      // work on these entries alone; nil: on all
	acceptAccount bool
	rehearsal     *rehearsal // nil: for real
}

// open reads the configuration, takes the lock and loads the engine. On an error nothing is left open.
func (a *app) open(ctx context.Context, h how) (_ *house, err error) {
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	read := a.now()
	c, source, refused := a.try()
	dir := ""
	if h.rehearsal != nil {
		dir = h.rehearsal.state
	} else if refused == nil { // what is wrong is told before anything is made
		if dir, err = a.stateDir(); err != nil {
			return nil, err
		}
		if _, err := a.bearer(c, dir); err != nil {
			return nil, err
		}
	} else if dir, err = a.stateDir(); err != nil {
		a.complain(refused)
		return nil, refused
	}
	if _, err := os.Stat(filepath.Join(dir, store.File)); refused != nil && err != nil {
		a.complain(refused)
		return nil, refused
	}
	b := &house{a: a, log: log, only: h.only, read: read}
	if h.rehearsal != nil {
		b.move = h.rehearsal.move
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if err := a.makeStateHome(); err != nil {
		return nil, err
	}
	b.lock, err = store.WaitLock(ctx, dir, store.Holder{
		Kind: h.kind, Command: h.command, User: a.whoami(), Since: a.now(),
	}, h.wait, func(held store.Holder) bool { return held.Kind == store.Command })
	if err != nil {
		return nil, err
	}
	b.metrics = b.newMetrics(h.kind)
	if b.store, err = store.Open(ctx, dir, store.Options{Told: all(tell(log, h.kind == store.Daemon), b.metrics.Told)}); err != nil {
		return nil, err
	}
	if refused != nil {
		b.declined(ctx, fingerprint(source, refused), refused)
		if c, b.fallback, err = a.lastAccepted(ctx, b.store.Reader, source.Path, refused); err != nil {
			a.complain(err)
			return nil, err
		}
	}
	b.config = c
	var bearer func() rotator.Secret
	if h.rehearsal != nil {
		bearer = h.rehearsal.bearer
		err = h.rehearsal.move(c)
	} else {
		bearer, err = a.bearer(c, dir)
	}
	if err != nil {
		return nil, err
	}
	key, err := b.store.Key(ctx)
	if err != nil {
		return nil, err
	}
	if b.instance, err = b.store.Instance(ctx, c.Instance, a.whoami(), a.now()); err != nil {
		return nil, err
	}
	if b.client, b.limiter, err = a.client(c, func() rotator.Secret { s, _ := b.keeper.Bearer(); return s }, b.metrics.API); err != nil {
		return nil, err
	}
	own := &account{house: b, given: bearer, accept: h.acceptAccount}
	b.keeper = management.New(management.Config{
		File: ownFile(dir), Key: key, Given: bearer,
		Note: func(ctx context.Context) (string, error) {
			note, _, err := b.store.Meta(ctx, metaOwn)
			return note, err
		},
		SetNote: func(ctx context.Context, note string) error { return b.store.SetMeta(ctx, metaOwn, note) },
		Works:   own.works,
		Chose:   b.asksWith,
		Prove:   b.prove(c, b.limiter),
	})
	own.API = &management.API{API: b.client, Keeper: b.keeper}
	if err := b.origin(ctx, h.acceptAccount); err != nil {
		return nil, err
	}
	var every time.Duration // a command looks when it has something to do
	if h.kind == store.Daemon {
		every = lookEvery
	}
	b.engine = rotator.New(rotator.Config{
		API:   own,
		Store: b.store, Key: key, Instance: b.instance,
		Now: corrected(a.now, b.client), Local: a.now, Measured: b.client.Measured, LookEvery: every, Pace: b.limiter.Wait,
		Each:     each(c),
		ReadBack: c.Daemon.ReadBack, Settle: c.Daemon.Settle, Only: h.only,
		Warn:  func(msg string, err error) { log.Warn(msg, "error", err) },
		Swept: func(f rotator.Found) { b.swept(f) },
	})
	b.teller, b.notifier = b.newTeller(), b.newNotifier(h.kind == store.Daemon)
	if err := b.began(ctx, h); err != nil { // with a full disk, who has a token in hand goes on all the same
		log.Warn("note the start in the journal", "error", err)
	}
	if err := b.loadEntries(ctx, c, h.ahead); err != nil {
		return nil, err
	}
	if b.fallback == nil && h.only == nil {
		if err := b.accept(ctx); err != nil {
			log.Warn("the last accepted configuration stays the one before", "error", err)
		}
	}
	return b, nil
}

// loadEntries builds the entries of c and hands them to the engine.
func (b *house) loadEntries(ctx context.Context, c *config.Config, ahead time.Duration) error {
	entries, made, err := b.build(c)
	if err != nil {
		return err
	}
	for i := range entries {
		entries[i].Ahead = ahead
	}
	return b.adopt(ctx, c, entries, made)
}

// made is what a configuration comes to, besides its entries.
type made struct {
	opener    *sinks.Opener
	consumers map[string]consumers.Consumer
}

// build makes the entries of c, with their sinks and consumers.
func (b *house) build(c *config.Config) ([]rotator.Entry, made, error) {
	opener := sinks.NewOpener(c.Connections(), sinks.World{Logger: b.log, Getenv: b.a.getenv, Now: b.a.now, Observe: b.metrics.Vault})
	b.mu.Lock()
	if b.opener != nil {
		opener.Follow(b.opener)
	}
	b.mu.Unlock()
	entries, err := c.Entries(opener.Open, b.keeper.Outlet())
	if err == nil && len(entries) == 0 && !b.a.allowEmpty && b.fallback == nil {
		err = errors.New("the configuration declares no token: --allow-empty says that this is meant")
	}
	told, terr := b.consumersOf(c)
	if err = errors.Join(err, terr); err != nil {
		opener.Close()
		return nil, made{}, usage("%w", err)
	}
	return entries, made{opener, told}, nil
}

// adopt makes c, built, the configuration in force.
func (b *house) adopt(ctx context.Context, c *config.Config, entries []rotator.Entry, m made) error {
	if err := b.engine.Load(ctx, entries); err != nil {
		m.opener.Close()
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opener != nil {
		b.opener.Close()
	}
	b.opener, b.consumers, b.config = m.opener, m.consumers, c
	b.metrics.Vaults(vaults(c))
	return nil
}

// inForce is the configuration that the house works by, and what it stands in for.
func (b *house) inForce() (*config.Config, *fallback) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.config, b.fallback
}

func (b *house) close() {
	if b.opener != nil {
		b.opener.Close()
	}
	if b.client != nil {
		b.client.Close()
	}
	if b.store != nil {
		if err := b.store.Close(); err != nil {
			b.log.Warn("close the state", "error", err)
		}
	}
	if b.lock != nil {
		b.lock.Unlock() //nolint:errcheck // the kernel frees it with the process anyway
	}
}

// origin refuses a state that belongs to another API.
func (b *house) origin(ctx context.Context, accept bool) error {
	origin, _, ok, err := b.store.Pinned(ctx)
	if err != nil {
		return err
	}
	if ok && origin != b.client.Origin() && !accept {
		return usage("this state belongs to %s, and the configuration names %s: use another --state-dir, or --accept-account if the tokens there are to be forgotten", origin, b.client.Origin())
	}
	return nil
}

const metaSweep = "sweep" // what the last look at the list found, for status

func (b *house) swept(f rotator.Found) {
	text, err := json.Marshal(f)
	if err == nil {
		err = b.store.SetMeta(context.Background(), metaSweep, string(text))
	}
	if err != nil {
		b.log.Warn("note what the list shows", "error", err)
	}
	if d, far := b.client.Skew(); far {
		b.log.Warn("this machine's clock and the API's differ", "by", d.String())
	}
}

// pass looks until nothing is due, until enough says so (nil: never), or until what is left is not
// due within patience. What is due now is always done, and enough asked after it. It returns the
// names of entries that are unfinished.
func (b *house) pass(soft, hard context.Context, patience time.Duration, enough func() bool) []string {
	deadline := b.a.now().Add(patience)
	for {
		b.engine.Look(soft, hard)
		b.engine.Wait()
		names, wake, ok := b.engine.Due()
		if len(names) == 0 || soft.Err() != nil || !ok || wake.After(deadline) || (enough != nil && enough()) {
			return names
		}
		timer := time.NewTimer(max(wake.Sub(b.a.now()), 20*time.Millisecond))
		select {
		case <-timer.C:
		case <-soft.Done():
			timer.Stop()
		}
	}
}

// names expands globs over what is known; each pattern must name something.
func expand(patterns, known []string) ([]string, error) { return expandAs("token", patterns, known) }

// expandAs is expand for things of another kind.
func expandAs(kind string, patterns, known []string) ([]string, error) {
	var out []string
	for _, p := range patterns {
		found := false
		for _, n := range known {
			if ok, err := path.Match(p, n); err != nil {
				return nil, usage("%q is no pattern: %w", p, err)
			} else if ok {
				out, found = append(out, n), true
			}
		}
		if !found {
			msg := fmt.Sprintf("there is no %s %q", kind, p)
			if near := field.Nearest(p, known); near != "" {
				msg += fmt.Sprintf(" (did you mean %q?)", near)
			} else if len(known) > 0 && len(known) <= 10 {
				msg += "; there is " + strings.Join(known, ", ")
			}
			return nil, usage("%s", msg)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
