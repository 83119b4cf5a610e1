package main

import (
	"strings"
	"testing"
)

// The tab key knows this installation's tokens, their sinks, and what a flag takes; it makes nothing,
// and breaks no line with a complaint.
func TestCompletion(t *testing.T) {
	const more = `  - {name: kb, scopes: [leads:read], schedule: "@daily", sinks: [{name: the file, file: {path: kb.token}}]}
notify: {oncall: {slack: {url: {env: SLACK}}}}
`
	s := newStage(t, oneToken+more)
	s.env = map[string]string{"SLACK": ""}
	offers := func(args ...string) string {
		t.Helper()
		lines := strings.Split(strings.TrimSpace(s.run(exitOK, append([]string{"__complete"}, args...)...)), "\n")
		return strings.ReplaceAll(strings.Join(lines[:len(lines)-1], " "), "\t", "=") // the last line is for the shell
	}
	for _, tc := range []struct{ line, want string }{
		{"rotate ", "bot=the support bot kb"},
		{"rotate kb ", "bot=the support bot"},
		{"revoke ", "bot=the support bot kb"},
		{"revoke bot ", ""},
		{"notify ", "oncall"},
		{"run ", ""},
		{"plan --format ", "text json markdown=with --diff"},
		{"validate --format ", "text json github=workflow commands"},
		{"history --format ", "table json jsonl csv report=for an auditor"},
		{"adopt kb --sink ", "the file=kb"},
		{"simulate --outage ", "api: env_file: file:"},
		{"simulate --outage api:", ""},
		{"--log-level ", "debug info warn error"},
	} {
		if got := offers(strings.Split(tc.line, " ")...); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.line, got, tc.want)
		}
	}
	if got := offers("history", "--kind", ""); !strings.Contains(got, "created") || !strings.Contains(got, "configured") {
		t.Errorf("kinds: %q", got)
	}
	s.run(exitOK, "once")
	s.write("rotation.yaml", strings.Replace(oneToken, "name: bot", "name: robot", 1))
	if got := offers("revoke", ""); got != "bot kb robot=the support bot" { // what is no longer declared is there to be revoked
		t.Errorf("from the state, too: %q", got)
	}
	s.write("rotation.yaml", "no configuration: at all\n")
	if got := offers("revoke", ""); got != "bot kb" {
		t.Errorf("of a file that is refused: %q", got)
	}
}
