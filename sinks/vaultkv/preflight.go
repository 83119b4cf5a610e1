package vaultkv

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Check says whether a push would work: the mount is there and is a KV engine, and the token's
// policies allow to read and to write the secret. It writes nothing. A missing permission is an *Error
// whose hint is the policy that would do.
func (s *Sink) Check(ctx context.Context) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	version, lookup := s.client.lookup(ctx, s.config.Mount, mountFresh)
	if n, _ := status(lookup); lookup != nil && n != http.StatusForbidden {
		return lookup // unreachable, sealed, no KV engine
	}
	if lookup == nil {
		if s.config.KVVersion != 0 && version != s.config.KVVersion {
			return fmt.Errorf("vault: mount %s is KV version %d, and kv_version says %d", s.config.Mount, version, s.config.KVVersion)
		}
		s.version = version
	}
	allowed, err := s.capabilities(ctx)
	if err != nil {
		return fmt.Errorf("%w (asked about %s)", err, s.path())
	}
	if lookup != nil && s.config.KVVersion == 0 {
		// A denied lookup with permissions below the mount: Vault answers so for a mount that is not there.
		if can(allowed.data, "read", "create", "update", "patch") {
			return fmt.Errorf("vault: mount %s does not exist, although the policies of the token name it: look at mount, and at the namespace", s.config.Mount)
		}
		if _, e := status(lookup); e.Hint == "" {
			e.Hint = s.unreached()
		}
		return lookup
	}
	if allowed.data != nil {
		s.noMeta = !can(allowed.metadata, "read")
		s.noPatch = !can(allowed.data, "patch")
		s.advise(allowed)
		if !can(allowed.data, "read") {
			return s.lacks("read")
		}
		if s.last.version != 0 && can(allowed.data, "create") && can(allowed.data, s.changes()...) {
			return nil // it may do all that could be needed, and what was there is known
		}
	}
	cur, err := s.look(ctx)
	if err != nil {
		return err
	}
	if _, err := s.value(cur); err != nil {
		return err
	}
	if allowed.data == nil {
		return s.probe(ctx, cur)
	}
	change := s.changes()
	switch {
	case !cur.known:
		change = []string{"create"}
	case !cur.alive:
		change = []string{"update"}
	}
	if !can(allowed.data, change...) {
		return s.lacks(strings.Join(change, " or "))
	}
	return nil
}

// advise notes what the policy would better allow.
func (s *Sink) advise(allowed capabilities) {
	s.advice = nil
	if s.version != 2 {
		return
	}
	if s.noMeta {
		s.advice = append(s.advice, "the policy does not allow to read "+s.metadataPath()+", so every reading back fetches the secret itself: allow \"read\" there")
	}
	if s.config.Metadata && !can(allowed.metadata, "patch") {
		s.advice = append(s.advice, "metadata: true, and the policy does not allow to change "+s.metadataPath()+", so nothing is written there: allow \"patch\" there")
	}
}

// Advice says what the last Check would have liked the policy to allow, and can do without.
func (s *Sink) Advice() string { return strings.Join(s.advice, "; ") }

// changes are the capabilities of which one is needed to change a secret that is there.
func (s *Sink) changes() []string {
	if s.version == 2 {
		return []string{"update", "patch"}
	}
	return []string{"update"}
}

// lacks says which capability is missing.
func (s *Sink) lacks(capability string) error {
	return s.denied(&Error{
		Path: s.path(), Status: http.StatusForbidden,
		Words: []string{"the policies of the Vault login lack the capability " + capability},
	})
}

// capabilities are what the token may do with a secret and its metadata; nil where that cannot be told.
type capabilities struct{ data, metadata []string }

// capabilities asks Vault what the token may do; nothing is told where it may not even ask, which
// leaves it to the push to find out.
func (s *Sink) capabilities(ctx context.Context) (capabilities, error) {
	data, metadata := s.path(), s.metadataPath()
	paths := []string{data}
	if s.version != 1 {
		paths = append(paths, metadata)
	}
	var answer struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	err := s.client.do(ctx, http.MethodPost, "sys/capabilities-self", map[string]any{"paths": paths}, &answer)
	if n, e := status(err); n == http.StatusForbidden && e.Hint == "" {
		return capabilities{}, nil
	}
	if err != nil {
		return capabilities{}, err
	}
	of := func(path string) (out []string) {
		if json.Unmarshal(answer.Data[path], &out) != nil {
			return nil // an answer that is not understood says nothing
		}
		return out
	}
	return capabilities{of(data), of(metadata)}, nil
}

// probe finds out whether writing is permitted where the token may not ask: by writes that name a
// version far from the real one, so that Vault either refuses the token or the version. Without
// check-and-set there is no such question, and the push will tell.
func (s *Sink) probe(ctx context.Context, cur current) error {
	if s.version != 2 {
		return nil
	}
	methods := []string{http.MethodPut}
	if cur.alive {
		methods = []string{http.MethodPatch, http.MethodPut}
	}
	var denied error
	for _, method := range methods {
		err := s.client.do(ctx, method, s.path(), map[string]any{
			"options": map[string]int{"cas": cur.version + 1<<30},
			"data":    map[string]string{},
		}, nil)
		switch n, e := status(err); {
		case n == http.StatusBadRequest && e.says(casMismatch):
			return nil
		case n == http.StatusForbidden:
			denied = s.denied(e)
		case n == http.StatusMethodNotAllowed, n == http.StatusNotFound:
			denied = err
		default:
			return err
		}
	}
	return denied
}

// can reports whether allowed holds one of the capabilities.
func can(allowed []string, capabilities ...string) bool {
	if slices.Contains(allowed, "deny") {
		return false
	}
	return slices.Contains(allowed, "root") || slices.ContainsFunc(capabilities, func(c string) bool {
		return slices.Contains(allowed, c)
	})
}
