package envfile

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// shell reads text as a POSIX shell does that sources it, as far as assignments go. Commands are
// stepped over; it refuses what decides about the key and can be told only by running it.
func shell(text, key string) (scan, error) {
	var s scan
	touches := regexp.MustCompile(`(^|[^A-Za-z0-9_${])` + key + `\+?=|\b(unset|read)\b.*\b` + key + `\b`)
	size := len(text)
	if !strings.HasSuffix(text, "\n") {
		text += "\n" // once, and not at every line
	}
	for at := 0; at < size; {
		start := at
		l, err := lex(text, start, false)
		if err != nil {
			return scan{}, fmt.Errorf("line %d %w", lineOf(text, start), err)
		}
		l.end = min(l.end, size)
		at = l.end
		s.after, s.open = l.after, l.open
		source := text[start:l.end]
		trimmed := strings.TrimLeft(source, " \t")
		if strings.Trim(trimmed, "\r\n") == "" || trimmed[0] == '#' {
			continue
		}
		if name, x, ok := assignment(trimmed); ok {
			if name == key {
				x.start, x.end = start, l.end
				s.spans = append(s.spans, x)
			}
			continue
		}
		if compound.MatchString(trimmed) {
			return scan{}, fmt.Errorf("line %d is shell code (a condition, a loop, a function) that may decide what %s is: keep the key in a file of plain assignments", lineOf(text, start), key)
		}
		if touches.MatchString(source) {
			return scan{}, fmt.Errorf("line %d sets %s together with something else, or as no single word: give it a line of its own, %[2]s=value", lineOf(text, start), key)
		}
	}
	return s, nil
}

var (
	assignmentHead = regexp.MustCompile(`^(export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=`)
	assignmentTail = regexp.MustCompile(`^([ \t]*|[ \t]+#[^\n]*)\n?$`)
	compound       = regexp.MustCompile(`^(if|for|while|until|case|select|function|then|else|elif|do|\{|!)([ \t\r\n;]|$)|^\(|^[A-Za-z_][A-Za-z0-9_]*[ \t]*\(`)
)

// assignment reads a command that is one assignment and nothing else.
func assignment(source string) (name string, x span, ok bool) {
	m := assignmentHead.FindStringSubmatch(source)
	if m == nil {
		return "", span{}, false
	}
	rest := source[len(m[0]):]
	l, err := lex(rest, 0, true)
	if err != nil || !assignmentTail.MatchString(rest[l.end:]) {
		return "", span{}, false
	}
	return m[2], span{value: unquote(rest[:l.end]), export: m[1] != ""}, true
}

// unquote returns what a shell takes a word for; the word itself where the shell would compute it.
func unquote(word string) string {
	if strings.HasPrefix(word, "~") {
		return word
	}
	var b strings.Builder
	quote := byte(0)
	for i := 0; i < len(word); i++ {
		c := word[i]
		switch {
		case c == quote:
			quote = 0
			continue
		case quote == '\'':
		case c == '$' || c == '`':
			return word
		case c == '\\' && i+1 < len(word):
			i++
			c = word[i]
			if c == '\n' {
				continue
			}
			if quote == '"' && strings.IndexByte("$`\"\\", c) < 0 {
				b.WriteByte('\\')
			}
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// lexed is where something ends, and how.
type lexed struct {
	end   int
	after ending // what would become of another line, where the text ended first
	open  int    // where the first thing begins that is not closed
}

// lex finds the end of the command that begins at text[at], after the first newline that is
// neither quoted nor nested; or of the word that begins there.
func lex(text string, at int, word bool) (l lexed, err error) {
	type nesting struct {
		kind byte // the character that opened it
		at   int
	}
	var stack []nesting
	top := func() byte {
		if len(stack) == 0 {
			return 0
		}
		return stack[len(stack)-1].kind
	}
	push := func(kind byte, at int) { stack = append(stack, nesting{kind, at}) }
	pop := func() { stack = stack[:len(stack)-1] }

	if !strings.HasSuffix(text, "\n") {
		defer func(n int) { l.end = min(l.end, n) }(len(text))
		text += "\n"
	}
	begin := !word // of a word: there, # begins a comment
	for i := at; i < len(text); i++ {
		c, next := text[i], byte(0)
		if i+1 < len(text) {
			next = text[i+1]
		}
		begins := begin
		begin = strings.IndexByte(" \t\n;&|()", c) >= 0
		in := top()
		if word && in == 0 && strings.IndexByte(" \t\n;&|()<>", c) >= 0 {
			return lexed{end: i}, nil
		}
		switch {
		case in == '\'':
			if c == '\'' {
				pop()
			}
		case c == '\\':
			i++
		case c == '`':
			if in == '`' {
				pop()
			} else {
				push('`', i)
			}
		case c == '$' && (next == '(' || next == '{'):
			push(next, i)
			i++
			begin = true
		case in == '"':
			if c == '"' {
				pop()
			}
		case c == '$' && next == '\'':
			return lexed{}, errors.New("quotes with $'…', which shells read differently")
		case c == '\'' || c == '"' || c == '(':
			push(c, i)
		case in == '(' && c == ')', in == '{' && c == '}':
			pop()
		case c == '<' && next == '<' && in != '{':
			return lexed{}, errors.New("holds a here-document, whose end is not looked for")
		case c == '#' && begins && in != '{':
			if n := strings.IndexByte(text[i:], '\n'); n >= 0 {
				i += n - 1
			}
		case c == '\n' && in == 0:
			return lexed{end: i + 1}, nil
		}
	}
	if len(stack) > 0 {
		return lexed{len(text), unclosed, stack[0].at}, nil
	}
	return lexed{end: len(text), after: joined}, nil
}
