package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

// sandboxDir is where a rehearsal keeps everything, below the working folder.
const sandboxDir = "sandbox"

// rehearsal is --sandbox: anybody's rotation.yaml against the stand-in, with state and sinks below
// one folder. Nothing outside of it is touched.
type rehearsal struct {
	app    *app
	dir    string
	state  string
	server *sandbox.Server
	bearer func() rotator.Secret
	stop   func() error
	notes  []string
}

// rehearse starts the stand-in.
func (a *app) rehearse(ctx context.Context) (*rehearsal, error) {
	r, err := a.rehearsalAt()
	if err != nil {
		return nil, err
	}
	dir := r.dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the sandbox: %w", err)
	}
	if r.server, err = sandbox.Open(filepath.Join(dir, "sitegpt.json"), sandbox.Options{
		Now: a.now, Behavior: sandbox.Behavior{AnswerExpiry: true, ListMore: true},
	}); err != nil {
		return nil, err
	}
	url, stop, err := r.server.Start(ctx, "")
	if err != nil {
		return nil, err
	}
	r.stop = stop
	r.bearer = r.server.Management
	a.set.Base = url
	fmt.Fprintf(a.stderr, "Rehearsal: a stand-in of SiteGPT listens on %s; state and sinks are below %s.\nNo account, no Vault and no command of yours is used. Ctrl-C ends it; remove the folder to start afresh.\n\n", url, relative(dir))
	return r, nil
}

// rehearsalAt says where a rehearsal is; nothing is made or started.
func (a *app) rehearsalAt() (*rehearsal, error) {
	dir, err := filepath.Abs(sandboxDir)
	if err != nil {
		return nil, fmt.Errorf("find the sandbox: %w", err)
	}
	return &rehearsal{app: a, dir: dir, state: filepath.Join(dir, "state")}, nil
}

// move puts every sink of c below the sandbox.
func (r *rehearsal) move(c *config.Config) error {
	c.API.RequestsPerMinute = 6000 // nobody has to be spared here
	for i := range c.Tokens {
		t := &c.Tokens[i]
		for j := range t.Sinks {
			s := &t.Sinks[j]
			spec, instead := s.Spec.Under(r.dir)
			path := ""
			switch {
			case spec.EnvFile != nil:
				path = spec.EnvFile.Path
			case spec.File != nil:
				path = spec.File.Path
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return fmt.Errorf("make the sandbox: %w", err)
			}
			spec.Resolve(r.dir)
			s.Spec, s.Kind, s.Place = spec, spec.Kind(), spec.Place()
			s.Name = relative(path)
			if spec.EnvFile != nil {
				s.Name += " " + spec.EnvFile.Key
			}
			if instead != "" {
				r.notes = append(r.notes, fmt.Sprintf("%s: %s: %s", t.Name, s.Name, instead))
			}
		}
	}
	for _, n := range r.notes {
		fmt.Fprintln(r.app.stderr, "  "+n)
	}
	return nil
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
