package config

import (
	"fmt"
	"maps"
	"slices"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/consumers"
	"github.com/rotatord/rotatord/rotator/field"
)

// consumers checks the programs that are told of new tokens.
func (k *checker) consumers(f *file, d *document) {
	if k.owner["consumers"] != f || d.Consumers == nil {
		return
	}
	k.c.Consumers = map[string]consumers.Spec{}
	first := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(d.Consumers)) {
		spec := d.Consumers[name]
		sound := true
		say(f, func(p field.Problems) {
			p = p.At("consumers", name)
			wellNamed(p, name)
			spec.Validate(p)
			f.concealWebhook("consumers", name, "http")
			if sound = len(p.List()) == 0; !sound {
				return
			}
			if other, taken := first[spec.Place()]; taken && spec.Place() != "" {
				p.Errorf("is told in the same way as %q: one of them would take what is meant for the other", other)
			}
		})
		if sound {
			first[spec.Place()] = name
		}
		k.c.Consumers[name] = spec.Resolve(f.dir)
	}
}

// told checks the list of consumers at a path, of a token or of the defaults.
func (k *checker) told(p field.Problems, list []string) {
	known := slices.Sorted(maps.Keys(k.c.Consumers))
	first := map[string]bool{}
	for i, name := range list {
		at := p.At("consumers", i)
		switch {
		case first[name]:
			at.Warnf("%q is listed twice", name)
		case !slices.Contains(known, name):
			hint := fmt.Sprintf(": declare it at the top, like \"consumers: {%s: {flag: %[1]s}}\"", name)
			if near := nearest(name, known); near != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", near)
			}
			at.Errorf("%q is no item of consumers%s", name, hint)
		}
		first[name] = true
	}
}

// idle warns of consumers that no token names.
func (k *checker) idle() {
	used := map[string]bool{}
	for _, r := range k.tokens {
		for _, name := range r.token.Consumers {
			used[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.c.Consumers)) {
		if !used[name] {
			say(k.owner["consumers"], func(p field.Problems) {
				p.At("consumers", name).Warnf("no token names it: add \"consumers: [%s]\" to those that it uses", name)
			})
		}
	}
}

// consumersOf are a token's consumers as the engine knows them.
func (c *Config) consumersOf(t *Token) []rotator.Consumer {
	var out []rotator.Consumer
	for _, name := range t.Consumers {
		if !slices.ContainsFunc(out, func(c rotator.Consumer) bool { return c.Name == name }) {
			out = append(out, rotator.Consumer{Name: name, Title: c.Consumers[name].Title(name)})
		}
	}
	return out
}
