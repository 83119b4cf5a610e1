package field

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	known := []string{"bot", "support-bot", "kb-writer", "wörter", "x"}
	for s, want := range map[string]string{
		"bto": "bot", "both": "bot", "but": "bot", "bats": "", "boat": "bot",
		"suport-bto": "support-bot", "support_bot": "support-bot", "sport-bots": "",
		"kb-writer": "kb-writer", "kbwriter": "kb-writer", "worter": "wörter",
		"": "", "y": "", "xx": "", "something-else": "", strings.Repeat("bot", 100_000): "",
	} {
		if got := Nearest(s, known); got != want {
			t.Errorf("%.20q: got %q, want %q", s, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "abc", 0},
		{"abc", "abd", 1},
		{"abc", "ab", 1},
		{"abc", "xabc", 1},
		{"abc", "acb", 1},
		{"abcd", "badc", 2},
		{"ca", "abc", 3},
		{"ä", "a", 1},
		{"äb", "bä", 1},
		{"kitten", "sitting", 3},
	} {
		if got := Distance(tc.a, tc.b); got != tc.want {
			t.Errorf("%q to %q: %d, want %d", tc.a, tc.b, got, tc.want)
		}
		if got := Distance(tc.b, tc.a); got != tc.want {
			t.Errorf("%q to %q: %d, want %d", tc.b, tc.a, got, tc.want)
		}
	}
}
