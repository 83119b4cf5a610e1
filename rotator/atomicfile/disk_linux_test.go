package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/rotator/atomicfile/disktest"
)

func TestDiskIsFull(t *testing.T) {
	t.Parallel()
	if !disktest.Alone(t) {
		return
	}
	dir := t.TempDir()
	disktest.Tmpfs(t, dir, 128)
	path, fresh := filepath.Join(dir, "token"), filepath.Join(dir, "fresh")
	update(t, path, Options{}, "old")
	free := disktest.Fill(t, dir)
	for name, err := range map[string]error{
		"check":               Check(t.Context(), path, Options{}),
		"update":              Update(t.Context(), path, Options{}, to("new")),
		"update with more":    Update(t.Context(), path, Options{}, to(strings.Repeat("n", 1<<17))),
		"check of no file":    Check(t.Context(), fresh, Options{}),
		"update from no file": Update(t.Context(), fresh, Options{}, to("new")),
	} {
		want := path
		if strings.Contains(name, "no file") {
			want = fresh
		}
		wantSays(t, err, want+": ", "the disk is full", "free some space", "the old content is whole")
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v is not ENOSPC", name, err)
		}
	}
	wantContent(t, path, "old")
	wantNames(t, dir, "token", "filler", ".token.lock", ".fresh.lock")
	update(t, path, Options{}, "old") // which takes no room
	free()
	for _, path := range []string{path, fresh} {
		if err := Check(t.Context(), path, Options{}); err != nil {
			t.Errorf("with room again: %v", err)
		}
		update(t, path, Options{}, "new")
		wantContent(t, path, "new")
	}
	wantNames(t, dir, "token", "fresh", ".token.lock", ".fresh.lock")
}

func TestDiskIsReadOnly(t *testing.T) {
	t.Parallel()
	if !disktest.Alone(t) {
		return
	}
	dir := t.TempDir()
	disktest.Tmpfs(t, dir, 128)
	path, fresh := filepath.Join(dir, "token"), filepath.Join(dir, "fresh")
	update(t, path, Options{}, "old")
	writable := disktest.ReadOnly(t, dir)
	for _, path := range []string{path, fresh} {
		for _, err := range []error{Check(t.Context(), path, Options{}), Update(t.Context(), path, Options{}, to("new"))} {
			wantSays(t, err, path+": ", "the file system is read-only", "mount it writable", "ReadWritePaths=-"+dir)
			if !errors.Is(err, syscall.EROFS) {
				t.Errorf("%v is not EROFS", err)
			}
		}
	}
	if got, err := Read(path); err != nil || string(got) != "old" {
		t.Errorf("read %q (%v)", got, err)
	}
	writable()
	wantNames(t, dir, "token", ".token.lock")
	update(t, path, Options{}, "new")
}

// Containers mount single files: what is mounted cannot be replaced.
func TestFileIsAMount(t *testing.T) {
	t.Parallel()
	if !disktest.Alone(t) {
		return
	}
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "real")
	path, device := filepath.Join(dir, "token"), filepath.Join(dir, "device")
	for _, p := range []string{path, device, elsewhere} {
		write(t, p, "old", 0o600)
	}
	disktest.Bind(t, elsewhere, path)
	disktest.Bind(t, "/dev/null", device)
	for _, err := range []error{Check(t.Context(), path, Options{}), Update(t.Context(), path, Options{}, to("new"))} {
		wantSays(t, err, path+": ", "mount the folder "+dir+" instead")
		if !errors.Is(err, syscall.EBUSY) {
			t.Errorf("%v is not EBUSY", err)
		}
	}
	wantContent(t, path, "old")
	wantContent(t, elsewhere, "old")
	for _, err := range []error{Check(t.Context(), device, Options{}), Update(t.Context(), device, Options{}, to("new"))} {
		wantSays(t, err, device, "no regular file", "name another path")
	}
	if info, err := os.Lstat(device); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("the device was replaced: %v", err)
	}
	wantNames(t, dir, "token", "device", ".token.lock")
}
