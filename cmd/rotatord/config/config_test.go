package config

import (
	"encoding"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/sinks"
)

var update = flag.Bool("update", false, "rewrite the expected messages in testdata")

// now is where the proofs begin in tests, so that messages with dates stay the same.
var now = time.Date(2026, time.November, 24, 9, 0, 0, 0, time.UTC)

// Every bad file says exactly what stands in the .txt file beside it.
func TestBadFiles(t *testing.T) {
	paths, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) < 40 {
		t.Fatalf("only %d bad files", len(paths))
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c, problems := Parse("rotation.yaml", text, "/etc/rotatord", Options{Now: now})
			if c != nil || problems.Errors() == 0 {
				t.Errorf("accepted, with %d problems", len(problems))
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".txt", problems)
			for _, secret := range []string{"hunter2", "0123456789abcdef"} {
				if strings.Contains(render(problems), secret) {
					t.Errorf("the problems show %q", secret)
				}
			}
		})
	}
}

// Every good file is accepted; a .txt file beside it holds its warnings.
func TestGoodFiles(t *testing.T) {
	paths, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d good files, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c, problems := Parse("rotation.yaml", text, "/etc/rotatord", Options{Now: now})
			if c == nil {
				t.Errorf("refused:\n%s", render(problems))
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".txt", problems)
		})
	}
}

func render(p Problems) string {
	var b strings.Builder
	if err := p.WriteText(&b); err != nil {
		return err.Error()
	}
	return b.String()
}

// golden compares with a file; no problems are no file.
func golden(t *testing.T, path string, p Problems) {
	t.Helper()
	got := render(p)
	if *update {
		if got == "" {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// nowhere stands for an opened sink.
type nowhere struct{ rotator.Sink }

func openNowhere(sinks.Spec) (rotator.Sink, error) { return nowhere{}, nil }

// The decoder can read every field that the schema has, those of each kind of sink included, and
// all keys are written alike.
func TestSchema(t *testing.T) {
	key := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	seen := map[reflect.Type]bool{}
	var look func(typ reflect.Type, path string)
	look = func(typ reflect.Type, path string) {
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if seen[typ] {
			return
		}
		seen[typ] = true
		if reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
			return
		}
		switch typ.Kind() {
		case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
		case reflect.Slice:
			look(typ.Elem(), path+"[]")
		case reflect.Map:
			if typ.Key().Kind() != reflect.String {
				t.Errorf("%s: keys of type %s", path, typ.Key())
			}
			look(typ.Elem(), path+"{}")
		case reflect.Struct:
			fields := map[string]reflect.Value{}
			keys(reflect.New(typ).Elem(), fields)
			for name, v := range fields {
				if !key.MatchString(name) {
					t.Errorf("%s.%s is not snake_case", path, name)
				}
				look(v.Type(), path+"."+name)
			}
		default:
			t.Errorf("%s: nobody can read a %s", path, typ)
		}
	}
	look(reflect.TypeFor[document](), "")
	for _, kind := range sinks.Kinds() {
		fields := map[string]reflect.Value{}
		keys(reflect.New(reflect.TypeFor[sinkBlock]()).Elem(), fields)
		if _, ok := fields[kind]; !ok {
			t.Errorf("a sink has no %s", kind)
		}
	}
}
