package envfile

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var formats = []Format{Portable, Systemd, Docker, Shell}

func TestEdit(t *testing.T) {
	all := formats
	for _, tt := range []struct {
		name      string
		formats   []Format
		old, want string // want "": refused
		refusal   string
	}{
		{"no file", all, "", "K=new\n", ""},
		{"appended", all, "A=1\n", "A=1\nK=new\n", ""},
		{"replaced in place", all, "A=1\nK=old\n# c\n\nB=2\n", "A=1\nK=new\n# c\n\nB=2\n", ""},
		{"empty value", all, "K=\nB=2\n", "K=new\nB=2\n", ""},
		{"no final newline", all, "A=1", "A=1\nK=new\n", ""},
		{"no final newline on our line", all, "A=1\nK=old", "A=1\nK=new\n", ""},
		{"CRLF lines stay, ours ends in LF", all, "A=1\r\nK=old\r\nB=2\r\n", "A=1\r\nK=new\nB=2\r\n", ""},
		{"appended to CRLF", all, "A=1\r\n", "A=1\r\nK=new\n", ""},
		{"only similar keys", all, "KK=1\nAK=2\nk=3\n#K=4\nX=K=5\n", "KK=1\nAK=2\nk=3\n#K=4\nX=K=5\nK=new\n", ""},
		{"duplicates are stale plaintexts", all, "K=1\nA=1\nK=2\nB=1\nK=3\nC=1\n", "A=1\nB=1\nK=new\nC=1\n", ""},
		{"one of the duplicates is right", all, "K=new\nA=1\nK=2\n", "A=1\nK=new\n", ""},
		{"leading blanks", all, "  K=old\n", "K=new\n", ""},
		{"held", all, "A=1\nK=new", "A=1\nK=new", ""},

		{"a mark at the start", all, bom + "A=1\n", bom + "A=1\nK=new\n", ""},
		{"a mark alone", []Format{Portable, Systemd, Shell}, bom, bom + "\nK=new\n", ""},
		{"a mark hides the key", []Format{Portable, Systemd, Shell}, bom + "K=old\n", "", "byte-order mark"},
		{"docker skips the mark", []Format{Docker}, bom + "K=old\n", bom + "K=new\n", ""},

		{"after a comment that goes on", []Format{Portable, Systemd}, "# c\\\n", "# c\\\n\nK=new\n", ""},
		{"after one without a newline", []Format{Portable, Systemd}, "# c\\", "# c\\\n\nK=new\n", ""},
		{"under a comment that goes on", []Format{Portable, Systemd}, "# c\\\nK=old\nB=1\n", "# c\\\n\nK=new\nB=1\n", ""},
		{"held, but hidden", []Format{Portable, Systemd}, "# c\\\nK=new\n", "# c\\\n\nK=new\n", ""},
		{"a hidden duplicate leaves a line", []Format{Portable, Systemd}, "# c\\\nK=old\nB=1\nK=x\n", "# c\\\n\nB=1\nK=new\n", ""},
		{"comments do not go on elsewhere", []Format{Docker, Shell}, "# c\\\nK=old\n", "# c\\\nK=new\n", ""},
		{"after a value that goes on", []Format{Portable, Systemd, Shell}, "A=1\\\n", "A=1\\\n\nK=new\n", ""},
		{"not for docker", []Format{Docker}, "A=1\\\n", "A=1\\\nK=new\n", ""},

		{"a text of many lines", []Format{Systemd, Shell}, "A=\"x\nK=no\ny\"\nK=old\n", "A=\"x\nK=no\ny\"\nK=new\n", ""},
		{"in single quotes", []Format{Systemd, Shell}, "A='x\nK=no'\n", "A='x\nK=no'\nK=new\n", ""},
		{"docker sees lines only", []Format{Docker}, "A=\"x\nK=no\ny\"\n", "A=\"x\nK=new\ny\"\n", ""},
		{"readers differ", []Format{Portable}, "A=\"x\nK=no\ny\"\n", "", "line 2 sets K for some readers only"},
		{"readers agree below it", []Format{Portable}, "A=\"x\ny\"\nK=old\n", "A=\"x\ny\"\nK=new\n", ""},
		{"our own many lines", []Format{Systemd, Shell}, "K=\"x\ny\"\nB=1\n", "K=new\nB=1\n", ""},
		{"our own many lines, for all", []Format{Portable}, "K=\"x\ny\"\nB=1\n", "", "some readers only"},
		{"our own, continued", []Format{Systemd, Shell}, "K=x\\\ny\nB=1\n", "K=new\nB=1\n", ""},
		{"an open quote", []Format{Portable, Systemd, Shell}, "B=1\nA=\"x\n", "", "line 2 begins something"},
		{"an apostrophe", []Format{Portable, Shell}, "A=don't\n", "", "line 1 begins something"},
		{"is a letter elsewhere", []Format{Systemd, Docker}, "A=don't\n", "A=don't\nK=new\n", ""},
		{"quoted", all, "K=\"old\"\n", "K=new\n", ""},

		{"export", []Format{Shell}, "export K=old\nA=1\n", "export K=new\nA=1\n", ""},
		{"export of others", []Format{Shell, Docker, Systemd, Portable}, "export A=1\n", "export A=1\nK=new\n", ""},
		{"export is refused", []Format{Portable, Docker}, "A=1\nexport K=old\n", "", `line 2 writes "export"`},
		{"export is another name", []Format{Systemd}, "export K=old\n", "export K=old\nK=new\n", ""},
		{"exported later", []Format{Shell, Portable}, "K=old\nexport K\n", "K=new\nexport K\n", ""},
		{"blanks around", []Format{Portable, Docker}, "K = old\n", "", "blanks around K"},
		{"blanks around are nothing", []Format{Systemd}, "K = old\n", "K=new\n", ""},
		{"a carriage return", []Format{Portable}, "A=1\rK=old\n", "", "carriage return"},
		{"ends systemd's line", []Format{Systemd}, "A=1\rK=old\n", "A=1\rK=new\n", ""},
		{"NUL", all, "A=\x00\n", "", "NUL"},

		{"shell comment behind", []Format{Shell}, "K=old # mine\n", "K=new\n", ""},
		{"shell commands", []Format{Shell}, "umask 077\nA=$(echo \"K=1\n)\")\necho \"$K\" ${K}\nK=old\n", "umask 077\nA=$(echo \"K=1\n)\")\necho \"$K\" ${K}\nK=new\n", ""},
		{"two on a line", []Format{Shell}, "A=1 K=old\n", "", "together with something else"},
		{"a command's own", []Format{Shell}, "K=old run\n", "", "together with something else"},
		{"two commands", []Format{Shell}, "K=old; export K\n", "", "together with something else"},
		{"unset", []Format{Shell}, "K=old\nunset K\n", "", "together with something else"},
		{"a condition", []Format{Shell}, "if true; then\nK=old\nfi\n", "", "shell code"},
		{"a function", []Format{Shell}, "f() {\nK=old\n}\n", "", "shell code"},
		{"here-document", []Format{Shell}, "cat <<E\nK=old\nE\n", "", "here-document"},
		{"dollar quote", []Format{Shell}, "A=$'it\\'s'\n", "", "shells read differently"},
		{"a blank in the old value", []Format{Portable}, "K=your token\n", "", "set format"},
		{"a blank in the old value is nothing", []Format{Systemd, Docker}, "K=your token\n", "K=new\n", ""},
	} {
		for _, f := range tt.formats {
			t.Run(tt.name+"/"+string(f), func(t *testing.T) {
				got, err := edit(f, tt.old, "K", "new")
				if tt.want == "" {
					if err == nil || !strings.Contains(err.Error(), tt.refusal) {
						t.Fatalf("%q, %v; want a refusal with %q", got, err, tt.refusal)
					}
					return
				}
				if err != nil || got != tt.want {
					t.Fatalf("got %q, %v\nwant %q", got, err, tt.want)
				}
				if again, err := edit(f, got, "K", "new"); err != nil || again != got {
					t.Errorf("a second time: %q, %v", again, err)
				}
				if v, err := lookup(f, got, "K"); v != "new" || err != nil {
					t.Errorf("read back: %q, %v", v, err)
				}
			})
		}
	}
}

func TestLookup(t *testing.T) {
	for _, tt := range []struct {
		f          Format
		text, want string
	}{
		{Portable, "K=1\nK=2\n", "2"},
		{Portable, "K=\n", ""},
		{Portable, "K=\"a\"\n", "\"a\""},             // docker keeps the quotes
		{Portable, "K=sgpt_a\r\n", "sgpt_a\r"},       // a shell keeps the return
		{Portable, "# \\\nK=sgpt_a\n", ""},           // not for an old systemd: push it again
		{Portable, "# \\\nK=precious\n", "precious"}, // but a person's value is seen
		{Docker, "K= a \r\n", " a "},
		{Systemd, "K=  a b  \n", "a b"},
		{Systemd, "K='a'\"b\" c\\ d\n", "abc d"},
		{Systemd, "K=\"a\\\"\\x\\\nb\"\n", "a\"\\xb"},
		{Systemd, "K=a\\\n b", "a b"},
		{Systemd, "K=a \\\n\n", "a "},
		{Systemd, "K='a\n", "a\n"},
		{Systemd, "; K=1\n", ""},
		{Shell, "K='a'\"b \\$c\\d\"\\ e\n", "ab $c\\d e"},
		{Shell, "K=a\\\nb\n", "ab"},
		{Shell, "export K=a # b\n", "a"},
		{Shell, "K=a#b\n", "a#b"},
		{Shell, "K=$OTHER\n", "$OTHER"}, // what it computes is not known
		{Shell, "K=~/x\n", "~/x"},
		{Shell, "K=\"$(cat f)\"\n", "\"$(cat f)\""},
	} {
		if got, err := lookup(tt.f, tt.text, "K"); got != tt.want || err != nil {
			t.Errorf("%s %q: %q, %v; want %q", tt.f, tt.text, got, err, tt.want)
		}
	}
}

// A value that a format cannot hold is refused by the class of its character, and never shown.
func TestEncodeRefuses(t *testing.T) {
	for value, want := range map[string]string{
		"canary x": "a blank", "canary\tx": "control", "canary\nx": "newline", "canary\x7f": "control", "canaryä": "beyond ASCII",
		"canary\xff": "no UTF-8", "canary'": "a quote", "canary$": "punctuation", `canary\`: "punctuation", "canary#": "punctuation", "canary~": "punctuation",
	} {
		for _, f := range formats {
			_, err := edit(f, "A=1\n", "K", value)
			must := f == Portable || f == Docker || hasControl(value) || want == "no UTF-8"
			if must != (err != nil) {
				t.Errorf("%s %q: %v", f, value, err)
			}
			if err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary")) {
				t.Errorf("%s %q: %v; want it to name %s and not the value", f, value, err, want)
			}
		}
	}
}

// shells are the real readers that this machine has.
func shells(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, name := range []string{"sh", "dash", "bash"} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		t.Fatal("no shell")
	}
	return found
}

// source asks a real shell.
func source(t *testing.T, shell, text, key string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.env")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), shell, "-c", `set -a; . "$1"; printenv "$2"`, "sh", path, key)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(out), "\n")
}

// sdRead and dockerRead are readers of their own, written from the manuals and not from readers.go,
// for files without exotic comments.
func sdRead(text, key string) (value string) {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if line == "" || line[0] == '#' || line[0] == ';' {
			for strings.HasSuffix(line, `\`) && i+1 < len(lines) { // as before version 254
				i++
				line = strings.TrimSpace(lines[i])
			}
			continue
		}
		name, rest, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		rest = strings.TrimLeft(rest, " \t")
		var b strings.Builder
		quoted := byte(0)
		if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
			quoted, rest = rest[0], rest[1:]
		}
		for {
			for j := 0; j < len(rest); j++ {
				c := rest[j]
				switch {
				case quoted != 0 && c == quoted:
					quoted = 0
				case c == '\\' && quoted != '\'' && j+1 < len(rest):
					j++
					if quoted == '"' && !strings.ContainsRune("\"\\`$", rune(rest[j])) {
						b.WriteByte('\\')
					}
					b.WriteByte(rest[j])
				case c == '\\' && quoted != '\'':
				default:
					b.WriteByte(c)
				}
			}
			goesOn := quoted != 0 || strings.HasSuffix(rest, `\`)
			if !goesOn || i+1 == len(lines) {
				break
			}
			if quoted != 0 {
				b.WriteByte('\n')
			}
			i++
			rest = lines[i]
		}
		if strings.TrimSpace(name) == key {
			value = b.String()
		}
	}
	return value
}

func dockerRead(text, key string) (value string) {
	for line := range strings.Lines(strings.TrimPrefix(text, bom)) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if v, ok := strings.CutPrefix(strings.TrimLeft(line, " \t"), key+"="); ok {
			value = v
		}
	}
	return value
}

func TestRealReadersSeeTheValue(t *testing.T) {
	files := map[string]string{
		"empty":      "",
		"plain":      "A=1\nTOKEN=old\nB=2\n",
		"twice":      "TOKEN=old\nA=1\nTOKEN=older",
		"crlf":       "A=1\r\nB=2\r\n",
		"comment":    "A=1\n# goes on \\",
		"continued":  "A=1\\\n",
		"many lines": "A=\"x\nTOKENS=no\ny\"\n",
	}
	values := []string{"sgpt_aB3-_", "v_./:@%+,=^-v"}
	for name, text := range files {
		for _, f := range formats {
			tries := values
			if f == Systemd || f == Shell {
				tries = append(slices.Clone(values), ` a b`, `$HOME`, "`id`", `a'b"c`, `\`, `a\nb`, `#x`, `;x`, `a;b&c|d`, `~`, `!x`, `*`, `ä€`, `"`, `''`)
			}
			for _, value := range tries {
				got, err := edit(f, text, "TOKEN", value)
				if err != nil {
					t.Errorf("%s, %s, %q: %v", name, f, value, err)
					continue
				}
				if f == Portable || f == Docker {
					if seen := dockerRead(got, "TOKEN"); seen != value {
						t.Errorf("%s, %s: docker sees %q in %q, want %q", name, f, seen, got, value)
					}
				}
				if f == Portable || f == Systemd {
					if seen := sdRead(got, "TOKEN"); seen != value {
						t.Errorf("%s, %s: systemd sees %q in %q, want %q", name, f, seen, got, value)
					}
				}
				if f == Portable || f == Shell {
					for _, shell := range shells(t) {
						if seen := source(t, shell, got, "TOKEN"); seen != value {
							t.Errorf("%s, %s: %s sees %q in %q, want %q", name, f, shell, seen, got, value)
						}
					}
				}
			}
		}
	}
}
