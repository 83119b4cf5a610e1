package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

const diffBase = `version: 1
instance: acme
api: {token: {file: tok}}
consumers:
  bot: {exec: {command: [./restart, a], env: {HINT: old-words}}}
tokens:
  - name: bot
    scopes: [leads:read, chatbots:read]
    chatbot_ids: [cb_1, cb_2]
    schedule: "0 3 * * MON"
    consumers: [bot]
    sinks:
      - env_file: {path: app.env, key: BOT}
      - file: {path: bot.txt}
  - name: other
    scopes: [leads:read]
    schedule: "@daily"
    on_remove: revoke
    sinks: [{file: {path: other.txt}}]
`

// said is a Diff as short lines.
func said(d Diff) []string {
	var out []string
	change := func(at string, c Change) {
		text := fmt.Sprintf("%s%s: %s -> %s", at, c.Field, c.Old, c.New)
		if c.Hidden {
			text = at + c.Field + ": hidden"
		}
		if c.Note != "" {
			text += " (" + c.Note + ")"
		}
		out = append(out, text)
	}
	for _, t := range d.Tokens {
		head := fmt.Sprintf("%s %s", t.Token, t.Fate)
		if t.Was != "" {
			head += " from " + t.Was
		}
		if t.Recreated != "" {
			head += ", recreated: " + t.Recreated
		}
		if t.Moves() {
			head += ", moves"
		}
		out = append(out, head)
		for _, c := range t.Changes {
			change("  ", c)
		}
		if t.Fate == FateChanged && t.New != nil {
			out = append(out, fmt.Sprintf("  overlap %s -> %s, no gap %s -> %s, month %.1f -> %.1f", t.Old.Overlap, t.New.Overlap, t.Old.NoGap, t.New.NoGap, t.Old.Month, t.New.Month))
		}
		for _, s := range t.Sinks {
			line := strings.TrimSpace(fmt.Sprintf("  %s %s %s%s", s.Name[strings.LastIndex(s.Name, "/")+1:], s.Fate, s.From, s.To))
			if s.Note != "" {
				line += ": " + s.Note
			}
			out = append(out, line)
			for _, c := range s.Changes {
				change("    ", c)
			}
		}
	}
	for _, c := range d.Blocks {
		change("", c)
	}
	return out
}

func TestCompare(t *testing.T) {
	now := time.Date(2027, 1, 6, 12, 0, 0, 0, time.UTC)
	const fleet = "    schedule: \"0 3 * * MON\"\n    consumers: [bot]\n"
	for _, tc := range []struct {
		name string
		edit []string // pairs
		want []string
	}{
		{"nothing", nil, nil},
		{"written otherwise", []string{"[leads:read, chatbots:read]", "[chatbots:read, leads:read]", "[cb_1, cb_2]", "[cb_2, cb_1]", "{path: bot.txt}", "{path: ./bot.txt, mode: \"0600\"}", "{token: {file: tok}}", "{token: {file: ./tok}, timeout: 10s}", fleet, fleet + "    overlap: 48h\n    on_drift: hold\n"}, nil},
		{"scopes", []string{"[leads:read, chatbots:read]", "[leads:read, knowledge:read]"}, []string{"bot changed, recreated: scopes changed", "  scopes: leads:read chatbots:read -> leads:read knowledge:read (without chatbots:read; with knowledge:read)"}},
		{"all chatbots", []string{"    chatbot_ids: [cb_1, cb_2]\n", ""}, []string{"bot changed, recreated: chatbot_ids changed", "  chatbot_ids: cb_1 cb_2 -> all (wider)"}},
		{"schedule", []string{`"0 3 * * MON"`, `"@daily"`}, []string{"bot changed, moves", "  overlap 48h0m0s -> 48h0m0s, no gap 60h0m0s -> 60h0m0s, month 4.3 -> 30.4"}},
		{"overlap", []string{fleet, fleet + "    overlap: 24h\n"}, []string{"bot changed", "  overlap 48h0m0s -> 24h0m0s, no gap 60h0m0s -> 30h0m0s, month 4.3 -> 4.3"}},
		{"removed", []string{diffBase[strings.Index(diffBase, "  - name: other"):], ""}, []string{"other removed", "other.txt removed: it keeps its value, which works until that token dies"}},
		{"renamed", []string{"  - name: bot\n", "  - name: robot\n    was: bot\n"}, []string{"robot renamed from bot"}},
		{"renamed without a word", []string{"  - name: bot\n", "  - name: robot\n"}, []string{"robot added", "  scopes:  -> leads:read chatbots:read", "  chatbot_ids:  -> cb_1 cb_2", "app.env#BOT added bot: its value is bot's, and is overwritten", "bot.txt added bot: its value is bot's, and is overwritten", "bot removed", "app.env#BOT removed robot: it gets robot's token", "bot.txt removed robot: it gets robot's token"}},
		{"a sink of its own", []string{"      - file: {path: bot.txt}\n", "      - file: {path: bot2.txt}\n        required: false\n"}, []string{"bot changed", "bot2.txt added: it is filled from the live token; a rotation is complete without it", "bot.txt removed: it keeps its value, which works until that token dies"}},
		{"all sinks", []string{"path: app.env", "path: app2.env", "path: bot.txt", "path: bot2.txt"}, []string{"bot changed, recreated: no sink that can be read back is left to copy the token from", "app2.env#BOT added: it gets the new token", "bot2.txt added: it gets the new token", "app.env#BOT removed: it keeps its value, which works until that token dies", "bot.txt removed: it keeps its value, which works until that token dies"}},
		{"places swapped", []string{"{path: bot.txt}", "{path: x.txt}", "{path: other.txt}", "{path: bot.txt}", "{path: x.txt}", "{path: other.txt}"}, []string{"bot changed", "other.txt added other: its value is other's, and is overwritten", "bot.txt removed other: it gets other's token", "other changed, recreated: no sink that can be read back is left to copy the token from", "bot.txt added bot: its value is bot's, and is overwritten", "other.txt removed bot: it gets bot's token"}},
		{"how a sink is written", []string{"      - file: {path: bot.txt}\n", "      - file: {path: bot.txt, mode: \"0640\"}\n        required: false\n"}, []string{"bot changed", "bot.txt changed", "    required: true -> false (a rotation is complete without it, and its token may die in it)", "    file.mode: 0600 -> 0640"}},
		{"words", []string{fleet, "    schedule: \"0 3 * * MON\"\n    on_drift: restore\n    description: helps\n", "consumers:\n  bot", "consumers:\n  bot2"}, nil},
		{"blocks", []string{"instance: acme", "instance: emca", "{token: {file: tok}}", "{token: {env: TOK}, base_url: \"https://x.example\", requests_per_minute: 30}\ndaemon: {read_back: 5m, fuse: {live: 9}}\nvault: {address: \"https://v:8200\", auth: {kubernetes: {role: r}}}\nmonitor: {listen: \"127.0.0.1:1\"}\nnotify: {ops: {slack: {url: {env: S}}, every: 0}}\nmanagement: {schedule: \"@monthly\", expires_at: 2027-02-01}", "old-words", "new-words"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := "/srv/x"
			o := Options{Now: now}
			old, problems := Parse("old", []byte(diffBase), dir, o)
			if old == nil {
				t.Fatal(problems)
			}
			text := diffBase
			for i := 0; i < len(tc.edit); i += 2 {
				if !strings.Contains(text, tc.edit[i]) {
					t.Fatalf("%q is not there", tc.edit[i])
				}
				text = strings.Replace(text, tc.edit[i], tc.edit[i+1], 1)
			}
			next, problems := Parse("new", []byte(text), dir, o)
			if next == nil {
				t.Fatal(problems)
			}
			d := Compare(old, next, now)
			got := said(d)
			for i := range got {
				got[i] = strings.TrimRight(got[i], " ")
			}
			switch tc.name {
			case "blocks":
				all := strings.Join(got, "\n")
				for _, want := range []string{
					"management added", "instance: acme -> emca", "api.base_url:  -> https://x.example", "api.requests_per_minute: 60 -> 30",
					"api.token: file /srv/x/tok -> environment variable TOK", "daemon.read_back: 15m -> 5m", "daemon.fuse.live:  -> 9",
					"vault.address:  -> https://v:8200", "vault.auth.kubernetes.role:  -> r", "monitor.listen:  -> 127.0.0.1:1", "notify.ops.every:  -> 0",
					"management.expires_at:  -> 2027-02-01T00:00:00Z", "consumers.bot.exec.env.HINT: hidden",
				} {
					if !strings.Contains(all, want) {
						t.Errorf("%q is missing in\n%s", want, all)
					}
				}
				if strings.Contains(all, "words") {
					t.Errorf("a value that may be a secret is shown:\n%s", all)
				}
				return
			case "words":
				if got := strings.Join(got, "\n"); strings.Contains(got, "old-words") || !strings.Contains(got, "  on_drift: hold -> restore") || !strings.Contains(got, "  consumers: bot ->") || !strings.Contains(got, "consumers.bot2.exec.command") {
					t.Errorf("got\n%s", got)
				}
				return
			}
			want := tc.want
			for i := range want {
				want[i] = strings.TrimRight(want[i], " ")
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if d.Empty() != (len(want) == 0) || d.Empty() && d.Same != 2 {
				t.Errorf("empty %v, %d the same", d.Empty(), d.Same)
			}
			if tc.name == "removed" {
				if gone := d.Tokens[0]; gone.OnRemove != "revoke" || !gone.LivesUntil.Equal(now.Add(old.Tokens[1].Facts.Lifetime)) {
					t.Errorf("it lives until %s (%s)", gone.LivesUntil, gone.OnRemove)
				}
			}
			if _, err := json.Marshal(d); err != nil {
				t.Error(err)
			}
		})
	}
}
