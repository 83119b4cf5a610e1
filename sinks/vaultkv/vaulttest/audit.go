package vaulttest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// Request is one request as the audit device has it.
type Request struct {
	Operation string // create, read, update, patch, delete, list
	Path      string
	Refused   bool // it was answered with an error
}

// Audit switches an audit device on, and returns what reads the requests that it has seen since
// the last such call. Those of Do and Must are left out.
func (s *Server) Audit(t testing.TB) (seen func() []Request) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	s.Must(t, http.MethodPut, "sys/audit/file", map[string]any{"type": "file", "options": map[string]string{"file_path": path}})
	read := 0
	return func() []Request {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var out []Request
		for line := range bytes.Lines(text[read:]) {
			var entry struct {
				Type string `json:"type"`
				Auth struct {
					Policies []string `json:"policies"`
				} `json:"auth"`
				Request struct {
					Operation string `json:"operation"`
					Path      string `json:"path"`
				} `json:"request"`
				Error string `json:"error"`
			}
			if err := json.Unmarshal(line, &entry); err != nil {
				t.Fatalf("vaulttest: audit: %v", err)
			}
			if entry.Type != "response" || len(entry.Auth.Policies) == 1 && entry.Auth.Policies[0] == "root" {
				continue
			}
			out = append(out, Request{Operation: entry.Request.Operation, Path: entry.Request.Path, Refused: entry.Error != ""})
		}
		read = len(text)
		return out
	}
}
