package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/rotatord/rotatord/rotator/field"
)

// rowKey is the variable that every row has: its own name.
const rowKey = "key"

// maxSetNodes bounds what the sets of one file can blow it up to: some thousands of tokens.
const maxSetNodes = 100_000

var variableShape = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// templates are tokens with variables in them. Only with the values of a row they can be read: the
// decoder leaves them alone.
type templates []tokenBlock

// view is what a set makes of its templates with one row. To all checks it is a file like any other,
// in which the tokens of the set stand with the row's values; its problems are told at the templates.
type view struct {
	base   *file
	set    int
	row    string
	line   int
	tokens []tokenBlock
	filled []filled
	last   bool // of its set
}

// filled is one string that variables were replaced in.
type filled struct{ template, with string }

// generic puts the variables back into what is said of the view's tokens.
func (v *view) generic() *strings.Replacer {
	all := slices.Clone(v.filled)
	slices.SortStableFunc(all, func(a, b filled) int { return len(b.with) - len(a.with) }) // the longest first
	var pairs []string
	for _, f := range all {
		pairs = append(pairs, f.with, f.template)
	}
	return strings.NewReplacer(pairs...)
}

// expand reads the sets of one file: it checks rows and templates, and returns a view for each row.
func (f *file) expand(sets []setBlock) []*file {
	d := &decoder{f: f, inside: map[*yaml.Node]bool{}}
	var out []*file
	nodes := 0
	for i := range sets {
		s := set{f: f, index: i, rows: sets[i].ForEach}
		if !s.check() {
			continue
		}
		first := len(out)
		for _, row := range s.order {
			v, n := s.fill(row)
			if nodes += n; nodes > maxSetNodes {
				say(f, func(p field.Problems) {
					p.At("sets", i).Errorf("the sets of this file come to more than %d values: split it", maxSetNodes)
				})
				return out
			}
			d.f = v
			at := []any{"sets", i, "tokens"}
			l := v.locate(at)
			d.value(l.key, l.value, reflect.ValueOf(&v.view.tokens).Elem(), at)
			out = append(out, v)
			if d.stopped {
				f.root = nil // as where the file's own aliases never end
				return out
			}
		}
		if len(out) > first {
			out[len(out)-1].view.last = true
		}
	}
	return out
}

// set is one item of sets.
type set struct {
	f        *file
	index    int
	rows     map[string]map[string]string
	order    []string                // of the rows in the file
	keys     map[string]*yaml.Node   // of the rows
	misnamed map[string]bool         // rows
	same     map[*yaml.Node]bool     // names without a variable
	uses     map[string][]*yaml.Node // variable: the strings that it is used in
}

func (s *set) at(path ...any) []any { return append([]any{"sets", s.index}, path...) }

// check looks for rows and templates that do not fit together. It reports whether there is anything
// to expand.
func (s *set) check() bool {
	s.keys, s.misnamed, s.uses, s.same = map[string]*yaml.Node{}, map[string]bool{}, map[string][]*yaml.Node{}, map[*yaml.Node]bool{}
	f := s.f
	whole := true
	say(f, func(p field.Problems) {
		p = p.At(s.at()...)
		for _, need := range []struct{ key, what string }{
			{"for_each", "give it the rows for which the tokens should exist, like \"for_each: {acme: {bot: cb_1}}\""},
			{"tokens", "list the tokens that each row gets"},
		} {
			l := f.locate(s.at(need.key))
			switch {
			case len(l.rest) > 0:
				p.At(need.key).Errorf("is missing: %s", need.what)
				whole = false
			case f.broken[l.node]:
				whole = false
			case len(l.node.Content) == 0:
				p.At(need.key).Errorf("is empty: %s", need.what)
				whole = false
			}
		}
	})
	if !whole {
		return false
	}
	table := f.locate(s.at("for_each")).node
	for i := 0; i+1 < len(table.Content); i += 2 {
		key := target(table.Content[i])
		if _, read := s.rows[key.Value]; read && s.keys[key.Value] == nil {
			s.keys[key.Value] = table.Content[i]
			s.order = append(s.order, key.Value)
		}
	}
	s.usage(f.locate(s.at("tokens")).node, map[*yaml.Node]bool{})
	s.checkRows()
	s.checkUses()
	s.checkNames()
	return true
}

// usage notes every variable of the templates.
func (s *set) usage(n *yaml.Node, seen map[*yaml.Node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	switch n.Kind {
	case yaml.AliasNode:
		if n.Alias != nil {
			s.usage(n.Alias, seen)
		}
	case yaml.ScalarNode:
		if n.ShortTag() == "!!str" {
			for _, name := range variables(n.Value) {
				if !slices.Contains(s.uses[name], n) {
					s.uses[name] = append(s.uses[name], n)
				}
			}
		}
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			s.usage(n.Content[i], seen)
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			s.usage(item, seen)
		}
	}
}

// columns are the variables that some row gives, with the number of rows that do.
func (s *set) columns() map[string]int {
	out := map[string]int{}
	for _, row := range s.order {
		for name := range s.rows[row] {
			out[name]++
		}
	}
	return out
}

// checkRows looks at the rows by themselves, and for values that no template uses.
func (s *set) checkRows() {
	told := map[string]bool{} // unused variables
	counts := s.columns()
	for _, row := range s.order {
		at := s.at("for_each", row)
		say(s.f, func(p field.Problems) {
			if !wellNamed(p.At(at...), row) {
				s.misnamed[row] = true
			}
			for _, name := range slices.Sorted(maps.Keys(s.rows[row])) {
				p := p.At(append(slices.Clip(at), name)...)
				switch value := s.rows[row][name]; {
				case name == rowKey:
					p.Errorf("%q is the row's own name, %q: call the variable otherwise", rowKey, row)
				case !variableShape.MatchString(name):
					p.Errorf("the name of a variable must consist of a-z, 0-9 and \"_\", and begin with a letter")
				case len(s.uses[name]) == 0:
					if told[name] {
						continue
					}
					told[name] = true
					hint := ""
					if n := counts[name]; n > 1 {
						hint = fmt.Sprintf(", and %d rows give it", n)
					}
					p.Errorf("no token of this set uses {%s}%s: remove it, or use it in one of its strings", name, hint)
				case value == "":
					p.Errorf("is empty: %s needs a value", s.whose(name))
				}
			}
		})
	}
}

// whose names the first template that uses a variable.
func (s *set) whose(name string) string {
	where := s.path(s.uses[name][0])
	_, text := s.f.describe(where, "")
	line := s.uses[name][0].Line
	return fmt.Sprintf("%s (line %d)", text, line)
}

// path returns where a string of the templates stands.
func (s *set) path(n *yaml.Node) []any {
	var find func(from *yaml.Node, at []any, depth int) []any
	find = func(from *yaml.Node, at []any, depth int) []any {
		from = target(from)
		if from == n {
			return at
		}
		if depth == 0 {
			return nil
		}
		switch from.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(from.Content); i += 2 {
				if found := find(from.Content[i+1], join(at, target(from.Content[i]).Value), depth-1); found != nil {
					return found
				}
			}
		case yaml.SequenceNode:
			for i, item := range from.Content {
				if found := find(item, join(at, i), depth-1); found != nil {
					return found
				}
			}
		}
		return nil
	}
	at := s.at("tokens")
	if found := find(s.f.locate(at).node, at, 12); found != nil {
		return found
	}
	return at
}

// checkUses looks for variables of the templates that rows do not give.
func (s *set) checkUses() {
	counts := s.columns()
	for _, name := range slices.Sorted(maps.Keys(s.uses)) {
		if name == rowKey || counts[name] == len(s.order) {
			continue
		}
		var lacking, known []string
		for _, row := range s.order {
			if _, given := s.rows[row][name]; !given {
				if !s.f.holdsBroken(s.f.locate(s.at("for_each", row)).node, 0) {
					lacking = append(lacking, row)
				}
			}
		}
		for other := range counts {
			if other != rowKey && variableShape.MatchString(other) {
				known = append(known, other)
			}
		}
		known = append(known, rowKey)
		slices.Sort(known)
		for _, n := range s.uses[name] {
			say(s.f, func(p field.Problems) {
				p = p.At(s.path(n)...)
				switch {
				case len(lacking) == 0: // told already
				case counts[name] > 0:
					p.Errorf("{%s} has no value in %s: give it one there, or move what uses it to a set of its own", name, s.name(lacking))
				default:
					hint := "the rows have {" + strings.Join(known, "}, {") + "}"
					if near := nearest(name, known); near != "" {
						hint = "did you mean {" + near + "}?"
					}
					p.Errorf("{%s} has no value in any row (%s; a literal {%[1]s} is written \\{%[1]s})", name, hint)
				}
			})
		}
	}
}

// name lists rows with the lines where they stand.
func (s *set) name(rows []string) string {
	var out []string
	for _, row := range rows {
		out = append(out, fmt.Sprintf("%s, line %d", row, s.keys[row].Line))
	}
	return listRows(out, false)
}

// listRows names some rows of many.
func listRows(rows []string, every bool) string {
	const most = 3
	switch n := len(rows); {
	case every && n > 1:
		return "every row"
	case n == 1:
		return "the row " + rows[0]
	case n <= most:
		return "the rows " + strings.Join(rows[:n-1], "; ") + " and " + rows[n-1]
	default:
		return fmt.Sprintf("the rows %s and %d more", strings.Join(rows[:most], "; "), n-most)
	}
}

// checkNames looks for tokens that would bear one name in all rows.
func (s *set) checkNames() {
	list := s.f.locate(s.at("tokens")).node
	for i := range list.Content {
		l := s.f.locate(s.at("tokens", i, "name"))
		if len(l.rest) > 0 || l.node.Kind != yaml.ScalarNode || len(s.order) < 2 || len(variables(l.node.Value)) > 0 {
			continue
		}
		s.same[l.node] = true
		say(s.f, func(p field.Problems) {
			p.At(s.at("tokens", i, "name")...).Errorf("%q would be the name of %d tokens, one for each row: put {key} into it", l.node.Value, len(s.order))
		})
	}
}

// fill returns the view of one row, and how many nodes it has.
func (s *set) fill(row string) (*file, int) {
	v := *s.f
	v.broken, v.missed, v.mistaken = map[*yaml.Node]bool{}, map[missedKey]bool{}, map[*yaml.Node]bool{}
	v.problems = nil
	v.view = &view{base: s.f, set: s.index, row: row, line: s.keys[row].Line}
	whole := true
	value := func(name string) (string, bool) {
		x := s.rows[row][name]
		if name == rowKey {
			if x = row; s.misnamed[row] {
				x = ""
			}
		}
		whole = whole && x != ""
		return x, x != ""
	}
	copies := map[*yaml.Node]*yaml.Node{}
	var clone func(n *yaml.Node) *yaml.Node
	clone = func(n *yaml.Node) *yaml.Node {
		if c := copies[n]; c != nil {
			return c
		}
		c := *n
		copies[n] = &c
		if s.f.broken[n] || s.same[n] {
			v.broken[&c] = true
		}
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
			whole = true
			text := substitute(n.Value, value)
			if !whole { // told already, of the row or of the template
				v.broken[&c] = true
			}
			if text != n.Value {
				c.Value, c.Tag = text, "!!str"
				v.view.filled = append(v.view.filled, filled{n.Value, text})
			}
		}
		if n.Alias != nil {
			c.Alias = clone(n.Alias)
		}
		c.Content = slices.Clone(n.Content)
		for i := range c.Content {
			if n.Kind != yaml.MappingNode || i%2 == 1 { // keys stay as they are
				c.Content[i] = clone(c.Content[i])
			}
		}
		return &c
	}
	// The way down to the set's tokens, beside which nothing is looked at.
	root := *s.f.root
	root.Content = slices.Clone(root.Content)
	sets := step(&root, "sets")
	sets.Content = slices.Clone(sets.Content)
	one := *target(sets.Content[s.index])
	one.Content = slices.Clone(one.Content)
	sets.Content[s.index] = &one
	for i := 0; i+1 < len(one.Content); i += 2 {
		if target(one.Content[i]).Value == "tokens" {
			one.Content[i+1] = clone(target(one.Content[i+1]))
			break
		}
	}
	v.root = &root
	return &v, len(copies)
}

// step replaces the value of a key by a copy of its own, and returns it.
func step(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if target(n.Content[i]).Value == key {
			c := *target(n.Content[i+1])
			n.Content[i+1] = &c
			return &c
		}
	}
	return &yaml.Node{}
}

// pieces cuts a string into literal text and variables. {name} is a variable. A backslash before it
// makes it literal, and two are one backslash. Whatever stands between {{ and }} is left alone: it is
// another template's.
func pieces(s string, text func(string), variable func(name string)) {
	for s != "" {
		at := strings.IndexByte(s, '{')
		if at < 0 {
			text(s)
			return
		}
		if strings.HasPrefix(s[at:], "{{") {
			end := len(s)
			if i := strings.Index(s[at:], "}}"); i >= 0 {
				end = at + i + 2
				for end < len(s) && s[end] == '}' { // {{{x}}}
					end++
				}
			}
			text(s[:end])
			s = s[end:]
			continue
		}
		end := strings.IndexByte(s[at:], '}')
		if end < 0 || !variableShape.MatchString(s[at+1:at+end]) {
			text(s[:at+1])
			s = s[at+1:]
			continue
		}
		end += at
		before := strings.TrimRight(s[:at], `\`)
		slashes := at - len(before)
		text(before + strings.Repeat(`\`, slashes/2))
		if slashes%2 == 1 {
			text(s[at : end+1])
		} else {
			variable(s[at+1 : end])
		}
		s = s[end+1:]
	}
}

// variables returns the names of the variables in a string, in their order.
func variables(s string) []string {
	var out []string
	pieces(s, func(string) {}, func(name string) { out = append(out, name) })
	return out
}

// substitute replaces the variables in a string, and nothing in what they are replaced by.
func substitute(s string, value func(name string) (string, bool)) string {
	var b strings.Builder
	pieces(s, func(text string) { b.WriteString(text) }, func(name string) {
		if v, ok := value(name); ok {
			b.WriteString(v)
		} else {
			b.WriteString("{" + name + "}")
		}
	})
	return b.String()
}

// gather brings the problems of views back to the file where the templates stand: one that many rows
// have is told once, with the rows.
func (k *checker) gather() {
	type key struct {
		set          int
		line, column int
		severity     Severity
		text         string
	}
	type found struct {
		p    Problem
		rows []string
		line int
	}
	type place struct {
		f   *file
		set int
	}
	count := map[place]int{}
	var order []key
	all := map[*file]map[key]*found{}
	flush := func(base *file) {
		for _, at := range order {
			x := all[base][at]
			n := count[place{base, at.set}]
			x.p.Rows = x.rows
			rows := x.rows
			if len(rows) == 1 {
				rows = []string{fmt.Sprintf("%s, line %d", rows[0], x.line)}
			}
			x.p.Message += " (in " + listRows(rows, len(rows) == n) + ")"
			base.problems = append(base.problems, x.p)
		}
		order = nil
	}
	for _, base := range k.files {
		all[base] = map[key]*found{}
		for _, v := range k.views[base] {
			count[place{base, v.view.set}]++
			for _, p := range v.problems {
				at := key{v.view.set, p.Line, p.Column, p.Severity, v.view.general(p.Message)}
				x := all[base][at]
				if x == nil {
					x = &found{p: p, line: v.view.line}
					all[base][at] = x
					order = append(order, at)
				}
				if !slices.Contains(x.rows, v.view.row) {
					x.rows = append(x.rows, v.view.row)
				}
			}
		}
		flush(base)
	}
}

// general is a message as it would be of the templates: two rows with the same mistake say the same.
func (v *view) general(message string) string {
	for _, x := range v.filled {
		message = strings.ReplaceAll(message, strconv.Quote(x.with), strconv.Quote(x.template))
		if short := strings.TrimPrefix(x.with, "./"); len(short) > 3 { // shorter ones are found by chance
			message = strings.ReplaceAll(message, short, x.template)
		}
	}
	return message
}
