package rotator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrBusy says that an entry cannot be renamed while it is worked on: try again in a moment.
var ErrBusy = errors.New("a rotation is under way")

// hold keeps the entries that get another name from being worked on, until letGo. With an error
// none is held.
func (e *Engine) hold(entries []Entry, declared map[string]bool) (held []*work, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range entries {
		en := &entries[i]
		w := e.works[en.Was]
		if en.Was == "" || w == nil || declared[en.Was] || e.works[en.Name] != nil {
			continue
		}
		w.mu.Lock()
		busy := w.busy
		w.busy = true
		w.mu.Unlock()
		if busy {
			e.letGo(held)
			return nil, fmt.Errorf("rename %q to %q: it is being worked on: %w", en.Was, en.Name, ErrBusy)
		}
		held = append(held, w)
	}
	return held, nil
}

// letGo ends what hold began.
func (e *Engine) letGo(held []*work) {
	for _, w := range held {
		w.mu.Lock()
		w.busy = false
		w.takeOver()
		w.mu.Unlock()
	}
}

// Renames says which records go on under another name: the old names, each with the new one. They are
// those of entries that say "was", where nothing has the old name any more, nor the new one yet.
func Renames(entries []Entry, recorded func(name string) bool) map[string]string {
	declared := map[string]bool{}
	for i := range entries {
		declared[entries[i].Name] = true
	}
	out := map[string]string{}
	for i := range entries {
		en := &entries[i]
		if en.Was == "" || declared[en.Was] || out[en.Was] != "" || !recorded(en.Was) || recorded(en.Name) {
			continue
		}
		out[en.Was] = en.Name
	}
	return out
}

// rename gives the records of entries that say "was" their new names: all of them, or none. The
// plaintexts that this process still holds for a sink go along.
func (e *Engine) rename(ctx context.Context, entries []Entry, byName map[string]Record) error {
	names := Renames(entries, func(name string) bool { _, ok := byName[name]; return ok })
	var all []Renaming
	for _, was := range slices.Sorted(maps.Keys(names)) {
		all = append(all, Renaming{Record: byName[was], To: names[was], Told: Event{
			At: e.c.Now(), Kind: EventRenamed, Entry: names[was], Detail: "was " + was,
		}})
		delete(byName, was)
	}
	if len(all) == 0 {
		return nil
	}
	renamed, err := e.c.Store.Rename(ctx, all...)
	if err != nil {
		return fmt.Errorf("rename %q to %q: %w", all[0].Record.Name, all[0].To, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, r := range renamed {
		byName[r.Name] = r
		old := e.works[all[i].Record.Name]
		if old == nil {
			continue
		}
		delete(e.works, old.name)
		old.mu.Lock()
		w := &work{name: r.Name, entry: old.entry, rec: r, secrets: old.secrets, checked: old.checked, slept: old.slept}
		w.entry.Name = r.Name
		old.secrets = nil
		old.mu.Unlock()
		e.works[w.name] = w
	}
	return nil
}
