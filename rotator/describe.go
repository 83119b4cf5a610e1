package rotator

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Report is the state of everything at an instant, computed from entries and records alone: it is
// right after a restart, and status, metrics, pages and notifications say the same.
type Report struct {
	At       time.Time     `json:"at"`
	Problems []Problem     `json:"problems"` // the most urgent first
	Tokens   []TokenStatus `json:"tokens"`   // sorted by name
}

// Problem is one thing that is not as it should be.
type Problem struct {
	Kind     ProblemKind `json:"kind"`
	Token    string      `json:"token"`
	Sink     string      `json:"sink,omitempty"`
	What     string      `json:"what"` // in words
	Consumer string      `json:"consumer,omitempty"`
	Error    string      `json:"error,omitempty"`  // of the last try
	Outage   string      `json:"outage,omitempty"` // what is out for all that need it, where that is why: its end is noticed, and brings the next try
	Since    time.Time   `json:"since,omitzero"`   // of the first failure in a row
	Next     time.Time   `json:"next,omitzero"`    // the next try
	Until    time.Time   `json:"until,omitzero"`   // how long it waits for a person, at most; then it goes on by itself
	Breaks   time.Time   `json:"breaks,omitzero"`  // when a consumer is left with a dead token; zero: nobody is
	Failing  bool        `json:"failing"`          // something fails now, as opposed to waiting for a person or being worth a look
}

// ProblemKind tells problems apart for whoever counts or explains them.
type ProblemKind string

// The kinds of problem.
const (
	ProblemNoToken    ProblemKind = "no_token"          // there is no working token
	ProblemCreate     ProblemKind = "create"            // a successor cannot be created
	ProblemPreflight  ProblemKind = "preflight"         // ... because a required sink would not take it
	ProblemManagement ProblemKind = "management"        // ... because the API refuses the management token
	ProblemOwnExpiry  ProblemKind = "management_expiry" // the management token is about to expire, and nobody rotates it
	ProblemUnknown    ProblemKind = "unknown"           // the outcome of a create is being found out
	ProblemVerify     ProblemKind = "verify"            // a new token is not accepted yet
	ProblemSink       ProblemKind = "sink"              // a sink does not take the token
	ProblemUnread     ProblemKind = "unread"            // a sink cannot be read back
	ProblemHeldSink   ProblemKind = "held_sink"         // a sink waits for a person
	ProblemHeldEdit   ProblemKind = "held_edit"         // an edit of scopes or chatbots was refused
	ProblemBlocked    ProblemKind = "blocked"           // nothing may be created
	ProblemFuse       ProblemKind = "fuse"              // too many creates
	ProblemPaused     ProblemKind = "paused"            // a rotation is due, and put off by a person
	ProblemRevoke     ProblemKind = "revoke"            // a retired token cannot be revoked, or waits for somebody
	ProblemSuspect    ProblemKind = "suspect"           // the API seems not to know the token
	ProblemScopes     ProblemKind = "scopes"            // granted is not what was requested
	ProblemConsumer   ProblemKind = "consumer"          // a program does not take the new token
	ProblemUnmanaged  ProblemKind = "unmanaged"         // live tokens of an entry that is no longer declared

	// What is wrong with rotatord's surroundings, rather than with one entry: Describe knows nothing of these.
	ProblemOutage        ProblemKind = "outage"        // something that many sinks need is out of reach
	ProblemConfiguration ProblemKind = "configuration" // it is refused, and the one before stays in force
	ProblemNotify        ProblemKind = "notify"        // people cannot be told; Consumer names the target
)

// OutcomeUnknown is the error of a problem that says why nothing is created for a while, and not what
// made the outcome unknown.
const OutcomeUnknown = "the create's outcome was unknown"

// ProblemKinds returns all of them.
func ProblemKinds() []ProblemKind {
	return []ProblemKind{
		ProblemNoToken, ProblemCreate, ProblemPreflight, ProblemManagement, ProblemOwnExpiry, ProblemUnknown, ProblemVerify,
		ProblemSink, ProblemUnread, ProblemHeldSink, ProblemHeldEdit, ProblemBlocked, ProblemFuse, ProblemPaused, ProblemRevoke,
		ProblemSuspect, ProblemScopes, ProblemConsumer, ProblemUnmanaged, ProblemOutage, ProblemConfiguration, ProblemNotify,
	}
}

// TokenStatus is one entry.
type TokenStatus struct {
	Name       string             `json:"name"`
	State      string             `json:"state"` // current, rotating, due, paused, failing, held, none, or unmanaged
	Generation int                `json:"generation,omitempty"`
	Label      string             `json:"label,omitempty"`
	ID         string             `json:"id,omitempty"`
	Scopes     []string           `json:"scopes,omitempty"` // granted, or requested where the API did not say
	Created    time.Time          `json:"created,omitzero"`
	Expires    time.Time          `json:"expires,omitzero"`
	Converged  time.Time          `json:"converged,omitzero"` // when every required sink held it
	Planned    time.Time          `json:"planned,omitzero"`   // when the successor is due
	Overlap    time.Time          `json:"overlap,omitzero"`   // from then on, a missing successor costs its consumers time to move
	Breaks     time.Time          `json:"breaks,omitzero"`    // when its consumers are left with a dead token if every try fails until then; zero: they never had one, or every sink waits for a person
	Paused     time.Time          `json:"paused_until,omitzero"`
	Sinks      []SinkStatus       `json:"sinks"`
	Consumers  []ConsumerStatus   `json:"consumers,omitempty"`
	Retiring   []GenerationStatus `json:"retiring"`
	Asked      bool               `json:"asked,omitempty"` // a person waits for a newer one

	Description string `json:"description,omitempty"`
	Schedule    string `json:"schedule,omitempty"` // as declared, with its time zone
}

// SinkStatus is one sink of an entry.
type SinkStatus struct {
	Name       string    `json:"name"`
	Kind       string    `json:"kind"`
	Place      string    `json:"place"`
	Required   bool      `json:"required"`
	State      string    `json:"state"` // holds, behind, held, or empty
	Generation int       `json:"generation,omitempty"`
	Proven     bool      `json:"proven"` // by reading back
	Since      time.Time `json:"since,omitzero"`
	Error      string    `json:"error,omitempty"`
	Next       time.Time `json:"next,omitzero"`
}

// ConsumerStatus is one program that is told of new tokens.
type ConsumerStatus struct {
	Name  string    `json:"name"`
	Title string    `json:"title"`
	Told  int       `json:"told"`           // generation that it was last told of
	Taken int       `json:"taken"`          // generation that it is known to use
	Since time.Time `json:"since,omitzero"` // when it was told
	Error string    `json:"error,omitempty"`
	Next  time.Time `json:"next,omitzero"`
}

// GenerationStatus is an older generation that is still alive.
type GenerationStatus struct {
	Generation int       `json:"generation"`
	Label      string    `json:"label"`
	ID         string    `json:"id"`
	Created    time.Time `json:"created"`
	Expires    time.Time `json:"expires"`
	RevokeAt   time.Time `json:"revoke_at,omitzero"` // zero, or with Leave: it expires by itself
	Leave      bool      `json:"leave,omitempty"`
	Waits      string    `json:"waits,omitempty"`
}

// Describe reports on entries and their records at now. Records without an entry are reported as
// unmanaged while they have live tokens.
func Describe(entries []Entry, records []Record, now time.Time) Report {
	rep := Report{At: now, Problems: []Problem{}, Tokens: []TokenStatus{}}
	byName := map[string]*Record{}
	for i := range records {
		byName[records[i].Name] = &records[i]
	}
	declared := map[string]bool{}
	for i := range entries {
		e := &entries[i]
		declared[e.Name] = true
		r := byName[e.Name]
		if r == nil {
			r = &Record{Name: e.Name}
		}
		d := describer{e: e, r: r, now: now}
		if e.Removed {
			d.removed()
		} else {
			d.declared()
		}
		rep.add(d)
	}
	for i := range records {
		if r := &records[i]; !declared[r.Name] {
			d := describer{e: &Entry{Name: r.Name, Removed: true}, r: r, now: now}
			d.removed()
			rep.add(d)
		}
	}
	slices.SortFunc(rep.Tokens, func(a, b TokenStatus) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortStableFunc(rep.Problems, func(a, b Problem) int {
		return cmp.Or(Urgency(&a, &b), cmp.Compare(a.Token, b.Token))
	})
	return rep
}

// Urgency orders problems: first what fails, and of that what first leaves somebody with a dead token.
func Urgency(p, q *Problem) int {
	switch {
	case p.Failing != q.Failing:
		if p.Failing {
			return -1
		}
		return 1
	case p.Breaks.IsZero() != q.Breaks.IsZero():
		if q.Breaks.IsZero() {
			return -1
		}
		return 1
	}
	return p.Breaks.Compare(q.Breaks)
}

func (rep *Report) add(d describer) {
	if d.t.Name == "" {
		return
	}
	rep.Tokens = append(rep.Tokens, d.t)
	rep.Problems = append(rep.Problems, d.problems...)
}

// Failing returns the problems in which something fails now.
func (rep *Report) Failing() []Problem {
	var out []Problem
	for _, p := range rep.Problems {
		if p.Failing {
			out = append(out, p)
		}
	}
	return out
}

type describer struct {
	e        *Entry
	r        *Record
	now      time.Time
	t        TokenStatus
	problems []Problem
}

func (d *describer) problem(p Problem) {
	p.Token = d.e.Name
	d.problems = append(d.problems, p)
}

func (d *describer) removed() {
	for i := range d.r.Generations {
		if d.r.Generations[i].Live(d.now) {
			d.t.Name, d.t.State, d.t.Sinks = d.r.Name, "unmanaged", []SinkStatus{}
			d.retiring(0)
			d.problem(Problem{
				Kind: ProblemUnmanaged, Since: d.r.RemovedAt, Breaks: d.t.Retiring[0].Expires,
				What: fmt.Sprintf("is no longer declared: its last token expires %s and gets no successor", d.t.Retiring[0].Expires.UTC().Format(time.RFC3339)),
			})
			return
		}
	}
}

func (d *describer) declared() {
	e, r, now := d.e, d.r, d.now
	d.t = TokenStatus{Name: e.Name, State: "none", Sinks: []SinkStatus{}, Breaks: d.breaks(), Description: e.Description}
	if e.Timing.Schedule != nil {
		d.t.Schedule = e.Timing.Schedule.String()
	}
	g := r.Target(now)
	number := 0
	if g != nil {
		number = g.Number
		d.t.State = "current"
		if g.Converged.IsZero() {
			d.t.State = "rotating"
		}
		d.t.Generation, d.t.Label, d.t.ID = g.Number, g.Label, g.ID
		d.t.Created, d.t.Converged, d.t.Expires, d.t.Planned = g.Created, g.Converged, g.Expires, g.Planned
		if at := g.Expires.Add(-e.Timing.Overlap); e.Timing.Overlap > 0 && at.After(g.Created) {
			d.t.Overlap = at
		}
		if d.t.Scopes = g.Granted; d.t.Scopes == nil {
			d.t.Scopes = g.Scopes
		}
	}
	p := planner{e: e, r: r, now: now}
	step, due := p.cause()
	if due && g != nil {
		d.t.State = "due"
	}
	d.t.Asked = due && step.Asked
	if r.PausedUntil.After(now) {
		d.t.Paused = r.PausedUntil
		if d.t.State == "current" || d.t.State == "due" {
			d.t.State = "paused"
		}
		if due && !step.Asked && p.paused() {
			d.problem(Problem{Kind: ProblemPaused, What: "its rotation is due, and paused", Next: minTime(r.PausedUntil, p.wake), Breaks: d.breaks()})
		}
	}
	d.sinks(number)
	d.consumers()
	d.retiring(number)
	d.creation(g, step, due)
	for i := range r.Generations {
		if r.Generations[i].Open() {
			d.problem(Problem{
				Kind: ProblemUnknown, Since: r.Generations[i].Intended, Next: r.Generations[i].Retry.At, Error: r.Generations[i].Retry.Error, Outage: r.Generations[i].Retry.Outage,
				What: "the outcome of its last create is unknown, and is searched for before another one", Failing: true,
			})
		}
	}
	if g != nil {
		d.generation(g)
	}
	for _, p := range d.problems {
		switch {
		case p.Failing:
			d.t.State = "failing"
		case d.t.State == "failing":
		case p.Kind == ProblemHeldSink || p.Kind == ProblemHeldEdit || p.Kind == ProblemBlocked:
			d.t.State = "held"
		}
	}
	if g == nil && len(d.problems) == 0 {
		d.t.State = "none"
	}
}

// breaks is when the entry's consumers are left with a dead token; zero where none was ever served, or
// where persons have put tokens of their own into every sink: those live as long as they do.
func (d *describer) breaks() time.Time {
	if !d.r.served(-1) || !d.e.anyFree(d.r) {
		return time.Time{}
	}
	return d.now.Add(d.e.left(d.r, d.now, 0))
}

func (d *describer) creation(g *Generation, step Step, due bool) {
	e, r, now := d.e, d.r, d.now
	if r.Create.Tries > 0 && due {
		kind, what := ProblemCreate, "a successor cannot be created"
		switch r.Problem {
		case "preflight":
			kind, what = ProblemPreflight, "no successor is created while a required sink would not take it"
		case "management":
			kind, what = ProblemManagement, "the API refuses the management token"
		case "verify":
			what = "the API refuses the token that it has just made"
		}
		if g == nil {
			what = d.without() + ": " + what
		}
		d.problem(Problem{Kind: kind, What: what, Error: r.Create.Error, Outage: r.Create.Outage, Since: r.Create.Since, Next: r.Create.next(), Breaks: d.breaks(), Failing: true})
	} else if g == nil && r.served(-1) && e.anyFree(r) {
		d.problem(Problem{Kind: ProblemNoToken, What: d.without(), Breaks: d.breaks(), Failing: true})
	}
	if r.RefusedSpec != "" && r.RefusedSpec == e.spec() {
		d.problem(Problem{Kind: ProblemHeldEdit, What: "the edit of scopes or chatbots was refused; rotations go on with what last worked"})
	}
	if r.Blocked != "" {
		d.problem(Problem{Kind: ProblemBlocked, What: "nothing is created: " + r.Blocked, Until: d.unblocked(), Breaks: d.breaks()})
	}
	if blown, until := e.fuse(r, now, step.Asked); blown != "" && due && !step.override {
		d.problem(Problem{Kind: ProblemFuse, What: blown, Next: until, Breaks: d.breaks(), Failing: true})
	}
}

// unblocked is when something is created again although no person decided: in the last quarter of the
// overlap, of what the users have or of what is not explained, whichever comes first.
func (d *describer) unblocked() time.Time {
	if !d.r.served(0) {
		return d.r.BlockedUntil
	}
	return minTime(d.now.Add(d.e.left(d.r, d.now, 0)-d.e.Timing.Overlap/4), d.r.BlockedUntil)
}

// without says what an entry has that has no target. Where its sinks were moved or emptied, what they
// were given lives on for whoever read it: only those who come now find none.
func (d *describer) without() string {
	if !d.r.served(-1) {
		return "has no token yet"
	}
	if d.e.left(d.r, d.now, 0) > 0 { // without its number: alike problems of many tokens are one
		return "none of its sinks is known to hold a working token, and who has the last one can use it still"
	}
	return "has no working token"
}

func (d *describer) generation(g *Generation) {
	if !g.Suspect.IsZero() {
		d.problem(Problem{Kind: ProblemSuspect, What: "the API refuses its token, or does not list it", Since: g.Suspect, Next: g.Retry.At, Failing: true})
	} else if g.Verified.IsZero() && g.Retry.Tries > 0 {
		d.problem(Problem{Kind: ProblemVerify, What: "the new token could not be verified yet", Error: g.Retry.Error, Outage: g.Retry.Outage, Since: g.Retry.Since, Next: g.Retry.At, Breaks: d.breaks(), Failing: true})
	}
	if g.Granted != nil {
		if missing := lacks(g.Granted, g.Scopes); len(missing) > 0 {
			d.problem(Problem{Kind: ProblemScopes, What: fmt.Sprintf("was not granted %v", missing)})
		}
	}
}

func (d *describer) sinks(number int) {
	for i := range d.e.Outlets {
		o := &d.e.Outlets[i]
		s := d.r.Sink(o.Place)
		st := SinkStatus{Name: o.Name, Kind: o.Kind, Place: o.Place, Required: o.Required, State: "empty"}
		if s != nil {
			st.Generation, st.Proven, st.Since, st.Error, st.Next = s.Holds, s.Proven, s.Since, s.Retry.Error, s.Retry.next()
			switch {
			case s.Held != "":
				st.State = "held"
				d.problem(Problem{Kind: ProblemHeldSink, Sink: o.Name, What: s.Held})
			case number > 0 && s.has(number):
				st.State = "holds"
			case s.Holds > 0:
				st.State = "behind"
			}
			if s.Held == "" && s.Retry.Tries > 0 {
				breaks := time.Time{}
				if old := d.r.Generation(s.Holds); old != nil && old.Live(d.now) {
					breaks = old.Expires
				} else if s.Ever {
					breaks = d.now
				}
				d.problem(Problem{
					Kind: ProblemSink, Sink: o.Name, What: "does not take the token", Error: s.Retry.Error, Outage: s.Retry.Outage,
					Since: s.Retry.Since, Next: s.Retry.next(), Breaks: breaks, Failing: true,
				})
			} else if s.Unread != "" {
				d.problem(Problem{Kind: ProblemUnread, Sink: o.Name, What: "cannot be read back", Error: s.Unread, Outage: s.UnreadOutage, Since: s.UnreadSince, Failing: true})
			}
		}
		d.t.Sinks = append(d.t.Sinks, st)
	}
}

func (d *describer) consumers() {
	for _, c := range d.e.Consumers {
		s := d.r.consumer(c.Name)
		if s == nil {
			continue
		}
		d.t.Consumers = append(d.t.Consumers, ConsumerStatus{
			Name: c.Name, Title: c.Title, Told: s.Told, Taken: s.Taken, Since: s.At, Error: s.Retry.Error, Next: s.Retry.At,
		})
		p := Problem{Kind: ProblemConsumer, Consumer: c.Title, Failing: true}
		if g := d.r.Generation(s.Taken); g != nil && g.Live(d.now) {
			p.Breaks = g.Expires
		} else if s.Taken > 0 { // what it uses is dead, and so forgotten
			p.Breaks = d.now
		}
		switch {
		case s.Retry.Tries > 0:
			p.What, p.Error, p.Since, p.Next = c.Title+" cannot be told of the new token", s.Retry.Error, s.Retry.Since, s.Retry.At
		case s.Told != s.Taken && d.now.Sub(s.At) > slow:
			p.What, p.Since = c.Title+" has not taken the new token", s.At
		default:
			continue
		}
		d.problem(p)
	}
}

func (d *describer) retiring(target int) {
	d.t.Retiring = []GenerationStatus{}
	for i := range d.r.Generations {
		g := &d.r.Generations[i]
		if !g.Live(d.now) || g.Number == target {
			continue
		}
		st := GenerationStatus{
			Generation: g.Number, Label: g.Label, ID: g.ID, Created: g.Created, Expires: g.Expires,
			RevokeAt: g.RevokeAt, Leave: g.Leave, Waits: g.Waits,
		}
		if d.e.own() && !d.r.worked(g.Number) && !g.RevokeAt.IsZero() && !g.Leave {
			st.Waits = "the new one has made no token yet" // as it should be: no problem
		}
		d.t.Retiring = append(d.t.Retiring, st)
		if g.Waits != "" && !g.RevokeAt.After(d.now) {
			d.problem(Problem{Kind: ProblemRevoke, What: fmt.Sprintf("generation %d should be revoked, and waits: %s", g.Number, g.Waits), Next: g.Retry.At})
		} else if g.Retry.Error != "" && !g.RevokeAt.IsZero() && !g.RevokeAt.After(d.now) {
			d.problem(Problem{Kind: ProblemRevoke, What: fmt.Sprintf("generation %d cannot be revoked", g.Number), Error: g.Retry.Error, Outage: g.Retry.Outage, Since: g.Retry.Since, Next: g.Retry.At, Failing: true})
		}
	}
}
