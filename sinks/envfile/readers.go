package envfile

import (
	"fmt"
	"strings"
	"unicode"
)

// docker reads text as docker run --env-file does: line by line, without quotes and escapes.
func docker(text, key string) (scan, error) {
	var s scan
	for at := 0; at < len(text); {
		start, end := at, len(text)
		if n := strings.IndexByte(text[at:], '\n'); n >= 0 {
			end = at + n + 1
		}
		at = end
		if start == 0 && strings.HasPrefix(text, bom) {
			start = len(bom)
		}
		line := strings.TrimSuffix(strings.TrimSuffix(text[start:end], "\n"), "\r")
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		name, value, found := strings.Cut(line, "=")
		if !found || strings.HasPrefix(line, "#") {
			continue
		}
		if name == key {
			s.spans = append(s.spans, span{start: start, end: end, value: value})
			continue
		}
		if words := strings.Fields(name); len(words) > 0 && words[len(words)-1] == key {
			if words[0] == "export" {
				return scan{}, fmt.Errorf(`line %d writes "export" before %s, which docker and systemd do not understand: remove the word`, lineOf(text, start), key)
			}
			return scan{}, fmt.Errorf("line %d has blanks around %s, which docker refuses: remove them", lineOf(text, start), key)
		}
	}
	return s, nil
}

// systemd reads text as EnvironmentFile= does since version 254.
func systemd(text, key string) (scan, error) { return systemdVersion(text, key, false), nil }

// systemdOld reads text as versions before 254 do, where a backslash also continues a comment.
func systemdOld(text, key string) (scan, error) { return systemdVersion(text, key, true), nil }

// The states of systemd's reader.
const (
	beforeKey = iota
	inKey
	beforeValue // also after a closing quote
	inValue
	valueEscape
	singleQuoted
	doubleQuoted
	doubleEscape
	inComment
	commentEscape
)

func systemdVersion(text, key string, old bool) scan {
	var s scan
	var name, value []byte
	state, line, start, opened := beforeKey, 0, 0, 0
	solid := 0 // the length of value without the white space at its end
	add := func(c byte, mayEnd bool) {
		value = append(value, c)
		if mayEnd || c != ' ' && c != '\t' {
			solid = len(value)
		}
	}
	push := func(end int) {
		if strings.TrimRight(string(name), " \t") == key {
			s.spans = append(s.spans, span{start: start, end: end, value: string(value[:solid])})
		}
	}
	for i := range len(text) {
		c := text[i]
		newline := c == '\n' || c == '\r'
		blank := newline || c == ' ' || c == '\t'
		end := i + 1
		if c == '\r' && end < len(text) && text[end] == '\n' {
			end++
		}
		switch state {
		case beforeKey:
			switch {
			case newline:
				line = i + 1
			case c == '#' || c == ';':
				state = inComment
			case !blank:
				state, start = inKey, line
				name, value, solid = append(name[:0], c), value[:0], 0
			}
		case inKey:
			switch {
			case newline:
				state, line = beforeKey, i+1
			case c == '=':
				state = beforeValue
			default:
				name = append(name, c)
			}
		case beforeValue, inValue:
			switch {
			case newline:
				push(end)
				state, line = beforeKey, i+1
			case c == '\\':
				state, solid = valueEscape, len(value) // blanks before it are not at the end
			case state == beforeValue && c == '\'':
				state, opened = singleQuoted, i
			case state == beforeValue && c == '"':
				state, opened = doubleQuoted, i
			case state == inValue || !blank:
				state = inValue
				add(c, false)
			}
		case valueEscape:
			state = inValue
			if !newline {
				add(c, true)
			}
		case singleQuoted:
			if c == '\'' {
				state = beforeValue
			} else {
				add(c, true)
			}
		case doubleQuoted:
			switch c {
			case '"':
				state = beforeValue
			case '\\':
				state = doubleEscape
			default:
				add(c, true)
			}
		case doubleEscape:
			state = doubleQuoted
			if strings.IndexByte("\"\\`$", c) < 0 && c != '\n' {
				add('\\', true)
			}
			if c != '\n' {
				add(c, true)
			}
		case inComment:
			switch {
			case c == '\\':
				state = commentEscape
			case newline:
				state, line = beforeKey, i+1
			}
		case commentEscape:
			state = inComment
			if newline && !old {
				state, line = beforeKey, i+1
			}
		}
	}
	switch state {
	case beforeValue, inValue, valueEscape, singleQuoted, doubleQuoted, doubleEscape:
		push(len(text))
	}
	// What a newline at the end, where it is missing, makes of it.
	ended := text == "" || strings.HasSuffix(text, "\n")
	switch state {
	case singleQuoted, doubleQuoted, doubleEscape:
		s.after, s.open = unclosed, opened
	case valueEscape, commentEscape:
		s.after = joined
	case inValue, inComment:
		if ended { // the newline was escaped
			s.after = joined
		}
	}
	return s
}
