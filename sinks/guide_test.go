package sinks_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Newcomers copy the code of docs/adding-a-sink.md: it has to compile, in all of its places.
func TestTheGuideIsTrue(t *testing.T) {
	guide, err := os.ReadFile("../docs/adding-a-sink.md")
	if err != nil {
		t.Fatal(err)
	}
	code := map[string]string{} // by what follows the fence
	parts := strings.Split(string(guide), "```")
	for i := 1; i < len(parts); i += 2 {
		name, text, _ := strings.Cut(parts[i], "\n")
		code[name] = text
	}
	source, err := os.ReadFile("sinks.go")
	if err != nil {
		t.Fatal(err)
	}
	text := string(source)
	for _, edit := range []struct{ anchor, code string }{
		{"import (\n", "\t\"net/http\"\n\t\"github.com/rotatord/rotatord/sinks/httpput\"\n"},
		{"type Spec struct {\n", code["go spec"]},
		{"func (s Spec) blocks() (kinds []string, blocks []block) {\n\tadd := func(kind string, b block) {\n\t\tkinds, blocks = append(kinds, kind), append(blocks, b)\n\t}\n", code["go blocks"]},
		{"func (s Spec) Under(dir string) (rehearsal Spec, instead string) {\n\tswitch {\n", code["go under"]},
		{"func (o *Opener) Open(s Spec) (rotator.Sink, error) {\n\tswitch kind := s.Kind(); kind {\n", code["go open"]},
	} {
		if edit.code == "" || strings.Count(text, edit.anchor) != 1 {
			t.Fatalf("the guide, or sinks.go, has changed at %q: adapt this test", edit.anchor)
		}
		text = strings.Replace(text, edit.anchor, edit.anchor+edit.code, 1)
	}

	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(here, "sinks.go"):              write("sinks.go", text),
		filepath.Join(here, "httpput", "httpput.go"): write("httpput.go", code["go"]),
	}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", write("overlay.json", string(overlay)), ".").CombinedOutput()
	if err != nil {
		t.Errorf("the guide's code does not compile: %v\n%s", err, out)
	}
}
