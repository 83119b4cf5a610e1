package main

import (
	"bufio"
	"fmt"
	"strings"
	"unicode"
)

// markdown writes a document. What goes wrong with the writing shows when it is flushed.
type markdown struct{ w *bufio.Writer }

func (m *markdown) line(format string, args ...any) { fmt.Fprintf(m.w, format+"\n", args...) }

// row writes cells of a table, escaped.
func (m *markdown) row(cells ...string) {
	for _, c := range cells {
		fmt.Fprintf(m.w, "| %s ", strings.TrimSpace(escape(c)))
	}
	m.line("|")
}

func (m *markdown) head(cells ...string) {
	m.row(cells...)
	m.line("%s|", strings.Repeat("|---", len(cells)))
}

// escape takes the meaning from whatever Markdown would see in a text, and the lines.
func escape(text string) string {
	var b strings.Builder
	before := ' '
	runes := []rune(text)
	for i, r := range runes {
		word := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			r = ' '
		case unicode.IsControl(r) || unicode.In(r, unicode.Cf): // it could hide or reorder what stands beside it
			r = unicode.ReplacementChar
		case r == '&':
			b.WriteString("&amp;")
			continue
		case strings.ContainsRune("\\`*|<>[]~", r), r == '_' && !(word(before) && i+1 < len(runes) && word(runes[i+1])):
			b.WriteByte('\\')
		}
		b.WriteRune(r)
		before = r
	}
	return b.String()
}

// maxValue is how much of a value a comment shows.
const maxValue = 300

// code is a value as a code span, which ends only where it should. In the table stand names alone, which
// have no bar.
func code(s string) string {
	s = plain(s)
	if r := []rune(s); len(r) > maxValue {
		s = string(r[:maxValue]) + "…"
	}
	if strings.TrimSpace(s) == "" {
		return "(empty)"
	}
	fence := "`"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") {
		s = " " + s + " "
	}
	return fence + s + fence
}
