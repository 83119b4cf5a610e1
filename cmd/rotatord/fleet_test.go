package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fleet is a configuration of so many tokens as companies have them.
func fleet(n int) string {
	teams := []string{"support", "sales", "docs", "shop", "crm", "billing", "search", "mobile", "intranet", "partner"}
	parts := []string{"bot", "sync", "export", "widget", "importer", "agent"}
	about := []string{"answers in the help centre", "", "nightly job", "embedded in the shop window", "", "reads what editors write"}
	timing := []string{
		`schedule: "0 3 * * MON", timezone: Europe/Berlin`, `schedule: "@daily", overlap: 8h`, `schedule: "0 4 1 * *", overlap: 7d`,
		`schedule: "@daily", overlap: 36h`, `schedule: "0 5 1 */3 *", overlap: 14d`, `schedule: "0 */6 * * *", overlap: 3h`, `schedule: "0 2 * * SAT", overlap: 2d`,
	}
	scopes := []string{"conversations:read", "knowledge:read, knowledge:write", "leads:read"}
	var b strings.Builder
	b.WriteString("version: 1\ninstance: prod-eu\nconsumers: {shop: {flag: shop}}\ntokens:\n")
	for i := range n {
		name := teams[i%len(teams)] + "-" + parts[i/len(teams)%len(parts)]
		if i >= len(teams)*len(parts) {
			name += "-" + strconv.Itoa(i/(len(teams)*len(parts))+1)
		}
		fmt.Fprintf(&b, "  - name: %s\n    scopes: [%s]\n", name, scopes[i%len(scopes)])
		if text := about[i%len(about)]; text != "" {
			fmt.Fprintf(&b, "    description: %s\n", text)
		}
		for field := range strings.SplitSeq(timing[i%len(timing)], ", ") {
			fmt.Fprintf(&b, "    %s\n", field)
		}
		if i%4 == 3 {
			b.WriteString("    consumers: [shop]\n")
		}
		fmt.Fprintf(&b, "    sinks:\n      - env_file: {path: /srv/%s/app.env, key: SITEGPT_API_TOKEN}\n", name)
		if i%3 == 1 {
			fmt.Fprintf(&b, "      - vault_kv: {mount: secret, path: apps/%s, key: sitegpt_token}\n", name)
		}
		if i%5 == 2 {
			fmt.Fprintf(&b, "      - file: {path: /srv/%s/token.json}\n        required: false\n", name)
		}
	}
	return b.String()
}

// A fleet that is rehearsed over weeks, as if that had been: at its end every token is in place, and
// older ones live beside them. With ROTATORD_TEST_FLEET=FOLDER:TOKENS it is left there, for whoever
// wants to see one: run --sandbox in that folder goes on with it.
func TestAFleetOfAge(t *testing.T) {
	dir, n := t.TempDir(), 30
	if text := os.Getenv("ROTATORD_TEST_FLEET"); text != "" {
		i := strings.LastIndex(text, ":")
		dir = text[:max(i, 0)]
		var err error
		if n, err = strconv.Atoi(text[i+1:]); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "rotation.yaml"), []byte(fleet(n)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	command := func(ago time.Duration, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		code := run(context.Background(), append(args, "--sandbox"), environment{
			stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(string) string { return "" },
			environ: func() []string { return nil }, now: func() time.Time { return time.Now().Add(-ago) },
		})
		if code != exitOK {
			t.Fatalf("%v, %s ago: exit code %d\n%s%s", args, ago, code, &out, &errs)
		}
		return out.String()
	}
	const day = 24 * time.Hour
	ago := []time.Duration{60 * day, 20 * day, 9 * day, 3 * day, 40 * time.Hour, 26 * time.Hour, 13 * time.Hour, 2 * time.Hour}
	if n > 100 { // each takes its time
		ago = []time.Duration{9 * day, 40 * time.Hour, 13 * time.Hour, 2 * time.Hour}
	}
	for _, a := range ago {
		command(a, "once")
	}
	var out statusJSON
	if err := json.Unmarshal([]byte(command(0, "status", "--json")), &out); err != nil {
		t.Fatal(err)
	}
	older := 0
	for _, tok := range out.Tokens {
		older += len(tok.Retiring)
		if tok.Generation == 0 || !tok.Expires.After(time.Now()) {
			t.Errorf("%s: generation %d until %s", tok.Name, tok.Generation, tok.Expires)
		}
	}
	if len(out.Tokens) != n || older == 0 || len(out.Problems) > 0 {
		t.Errorf("%d tokens, %d older ones, problems: %+v", len(out.Tokens), older, out.Problems)
	}
}
