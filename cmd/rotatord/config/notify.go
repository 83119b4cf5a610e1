package config

import (
	"maps"
	"slices"

	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/notify"
)

// notify checks who is told of problems.
func (k *checker) notify(f *file, d *document) {
	if k.owner["notify"] != f || d.Notify == nil {
		return
	}
	k.c.Notify = map[string]notify.Target{}
	for _, name := range slices.Sorted(maps.Keys(d.Notify)) {
		t := d.Notify[name]
		say(f, func(p field.Problems) {
			p = p.At("notify", name)
			wellNamed(p, name)
			t.Validate(p)
			f.concealWebhook("notify", name, "webhook")
		})
		k.c.Notify[name] = t.Resolve(f.dir)
	}
}
