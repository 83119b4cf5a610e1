package rotator

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of names that stand in a label, chosen so that the mark always fits.
const (
	MaxLabel    = 120 // characters; documented by SiteGPT for a token's name
	MaxName     = 48  // of an entry
	MaxInstance = 16
)

// Label is the name that a generation carries at SiteGPT: our mark, and a description for people.
//
//	rotatord/INSTANCE/ENTRY#7 20261201T030000Z k3v9q2m1x8d4t6zc the support bot
//
// The last part of the mark is 80 random bits: no two labels are ever the same, not even of two
// clones of one machine, and nobody makes one by accident.
type Label struct {
	Instance string
	Entry    string
	Number   int
	Expires  time.Time // UTC, whole seconds
	Nonce    string    // 16 characters of base32
}

const (
	labelPrefix = "rotatord/"
	labelTime   = "20060102T150405Z"
)

var (
	base32lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	labelShape  = regexp.MustCompile(`^rotatord/([a-z0-9][a-z0-9-]*)/([a-z0-9][a-z0-9._-]*)#([1-9][0-9]{0,6}) ([0-9]{8}T[0-9]{6}Z) ([a-z2-7]{16})( |$)`)
)

// NewNonce returns n random bytes as lower-case base32.
func NewNonce(n int) string {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // crypto/rand never fails
	return base32lower.EncodeToString(b)
}

// String is the mark alone.
func (l Label) String() string {
	return fmt.Sprintf("%s%s/%s#%d %s %s", labelPrefix, l.Instance, l.Entry, l.Number, l.Expires.UTC().Format(labelTime), l.Nonce)
}

// With returns the mark followed by as much of the description as fits into MaxLabel characters.
func (l Label) With(description string) string {
	s := l.String()
	d := strings.Join(strings.FieldsFunc(description, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
	room := MaxLabel - utf8.RuneCountInString(s) - 1
	if d == "" || room < 1 {
		return s
	}
	if r := []rune(d); len(r) > room {
		d = strings.TrimSpace(string(r[:room]))
	}
	return s + " " + d
}

// ParseLabel reads the mark back; false where name does not carry one.
func ParseLabel(name string) (Label, bool) {
	m := labelShape.FindStringSubmatch(name)
	if m == nil {
		return Label{}, false
	}
	n, err := strconv.Atoi(m[3])
	if err != nil {
		return Label{}, false
	}
	t, err := time.Parse(labelTime, m[4])
	if err != nil {
		return Label{}, false
	}
	return Label{Instance: m[1], Entry: m[2], Number: n, Expires: t, Nonce: m[5]}, true
}
