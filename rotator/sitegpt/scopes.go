package sitegpt

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/rotatord/rotatord/rotator/field"
)

// ScopePattern is the shape of a scope, as a regular expression.
const ScopePattern = `^[a-z][a-z0-9_-]*:[a-z][a-z0-9_-]*$`

var scopeShape = regexp.MustCompile(ScopePattern)

// Scope is one permission that a token can carry.
type Scope struct {
	Name  string // resource:verb
	About string // one line for people
}

// Scopes returns the documented scopes, in the order of the documentation. Some deployments know
// more of them (plans, administrators): a well-formed scope that is not here may still be right.
func Scopes() []Scope {
	return []Scope{
		{"account:read", "see the account and who the token belongs to"},
		{"account:write", "change the account's own data"},
		{"tokens:read", "list API tokens (never their plaintext)"},
		{"tokens:write", "create and revoke API tokens"},
		{"chatbots:read", "see chatbots"},
		{"chatbots:write", "create and change chatbots"},
		{"chatbots:delete", "delete chatbots"},
		{"knowledge:read", "see what a chatbot was trained on"},
		{"knowledge:write", "add and change what a chatbot is trained on"},
		{"knowledge:delete", "delete what a chatbot was trained on"},
		{"personas:read", "see personas"},
		{"personas:write", "create and change personas"},
		{"personas:delete", "delete personas"},
		{"instructions:read", "see custom instructions"},
		{"instructions:write", "create and change custom instructions"},
		{"instructions:delete", "delete custom instructions"},
		{"settings:read", "see a chatbot's settings"},
		{"settings:write", "change a chatbot's settings"},
		{"starters:read", "see conversation starters"},
		{"starters:write", "create and change conversation starters"},
		{"starters:delete", "delete conversation starters"},
		{"followups:read", "see follow-up prompts"},
		{"followups:write", "create and change follow-up prompts"},
		{"followups:delete", "delete follow-up prompts"},
		{"conversations:read", "read conversations with visitors"},
		{"conversations:write", "send messages and change conversations"},
		{"conversations:delete", "delete conversations"},
		{"leads:read", "see collected leads (personal data)"},
		{"leads:write", "create and change leads"},
		{"leads:delete", "delete leads"},
		{"members:read", "see the team's members"},
		{"members:write", "invite members and change their roles"},
		{"members:delete", "remove members"},
		{"integrations:read", "see integrations"},
		{"integrations:write", "connect and change integrations"},
		{"billing:read", "see plan and invoices"},
		{"billing:write", "change plan and payment"},
	}
}

// WellFormedScope reports whether s has the shape of a scope, known or not.
func WellFormedScope(s string) bool { return scopeShape.MatchString(s) }

// KnownScope reports whether s is one of the documented scopes.
func KnownScope(s string) bool {
	return slices.ContainsFunc(Scopes(), func(k Scope) bool { return k.Name == s })
}

// Suggest returns the known scopes that s may have been meant to be, the likeliest first, at most
// three; none where nothing is near. A known scope is its own only suggestion.
func Suggest(s string) []string {
	s = strings.ToLower(strings.TrimSpace(s))
	if KnownScope(s) {
		return []string{s}
	}
	type near struct {
		name string
		far  int
	}
	var found []near
	limit := max(1, min(3, len(s)/4))
	for _, k := range Scopes() {
		if d := field.Distance(s, k.Name); d <= limit {
			found = append(found, near{k.Name, d})
		}
	}
	if found == nil {
		// The verb is another one altogether (knowledge:edit), or missing: offer the resource's own.
		resource, _, _ := strings.Cut(s, ":")
		best := 2
		for _, k := range Scopes() {
			r, _, _ := strings.Cut(k.Name, ":")
			d := field.Distance(resource, r)
			if len(resource) < 4 && d > 0 || d > best {
				continue
			}
			if d < best {
				best, found = d, nil
			}
			found = append(found, near{k.Name, d})
		}
	}
	slices.SortStableFunc(found, func(a, b near) int { return cmp.Compare(a.far, b.far) })
	var out []string
	for _, n := range found[:min(3, len(found))] {
		out = append(out, n.name)
	}
	return out
}
