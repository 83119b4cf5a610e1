package field

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		in   string
		want time.Duration
		err  string // a part of the message
	}{
		{in: "90s", want: 90 * time.Second},
		{in: "36h", want: 36 * time.Hour},
		{in: "7d", want: 7 * day},
		{in: "1w2d", want: 9 * day},
		{in: "1d12h", want: 36 * time.Hour},
		{in: "1.5d", want: 36 * time.Hour},
		{in: "250ms", want: 250 * time.Millisecond},
		{in: "1us", want: time.Microsecond},
		{in: "1µs", want: time.Microsecond},
		{in: "0", want: 0},

		{in: "", err: "it is empty"},
		{in: "0s", err: "it is zero: write 0"},
		{in: "0.1ns", err: "it is zero"},
		{in: "30", err: "a unit is missing"},
		{in: "1.5", err: "a unit is missing"},
		{in: "1h30", err: "a unit is missing"},
		{in: "-5m", err: "it has a sign"},
		{in: "+5m", err: "it has a sign"},
		{in: "5m-1s", err: "it has a sign"},
		{in: "1M", err: `"1M" is not understood`},
		{in: "2 days", err: `"2 days" is not understood`},
		{in: "1d 2h", err: `" 2h" is not understood`},
		{in: ".5h", err: `".5h" is not understood`},
		{in: "h", err: `"h" is not understood`},
		{in: "101y", err: "is not understood"},
		{in: "5300w", err: "longer than a century"},
		{in: strings.Repeat("9", 400) + "d", err: "too large"},
	} {
		got, err := ParseDuration(c.in)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%q: got %v, %v; want %v", c.in, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q: got %v, %v; want an error with %q", c.in, got, err, c.err)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0:                          "0",
		90 * time.Second:           "1m30s",
		36 * time.Hour:             "1d12h",
		48 * time.Hour:             "2d",
		24*time.Hour + time.Minute: "1d", // two neighbouring units at most
		time.Hour + time.Second:    "1h",
		250 * time.Millisecond:     "250ms",
		time.Microsecond:           "1µs", // "0s" would be wrong
		-5 * time.Minute:           "-5m",
		7 * 24 * time.Hour:         "7d",
	} {
		if got := FormatDuration(in); got != want {
			t.Errorf("%v: got %q, want %q", in, got, want)
		}
	}
}

// What is written in messages can be written into the file.
func FuzzFormatDuration(f *testing.F) {
	f.Add(int64(time.Hour))
	f.Add(int64(37*time.Hour + 12*time.Second))
	f.Fuzz(func(t *testing.T, n int64) {
		const years = 90 * 365 * 24 * time.Hour
		d := time.Second + (time.Duration(n)%years+years)%years // whatever n is
		back, err := ParseDuration(FormatDuration(d))
		if err != nil || back > d+time.Second || d-back > d/12 { // a third unit is left out
			t.Errorf("%v was written as %q, which is %v, %v", d, FormatDuration(d), back, err)
		}
	})
}

func TestMode(t *testing.T) {
	for _, c := range []struct {
		in   string
		want fs.FileMode
		ok   bool
	}{
		{"0600", 0o600, true},
		{"640", 0o640, true},
		{"0777", 0o777, true},
		{"0000", 0, true},
		{"", 0, false},
		{"0o600", 0, false},
		{"600 ", 0, false},
		{"-600", 0, false},
		{"0888", 0, false},
		{"4755", 0, false}, // setuid
		{"00600", 0, false},
		{"60", 0, false},
		{"rw-------", 0, false},
	} {
		var m Mode
		err := m.UnmarshalText([]byte(c.in))
		if (err == nil) != c.ok || fs.FileMode(m) != c.want {
			t.Errorf("%q: got %v, %v", c.in, m, err)
		}
	}
	if got := Mode(0o40).String(); got != "0040" {
		t.Errorf("got %q", got)
	}
}

func TestProblemsKnowTheirPath(t *testing.T) {
	top := New()
	tokens := top.At("tokens", 2)
	// Two children of one parent must not write into each other's path.
	scopes, sinks := tokens.At("scopes", 0), tokens.At("sinks", 1)
	scopes.Errorf("bad %s", "scope")
	sinks.Warnf("odd")
	top.Errorf("whole")
	want := []Problem{
		{Path: []any{"tokens", 2, "scopes", 0}, Text: "bad scope"},
		{Path: []any{"tokens", 2, "sinks", 1}, Text: "odd", Warning: true},
		{Text: "whole"},
	}
	if got := top.List(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestSecretRefValidate(t *testing.T) {
	for _, c := range []struct {
		ref  SecretRef
		want []string
	}{
		{SecretRef{File: "/run/secrets/x"}, nil},
		{SecretRef{Credential: "sitegpt-api-token"}, nil},
		{SecretRef{Env: "SITEGPT_API_TOKEN"}, nil},
		{SecretRef{}, []string{"exactly one"}},
		{SecretRef{File: "x", Env: "X"}, []string{"exactly one"}},
		{SecretRef{Credential: "../x"}, []string{"must be a name"}},
		{SecretRef{Env: "hunter2-pass"}, []string{"name of an environment variable"}},
	} {
		p := New()
		c.ref.Validate(p)
		var got []string
		for _, problem := range p.List() {
			got = append(got, problem.Text)
		}
		if len(got) != len(c.want) {
			t.Errorf("%+v: got %q, want %q", c.ref, got, c.want)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], c.want[i]) {
				t.Errorf("%+v: got %q, want %q", c.ref, got, c.want)
			}
			if strings.Contains(got[i], "hunter2") {
				t.Errorf("%+v: the message repeats what may be a secret: %q", c.ref, got[i])
			}
		}
	}
}

func TestSecretRefRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	trailing := write("trailing", "  s3cr3t\n\n")
	empty := write("empty", "\n")
	two := write("two", "s3cr3t\nother\n")
	large := write("large", strings.Repeat("x", 64<<10+1))
	env := map[string]string{"TOKEN": "s3cr3t\n", "EMPTY": " ", "TWO": "s3cr3t other", "CREDENTIALS_DIRECTORY": dir}
	without := map[string]string{}
	for _, c := range []struct {
		name string
		ref  SecretRef
		env  map[string]string
		want string
		err  string
	}{
		{"a file, trimmed", SecretRef{File: trailing}, env, "s3cr3t", ""},
		{"a credential", SecretRef{Credential: "trailing"}, env, "s3cr3t", ""},
		{"a variable, trimmed", SecretRef{Env: "TOKEN"}, env, "s3cr3t", ""},
		{"an empty file", SecretRef{File: empty}, env, "", "is empty"},
		{"an empty variable", SecretRef{Env: "EMPTY"}, env, "", "environment variable EMPTY: is empty"},
		{"no such variable", SecretRef{Env: "NONE"}, env, "", "is empty"},
		{"two lines", SecretRef{File: two}, env, "", "must hold the secret alone"},
		{"two words", SecretRef{Env: "TWO"}, env, "", "must hold the secret alone"},
		{"some other file", SecretRef{File: large}, env, "", "this is no secret"},
		{"no such file", SecretRef{File: filepath.Join(dir, "none")}, env, "", "no such file"},
		{"a folder", SecretRef{File: dir}, env, "", "is a directory"},
		{"no such credential", SecretRef{Credential: "none"}, env, "", "credential none"},
		{"not started by systemd", SecretRef{Credential: "trailing"}, without, "", "CREDENTIALS_DIRECTORY is not set"},
		{"nothing", SecretRef{}, env, "", "no reference"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.ref.Read(func(name string) string { return c.env[name] })
			if got != c.want || (err == nil) != (c.err == "") {
				t.Fatalf("got %q, %v", got, err)
			}
			if err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "s3cr3t")) {
				t.Errorf("got %q, want %q in it", err, c.err)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	for _, tc := range [][3]string{
		{"/etc/r", "", ""}, {"/etc/r", "a/../b", "/etc/r/b"}, {"/etc/r", "/x//y/.", "/x/y"}, {"/etc/r", "../s/a", "/etc/s/a"},
	} {
		if got := Absolute(tc[0], tc[1]); got != tc[2] {
			t.Errorf("%q in %s: %q, want %q", tc[1], tc[0], got, tc[2])
		}
	}
	for _, tc := range []struct {
		path, want string
		mode       Mode
	}{
		{"/a", "", 0},
		{"a", "", 0o600},
		{"a", "", 0o640},
		{"", "path: is missing", 0},
		{"~/a", "path: ~ is not expanded: write the whole path", 0},
		{"a/", `path: "a/" is a folder: name a file in it`, 0},
		{"a/..", `path: "a/.." is a folder: name a file in it`, 0},
		{"a\u0085b", "path: holds a control character", 0},
		{"a", "mode: 0240 lets not even the owner read the file", 0o240},
		{"a", "mode: 0666 lets everybody change the file", 0o666},
		{"a", "mode: 0644 lets everybody on the machine read the token", 0o644},
	} {
		p := New()
		ValidateFile(p, tc.path, tc.mode)
		got := ""
		for _, q := range p.List() {
			got += fmt.Sprintf("%v: %s", q.Path[0], q.Text)
			if q.Warning != (tc.mode == 0o644) {
				t.Errorf("%q %s: warning: %v", tc.path, tc.mode, q.Warning)
			}
		}
		if got != tc.want {
			t.Errorf("%q %s: %q, want %q", tc.path, tc.mode, got, tc.want)
		}
	}
	if got := FileTraits(0o640, "portal", ""); got != "mode 0640, owner portal" {
		t.Error(got)
	}
	if got := FileTraits(0o600, "", "7"); got != "mode 0600, group 7" {
		t.Error(got)
	}
}
