// Package field holds what the blocks of rotation.yaml share: durations, file modes, references
// to secrets, and a way to report a problem at the place in the file where it stands.
package field

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Problem is one thing that is wrong, or doubtful, in a configuration.
type Problem struct {
	Path    []any // keys (string) and indices (int) from the top of the file
	Text    string
	Warning bool
}

// Problems collects problems, and knows the path of the block that is being looked at.
// Its methods may be used on the zero value only through New.
type Problems struct {
	at   []any
	list *[]Problem
}

// New returns an empty collection at the top of the file.
func New() Problems { return Problems{list: new([]Problem)} }

// At returns the same collection at a deeper path: keys are strings, indices ints.
func (p Problems) At(elem ...any) Problems {
	at := make([]any, 0, len(p.at)+len(elem))
	return Problems{at: append(append(at, p.at...), elem...), list: p.list}
}

// Errorf adds an error at the collection's path.
func (p Problems) Errorf(format string, args ...any) {
	*p.list = append(*p.list, Problem{Path: p.at, Text: fmt.Sprintf(format, args...)})
}

// Warnf adds a warning at the collection's path.
func (p Problems) Warnf(format string, args ...any) {
	*p.list = append(*p.list, Problem{Path: p.at, Text: fmt.Sprintf(format, args...), Warning: true})
}

// List returns what was collected, in the order in which it was found.
func (p Problems) List() []Problem { return *p.list }

// Duration is a length of time, written with Go's units plus d (24 h) and w (7 d): 90s, 36h, 7d,
// 1w2d. Zero, negative and unit-less values are refused; "0s" is written "0".
type Duration time.Duration

var durationPart = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h|d|w)`)

// ParseDuration reads a duration; "0" is the only way to write none.
func ParseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	bad := func(why string) (time.Duration, error) {
		return 0, fmt.Errorf("%q is no duration: %s (write it like 90s, 36h, 7d or 1w2d; 1d is 24 hours)", s, why)
	}
	if s == "" {
		return bad("it is empty")
	}
	var total float64
	for rest := s; rest != ""; {
		m := durationPart.FindStringSubmatch(rest)
		switch {
		case m == nil && (rest[0] == '-' || rest[0] == '+'):
			return bad("it has a sign")
		case m == nil && strings.Trim(rest, "0123456789.") == "":
			return bad("a unit is missing")
		case m == nil:
			return bad(fmt.Sprintf("%q is not understood", rest))
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return bad("the number is too large")
		}
		unit := map[string]time.Duration{
			"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond, "ms": time.Millisecond,
			"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
		}[m[2]]
		total += n * float64(unit)
		rest = rest[len(m[0]):]
	}
	if total > float64(100*366*24*time.Hour) {
		return bad("it is longer than a century")
	}
	if total < 1 {
		return bad("it is zero: write 0, if that is meant")
	}
	return time.Duration(math.Round(total)), nil
}

// UnmarshalText reads d as ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// FormatDuration writes a duration with the units of rotation.yaml, at most two of them: 36h is "1d12h".
func FormatDuration(d time.Duration) string {
	if d < 0 {
		return "-" + FormatDuration(-d)
	}
	if d < time.Second {
		if d == 0 {
			return "0"
		}
		if d < time.Millisecond { // what is there is not nothing
			return d.String()
		}
		return d.Round(time.Millisecond).String()
	}
	d = d.Round(time.Second)
	units := []struct {
		name string
		len  time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	var out string
	for i, u := range units {
		if d < u.len {
			continue
		}
		out = fmt.Sprintf("%d%s", d/u.len, u.name)
		if i+1 < len(units) {
			if next := units[i+1]; d%u.len >= next.len {
				out += fmt.Sprintf("%d%s", d%u.len/next.len, next.name)
			}
		}
		break
	}
	return out
}

// Mode is the permission bits of a file, written as a quoted octal string: "0640". An unquoted
// 0640 is a number to YAML, and a different one to each reader, so it is refused where it is read.
type Mode fs.FileMode

// UnmarshalText reads m from three or four octal digits.
func (m *Mode) UnmarshalText(text []byte) error {
	s := string(text)
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || len(s) < 3 || len(s) > 4 || n > 0o777 {
		return fmt.Errorf(`%q is no file mode (write it as a quoted octal string, like "0640")`, s)
	}
	*m = Mode(n)
	return nil
}

// String writes m as it is written in rotation.yaml, without the quotes.
func (m Mode) String() string { return fmt.Sprintf("%04o", fs.FileMode(m).Perm()) }

// SecretRef says where a secret is found. Exactly one of its fields is set.
type SecretRef struct {
	File       string `yaml:"file,omitempty"`       // a path
	Credential string `yaml:"credential,omitempty"` // a name in $CREDENTIALS_DIRECTORY
	Env        string `yaml:"env,omitempty"`        // an environment variable
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// IsZero reports whether no reference was given.
func (r SecretRef) IsZero() bool { return r == SecretRef{} }

// Validate reports a reference that names nothing, or more than one place.
func (r SecretRef) Validate(p Problems) {
	n := 0
	for _, s := range []string{r.File, r.Credential, r.Env} {
		if s != "" {
			n++
		}
	}
	if n != 1 {
		p.Errorf("needs exactly one of file, credential and env")
	}
	if r.Credential != "" && filepath.Base(r.Credential) != r.Credential {
		p.Errorf("credential %q must be a name, not a path", r.Credential)
	}
	if r.Env != "" && !envName.MatchString(r.Env) { // not repeated: it may be the secret itself
		p.Errorf("env must be the name of an environment variable")
	}
}

// String says where the secret is, never what it is.
func (r SecretRef) String() string {
	switch {
	case r.File != "":
		return "file " + r.File
	case r.Credential != "":
		return "credential " + r.Credential
	case r.Env != "":
		return "environment variable " + r.Env
	}
	return "no reference"
}

// Read returns the secret, without the white space around it. getenv is os.Getenv or a stand-in.
// An empty secret, or one with blanks or control characters inside, is an error.
func (r SecretRef) Read(getenv func(string) string) (string, error) {
	var text string
	switch {
	case r.Env != "":
		text = getenv(r.Env)
	case r.Credential != "":
		dir := getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", fmt.Errorf("%s: CREDENTIALS_DIRECTORY is not set (it is when systemd starts the service with LoadCredential=)", r)
		}
		b, err := readSmall(filepath.Join(dir, r.Credential))
		if err != nil {
			return "", fmt.Errorf("%s: %w", r, err)
		}
		text = b
	case r.File != "":
		b, err := readSmall(r.File)
		if err != nil {
			return "", err
		}
		text = b
	default:
		return "", errors.New("no reference to a secret")
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return "", fmt.Errorf("%s: is empty", r)
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return "", fmt.Errorf("%s: has blanks or control characters inside: it must hold the secret alone", r)
	}
	return text, nil
}

// readSmall reads a file that holds one secret; more than 64 KiB is some other file.
func readSmall(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if st.Size() > 64<<10 {
		return "", fmt.Errorf("read %s: larger than 64 KiB: this is no secret", path)
	}
	b, err := os.ReadFile(path)
	return string(b), err
}
