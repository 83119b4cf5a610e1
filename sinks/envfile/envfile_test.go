package envfile_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/sinks/envfile"
	"github.com/rotatord/rotatord/sinks/sinktest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// see returns what stands behind the last KEY= at the start of a line.
func see(text, key string) (value string) {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimPrefix(line, "export "), key+"="); ok {
			value = strings.TrimSuffix(v, "\n")
		}
	}
	return value
}

func TestConformance(t *testing.T) {
	for _, format := range []envfile.Format{envfile.Portable, envfile.Systemd, envfile.Docker, envfile.Shell} {
		t.Run(string(format), func(t *testing.T) {
			sinktest.Run(t, sinktest.Harness{Lines: true, New: func(t *testing.T) sinktest.Fixture {
				dir := filepath.Join(t.TempDir(), "etc")
				must(t, os.Mkdir(dir, 0o700))
				path := filepath.Join(dir, "app.env")
				open := func(key string) rotator.Sink {
					return envfile.New(envfile.Config{Path: path, Key: key, Format: format})
				}
				return sinktest.Fixture{
					Sink: open("TOKEN"), Other: open("TOKEN"),
					See: func() string { return see(content(t, path), "TOKEN") },
					Write: func(value string) {
						must(t, os.WriteFile(path, []byte("# mine\nTOKEN="+value), 0o600))
					},
					Break: func() func() { // permissions would not stop root
						must(t, os.Rename(dir, dir+".away"))
						return func() { must(t, os.Rename(dir+".away", dir)) }
					},
					Siblings: func(t *testing.T) func() {
						before, after := "# first\r\nTOKENS=1\nA=b=c\n\n", "Z=1\r\n; last"
						must(t, os.WriteFile(path, []byte(before+"TOKEN=\n"+after), 0o600))
						return func() {
							text := content(t, path)
							if !strings.HasPrefix(text, before) || !strings.HasSuffix(text, "\n"+after) || strings.Count(text, "\n") != 6 {
								t.Errorf("other lines were changed")
							}
						}
					},
					Sibling: &sinktest.Fixture{
						Sink: open("OTHER"),
						See:  func() string { return see(content(t, path), "OTHER") },
					},
					Version: func() string {
						info, err := os.Stat(path)
						if err != nil {
							return ""
						}
						st := info.Sys().(*syscall.Stat_t)
						return fmt.Sprint(st.Ino, info.ModTime().UnixNano())
					},
					Address: "etc",
					Dir:     dir,
					Odd: map[string]func(){
						"a folder in its place": func() { must(t, os.Mkdir(path, 0o700)) },
						"a NUL":                 func() { must(t, os.WriteFile(path, []byte("A=\x00\n"), 0o600)) },
						"an open quote":         func() { must(t, os.WriteFile(path, []byte("A='\nTOKEN=x\n"), 0o600)) },
						"a comment goes on":     func() { must(t, os.WriteFile(path, []byte("#\\\nTOKEN=sgpt_x"), 0o600)) },
						"export":                func() { must(t, os.WriteFile(path, []byte("export TOKEN=sgpt_x"), 0o600)) },
					},
				}
			}})
		})
	}
}

// Fifty rotations into one file, of which half were lost, is how others failed.
func TestManyTokensInOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "all.env")
	must(t, os.WriteFile(path, []byte("# everybody's\nPORT=80\n"), 0o600))
	const n = 100
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s := envfile.New(envfile.Config{Path: path, Key: fmt.Sprintf("TOKEN_%d", i)})
			if err := s.Push(t.Context(), rotator.Generation{}, rotator.NewSecret(fmt.Sprintf("sgpt_%d", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	text := content(t, path)
	for i := range n {
		if got := see(text, fmt.Sprintf("TOKEN_%d", i)); got != fmt.Sprintf("sgpt_%d", i) {
			t.Errorf("TOKEN_%d was lost", i)
		}
	}
	if !strings.HasPrefix(text, "# everybody's\nPORT=80\n") || strings.Count(text, "\n") != n+2 {
		t.Errorf("the file is %q", text)
	}
}

func TestRefusals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.env")
	must(t, os.WriteFile(path, []byte("export TOKEN=canary\n"), 0o600))
	s := envfile.New(envfile.Config{Path: path, Key: "TOKEN"})
	secret := rotator.NewSecret("sgpt_canary")
	_, read := s.Read(t.Context())
	for what, err := range map[string]error{
		"check": s.Check(t.Context()), "push": s.Push(t.Context(), rotator.Generation{}, secret), "read": read,
	} {
		if err == nil || !strings.Contains(err.Error(), path+": line 1 writes") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v; want the file, the line and not its content", what, err)
		}
	}
	if content(t, path) != "export TOKEN=canary\n" {
		t.Error("it was changed all the same")
	}
	if err := s.Push(t.Context(), rotator.Generation{}, rotator.Secret{}); err == nil {
		t.Error("nothing was pushed, and no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
}

func TestModeOfTheFile(t *testing.T) {
	for _, tt := range []struct{ mode, want fs.FileMode }{{0, 0o600}, {0o640, 0o640}} {
		path := filepath.Join(t.TempDir(), "app.env")
		must(t, os.WriteFile(path, []byte("TOKEN=old\n"), 0o666))
		s := envfile.New(envfile.Config{Path: path, Key: "TOKEN", Mode: field.Mode(tt.mode)})
		must(t, s.Push(t.Context(), rotator.Generation{}, rotator.NewSecret("sgpt_new")))
		if info, err := os.Stat(path); err != nil || info.Mode() != tt.want {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, tt.want)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		c    envfile.Config
		want string
	}{
		{envfile.Config{Path: "app.env", Key: "TOKEN"}, ""},
		{envfile.Config{Path: "/etc/app.env", Key: "_t0", Mode: 0o640, Owner: "app", Group: "0", Format: envfile.Docker}, ""},
		{envfile.Config{}, "[path] is missing\n[key] is missing: the name of the variable, like SITEGPT_API_TOKEN"},
		{envfile.Config{Path: "~/app.env", Key: "0"}, "[path] ~ is not expanded: write the whole path\n" +
			`[key] "0" cannot be the name of a variable: it takes letters, digits and underscores, and does not begin with a digit`},
		{envfile.Config{Path: "etc/", Key: "sgpt_canary"}, `[path] "etc/" is a folder: name a file in it` + "\n[key] looks like a token: it must be the name of the variable"},
		{envfile.Config{Path: "a\nb", Key: "K", Mode: 0o606, Format: "compose"}, "[path] holds a control character\n[mode] 0606 lets everybody change the file\n" +
			`[format] "compose" is not one of portable, systemd, docker, shell`},
		{envfile.Config{Path: "..", Key: "K", Mode: 0o200}, `[path] ".." is a folder: name a file in it` + "\n[mode] 0200 lets not even the owner read the file"},
		{envfile.Config{Path: "a", Key: "K", Mode: 0o644}, "warning [mode] 0644 lets everybody on the machine read the token"},
	} {
		p := field.New()
		tt.c.Validate(p)
		var got []string
		for _, problem := range p.List() {
			line := fmt.Sprintf("%v %s", problem.Path, problem.Text)
			if problem.Warning {
				line = "warning " + line
			}
			got = append(got, line)
		}
		if strings.Join(got, "\n") != tt.want {
			t.Errorf("%+v:\ngot  %s\nwant %s", tt.c, strings.Join(got, "\n"), tt.want)
		}
	}
}

func TestPlace(t *testing.T) {
	c := envfile.Config{Path: "./x/../app.env", Key: "TOKEN", Owner: "app", Group: "web"}
	c.Resolve("/etc/rotatord")
	if want := "env_file:/etc/rotatord/app.env#TOKEN"; c.Place() != want {
		t.Errorf("place %s, want %s", c.Place(), want)
	}
	what, traits := c.Shares()
	if what != "file /etc/rotatord/app.env" || traits != "mode 0600, owner app, group web, format portable" {
		t.Errorf("shares %q with %q", what, traits)
	}
	empty := envfile.Config{}
	if empty.Resolve("/etc"); empty.Path != "" {
		t.Errorf("a missing path became %s", empty.Path)
	}
}
