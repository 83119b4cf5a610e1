package manifests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const guide = "../../docs/containers.md"

// blocks are the blocks of code in the guide that begin with a comment, the name of a file.
var blocks = regexp.MustCompile("(?ms)^```[a-z]+\n(?:#|//) ([^\n ]+)\n(.*?)^```$")

// file returns the file of this name from the guide.
func file(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range blocks.FindAllStringSubmatch(string(text), -1) {
		if m[1] == name {
			return []byte(m[2])
		}
	}
	t.Fatalf("%s has no block that begins with a comment %q", guide, name)
	return nil
}

// TestEveryFile holds that no file of the guide escapes the tests.
func TestEveryFile(t *testing.T) {
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range blocks.FindAllStringSubmatch(string(text), -1) {
		found = append(found, m[1])
	}
	want := []string{"compose.yaml", "etc/rotation.yaml", "rotatord.yaml", "cronjob.yaml", "rotatord.nomad.hcl"}
	if !slices.Equal(found, want) {
		t.Errorf("the guide has the files %q, and the tests know %q", found, want)
	}
	all := regexp.MustCompile("(?m)^```(yaml|hcl)$").FindAllString(string(text), -1)
	if len(all) != len(found) {
		t.Errorf("%d of the guide's %d blocks of YAML and HCL begin with the name of a file", len(found), len(all))
	}
}

// program builds rotatord, once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "rotatord-manifests-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "rotatord")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/rotatord")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	return path, cmd.Run()
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, _ := program(); path != "" {
		os.RemoveAll(filepath.Dir(path)) //nolint:errcheck // a temporary folder
	}
	os.Exit(code)
}

// accepted holds that rotatord accepts a configuration.
func accepted(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rotation.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rotatord(t, "validate", "--config", path)
}

// known holds that rotatord knows a command line, by asking for its help.
func known(t *testing.T, args ...string) {
	t.Helper()
	if len(args) == 0 {
		t.Fatal("the image is started without a command")
	}
	rotatord(t, append(slices.Clone(args), "--help")...)
}

func rotatord(t *testing.T, args ...string) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("rotatord %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
