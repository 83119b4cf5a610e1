package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
)

// Management is what the file says of rotatord's own token.
type Management struct {
	// Token is its rotation; nil: the given credential is used as it is. It has no sinks here: where
	// it is kept is no matter of configuration.
	Token     *Token
	ExpiresAt time.Time // of the given credential; zero where the file does not say
}

// ownScopes are what rotatord cannot do without.
var ownScopes = []string{"tokens:read", "tokens:write"}

// instant is a point in time as people write it: RFC 3339, or a day, which is its first instant, UTC.
type instant time.Time

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *instant) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, string(text)); err == nil {
			*i = instant(t.UTC())
			return nil
		}
	}
	return fmt.Errorf("%q is no instant: write it like 2027-01-31 or 2027-01-31T08:00:00Z", text)
}

// management checks the block about rotatord's own token. It takes nothing from the defaults: those
// are for the tokens of others. It comes last, since its scopes follow from those of all tokens.
func (k *checker) management(f *file, d *document) {
	if k.owner["management"] != f || d.Management == nil {
		return
	}
	b := d.Management
	r := &tokenRef{
		f: f, path: []any{"management"},
		block: &tokenBlock{Name: rotator.OwnName, common: common{Scopes: b.Scopes, timing: b.timing}},
	}
	k.own = r
	t := &r.token
	t.Name, t.Description = rotator.OwnName, "rotatord's own token"
	t.Schedule, t.Timezone = text(b.Schedule, ""), text(b.Timezone, "UTC")
	t.Scopes = b.Scopes
	t.OnDrift, t.OnRemove = rotator.DriftRestore, rotator.RemoveExpire
	t.File = f.name
	t.Line, _ = f.locate(r.path).position()
	say(f, func(p field.Problems) {
		p = p.At(r.at()...)
		k.common(p, r.block.common, common{})
		if b.ExpiresAt != nil {
			k.c.Management.ExpiresAt = time.Time(*b.ExpiresAt)
		}
		if t.Schedule == "" {
			for _, key := range []string{"timezone", "overlap", "margin", "lifetime", "jitter", "scopes"} {
				if f.has("management", key) && !f.has("management", "schedule") {
					p.At(key).Errorf("says nothing without a schedule: add one, like \"@monthly\", and rotatord's own token is rotated, too")
				}
			}
			return
		}
		if b.Scopes == nil {
			t.Scopes = k.allScopes()
			return
		}
		for _, need := range ownScopes {
			if !slices.Contains(b.Scopes, need) {
				p.At("scopes").Errorf("lacks %q: rotatord's own token creates, lists and revokes all others", need)
			}
		}
		if lacks := slices.DeleteFunc(k.allScopes(), func(s string) bool { return slices.Contains(b.Scopes, s) }); len(lacks) > 0 && b.Scopes != nil {
			p.At("scopes").Warnf("lacks %q, which a token below has: SiteGPT may let a token give no scope that it has not itself", lacks[0])
		}
	})
	k.timing(r)
}

// allScopes is what the given credential must be able to do and give: whether the scopes of a token
// bound those of the tokens that it creates is not documented.
func (k *checker) allScopes() []string {
	all := slices.Clone(ownScopes)
	for _, r := range k.tokens {
		all = append(all, r.token.Scopes...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
