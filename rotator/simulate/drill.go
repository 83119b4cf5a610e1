package simulate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// Drill rehearses one entry: its first token and its first rotation, over and over; each time the
// process dies at another call, or another call goes wrong in another way, or something is down for
// a while. A witness looks after every single call. The entry's own sinks are never used: each is
// one in memory.
type Drill struct {
	Entry rotator.Entry
	Blind []string // places of sinks that cannot be read back
	Start time.Time
	// Lose makes the disk lie: a save with these events is acknowledged, and not written. nil: it does not.
	Lose func(events []rotator.Event) bool
}

// Outcome is what came of one kind of trouble, over all calls that it can hit.
type Outcome struct {
	Step    string `json:"step"`              // the call that it hits: "create", "push app.env", or "" for an outage
	Fault   string `json:"fault"`             // what goes wrong, for people
	Trials  int    `json:"trials"`            // how often it was tried
	Gaps    int    `json:"gaps"`              // trials in which a sink held a token that the API refuses
	Orphans int    `json:"orphans"`           // trials that ended with a live token that no record knows
	Stuck   int    `json:"stuck"`             // trials that did not end with every sink filled
	Loops   int    `json:"loops"`             // trials that created more tokens than the trouble explains
	Problem string `json:"problem,omitempty"` // what was seen first
}

// Broken reports whether the promise was broken in any trial.
func (o *Outcome) Broken() bool { return o.Gaps+o.Orphans+o.Stuck+o.Loops > 0 }

// crash is what a process that dies is called in a table.
const crash = "the process dies"

// troubles are the faults of one call, in the words of a table.
var troubles = []struct {
	name  string
	fault Fault
}{
	{"it fails", FailBefore},
	{"its answer is lost", FailAfter},
	{"it is refused", Refuse},
	{"429", Limit},
	{"it panics", Panic},
}

// trial is a drill with what its timing comes to.
type trial struct {
	Drill
	settle time.Duration // what a life may take to get over its trouble
	until  time.Time     // when the rotation under trial, with its overlap, is over
}

// Run rehearses everything. The outcomes are in the order of a rotation's steps, outages last. It
// fails where not even a day without any trouble goes well, and with ctx's error.
func (d Drill) Run(ctx context.Context) ([]Outcome, error) {
	t := trial{Drill: d}
	t.settle = max(d.Entry.Timing.Margin, time.Hour)
	first := d.Entry.Timing.Expiry(d.Start, d.Start)
	planned, _ := d.Entry.Timing.Planned(d.Entry.Name, d.Start, first)
	t.until = planned.Add(d.Entry.Timing.Overlap + t.settle)

	var calls []string
	if o := (&Outcome{}); t.play(o, func(w *World) {}, &calls) != nil || o.Broken() {
		return nil, fmt.Errorf("%s: even without any trouble: %s", d.Entry.Name, o.Problem)
	}
	type key struct{ step, fault string }
	found := map[key]*Outcome{}
	var order []key
	at := func(step, fault string) *Outcome {
		k := key{step, fault}
		if found[k] == nil {
			found[k] = &Outcome{Step: step, Fault: fault}
			order = append(order, k)
		}
		return found[k]
	}
	try := func(o *Outcome, trouble func(w *World)) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return t.play(o, trouble, nil)
	}
	for n, what := range calls {
		step := t.people(what)
		if err := try(at(step, crash), func(w *World) { w.CutAt(n + 1) }); err != nil {
			return nil, err
		}
		for _, tr := range troubles {
			if !tr.fault.applies(what) {
				continue
			}
			if err := try(at(step, tr.name), func(w *World) { w.FaultAt(n+1, tr.fault) }); err != nil {
				return nil, err
			}
		}
	}
	down := func(name, suffix string, length time.Duration) error {
		from := planned.Add(-time.Second)
		return try(at("", name+" is down for "+short(length)), func(w *World) {
			w.Outage(func(what string) error {
				if now := w.Now(); !now.Before(from) && now.Before(from.Add(length)) && (strings.HasSuffix(what, suffix) || suffix == "api" && isAPI(what)) {
					return errFault
				}
				return nil
			})
		})
	}
	for _, length := range []time.Duration{d.Entry.Timing.Margin, d.Entry.Timing.Margin + d.Entry.Timing.Overlap*9/10} {
		if err := down("SiteGPT", "api", length.Truncate(time.Second)); err != nil {
			return nil, err
		}
		for _, o := range d.Entry.Outlets {
			if err := down(o.Name, " "+o.Place, length.Truncate(time.Second)); err != nil {
				return nil, err
			}
		}
	}
	out := make([]Outcome, 0, len(order))
	for _, k := range order {
		out = append(out, *found[k])
	}
	rank := map[string]int{"list": 1, "save": 2, "check": 3, "read": 4, "create": 5, "verify": 6, "push": 7, "revoke": 8, "": 9}
	slices.SortStableFunc(out, func(a, b Outcome) int {
		x, _, _ := strings.Cut(a.Step, " ")
		y, _, _ := strings.Cut(b.Step, " ")
		return cmp.Or(cmp.Compare(rank[x], rank[y]), cmp.Compare(a.Step, b.Step))
	})
	return out, nil
}

// short writes a duration without the zeros at its end.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func isAPI(what string) bool {
	return what == "create" || what == "list" || what == "verify" || what == "revoke"
}

// applies reports whether f is another thing than an ordinary failure for this call.
func (f Fault) applies(what string) bool {
	switch f {
	case Refuse, Limit:
		return isAPI(what)
	case Panic:
		return what != "save"
	}
	return true
}

// people names a call by the sink's name, not by its place.
func (t *trial) people(what string) string {
	verb, place, ok := strings.Cut(what, " ")
	if !ok {
		return what
	}
	for _, o := range t.Entry.Outlets {
		if o.Place == place {
			return verb + " " + o.Name
		}
	}
	return what
}

// play runs one trial, and adds to o what was seen. calls, where it is not nil, is given the names
// of all calls of the first life.
func (t *trial) play(o *Outcome, trouble func(w *World), calls *[]string) error {
	w := New(t.Start)
	w.Store.lose = t.Lose
	w.ReadBack = max(t.until.Sub(t.Start)/4, time.Minute)
	w.Sweep = w.ReadBack
	e := t.Entry
	e.Consumers = nil // nobody is there to be told
	e.Outlets = slices.Clone(e.Outlets)
	for i := range e.Outlets {
		o := &e.Outlets[i]
		o.Sink = w.sinkAt(o.Place, slices.Contains(t.Blind, o.Place))
	}
	if e.Name == rotator.OwnName { // it asks with what it pushed last
		w.API.Bearer = func() string { return w.Sinks[e.Outlets[0].Place].Value() }
	}
	o.Trials++
	var mu sync.Mutex
	gap, problem := false, ""
	see := func(format string, args ...any) {
		if problem == "" {
			problem = w.Now().UTC().Format("2 Jan 15:04:05: ") + fmt.Sprintf(format, args...)
		}
	}
	w.Watch(func(w *World, what string) {
		mu.Lock()
		defer mu.Unlock()
		if calls != nil {
			*calls = append(*calls, what)
		}
		for i := range e.Outlets {
			if v := w.Sinks[e.Outlets[i].Place].Value(); v != "" && !w.API.Accepts(v) {
				gap = true
				see("after %s: %s holds a token that is dead", t.people(what), e.Outlets[i].Name)
			}
		}
	})
	trouble(w)
	for life := 0; ; life++ {
		p, err := w.Start(e)
		if err != nil {
			return err
		}
		until := t.until
		if life > 0 || !w.Now().Before(until) {
			until = maxTime(until, w.Now().Add(t.settle))
		}
		if err := p.Run(until); err != nil {
			see("%v", err)
			o.Loops++
		}
		if !w.Dead() {
			break
		}
		w.CutAt(0)
	}
	// Whatever it was is over: what is left must settle by itself.
	w.Outage(nil)
	w.CutAt(0)
	mu.Lock()
	calls = nil
	mu.Unlock()
	p, err := w.Start(e)
	if err != nil {
		return err
	}
	if err := p.Run(w.Now().Add(t.settle)); err != nil {
		see("%v", err)
		o.Loops++
	}
	t.judge(w, &e, o, see)
	if gap {
		o.Gaps++
	}
	if o.Problem == "" {
		o.Problem = problem
	}
	return nil
}

// judge looks at how a trial ended.
func (t *trial) judge(w *World, e *rotator.Entry, o *Outcome, see func(string, ...any)) {
	rec := w.Store.Record(e.Name)
	now := w.Now()
	target := rec.Current(now)
	stuck := target == nil
	for i := range e.Outlets {
		if s := rec.Sink(e.Outlets[i].Place); target != nil && e.Outlets[i].Required && (s == nil || s.Holds != target.Number) {
			stuck = true
		}
	}
	if stuck {
		o.Stuck++
		see("in the end, not every required sink holds the current token")
	}
	for _, tok := range w.API.Tokens() {
		if tok.Live(now) && !slices.ContainsFunc(rec.Generations, func(g rotator.Generation) bool { return g.ID == tok.ID }) {
			o.Orphans++
			see("in the end, a live token that no record knows: %s", tok.Name)
			break
		}
	}
	ticks := 0
	for at := t.Start; ticks < 1000; ticks++ {
		if at = e.Timing.Tick(at); at.IsZero() || at.After(now) {
			break
		}
	}
	if most := ticks + 4; w.API.Creates > most { // the first, and each trouble may cost a token or two
		o.Loops++
		see("%d creates, where %d are plenty", w.API.Creates, most)
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
