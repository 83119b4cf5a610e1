package config

import (
	"cmp"
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/rotatord/rotatord/rotator/field"
)

// decoder fills schema structs from a file's tree, by their yaml tags. It is stricter than the
// YAML library's own: nothing is converted, no null is passed over, no key is ignored; and it goes
// on after a problem, so that all of them are told at once.
type decoder struct {
	f        *file
	inside   map[*yaml.Node]bool // the aliases on the way: one that leads to itself has no end
	expanded int                 // values read through aliases
	stopped  bool
}

// maxExpanded bounds what aliases can blow a small file up to.
const maxExpanded = 100_000

// decode fills v, a pointer to a schema struct. A file whose aliases never end is given up.
func (f *file) decode(v any) {
	d := &decoder{f: f, inside: map[*yaml.Node]bool{}}
	d.value(nil, f.root, reflect.ValueOf(v).Elem(), nil)
	if d.stopped {
		f.root = nil
	}
}

func (d *decoder) errorf(key, value *yaml.Node, at []any, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	p := Problem{File: d.f.name, Severity: Error, Message: mask(text)}
	p.Line, p.Column = location{key: key, value: value}.position()
	p.Path, p.Where = d.f.told(at, text)
	d.f.problems = append(d.f.problems, p)
}

// wrong adds an error about a value that cannot be read.
func (d *decoder) wrong(key, value *yaml.Node, at []any, format string, args ...any) {
	d.f.broken[target(value)] = true
	d.errorf(key, value, at, format, args...)
}

func (d *decoder) value(key, n *yaml.Node, v reflect.Value, at []any) {
	if d.stopped {
		return
	}
	use := n // where it stands
	if n.Kind == yaml.AliasNode {
		n = target(n)
		if d.inside[n] || n.Kind == yaml.AliasNode {
			d.wrong(key, use, at, "this alias leads to itself")
			return
		}
		d.inside[n] = true
		defer delete(d.inside, n)
	}
	if len(d.inside) > 0 {
		if d.expanded++; d.expanded > maxExpanded {
			d.stopped = true
			d.wrong(key, use, at, "the aliases of this file expand to more than %d values: write out what is meant", maxExpanded)
			return
		}
	}
	if d.f.view != nil && d.f.broken[n] {
		return // a string whose variables have no values
	}
	t := v.Type()
	switch tag := n.ShortTag(); {
	case n.Style&yaml.TaggedStyle != 0 && tag != "!!str":
		d.wrong(key, use, at, "the tag %q is not supported: remove it", tag)
		return
	case n.Kind == yaml.ScalarNode && tag == "!!null":
		if key == nil {
			d.wrong(key, use, at, "an item is empty (null): give it a value, or remove it")
		} else {
			d.wrong(key, use, at, "is empty (null): give it a value, or remove the key")
		}
		return
	}
	if t.Kind() == reflect.Pointer {
		v.Set(reflect.New(t.Elem()))
		v, t = v.Elem(), t.Elem()
	}
	either := t == reflect.TypeFor[field.URL]() && n.Kind == yaml.MappingNode // as text, or a reference
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok && !either {
		d.text(key, use, n, u, t, at)
		return
	}
	mismatch := func() { d.wrong(key, use, at, "expected %s, found %s", expected(t), foundFor(n, t)) }
	switch t.Kind() {
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			if t == reflect.TypeFor[field.SecretRef]() {
				d.f.conceal(n)
				d.wrong(key, use, at, "expected a reference like {file: PATH}, {credential: NAME} or {env: NAME}, found %s: a secret itself must not stand in this file", found(n))
				return
			}
			mismatch()
			return
		}
		d.mapping(key, n, v, at)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			mismatch()
			return
		}
		v.Set(reflect.MakeMap(t))
		d.pairs(n, at, func(k, value *yaml.Node) {
			elem := reflect.New(t.Elem()).Elem()
			d.value(k, value, elem, join(at, target(k).Value))
			v.SetMapIndex(reflect.ValueOf(target(k).Value), elem)
		})
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			mismatch()
			return
		}
		if t == reflect.TypeFor[templates]() {
			return
		}
		// A broken item keeps its place, so that the index of each item is the file's.
		v.Set(reflect.MakeSlice(t, len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			d.value(nil, item, v.Index(i), join(at, i))
		}
	case reflect.String:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
			mismatch()
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			mismatch()
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || v.OverflowInt(i) {
			mismatch()
			return
		}
		v.SetInt(i)
	default:
		panic(fmt.Sprintf("config: the schema has a field of type %s, which cannot be read", t))
	}
}

// text reads a scalar by its type's own rule.
func (d *decoder) text(key, use, n *yaml.Node, u encoding.TextUnmarshaler, t reflect.Type, at []any) {
	tag := n.ShortTag()
	number := tag == "!!int" || tag == "!!float"
	if n.Kind != yaml.ScalarNode || tag != "!!str" && !(number && t == reflect.TypeFor[field.Duration]()) &&
		!(tag == "!!timestamp" && t == reflect.TypeFor[instant]()) {
		what := found(n)
		if number {
			what += " without quotes"
		}
		d.wrong(key, use, at, "expected %s, found %s", expected(t), what)
		return
	}
	if err := u.UnmarshalText([]byte(n.Value)); err != nil {
		d.wrong(key, use, at, "%s", err)
	}
}

// mapping fills a struct.
func (d *decoder) mapping(parent, n *yaml.Node, v reflect.Value, at []any) {
	fields := map[string]reflect.Value{}
	keys(v, fields)
	secret := v.Type() == reflect.TypeFor[field.SecretRef]() || v.Type() == reflect.TypeFor[field.URL]()
	d.pairs(n, at, func(k, value *yaml.Node) {
		name := target(k).Value
		to, ok := fields[name]
		if !ok {
			d.f.conceal(value)
			d.f.mistaken[n] = true
			known := make([]string, 0, len(fields))
			for key := range fields {
				known = append(known, key)
			}
			slices.Sort(known)
			hint := " (known here: " + strings.Join(known, ", ") + ")"
			if near := nearest(name, known); near != "" {
				d.f.missed[missedKey{n, near}] = true
				hint = fmt.Sprintf(" (did you mean %q?)", near)
			}
			d.errorf(nil, k, at, "unknown key %q%s", name, hint)
			return
		}
		if secret && target(value).Kind == yaml.ScalarNode && strings.HasPrefix(target(value).Value, "sgpt_") {
			d.f.conceal(target(value))
			d.wrong(k, value, join(at, name), "looks like a token itself: a secret must not stand in this file, only where it is found (revoke this one)")
			return
		}
		if secret && name == "env" && !envName.MatchString(target(value).Value) {
			d.f.conceal(target(value)) // who knows what it is
		}
		d.value(k, value, to, join(at, name))
	})
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// pairs calls f for every key that is text and stands in the mapping for the first time.
func (d *decoder) pairs(n *yaml.Node, at []any, f func(k, value *yaml.Node)) {
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		switch name := target(k); {
		case name.Kind != yaml.ScalarNode:
			d.errorf(nil, k, at, "expected a key, found %s", found(name))
		case name.ShortTag() == "!!merge":
			d.errorf(nil, k, at, "\"<<\" (merging) is not supported: say it under defaults, or write it out")
		case first[name.Value] > 0:
			d.f.conceal(value)
			d.errorf(nil, k, at, "%q is given twice: first on line %d", name.Value, first[name.Value])
		default:
			first[name.Value] = k.Line
			f(k, value)
		}
	}
}

// keys collects the fields of a struct, also of those inlined into it, by their keys in YAML.
func keys(v reflect.Value, into map[string]reflect.Value) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case slices.Contains(strings.Split(opts, ","), "inline"):
			keys(v.Field(i), into)
		case !f.IsExported() || name == "-":
		default:
			into[cmp.Or(name, strings.ToLower(f.Name))] = v.Field(i)
		}
	}
}

func join(at []any, step any) []any { return append(slices.Clip(at), step) }

// expected names a type as people would.
func expected(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[field.Duration]():
		return "a duration like 90s, 36h or 7d"
	case t == reflect.TypeFor[field.URL]():
		return "a URL, or a reference to one like {file: PATH}"
	case t == reflect.TypeFor[instant]():
		return "an instant like 2027-01-31 or 2027-01-31T08:00:00Z"
	case t == reflect.TypeFor[field.Mode]():
		return `a file mode in quotes, like "0640"`
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return "a list of strings"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Struct, reflect.Map:
		return "a mapping"
	}
	return "text"
}

// found names what stands in the file.
func found(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing (null)"
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "a number"
	case "!!timestamp":
		return "a date"
	}
	return "text"
}

// foundFor adds the way out where it is a matter of writing.
func foundFor(n *yaml.Node, t reflect.Type) string {
	what := found(n)
	switch {
	case t.Kind() == reflect.String && n.Kind == yaml.ScalarNode:
		what += " (put it in quotes)"
	case t.Kind() == reflect.String && n.Kind == yaml.MappingNode && len(n.Content) == 2 && n.Style&yaml.FlowStyle != 0 && n.Content[1].ShortTag() == "!!null":
		what += fmt.Sprintf(" (a variable stands in quotes: \"{%s}\")", n.Content[0].Value)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String && n.Kind == yaml.ScalarNode:
		what += " (write even a single one as a list: [one])"
	case t.Kind() == reflect.Int && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str":
		what += " (remove the quotes)"
		if _, err := strconv.Atoi(n.Value); err != nil {
			what = "text"
		}
	}
	return what
}

// nearest returns the one of known that s was probably meant to be, or "".
func nearest(s string, known []string) string {
	if near := field.Nearest(strings.ToLower(strings.ReplaceAll(s, "-", "_")), known); near != "" {
		return near
	}
	for _, k := range known { // chatbots for chatbot_ids
		same := 0
		for same < min(len(s), len(k)) && s[same] == k[same] {
			same++
		}
		if same >= max(4, len(s)-2) {
			return k
		}
	}
	return ""
}
