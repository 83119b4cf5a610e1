package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// memory is what one target was told, as the state keeps it.
type memory struct {
	Seq     int              `json:"seq"` // of the last message that arrived
	Open    map[string]*told `json:"open,omitempty"`
	Rotated map[string]int   `json:"rotated,omitzero"` // of each token, the generation it was told of; nil: it was never asked for
	Retry   retry            `json:"retry,omitzero"`
	Address string           `json:"address,omitempty"` // where it was told, as address writes it
}

// told is a trouble that the target knows of, or will if it lasts.
type told struct {
	Title string    `json:"title"`
	Kind  string    `json:"kind"`
	Since time.Time `json:"since"` // when it began, as far as is known
	At    time.Time `json:"at"`    // of the last message about it; zero: there was none
	Times int       `json:"times"` // messages about it
	Count int       `json:"count"` // the most tokens that it was told to have
	Level int       `json:"level"`
	Roots []string  `json:"roots,omitempty"`

	seen time.Time // by this process, first
	gone time.Time // since when it is no more; zero: it is
}

// retry is the backoff of a target that cannot be told.
type retry struct {
	Tries int       `json:"tries,omitempty"`
	Since time.Time `json:"since,omitzero"`
	At    time.Time `json:"at,omitzero"`
	Error string    `json:"error,omitempty"`
}

func (m *memory) clone() memory {
	c := *m
	c.Rotated = maps.Clone(m.Rotated)
	c.Open = map[string]*told{}
	for key, t := range m.Open {
		one := *t
		one.Roots = slices.Clone(t.Roots)
		c.Open[key] = &one
	}
	return c
}

const (
	patience  = time.Minute // the longest that is waited for rotations that are one message, and for the end to last
	shortCalm = 10 * time.Second
)

// calm is how long a trouble must be gone to be over: one that comes back within it was not.
func (t *Target) calm() time.Duration { return min(max(t.after(), shortCalm), patience) }

// gap is how long nothing is said of a trouble that grows, after so many messages: first a summary,
// once everybody has met it, then less and less.
func gap(times int) time.Duration {
	return []time.Duration{10 * time.Minute, time.Hour, 6 * time.Hour}[min(max(times-1, 0), 2)]
}

// compare returns what the target should be told now, and what it knows then. The message is nil if
// there is nothing to tell. hurry: nobody will look again soon, so nothing is waited for.
//
// Only the difference counts: what came and went unseen is never told, and however long nobody could
// be told, it is one message.
func (m *memory) compare(name string, t *Target, rep rotator.Report, now time.Time, hurry bool) (*Message, memory) {
	var problems []rotator.Problem
	going := map[string]string{} // what is wrong, one by one, and how that goes on where its trouble is no more
	for _, p := range rep.Problems {
		switch {
		case p.Kind == rotator.ProblemNotify && p.Consumer == name:
		case t.wants(&p):
			problems = append(problems, p)
			going[titleOf(&p)] = "for another reason"
		case going[titleOf(&p)] == "":
			going[titleOf(&p)] = "and is not told here any more"
		}
	}
	troubles := group(problems, m.Open)
	m.see(troubles, now)
	next := m.clone()
	msg := &Message{Type: TypeProblems, At: now}
	var young []*trouble
	for _, tr := range troubles {
		k := next.Open[tr.key]
		level := tr.level(now)
		switch every := t.every(); {
		case k.At.IsZero():
			wait := t.after()
			if !tr.breaks.IsZero() { // never so late that nobody can act any more
				wait = min(wait, max(0, tr.breaks.Sub(now)/4))
			}
			switch age := now.Sub(k.begin(tr)); {
			case hurry || age >= wait:
				next.tell(&msg.New, tr, now)
			case age >= wait/4:
				young = append(young, tr)
			}
		case level > k.Level:
			next.tell(&msg.Worse, tr, now)
		case len(tr.tokens) > k.Count && now.Sub(k.At) >= gap(k.Times):
			next.tell(&msg.More, tr, now)
		case every > 0 && now.Sub(k.At) >= every:
			next.tell(&msg.Still, tr, now)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(next.Open)) {
		k := next.Open[key]
		if k.gone.IsZero() || !hurry && now.Sub(k.gone) < t.calm() {
			continue
		}
		msg.Over = append(msg.Over, Item{Key: key, Kind: k.Kind, Title: k.Title, Since: k.Since, Until: k.gone, Count: k.Count, GoesOn: going[k.Title]})
		delete(next.Open, key)
	}
	next.rotations(msg, t, rep.Tokens, now, hurry)
	if msg.empty() {
		return nil, next
	}
	for _, tr := range young { // they would be a message of their own within moments
		next.tell(&msg.New, tr, now)
	}
	for _, k := range next.Open {
		if !k.At.IsZero() {
			msg.Open++
		}
	}
	next.Seq++
	msg.ID = msg.identity(name, next.Seq)
	return msg, next
}

// see notes which troubles there are, since when, and which of those that were told are no more.
func (m *memory) see(troubles []*trouble, now time.Time) {
	if m.Open == nil {
		m.Open = map[string]*told{}
	}
	present := map[string]bool{}
	for _, tr := range troubles {
		present[tr.key] = true
		k := m.Open[tr.key]
		if k == nil {
			k = &told{}
			m.Open[tr.key] = k
		}
		if k.seen.IsZero() || k.seen.After(now) { // the clock may have been set back
			k.seen = now
		}
		if k.At.After(now) {
			k.At = now
		}
		if k.At.IsZero() {
			k.Since = k.begin(tr)
		}
		k.gone = time.Time{}
		for _, root := range tr.roots {
			if !slices.Contains(k.Roots, root) && len(k.Roots) < 8 {
				k.Roots = append(k.Roots, root)
			}
		}
	}
	for key, k := range m.Open {
		switch {
		case present[key]:
		case k.At.IsZero(): // nobody knows of it
			delete(m.Open, key)
		case k.gone.IsZero() || k.gone.After(now):
			k.gone = now
		}
	}
}

// begin is since when a trouble lasts, as far as is known.
func (k *told) begin(tr *trouble) time.Time {
	if tr.since.IsZero() || tr.since.After(k.seen) {
		return k.seen
	}
	return tr.since
}

// tell adds a trouble to a part of the message.
func (m *memory) tell(to *[]Item, tr *trouble, now time.Time) {
	k := m.Open[tr.key]
	k.Title, k.Kind = title(tr), string(tr.worst.Kind) // as it was told, it is said to be over
	k.At, k.Times, k.Count, k.Level = now, k.Times+1, max(k.Count, len(tr.tokens)), tr.level(now)
	*to = append(*to, newItem(tr, k.Since))
}

// move notes where the target is told. At another address than before is somebody who knows of nothing
// yet, and with whom nothing went wrong. changed reports whether that is to be kept.
func (m *memory) move(t *Target) (changed bool) {
	was, to := m.Address, t.address()
	m.Address = to
	if was == to || was == "" { // "" knows of nothing that a save would have to keep
		return false
	}
	m.Open, m.Retry = nil, retry{}
	return true
}

// baseline notes, where a target first wants to hear of rotations, which are no news to it; changed reports
// whether that is to be kept.
func (m *memory) baseline(t *Target, tokens []rotator.TokenStatus, now time.Time) (changed bool) {
	wants := slices.Contains(t.Wants(), onRotated)
	if wants == (m.Rotated != nil) {
		return false
	}
	m.Rotated = nil
	if wants {
		m.Rotated = map[string]int{}
		for _, s := range tokens {
			if !s.Converged.IsZero() && now.Sub(s.Converged) > time.Hour {
				m.Rotated[s.Name] = s.Generation
			}
		}
	}
	return true
}

// rotations adds the tokens that were rotated since the last message about that.
func (m *memory) rotations(msg *Message, t *Target, tokens []rotator.TokenStatus, now time.Time, hurry bool) {
	if m.Rotated == nil {
		return
	}
	ripe := hurry || !msg.empty()
	var fresh []Rotation
	declared := map[string]bool{}
	for _, s := range tokens {
		declared[s.Name] = true
		if s.Converged.IsZero() || s.Generation <= m.Rotated[s.Name] {
			continue
		}
		fresh = append(fresh, Rotation{s.Name, s.Generation, s.Expires})
		ripe = ripe || now.Sub(s.Converged) >= min(t.after(), patience) || s.Converged.After(now)
	}
	maps.DeleteFunc(m.Rotated, func(name string, _ int) bool { return !declared[name] })
	if !ripe {
		return
	}
	for _, r := range fresh {
		m.Rotated[r.Token] = r.Generation
	}
	msg.Rotated = fresh
}

// identity is the same for the same message, sent again.
func (m *Message) identity(target string, seq int) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %d\n", target, seq)
	for i, part := range [][]Item{m.New, m.Worse, m.More, m.Still, m.Over} {
		for _, item := range part {
			fmt.Fprintf(sum, "%d %q %d\n", i, item.Key, item.Count)
		}
	}
	for _, r := range m.Rotated {
		fmt.Fprintf(sum, "%q %d\n", r.Token, r.Generation)
	}
	return "rotatord_" + hex.EncodeToString(sum.Sum(nil)[:16])
}
