package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// mostNamed is how many names one line of Changes holds.
const mostNamed = 20

// Changes says for the journal what is another in c than it was in old, one line for each kind of
// change: tokens added, removed, renamed and changed, and in what, and other settings. old may be nil:
// all tokens are new, and nothing is said of the rest. It is what Compare says at now, without any value:
// names alone are told. No line where nothing has another meaning.
func Changes(old, c *Config, now time.Time) []string {
	first := old == nil
	if first {
		old = &Config{}
	}
	d := Compare(old, c, now)
	tokens := map[Fate][]string{}
	for i := range d.Tokens {
		t := &d.Tokens[i]
		what := t.edited()
		switch {
		case t.Fate == FateRenamed:
			tokens[FateRenamed] = append(tokens[FateRenamed], t.Was+" to "+t.Token)
			if len(what) > 0 {
				tokens[FateChanged] = append(tokens[FateChanged], named(t.Token, what))
			}
		case t.Fate == FateChanged:
			tokens[FateChanged] = append(tokens[FateChanged], named(t.Token, what))
		default:
			tokens[t.Fate] = append(tokens[t.Fate], t.Token)
		}
	}
	var out []string
	say := func(what string, names []string) {
		if n := len(names); n > mostNamed {
			names = append(slices.Clone(names[:mostNamed]), fmt.Sprintf("and %d more", n-mostNamed))
		}
		if len(names) > 0 {
			out = append(out, what+": "+strings.Join(names, ", "))
		}
	}
	for _, fate := range []Fate{FateAdded, FateRemoved, FateRenamed, FateChanged} {
		say("tokens "+string(fate), tokens[fate])
	}
	if !first { // else each of them is another one
		say("other settings", fields(d.Blocks))
	}
	return out
}

// edited names what differs about a token, in the words of rotation.yaml.
func (t *TokenDiff) edited() []string {
	what := fields(t.Changes)
	if t.Old != nil && t.New != nil {
		o, n := t.Old.token, t.New.token
		a, b := &o.Timing, &n.Timing
		add := func(name string, differs bool) {
			if differs {
				what = append(what, name)
			}
		}
		moves := t.Old.Schedule != t.New.Schedule // however it is written
		add("schedule", moves && o.Schedule != n.Schedule)
		add("timezone", moves && o.Timezone != n.Timezone)
		add("overlap", a.Overlap != b.Overlap)
		add("lifetime", a.Lifetime != b.Lifetime)
		add("margin", a.Margin != b.Margin && (a.Lifetime == 0 || b.Lifetime == 0)) // else it only follows
		add("jitter", a.Jitter != b.Jitter)
	}
	for _, s := range t.Sinks {
		if s.Fate == FateChanged {
			what = append(what, named("sink "+s.Name, fields(s.Changes)))
		} else {
			what = append(what, "sink "+s.Name+" "+string(s.Fate))
		}
	}
	return what
}

// named is a name with what differs about it.
func named(name string, what []string) string {
	return fmt.Sprintf("%s (%s)", name, strings.Join(what, ", "))
}

// fields names what changed.
func fields(changes []Change) (names []string) {
	for _, c := range changes {
		names = append(names, c.Field)
	}
	return names
}
