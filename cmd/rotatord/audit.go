package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/store"
)

// What the journal is told besides what the engine does: who works on the state and with which
// version, by which configuration, and in whose account.

const (
	metaDeclined = "configuration-declined" // the fingerprint of the refusal that the journal was told of; "": none since the last acceptance
	metaRan      = "ran"                    // a ran, of the command that last worked on the state
	metaAsksWith = "management-in-use"      // which token rotatord asked with last
)

// whoami is the OS user, for the journal: with sudo, and where the kernel knows who logged in, also
// who that is: "root (alice)".
func (a *app) whoami() string {
	name := "uid " + strconv.Itoa(os.Geteuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	login := ""
	if b, err := os.ReadFile("/proc/self/loginuid"); err == nil {
		login = loginName(strings.TrimSpace(string(b)))
	}
	return signed(name, cmp.Or(login, a.getenv("SUDO_USER"), a.getenv("DOAS_USER")))
}

// loginName is the user whom the kernel's audit knows this login by; "" where it knows none.
func loginName(uid string) string {
	const unset = "4294967295"
	if _, err := strconv.ParseUint(uid, 10, 32); err != nil || uid == unset {
		return ""
	}
	u, err := user.LookupId(uid)
	if err != nil {
		return "uid " + uid
	}
	return u.Username
}

// signed adds to a user's name who that user was before. What comes from the environment may be
// anything: only what looks like a name is taken.
func signed(name, before string) string {
	odd := func(r rune) bool { return r <= ' ' || r == '(' || r == ')' || r == 0x7f || r == utf8.RuneError }
	if before == "" || before == name || len(before) > 64 || strings.ContainsFunc(strings.TrimPrefix(before, "uid "), odd) {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, before)
}

// ran is what tells one worker on the state from another.
type ran struct {
	Command string `json:"command"`
	Version string `json:"version"`
	By      string `json:"by"`
}

// began tells the journal who works on the state from now on. A daemon is always told of; a command
// that comes again and again only when it is another one, of another version or user, than the last.
func (b *house) began(ctx context.Context, h how) error {
	now := ran{h.command, buildVersion(), b.a.whoami()}
	text, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if last, _, err := b.store.Meta(ctx, metaRan); err != nil || last == string(text) && h.kind != store.Daemon {
		return err
	}
	return b.store.SetMeta(ctx, metaRan, string(text), rotator.Event{
		At: b.a.now(), Kind: rotator.EventStarted, Detail: "rotatord " + now.Command, Version: now.Version, By: now.By,
	})
}

// ended tells the journal that a daemon stopped in order. Where this is missing, it did not.
func (b *house) ended(ctx context.Context) {
	if err := b.store.Tell(ctx, rotator.Event{
		At: b.a.now(), Kind: rotator.EventStopped, Detail: "rotatord run", Version: buildVersion(), By: b.a.whoami(),
	}); err != nil {
		b.log.Warn("note the end in the journal", "error", err)
	}
}

// configured is the event of a configuration that comes into force: c, in place of the old one.
func (b *house) configured(old, c config.Source, first bool) rotator.Event {
	ev := rotator.Event{At: b.a.now(), Kind: rotator.EventConfigured, Hash: c.Hash(), By: b.a.whoami()}
	o := config.Options{Now: ev.At, AllowEmpty: true}
	after, _ := c.Parse(o)
	var before *config.Config
	if !first {
		before, _ = old.Parse(o)
	}
	what := []string{"was " + short(old.Hash())}
	switch {
	case first:
		what = []string{"the first one"}
	case old.Path != c.Path:
		what = append(what, fmt.Sprintf("from %s, before from %s", c.Path, old.Path))
	}
	switch {
	case after == nil: // it was accepted a moment ago
	case before == nil && !first:
		what = append(what, "this version cannot read the old one: "+count(len(after.Tokens), "token"))
	default:
		changes := config.Changes(before, after, ev.At)
		if len(changes) == 0 {
			changes = []string{"the same in other words"}
		}
		what = append(what, changes...)
		if len(after.Tokens) == 0 {
			what = append(what, "no token is declared (--allow-empty)")
		}
	}
	ev.Detail = strings.Join(what, "; ")
	return ev
}

// short is as much of a hash as people compare.
func short(hash string) string { return hash[:min(12, len(hash))] }

// declined tells the journal, once for each text, that a configuration was refused. print is its
// fingerprint.
func (b *house) declined(ctx context.Context, print string, refused error) {
	text := refused.Error()
	for _, problem := range words(refused) { // where and what; the line itself is in the file
		first, _, _ := strings.Cut(problem, "\n")
		text += "\n" + first
	}
	sum := sha256.Sum256([]byte(print + "\n" + text))
	mark := hex.EncodeToString(sum[:])
	last, _, err := b.store.Meta(ctx, metaDeclined)
	if err == nil && last != mark {
		const most = 2000 // a file may have thousands of problems
		if len(text) > most {
			text = strings.ToValidUTF8(text[:most], "") + "…"
		}
		ev := rotator.Event{
			At: b.a.now(), Kind: rotator.EventDeclined, By: b.a.whoami(), Error: strings.TrimSpace(text),
			Detail: "the configuration was refused: the one from before stays in force",
		}
		if b, err := hex.DecodeString(print); err == nil && len(b) == sha256.Size {
			ev.Hash = print // else the files could not be read
		}
		err = b.store.SetMeta(ctx, metaDeclined, mark, ev)
	}
	if err != nil && ctx.Err() == nil {
		b.log.Warn("note in the journal that the configuration was refused", "error", err)
	}
}

// undeclined forgets the refusal: the next one is told of, whatever it says.
func (b *house) undeclined(ctx context.Context) error {
	if last, _, err := b.store.Meta(ctx, metaDeclined); err != nil || last == "" {
		return err
	}
	return b.store.SetMeta(ctx, metaDeclined, "")
}

// pinned is the event of an account that the state belongs to from now on; none where it did before.
func (b *house) pinned(origin, user, oldOrigin, oldUser string, known bool) []rotator.Event {
	name := func(user, origin string) string {
		if user == "" {
			return "an account at " + origin
		}
		return fmt.Sprintf("the account of user %s at %s", user, origin)
	}
	ev := rotator.Event{At: b.a.now(), Kind: rotator.EventAccount, By: b.a.whoami()}
	switch {
	case known && origin == oldOrigin && user == oldUser:
		return nil
	case !known:
		ev.Detail = "the state belongs to " + name(user, origin)
	case oldUser == "" && origin == oldOrigin:
		ev.Detail = fmt.Sprintf("the account at %s is that of user %s", origin, user)
	default:
		ev.Detail = fmt.Sprintf("the state belongs to %s from now on, and belonged to %s (--accept-account)", name(user, origin), name(oldUser, oldOrigin))
	}
	return []rotator.Event{ev}
}

// asksWith tells the journal which token rotatord itself asks with from now on, where that is another
// one than before. mark tells one credential of the operator's from the next.
func (b *house) asksWith(ctx context.Context, number int, mark string) {
	text, ev := fmt.Sprintf("%d %s", number, mark), rotator.Event{Kind: rotator.EventAccount, At: b.a.now(), Detail: "rotatord asks with the operator's credential"}
	if number > 0 {
		text = strconv.Itoa(number)
		ev.Detail = fmt.Sprintf("rotatord asks with generation %d of its own token", number)
	}
	last, _, err := b.store.Meta(ctx, metaAsksWith)
	if err == nil && last != text {
		if was, _, _ := strings.Cut(last, " "); was == "0" && number == 0 {
			ev.Detail = "rotatord asks with another credential of the operator's"
		}
		err = b.store.SetMeta(ctx, metaAsksWith, text, ev)
	}
	if err != nil && ctx.Err() == nil {
		b.log.Warn("note in the journal which management token is used", "error", err)
	}
}

// told tells the journal, for a command that may run as somebody else than the state's owner and
// works all the same; such a one leaves no trace of its own.
func (a *app) told(ctx context.Context, dir string, ev rotator.Event) error {
	st, err := store.Open(ctx, dir, store.Options{})
	if owner := (*store.OwnerError)(nil); errors.As(err, &owner) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(st.Tell(ctx, ev), st.Close())
}
