package consumers_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator/consumers"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/webhook"
)

// The receiver can tell who asks, what changed, and whether it heard of it before.
func TestHTTPIsTold(t *testing.T) {
	var bodies, ids []string
	code := http.StatusServiceUnavailable
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		at, _ := strconv.ParseInt(r.Header.Get("webhook-timestamp"), 10, 64)
		id := r.Header.Get("webhook-id")
		if want := webhook.Sign([]byte("shared"), id, time.Unix(at, 0), b); r.Header.Get("webhook-signature") != want {
			t.Errorf("signature %q, want %q", r.Header.Get("webhook-signature"), want)
		}
		bodies, ids = append(bodies, string(b)), append(ids, id)
		w.WriteHeader(code)
		io.WriteString(w, "a body that is nobody's business")
	}))
	defer s.Close()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("shared\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := consumers.Spec{HTTP: &consumers.HTTP{Config: webhook.Config{URL: field.URL{Text: s.URL + "/reload?key=hunter2"}, Secret: &field.SecretRef{File: "secret"}}}}
	c, err := spec.Resolve(dir).Open("bot", consumers.World{Instance: "prod", Now: time.Now, Getenv: os.Getenv, Agent: "rotatord/x"})
	if err != nil {
		t.Fatal(err)
	}
	if taken, err := c.Tell(t.Context(), two); taken || err == nil || !strings.HasSuffix(err.Error(), "answered 503 Service Unavailable") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v, %v", taken, err)
	}
	code = http.StatusAccepted
	if taken, err := c.Tell(t.Context(), two); !taken || err != nil {
		t.Errorf("%v, %v", taken, err)
	}
	if len(ids) != 2 || ids[0] != ids[1] || bodies[0] != bodies[1] {
		t.Errorf("told twice of the same: %q %q", ids, bodies)
	}
	// The same number once more is another token where it was promoted at another time: a state was put
	// back, or begun anew. Who acts on each id once must act on it.
	later := slices.Clone(two)
	later[0].Promoted = later[0].Promoted.Add(time.Millisecond)
	if _, err := c.Tell(t.Context(), later); err != nil || len(ids) != 3 || ids[2] == ids[0] {
		t.Errorf("another token of the same number: %q, %v", ids, err)
	}
	// Two that are told at one URL are no repetition of each other.
	for name, w := range map[string]consumers.World{"other": {Instance: "prod", Now: time.Now}, "bot": {Instance: "test", Now: time.Now}} {
		c, err := spec.Resolve(dir).Open(name, w)
		if err == nil {
			_, err = c.Tell(t.Context(), two)
		}
		if id := ids[len(ids)-1]; err != nil || id == ids[0] {
			t.Errorf("%s of %s: %q, %v", name, w.Instance, id, err)
		}
	}
	var m struct {
		Format                       int
		Type, ID, Instance, Consumer string
		Tokens                       []struct {
			Name       string
			Generation int
		}
	}
	if err := json.Unmarshal([]byte(bodies[0]), &m); err != nil || m.Format != 1 || m.ID != ids[0] || m.Instance != "prod" || len(m.Tokens) != 2 || m.Tokens[0].Name != "a" || m.Tokens[0].Generation != 7 {
		t.Errorf("%v: %s", err, bodies[0])
	}
	if title := spec.Title("bot"); title != "bot ("+strings.TrimPrefix(s.URL, "http://")+")" {
		t.Errorf("people call it %q", title)
	}
}
