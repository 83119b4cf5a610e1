package config

import (
	"github.com/rotatord/rotatord/rotator/consumers"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/notify"
	"github.com/rotatord/rotatord/sinks"
	"github.com/rotatord/rotatord/sinks/vaultkv"
)

// document is rotation.yaml as it is written. A pointer is nil, and a list or map is nil, where
// the file does not say; an empty list was written as [].
type document struct {
	Version    int                           `yaml:"version"`              // always 1
	Instance   string                        `yaml:"instance,omitempty"`   // short name of this installation, part of every label
	API        *apiBlock                     `yaml:"api,omitempty"`        // how SiteGPT is reached
	Management *managementBlock              `yaml:"management,omitempty"` // the daemon's own token: how it is rotated, when it expires
	Daemon     *daemonBlock                  `yaml:"daemon,omitempty"`     // what has no home elsewhere
	Monitor    *monitorBlock                 `yaml:"monitor,omitempty"`    // how the daemon is looked at: probes, the page, metrics
	Vault      *vaultkv.Connection           `yaml:"vault,omitempty"`      // the Vault of vault_kv sinks that name none
	Vaults     map[string]vaultkv.Connection `yaml:"vaults,omitempty"`     // further Vaults, by the name that sinks use
	Consumers  map[string]consumers.Spec     `yaml:"consumers,omitempty"`  // programs that are told of new tokens, by name
	Notify     map[string]notify.Target      `yaml:"notify,omitempty"`     // people who are told of problems, by name
	Defaults   *defaultsBlock                `yaml:"defaults,omitempty"`   // for every token that does not say otherwise
	Tokens     []tokenBlock                  `yaml:"tokens"`               // the tokens that should exist
	Sets       []setBlock                    `yaml:"sets,omitempty"`       // more tokens, which differ in a few words only
}

type apiBlock struct {
	BaseURL           *string          `yaml:"base_url,omitempty"`            // where SiteGPT answers; missing: SITEGPT_API_BASE, or SiteGPT itself
	Timeout           *field.Duration  `yaml:"timeout,omitempty"`             // of one request
	RequestsPerMinute *int             `yaml:"requests_per_minute,omitempty"` // shared by all tokens
	Token             *field.SecretRef `yaml:"token,omitempty"`               // the daemon's own bearer
}

type daemonBlock struct {
	ReadBack  *field.Duration `yaml:"read_back,omitempty"` // how often every sink is read back
	Settle    *field.Duration `yaml:"settle,omitempty"`    // how long the API may need to agree with itself
	Retention *field.Duration `yaml:"retention,omitempty"` // how long history is kept
	Fuse      *fuseBlock      `yaml:"fuse,omitempty"`      // the limits of creates, where the schedule's own are too tight
}

type monitorBlock struct {
	Listen   *string          `yaml:"listen,omitempty"`   // host:port; missing: nowhere
	Token    *field.SecretRef `yaml:"token,omitempty"`    // who shows it may look; without one, only this machine may
	Insecure bool             `yaml:"insecure,omitempty"` // whoever can reach the address may look
	Hosts    []string         `yaml:"hosts,omitempty"`    // names by which browsers reach the address, besides localhost
}

type fuseBlock struct {
	CreatesPerDay *int `yaml:"creates_per_day,omitempty"` // of one entry, within 24 hours
	Live          *int `yaml:"live,omitempty"`            // live generations of one entry
}

// common is what a token and the defaults share.
type common struct {
	Description *string  `yaml:"description,omitempty"` // for people; part of the label
	Scopes      []string `yaml:"scopes,omitempty"`      // what the token may do
	ChatbotIDs  []string `yaml:"chatbot_ids,omitempty"` // the chatbots that it may use; missing: all
	timing      `yaml:",inline"`
	Consumers   []string `yaml:"consumers,omitempty"` // who is told of a new token
	OnDrift     *string  `yaml:"on_drift,omitempty"`  // a value in a sink that is not ours: hold leaves it and tells you, restore writes ours over it
	OnRemove    *string  `yaml:"on_remove,omitempty"` // its tokens, once it is removed here: expire lets them live out their lives, revoke ends them when no sink holds them
	Was         *string  `yaml:"was,omitempty"`       // the name this token had before
}

// timing is what everything that rotates has.
type timing struct {
	Schedule *string         `yaml:"schedule,omitempty"` // five cron fields, @daily and the like, @every DURATION
	Timezone *string         `yaml:"timezone,omitempty"` // whose wall clock the schedule means
	Overlap  *field.Duration `yaml:"overlap,omitempty"`  // how long predecessor and successor are both valid, for those who use them
	Margin   *field.Duration `yaml:"margin,omitempty"`   // how long rotatord may retry before that costs overlap; missing: a quarter of the overlap
	Lifetime *field.Duration `yaml:"lifetime,omitempty"` // of every token, instead of a margin: what is left over is the margin
	Jitter   *field.Duration `yaml:"jitter,omitempty"`   // spreads tokens of one schedule; never more than a quarter of the overlap by default
}

type managementBlock struct {
	timing    `yaml:",inline"` // without a schedule, it is not rotated
	Scopes    []string         `yaml:"scopes,omitempty"`     // missing: those for tokens, and all that the tokens below have
	ExpiresAt *instant         `yaml:"expires_at,omitempty"` // of the given credential, where SiteGPT does not say it
}

type defaultsBlock struct {
	common `yaml:",inline"`

	RequireChatbotIDs bool `yaml:"require_chatbot_ids,omitempty"` // refuse tokens for all chatbots
}

type tokenBlock struct {
	Name   string `yaml:"name"` // the key of everything
	common `yaml:",inline"`
	Sinks  []sinkBlock `yaml:"sinks"` // where it goes
}

// setBlock makes tokens out of templates and rows.
type setBlock struct {
	ForEach map[string]map[string]string `yaml:"for_each"` // rows, by name: the values of the variables
	Tokens  templates                    `yaml:"tokens"`   // what each row gets: {key} is the row's name, {x} its value of x; \{x} stays {x}, and {{…}} as it is
}

type sinkBlock struct {
	Name       *string         `yaml:"name,omitempty"`      // for people
	Required   *bool           `yaml:"required,omitempty"`  // a rotation is complete only when this sink holds the token
	TakeOver   bool            `yaml:"take_over,omitempty"` // a value that is no token may be overwritten
	Timeout    *field.Duration `yaml:"timeout,omitempty"`   // of each check, push and read
	sinks.Spec `yaml:",inline"`
}
