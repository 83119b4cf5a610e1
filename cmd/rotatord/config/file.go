package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/rotatord/rotatord/rotator/field"
)

// maxSize is far more than any list of tokens needs: a larger file is another file.
const maxSize = 4 << 20

// maxSource is how many characters of a line a problem shows.
const maxSource = 1000

// file is one YAML file and what is known of its places.
type file struct {
	name  string // as problems name it
	dir   string // what its relative paths start from
	lines []string
	root  *yaml.Node // the top mapping; nil where the text has none
	empty bool       // the text says nothing at all

	hide     map[int][]span      // by line: what is not shown
	runes    map[int][]rune      // lines, by their characters
	shown    map[int][]rune      // and as they may be shown
	broken   map[*yaml.Node]bool // values that are wrong in themselves
	missed   map[missedKey]bool  // keys that an unknown key was probably meant to be
	mistaken map[*yaml.Node]bool // mappings with an unknown key
	problems []Problem

	view *view // what a set makes of one row; nil: the file as it is written
}

type missedKey struct {
	mapping *yaml.Node
	key     string
}

// parse reads the text up to its tree, and keeps what is wrong with it as text.
func parse(name, dir string, text []byte) *file {
	if whole, err := filepath.Abs(dir); err == nil {
		dir = whole // the place of a sink is the key of its state, wherever we were started
	}
	f := &file{
		name: name, dir: dir,
		hide:     map[int][]span{},
		runes:    map[int][]rune{},
		shown:    map[int][]rune{},
		broken:   map[*yaml.Node]bool{},
		missed:   map[missedKey]bool{},
		mistaken: map[*yaml.Node]bool{},
	}
	whole := func(format string, args ...any) *file {
		f.problems = append(f.problems, Problem{File: name, Severity: Error, Message: fmt.Sprintf(format, args...)})
		return f
	}
	if len(text) > maxSize {
		return whole("is larger than %d MiB: this is no rotation.yaml", maxSize>>20)
	}
	if bytes.HasPrefix(text, []byte{0xff, 0xfe}) || bytes.HasPrefix(text, []byte{0xfe, 0xff}) {
		return whole("is written in UTF-16: save it as UTF-8")
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors mark UTF-8 with it
	f.lines = breaks.Split(strings.ToValidUTF8(string(text), "\ufffd"), -1)
	if at, what := odd(text); at >= 0 {
		before := breaks.Split(string(text[:at]), -1)
		f.at(len(before), utf8.RuneCountInString(before[len(before)-1])+1, "%s", what)
		return f
	}
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		return whole("%v", err)
	}
	var doc yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF) || err == nil && empty(&doc):
		f.empty = true
		return whole("is empty: it needs at least \"version: 1\" and a list of tokens")
	case err != nil:
		f.syntax(err)
		return f
	}
	for {
		var more yaml.Node
		err := loader.Load(&more)
		switch {
		case err == nil && empty(&more):
			continue // a --- after the last line begins a document, too
		case err == nil:
			f.at(more.Line, more.Column, "a second document begins here: only one is read, so everything must stand in the first")
		case !errors.Is(err, io.EOF):
			f.syntax(err)
		}
		break
	}
	f.root = doc.Content[0]
	if f.root.Kind != yaml.MappingNode {
		f.at(f.root.Line, f.root.Column, "expected a mapping with version and tokens at the top, found %s", found(f.root))
		f.root = nil
	}
	return f
}

// breaks is what ends a line for YAML: more than for most editors, but positions must agree.
var breaks = regexp.MustCompile("\r\n|[\n\r\u0085\u2028\u2029]")

func empty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].ShortTag() == "!!null"
}

// odd returns the place of the first byte that no text file has, or -1.
func odd(text []byte) (at int, what string) {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return i, fmt.Sprintf("the byte 0x%02X is no UTF-8: save the file as UTF-8", text[i])
		case r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f:
			return i, fmt.Sprintf("the control character U+%04X does not belong into a text file", r)
		}
		i += n
	}
	return -1, ""
}

// syntax adds what the parser stumbled over: always one thing, since it cannot go on.
func (f *file) syntax(err error) {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		f.problems = append(f.problems, Problem{File: f.name, Severity: Error, Message: err.Error()})
		return
	}
	line, column := e.Mark.Line, e.Mark.Column
	if n := len(f.lines); e.ContextMark.Line > 0 && (line > n || line == n && f.lines[n-1] == "") { // at the end of the file: what was left open says more
		line, column = e.ContextMark.Line, e.ContextMark.Column
	}
	line = min(max(line, 1), len(f.lines))
	text := f.lines[line-1]
	column = min(max(column, 1), utf8.RuneCountInString(text)+1)
	indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
	what := e.Message
	rest := ""
	if r := []rune(text); column <= len(r) {
		rest = string(r[column-1:])
	}
	switch {
	case unquoted.MatchString(text) && line == e.Mark.Line:
		column = utf8.RuneCountInString(text[:unquoted.FindStringSubmatchIndex(text)[2]]) + 1
		what = "a value that begins with a variable must be in quotes"
	case strings.Contains(indent, "\t"):
		column = strings.Index(indent, "\t") + 1
		what = "a tab: YAML is indented with blanks only"
	case strings.HasPrefix(what, "found character that cannot start"):
		what = fmt.Sprintf("a value cannot begin with %q: put it in quotes", firstRune(rest))
	case strings.HasPrefix(what, "mapping values are not allowed"):
		what = "a colon is not expected here: is the indentation right, and are values with a colon in quotes?"
	case strings.HasPrefix(what, "unknown anchor"):
		what = "this alias has no anchor before it (a value that begins with * must be in quotes)"
	case e.ContextMsg == "while scanning an alias":
		what = "a value that begins with * must be in quotes"
	case e.ContextMsg == "while scanning an anchor":
		what = "a value that begins with & must be in quotes"
	case strings.HasPrefix(what, "did not find expected ',' or") && inside.MatchString(rest):
		what = "within brackets, a value with a variable must be in quotes"
	case strings.HasPrefix(what, "did not find expected ',' or"):
		what = fmt.Sprintf("expected a comma, or the end of what is opened on line %d: is a bracket missing?", e.ContextMark.Line)
	case strings.HasPrefix(what, "did not find expected node content"):
		what = "a value is missing here, or a bracket that closes what was opened before"
	case strings.HasPrefix(what, "did not find expected key"):
		what = "expected a key: is the indentation right?"
	case strings.HasPrefix(what, "did not find expected '-'"):
		what = "expected a list item, beginning with \"- \": is the indentation right?"
	case strings.HasPrefix(what, "could not find expected ':'"):
		what = "a key without a colon: write it as \"key: value\""
	case strings.HasPrefix(what, "found unexpected end of stream"):
		what = "a quote that begins here is never closed"
	case e.ContextMsg != "":
		what = e.ContextMsg + ": " + what
	}
	f.at(line, column, "no valid YAML: %s", what)
}

// unquoted finds {key}-bot, which YAML takes for a mapping and something behind it.
var unquoted = regexp.MustCompile(`(?:[:,\[]|^\s*-) +(\{[a-z][a-z0-9_]*\}[^\s,}\]])`)

// inside finds what is left of bot-{key} where the parser stumbles over it.
var inside = regexp.MustCompile(`^\{[a-z][a-z0-9_]*\}`)

func firstRune(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return ""
	}
	return string(r)
}

// at adds an error at a position.
func (f *file) at(line, column int, format string, args ...any) {
	f.problems = append(f.problems, Problem{
		File: f.name, Line: line, Column: column, Severity: Error,
		Message: mask(fmt.Sprintf(format, args...)),
	})
}

// characters returns a line by its characters: a file that a program wrote may be a single line, in
// which many things are wrong.
func (f *file) characters(line int) []rune {
	r, ok := f.runes[line]
	if !ok {
		r = []rune(f.lines[line-1])
		f.runes[line] = r
	}
	return r
}

// source returns a line as it may be shown: as wide as it is, so that columns stay right. Of a very
// long one it returns what is around a column, and the column that this begins at.
func (f *file) source(line, column int) (text string, from int) {
	if line < 1 || line > len(f.lines) {
		return "", 0
	}
	r, ok := f.shown[line]
	if !ok {
		r = slices.Clone(f.characters(line))
		for _, hidden := range f.hide[line] {
			for i := hidden.from; i < min(hidden.to, len(r)); i++ {
				if r[i] != '\t' {
					r[i] = '*'
				}
			}
		}
		r = []rune(mask(string(r)))
		f.shown[line] = r
	}
	if len(r) <= maxSource {
		return string(r), 0
	}
	at := min(max(0, column-1-maxSource/2), len(r)-maxSource)
	return string(r[at : at+maxSource]), at + 1
}

// span is a part of a line, in characters from 0.
type span struct{ from, to int }

// conceal keeps a value's scalars out of every excerpt: what a key that we do not know holds, or
// what stands where a secret is meant, may be one.
func (f *file) conceal(n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			f.conceal(n.Content[i])
		}
		return
	case yaml.SequenceNode:
		for _, item := range n.Content {
			f.conceal(item)
		}
		return
	case yaml.AliasNode:
		return // its name is no secret
	}
	if n.Line < 1 || n.Line > len(f.lines) {
		return
	}
	r := f.characters(n.Line)
	from, to := n.Column-1, len(r) // where the end is not found, to the line's
	width := utf8.RuneCountInString(n.Value)
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		width += 2
	}
	// A scalar without escapes on one line is as wide as its value; its end shows that it is one.
	if end := from + width; end <= len(r) && from >= 0 && strings.Contains(string(r[from:end]), n.Value) {
		to = end
	}
	f.hide[n.Line] = append(f.hide[n.Line], span{max(from, 0), to})
}

// concealWebhook keeps what may hold a key out of every excerpt: the URL of a block, and its headers.
func (f *file) concealWebhook(path ...any) {
	for _, key := range []string{"url", "headers"} {
		l := f.locate(join(path, key))
		if len(l.rest) == 0 && (l.node.Kind != yaml.MappingNode || key == "headers") {
			f.conceal(l.node)
		}
	}
}

// report adds a problem that was found at a path, unless it only follows from another one.
func (f *file) report(p field.Problem) {
	l := f.locate(p.Path)
	if f.follows(l, p) {
		return
	}
	out := Problem{File: f.name, Severity: Error, Message: mask(p.Text)}
	if p.Warning {
		out.Severity = Warning
	}
	out.Line, out.Column = l.position()
	out.Path, out.Where = f.told(p.Path, p.Text)
	f.problems = append(f.problems, out)
}

// follows reports whether a problem comes only from one that was told already: a value that could
// not be read, or a key that is missing because it is misspelt.
func (f *file) follows(l location, p field.Problem) bool {
	for _, n := range l.trail {
		if f.broken[n] {
			return true
		}
	}
	if len(l.rest) > 0 {
		key, ok := l.rest[0].(string)
		return ok && f.missed[missedKey{l.node, key}]
	}
	return !p.Warning && f.mistaken[l.node] || f.holdsBroken(l.node, 0)
}

// holdsBroken looks for a value that could not be read in the block that is complained about.
func (f *file) holdsBroken(n *yaml.Node, depth int) bool {
	if n == nil || depth > 2 || len(f.broken) == 0 {
		return false
	}
	n = target(n)
	if f.broken[n] {
		return true
	}
	if depth == 2 || len(n.Content) > 64 {
		return false
	}
	for _, c := range n.Content {
		if f.holdsBroken(c, depth+1) {
			return true
		}
	}
	return false
}

// location is where a path leads to.
type location struct {
	key   *yaml.Node   // the key before the value; nil for the top and for list items
	value *yaml.Node   // as it stands there: perhaps an alias
	node  *yaml.Node   // what it means
	rest  []any        // what of the path is missing in the file
	trail []*yaml.Node // the nodes on the way
}

// locate follows a path as far as the file has it.
func (f *file) locate(path []any) location {
	l := location{value: f.root, node: f.root, rest: path}
	if f.root == nil {
		return l
	}
	l.trail = append(l.trail, f.root)
	for len(l.rest) > 0 {
		key, value := child(l.node, l.rest[0])
		if value == nil {
			break
		}
		l.key, l.value, l.node, l.rest = key, value, target(value), l.rest[1:]
		l.trail = append(l.trail, l.node)
	}
	return l
}

// has reports whether the file says something at a path, right or wrong.
func (f *file) has(path ...any) bool {
	return f.root != nil && len(f.locate(path).rest) == 0
}

// sound reports whether what a path leads to is there and could be read.
func (f *file) sound(path ...any) bool {
	l := f.locate(path)
	return len(l.rest) == 0 && !f.holdsBroken(l.node, 0)
}

// position returns the line and column that show the problem best: of a value that stands in one
// place, the value; of a block, of nothing, and of what is missing, the key that it belongs to.
func (l location) position() (line, column int) {
	n := l.value
	switch {
	case n == nil:
		return 0, 0
	case l.key != nil && (len(l.rest) > 0 || spread(n)):
		n = l.key
	}
	return n.Line, n.Column
}

// spread reports whether a value's own position would show its first part only.
func spread(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.MappingNode, yaml.SequenceNode:
		return n.Style&yaml.FlowStyle == 0
	case yaml.ScalarNode:
		return n.Value == "" && n.ShortTag() == "!!null"
	}
	return false
}

// target follows aliases.
func target(n *yaml.Node) *yaml.Node {
	for range 100 {
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			break
		}
		n = n.Alias
	}
	return n
}

// child returns one step of a path; nil where n has no such child.
func child(n *yaml.Node, step any) (key, value *yaml.Node) {
	switch s := step.(type) {
	case string:
		if n.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(n.Content); i += 2 {
				if k := target(n.Content[i]); k.Kind == yaml.ScalarNode && k.Value == s {
					return n.Content[i], n.Content[i+1]
				}
			}
		}
	case int:
		if n.Kind == yaml.SequenceNode && s >= 0 && s < len(n.Content) {
			return nil, n.Content[s]
		}
	}
	return nil, nil
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// told is describe for a problem's own place: a view's are told at the template.
func (f *file) told(path []any, text string) (exact, where string) {
	if f.view != nil {
		f = f.view.base
	}
	return f.describe(path, text)
}

// describe writes a path for programs, and for people with the names of the items on the way. An
// item that the text begins with needs no index.
func (f *file) describe(path []any, text string) (exact, where string) {
	n := f.root
	for i, step := range path {
		if n != nil {
			_, n = child(n, step)
		}
		if n != nil {
			n = target(n)
		}
		switch s := step.(type) {
		case string:
			if !plainKey.MatchString(s) {
				s = fmt.Sprintf("%q", s)
			}
			if exact != "" {
				exact += "."
			}
			if where != "" && !strings.HasSuffix(where, ": ") {
				where += "."
			}
			exact += s
			where += s
		case int:
			exact += fmt.Sprintf("[%d]", s)
			if i == len(path)-1 && n != nil && n.Kind == yaml.ScalarNode && strings.HasPrefix(text, strconv.Quote(n.Value)) {
				break
			}
			where += fmt.Sprintf("[%d]", s)
			if n == nil {
				break
			}
			if _, name := child(n, "name"); name != nil && target(name).Kind == yaml.ScalarNode && target(name).Value != "" {
				where += fmt.Sprintf(" %q: ", target(name).Value)
			}
		}
	}
	return exact, mask(strings.TrimSuffix(where, ": "))
}
