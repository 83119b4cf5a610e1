package rotator_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/rotatord/rotatord/rotator"
)

// A kind that is missing in its list is one that nobody counts or explains.
func TestKindsAreComplete(t *testing.T) {
	for file, known := range map[string][]string{"describe.go": texts(rotator.ProblemKinds()), "event.go": texts(rotator.EventKinds())} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var written []string
		for _, m := range regexp.MustCompile(`(?m)^\t(?:Problem|Event)\w+ +(?:Problem|Event)Kind += "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
			written = append(written, m[1])
		}
		if len(written) < 15 || !slices.Equal(written, known) {
			t.Errorf("%s declares %q, and lists %q", file, written, known)
		}
	}
}

func texts[T ~string](all []T) (out []string) {
	for _, t := range all {
		out = append(out, string(t))
	}
	return out
}
