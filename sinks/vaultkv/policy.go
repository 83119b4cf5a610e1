package vaultkv

import (
	"fmt"
	"strings"
)

// denied adds to a refusal the policy that would do, unless it says already what to do.
func (s *Sink) denied(e *Error) error {
	if e.Hint == "" {
		e.Hint = "this policy would do:\n" + s.policy()
	}
	return e
}

// unreached explains a refusal to say what is mounted.
func (s *Sink) unreached() string {
	return "no policy of the token reaches below this mount, or it does not exist; this policy would do:\n" + s.policy()
}

// policy is the smallest policy with which every push works, ready to paste.
func (s *Sink) policy() string {
	rule := func(path string, capabilities ...string) string {
		return fmt.Sprintf("path %q {\n  capabilities = [\"%s\"]\n}", path, strings.Join(capabilities, `", "`))
	}
	if s.version == 1 {
		return rule(s.config.Mount+"/"+s.config.Path, "create", "read", "update")
	}
	// KV version 2 also where it is not known: nearly every mount is.
	policy := rule(s.config.Mount+"/data/"+s.config.Path, "create", "read", "update")
	if s.config.Metadata {
		policy += "\n" + rule(s.metadataPath(), "read", "patch")
	}
	return policy
}
