package sitegpt_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/rotator/sitegpt"
)

func TestScopes(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sitegpt.Scopes() {
		if seen[s.Name] || !sitegpt.WellFormedScope(s.Name) || !sitegpt.KnownScope(s.Name) {
			t.Errorf("%s stands twice, or is malformed", s.Name)
		}
		seen[s.Name] = true
		if s.About == "" || strings.ContainsAny(s.About, "\n.") {
			t.Errorf("%s: %q is not one line", s.Name, s.About)
		}
	}
	if len(seen) != 37 {
		t.Errorf("%d scopes, want the documented 37", len(seen))
	}
	for _, s := range []string{"", "knowledge", "knowledge:", ":read", "Knowledge:read", "a:b:c", "a b:c", "a:b\n", "1a:b", "*:*"} {
		if sitegpt.WellFormedScope(s) || sitegpt.KnownScope(s) {
			t.Errorf("%q is taken for a scope", s)
		}
	}
	if !sitegpt.WellFormedScope("audit-log:read_all") || sitegpt.KnownScope("audit-log:read_all") {
		t.Error("a scope of a plan that is not documented must be well-formed and not known")
	}
}

func TestSuggest(t *testing.T) {
	for s, want := range map[string][]string{
		"knowledge:wirte":   {"knowledge:write"},
		"knowledge:write":   {"knowledge:write"},
		"chatbot:read":      {"chatbots:read"},
		" Leads:Read ":      {"leads:read"},
		"converstions:read": {"conversations:read"},
		"knowledge.read":    {"knowledge:read"},
		"token:write":       {"tokens:write"},
		"knowledge:edit":    {"knowledge:write"},
		"knowledge:manage":  {"knowledge:read", "knowledge:write", "knowledge:delete"},
		"billing":           {"billing:read", "billing:write"},
		"member:admin":      {"members:read", "members:write", "members:delete"},
		"billing:delete":    {"billing:read", "billing:write"},
		"weather:forecast":  nil,
		"":                  nil,
		"x":                 nil,
	} {
		if got := sitegpt.Suggest(s); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
