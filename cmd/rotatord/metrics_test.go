//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/rotator"
)

// series are the values of a scrape, by what stands before them.
func series(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			out[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return out
}

// kinds counts the problems that a status tells.
func kinds(status statusJSON) map[rotator.ProblemKind]int {
	out := map[rotator.ProblemKind]int{}
	for _, p := range status.Problems {
		out[p.Kind]++
	}
	return out
}

// differ says where a scrape says other than a status of the same instant; "" where it does not.
func differ(text string, status statusJSON) string {
	got, kinds := series(text), kinds(status)
	want := map[string]string{"rotatord_config_last_reload_successful": "1", `rotatord_problems{kind="configuration"}`: "0"}
	if status.Configuration.Refused != nil { // status says that one by itself
		want = map[string]string{"rotatord_config_last_reload_successful": "0", `rotatord_problems{kind="configuration"}`: "1"}
	}
	unmanaged := 0
	for _, kind := range rotator.ProblemKinds() {
		if kind != rotator.ProblemConfiguration && kind != rotator.ProblemOutage {
			want[fmt.Sprintf("rotatord_problems{kind=%q}", kind)] = fmt.Sprint(kinds[kind])
		}
	}
	for _, tok := range status.Tokens {
		if tok.State == "unmanaged" {
			unmanaged++
			if strings.Contains(text, `"`+tok.Name+`"`) {
				return tok.Name + " is still told"
			}
			continue
		}
		want[fmt.Sprintf("rotatord_token_state{state=%q,token=%q}", tok.State, tok.Name)] = "1"
		want[fmt.Sprintf("rotatord_token_generation{token=%q}", tok.Name)] = fmt.Sprint(tok.Generation)
		want[fmt.Sprintf("rotatord_token_retiring{token=%q}", tok.Name)] = fmt.Sprint(len(tok.Retiring))
		want[fmt.Sprintf("rotatord_token_expiry_timestamp_seconds{token=%q}", tok.Name)] = fmt.Sprint(float64(tok.Expires.Unix()))
	}
	want["rotatord_unmanaged_tokens"], want["rotatord_tokens"] = fmt.Sprint(unmanaged), fmt.Sprint(len(status.Tokens)-unmanaged)
	for what, value := range want {
		if got[what] != value {
			return fmt.Sprintf("%s is %q, want %q", what, got[what], value)
		}
	}
	return ""
}

// The gauges say what rotatord status says of the same state, whatever is wrong, and say it again at
// once after a kill, while the counters begin anew. Nothing in them is an id, a token's label or a text.
func TestMetricsSayWhatStatusSays(t *testing.T) {
	t.Parallel()
	s, start := fineStage(t)
	r := start()
	until(t, "every token is in place", func() bool {
		_, text := r.get("/metrics")
		return series(text)["rotatord_failing_problems"] == "0" && strings.Count(text, `state="current"`) == 5
	})
	_, text := r.get("/metrics")
	if !regexp.MustCompile(`(?m)^rotatord_sink_pushes_total\{.*WELL",token="well"\} 1$`).MatchString(text) {
		t.Error("no push to the sink of well is counted")
	}
	for what, want := range map[string]string{
		`rotatord_creates_total{outcome="created"}`:                       "5",
		`rotatord_api_requests_total{operation="create",outcome="ok"}`:    "5",
		`rotatord_api_request_duration_seconds_count{operation="create"}`: "5",
		`rotatord_events_total{event="created"}`:                          "5",
		`rotatord_token_state{state="current",token="left"}`:              "1",
		`rotatord_config_last_reload_successful`:                          "1",
	} {
		if got := series(text)[what]; got != want {
			t.Errorf("%s is %q, want %q", what, got, want)
		}
	}

	// Trouble of every sort.
	s.trouble()
	s.write("rotation.yaml", manyTroubles+"nonsense: true\n")
	var last string
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(last)
		}
	})
	// same compares one scrape with one status; what happened between the two is over in a moment.
	same := func() bool {
		_, text := r.get("/metrics")
		var status statusJSON
		if err := json.Unmarshal([]byte(s.run(exitOK, "status", "--json")), &status); err != nil {
			t.Fatal(err)
		}
		if last = differ(text, status); last != "" {
			return false
		}
		kinds := kinds(status)
		if kinds[rotator.ProblemHeldSink] == 0 || status.Configuration.Refused == nil || kinds[rotator.ProblemSink]+kinds[rotator.ProblemUnread] == 0 || kinds[rotator.ProblemUnmanaged] == 0 {
			last = fmt.Sprintf("not everything is wrong yet: %v", kinds)
			return false
		}
		for _, tok := range status.Tokens {
			if tok.ID != "" && (strings.Contains(text, tok.ID) || strings.Contains(text, tok.Label)) {
				t.Fatalf("an id or a label is in the metrics of %s", tok.Name)
			}
		}
		for _, p := range status.Problems {
			if p.Error != "" && strings.Contains(text, p.Error) || strings.Contains(text, p.What) {
				t.Fatalf("a text is in the metrics: %s", p.What)
			}
		}
		return true
	}
	until(t, "the metrics say what status says", same)
	_, text = r.get("/metrics")
	s.noCanary("the metrics", []byte(text), s.token("WELL"), s.token("BROKEN"))

	r.signal(syscall.SIGKILL)
	r.end(-1)
	r = start()
	until(t, "after a kill, they say the same", same)
	_, text = r.get("/metrics")
	s.noCanary("the metrics", []byte(text), s.token("WELL"), s.token("BROKEN"))
	if got := series(text); got[`rotatord_creates_total{outcome="created"}`] != "0" || got["rotatord_config_stands_in"] != "1" {
		t.Errorf("after a restart: %s created, stands in %s", got[`rotatord_creates_total{outcome="created"}`], got["rotatord_config_stands_in"])
	}
	s.write("rotation.yaml", manyTroubles)
	s.run(exitOK, "reload")
	_, text = r.get("/metrics")
	if got := series(text); got["rotatord_config_last_reload_successful"] != "1" || got["rotatord_config_stands_in"] != "0" {
		t.Errorf("a good file is in force, and the metrics say %s", got["rotatord_config_last_reload_successful"])
	}
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
}

// A pass of once leaves its metrics, also where something fails.
func TestOnceLeavesMetrics(t *testing.T) {
	t.Parallel()
	s := newStage(t, oneToken)
	path := filepath.Join(s.dir, "rotatord.prom")
	s.run(exitOK, "once", "--next-pass", "1h", "--metrics-file", path)
	got := series(s.text("rotatord.prom"))
	for what, want := range map[string]string{
		"rotatord_loop_interval_seconds": "3600", "rotatord_failing_problems": "0", "rotatord_tokens": "1",
		"rotatord_config_last_reload_successful": "1", `rotatord_token_state{state="current",token="bot"}`: "1",
	} {
		if got[what] != want {
			t.Errorf("%s is %q, want %q", what, got[what], want)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("node_exporter could not read it: %v %v", st.Mode(), err)
	}
	s.write("rotation.yaml", oneToken+"nonsense: true\n") // the last accepted one does
	s.run(exitUsage, "once", "--next-pass", "1h", "--metrics-file", path)
	if got := series(s.text("rotatord.prom")); got["rotatord_config_last_reload_successful"] != "0" || got["rotatord_config_stands_in"] != "1" {
		t.Errorf("a refused file: %v", got["rotatord_config_last_reload_successful"])
	}
	s.write("rotation.yaml", oneToken)
	s.run(exitUsage, "once", "--metrics-file", filepath.Join(s.dir, "rotatord.txt"))
	says(t, s.stderr, "end in .prom")

	// One that cannot be written is a failure, after everything else was done, and hides no worse one.
	nowhere := filepath.Join(s.dir, "nowhere", "x.prom")
	before := s.token("BOT_TOKEN")
	s.write("rotation.yaml", strings.Replace(oneToken, "chatbots:read", "leads:read", 1))
	s.run(exitFailed, "once", "--next-pass", "1h", "--metrics-file", nowhere)
	says(t, s.stderr, "--metrics-file "+nowhere+": nobody is told how the tokens are")
	if s.token("BOT_TOKEN") == before {
		t.Error("the edit was not carried out")
	}
	s.write("rotation.yaml", oneToken+"nonsense: true\n")
	s.run(exitUsage, "once", "--next-pass", "1h", "--metrics-file", nowhere)
	says(t, s.stderr, "nonsense", "--metrics-file "+nowhere)
	s.write("rotation.yaml", oneToken)

	// Who could not be told of it is known in the same pass.
	s.write("rotation.yaml", strings.Replace(oneToken, "path: app.env", "path: gone/app.env", 1)+"notify: {n: {webhook: {url: \"http://127.0.0.1:1/\"}}}\n")
	s.run(exitFailed, "once", "--patience", "1s", "--next-pass", "1h", "--metrics-file", path)
	if got := series(s.text("rotatord.prom")); got[`rotatord_problems{kind="notify"}`] != "1" {
		t.Errorf("nobody could be told, and the metrics say %s", got[`rotatord_problems{kind="notify"}`])
	}
}
