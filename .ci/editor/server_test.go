package editor

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// server is a yaml-language-server, and the editor in front of it.
type server struct {
	t      *testing.T
	in     io.Writer
	serial int
	opened int
	dir    string
	heard  chan message
	told   map[string][]diagnostic // by document
}

type message struct {
	ID     *json.RawMessage `json:"id,omitempty"`
	Method string           `json:"method,omitempty"`
	Params json.RawMessage  `json:"params,omitempty"`
	Result json.RawMessage  `json:"result,omitempty"`
	Error  json.RawMessage  `json:"error,omitempty"`
}

type position struct {
	Line      int `json:"line"`
	Character int `json:"character"`
}

type diagnostic struct {
	Range struct {
		Start position `json:"start"`
	} `json:"range"`
	Message string `json:"message"`
}

// start runs the server in a folder that holds rotatord's schema.
func start(t *testing.T) *server {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rotation.schema.json"), rotatord(t, 0, "", "schema"), 0o600); err != nil {
		t.Fatal(err)
	}
	name := os.Getenv("YAML_LANGUAGE_SERVER")
	if name == "" {
		t.Fatal("YAML_LANGUAGE_SERVER names no server: start this test by ./run")
	}
	c := exec.CommandContext(t.Context(), name, "--stdio")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, in: in, dir: dir, heard: make(chan message, 100), told: map[string][]diagnostic{}}
	go func() {
		defer close(s.heard)
		read(bufio.NewReader(out), s.heard)
	}()
	t.Cleanup(func() {
		in.Close()
		c.Process.Kill()
		c.Wait() //nolint:errcheck // killed
	})
	var capable struct {
		Capabilities struct {
			Hover any `json:"hoverProvider"`
		} `json:"capabilities"`
	}
	s.ask("initialize", map[string]any{
		"processId": os.Getpid(), "rootUri": s.uri(""),
		"capabilities": map[string]any{"textDocument": map[string]any{
			"completion":         map[string]any{"completionItem": map[string]any{"snippetSupport": true, "documentationFormat": []string{"markdown"}}},
			"hover":              map[string]any{"contentFormat": []string{"markdown"}},
			"publishDiagnostics": map[string]any{},
		}},
	}, &capable)
	if capable.Capabilities.Hover == nil {
		t.Fatal("this server has no hover: what is it?")
	}
	s.tell("initialized", map[string]any{})
	s.tell("workspace/didChangeConfiguration", map[string]any{"settings": map[string]any{"yaml": map[string]any{
		"schemaStore": map[string]any{"enable": false}, "completion": true, "hover": true, "validate": true,
	}}})
	return s
}

func read(r *bufio.Reader, heard chan<- message) {
	for {
		length := 0
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimSpace(line)
			if line == "" {
				break
			}
			if n, ok := strings.CutPrefix(line, "Content-Length: "); ok {
				length, _ = strconv.Atoi(n)
			}
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		var m message
		if json.Unmarshal(body, &m) == nil {
			heard <- m
		}
	}
}

func (s *server) uri(name string) string {
	return (&url.URL{Scheme: "file", Path: filepath.Join(s.dir, name)}).String()
}

func (s *server) send(m map[string]any) {
	s.t.Helper()
	m["jsonrpc"] = "2.0"
	body, err := json.Marshal(m)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(s.in, "Content-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) tell(method string, params any) {
	s.t.Helper()
	s.send(map[string]any{"method": method, "params": params})
}

// hear takes the next message, and notes and answers what is not for the test.
func (s *server) hear(what string) message {
	s.t.Helper()
	select {
	case m, open := <-s.heard:
		switch {
		case !open:
			s.t.Fatal("the server has ended")
		case m.Method == "textDocument/publishDiagnostics":
			var p struct {
				URI         string       `json:"uri"`
				Diagnostics []diagnostic `json:"diagnostics"`
			}
			if err := json.Unmarshal(m.Params, &p); err != nil {
				s.t.Fatal(err)
			}
			s.told[p.URI] = append([]diagnostic{}, p.Diagnostics...)
		case m.Method != "" && m.ID != nil:
			s.send(map[string]any{"id": m.ID, "result": nil})
		}
		return m
	case <-time.After(time.Minute):
		s.t.Fatalf("the server is silent, instead of %s", what)
		return message{}
	}
}

// ask sends a request and waits for its answer.
func (s *server) ask(method string, params, result any) {
	s.t.Helper()
	s.serial++
	s.send(map[string]any{"id": s.serial, "method": method, "params": params})
	for {
		m := s.hear(method)
		if m.Method != "" || m.ID == nil || string(*m.ID) != strconv.Itoa(s.serial) {
			continue
		}
		if len(m.Error) > 0 {
			s.t.Fatalf("%s: %s", method, m.Error)
		}
		if err := json.Unmarshal(m.Result, result); err != nil {
			s.t.Fatalf("%s: %v in %s", method, err, m.Result)
		}
		return
	}
}

// open shows the server a document; § is where the cursor stands.
func (s *server) open(text string) (uri string, at position) {
	s.t.Helper()
	text = "# yaml-language-server: $schema=./rotation.schema.json\n" + text
	if before, after, ok := strings.Cut(text, "§"); ok {
		text = before + after
		at.Line = strings.Count(before, "\n")
		at.Character = len(before) - strings.LastIndex(before, "\n") - 1
	}
	s.opened++
	name := fmt.Sprintf("rotation-%d.yaml", s.opened)
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	uri = s.uri(name)
	s.tell("textDocument/didOpen", map[string]any{"textDocument": map[string]any{"uri": uri, "languageId": "yaml", "version": 1, "text": text}})
	return uri, at
}

// marks returns what the editor would underline.
func (s *server) marks(text string) []diagnostic {
	s.t.Helper()
	uri, _ := s.open(text)
	for s.told[uri] == nil {
		s.hear("diagnostics")
	}
	return s.told[uri]
}

func at(uri string, p position) map[string]any {
	return map[string]any{"textDocument": map[string]any{"uri": uri}, "position": p}
}

// offers returns what the editor would complete, with what it says about it.
func (s *server) offers(text string) map[string]string {
	s.t.Helper()
	uri, p := s.open(text)
	var list struct {
		Items []struct {
			Label         string `json:"label"`
			Documentation any    `json:"documentation"`
		} `json:"items"`
	}
	s.ask("textDocument/completion", at(uri, p), &list)
	out := map[string]string{}
	for _, i := range list.Items {
		out[i.Label] = fmt.Sprint(i.Documentation)
	}
	return out
}

// hover returns what the editor would show above the cursor.
func (s *server) hover(text string) string {
	s.t.Helper()
	uri, p := s.open(text)
	var h struct {
		Contents struct {
			Value string `json:"value"`
		} `json:"contents"`
	}
	s.ask("textDocument/hover", at(uri, p), &h)
	return h.Contents.Value
}

// rotatord runs the command, which has to end with a code.
func rotatord(t *testing.T, code int, stdin string, args ...string) []byte {
	t.Helper()
	name := os.Getenv("ROTATORD")
	if name == "" {
		t.Fatal("ROTATORD names no binary: start this test by ./run")
	}
	c := exec.CommandContext(t.Context(), name, args...)
	c.Stdin = strings.NewReader(stdin)
	c.Env = []string{}
	var errs strings.Builder
	c.Stderr = &errs
	out, _ := c.Output()
	if got := c.ProcessState.ExitCode(); got != code {
		t.Fatalf("rotatord %s ended with %d: %s%s", strings.Join(args, " "), got, out, errs.String())
	}
	return out
}
