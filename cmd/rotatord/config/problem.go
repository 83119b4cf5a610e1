package config

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// Severity tells what is wrong from what is doubtful.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // the configuration is refused
	Warning Severity = "warning" // it is accepted
)

// Problem is one thing that is wrong, or doubtful, at one place of a file.
type Problem struct {
	File     string   `json:"file"`             // as it was named to Load
	Line     int      `json:"line,omitempty"`   // from 1; 0 where the file as a whole is meant
	Column   int      `json:"column,omitempty"` // from 1, in characters
	Path     string   `json:"path,omitempty"`   // for programs: tokens[2].scopes[0]
	Where    string   `json:"where,omitempty"`  // for people: tokens[2] "kb-writer": scopes
	Message  string   `json:"message"`
	Severity Severity `json:"severity"`
	Rows     []string `json:"rows,omitempty"`   // of a set, that have it
	Source   string   `json:"source,omitempty"` // the line, without what may be a secret

	SourceFrom int `json:"source_from,omitempty"` // the column that it begins at, of a line too long to be shown whole
}

// Problems is all that is wrong or doubtful, in the order of the files and their lines.
type Problems []Problem

// Errors returns how many of the problems refuse the configuration.
func (p Problems) Errors() int {
	n := 0
	for i := range p {
		if p[i].Severity == Error {
			n++
		}
	}
	return n
}

// Warnings returns how many of the problems leave it accepted.
func (p Problems) Warnings() int { return len(p) - p.Errors() }

// WriteText writes every problem as Problem.String shows it.
func (p Problems) WriteText(w io.Writer) error {
	for i := range p {
		if _, err := io.WriteString(w, p[i].String()); err != nil {
			return err
		}
	}
	return nil
}

// String is the problem as people read it: one line that says where and what, then the line of
// the file and a caret below the place. It ends in a line feed.
func (p Problem) String() string {
	var b strings.Builder
	if p.Severity == Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Where != "" {
		b.WriteString(p.Where + ": ")
	}
	b.WriteString(p.Message + "\n")
	if p.Line > 0 && strings.TrimSpace(p.Source) != "" {
		line, caret := excerpt(p.Source, p.Column-max(p.SourceFrom-1, 0))
		b.WriteString(line + "\n" + caret + "\n")
	}
	return b.String()
}

// maxExcerpt is how many characters of a long line are shown.
const maxExcerpt = 140

// excerpt returns the part of a line around a column, and a line with a caret that stands below
// that column on a terminal: tabs are kept, and wide characters take two cells.
func excerpt(source string, column int) (line, caret string) {
	r := []rune(source)
	at := min(max(column-1, 0), len(r))
	from, to := 0, len(r)
	if to > maxExcerpt {
		from = max(0, min(at-maxExcerpt/2, len(r)-maxExcerpt))
		to = from + maxExcerpt
	}
	var a, c strings.Builder
	if from > 0 {
		a.WriteString("…")
		c.WriteString(" ")
	}
	for i, x := range r[from:to] {
		a.WriteRune(x)
		if from+i >= at {
			continue
		}
		switch {
		case x == '\t':
			c.WriteRune('\t')
		case unicode.In(x, unicode.Mn, unicode.Me): // drawn over the character before it
		case slices.Contains([]width.Kind{width.EastAsianWide, width.EastAsianFullwidth}, width.LookupRune(x).Kind()):
			c.WriteString("  ")
		default:
			c.WriteRune(' ')
		}
	}
	if to < len(r) {
		a.WriteString("…")
	}
	return strings.TrimRightFunc(a.String(), unicode.IsSpace), c.String() + "^"
}

// secretShape finds what may be a plaintext (a token of SiteGPT or Vault, a password in a URL). It
// is never shown, wherever it was written by mistake.
var secretShape = regexp.MustCompile(`(sgpt_|hv[sbr]\.)[A-Za-z0-9_-]{8,}|(://)[^/@\s"']+@`)

// mask replaces what may be a plaintext by as many asterisks, and characters that a terminal would
// act upon, or that would reorder the line, by a mark. Every column stays where it is.
func mask(s string) string {
	s = secretShape.ReplaceAllStringFunc(s, func(t string) string {
		m := secretShape.FindStringSubmatch(t)
		keep := m[1] + m[2]
		return keep + strings.Repeat("*", utf8.RuneCountInString(t)-len(keep))
	})
	return strings.Map(func(r rune) rune {
		if r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// arrange sorts problems by their place, and drops the repetitions that an alias or a default
// that many tokens share brings about.
func arrange(list []Problem, files []*file) Problems {
	order := make(map[string]int, len(files))
	for i, f := range files {
		order[f.name] = i + 1
	}
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(order[a.File], order[b.File]),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
		)
	})
	type key struct {
		file         string
		line, column int
		message      string
	}
	seen := make(map[key]bool, len(list))
	var out Problems
	for _, p := range list {
		k := key{p.File, p.Line, p.Column, p.Message}
		if !seen[k] {
			seen[k] = true
			out = append(out, p)
		}
	}
	return out
}
