//go:build linux

package crashpoint

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// replace is a script that replaces a file, and syncs what its arguments name in between.
const replace = `printf new >f.tmp; [ "$1" = 0 ] || sync f.tmp; mv f.tmp f; [ "$2" = 0 ] || sync .; exit 7`

func life(t *testing.T, syncs ...string) Life {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Life{
		Path: "/bin/sh", Args: append([]string{"-c", replace, "sh"}, syncs...), Env: []string{"PATH=" + os.Getenv("PATH")},
		Dir: dir, Watch: []string{dir},
	}
}

func TestStepsAreSeenAndTheLastOneIsNotDone(t *testing.T) {
	t.Parallel()
	want := []Step{{"create", "f.tmp"}, {"write", "f.tmp"}, {"sync", "f.tmp"}, {"rename", "f"}, {"sync", ""}}
	for n := range len(want) + 1 {
		l := life(t, "1", "1")
		l.Kill = n
		end, err := l.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		steps := slices.Clone(want)
		for i := range steps {
			steps[i].Path = filepath.Join(l.Dir, steps[i].Path)
		}
		if n > 0 {
			steps = steps[:n]
		}
		if n == 0 && end.Code != 7 || end.Killed != (n > 0) || !slices.Equal(end.Steps, steps) {
			t.Errorf("killed before step %d: %+v", n, end)
		}
		// In a shell, rename and sync are programs of their own, which outlive it and finish.
		_, tmp := os.Lstat(filepath.Join(l.Dir, "f.tmp"))
		if there := tmp == nil; n > 0 && there != (n == 2 || n == 3) {
			t.Errorf("killed before step %d, the new file is there: %t", n, there)
		}
	}
}

func TestWhatAPowerCutLeaves(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file, folder string // synced?
		power        Power
		want         string
	}{
		{"0", "0", Stays, "new"},
		{"0", "0", LoseAll, "old"},
		{"0", "0", LoseNames, "old"},
		{"0", "0", LoseData, ""}, // the empty file that people find after a power cut
		{"1", "0", LoseAll, "old"},
		{"1", "0", LoseNames, "old"},
		{"1", "0", LoseData, "new"},
		{"0", "1", LoseAll, ""},
		{"0", "1", LoseNames, "new"},
		{"1", "1", LoseAll, "new"},
		{"1", "1", LoseNames, "new"},
		{"1", "1", LoseData, "new"},
	} {
		l := life(t, c.file, c.folder)
		l.Power = c.power
		end, err := l.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(l.Dir, "f"))
		if err != nil || end.Code != 7 || string(got) != c.want {
			t.Errorf("file synced %s, folder synced %s, %q: the file holds %q, want %q (%v)", c.file, c.folder, c.power, got, c.want, err)
		}
		if _, err := os.Lstat(filepath.Join(l.Dir, "f.tmp")); err == nil && c.power == Stays {
			t.Error("the temporary file is still there")
		}
	}
}

// What outlives a program that is killed does not outlive the power: else it would go on, its syncs
// unseen, and rename what is said to be lost.
func TestNobodyGoesOnWithoutPower(t *testing.T) {
	t.Parallel()
	for power, want := range map[Power]string{Stays: "new", LoseAll: "old", LoseData: "old", LoseNames: "old"} {
		l := life(t)
		l.Args[1] = `(sleep 0.2; printf new >f.tmp; sync f.tmp; mv f.tmp f; sync .) & printf x >other; wait`
		l.Kill, l.Power = 1, power
		end, err := l.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(l.Dir, "f"))
		if err != nil || !end.Killed || string(got) != want {
			t.Errorf("%s: the file holds %q, want %q (%v, %+v)", power, got, want, err, end)
		}
	}
}
