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

// Forecast plays the daemon's future for one entry: its own engine, a virtual clock, an API and sinks
// in memory. Nothing real is asked, and nothing is written.
type Forecast struct {
	Entry  rotator.Entry   // its own sinks are never used
	Record *rotator.Record // what it begins from; nil: from nothing
	Blind  []string        // places of sinks that cannot be read back

	From, Until time.Time
	Outages     []Outage
	Down        []Span // when the daemon does not run
}

// Span is a stretch of time, From included, Until not.
type Span struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
}

func (s Span) holds(t time.Time) bool { return !t.Before(s.From) && t.Before(s.Until) }

// APIPlace is the place of an outage of SiteGPT.
const APIPlace = "api"

// Outage is a time in which one thing answers nobody: APIPlace, or a sink by its place.
type Outage struct {
	Place string `json:"place"`
	Span
}

// Course is what a forecast showed.
type Course struct {
	Token    string        `json:"token"`
	Lives    []Life        `json:"generations"` // oldest first
	Creates  int           `json:"creates"`
	Live     int           `json:"alive_at_once"` // at most
	Gaps     []Gap         `json:"gaps"`
	Tightest time.Duration `json:"-"`                 // the least life that a required sink's token had left when its successor came
	Left     float64       `json:"tightest_left"`     // the same in seconds
	At       time.Time     `json:"tightest,omitzero"` // when that was; zero: nothing was replaced
	Problem  string        `json:"problem,omitempty"` // the engine itself went wrong, or never made a token

	Journal []rotator.Event `json:"-"` // what the engine told

	calls map[int64]int // API calls by minute
	lives []change
}

// Life is one generation.
type Life struct {
	Generation int           `json:"generation"`
	Cause      rotator.Cause `json:"cause"`
	Created    time.Time     `json:"created"`
	Converged  time.Time     `json:"converged,omitzero"` // every required sink held it
	Expires    time.Time     `json:"expires"`
	Revoked    time.Time     `json:"revoked,omitzero"` // zero: it expires by itself
}

// Ends is when the generation is dead.
func (l *Life) Ends() time.Time {
	if !l.Revoked.IsZero() && l.Revoked.Before(l.Expires) {
		return l.Revoked
	}
	return l.Expires
}

// Gap is a time in which a required sink held a dead token.
type Gap struct {
	Sink string `json:"sink"`
	Span
}

// change is one token more, or one less.
type change struct {
	at   time.Time
	more int
}

// Run plays it.
func (f Forecast) Run(ctx context.Context) (*Course, error) {
	w := New(f.From)
	w.untraced = true
	// As rare as can be: a forecast has no drift and no orphans, and a year has many quarters of an hour.
	w.ReadBack, w.Sweep = 6*time.Hour, 24*time.Hour
	e := f.Entry
	e.Consumers = nil // nobody is there to be told
	e.Outlets = slices.Clone(e.Outlets)
	for i := range e.Outlets {
		o := &e.Outlets[i]
		o.Sink = w.sinkAt(o.Place, slices.Contains(f.Blind, o.Place))
	}
	if e.Name == rotator.OwnName {
		w.API.Bearer = func() string { return w.Sinks[e.Outlets[0].Place].Value() }
	}
	if f.Record != nil {
		w.resume(f.Record)
	}
	if len(f.Outages) > 0 {
		w.Outage(func(what string) error {
			now := w.Now()
			for _, o := range f.Outages {
				if o.holds(now) && (o.Place == APIPlace && isAPI(what) || strings.HasSuffix(what, " "+o.Place)) {
					return errFault
				}
			}
			return nil
		})
	}
	c := &Course{Token: e.Name, Lives: []Life{}, Gaps: []Gap{}, calls: map[int64]int{}}
	s := &spectator{w: w, c: c, outlets: e.Outlets, seen: make([]string, len(e.Outlets)), gap: make([]time.Time, len(e.Outlets))}
	w.Watch(s.look)
	downs := slices.Clone(f.Down)
	slices.SortFunc(downs, func(a, b Span) int { return a.From.Compare(b.From) })
	for _, down := range append(downs, Span{From: f.Until, Until: f.Until}) {
		if !down.Until.After(w.Now()) && !down.Until.Equal(f.Until) {
			continue
		}
		if down.From.After(w.Now()) {
			p, err := w.Start(e)
			if err != nil {
				return nil, err
			}
			if err := p.RunContext(ctx, minTime(down.From, f.Until)); err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				c.Problem = err.Error()
				break
			}
		}
		if w.Now().Before(down.Until) {
			w.Set(minTime(down.Until, f.Until))
		}
	}
	s.end()
	c.settle(w, f.Record)
	return c, nil
}

// resume puts a record, what its sinks hold and its tokens into the world.
func (w *World) resume(r *rotator.Record) {
	rec := r.Clone()
	rec.Asks = nil
	now := w.Now()
	plain := func(n int) string { return fmt.Sprintf("sgpt_resumed_%d", n) }
	for i := range rec.Generations {
		g := &rec.Generations[i]
		if l, ok := rotator.ParseLabel(g.Label); ok && w.Instance == "" {
			w.Instance = l.Instance
		}
		if g.ID == "" {
			continue
		}
		g.Hash = rotator.NewSecret(plain(g.Number)).Hash(key)
		w.API.Add(Token{
			ID: g.ID, Name: g.Label, Plaintext: plain(g.Number), Scopes: g.Scopes, Chatbots: g.Chatbots,
			Created: g.Created, Expires: g.Expires, Revoked: g.Revoked,
		})
	}
	for i := range rec.Sinks {
		s := &rec.Sinks[i]
		sink := w.sinkAt(s.Place, s.Blind)
		switch g := rec.Generation(s.Holds); {
		case s.Held != "":
			sink.Set("what a person put there")
		case g != nil && g.Live(now):
			sink.Set(plain(g.Number))
		}
	}
	w.Store.Put(rec)
}

// spectator watches the promise, and notes what there is to tell.
type spectator struct {
	w       *World
	c       *Course
	outlets []rotator.Outlet

	mu   sync.Mutex
	seen []string    // what each sink held when it was last looked at
	gap  []time.Time // since when what it holds is dead; zero: it is not
}

func (s *spectator) look(w *World, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := w.Now()
	if isAPI(what) && what != "list" { // one list serves all entries
		s.c.calls[now.Unix()/60]++
	}
	for i := range s.outlets {
		if !s.outlets[i].Required {
			continue
		}
		held := w.Sinks[s.outlets[i].Place].Value()
		before := s.seen[i]
		if before != "" {
			if died, ok := w.API.death(before); ok {
				if left := died.Sub(now); left <= 0 && s.gap[i].IsZero() {
					s.gap[i] = died
				} else if held != before && (s.c.At.IsZero() || left < s.c.Tightest) {
					s.c.Tightest, s.c.At = left, now
				}
			}
		}
		if held != before {
			s.close(i, now)
			s.seen[i] = held
		}
	}
}

// close ends the gap of a sink, if there is one.
func (s *spectator) close(i int, now time.Time) {
	if from := s.gap[i]; !from.IsZero() {
		if from.Before(now) {
			s.c.Gaps = append(s.c.Gaps, Gap{Sink: s.outlets[i].Name, Span: Span{From: from, Until: now}})
		}
		s.gap[i] = time.Time{}
	}
}

// end looks once more, and ends what is still open.
func (s *spectator) end() {
	s.look(s.w, "")
	for i := range s.outlets {
		s.close(i, s.w.Now())
	}
}

// settle gathers what the journal and the API know in the end.
func (c *Course) settle(w *World, before *rotator.Record) {
	c.Left = c.Tightest.Seconds()
	c.Creates, c.Journal = w.API.Creates, w.Store.Journal
	converged, cause := map[int]time.Time{}, map[int]rotator.Cause{}
	for _, ev := range w.Store.Journal {
		switch ev.Kind {
		case rotator.EventConverged:
			if converged[ev.Generation].IsZero() {
				converged[ev.Generation] = ev.At
			}
		case rotator.EventCreated:
			cause[ev.Generation] = rotator.Cause(ev.Detail)
		}
	}
	if before != nil {
		for i := range before.Generations {
			if g := &before.Generations[i]; !g.Converged.IsZero() || converged[g.Number].IsZero() {
				converged[g.Number], cause[g.Number] = g.Converged, g.Cause
			}
		}
	}
	for _, t := range w.API.Tokens() {
		l, _ := rotator.ParseLabel(t.Name)
		life := Life{
			Generation: l.Number, Cause: cause[l.Number], Created: t.Created, Converged: converged[l.Number],
			Expires: t.Expires, Revoked: t.Revoked,
		}
		c.Lives = append(c.Lives, life)
		c.lives = append(c.lives, change{t.Created, 1}, change{life.Ends(), -1})
	}
	c.Live = highest(c.lives)
	if len(c.Lives) == 0 && c.Problem == "" { // an empty sink is no dead one, but no user of it has a token
		c.Problem = "no token is there, or made, in all that time"
	}
}

// highest is the largest sum of changes at any instant.
func highest(changes []change) int {
	changes = slices.Clone(changes)
	slices.SortFunc(changes, func(a, b change) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.more, b.more)) })
	n, most := 0, 0
	for _, c := range changes {
		n += c.more
		most = max(most, n)
	}
	return most
}

// Peak is the busiest minute of all courses, and how many API calls fall into it, besides looks at the
// list, of which one serves all.
func Peak(courses []*Course) (calls int, at time.Time) {
	sum := map[int64]int{}
	for _, c := range courses {
		for minute, n := range c.calls {
			sum[minute] += n
			if s := sum[minute]; s > calls || s == calls && minute < at.Unix()/60 {
				calls, at = s, time.Unix(minute*60, 0)
			}
		}
	}
	return calls, at
}

// AliveAtOnce is the highest number of live tokens of all courses together.
func AliveAtOnce(courses []*Course) int {
	var all []change
	for _, c := range courses {
		all = append(all, c.lives...)
	}
	return highest(all)
}

// Break is the shortest outage of one place that leaves a required sink with a dead token.
type Break struct {
	Place string        `json:"place"`
	Span                // with the worst beginning that was found; zero: none up to Most breaks it
	Most  time.Duration `json:"-"` // the longest that was tried
}

// Length is how long the outage is.
func (b *Break) Length() time.Duration { return b.Until.Sub(b.From) }

// grain is how exactly Worst measures.
const grain = time.Minute

// turn is a rotation.
type turn struct {
	previous, created time.Time
}

// rotations are those of a course whose token was made in it, too.
func (f *Forecast) rotations(course *Course) (out []turn) {
	for i := 1; i < len(course.Lives); i++ {
		if l := course.Lives[i]; !l.Created.Before(f.From) && !course.Lives[i-1].Created.Before(f.From) {
			out = append(out, turn{course.Lives[i-1].Created, l.Created})
		}
	}
	return out
}

// Worst looks for the shortest outages that break the entry, of the API and of each required sink: by
// bisection over their length, beginning just before each of the rotations of course, the hardest
// ones first, at most tries of them. It is the only thing that goes wrong then, whatever else does in course.
func (f Forecast) Worst(ctx context.Context, course *Course, tries int) ([]Break, error) {
	undisturbed := len(f.Outages) == 0 && len(f.Down) == 0
	f.Record, f.Outages, f.Down = nil, nil, nil
	rotations := f.rotations(course)
	if !undisturbed || len(rotations) == 0 { // it rotates at other times, or later than one wanted to see
		if enough := f.From.Add(2*f.Entry.Facts.Widest + f.Entry.Facts.Lifetime); f.Until.Before(enough) {
			f.Until = enough
		}
		course, err := f.Run(ctx)
		if err != nil {
			return nil, err
		}
		rotations = f.rotations(course)
	}
	// What is special about a rotation is how long the token before it had to live.
	slices.SortStableFunc(rotations, func(a, b turn) int {
		return cmp.Compare(b.created.Sub(b.previous), a.created.Sub(a.previous))
	})
	if n := len(rotations); n > tries { // the longest and the shortest, and some between them
		picked := make([]turn, 0, tries)
		for i := range tries {
			picked = append(picked, rotations[i*(n-1)/max(tries-1, 1)])
		}
		rotations = picked
	}
	places := []string{APIPlace}
	for i := range f.Entry.Outlets {
		if o := &f.Entry.Outlets[i]; o.Required {
			places = append(places, o.Place)
		}
	}
	var out []Break
	for _, place := range places {
		b := Break{Place: place, Most: rotator.MaxLifetime}
		for _, r := range rotations {
			start := r.created.Add(-time.Second)
			breaks := func(length time.Duration) (bool, error) {
				short := f
				short.From, short.Until = r.previous, start.Add(length+f.Entry.Facts.Lifetime/8+time.Hour)
				short.Outages = []Outage{{Place: place, Span: Span{start, start.Add(length)}}}
				c, err := short.Run(ctx)
				return err == nil && len(c.Gaps) > 0, err
			}
			good, bad := time.Duration(0), 2*f.Entry.Facts.Lifetime
			if !b.From.IsZero() {
				bad = b.Length() - grain // only a shorter one is news, and worth the search
				if bad <= 0 {
					break
				}
			}
			if broken, err := breaks(bad); err != nil {
				return nil, err
			} else if !broken {
				continue
			}
			for bad-good > grain {
				middle := (good + (bad-good)/2).Round(time.Second)
				broken, err := breaks(middle)
				if err != nil {
					return nil, err
				}
				if broken {
					bad = middle
				} else {
					good = middle
				}
			}
			if b.From.IsZero() || bad < b.Length() {
				b.Span = Span{start, start.Add(bad)}
			}
		}
		out = append(out, b)
	}
	return out, nil
}
