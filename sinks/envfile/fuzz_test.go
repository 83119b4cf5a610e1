package envfile

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// The readers' own rules, written down from their sources once more, and in their own words: what
// readers.go says of a file must be what these say.

// references returns what each reader of a format that is no program sees as the value of key. A
// reader that refuses the whole file, because of other lines, is left out.
func references(f Format, text, key string) map[string]string {
	out := map[string]string{}
	if f == Docker || f == Portable {
		if v, ok := dockerFile(text, key); ok {
			out["docker"] = v
		}
	}
	if f == Systemd || f == Portable {
		out["systemd"] = systemdFile(text, key, false)
		out["systemd before 254"] = systemdFile(text, key, true)
	}
	return out
}

// dockerFile is parseKeyValueFile of the docker CLI; ok is false where it refuses the file.
func dockerFile(text, key string) (value string, ok bool) {
	if text == "" {
		return "", true
	}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		line = strings.TrimSuffix(line, "\r") // as bufio.ScanLines does
		if !utf8.ValidString(line) || len(line) >= 64<<10 {
			return "", false
		}
		if i == 0 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		name, v, has := strings.Cut(line, "=")
		if name == "" || strings.ContainsAny(name, " \t") {
			return "", false
		}
		if has && name == key {
			value = v
		}
	}
	return value, true
}

// systemdFile is parse_env_file_internal of systemd, state by state; old is before version 254,
// where an escape in a comment also takes the newline.
func systemdFile(text, key string, old bool) (found string) {
	const (
		preKey = iota
		inName
		preValue
		bare
		bareEscape
		single
		double
		doubleEsc
		comment
		commentEsc
	)
	const whitespace, newlines = " \t\n\r", "\n\r"
	in := func(set string, c byte) bool { return strings.IndexByte(set, c) >= 0 }
	state := preKey
	var name, value []byte
	nameBlank, valueBlank := -1, -1 // where the white space at the end begins
	push := func(chomp bool) {
		n, v := name, value
		if nameBlank >= 0 {
			n = n[:nameBlank]
		}
		if chomp && valueBlank >= 0 {
			v = v[:valueBlank]
		}
		if string(n) == key {
			found = string(v)
		}
		state, name, value = preKey, nil, nil
	}
	for _, c := range []byte(text) {
		switch state {
		case preKey:
			switch {
			case in("#;", c):
				state = comment
			case !in(whitespace, c):
				state, nameBlank, name = inName, -1, append(name, c)
			}
		case inName:
			switch {
			case in(newlines, c):
				state, name = preKey, nil
			case c == '=':
				state, valueBlank = preValue, -1
			default:
				if !in(whitespace, c) {
					nameBlank = -1
				} else if nameBlank < 0 {
					nameBlank = len(name)
				}
				name = append(name, c)
			}
		case preValue:
			switch {
			case in(newlines, c):
				push(false)
			case c == '\'':
				state = single
			case c == '"':
				state = double
			case c == '\\':
				state = bareEscape
			case !in(whitespace, c):
				state, value = bare, append(value, c)
			}
		case bare:
			switch {
			case in(newlines, c):
				push(true)
			case c == '\\':
				state, valueBlank = bareEscape, -1
			default:
				if !in(whitespace, c) {
					valueBlank = -1
				} else if valueBlank < 0 {
					valueBlank = len(value)
				}
				value = append(value, c)
			}
		case bareEscape:
			state = bare
			if !in(newlines, c) {
				value = append(value, c)
			}
		case single:
			if c == '\'' {
				state = preValue
			} else {
				value = append(value, c)
			}
		case double:
			switch c {
			case '"':
				state = preValue
			case '\\':
				state = doubleEsc
			default:
				value = append(value, c)
			}
		case doubleEsc:
			state = double
			switch {
			case in("\"\\`$", c):
				value = append(value, c)
			case c != '\n':
				value = append(value, '\\', c)
			}
		case comment:
			switch {
			case c == '\\':
				state = commentEsc
			case in(newlines, c):
				state = preKey
			}
		case commentEsc:
			state = comment
			if in(newlines, c) && !old {
				state = preKey
			}
		}
	}
	switch state {
	case preValue, bareEscape, single, double, doubleEsc:
		push(false)
	case bare:
		push(true)
	}
	return found
}

// What Read believes must be what the readers see: a value that is taken for ours, and is another
// one to the service, would never be mended. Of a person's value it is enough that one sees it.
func FuzzLookup(f *testing.F) {
	for i, text := range []string{
		"K=sgpt_a \\\n\n", "K='sgpt_a' \n", "K=\"sgpt_a\" b \\\n", "K=sgpt_a\\\n b", "K=sgpt_a\r\nK=b", "K=1\rK=sgpt_a",
		"# \\\nK=sgpt_a\n", "# \\\rK=sgpt_a\n", "K =sgpt_a\n", "=K=sgpt_a\n", "K=\"sgpt_a\\\r\"", "# \\\nK=a\n",
	} {
		for n := range 3 {
			f.Add(uint8(i+n), text)
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, text string) {
		format := []Format{Docker, Systemd, Portable}[int(n)%3]
		seen, err := lookup(format, text, "K")
		if err != nil || seen == "" { // refused, or to be pushed again
			return
		}
		agree, all := 0, references(format, text, "K")
		for _, want := range all {
			if seen == want {
				agree++
			}
		}
		ours := strings.HasPrefix(seen, "sgpt_") && plain.MatchString(seen)
		// Of a portable file it may be the shell that sees it so, or docker, which refuses the file.
		if ours && agree < len(all) || format != Portable && agree == 0 && len(all) > 0 {
			t.Errorf("%s: in %q we see %q, and the readers %q", format, text, seen, all)
		}
	})
}

// harmless are the pieces that decide how a shell reads a file of assignments. No program has a name
// of these, nothing is redirected or runs aside, and no function can be made that calls itself.
var harmless = []string{"K", "A", "1", "=", "'", "\"", "\\", "\n", " ", "#", "$", "`", "{", "}", "$(", ")", ";", "\t", "\r", "!", "~", "K=", "\nK=1\n"}

// picked are numbers of harmless pieces that make text.
func picked(text string) (picks []byte) {
	for text != "" {
		best := 0
		for i, piece := range harmless {
			if strings.HasPrefix(text, piece) && (!strings.HasPrefix(text, harmless[best]) || len(piece) > len(harmless[best])) {
				best = i
			}
		}
		picks, text = append(picks, byte(best)), text[len(harmless[best]):]
	}
	return picks
}

// Real shells read what was edited: one that could source the file before sees the value, and one
// that could not is none of our doing.
func FuzzShell(f *testing.F) {
	for _, text := range []string{"K=1\n", "A='\nK=1\n'\n", "A=$(\nK=1)\n", "K=1 # A\n", "A=\\\n", "A=\"`\"\n", "A=${K\n}", "A=1;K=1\n", "K=1\\\n", "K='1\n'\n", "K=\"$A\"\n", "# \\\nK=1", "A=\"$(\"\nK=1\n\")\""} {
		f.Add(picked(text), true)
		f.Add(picked(text), false)
	}
	f.Fuzz(func(t *testing.T, picks []byte, portable bool) {
		if len(picks) > 60 {
			return
		}
		var b strings.Builder
		for _, n := range picks {
			b.WriteString(harmless[int(n)%len(harmless)])
		}
		text, format, value := b.String(), Shell, `1'1 "$1\`
		if portable {
			format, value = Portable, "sgpt_1"
		}
		got, err := edit(format, text, "K", value)
		if err != nil {
			return
		}
		for _, shell := range shells(t) {
			if _, whole := sourced(t, shell, text); !whole {
				continue
			}
			if seen, whole := sourced(t, shell, got); !whole || seen != value {
				t.Errorf("%s: %q became %q, of which %s sees %q (to its end: %v), want %q", format, text, got, shell, seen, whole, value)
			}
		}
	})
}

// sourced returns what a shell with no programs sees as K, and whether it got through the file.
func sourced(t *testing.T, shell, text string) (value string, whole bool) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.env")
	if err := os.WriteFile(path, []byte(text+"\n\nEND=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, shell, "-c", `. "$1"; printf '%s\n%s' "$K" "$END"`, "sh", path)
	cmd.Env, cmd.Dir = []string{"PATH=/nonexistent"}, filepath.Dir(path)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	value, whole = strings.CutSuffix(string(out), "\n1")
	return value, whole && err == nil
}

func FuzzEdit(f *testing.F) {
	for i, text := range []string{
		"", "K=old", "A=1\r\nK=\"a\nb\"\r\n", bom + "K=1\n", "# c\\\nK=1\nK=2\n", "A='\nK=1\n'\n", "export K=1 # x\n", "A=$(\nK=1)\n",
		"K=a\\", "K = 1\rK=2", "A=\"`\"\n", "a() {\nK=1\n}", "# \\\r\nK=1", "A=\\\n\nK=1", ";\\\n;\\\nK=1", "A=${x\nK=1", "A=a<<b\nK=1\n", "A=\"$(\"\nK=1\n\")\"",
	} {
		f.Add(uint8(i), text, "sgpt_new")
		f.Add(uint8(i+1), text, `a'b"$c \`)
	}
	f.Fuzz(func(t *testing.T, n uint8, text, value string) {
		format := formats[int(n)%len(formats)]
		const key = "K"
		if _, err := lookup(format, text, key); err != nil {
			return
		}
		before, _ := look(format, text, key)
		got, err := edit(format, text, key, value)
		if err != nil {
			return
		}
		if seen, err := lookup(format, got, key); err != nil || seen != value {
			t.Fatalf("%s: %q became %q, where %q is seen, %v", format, text, got, seen, err)
		}
		for name, seen := range references(format, got, key) {
			if seen != value {
				t.Fatalf("%s: %q became %q, where %s sees %q, want %q", format, text, got, name, seen, value)
			}
		}
		if again, err := edit(format, got, key, value); err != nil || again != got {
			t.Fatalf("%s: %q became %q, and then %q, %v", format, text, got, again, err)
		}
		// All other bytes are there, in order, but for newlines that were added.
		after, err := look(format, got, key)
		if err != nil {
			t.Fatal(err)
		}
		rest, kept := without(got, after.spans), without(text, before.spans)
		for i, j := 0, 0; j < len(kept) || i < len(rest); i++ {
			switch {
			case i == len(rest):
				t.Fatalf("%s: %q became %q: bytes were lost", format, text, got)
			case j < len(kept) && rest[i] == kept[j]:
				j++
			case rest[i] != '\n':
				t.Fatalf("%s: %q became %q: bytes were added", format, text, got)
			}
		}
	})
}

func without(text string, spans []span) string {
	for _, x := range slices.Backward(spans) {
		text = text[:x.start] + text[x.end:]
	}
	return text
}
