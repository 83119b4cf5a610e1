package management

import (
	"os"
	"testing"
)

// InFile returns the plaintexts in a file of rotated tokens.
func InFile(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var out []string
	for _, c := range parse(text) {
		out = append(out, c.secret.Reveal())
	}
	return out
}
