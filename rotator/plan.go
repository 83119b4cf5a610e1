package rotator

import (
	"fmt"
	"time"
)

// Step is one thing that Plan wants done now.
type Step struct {
	Kind   StepKind `json:"step"`
	Number int      `json:"generation,omitempty"` // which generation it is about
	Place  string   `json:"place,omitempty"`      // of the sink to push to
	Cause  Cause    `json:"cause,omitempty"`      // of a create
	Asked  bool     `json:"asked,omitempty"`      // the create is a person's wish: it has a fuse of its own
	Why    string   `json:"why"`                  // for people

	override bool // and the fuse does not stop it

	// What a create asks for: the entry's own, or what last worked while an edit is held.
	Scopes   []string `json:"scopes,omitempty"`
	Chatbots []string `json:"chatbots,omitempty"`
}

// StepKind names a step.
type StepKind string

// The steps, in the order in which Plan names them.
const (
	StepClock   StepKind = "clock"   // set again what was noted under a clock that was ahead
	StepDeclare StepKind = "declare" // take over into the record what the configuration says
	StepForget  StepKind = "forget"  // drop a generation that expired long ago
	StepReplan  StepKind = "replan"  // the timing was edited
	StepHear    StepKind = "hear"    // carry out what a person ordered
	StepForce   StepKind = "force"   // a person wants a generation dead
	StepSearch  StepKind = "search"  // look for the token of a create whose outcome is unknown
	StepProbe   StepKind = "probe"   // ask whether a token that was refused still is
	StepVerify  StepKind = "verify"  // prove that the new token authenticates
	StepPush    StepKind = "push"    // bring the target to a sink
	StepPromote StepKind = "promote" // every required sink holds it
	StepCreate  StepKind = "create"  // preflight, intent, create, issued
	StepRevoke  StepKind = "revoke"  // of a retired generation
)

// DefaultSettle is how long the API is given to agree with itself: a token just made may be
// refused, and missing in a list, for this long.
const DefaultSettle = 10 * time.Second

// forgetAfter is how long an expired generation stays in the record: far longer than clocks differ.
const forgetAfter = 24 * time.Hour

// Plan says which steps e and its record want at now, and when something will be wanted next (the
// zero time: never, unless the world changes). It is pure: the daemon, plan, status and simulate
// ask the same question. Steps that are independent of each other, pushes to several sinks, are
// all named; otherwise the first one is to be taken, saved, and the question asked again.
func Plan(e *Entry, r *Record, now time.Time) (steps []Step, wake time.Time) {
	p := planner{e: e, r: r, now: now}
	if r.rewind(now, e.Timing.Overlap, true) {
		p.want(Step{Kind: StepClock, Why: "the record holds instants that a clock must have been wrong about"})
	}
	p.declare()
	p.generations()
	p.asks()
	p.search()
	if !e.Removed {
		p.target()
		p.create()
	}
	p.revoke()
	return p.steps, p.wake
}

type planner struct {
	e     *Entry
	r     *Record
	now   time.Time
	steps []Step
	wake  time.Time
}

func (p *planner) want(s Step) { p.steps = append(p.steps, s) }

// due reports whether t has come; if not, Plan is to be asked again then.
func (p *planner) due(t time.Time) bool {
	if !t.After(p.now) {
		return true
	}
	if p.wake.IsZero() || t.Before(p.wake) {
		p.wake = t
	}
	return false
}

func (p *planner) declare() {
	switch {
	case p.e.Removed && p.r.RemovedAt.IsZero():
		p.want(Step{Kind: StepDeclare, Why: "no longer declared: its token lives out its life"})
	case !p.e.Removed && !p.r.RemovedAt.IsZero():
		p.want(Step{Kind: StepDeclare, Why: "declared again"})
	case !p.e.Removed && p.r.Version > 0 && (p.r.OnRemove != p.e.OnRemove || p.r.Overlap != p.e.Timing.Overlap):
		p.want(Step{Kind: StepDeclare, Why: "on_remove or overlap was edited"})
	}
}

func (p *planner) generations() {
	for i := range p.r.Generations {
		g := &p.r.Generations[i]
		p.due(g.Expires)
		if p.due(g.Expires.Add(forgetAfter)) {
			p.want(Step{Kind: StepForget, Number: g.Number, Why: "expired long ago"})
		}
	}
	if g := p.r.Target(p.now); g != nil && !p.e.Removed && g.Timing != p.e.Timing.Fingerprint() && g.Planned.After(p.now) {
		p.want(Step{Kind: StepReplan, Number: g.Number, Why: "the timing was edited"})
	}
}

// asks turns people's wishes for a death into an instant in the record.
func (p *planner) asks() {
	cur := p.r.Current(p.now)
	for _, a := range p.r.Asks {
		if a.order() {
			if a.Seq > p.r.Heard {
				p.want(Step{Kind: StepHear, Why: "ordered by " + a.By})
			}
			continue
		}
		for i := range p.r.Generations {
			g := &p.r.Generations[i]
			if !g.Live(p.now) || g.Forced || p.e.own() && (cur == nil || g.Number >= cur.Number) {
				continue // what we ask with ourselves is replaced first, whoever wants it dead
			}
			switch {
			case a.Revoke != 0:
				if g.Number == a.Revoke {
					p.want(Step{Kind: StepForce, Number: g.Number, Why: "revocation asked by " + a.By})
				}
			case g.Number > a.Than:
			case a.Now:
				p.want(Step{Kind: StepForce, Number: g.Number, Why: "immediate revocation asked by " + a.By})
			case a.Compromised && cur != nil && cur.Number > a.Than:
				p.want(Step{Kind: StepForce, Number: g.Number, Why: "compromised, says " + a.By})
			}
		}
	}
}

func (p *planner) search() {
	for i := range p.r.Generations {
		if g := &p.r.Generations[i]; g.Open() && p.due(g.Retry.At) {
			p.want(Step{Kind: StepSearch, Number: g.Number, Why: "the outcome of its create is unknown"})
		}
	}
}

// target brings the newest usable generation to every sink.
func (p *planner) target() {
	g := p.r.Target(p.now)
	if g == nil {
		return
	}
	if !g.Suspect.IsZero() && !g.Converged.IsZero() && p.due(g.Suspect.Add(p.e.settle())) && p.due(g.Retry.At) {
		p.want(Step{Kind: StepProbe, Number: g.Number, Why: "the API refused it, or does not list it"})
		return
	}
	// An unverified token is pushed all the same when the predecessor is about to die: it may work.
	if g.Verified.IsZero() && g.Converged.IsZero() && !p.e.lastQuarter(p.r, p.now, g.Number) {
		if p.due(g.Retry.At) {
			p.want(Step{Kind: StepVerify, Number: g.Number, Why: "it must be proven to work before it is pushed"})
		}
		return
	}
	missing, holders := 0, 0
	for i := range p.e.Outlets {
		o := &p.e.Outlets[i]
		s := p.r.Sink(o.Place)
		switch {
		case s != nil && s.Held != "":
		case s != nil && s.has(g.Number):
			holders++
		default:
			if o.Required {
				missing++
			}
			if s == nil || p.due(s.Retry.At) {
				p.want(Step{Kind: StepPush, Number: g.Number, Place: o.Place, Why: p.why(g, o, s)})
			}
		}
	}
	if g.Converged.IsZero() && missing == 0 && holders > 0 {
		p.want(Step{Kind: StepPromote, Number: g.Number, Why: "every required sink holds it"})
	}
}

func (p *planner) why(g *Generation, o *Outlet, s *SinkState) string {
	switch {
	case g.Converged.IsZero():
		return fmt.Sprintf("%s is to hold the new token", o.Name)
	case s == nil || !s.Ever:
		return fmt.Sprintf("%s never held one", o.Name)
	case s.Holds == 0:
		return fmt.Sprintf("%s no longer holds it", o.Name)
	default:
		return fmt.Sprintf("%s holds generation %d instead of %d", o.Name, s.Holds, g.Number)
	}
}

// create decides whether a successor is due.
func (p *planner) create() {
	for i := range p.r.Generations {
		if p.r.Generations[i].Open() {
			return // never a POST while the outcome of another one is unknown
		}
	}
	s, ok := p.cause()
	if !ok || !p.e.anyFree(p.r) || !s.Asked && p.paused() {
		return
	}
	// Who wishes for a token has just mended something, or wants to see why it fails: one try at
	// once, whatever the backoff says, and whatever waits for a person.
	fresh := s.Asked && !p.r.newestAsk().Equal(p.r.AskTried)
	if p.r.Blocked != "" && !fresh && s.Cause != CauseSpec && !p.e.lastQuarter(p.r, p.now, 0) &&
		(p.r.BlockedUntil.IsZero() || !p.due(p.r.BlockedUntil)) {
		if left := p.e.left(p.r, p.now, 0); left > 0 {
			p.due(p.now.Add(left - p.e.Timing.Overlap/4 + time.Second))
		}
		return
	}
	if !s.override && !p.fuse(s.Asked) {
		return
	}
	if !fresh && !p.due(p.r.Create.At) {
		return
	}
	p.want(s)
}

// paused reports whether a person put off what is due. Nobody is to break by it: from the middle of
// the overlap on, as with a dead sink, the users' time counts for more.
func (p *planner) paused() bool {
	if !p.r.PausedUntil.After(p.now) {
		return false
	}
	if left := p.e.left(p.r, p.now, 0); p.r.served(0) {
		if p.due(p.now.Add(left - p.e.Timing.Overlap/2)) {
			return false
		}
	}
	return !p.due(p.r.PausedUntil)
}

// overrides is how many creates one wish to override the fuse is good for: more than one, since the
// outcome of a create can be unknown.
const overrides = 3

// asked looks for a wish for a generation newer than n.
func (p *planner) asked(n int) (by string, override, ok bool) {
	for _, a := range p.r.Asks {
		if a.order() || a.Revoke != 0 || a.Than < n {
			continue
		}
		posts := 0
		for _, q := range p.r.Posts {
			if q.Asked && !q.At.Before(a.At) {
				posts++
			}
		}
		by, ok = a.By, true
		override = override || a.Override && posts < overrides
	}
	return by, override, ok
}

func (p *planner) cause() (Step, bool) {
	s := Step{Kind: StepCreate, Number: p.r.Last + 1, Scopes: p.e.Scopes, Chatbots: p.e.Chatbots}
	held := p.r.RefusedSpec != "" && p.r.RefusedSpec == p.e.spec()
	g := p.r.Target(p.now)
	if g == nil {
		s.Cause, s.Why = CauseFirst, "it has no token yet"
		for i := range p.r.Generations {
			switch g := &p.r.Generations[i]; {
			case !g.Lost.IsZero() && g.Live(p.now):
				s.Cause, s.Why = CauseLost, fmt.Sprintf("no sink is proven to hold generation %d", g.Number)
			case s.Cause == CauseFirst && g.ID != "":
				s.Cause, s.Why = CauseDead, fmt.Sprintf("generation %d is dead", g.Number)
			}
		}
		if s.Cause == CauseFirst && p.r.Last > 0 {
			s.Why = "it has no working token"
		}
		newest := 0
		for i := range p.r.Generations {
			if g := &p.r.Generations[i]; g.ID != "" {
				newest = max(newest, g.Number)
			}
		}
		_, s.override, s.Asked = p.asked(newest)
		return s, true
	}
	if held {
		s.Scopes, s.Chatbots = g.Scopes, g.Chatbots
	}
	if by, override, ok := p.asked(g.Number); ok {
		s.Cause, s.Asked, s.override, s.Why = CauseAsked, true, override, "asked by "+by
		s.Scopes, s.Chatbots = p.e.Scopes, p.e.Chatbots // a person's wish also tries a held edit again
		return s, true
	}
	if !held && !(SameSet(g.Scopes, p.e.Scopes) && SameSet(g.Chatbots, p.e.Chatbots)) {
		s.Cause, s.Why = CauseSpec, "scopes or chatbots were edited"
		return s, true
	}
	planned := g.Planned
	// A token that was made in this very pass is not succeeded in it, however short its life.
	if p.e.Ahead > 0 && p.due(g.Intended.Add(p.e.Ahead/2)) {
		if early := planned.Add(-p.e.Ahead - p.e.Timing.share(p.e.Name)); planned.After(p.now) && p.due(early) {
			s.Cause, s.Why = CauseEarly, fmt.Sprintf("due at %s, before the next pass", planned.UTC().Format(time.RFC3339))
			return s, true
		}
	}
	if p.due(planned) {
		s.Cause, s.Why = CausePlanned, fmt.Sprintf("due since %s", planned.UTC().Format(time.RFC3339))
		return s, true
	}
	return s, false
}

// fuse reports whether another create is within what honest use can need.
func (p *planner) fuse(asked bool) bool {
	blown, until := p.e.fuse(p.r, p.now, asked)
	if blown == "" {
		return true
	}
	// Who reads a sink now breaks now where none holds a token, however long the lost one lives.
	if bare := p.r.Target(p.now) == nil && p.r.served(0); !bare && !p.e.lastQuarter(p.r, p.now, 0) {
		p.due(until)
		return false
	}
	// The last create is let through, but not in a loop.
	var last time.Time
	for _, q := range p.r.Posts {
		if q.At.After(last) {
			last = q.At
		}
	}
	return p.due(last.Add(max(p.e.Timing.Overlap/16, time.Minute)))
}

// fuse says why no create is allowed ("" when it is), and when that will change by itself.
func (e *Entry) fuse(r *Record, now time.Time, asked bool) (string, time.Time) {
	if e.Facts.Live == 0 {
		return "", time.Time{}
	}
	live, n := 0, 0
	var oldest, expires time.Time
	for i := range r.Generations {
		if g := &r.Generations[i]; g.Live(now) && !g.Forced {
			live++
			if expires.IsZero() || g.Expires.Before(expires) {
				expires = g.Expires
			}
		}
	}
	for _, q := range r.Posts {
		if q.Asked == asked && q.At.After(now.Add(-24*time.Hour)) {
			n++
			if oldest.IsZero() || q.At.Before(oldest) {
				oldest = q.At
			}
		}
	}
	switch {
	case n >= e.Facts.MaxPosts():
		return fmt.Sprintf("the fuse is blown: %d creates within 24 hours, and honest use needs at most %d", n, e.Facts.MaxPosts()), oldest.Add(24 * time.Hour)
	case live >= e.Facts.MaxLive() && !asked:
		return fmt.Sprintf("the fuse is blown: %d live generations, and honest use has at most %d", live, e.Facts.MaxLive()), expires
	}
	return "", time.Time{}
}

func (p *planner) revoke() {
	for i := range p.r.Generations {
		g := &p.r.Generations[i]
		if !g.Live(p.now) || g.RevokeAt.IsZero() || g.Leave || !p.due(g.RevokeAt) {
			continue
		}
		if !g.Forced && !g.Begun.IsZero() && p.r.PausedUntil.After(p.now) {
			p.due(p.r.PausedUntil)
			continue
		}
		if p.revocable(g) && p.due(g.Retry.At) {
			p.want(Step{Kind: StepRevoke, Number: g.Number, Why: "its time is over"})
		}
	}
}

// revocable: somebody's wish, never in anybody's hands, the entry is gone, or a newer one was promoted
// (and has made a token, where it is our own: until then the old one is the way back).
func (p *planner) revocable(g *Generation) bool {
	if g.Forced || p.e.Removed || (!g.Lost.IsZero() && g.Begun.IsZero()) {
		return true
	}
	cur := p.r.Current(p.now)
	return cur != nil && cur.Number > g.Number && (!p.e.own() || p.r.worked(g.Number))
}

// worked reports whether a live successor of generation n of our own token has made a token itself.
func (r *Record) worked(n int) bool {
	for i := range r.Generations {
		if g := &r.Generations[i]; g.Number > n && !g.Used.IsZero() && g.Revoked.IsZero() {
			return true
		}
	}
	return false
}

// left is the time until the last consumer that we know to be served breaks: until the newest
// usable generation expires that was promoted or that a sink holds, other than generation except.
func (e *Entry) left(r *Record, now time.Time, except int) time.Duration {
	var left time.Duration
	for i := range r.Generations {
		g := &r.Generations[i]
		if !g.Live(now) || g.Number == except || !g.Suspect.IsZero() {
			continue
		}
		held := !g.Converged.IsZero()
		for j := range r.Sinks {
			held = held || r.Sinks[j].Holds == g.Number
		}
		if held {
			left = max(left, g.Expires.Sub(now))
		}
	}
	return left
}

// lastQuarter reports whether the entry's consumers have less than a quarter of the overlap left.
func (e *Entry) lastQuarter(r *Record, now time.Time, except int) bool {
	return r.served(except) && e.left(r, now, except) < e.Timing.Overlap/4
}

// served reports whether anybody was ever given a token other than generation except: if not,
// nothing can break.
func (r *Record) served(except int) bool {
	for i := range r.Sinks {
		if s := &r.Sinks[i]; s.Ever && s.Holds != except {
			return true
		}
	}
	for i := range r.Generations {
		if g := &r.Generations[i]; !g.Converged.IsZero() && g.Number != except {
			return true
		}
	}
	return false
}

// anyFree reports whether at least one sink does not wait for a person.
func (e *Entry) anyFree(r *Record) bool {
	for i := range e.Outlets {
		if s := r.Sink(e.Outlets[i].Place); s == nil || s.Held == "" {
			return true
		}
	}
	return false
}

func (e *Entry) settle() time.Duration {
	if e.Settle > 0 {
		return e.Settle
	}
	return DefaultSettle
}

// unfinished reports whether work that a person would wait for is under way: an outcome to be
// found out, a token that is not everywhere yet, or a create that is due.
func unfinished(e *Entry, r *Record, now time.Time) bool {
	for i := range r.Generations {
		if g := &r.Generations[i]; g.Open() || (g.Forced && g.Live(now)) {
			return true
		}
	}
	for i := range r.Asks {
		if a := &r.Asks[i]; a.order() && a.Seq > r.Heard {
			return true
		}
	}
	if e.Removed {
		return false
	}
	g := r.Target(now)
	if g == nil || g.Converged.IsZero() || !g.Suspect.IsZero() || r.Adopt {
		return true
	}
	for i := range e.Outlets {
		if s := r.Sink(e.Outlets[i].Place); s == nil || (s.Held == "" && !s.has(g.Number)) {
			return true
		}
	}
	p := planner{e: e, r: r, now: now}
	s, due := p.cause()
	return due && (s.Asked || !p.paused())
}
