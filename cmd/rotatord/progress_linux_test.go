package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newTerminal returns a terminal, and what ends it and tells what was written to it.
func newTerminal(t *testing.T) (tty *os.File, end func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal("no terminal can be had: ", err)
	}
	fd := int(master.Fd()) //nolint:gosec // it is small
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan string)
	go func() {
		text, _ := io.ReadAll(master) // EIO is how a terminal ends
		shown <- string(text)
	}()
	return tty, func() string {
		tty.Close() //nolint:errcheck // it ends what is read
		defer master.Close()
		return <-shown
	}
}

// What takes a minute tells whoever waits at a terminal how far it is, and leaves no trace of that; in a
// file there is none of it.
func TestProgressIsForWhoWaits(t *testing.T) {
	s := newStage(t, twoTokensOfAStory)
	for _, args := range []string{"simulate --until 5d --worst", "drill"} {
		var out bytes.Buffer
		tty, end := newTerminal(t)
		code := run(t.Context(), append(strings.Fields(args), "--config", s.dir+"/rotation.yaml", "--state-dir", s.dir+"/state"), environment{
			stdin: strings.NewReader(""), stdout: &out, stderr: tty,
			getenv: func(string) string { return "" }, environ: func() []string { return nil }, now: time.Now,
		})
		shown := end()
		if code != exitOK {
			t.Fatalf("%s: exit code %d\n%s%s", args, code, &out, shown)
		}
		last := "\r2 of 2 "
		if at := strings.LastIndex(shown, last); at < 0 || !strings.HasPrefix(shown, "\r0 of 2 ") || !strings.HasSuffix(shown, " \r") || strings.Contains(shown, "\n") ||
			strings.Trim(shown[strings.LastIndex(strings.TrimSuffix(shown, "\r"), "\r"):], " \r") != "" {
			t.Errorf("%s: shown: %q", args, shown)
		}
		if strings.Contains(out.String(), "2 of 2") {
			t.Errorf("%s: it is in what is printed:\n%s", args, &out)
		}
		if s.run(exitOK, strings.Fields(args)...); s.stderr != "" {
			t.Errorf("%s: nobody waits there: %q", args, s.stderr)
		}
	}
}

const twoTokensOfAStory = oneToken + `  - {name: kb, scopes: [leads:read], schedule: "@weekly", sinks: [{file: {path: kb}}]}
`
