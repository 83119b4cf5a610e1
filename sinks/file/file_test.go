package file_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/sinks/file"
	"github.com/rotatord/rotatord/sinks/sinktest"
)

func place(t *testing.T, template string) (file.Config, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "etc")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := file.Config{Path: filepath.Join(dir, "token"), Template: template}
	c.Resolve(dir)
	return c, c.Path
}

func TestConformance(t *testing.T) {
	sinktest.Run(t, sinktest.Harness{Lines: true, New: func(t *testing.T) sinktest.Fixture {
		c, path := place(t, "")
		return sinktest.Fixture{
			Sink: file.New(c), Other: file.New(c), Address: path, Dir: filepath.Dir(path),
			See: func() string {
				b, _ := os.ReadFile(path)
				return strings.TrimSuffix(string(b), "\n")
			},
			Write: func(v string) {
				if v == "" {
					os.Remove(path)
				} else if err := os.WriteFile(path, []byte(v), 0o600); err != nil {
					t.Fatal(err)
				}
			},
		}
	}})
}

func TestTemplateIsReadBack(t *testing.T) {
	c, path := place(t, `{"token": "{{.Token}}", "name": "{{.Name}}", "expires_at": "{{.ExpiresAt}}"}`)
	s := file.New(c)
	g := rotator.Generation{Entry: "bot", Number: 1, ID: "tok_1", Expires: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)}
	if err := s.Push(context.Background(), g, rotator.NewSecret("sgpt_abc")); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"token": "sgpt_abc"`) || !strings.Contains(string(b), "2027-01-02T03:04:05Z") {
		t.Errorf("the file holds %q", b)
	}
	got, err := s.Read(context.Background())
	if err != nil || got.Reveal() != "sgpt_abc" {
		t.Errorf("read back: %v, %v", got.Reveal() == "sgpt_abc", err)
	}
}

func TestBadTemplatesAreRefusedAtLoad(t *testing.T) {
	for _, text := range []string{"{{.Tokn}}", "{{", "no token at all"} {
		c, _ := place(t, text)
		p := field.New()
		c.Validate(p)
		if len(p.List()) == 0 {
			t.Errorf("template %q is accepted", text)
		}
	}
}
