package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/sinks"
)

// Diff is what differs between two accepted configurations, and what that comes to. What is equal once
// the defaults are filled in is not in it, however it is written.
type Diff struct {
	Tokens []TokenDiff `json:"tokens"`    // those that differ: as the new configuration has them, then those that it lacks
	Blocks []Change    `json:"blocks"`    // of all blocks that are about no single token
	Same   int         `json:"unchanged"` // tokens that do not differ
	Kept   []string    `json:"-"`         // their names
}

// Fate is what becomes of a token by an edit.
type Fate string

// The fates.
const (
	FateAdded   Fate = "added"   // a first token is created
	FateRemoved Fate = "removed" // it is no longer rotated
	FateRenamed Fate = "renamed" // its record goes on under another name
	FateChanged Fate = "changed"
)

// TokenDiff is what differs about one token.
type TokenDiff struct {
	Token    string `json:"token"`
	Fate     Fate   `json:"fate"`
	Was      string `json:"was,omitempty"`      // its name before
	Template string `json:"template,omitempty"` // its name in the set that it comes from, with the variables

	// Recreated says why the edit needs a new token; "" where it needs none.
	Recreated string `json:"recreated,omitempty"`
	// Changes are of what needs no other words, in the order of rotation.yaml.
	Changes []Change   `json:"changes,omitempty"`
	Sinks   []SinkDiff `json:"sinks,omitempty"`
	// Old and New are when it rotates and what it survives; both only where they differ, and one
	// only of a token that appears or goes.
	Old *Promise `json:"old,omitempty"`
	New *Promise `json:"new,omitempty"`
	// LivesFor is how long, at most, the last token of one that goes outlives the edit.
	LivesFor   time.Duration    `json:"-"`
	LivesUntil time.Time        `json:"lives_until,omitzero"` // the same as an instant
	OnRemove   rotator.OnRemove `json:"on_remove,omitempty"`  // of one that goes, as it was declared
	// Notes are what a person should think of.
	Notes []string `json:"notes,omitempty"`

	generic *strings.Replacer
}

// Generic is a text about the token in the words of its template. What is said of two rows differs in
// their variables only where it is equal. Outside of a set it is the text.
func (t *TokenDiff) Generic(text string) string {
	if t.generic == nil {
		return text
	}
	return t.generic.Replace(text)
}

// Change is one value that differs. Both sides are empty where it is not to be shown; one is, where
// nothing was said or where nothing is any more.
type Change struct {
	Field  string `json:"field"` // its path: api.timeout
	Old    string `json:"old,omitempty"`
	New    string `json:"new,omitempty"`
	Hidden bool   `json:"hidden,omitempty"` // its value may be a secret
	Note   string `json:"note,omitempty"`   // what it comes to
}

// SinkDiff is what differs about one place.
type SinkDiff struct {
	Name    string   `json:"name"`
	Fate    Fate     `json:"fate"`           // added, removed or changed
	From    string   `json:"from,omitempty"` // the token that had the place before, where it was another one
	To      string   `json:"to,omitempty"`   // the token that has it now, where it is another one
	Changes []Change `json:"changes,omitempty"`
	Note    string   `json:"note,omitempty"` // what becomes of what it holds
}

// Promise is when a token rotates, and what it survives.
type Promise struct {
	Schedule     string        // with its zone
	Next         []time.Time   // the next rotations, of a token that is created now
	Month        float64       // rotations a month, on average
	Lifetime     time.Duration // the longest
	Overlap      time.Duration
	Margin       time.Duration
	Jitter       time.Duration
	KeepsOverlap time.Duration // through outages that are shorter
	NoGap        time.Duration // and no gap through those that are shorter than this
	Live         int           // alive at once, at most

	token *Token // whose it is
}

// MarshalJSON writes lengths of time in seconds, as validate does.
func (p Promise) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Schedule     string      `json:"schedule"`
		Next         []time.Time `json:"next_rotations"`
		Month        float64     `json:"rotations_a_month"`
		Lifetime     float64     `json:"lives"`
		Overlap      float64     `json:"overlap"`
		Margin       float64     `json:"margin"`
		Jitter       float64     `json:"jitter"`
		KeepsOverlap float64     `json:"keeps_overlap_through"`
		NoGap        float64     `json:"no_gap_through"`
		Live         int         `json:"alive_at_once"`
	}{
		p.Schedule, p.Next, math.Round(p.Month*10) / 10, p.Lifetime.Seconds(), p.Overlap.Seconds(), p.Margin.Seconds(),
		p.Jitter.Seconds(), p.KeepsOverlap.Seconds(), p.NoGap.Seconds(), p.Live,
	})
}

// Compare says what becomes of everything when one configuration takes the place of another at now.
func Compare(old, next *Config, now time.Time) Diff {
	d := Diff{Tokens: []TokenDiff{}, Blocks: settings(old, next)}
	before, after := byName(old), byName(next)
	c := comparison{now: now, oldPlaces: places(old), newPlaces: places(next)}
	kept := map[string]bool{}
	for _, t := range next.All() {
		o, was := before[t.Name], t.Name
		if renamed := before[t.Was]; o == nil && renamed != nil && after[t.Was] == nil {
			o, was = renamed, t.Was
		}
		if o == nil {
			d.Tokens = append(d.Tokens, c.added(t))
			continue
		}
		kept[was] = true
		if one, differs := c.changed(o, t); differs {
			d.Tokens = append(d.Tokens, one)
		} else {
			d.Same++
			d.Kept = append(d.Kept, t.Name)
		}
	}
	for _, o := range old.All() {
		if !kept[o.Name] {
			d.Tokens = append(d.Tokens, c.removed(o))
		}
	}
	return d
}

// Empty reports whether nothing differs.
func (d *Diff) Empty() bool { return len(d.Tokens) == 0 && len(d.Blocks) == 0 }

// Moves reports whether the token's rotations move.
func (t *TokenDiff) Moves() bool {
	return t.Old != nil && t.New != nil && (t.Old.Schedule != t.New.Schedule || t.Old.Jitter != t.New.Jitter)
}

type comparison struct {
	now                  time.Time
	oldPlaces, newPlaces map[string]string // of sinks: which token has them
}

func byName(c *Config) map[string]*Token {
	out := map[string]*Token{}
	for _, t := range c.All() {
		out[t.Name] = t
	}
	return out
}

func places(c *Config) map[string]string {
	out := map[string]string{}
	for i := range c.Tokens {
		for _, s := range c.Tokens[i].Sinks {
			out[s.Place] = c.Tokens[i].Name
		}
	}
	return out
}

func (c *comparison) added(t *Token) TokenDiff {
	d := TokenDiff{Token: t.Name, Template: t.Template, generic: t.generic, Fate: FateAdded, New: c.promise(t), Changes: sets(nil, t)}
	for _, s := range t.Sinks {
		d.Sinks = append(d.Sinks, c.addedSink(t.Name, s, "it gets the first token"))
	}
	if t.Was != "" {
		d.Notes = append(d.Notes, "was: says that it goes on from "+t.Was+", which is not in the old configuration: it does where the state knows that one")
	}
	return d
}

func (c *comparison) removed(o *Token) TokenDiff {
	d := TokenDiff{Token: o.Name, Template: o.Template, generic: o.generic, Fate: FateRemoved, Old: c.promise(o), LivesFor: o.Facts.Lifetime, LivesUntil: c.now.Add(o.Facts.Lifetime).UTC().Truncate(time.Second), OnRemove: o.OnRemove}
	if o.Name == rotator.OwnName {
		d.Notes = append(d.Notes, "rotatord goes on with the newest of its own tokens, and nobody replaces that: give it a credential before it expires")
	}
	for _, s := range o.Sinks {
		d.Sinks = append(d.Sinks, c.removedSink(o.Name, s))
		if to := c.newPlaces[s.Place]; to != "" && len(d.Notes) == 0 {
			d.Notes = append(d.Notes, "a sink of it is "+to+"'s now: if that one is the same token under a new name, say \"was: "+o.Name+"\" there, and its record goes on")
		}
	}
	return d
}

func (c *comparison) changed(o, t *Token) (d TokenDiff, differs bool) {
	d = TokenDiff{Token: t.Name, Template: t.Template, generic: t.generic, Fate: FateChanged, Changes: sets(o, t)}
	if o.Name != t.Name {
		d.Fate, d.Was = FateRenamed, o.Name
	}
	if len(d.Changes) > 0 {
		d.Recreated = strings.Join(fields(d.Changes), " and ") + " changed"
	}
	add := func(field, old, next, note string) {
		if old != next {
			d.Changes = append(d.Changes, Change{Field: field, Old: old, New: next, Note: note})
		}
	}
	add("description", o.Description, t.Description, "in the label of the next token")
	add("on_drift", string(o.OnDrift), string(t.OnDrift), "")
	add("on_remove", string(o.OnRemove), string(t.OnRemove), "")
	if !rotator.SameSet(o.Consumers, t.Consumers) {
		note := "" // of those that it has no more, there is nothing to say
		if slices.ContainsFunc(t.Consumers, func(name string) bool { return !slices.Contains(o.Consumers, name) }) {
			note = "a new one is told from the next token on"
		}
		add("consumers", strings.Join(o.Consumers, ", "), strings.Join(t.Consumers, ", "), note)
	}
	if o.Timing.Fingerprint() != t.Timing.Fingerprint() {
		d.Old, d.New = c.promise(o), c.promise(t)
	}
	c.sinks(&d, o, t)
	return d, d.Fate == FateRenamed || len(d.Changes)+len(d.Sinks) > 0 || d.New != nil
}

// sets are the differences for which a new token is needed; all that t has, where there was none.
func sets(o, t *Token) []Change {
	var out []Change
	if o == nil {
		o = &Token{}
	}
	if !rotator.SameSet(o.Scopes, t.Scopes) {
		out = append(out, setChange("scopes", o.Scopes, t.Scopes))
	}
	switch {
	case rotator.SameSet(o.ChatbotIDs, t.ChatbotIDs):
	case len(t.ChatbotIDs) == 0:
		out = append(out, Change{Field: "chatbot_ids", Old: strings.Join(o.ChatbotIDs, " "), New: "all", Note: "wider"})
	case len(o.ChatbotIDs) == 0 && o.Name != "":
		out = append(out, Change{Field: "chatbot_ids", Old: "all", New: strings.Join(t.ChatbotIDs, " "), Note: "narrower"})
	default:
		out = append(out, setChange("chatbot_ids", o.ChatbotIDs, t.ChatbotIDs))
	}
	return out
}

func setChange(name string, old, next []string) Change {
	lacks := func(have, want []string) (out []string) {
		for _, w := range want {
			if !slices.Contains(have, w) && !slices.Contains(out, w) {
				out = append(out, w)
			}
		}
		return out
	}
	c := Change{Field: name, Old: strings.Join(old, " "), New: strings.Join(next, " ")}
	if len(old) == 0 {
		return c
	}
	var parts []string
	if gone := lacks(next, old); len(gone) > 0 {
		parts = append(parts, "without "+strings.Join(gone, ", "))
	}
	if came := lacks(old, next); len(came) > 0 {
		parts = append(parts, "with "+strings.Join(came, ", "))
	}
	c.Note = strings.Join(parts, "; ")
	return c
}

// sinks compares them by place.
func (c *comparison) sinks(d *TokenDiff, o, t *Token) {
	before := map[string]Sink{}
	for _, s := range o.Sinks {
		before[s.Place] = s
	}
	gets := "it is filled from the live token"
	if d.Recreated != "" {
		gets = "it gets the new token"
	}
	source, lacking := false, false // where the live token can be copied from, and who needs a copy
	kept := map[string]bool{}
	for _, s := range t.Sinks {
		b, known := before[s.Place]
		if !known {
			lacking = lacking || s.Required
			d.Sinks = append(d.Sinks, c.addedSink(o.Name, s, gets))
			continue
		}
		kept[s.Place] = true
		source = source || readable(s.Spec)
		if changes := sinkChanges(b, s); len(changes) > 0 {
			d.Sinks = append(d.Sinks, SinkDiff{Name: s.Name, Fate: FateChanged, Changes: changes})
		}
	}
	for _, s := range o.Sinks {
		if !kept[s.Place] {
			d.Sinks = append(d.Sinks, c.removedSink(o.Name, s))
		}
	}
	if lacking && !source && d.Recreated == "" {
		d.Recreated = "no sink that can be read back is left to copy the token from"
		for i := range d.Sinks {
			if s := &d.Sinks[i]; s.Fate == FateAdded {
				s.Note = strings.Replace(s.Note, gets, "it gets the new token", 1)
			}
		}
	}
}

// readable reports whether a sink can be read back.
func readable(s sinks.Spec) bool { return s.Exec == nil || len(s.Exec.Read) > 0 }

// addedSink is a place that the token was did not have.
func (c *comparison) addedSink(was string, s Sink, gets string) SinkDiff {
	d := SinkDiff{Name: s.Name, Fate: FateAdded, Note: gets}
	if from := c.oldPlaces[s.Place]; from != "" && from != was {
		d.From, d.Note = from, "its value is "+from+"'s, and is overwritten"
	}
	switch {
	case s.TakeOver:
		d.Note += "; whatever stands there is overwritten (take_over)"
	case !s.Required:
		d.Note += "; a rotation is complete without it"
	}
	return d
}

// removedSink is a place that the token name had and has no more.
func (c *comparison) removedSink(name string, s Sink) SinkDiff {
	d := SinkDiff{Name: s.Name, Fate: FateRemoved, Note: "it keeps its value, which works until that token dies"}
	if to := c.newPlaces[s.Place]; to != "" && to != name {
		d.To, d.Note = to, "it gets "+to+"'s token"
	}
	return d
}

func sinkChanges(o, s Sink) []Change {
	var out []Change
	add := func(field, old, next, note string) {
		if old != next {
			out = append(out, Change{Field: field, Old: old, New: next, Note: note})
		}
	}
	add("name", o.Name, s.Name, "")
	note := "no rotation is complete without it any more"
	if !s.Required {
		note = "a rotation is complete without it, and its token may die in it"
	}
	add("required", strconv.FormatBool(o.Required), strconv.FormatBool(s.Required), note)
	add("take_over", strconv.FormatBool(o.TakeOver), strconv.FormatBool(s.TakeOver), "")
	add("timeout", field.FormatDuration(o.Timeout), field.FormatDuration(s.Timeout), "")
	return append(out, differences("", o.Spec, s.Spec)...)
}

// promise is what t's timing comes to from now on.
func (c *comparison) promise(t *Token) *Promise {
	f := t.Facts
	return &Promise{
		Schedule: t.Timing.Schedule.String(), Next: t.Timing.Coming(t.Name, c.now, 3), Month: monthly(t.Timing.Schedule, c.now),
		Lifetime: f.Lifetime, Overlap: f.Overlap, Margin: f.Margin, Jitter: t.Timing.Jitter,
		KeepsOverlap: f.KeepsOverlap(), NoGap: f.NoGap(), Live: f.Live,
		token: t,
	}
}

// monthly is how often a schedule ticks in a month, over the coming year or its first few thousand
// ticks.
func monthly(s rotator.Schedule, from time.Time) float64 {
	const year, most = 365 * 24 * time.Hour, 4000
	n, until := 0, from.Add(year)
	for at := s.Next(from); !at.IsZero() && !at.After(until); at = s.Next(at) {
		if n++; n == most {
			until = at
			break
		}
	}
	return float64(n) / until.Sub(from).Hours() * year.Hours() / 12
}

// settings compares all that is about no single token.
func settings(old, next *Config) []Change {
	out := []Change{}
	o, n := reflect.ValueOf(*old), reflect.ValueOf(*next)
	for i := range o.NumField() {
		switch name := o.Type().Field(i).Name; name {
		case "Tokens", "Files", "Hash", "Source": // said elsewhere, or how it was read
		case "Management":
			out = append(out, differences("management.expires_at", old.Management.ExpiresAt, next.Management.ExpiresAt)...)
		default:
			out = append(out, differences(snake(name), o.Field(i).Interface(), n.Field(i).Interface())...)
		}
	}
	for i := range out {
		out[i].Note = note(&out[i])
	}
	return out
}

// note says what a change of a block comes to, where that is easily overlooked.
func note(c *Change) string {
	switch path := strings.Split(c.Field, "."); {
	case c.Field == "instance":
		return "it is part of every label, and new tokens bear the new one: nothing that bears the old one is looked after unless a record knows it"
	case c.Field == "api.base_url":
		return "the state belongs to the old one, and is refused until somebody says --accept-account"
	case c.Field == "api.token":
		return "it must belong to the same account"
	case path[0] == "vault" && path[len(path)-1] == "address", path[0] == "vaults" && path[len(path)-1] == "address":
		return "another Vault: the sinks in it keep their places, and are filled again where they do not hold the token"
	}
	return ""
}

// leaf is one value of a configuration.
type leaf struct{ path, value, shown string }

// differences compares two values of one type, field by field, by the names of rotation.yaml.
func differences(path string, old, next any) []Change {
	before, after := flatten(path, reflect.ValueOf(old)), flatten(path, reflect.ValueOf(next))
	at := func(list []leaf, path string) (leaf, bool) {
		i := slices.IndexFunc(list, func(l leaf) bool { return l.path == path })
		if i < 0 {
			return leaf{}, false
		}
		return list[i], true
	}
	var out []Change
	add := func(path string, x, y leaf) {
		c := Change{Field: path, Old: x.shown, New: y.shown}
		if x.shown == y.shown {
			c.Old, c.New, c.Hidden = "", "", true
		}
		out = append(out, c)
	}
	for _, y := range after {
		if x, _ := at(before, y.path); x.value != y.value {
			add(y.path, x, y)
		}
	}
	for _, x := range before {
		if _, still := at(after, x.path); !still {
			add(x.path, x, leaf{})
		}
	}
	return out
}

// flatten returns all that is set in v, each with its path, sorted as it is declared.
func flatten(path string, v reflect.Value) (out []leaf) {
	if !v.IsValid() || v.IsZero() {
		return nil
	}
	join := func(key string) string {
		if path == "" {
			return key
		}
		return path + "." + key
	}
	one := func(text string) []leaf { return []leaf{{path, text, text}} }
	switch key := path[strings.LastIndex(path, ".")+1:]; x := v.Interface().(type) {
	case field.URL: // whoever knows it may be let in by it
		return []leaf{{path, x.Text + "\n" + x.SecretRef.String(), x.Host()}}
	case rotator.Secret:
		return nil // none is in a configuration
	case time.Duration:
		return one(field.FormatDuration(x))
	case field.Duration:
		return one(field.FormatDuration(time.Duration(x)))
	case time.Time:
		return one(x.UTC().Format(time.RFC3339))
	case fmt.Stringer:
		return one(x.String())
	case map[string]string:
		if key != "headers" && key != "env" {
			break
		}
		for _, name := range slices.Sorted(maps.Keys(x)) { // no secrets should stand there, but if one does
			out = append(out, leaf{join(name), x[name], "…"})
		}
		return out
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if out = flatten(path, v.Elem()); len(out) == 0 { // it is there all the same, and says nothing, or zero
			switch x := v.Elem(); {
			case x.Type() == reflect.TypeFor[field.Duration]():
				return one("0")
			case x.Kind() == reflect.Struct || x.Kind() == reflect.Map:
				return one("{}")
			default:
				return one(fmt.Sprint(x.Interface()))
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			switch {
			case !f.IsExported():
			case f.Anonymous || options == "inline":
				out = append(out, flatten(path, v.Field(i))...)
			case name != "":
				out = append(out, flatten(join(name), v.Field(i))...)
			default:
				out = append(out, flatten(join(snake(f.Name)), v.Field(i))...)
			}
		}
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			inner := flatten(join(k.String()), v.MapIndex(k))
			if len(inner) == 0 {
				inner = []leaf{{join(k.String()), "{}", "{}"}}
			}
			out = append(out, inner...)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.String {
			parts := make([]string, v.Len())
			for i := range parts {
				parts[i] = v.Index(i).String()
			}
			return one(strings.Join(parts, " "))
		}
		for i := range v.Len() {
			out = append(out, flatten(fmt.Sprintf("%s[%d]", path, i), v.Index(i))...)
		}
	default:
		return one(fmt.Sprint(v.Interface()))
	}
	return out
}

// snake writes a field's name as rotation.yaml does.
func snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		if i > 0 && unicode.IsUpper(r) && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
