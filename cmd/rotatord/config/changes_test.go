package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const changesBefore = `version: 1
api: {requests_per_minute: 60}
consumers: {bot: {flag: bot}, job: {exec: {command: [./job], env: {HINT: some-words}}}}
tokens:
  - name: a
    scopes: [chatbots:read, leads:read]
    schedule: "@daily"
    consumers: [bot, job]
    sinks: [{env_file: {path: a.env, key: A}}]
  - name: b
    scopes: [leads:read]
    schedule: "@daily"
    sinks: [{env_file: {path: b.env, key: B}}]
`

func TestChanges(t *testing.T) {
	read := func(text string, now time.Time) *Config {
		c, problems := Parse("rotation.yaml", []byte(text), "/etc", Options{Now: now, AllowEmpty: true})
		if c == nil {
			t.Fatalf("%+v", problems)
		}
		return c
	}
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	old := read(changesBefore, now)
	for _, c := range []struct {
		what string
		edit func(string) string
		want []string
	}{
		{"nothing, a year later", func(s string) string { return s }, nil},
		{"a comment, and scopes in another order", func(s string) string {
			return "# hello\n" + strings.ReplaceAll(s, "chatbots:read, leads:read", "leads:read, chatbots:read")
		}, nil},
		{"scopes and a sink", func(s string) string {
			return strings.NewReplacer("chatbots:read, leads:read", "chatbots:read", "path: a.env", "path: other.env").Replace(s)
		}, []string{"tokens changed: a (scopes, sink env_file /etc/other.env#A added, sink env_file /etc/a.env#A removed)"}},
		{"timing", func(s string) string {
			return strings.Replace(s, `schedule: "@daily"`, "schedule: \"@weekly\"\n    overlap: 8h", 1)
		}, []string{"tokens changed: a (schedule, overlap, margin)"}},
		{"a clock", func(s string) string {
			return strings.Replace(s, `schedule: "@daily"`, "schedule: \"@daily\"\n    timezone: Europe/Berlin", 1)
		}, []string{"tokens changed: a (timezone)"}},
		{"an overlap, beside a schedule in other words", func(s string) string {
			return strings.Replace(s, `schedule: "@daily"`, "schedule: \"@DAILY\"\n    overlap: 8h", 1)
		}, []string{"tokens changed: a (overlap, margin)"}},
		{"a lifetime, for a margin", func(s string) string {
			return strings.Replace(s, `schedule: "@daily"`, "schedule: \"@daily\"\n    lifetime: 21d", 1)
		}, []string{"tokens changed: a (lifetime, margin)"}},
		{"the same in other words", func(s string) string {
			return strings.NewReplacer("@daily", "@DAILY", "[bot, job]", "[job, bot]", "path: a.env", "path: ./a.env, mode: \"0600\"").Replace(s)
		}, nil},
		{"how a sink is written", func(s string) string {
			return strings.Replace(s, "[{env_file: {path: a.env, key: A}}]", "[{required: false, env_file: {path: a.env, key: A, mode: \"0640\"}}]", 1)
		}, []string{"tokens changed: a (sink env_file /etc/a.env#A (required, env_file.mode))"}},
		{"renamed, and more", func(s string) string {
			return strings.ReplaceAll(s, "name: b\n", "name: c\n    was: b\n    description: new\n    on_drift: restore\n")
		}, []string{"tokens renamed: b to c", "tokens changed: c (description, on_drift)"}},
		{"a consumer, whose words are not told", func(s string) string { return strings.ReplaceAll(s, "some-words", "other-words") }, []string{"other settings: consumers.job.exec.env.HINT"}},
		{"one goes, and one comes", func(s string) string { return strings.ReplaceAll(s, "name: b", "name: c") }, []string{"tokens added: c", "tokens removed: b"}},
		{"renamed", func(s string) string { return strings.ReplaceAll(s, "name: b", "name: c\n    was: b") }, []string{"tokens renamed: b to c"}},
		{"settings", func(s string) string {
			return strings.ReplaceAll(s, "api: {requests_per_minute: 60}", "api: {requests_per_minute: 30}\ndaemon: {retention: 30d}\nmonitor: {listen: 127.0.0.1:9}")
		}, []string{"other settings: api.requests_per_minute, daemon.retention, monitor.listen"}},
		{"its own token", func(s string) string { return s + "management: {schedule: \"@weekly\"}\n" }, []string{"tokens added: management"}},
		{"none is left", func(s string) string { return s[:strings.Index(s, "tokens:")] + "tokens: []\n" }, []string{"tokens removed: a, b"}},
	} {
		later := now.AddDate(1, 0, 0)
		got := Changes(old, read(c.edit(changesBefore), later), later)
		if c.want == nil && len(got) == 0 {
			continue
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%q, want\n%q", c.what, got, c.want)
		}
	}
	fixed := strings.Replace(changesBefore, `schedule: "@daily"`, "schedule: \"@daily\"\n    lifetime: 21d", 1)
	if got := Changes(read(fixed, now), read(strings.Replace(fixed, "@daily", "@weekly", 1), now), now); !slices.Equal(got, []string{"tokens changed: a (schedule)"}) {
		t.Errorf("a margin that only follows from a lifetime: %q", got)
	}
	if got := Changes(nil, old, now); !slices.Equal(got, []string{"tokens added: a, b"}) {
		t.Errorf("the first one: %q", got)
	}
}
