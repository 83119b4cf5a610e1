package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/monitor"
	"github.com/rotatord/rotatord/rotator/store"
)

// facts are how everything is at an instant: status prints them, and the daemon's page shows them.
type facts struct {
	report   rotator.Report
	found    rotator.Found // of the last look at SiteGPT's list
	holder   store.Holder  // who works on the state; zero: nobody
	stuck    string        // of a daemon: why nothing moves; "": it does
	standing standing
	instance string
	dir      string // of the state
	config   string // path of the configuration
	fresh    bool   // there is no state yet
}

// statusJSON is the output of status --json, and what the daemon serves as /api/status.json.
type statusJSON struct {
	Format        int                   `json:"format"` // 1
	Instance      string                `json:"instance,omitempty"`
	At            time.Time             `json:"at"`
	Problems      []problemJSON         `json:"problems"` // the most urgent first
	Tokens        []rotator.TokenStatus `json:"tokens"`   // sorted by name
	Daemon        *daemonJSON           `json:"daemon"`   // who works on the state; null: nobody
	List          listJSON              `json:"list"`
	Configuration standing              `json:"configuration"`
}

// problemJSON is a problem, and what a person can do about it.
type problemJSON struct {
	rotator.Problem
	Do string `json:"do,omitempty"`
}

// daemonJSON is who works on a state.
type daemonJSON struct {
	store.Holder
	Stuck string `json:"stuck,omitempty"` // why nothing moves although it runs
}

// listJSON is what the last look at SiteGPT's list showed besides the tokens above.
type listJSON struct {
	At          time.Time        `json:"at,omitzero"`
	Unexplained []rotator.Listed `json:"unexplained"` // our mark, and this state knows nothing of them
	Others      int              `json:"other_instances"`
	Foreign     int              `json:"foreign"`
}

func (f *facts) json() statusJSON {
	out := statusJSON{
		Format: 1, Instance: f.instance, At: f.report.At, Problems: []problemJSON{}, Tokens: f.report.Tokens, Configuration: f.standing,
		List: listJSON{At: f.found.At, Unexplained: f.found.Unexplained, Others: len(f.found.Others), Foreign: f.found.Foreign},
	}
	for _, p := range f.report.Problems {
		out.Problems = append(out.Problems, problemJSON{p, hint(p, f.running())})
	}
	if out.List.Unexplained == nil {
		out.List.Unexplained = []rotator.Listed{}
	}
	if f.holder.PID != 0 {
		out.Daemon = &daemonJSON{f.holder, f.stuck}
	}
	return out
}

// running reports whether a daemon goes on by itself.
func (f *facts) running() bool { return f.holder.Kind == store.Daemon }

// facts are what was read from a state on the disk.
func (l *look) facts(a *app, now time.Time) *facts {
	f := &facts{
		report: l.report(now), found: l.found, holder: l.holder, standing: l.standing,
		instance: l.instance, dir: l.dir, config: a.configPath(), fresh: l.fresh,
	}
	if f.running() {
		if moved, err := store.Moved(l.dir); err == nil && now.Sub(moved) > moveBound+2*beatEvery {
			f.stuck = "its control loop has not moved for " + field.FormatDuration(now.Sub(moved))
		}
	}
	return f
}

// facts are how the house's tokens are now.
func (s *service) facts(ctx context.Context) (*facts, error) {
	now := s.a.now()
	entries, records := s.engine.Snapshot()
	f := &facts{report: rotator.Describe(entries, records, now), holder: s.lock.Who(), instance: s.instance, config: s.a.configPath()}
	if err := s.pulse.Within(moveBound); err != nil && !s.stopping.Load() {
		f.stuck = err.Error()
	}
	c, _ := s.inForce()
	own, _, err := s.store.Meta(ctx, metaOwnExpires)
	if err != nil {
		return nil, err
	}
	f.report.Problems = append(append(s.unheard(ctx), ownExpiry(c, records, own, now)...), f.report.Problems...)
	if f.found, _, err = kept[rotator.Found](ctx, s.store.Reader, metaSweep); err != nil {
		return nil, err
	}
	f.standing, err = s.standing(ctx)
	return f, err
}

// standing is how the configuration in force and the file go together.
func (s *service) standing(ctx context.Context) (standing, error) {
	var out standing
	t, tried, err := kept[trial](ctx, s.store.Reader, metaTrial)
	if err != nil {
		return out, err
	}
	if tried && t.Error != "" {
		out.Refused = &t
	}
	acc, ok, err := kept[acceptance](ctx, s.store.Reader, metaAccepted)
	if err != nil || !ok {
		return out, err
	}
	out.Accepted = acc.At
	source, _ := config.Read(s.a.configPath()) // what cannot be read is another text, too
	out.Edited = source.Hash() != acc.Source.Hash()
	return out, nil
}

// pageRows is how many tokens the page lists for who runs no scripts.
const pageRows = 200

// view is the facts for who looks at the daemon's page.
func (s *service) view(ctx context.Context) (*monitor.Facts, error) {
	f, err := s.facts(ctx)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(f.json())
	if err != nil {
		return nil, fmt.Errorf("write the status: %w", err)
	}
	var words bytes.Buffer
	f.write(&words, pageRows)
	return monitor.NewFacts(text, words.String(), f.report.At), nil
}
