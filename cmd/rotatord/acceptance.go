package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/store"
)

// What the state keeps about configurations.
const (
	metaAccepted = "configuration"       // an acceptance
	metaTrial    = "configuration-trial" // a trial
)

// acceptance is the configuration in force: the last one that was accepted. It is what runs when
// the file is refused at a start. There is no secret in it, as in no configuration.
type acceptance struct {
	At     time.Time     `json:"at"`
	Source config.Source `json:"source"`
}

// trial is how the daemon's last try to take over a configuration ended.
type trial struct {
	Begun    time.Time `json:"begun"`
	Ended    time.Time `json:"ended"`
	Tokens   int       `json:"tokens"`
	Error    string    `json:"error,omitempty"`    // why it was refused; "": it is in force
	Problems []string  `json:"problems,omitempty"` // of the file, as people read them
	Next     time.Time `json:"next,omitzero"`      // when it is tried again by itself
	Wrong    bool      `json:"wrong,omitempty"`    // the configuration is at fault, and not what it names
}

// keep notes a value in the state, and with it in the journal what tells of it.
func keep(ctx context.Context, st *store.Store, name string, v any, told ...rotator.Event) error {
	text, err := json.Marshal(v)
	if err == nil {
		err = st.SetMeta(ctx, name, string(text), told...)
	}
	if err != nil {
		return fmt.Errorf("note the configuration in the state: %w", err)
	}
	return nil
}

// kept reads a value that keep noted; false where there is none.
func kept[T any](ctx context.Context, st *store.Reader, name string) (v T, ok bool, err error) {
	text, ok, err := st.Meta(ctx, name)
	if err == nil && ok {
		err = json.Unmarshal([]byte(text), &v)
	}
	if err != nil {
		return v, false, fmt.Errorf("read what the state knows of the configuration: %w", err)
	}
	return v, ok, nil
}

// accept notes that the house works by its configuration from now on, unless it did before.
func (b *house) accept(ctx context.Context) error {
	source, err := b.config.Source.Absolute()
	if err != nil {
		return err
	}
	old, ok, err := kept[acceptance](ctx, b.store.Reader, metaAccepted)
	if err != nil {
		return err
	}
	if err := b.undeclined(ctx); err != nil {
		return err
	}
	if ok && old.Source.Path == source.Path && old.Source.Hash() == source.Hash() {
		return nil
	}
	return keep(ctx, b.store, metaAccepted, acceptance{At: b.a.now(), Source: source}, b.configured(old.Source, source, !ok))
}

// fallback is the last accepted configuration, for want of the one that is refused.
type fallback struct {
	acceptance
	refused error
}

// lastAccepted returns the configuration that was last accepted from this path, or refused where
// there is none.
func (a *app) lastAccepted(ctx context.Context, st *store.Reader, path string, refused error) (*config.Config, *fallback, error) {
	acc, ok, err := kept[acceptance](ctx, st, metaAccepted)
	if err != nil {
		return nil, nil, errors.Join(refused, err)
	}
	if path, err = filepath.Abs(path); err != nil || !ok || acc.Source.Path != path {
		return nil, nil, refused
	}
	c, problems := acc.Source.Parse(config.Options{Now: a.now(), AllowEmpty: true})
	if c == nil {
		return nil, nil, fmt.Errorf("%w; and the one that was accepted %s is refused by this version: %s", refused, local(acc.At), count(problems.Errors(), "error"))
	}
	return c, &fallback{acc, refused}, nil
}

// load reads the configuration. Where it is refused, the last accepted one has to do: who works on
// tokens at night must not be stopped by a slip in a file.
func (a *app) load(ctx context.Context) (*config.Config, error) {
	c, source, refused := a.try()
	if refused == nil {
		return c, nil
	}
	c, f, err := a.instead(ctx, source.Path, refused)
	if err != nil {
		a.complain(err)
		return nil, err
	}
	a.excuse(f)
	return c, nil
}

// instead looks into the state for the last accepted configuration.
func (a *app) instead(ctx context.Context, path string, refused error) (*config.Config, *fallback, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, nil, refused
	}
	st, err := a.reader(ctx, dir)
	if err != nil {
		return nil, nil, refused
	}
	defer st.Close() //nolint:errcheck // only read
	return a.lastAccepted(ctx, st, path, refused)
}

// loadStrict reads the configuration for who wants to know what it says, right or wrong.
func (a *app) loadStrict() (*config.Config, error) {
	c, _, err := a.try()
	if err != nil {
		a.complain(err)
	}
	return c, err
}

// complain writes what is wrong with a configuration.
func (a *app) complain(err error) {
	var refused *refusedError
	if errors.As(err, &refused) {
		refused.problems.WriteText(a.stderr) //nolint:errcheck // there is nowhere else to complain
	}
}

// excuse says, once a command, which configuration it works by.
func (a *app) excuse(f *fallback) {
	if !a.excused {
		a.excused = true
		fmt.Fprintf(a.stderr, "%s (rotatord validate says why): this goes by the one that was accepted %s\n", f.refused, local(f.At))
	}
}

// try reads the configuration, and returns what it read even if that is refused.
func (a *app) try() (*config.Config, config.Source, error) {
	path := a.configPath()
	source, err := config.Read(path)
	if err != nil {
		return nil, config.Source{Path: path}, unreadable(path, err)
	}
	c, problems := source.Parse(config.Options{Now: a.now(), AllowEmpty: a.allowEmpty, NextPass: time.Duration(a.nextPass)})
	if c == nil {
		return nil, source, &refusedError{path, problems}
	}
	return c, source, nil
}

// refusedError says that a configuration is wrong, and where.
type refusedError struct {
	path     string
	problems config.Problems
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("%s is refused: %s", e.path, count(e.problems.Errors(), "error"))
}

// words are the problems of a refused configuration as people read them; none of other errors.
func words(err error) []string {
	var refused *refusedError
	if !errors.As(err, &refused) {
		return nil
	}
	var out []string
	for _, p := range refused.problems {
		if p.Severity == config.Error {
			out = append(out, p.String())
		}
	}
	return out
}

// fingerprint tells whether a configuration is another one than before, also one that cannot be read.
func fingerprint(s config.Source, err error) string {
	if len(s.Files) > 0 {
		return s.Hash()
	}
	return cmp.Or(fmt.Sprint(err), "nothing")
}
