package rotator_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/rotator"
)

// Whatever is done to a Secret, and to what holds one, short of Reveal, the plaintext stays inside.
func TestSecretSaysNothing(t *testing.T) {
	const plaintext = "sgpt_canary"
	s := rotator.NewSecret(plaintext)
	type inside struct {
		Shown  rotator.Secret
		hidden rotator.Secret
	}
	values := map[string]any{
		"itself": s, "a pointer to it": &s, "in a struct": inside{s, s}, "in a pointer to a struct": &inside{s, s},
		"in a slice": []rotator.Secret{s}, "in a map": map[string]rotator.Secret{"k": s}, "as a key": map[rotator.Secret]int{s: 1},
		"in an issued token": rotator.Issued{ID: "tok_1", Token: s},
	}
	for what, v := range values {
		said := map[string]string{}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%10.3s", "%T"} {
			said[verb] = fmt.Sprintf(verb, v)
		}
		said["Sprint"] = fmt.Sprint(v)
		said["an error"] = fmt.Errorf("push: %w (%v)", fmt.Errorf("%v", v), v).Error()
		if b, err := json.Marshal(v); err == nil {
			said["JSON"] = string(b)
		}
		if b, err := xml.Marshal(v); err == nil {
			said["XML"] = string(b)
		}
		var text, lines bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("m", "v", v, slog.Any("w", v))
		slog.New(slog.NewJSONHandler(&lines, nil)).Info("m", "v", v, slog.Any("w", v))
		said["slog text"], said["slog JSON"] = text.String(), lines.String()
		for how, out := range said {
			for form, p := range map[string]string{"": plaintext, " in hexadecimal": fmt.Sprintf("%x", plaintext), " in part": "canary"} {
				if strings.Contains(strings.ToLower(out), p) {
					t.Errorf("%s, by %s, shows the plaintext%s: %s", what, how, form, out)
				}
			}
		}
	}
	for how, out := range map[string]string{"String": s.String(), "GoString": s.GoString()} {
		if out != "[redacted]" {
			t.Errorf("%s says %q", how, out)
		}
	}
	if s.Reveal() != plaintext || s.IsZero() || !s.IsToken() {
		t.Errorf("the secret holds %q", s.Reveal())
	}
}

func TestZeroSecret(t *testing.T) {
	for _, s := range []rotator.Secret{{}, rotator.NewSecret("")} {
		if !s.IsZero() || s.Reveal() != "" || s.Hash([]byte("key")) != "" || s.IsToken() || fmt.Sprint(s) != "[redacted]" {
			t.Errorf("%v is not empty", s)
		}
	}
}

func TestHashNeedsTheKey(t *testing.T) {
	s := rotator.NewSecret("sgpt_canary")
	one, two := s.Hash([]byte("one")), s.Hash([]byte("two"))
	switch {
	case one != rotator.NewSecret("sgpt_canary").Hash([]byte("one")):
		t.Error("the same value has two hashes")
	case one == two, one == rotator.NewSecret("sgpt_canarY").Hash([]byte("one")):
		t.Error("two have the same hash")
	case len(one) != 64 || strings.Contains(one, "canary"):
		t.Errorf("hash %q", one)
	}
}
