package notify

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/webhook"
)

// Target is somebody who is told, as rotation.yaml declares it: exactly one way, and what for.
type Target struct {
	Slack   *Slack          `yaml:"slack,omitempty"`   // a channel, by an incoming webhook
	Webhook *webhook.Config `yaml:"webhook,omitempty"` // a URL that JSON is posted to
	On      []string        `yaml:"on,omitempty"`      // failing, waiting (for a person), rotated, or kinds of problems; missing: failing and waiting
	After   *field.Duration `yaml:"after,omitempty"`   // what heals by itself before that is told to nobody
	Every   *field.Duration `yaml:"every,omitempty"`   // how often what is still wrong is told again; 0: never
}

// Slack is an incoming webhook of Slack, or of what understands the same: Mattermost, and Discord
// with /slack at the end of its URL. Whoever knows the URL can post, so it is a secret.
type Slack struct {
	URL     field.SecretRef `yaml:"url"`               // where the URL is found: it is a secret
	Timeout *field.Duration `yaml:"timeout,omitempty"` // of one message
}

// The words of on that are no kind of problem.
const (
	onFailing = "failing"
	onWaiting = "waiting"
	onRotated = "rotated"
)

// On returns the words that on knows.
func On() []string {
	words := []string{onFailing, onWaiting, onRotated}
	for _, kind := range rotator.ProblemKinds() {
		words = append(words, string(kind))
	}
	return words
}

// The defaults of a target.
const (
	DefaultAfter = time.Minute
	DefaultEvery = 12 * time.Hour
)

// Validate reports what is wrong with a declared target.
func (t *Target) Validate(p field.Problems) {
	switch {
	case t.Slack == nil && t.Webhook == nil:
		p.Errorf("says not how anybody is told: it needs one of slack and webhook")
	case t.Slack != nil && t.Webhook != nil:
		p.Errorf("is told in two ways: declare a target for each")
	case t.Slack != nil:
		t.Slack.URL.Validate(p.At("slack", "url"))
		if t.Slack.Timeout != nil && *t.Slack.Timeout <= 0 {
			p.At("slack", "timeout").Errorf("must be longer than 0: leave it out for the default, %s", field.FormatDuration(webhook.DefaultTimeout))
		}
	default:
		t.Webhook.Validate(p.At("webhook"))
	}
	if t.On != nil && len(t.On) == 0 {
		p.At("on").Errorf("is empty: nobody would be told anything; leave it out for %s and %s", onFailing, onWaiting)
	}
	known := On()
	for i, word := range t.On {
		if slices.Contains(known, word) {
			continue
		}
		hint := " (there is " + strings.Join(known, ", ") + ")"
		if near := field.Nearest(word, known); near != "" {
			hint = fmt.Sprintf(" (did you mean %q?)", near)
		}
		p.At("on", i).Errorf("%q is nothing that is told%s", word, hint)
	}
	if every := t.every(); every > 0 && every < 10*time.Minute {
		p.At("every").Errorf("%s is so often that nobody reads it any more: use at least 10m, or 0 for never", field.FormatDuration(every))
	}
	if after := t.after(); after > 24*time.Hour {
		p.At("after").Errorf("%s is too long to be told in time: use at most 1d", field.FormatDuration(after))
	}
}

// Resolve makes paths absolute, from dir, the folder of the configuration.
func (t Target) Resolve(dir string) Target {
	if t.Slack != nil {
		s := *t.Slack
		s.URL.File = field.Absolute(dir, s.URL.File)
		t.Slack = &s
	}
	if t.Webhook != nil {
		w := *t.Webhook
		w.Resolve(dir)
		t.Webhook = &w
	}
	return t
}

// Title is what people call a target of this name.
func (t *Target) Title(name string) string {
	switch {
	case t.Slack != nil:
		return name + " (slack)"
	case t.Webhook != nil:
		return fmt.Sprintf("%s (%s)", name, t.Webhook.URL.Host())
	}
	return name
}

// address tells apart where a target is told, without saying it.
func (t *Target) address() string {
	var where string
	switch {
	case t.Slack != nil:
		where = t.Slack.URL.String()
	case t.Webhook != nil:
		where = cmp.Or(t.Webhook.URL.Text, t.Webhook.URL.String())
	}
	sum := sha256.Sum256([]byte(where))
	return hex.EncodeToString(sum[:8])
}

// Wants is what the target is told of, in words.
func (t *Target) Wants() []string {
	if t.On == nil {
		return []string{onFailing, onWaiting}
	}
	return t.On
}

func (t *Target) wants(p *rotator.Problem) bool {
	on := t.Wants()
	return slices.Contains(on, string(p.Kind)) || p.Failing && slices.Contains(on, onFailing) || !p.Failing && slices.Contains(on, onWaiting)
}

func (t *Target) after() time.Duration {
	if t.After == nil {
		return DefaultAfter
	}
	return time.Duration(*t.After)
}

func (t *Target) every() time.Duration {
	if t.Every == nil {
		return DefaultEvery
	}
	return time.Duration(*t.Every)
}

// Open makes what posts to the target.
func (t *Target) Open(w webhook.World) *webhook.Poster {
	if t.Slack != nil {
		return webhook.New(webhook.Config{URL: field.URL{SecretRef: t.Slack.URL}, Timeout: t.Slack.Timeout}, w)
	}
	return webhook.New(*t.Webhook, w)
}
