package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// An API whose answers are longer than they say: the rest of one with a plaintext stands nowhere.
func TestRestOfAnAnswer(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer := func(c net.Conn) {
		defer c.Close() //nolint:errcheck // it is a test's
		for r := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body) //nolint:errcheck // what follows fails as well
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n%s", `{"ok":true,"data":{"token":"sgpt_CANARY"}}`)
		}
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { answer(c) })
		}
	})
	s := newStage(t, oneToken)
	s.url = "http://" + l.Addr().String()
	out := s.execute(exitFailed, "doctor")
	l.Close() //nolint:errcheck // it ends the goroutines, whose other ends are gone
	serving.Wait()
	if !strings.Contains(out, "the answer is not the API's") || strings.Contains(out, "CANARY") || strings.Contains(out, "Unsolicited") {
		t.Error(out)
	}
}

// What people are told to type is what they typed.
func TestTyped(t *testing.T) {
	for arg0, want := range map[string]string{
		"rotatord": "rotatord", "./bin/rotatord": "./bin/rotatord", "/usr/bin/rotatord": "/usr/bin/rotatord",
		"/tmp/go-build1900976521/b001/exe/rotatord": "go run ./cmd/rotatord",
	} {
		if got := typed(arg0); got != want {
			t.Errorf("%s: %q, want %q", arg0, got, want)
		}
	}
}
