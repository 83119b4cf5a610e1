package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
	"github.com/rotatord/rotatord/sinks"
)

// sandboxDir is where a rehearsal keeps everything, below the working folder.
const sandboxDir = "sandbox"

// rehearsal is --sandbox: anybody's rotation.yaml against the stand-in, with state and sinks below
// one folder. Nothing outside of it is touched.
type rehearsal struct {
	app    *app
	state  string
	bearer func() rotator.Secret
	stop   func() error
}

// sandboxFlag is for commands that also work on a rehearsal.
func (a *app) sandboxFlag(c *cobra.Command, usage string) {
	c.Flags().BoolVar(&a.inSandbox, "sandbox", false, usage)
}

// sandboxPath is a path in the folder of the rehearsal.
func sandboxPath(elem ...string) (string, error) {
	path, err := filepath.Abs(filepath.Join(append([]string{sandboxDir}, elem...)...))
	if err != nil {
		return "", fmt.Errorf("find the sandbox: %w", err)
	}
	return path, nil
}

// enter opens the house: for real, or with a stand-in where this is a rehearsal. The stand-in lives
// until hard ends, so that a token that was just made can be brought to safety. leave may be called
// twice; when it has returned, all that happened is in the log.
func (a *app) enter(soft, hard context.Context, h how) (b *house, leave func(), err error) {
	end := func() {}
	if a.inSandbox {
		if h.rehearsal, err = a.rehearse(hard); err != nil {
			return nil, nil, err
		}
		h.acceptAccount = true              // each time it listens on another port
		end = func() { h.rehearsal.stop() } //nolint:errcheck // the process ends with it
	}
	if b, err = a.open(soft, h); err != nil {
		end()
		return nil, nil, err
	}
	return b, sync.OnceFunc(func() { b.close(); end() }), nil
}

// rehearse starts the stand-in.
func (a *app) rehearse(ctx context.Context) (*rehearsal, error) {
	dir, err := sandboxPath()
	if err != nil {
		return nil, err
	}
	state, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the sandbox: %w", err)
	}
	server, err := sandbox.Open(filepath.Join(dir, "sitegpt.json"), sandbox.Options{
		Now: a.now, Behavior: sandbox.Behavior{AnswerExpiry: true, ListMore: true},
	})
	if err != nil {
		return nil, err
	}
	url, stop, err := server.Start(ctx, "")
	if err != nil {
		return nil, err
	}
	a.set.Base = url
	fmt.Fprintf(a.stderr, "Rehearsal: a stand-in of SiteGPT listens on %s; state and sinks are below %s.\nNo account, no Vault and no command of yours is used. Remove the folder to start afresh.\n\n", url, relative(dir))
	return &rehearsal{app: a, state: state, bearer: server.Management, stop: stop}, nil
}

// move puts the sinks of c below the sandbox, makes the folders that they need, and tells a person
// what is not as declared.
func (r *rehearsal) move(c *config.Config) error {
	notes, err := moveSinks(c)
	if err != nil {
		return err
	}
	for i := range c.Tokens {
		for _, s := range c.Tokens[i].Sinks {
			if err := os.MkdirAll(filepath.Dir(filePath(s.Spec)), 0o700); err != nil {
				return fmt.Errorf("make the sandbox: %w", err)
			}
		}
	}
	for _, n := range notes {
		fmt.Fprintln(r.app.stderr, "  "+n)
	}
	return nil
}

// moveSinks puts every sink of c below the sandbox, and returns where that is more than another
// path. It makes nothing.
func moveSinks(c *config.Config) (notes []string, err error) {
	dir, err := sandboxPath()
	if err != nil {
		return nil, err
	}
	c.API.RequestsPerMinute = 6000 // nobody has to be spared here
	c.Monitor = config.Monitor{Insecure: c.Monitor.Insecure, Hosts: c.Monitor.Hosts}
	for i := range c.Tokens {
		t := &c.Tokens[i]
		for j := range t.Sinks {
			s := &t.Sinks[j]
			spec, instead := s.Spec.Under(dir)
			spec.Resolve(dir)
			s.Spec, s.Kind, s.Place = spec, spec.Kind(), spec.Place()
			s.Name = relative(filePath(spec))
			if spec.EnvFile != nil {
				s.Name += " " + spec.EnvFile.Key
			}
			if instead != "" {
				notes = append(notes, fmt.Sprintf("%s: %s: %s", t.Name, s.Name, instead))
			}
		}
	}
	return notes, nil
}

// filePath is the file that a moved sink writes: what Under returns is always one.
func filePath(s sinks.Spec) string {
	if s.EnvFile != nil {
		return s.EnvFile.Path
	}
	return s.File.Path
}

// relative is a path as short as it can be told from here.
func relative(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && filepath.IsLocal(rel) {
		return "./" + rel
	}
	return path
}
