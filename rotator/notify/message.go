package notify

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/child"
	"github.com/rotatord/rotatord/rotator/field"
)

// The types of a message.
const (
	TypeProblems = "problems"
	TypeTest     = "test"
)

// Message is what a target is told at once.
type Message struct {
	Format   int        `json:"format"` // 1
	Type     string     `json:"type"`
	ID       string     `json:"id"`
	At       time.Time  `json:"timestamp"`
	Instance string     `json:"instance"`
	Host     string     `json:"host,omitempty"`
	Text     string     `json:"text"`              // all of it, for a person
	New      []Item     `json:"new,omitempty"`     // what is wrong, and was not told before
	Worse    []Item     `json:"worse,omitempty"`   // of what was told, what is about to break somebody, or has
	More     []Item     `json:"more,omitempty"`    // of what was told, what more tokens have
	Still    []Item     `json:"still,omitempty"`   // what was told long ago, and is wrong still
	Over     []Item     `json:"over,omitempty"`    // what was told, and is well again; or goes on otherwise
	Rotated  []Rotation `json:"rotated,omitempty"` // where that is wanted
	Open     int        `json:"open"`              // how many troubles the target knows of now
}

// Item is one trouble.
type Item struct {
	Key      string    `json:"key"`  // the same in every message about it
	Kind     string    `json:"kind"` // of its worst problem, as status --json names it
	Title    string    `json:"title"`
	Tokens   []string  `json:"tokens,omitempty"` // the first of those that have it
	Count    int       `json:"count"`            // how many have it
	Sink     string    `json:"sink,omitempty"`
	Consumer string    `json:"consumer,omitempty"`
	Error    string    `json:"error,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"`    // when it was over
	Next     time.Time `json:"next,omitzero"`     // the next try
	Breaks   time.Time `json:"breaks,omitzero"`   // when the first of its users is left with a dead token
	GoesOn   string    `json:"goes_on,omitempty"` // of what is over: how it goes on all the same
	Failing  bool      `json:"failing"`
	Do       string    `json:"do,omitempty"`

	problem rotator.Problem
}

// Rotation is a token that has a new value in every required sink.
type Rotation struct {
	Token      string    `json:"token"`
	Generation int       `json:"generation"`
	Expires    time.Time `json:"expires_at"`
}

const (
	maxTokens = 20 // named in an item
	maxError  = 400
)

// title is a trouble in one line, without how many tokens have it.
func title(tr *trouble) string {
	p := &tr.worst
	if p.Outage != "" {
		return p.Outage + " is out of reach"
	}
	what := p.What
	if p.Sink != "" && len(tr.tokens) <= 1 {
		what = p.Sink + ": " + what
	}
	if p.Token != "" && len(tr.tokens) == 1 {
		what = p.Token + ": " + what
	}
	return clean(what)
}

// titleOf is the title of a trouble that is this problem alone.
func titleOf(p *rotator.Problem) string {
	tr := &trouble{worst: *p}
	if p.Token != "" {
		tr.tokens = []string{p.Token}
	}
	return title(tr)
}

func newItem(tr *trouble, since time.Time) Item {
	p := tr.worst
	return Item{
		Key: tr.key, Kind: string(p.Kind), Title: title(tr), Tokens: tr.tokens[:min(len(tr.tokens), maxTokens)], Count: len(tr.tokens),
		Sink: p.Sink, Consumer: p.Consumer, Error: short(clean(p.Error), maxError), Since: since, Next: p.Next, Breaks: tr.breaks,
		Failing: p.Failing, problem: p,
	}
}

// clean cuts out what looks like a token. No error should hold one; this is the last door.
func clean(text string) string { return child.Redact(text) }

func short(text string, limit int) string {
	r := []rune(text)
	if len(r) <= limit {
		return text
	}
	return string(r[:limit-1]) + "…"
}

func (m *Message) empty() bool {
	return len(m.New)+len(m.Worse)+len(m.More)+len(m.Still)+len(m.Over)+len(m.Rotated) == 0
}

// items are the parts in which something is wrong, the newest first, with the word for each.
func (m *Message) items() []struct {
	word string
	list []Item
} {
	return []struct {
		word string
		list []Item
	}{{"", m.New}, {"worse: ", m.Worse}, {"more: ", m.More}, {"still: ", m.Still}}
}

// head is the first line.
func (m *Message) head() string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(len(m.New), "new problem"+map[bool]string{true: "s"}[len(m.New) > 1])
	add(len(m.Worse), "worse")
	add(len(m.More), "spreading")
	add(len(m.Still), "still there")
	goOn := 0
	for _, item := range m.Over {
		if item.GoesOn != "" {
			goOn++
		}
	}
	add(len(m.Over)-goOn, "solved")
	add(goOn, "not solved")
	add(len(m.Rotated), "rotated")
	head := "rotatord " + m.Instance
	if m.Host != "" {
		head += " on " + m.Host
	}
	head += ": " + strings.Join(parts, ", ")
	switch {
	case m.Type == TypeTest:
		return "rotatord " + m.Instance + " on " + m.Host + ": this is a test. Whoever reads it will hear of problems; there is none now that it tells of."
	case len(m.Over) > 0 && m.Open+goOn == 0:
		head += ". All clear."
	case m.Open > len(m.New)+len(m.Worse)+len(m.More)+len(m.Still):
		head += fmt.Sprintf(" (%d open)", m.Open)
	}
	return head
}

// lines are what follows the head, an item each, the most important first.
func (m *Message) lines() []string {
	var out []string
	for _, part := range m.items() {
		for _, item := range part.list {
			out = append(out, item.text(part.word, m.At))
		}
	}
	for _, item := range m.Over {
		if item.GoesOn != "" {
			out = append(out, "· goes on "+item.GoesOn+": "+item.Title)
			continue
		}
		line := "✓ solved: " + item.Title
		if d := item.Until.Sub(item.Since); d >= time.Second {
			line += " (it lasted " + field.FormatDuration(d)
			if item.Count > 1 {
				line += fmt.Sprintf(", for %d tokens", item.Count)
			}
			line += ")"
		}
		out = append(out, line)
	}
	var names []string
	for _, r := range m.Rotated[:min(len(m.Rotated), maxTokens)] {
		names = append(names, fmt.Sprintf("%s (generation %d)", r.Token, r.Generation))
	}
	if n := len(m.Rotated) - len(names); n > 0 {
		names = append(names, fmt.Sprintf("and %d more", n))
	}
	if len(names) > 0 {
		out = append(out, "↻ rotated: "+strings.Join(names, ", "))
	}
	return out
}

// text is an item as a person reads it: what, since when, what breaks when, why, and what to do.
func (item *Item) text(word string, now time.Time) string {
	var b strings.Builder
	mark := "· "
	if item.Failing {
		mark = "✗ "
	}
	b.WriteString(mark + word + item.Title)
	if item.Count > 1 {
		names := item.Tokens[:min(len(item.Tokens), 8)]
		fmt.Fprintf(&b, ": %d tokens (%s", item.Count, strings.Join(names, ", "))
		if n := item.Count - len(names); n > 0 {
			fmt.Fprintf(&b, " and %d more", n)
		}
		b.WriteString(")")
	}
	var when []string
	if !item.Since.IsZero() {
		if d := now.Sub(item.Since); d >= time.Second {
			when = append(when, "since "+instant(item.Since, now)+" ("+field.FormatDuration(d)+" ago)")
		} else {
			when = append(when, "since "+instant(item.Since, now))
		}
	}
	if !item.Breaks.IsZero() {
		who := "its users"
		if item.Count > 1 {
			who = "the first users"
		}
		if d := item.Breaks.Sub(now); d > 0 {
			when = append(when, fmt.Sprintf("breaks %s in %s (%s)", who, field.FormatDuration(d), instant(item.Breaks, now)))
		} else {
			when = append(when, who+" have NO working token now")
		}
	}
	if item.Next.After(now) {
		when = append(when, "next try in "+field.FormatDuration(item.Next.Sub(now)))
	}
	if len(when) > 0 {
		b.WriteString("\n    " + strings.Join(when, "; "))
	}
	n := 0
	for line := range strings.Lines(item.Error) {
		line = strings.TrimSpace(line)
		if item.Sink != "" {
			line = strings.TrimPrefix(line, item.Sink+": ")
		}
		if line != "" && n < 3 {
			b.WriteString("\n    " + line)
			n++
		}
	}
	if item.Do != "" {
		b.WriteString("\n    " + item.Do)
	}
	return b.String()
}

// instant is written in UTC, for people who are anywhere; with its day where that is not today.
func instant(t, now time.Time) string {
	t, now = t.UTC(), now.UTC()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04 UTC")
	}
	return t.Format("Mon 2 Jan 15:04 UTC")
}

// text is the whole message, of at most so many characters: what does not fit is counted.
func (m *Message) text(limit int, write func(string) string) string {
	text := write(m.head())
	lines := m.lines()
	used := len([]rune(text))
	for i, line := range lines {
		line = "\n" + write(line)
		rest := ""
		if left := len(lines) - i; left > 0 {
			rest = fmt.Sprintf("\n… and %d more: rotatord status", left)
		}
		n := len([]rune(line))
		if used+n+len([]rune(rest)) > limit && i > 0 {
			return short(text, limit-len([]rune(rest))) + rest
		}
		text, used = text+line, used+n
	}
	return short(text, limit)
}

const (
	slackLimit = 1900 // Discord takes 2000, Slack and Mattermost more
	textLimit  = 8000
)

// body is the message for a webhook.
func (m *Message) body() []byte {
	out := *m
	out.Text = m.text(textLimit, func(s string) string { return s }) // by the whole instant: what breaks now is not still to come
	out.Format, out.At = 1, m.At.UTC().Truncate(time.Second)
	b, err := json.Marshal(out)
	if err != nil {
		panic(err) // it consists of text, numbers and instants
	}
	return b
}

// slack is the message for an incoming webhook: nothing in it is a link, a mention or a command.
func (m *Message) slack() []byte {
	escape := func(s string) string {
		s = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "@\u200b").Replace(s)
		return s
	}
	text := m.text(slackLimit, escape)
	head, rest, more := strings.Cut(text, "\n")
	text = "*" + strings.ReplaceAll(head, "*", "") + "*"
	if more {
		text += "\n" + rest
	}
	b, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		panic(err) // it is text
	}
	return b
}

// advise adds what to do to what is wrong.
func (m *Message) advise(hint func(rotator.Problem) string) {
	if hint == nil {
		return
	}
	for _, part := range m.items() {
		for i := range part.list {
			part.list[i].Do = clean(hint(part.list[i].problem))
		}
	}
}
