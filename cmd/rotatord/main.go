// Command rotatord keeps short-lived SiteGPT API tokens fresh: it reads the tokens that you want
// from rotation.yaml, creates each one's successor before it expires, and brings it to every sink.
//
// This package holds what is between people and the engine: flags, environment, logs, signals and
// exit codes. One file a command; what they share is in house.go.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"
	_ "time/tzdata" // a bare image has no time zones
)

func main() {
	// What net/http prints by itself quotes what it was sent: the rest of an answer that is longer than
	// it says, with the token that was just made. Our own log goes another way.
	log.SetOutput(io.Discard)
	if err := keepMemory(); err != nil {
		fmt.Fprintln(os.Stderr, "rotatord:", err)
		os.Exit(exitFailed)
	}
	os.Exit(run(context.Background(), os.Args[1:], environment{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		getenv: os.Getenv, environ: os.Environ, now: time.Now, program: typed(os.Args[0]), system: "/var/lib/rotatord",
	}))
}

// typed is how a program was started that calls itself arg0.
func typed(arg0 string) string {
	if strings.Contains(arg0, "go-build") { // go run calls it by where it built it
		return "go run ./cmd/rotatord"
	}
	return arg0
}
