package child

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/rotatord/rotatord/rotator/field"
)

// What blocks of rotation.yaml that run a program have in common: an argv and an environment.

// Resolve returns argv with a program that is given by a relative path relative to dir, the folder
// of the configuration. A bare name is looked for in PATH when it runs.
func Resolve(dir string, argv []string) []string {
	if len(argv) == 0 || !strings.Contains(argv[0], "/") || filepath.IsAbs(argv[0]) {
		return argv
	}
	argv = slices.Clone(argv)
	argv[0] = filepath.Join(dir, argv[0])
	return argv
}

// CheckArgv reports what is wrong with an argv. instead says where a secret comes from that must not
// be an argument.
func CheckArgv(p field.Problems, argv []string, instead string) {
	for i, arg := range argv {
		switch {
		case i == 0 && strings.TrimSpace(arg) == "":
			p.At(i).Errorf("the program is empty")
		case i == 0 && strings.HasPrefix(arg, "~"):
			p.At(i).Errorf("~ is not expanded: write the whole path")
		case i == 0 && strings.ContainsAny(arg, " \t") && len(argv) == 1:
			p.At(i).Warnf("is one word with blanks in it, and no shell splits it: write the program and each argument as items of the list")
		case i == 0 && strings.ContainsFunc(arg, unicode.IsControl): // its name is shown
			p.At(i).Errorf("holds a control character")
		case looksSecret(arg):
			p.At(i).Errorf("holds a secret, and everybody on the machine can read arguments: %s", instead)
		case strings.ContainsRune(arg, 0):
			p.At(i).Errorf("holds a NUL character")
		}
	}
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// looksSecret: a token of SiteGPT or Vault, where a configuration must hold none.
func looksSecret(s string) bool {
	return strings.Contains(s, "sgpt_") || strings.HasPrefix(s, "hvs.") || strings.HasPrefix(s, "hvb.")
}

// CheckEnv reports what is wrong with the literal variables of a program.
func CheckEnv(p field.Problems, env map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		at := p.At(name)
		switch {
		case !envName.MatchString(name):
			at.Errorf("%q cannot be the name of an environment variable", name)
		case strings.HasPrefix(name, "ROTATORD_"):
			at.Errorf("names that begin with ROTATORD_ are set by rotatord")
		case name == "SITEGPT_API_TOKEN" || name == "VAULT_TOKEN" || looksSecret(env[name]):
			at.Errorf("a secret has no place here: let the program read it from a file")
		case strings.ContainsRune(env[name], 0):
			at.Errorf("holds a NUL character")
		}
	}
}

// Env returns the variables as Cmd wants them, sorted.
func Env(env map[string]string) []string {
	out := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}

// Compact writes lists and maps of strings as JSON on one line; maps come out sorted.
func Compact(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err.Error() // lists and maps of strings always encode
	}
	return strings.TrimSpace(b.String())
}
