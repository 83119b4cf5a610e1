package sandbox

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

const maxLifetime = 365 * 24 * time.Hour

// Behavior says how the server plays what is not known of SiteGPT. The zero value is the
// likeliest, and in answers the poorest: only what is documented.
type Behavior struct {
	CreateStatus int            `json:"create_status"` // of a success; 0: 201
	RevokeGone   int            `json:"revoke_gone"`   // status for an id that is gone or was never there: 404 (0) or 200
	Statuses     map[string]int `json:"statuses"`      // of error codes, where another one than usual is wanted

	AnswerExpiry bool `json:"answer_expiry"` // a create's answer carries expiresAt
	ListMore     bool `json:"list_more"`     // items carry expiresAt, revokedAt, lastUsedAt and scopes
	ListExpired  bool `json:"list_expired"`  // the list shows expired tokens

	PageSize  int    `json:"page_size"`  // items on a page, at most; 0: 100
	PageParam string `json:"page_param"` // the query parameter that takes nextCursor; "": cursor

	ListFree     bool `json:"list_free"`      // listing needs no tokens:read
	RevokeFree   bool `json:"revoke_free"`    // revoking needs no tokens:write
	MeNeedsScope bool `json:"me_needs_scope"` // /me needs account:read
	MeMore       bool `json:"me_more"`        // /me tells the token's id and expiresAt

	User string `json:"user"` // whose tokens these are, as /me says; "": usr_sandbox

	EmptyChatbots string   `json:"empty_chatbots"` // what chatbotIds [] means: refuse (""), all or none
	Chatbots      []string `json:"chatbots"`       // those that exist; nil: any id does

	Role        []string `json:"role"`          // the scopes that the user may grant; nil: all
	Narrow      bool     `json:"narrow"`        // scopes beyond the role are left out silently, not refused
	CapToCaller bool     `json:"cap_to_caller"` // the calling token's scopes bound the new one's, too

	MaxLifetime time.Duration `json:"-"`          // of a token; 0: 365 days
	CapExpiry   bool          `json:"cap_expiry"` // what is beyond is lowered silently, not refused

	UTF16Names  bool `json:"utf16_names"`  // a name's length is counted as JavaScript does
	UniqueNames bool `json:"unique_names"` // two live tokens may not bear one name
	MaxLive     int  `json:"max_live"`     // live tokens of the account; 0: no limit

	RequestsPerMinute int  `json:"requests_per_minute"` // beyond: 429; 0: no limit
	NoRetryAfter      bool `json:"no_retry_after"`      // that 429 names no time
}

// behaviorJSON is Behavior with its duration as text.
type behaviorJSON struct {
	*behaviorAlias
	MaxLifetime string `json:"max_lifetime"`
}

type behaviorAlias Behavior

// MarshalJSON writes durations as Go does: "24h0m0s".
func (b Behavior) MarshalJSON() ([]byte, error) {
	return json.Marshal(behaviorJSON{(*behaviorAlias)(&b), b.MaxLifetime.String()})
}

// UnmarshalJSON changes the fields that data names (in statuses, the codes that it names) and
// refuses fields that there are not.
func (b *Behavior) UnmarshalJSON(data []byte) error {
	n := b.clone()
	aux := behaviorJSON{behaviorAlias: (*behaviorAlias)(&n)}
	if err := strict(data, &aux); err != nil {
		return err
	}
	if aux.MaxLifetime != "" {
		d, err := time.ParseDuration(aux.MaxLifetime)
		if err != nil {
			return fmt.Errorf("max_lifetime: %w", err)
		}
		n.MaxLifetime = d
	}
	*b = n
	return nil
}

func (b Behavior) validate() error {
	for name, status := range map[string]int{"create_status": b.CreateStatus, "revoke_gone": b.RevokeGone} {
		if status != 0 && (status < 200 || status > 599) {
			return fmt.Errorf("%s: %d is no HTTP status", name, status)
		}
	}
	for code, status := range b.Statuses {
		if status < 400 || status > 599 {
			return fmt.Errorf("statuses: %s: %d is no status of an error", code, status)
		}
	}
	if !slices.Contains([]string{"", "refuse", "all", "none"}, b.EmptyChatbots) {
		return fmt.Errorf("empty_chatbots: %q is none of refuse, all and none", b.EmptyChatbots)
	}
	if b.PageSize < 0 || b.MaxLive < 0 || b.RequestsPerMinute < 0 || b.MaxLifetime < 0 {
		return fmt.Errorf("page_size, max_live, requests_per_minute and max_lifetime must not be negative")
	}
	return nil
}

func (b Behavior) clone() Behavior {
	b.Statuses = maps.Clone(b.Statuses)
	b.Chatbots, b.Role = slices.Clone(b.Chatbots), slices.Clone(b.Role)
	return b
}

func (b Behavior) status(code string, usual int) int {
	if s, ok := b.Statuses[code]; ok {
		return s
	}
	return usual
}

func (b Behavior) createStatus() int {
	if b.CreateStatus == 0 {
		return http.StatusCreated
	}
	return b.CreateStatus
}

func (b Behavior) pageSize() int {
	if b.PageSize == 0 {
		return 100
	}
	return b.PageSize
}

func (b Behavior) pageParam() string {
	if b.PageParam == "" {
		return "cursor"
	}
	return b.PageParam
}

func (b Behavior) maxLifetime() time.Duration {
	if b.MaxLifetime == 0 {
		return maxLifetime
	}
	return b.MaxLifetime
}

// Behavior returns how the server plays now.
func (s *Server) Behavior() Behavior {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.behavior.clone()
}

// SetBehavior changes how the server plays, from the next request on.
func (s *Server) SetBehavior(b Behavior) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behavior = b.clone()
}
