package envfile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const bom = "\ufeff"

// span is one assignment of our key: whole lines, from the start of the first to the newline of the
// last.
type span struct {
	start, end int
	value      string // as this reader sees it
	export     bool   // written with export
	hidden     bool   // some versions of the reader do not see it
}

// scan is how one reader sees a file.
type scan struct {
	spans []span
	after ending
	open  int // after unclosed: where the text begins that is not closed
}

// ending is what would become of a line that is appended to the file.
type ending int

const (
	fresh    ending = iota // it is a line of its own
	joined                 // it is swallowed by the last line; a blank line in between prevents that
	unclosed               // it is part of a value that is not closed
)

// reader finds the assignments of key in text.
type reader func(text, key string) (scan, error)

// readers returns who has to see the same.
func (f Format) readers() []reader {
	switch f {
	case Systemd:
		return []reader{systemd, systemdOld}
	case Docker:
		return []reader{docker}
	case Shell:
		return []reader{shell}
	}
	return []reader{docker, systemd, systemdOld, shell}
}

// look reads text as all readers of the format do, who must agree on where the key is.
func look(f Format, text, key string) (scan, error) {
	s, err := agree(f, text, key)
	if err != nil && f == Portable {
		return scan{}, fmt.Errorf("%w; mend the line, or set format to the only reader of this file (systemd, docker or shell)", err)
	}
	return s, err
}

func agree(f Format, text, key string) (scan, error) {
	if i := strings.IndexByte(text, 0); i >= 0 {
		return scan{}, fmt.Errorf("line %d holds a NUL character: this is no env file", lineOf(text, i))
	}
	if f != Docker && strings.HasPrefix(text, bom) && assigns(text[len(bom):], key) {
		return scan{}, fmt.Errorf("line 1 sets %s after a byte-order mark, which hides it: save the file without the mark", key)
	}
	if i := loneCR(text); f == Portable && i >= 0 {
		return scan{}, fmt.Errorf("line %d holds a carriage return, which ends a line for some readers only", lineOf(text, i))
	}
	var s scan
	for i, read := range f.readers() {
		other, err := read(text, key)
		if err != nil {
			return scan{}, err
		}
		if i == 0 {
			s = other
			continue
		}
		if err := s.merge(other, text, key); err != nil {
			return scan{}, err
		}
	}
	return s, nil
}

// merge adds what another reader sees.
func (s *scan) merge(other scan, text, key string) error {
	differ := func(at int) error {
		return fmt.Errorf("line %d sets %s for some readers only, because of the lines around it or how it is written", lineOf(text, at), key)
	}
	find := func(list []span, x span) int {
		return slices.IndexFunc(list, func(y span) bool { return x.start == y.start && x.end == y.end })
	}
	for _, x := range other.spans {
		if find(s.spans, x) < 0 {
			return differ(x.start)
		}
	}
	for i := range s.spans {
		x := &s.spans[i]
		j := find(other.spans, *x)
		switch {
		case j >= 0:
			if plain.MatchString(x.value) { // what differs from a portable value is what one wants to know
				x.value = other.spans[j].value
			}
		case afterComment(text[:x.start]):
			x.hidden = true
		default:
			return differ(x.start)
		}
	}
	if other.after > s.after {
		s.after, s.open = other.after, other.open
	}
	return nil
}

// afterComment: does before end in a comment that ends in a backslash?
func afterComment(before string) bool {
	line := before[strings.LastIndexAny(strings.TrimRight(before, "\r\n"), "\r\n")+1:]
	line = strings.Trim(line, " \t\r\n")
	return line != "" && strings.ContainsRune("#;", rune(line[0])) && strings.HasSuffix(line, `\`)
}

// lookup returns the value of key, "" where it has none.
func lookup(f Format, text, key string) (string, error) {
	s, err := look(f, text, key)
	if err != nil || len(s.spans) == 0 {
		return "", err
	}
	last := s.spans[len(s.spans)-1]
	if last.hidden && strings.HasPrefix(last.value, "sgpt_") {
		return "", nil // not every version of the reader sees it: it has to be pushed again
	}
	return last.value, nil
}

// edit returns text with key set to value: the last line for key replaced, those before it removed,
// or a line appended. All other bytes stay; a newline may be added in front of the line. The result
// was read again, and found right. Errors tell no value.
func edit(f Format, text, key, value string) (string, error) {
	written, err := encode(f, value)
	if err != nil {
		return "", err
	}
	s, err := look(f, text, key)
	if err != nil {
		return "", err
	}
	if len(s.spans) == 1 && !s.spans[0].hidden && s.spans[0].value == value {
		return text, nil
	}
	line := key + "=" + written + "\n"
	var out strings.Builder
	at := 0
	for i, x := range s.spans {
		out.WriteString(text[at:x.start])
		at = x.end
		if x.hidden {
			out.WriteString("\n") // what ends the comment above
		}
		if i < len(s.spans)-1 {
			continue
		}
		if x.export {
			line = "export " + line
		}
		out.WriteString(line)
	}
	out.WriteString(text[at:])
	if len(s.spans) == 0 {
		if s.after == unclosed {
			return "", fmt.Errorf("line %d begins something (a quote, say) that is never closed, and would swallow %s", lineOf(text, s.open), key)
		}
		if text == bom && f != Docker || text != "" && text != bom && !strings.HasSuffix(text, "\n") {
			out.WriteString("\n")
		}
		if s.after == joined {
			out.WriteString("\n")
		}
		out.WriteString(line)
	}
	return out.String(), proof(f, out.String(), key, value)
}

// proof reads what is about to be written.
func proof(f Format, text, key, value string) error {
	s, err := look(f, text, key)
	if err != nil {
		return err
	}
	if len(s.spans) != 1 || s.spans[0].hidden || s.spans[0].value != value {
		return fmt.Errorf("its readers would not see %s as it was written: the lines around it are too unusual for format %s", key, f)
	}
	return nil
}

// plain is a value that every reader takes as it stands.
var plain = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,=^-]*$`)

// encode writes value so that the format's reader sees it, or says which kind of character it
// cannot hold.
func encode(f Format, value string) (string, error) {
	if plain.MatchString(value) {
		return value, nil
	}
	refuse := func(what string) (string, error) {
		return "", fmt.Errorf("the value holds %s, which format %s cannot hold", what, f)
	}
	switch {
	case !utf8.ValidString(value):
		return refuse("bytes that are no UTF-8")
	case hasControl(value):
		return refuse("a newline or another control character")
	case f == Shell:
		return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'", nil
	case f == Systemd:
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`).Replace(value) + `"`, nil
	case strings.Contains(value, " "):
		return refuse("a blank")
	case strings.ContainsFunc(value, func(r rune) bool { return r > 0x7e }):
		return refuse("a character beyond ASCII")
	case strings.ContainsAny(value, "'\"`"):
		return refuse("a quote")
	}
	return refuse("punctuation other than _ . / : @ % + , = ^ -")
}

// assigns: does text begin with an assignment of key, of whatever reader?
func assigns(text, key string) bool {
	text = strings.TrimLeft(text, " \t")
	if rest, ok := strings.CutPrefix(text, "export"); ok && strings.TrimLeft(rest, " \t") != rest {
		text = strings.TrimLeft(rest, " \t")
	}
	rest, ok := strings.CutPrefix(text, key)
	return ok && strings.HasPrefix(strings.TrimLeft(rest, " \t"), "=")
}

func loneCR(text string) int {
	for i := range len(text) {
		if text[i] == '\r' && (i+1 == len(text) || text[i+1] != '\n') {
			return i
		}
	}
	return -1
}

// lineOf is the number of the line that holds text[at].
func lineOf(text string, at int) int {
	return 1 + strings.Count(text[:min(at, len(text))], "\n")
}
