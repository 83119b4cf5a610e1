package consumers

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// message is what a consumer learns: which tokens changed, and nothing of the tokens themselves. The
// same changes are the same message, to the byte, however often they are told.
type message struct {
	Format   int       `json:"format"` // 1
	Type     string    `json:"type"`   // tokens.changed
	ID       string    `json:"id"`     // of these very changes
	At       time.Time `json:"timestamp"`
	Instance string    `json:"instance"`
	Consumer string    `json:"consumer"`
	Tokens   []changed `json:"tokens"` // sorted by name
}

type changed struct {
	Name       string    `json:"name"`
	Generation int       `json:"generation"`
	Promoted   time.Time `json:"promoted_at"`
	Expires    time.Time `json:"expires_at"`
}

func newMessage(consumer, instance string, changes []Change) message {
	m := message{Format: 1, Type: "tokens.changed", Instance: instance, Consumer: consumer, Tokens: []changed{}}
	for _, c := range changes {
		m.Tokens = append(m.Tokens, changed{c.Entry, c.Generation, c.Promoted.UTC().Truncate(time.Millisecond), c.Expires.UTC().Truncate(time.Second)})
	}
	slices.SortFunc(m.Tokens, func(a, b changed) int { return cmp.Compare(a.Name, b.Name) })
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q\n", instance, consumer)
	for _, t := range m.Tokens {
		fmt.Fprintf(sum, "%q %d %d\n", t.Name, t.Generation, t.Promoted.UnixMilli())
		if t.Promoted.After(m.At) {
			m.At = t.Promoted
		}
	}
	m.ID = "rotatord_" + hex.EncodeToString(sum.Sum(nil)[:16])
	return m
}

func (m *message) body() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // it consists of text, numbers and instants between year 0 and 9999
	}
	return b
}
