// Package audit answers what an auditor asks, from the journal alone: which tokens there were, how
// long each one lived, whether its successor was in place before it died, who did what by hand, and
// which configuration was in force. It reads events and nothing else, so that the answer is the same
// after a crash, on a copy, and when a token is no longer declared.
//
// What it calls a gap is a time in which the sinks of a token were left with a dead one: the newest
// generation that all required sinks were known to hold had ended, and no newer one had reached them.
// A value that somebody else wrote into a sink is no gap of ours: it is told as a disturbance. Nor is it
// one if a consumer did not take a token that was in its sink: that is told of the consumer.
package audit

import (
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// Report is what the journal tells of a time.
type Report struct {
	Since, Until time.Time // of what is told in detail; Since zero: from the beginning
	First        time.Time // of the first event that is known; zero: there is none
	Dropped      time.Time // history from before was dropped, but for what living tokens need; zero: nothing was
	Events       int       // that were read

	Tokens []Token // sorted by name

	Manual        []rotator.Event // what people did, in this time
	Configuration []rotator.Event // what came into force, and what was refused, in this time
	Service       []rotator.Event // starts, ends, the account, in this time
	Crashes       []time.Time     // starts of a daemon whose predecessor did not end in order, in this time
	InForce       rotator.Event   // the last configuration that came into force; zero: none is known
	Version       string          // of rotatord, as it last said
}

// Token is one entry's part of a Report.
type Token struct {
	Name      string
	Was       []string // its earlier names
	Known     time.Time
	Removed   time.Time // it is no longer declared since; zero: it is
	Lives     []Life    // that were alive in this time, oldest first
	Rotations int       // promotions in this time
	Tries     int       // creates that made nothing, in this time
	Failures  int       // steps that failed and were tried again, in this time
	Gaps      []Gap
	Disturbed []Disturbance
	Behind    []Behind
	Held      []string      // sinks that wait for a person at the end; "" stands for the token itself
	Least     time.Duration // the shortest overlap of those that ended, where Overlaps is not 0
	Overlaps  int           // how many ended after their successor was in place
	Verdict   Verdict
	Why       []string // what is not as it should be; none where the promise was kept
}

// Verdict is what the journal proves about a token.
type Verdict string

// The verdicts, from good to bad.
const (
	Kept      Verdict = "kept"      // every successor was in place before its predecessor ended
	Attention Verdict = "attention" // no gap, but something that a person should look at
	Broken    Verdict = "gap"       // the sinks were left with a dead token
)

// Life is one generation.
type Life struct {
	Generation int
	Label, ID  string
	Cause      string // why it was made
	By         string // who asked for it; "": nobody did
	Intended   time.Time
	Created    time.Time // zero: it never came to be, as far as is known
	Promoted   time.Time // every required sink held it
	Expires    time.Time
	Ended      time.Time // zero: it lives
	End        End
	EndWhy     string
	EndBy      string    // who wanted it dead
	Lost       time.Time // nobody could be proven to hold it
	Orphan     bool      // found and revoked: the answer of its create was lost

	Successor int           // the next generation that was promoted; 0: none yet
	Replaced  time.Time     // when that one was in place
	Overlap   time.Duration // from then to its end, so far where it lives: negative where it had ended before

	Told []Telling // who was told of it, sorted by name

	pushes []push
}

// End says how a life ended.
type End string

// The ends of a life.
const (
	Alive   End = "alive"
	Revoked End = "revoked"
	Expired End = "expired"
	Died    End = "died"    // revoked by somebody else; the instant is when that was found
	Unknown End = "unknown" // whether it was ever made is not known yet
	Never   End = "never"   // it was never made
)

type push struct {
	at          time.Time
	place, sink string
	optional    bool
}

// Gap is a time in which sinks were left with a dead token.
type Gap struct {
	Token      string
	Generation int // that had ended
	From       time.Time
	Until      time.Time // zero: it goes on
	Sinks      []string  // that were known to hold the dead one when it began
	Why        string
	By         string // who wanted it so; "": nobody
}

// Length of a gap, so far where it goes on.
func (g *Gap) Length(now time.Time) time.Duration {
	if g.Until.IsZero() {
		return now.Sub(g.From)
	}
	return g.Until.Sub(g.From)
}

// Disturbance is a time in which a sink held something else than what was put there.
type Disturbance struct {
	Sink  string
	What  string
	From  time.Time
	Until time.Time // zero: it goes on

	place string
}

// Telling is what is known of one generation and one consumer.
type Telling struct {
	Consumer string
	Told     time.Time // first; zero: it never was
	Taken    time.Time // first; zero: it is not known to use it
	Failed   int       // how often it could not be told
}

// Behind is a consumer that is not known to have taken a generation before the one that it used had
// ended, or at all.
type Behind struct {
	Consumer  string
	Used      int // the generation that had ended; 0: none had
	Successor int // the one that was in place
	Took      int // the one that it took in the end; 0: none that is known
	From      time.Time
	Until     time.Time // zero: it goes on
}

// Reader takes the events of the journal one after the other, in the order in which they were written,
// each under the name that its entry has now.
type Reader struct {
	report Report
	tokens map[string]*history
	daemon bool // one has started, and not ended
}

// history is what is known of one token from the beginning on.
type history struct {
	name      string
	was       []string
	known     time.Time
	removed   []span
	lives     []*Life
	disturbed []Disturbance
	held      map[string]string // place → name
	consumers map[string]map[int]*Telling
	promoted  []*Life
	tries     []time.Time
	failures  []time.Time
}

// span is a time in which an entry was not declared.
type span struct{ from, until time.Time }

// NewReader returns a Reader of a report about the time from since on; zero: from the beginning.
func NewReader(since, until time.Time) *Reader {
	return &Reader{report: Report{Since: since, Until: until}, tokens: map[string]*history{}}
}

// within reports whether an instant belongs to what is told in detail.
func (r *Reader) within(at time.Time) bool {
	return !at.Before(r.report.Since) && !at.After(r.report.Until)
}

// Add takes one event.
func (r *Reader) Add(ev rotator.Event) {
	if ev.At.After(r.report.Until) {
		return
	}
	p := &r.report
	p.Events++
	if p.First.IsZero() || ev.At.Before(p.First) {
		p.First = ev.At
	}
	switch ev.Kind {
	case rotator.EventPruned:
		if ev.Next.After(p.Dropped) {
			p.Dropped = ev.Next
		}
		return
	case rotator.EventConfigured:
		p.InForce = ev
		fallthrough
	case rotator.EventDeclined:
		if r.within(ev.At) {
			p.Configuration = append(p.Configuration, ev)
		}
		return
	case rotator.EventStarted, rotator.EventStopped:
		if ev.Version != "" {
			p.Version = ev.Version
		}
		if daemon := ev.Detail == "rotatord run"; daemon {
			if ev.Kind == rotator.EventStarted && r.daemon && r.within(ev.At) {
				p.Crashes = append(p.Crashes, ev.At)
			}
			r.daemon = ev.Kind == rotator.EventStarted
		}
		if r.within(ev.At) {
			p.Service = append(p.Service, ev)
		}
		return
	case rotator.EventAccount:
		if r.within(ev.At) {
			p.Service = append(p.Service, ev)
		}
		return
	}
	if byHand(&ev) && r.within(ev.At) {
		p.Manual = append(p.Manual, ev)
	}
	if ev.Entry == "" {
		return
	}
	h := r.tokens[ev.Entry]
	if h == nil {
		h = &history{name: ev.Entry, known: ev.At, held: map[string]string{}, consumers: map[string]map[int]*Telling{}}
		r.tokens[ev.Entry] = h
	}
	h.add(&ev)
}

// byHand reports whether an event is what a person did, or what came of it at once.
func byHand(ev *rotator.Event) bool {
	switch ev.Kind {
	case rotator.EventAsked, rotator.EventAdopted, rotator.EventPaused, rotator.EventReleased, rotator.EventRevoked, rotator.EventRenamed, rotator.EventFailed:
		return ev.By != ""
	}
	return false
}

// life returns the newest life of a generation, made where it is not known.
func (h *history) life(ev *rotator.Event) *Life {
	for i := len(h.lives) - 1; i >= 0; i-- {
		l := h.lives[i]
		if ev.Label != "" && l.Label != "" && l.Label == ev.Label || (ev.Label == "" || l.Label == "") && l.Generation == ev.Generation {
			return l
		}
	}
	l := &Life{Generation: ev.Generation, Label: ev.Label, Expires: ev.Expires, End: Unknown}
	h.lives = append(h.lives, l)
	return l
}

// about fills in what an event tells of a generation.
func (l *Life) about(ev *rotator.Event) {
	if ev.ID != "" {
		l.ID = ev.ID
	}
	if !ev.Expires.IsZero() {
		l.Expires = ev.Expires
	}
	if l.Label == "" {
		l.Label = ev.Label
	}
}

func (l *Life) end(how End, at time.Time, why, by string) {
	if l.End == Revoked || l.End == Died && how == Expired {
		return
	}
	l.End, l.Ended, l.EndWhy, l.EndBy = how, at, why, by
}

func (h *history) add(ev *rotator.Event) {
	switch ev.Kind {
	case rotator.EventIntended:
		l := h.life(ev)
		l.about(ev)
		l.Intended, l.Cause, l.By, l.End = ev.At, ev.Detail, ev.By, Unknown
	case rotator.EventRefused, rotator.EventLimited, rotator.EventClosed:
		h.life(ev).end(Never, ev.At, ev.Detail, "")
		h.tries = append(h.tries, ev.At)
	case rotator.EventUnknown:
		h.tries = append(h.tries, ev.At)
	case rotator.EventCreated:
		l := h.life(ev)
		l.about(ev)
		l.Created, l.End, l.Ended = ev.At, Alive, time.Time{}
		if l.Cause == "" {
			l.Cause = ev.Detail
		}
	case rotator.EventAdopted:
		if ev.Generation == 0 { // what stood in a sink is given up
			h.settle(ev)
			return
		}
		l := h.life(ev)
		l.about(ev)
		l.Created, l.End, l.Cause, l.By = ev.At, Alive, string(rotator.CauseAdopted)+": "+ev.Detail, ev.By
		if ev.Next.IsZero() {
			l.Lost = ev.At
		} else {
			h.promote(l, ev.At)
		}
		delete(h.held, "")
	case rotator.EventPushed:
		l := h.life(ev)
		l.about(ev)
		l.pushes = append(l.pushes, push{ev.At, ev.Place, ev.Sink, ev.Optional()})
		h.settle(ev)
	case rotator.EventConverged:
		l := h.life(ev)
		l.about(ev)
		h.promote(l, ev.At)
	case rotator.EventLost:
		h.life(ev).Lost = ev.At
	case rotator.EventOrphan:
		l := h.life(ev)
		l.Orphan = true
		l.about(ev)
		if l.Created.IsZero() {
			l.Created = ev.At
			if !l.Intended.IsZero() {
				l.Created = l.Intended
			}
			l.End, l.Ended = Alive, time.Time{}
		}
	case rotator.EventRevoked:
		if ev.Generation == 0 && ev.By != "" { // by hand, by its id
			return
		}
		h.life(ev).end(Revoked, ev.At, ev.Detail, ev.By)
	case rotator.EventDied:
		h.life(ev).end(Died, ev.At, ev.Detail+ev.Error, "")
	case rotator.EventExpired:
		l := h.life(ev)
		l.about(ev)
		l.end(Expired, l.Expires, "", "")
	case rotator.EventFailed:
		h.failures = append(h.failures, ev.At)
		if consumer, ok := strings.CutPrefix(ev.Detail, "tell "); ok {
			h.telling(consumer, ev.Generation).Failed++
		}
	case rotator.EventTold:
		if t := h.telling(ev.Detail, ev.Generation); t.Told.IsZero() {
			t.Told = ev.At
		}
	case rotator.EventTaken:
		if t := h.telling(ev.Detail, ev.Generation); t.Taken.IsZero() {
			t.Taken = ev.At
		}
	case rotator.EventDrift:
		h.disturb(ev, ev.Detail)
	case rotator.EventHeld:
		h.held[ev.Place] = ev.Sink
		if ev.Place != "" {
			h.disturb(ev, "holds a value that is none of ours")
		}
	case rotator.EventReleased:
		if ev.By == "" || ev.Place != "" { // else: a pause is over
			h.settle(ev)
			delete(h.held, ev.Place)
		}
	case rotator.EventRenamed:
		if was, ok := strings.CutPrefix(ev.Detail, "was "); ok {
			h.was = append(h.was, was)
		}
	case rotator.EventRemoved:
		h.removed = append(h.removed, span{from: ev.At})
	case rotator.EventRestored:
		if n := len(h.removed); n > 0 && h.removed[n-1].until.IsZero() {
			h.removed[n-1].until = ev.At
		}
	}
}

// telling is where it is noted what a consumer knows of a generation.
func (h *history) telling(consumer string, n int) *Telling {
	of := h.consumers[consumer]
	if of == nil {
		of = map[int]*Telling{}
		h.consumers[consumer] = of
	}
	if of[n] == nil {
		of[n] = &Telling{Consumer: consumer}
	}
	return of[n]
}

func (h *history) promote(l *Life, at time.Time) {
	if !l.Promoted.IsZero() {
		return
	}
	l.Promoted = at
	h.promoted = append(h.promoted, l)
	delete(h.held, "")
}

// disturb begins a disturbance of a sink, and ends another one of it. What is told again goes on.
func (h *history) disturb(ev *rotator.Event, what string) {
	for i := range h.disturbed {
		switch d := &h.disturbed[i]; {
		case d.place != ev.Place || !d.Until.IsZero():
		case d.What == what:
			return
		default:
			d.Until = ev.At
		}
	}
	h.disturbed = append(h.disturbed, Disturbance{Sink: ev.Sink, What: what, From: ev.At, place: ev.Place})
}

// settle ends the disturbance of a sink.
func (h *history) settle(ev *rotator.Event) {
	if ev.Place != "" {
		delete(h.held, ev.Place)
	}
	if ev.Kind == rotator.EventAdopted { // what stands there is given up, and ours is still to come
		return
	}
	for i := range h.disturbed {
		if d := &h.disturbed[i]; d.place == ev.Place && d.Until.IsZero() {
			d.Until = ev.At
		}
	}
}

// Report is what the events come to. Nothing may be added after it.
func (r *Reader) Report() *Report {
	for _, h := range r.tokens {
		if t, told := h.judge(r); told {
			r.report.Tokens = append(r.report.Tokens, t)
		}
	}
	slices.SortFunc(r.report.Tokens, func(a, b Token) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	return &r.report
}
