package rotator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// redacted is all that a Secret ever says of itself.
const redacted = "[redacted]"

// Secret holds one plaintext. It is the only type that does: whatever prints, logs or encodes
// it gets "[redacted]", and only Reveal gives the text away. The zero Secret holds nothing.
//
// The text stands behind a pointer, so that %#v of a struct with a Secret inside, which calls no
// method on an unexported field, prints an address.
type Secret struct{ v *string }

// NewSecret wraps a plaintext. An empty text gives the zero Secret.
func NewSecret(plaintext string) Secret {
	if plaintext == "" {
		return Secret{}
	}
	return Secret{v: &plaintext}
}

// Reveal returns the plaintext, or "" for the zero Secret.
func (s Secret) Reveal() string {
	if s.v == nil {
		return ""
	}
	return *s.v
}

// IsZero reports whether s holds nothing.
func (s Secret) IsZero() bool { return s.v == nil }

// IsToken reports whether s has the shape of a SiteGPT token (sgpt_…).
func (s Secret) IsToken() bool { return strings.HasPrefix(s.Reveal(), "sgpt_") }

// Hash returns the HMAC-SHA-256 of the plaintext in hexadecimal, or "" for the zero Secret.
// It is keyed with the instance's own key, so that a stolen state lets nobody test guesses.
func (s Secret) Hash(key []byte) string {
	if s.IsZero() {
		return ""
	}
	m := hmac.New(sha256.New, key)
	io.WriteString(m, s.Reveal()) //nolint:errcheck // a hash never fails to write
	return hex.EncodeToString(m.Sum(nil))
}

func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) Format(f fmt.State, _ rune)   { io.WriteString(f, redacted) } //nolint:errcheck // fmt reports it
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
