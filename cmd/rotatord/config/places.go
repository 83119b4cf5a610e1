package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/sinks"
)

// sinks checks each of a token's sinks by itself.
func (k *checker) sinks(r *tokenRef) {
	f, b := r.f, r.block
	say(f, func(p field.Problems) {
		p = p.At(r.at("sinks")...)
		switch {
		case !f.has(r.at("sinks")...):
			p.Errorf("is missing: say where the token goes, in at least one sink")
		case len(b.Sinks) == 0:
			p.Errorf("is an empty list: a token needs at least one sink, since its plaintext is shown only once")
		}
	})
	required := len(b.Sinks) == 0
	for j := range b.Sinks {
		s := &b.Sinks[j]
		at := r.at("sinks", j)
		sink := Sink{Required: s.Required == nil || *s.Required, TakeOver: s.TakeOver, Spec: s.Spec}
		required = required || sink.Required
		valid := true // a place that is wrong by itself is compared with no other
		say(f, func(p field.Problems) {
			p = p.At(at...)
			switch {
			case s.Name == nil:
			case strings.TrimSpace(*s.Name) == "":
				p.At("name").Errorf("is empty: give the sink a name, or remove the key")
			case !lineShape.MatchString(*s.Name) || turns(*s.Name):
				p.At("name").Errorf("%q "+notOneLine, *s.Name)
			}
			sink.Timeout = positive(p.At("timeout"), s.Timeout, DefaultSinkTimeout)
			before := len(p.List())
			sink.Spec.Validate(p)
			k.needs(p, sink.Spec)
			valid = !slices.ContainsFunc(p.List()[before:], func(q field.Problem) bool { return !q.Warning })
		})
		sink.Spec.Resolve(f.dir)
		if kinds := f.kinds(at); valid && len(kinds) == 1 && kinds[0] == sink.Spec.Kind() && f.sound(append(at, kinds[0])...) {
			sink.Kind = kinds[0]
			sink.Place = sink.Spec.Place()
			sink.Name = text(s.Name, unlike(r.token.Sinks, sink.Spec.Title()))
		}
		r.token.Sinks = append(r.token.Sinks, sink)
	}
	if !required {
		say(f, func(p field.Problems) {
			p.At(r.at("sinks")...).Warnf("none of them is required: a rotation counts as complete though no sink holds its token")
		})
	}
}

// unlike is a title with a number, where a sink before it is called the same: what tells them apart is
// not for everybody's eyes.
func unlike(before []Sink, title string) string {
	name := title
	for n := 2; slices.ContainsFunc(before, func(s Sink) bool { return s.Name == name }); n++ {
		name = fmt.Sprintf("%s #%d", title, n)
	}
	return name
}

// needs checks that the connection that a sink names is declared.
func (k *checker) needs(p field.Problems, s sinks.Spec) {
	block, name := s.Needs()
	if block != "vaults" || name == "" {
		return
	}
	if _, ok := k.c.Vaults[name]; ok {
		return
	}
	known := slices.Sorted(maps.Keys(k.c.Vaults))
	hint := ": add it there"
	if near := nearest(name, known); near != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", near)
	}
	p.At(s.Kind(), "vault").Errorf("%q is no item of vaults%s", name, hint)
}

// kinds returns the keys of a sink that are its kinds' blocks: those that are no option of sinks.
func (f *file) kinds(at []any) []string {
	n := f.locate(at).node
	var out []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch key := target(n.Content[i]).Value; key {
		case "name", "required", "take_over", "timeout":
		default:
			out = append(out, key)
		}
	}
	return out
}

// places looks for sinks of all tokens that would overwrite each other.
func (k *checker) places() {
	type user struct {
		r      *tokenRef
		index  int
		traits string
	}
	writers := map[string]user{} // by place
	sharers := map[string]user{} // by what is shared, the first to say how
	for _, r := range k.tokens {
		for j, s := range r.token.Sinks {
			if s.Place == "" {
				continue
			}
			path := r.at("sinks", j, s.Kind)
			if first, taken := writers[s.Place]; taken {
				say(r.f, func(p field.Problems) {
					p.At(path...).Errorf("writes the same place as %s: they would overwrite each other", first.r.ref(r.f, "sinks", first.index))
				})
			} else {
				writers[s.Place] = user{r: r, index: j}
			}
			what, traits := s.Spec.Shares()
			if what == "" {
				continue
			}
			if first, shared := sharers[what]; !shared {
				sharers[what] = user{r, j, traits}
			} else if first.traits != traits {
				say(r.f, func(p field.Problems) {
					p.At(path...).Errorf("shares %s with %s, and must say the same about it: here %s, there %s", what, first.r.ref(r.f, "sinks", first.index), traits, first.traits)
				})
			}
		}
	}
}
