//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/rotator"
)

// get asks a daemon as a browser or a program does, that says some headers: "Name: value".
func (r *running) get(path string, headers ...string) (int, string) {
	r.t.Helper()
	r.lines.wait(r.t, "answering probes")
	_, port, _ := strings.Cut(strings.TrimPrefix(probesAt.FindStringSubmatch(r.lines.String())[1], "[::]"), ":")
	req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+port+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if req.Header.Set(name, value); name == "Host" {
			req.Host = value
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// timeless is a status without its instant, and without instants that are always now.
func timeless(t *testing.T, text string) (out map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%v: %.300s", err, text)
	}
	now := out["at"]
	delete(out, "at")
	var clean func(v any)
	clean = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				if x == now {
					v[k] = "now"
				}
				clean(x)
			}
		case []any:
			for _, x := range v {
				clean(x)
			}
		}
	}
	clean(out)
	return out
}

const manyTroubles = `version: 1
instance: acme
api: {requests_per_minute: 6000}
daemon: {settle: 1s, read_back: 2s}
consumers: {bot: {flag: bot}}
defaults: {scopes: [chatbots:read], schedule: "@daily"}
tokens:
  - {name: well, description: "a <b>bold</b> one", consumers: [bot], sinks: [{env_file: {path: app.env, key: WELL}}]}
  - {name: broken, sinks: [{env_file: {path: app.env, key: BROKEN}}, {file: {path: gone/token}}]}
  - {name: touched, sinks: [{env_file: {path: touched.env, key: TOUCHED}}]}
  - {name: put-off, sinks: [{env_file: {path: app.env, key: PUT_OFF}}]}
`

// fineStage is a host on which every token of manyTroubles, and one more, can be well; start runs its
// daemon, until that is ready.
func fineStage(t *testing.T) (s *stage, start func() *running) {
	t.Helper()
	s = newStage(t, manyTroubles+`  - {name: left, sinks: [{env_file: {path: app.env, key: LEFT}}]}`+"\n")
	for _, dir := range []string{"gone", "run"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s, func() *running {
		r := s.background("ROTATORD_LISTEN=127.0.0.1:0", "RUNTIME_DIRECTORY="+filepath.Join(s.dir, "run"))
		until(t, "it is ready", func() bool { status, _ := r.probe("/readyz"); return status == http.StatusOK })
		return r
	}
}

// trouble makes it of every sort, under a running daemon.
func (s *stage) trouble() {
	s.t.Helper()
	s.write("rotation.yaml", manyTroubles) // left is no longer declared
	s.run(exitOK, "reload")
	s.run(exitOK, "pause", "put-off", "--until", "1h")
	s.write("touched.env", "TOUCHED=somebody-was-here\n")
	if err := os.RemoveAll(filepath.Join(s.dir, "gone")); err != nil {
		s.t.Fatal(err)
	}
	s.run(exitOK, "rotate", "well")
}

// The page and its JSON say what rotatord status says of the same state, whatever is wrong, and say it
// again at once after a kill. No plaintext is in either.
func TestThePageSaysWhatStatusSays(t *testing.T) {
	t.Parallel()
	s, start := fineStage(t)
	r := start()
	first := s.token("WELL")

	// Trouble of every sort.
	s.trouble()
	stray := strings.Replace(s.api.Live()[0].Name, "#1 ", "#9 ", 1)
	s.stray(stray)
	s.write("rotation.yaml", manyTroubles+"nonsense: true\n")
	kinds := func(status map[string]any) string {
		var out []string
		for _, p := range status["problems"].([]any) {
			out = append(out, p.(map[string]any)["kind"].(string))
		}
		return strings.Join(out, " ")
	}
	var last string
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(last)
		}
	})
	same := func() bool {
		_, served := r.get("/api/status.json")
		printed := s.run(exitOK, "status", "--json")
		a, b := timeless(t, served), timeless(t, printed)
		want := true
		last = fmt.Sprintf("served:  %v\nprinted: %v", a, b)
		for _, kind := range []rotator.ProblemKind{rotator.ProblemUnmanaged, rotator.ProblemHeldSink} {
			want = want && strings.Contains(kinds(a), string(kind))
		}
		want = want && (strings.Contains(kinds(a), string(rotator.ProblemSink)) || strings.Contains(kinds(a), string(rotator.ProblemUnread)))
		return want && a["configuration"].(map[string]any)["refused"] != nil && reflect.DeepEqual(a, b)
	}
	until(t, "the page says what status says", same)

	says(t, s.run(exitOK, "status"), "is no longer declared", "nonsense")
	shows := func() {
		t.Helper()
		_, page := r.get("/")
		var status statusJSON
		_, served := r.get("/api/status.json")
		if err := json.Unmarshal([]byte(served), &status); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(page, "<b>bold") || strings.Contains(served, "<b>") {
			t.Error("what a description holds is markup on the page")
		}
		text := html.UnescapeString(page)
		for _, p := range status.Problems {
			says(t, text, p.Token, p.What, p.Do)
		}
		says(t, text, "The daemon runs since ", `unknown key "nonsense"`, "TOKEN", "well", "put-off")
		if status.Instance != "acme" || status.Daemon == nil || status.Daemon.PID != r.Process.Pid || status.Daemon.Stuck != "" {
			t.Errorf("who: %q %+v", status.Instance, status.Daemon)
		}
		i := 0
		for ; i < len(status.Tokens) && status.Tokens[i].Name != "well"; i++ {
		}
		if w := status.Tokens[i]; w.Schedule != "@daily UTC" || w.Description != "a <b>bold</b> one" || !w.Overlap.Equal(w.Expires.Add(-48*60*60*1e9)) || w.Overlap.Before(w.Planned) {
			t.Errorf("what a timeline needs: %+v", w)
		}
		s.output.WriteString(page + served)
	}
	shows()

	r.signal(syscall.SIGKILL)
	r.end(-1)
	r = start()
	until(t, "after a kill, it says the same", same)
	shows()
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
	s.noPlaintext(first, s.token("WELL"), s.token("BROKEN"))
}

// stray makes a token at SiteGPT behind the daemon's back.
func (s *stage) stray(label string) {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{"name": label, "scopes": []string{"chatbots:read"}})
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, s.url+"/api/v2/tokens", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.api.Management().Reveal())
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode >= 300 {
		s.t.Fatalf("make a stray token: %s", res.Status)
	}
}

// Where others reach the address, only who shows the token sees more than the probes. Another token in
// the file counts at once, and so does a reload.
func TestWhoMayLook(t *testing.T) {
	t.Parallel()
	const first, second = "first-0123456789abcdef", "second-0123456789abcdef"
	s := newStage(t, "monitor: {listen: \"0.0.0.0:0\", token: {file: monitor.token}}\n"+oneToken)
	s.write("monitor.token", first+"\n")
	r := s.background()
	expect := func(want int, path string, headers ...string) (body string) {
		t.Helper()
		status, body := r.get(path, headers...)
		if status != want {
			t.Errorf("%s with %q: %d, want %d: %.200s", path, headers, status, want, body)
		}
		return body
	}
	bearer := func(token string) string { return "Authorization: Bearer " + token }
	until(t, "it is ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	expect(200, "/healthz")
	for _, path := range []string{"/", "/api/status.json"} {
		if body := expect(401, path); strings.Contains(body, "bot") {
			t.Errorf("%s tells without the token: %s", path, body)
		}
		expect(401, path, bearer(second))
		says(t, expect(200, path, bearer(first)), "bot")
	}
	found(t, s.examine(exitOK), "monitor", works, "monitor.token can be read")
	s.write("monitor.token", second)
	expect(401, "/", bearer(first))
	expect(200, "/", bearer(second), "Host: any.example.com")

	// A token that everybody guesses, and none.
	s.write("monitor.token", "guess")
	expect(503, "/", bearer("guess"))
	r.lines.wait(t, "has fewer than 16 characters")
	if err := os.Remove(filepath.Join(s.dir, "monitor.token")); err != nil {
		t.Fatal(err)
	}
	if body := expect(503, "/", bearer(second)); strings.Contains(body, s.dir) {
		t.Errorf("an outsider is told of a path: %s", body)
	}
	expect(200, "/healthz")
	found(t, s.examine(exitFailed), "monitor", fails, "no such file or directory → until it can be read, the page and the metrics are shown to nobody")

	// Said out loud, everybody may look; by a name that is known.
	s.write("rotation.yaml", "monitor: {listen: \"0.0.0.0:0\", insecure: true, hosts: [Wall.example.com]}\n"+oneToken)
	s.run(exitOK, "reload")
	expect(200, "/")
	expect(200, "/", "Host: wall.example.com:9090")
	expect(403, "/", "Host: evil.example.com")
	expect(403, "/api/status.json", "Sec-Fetch-Site: cross-site")

	// Neither the one nor the other.
	s.write("rotation.yaml", "monitor: {listen: \"0.0.0.0:0\"}\n"+oneToken)
	s.run(exitOK, "reload")
	says(t, expect(403, "/"), "monitor: {token: {file:", "127.0.0.1")
	expect(200, "/healthz")
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
	for _, token := range []string{first, second} {
		if strings.Contains(r.lines.String(), token) {
			t.Error("the log holds the monitor's token")
		}
	}
}

// Whoever named the address named a name of it: the flag and the environment as well as the file.
func TestTheAddressIsKnownByItsName(t *testing.T) {
	t.Parallel()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := net.LookupHost(name); err != nil {
		t.Skipf("this machine does not know its own name: %v", err)
	}
	for _, named := range []string{"the file", "the environment"} {
		config, env := "monitor: {insecure: true}\n"+oneToken, []string{"ROTATORD_LISTEN=" + name + ":0"}
		if named == "the file" {
			config, env = "monitor: {insecure: true, listen: \""+name+":0\"}\n"+oneToken, nil
		}
		r := newStage(t, config).background(env...)
		if status, body := r.get("/", "Host: "+strings.ToUpper(name)+":9090"); status != http.StatusOK {
			t.Errorf("named by %s: %d %s", named, status, body)
		}
		if status, _ := r.get("/", "Host: evil.example.com"); status != http.StatusForbidden {
			t.Errorf("named by %s, and asked for by another name: %d", named, status)
		}
		r.signal(syscall.SIGTERM)
		r.end(exitOK)
	}
}

// An address for probes alone needs no token, and shows nothing else.
func TestProbesWithoutAToken(t *testing.T) {
	t.Parallel()
	s := newStage(t, oneToken)
	r := s.background("ROTATORD_LISTEN=0.0.0.0:0")
	if status, _ := r.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
	if status, body := r.get("/"); status != http.StatusForbidden || !strings.Contains(body, "Others can reach this address") {
		t.Errorf("/: %d %s", status, body)
	}
	says(t, r.lines.String(), "for nobody: others reach this address, and there is no monitor.token")
	says(t, s.run(exitOK, "health"), "ok: pid ")
	r.signal(syscall.SIGTERM)
	r.end(exitOK)
}

// A rehearsal shows its page unasked, to this machine alone, whatever the file says.
func TestARehearsalShowsItsPage(t *testing.T) {
	t.Parallel()
	s := newStage(t, "monitor: {listen: \"0.0.0.0:1\", token: {file: /nowhere}}\n"+oneToken)
	cmd, _ := s.process(nil, "run", "--sandbox")
	r := &running{Cmd: cmd, t: t}
	cmd.Stdout, cmd.Stderr = &r.lines, &r.lines
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		r.signal(syscall.SIGTERM)
		r.end(exitOK)
	}()
	r.lines.wait(t, "Look at it: http://127.0.0.1:")
	url := regexp.MustCompile(`Look at it: (http://\S+)`).FindStringSubmatch(r.lines.String())[1]
	res, err := http.Get(url + "api/status.json")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(body), `"state":"current"`) {
		t.Errorf("%s: %s %v", url, body, err)
	}
}

// A name at SiteGPT is somebody's text: it stays on its line, and gives a terminal no orders.
func TestANameAtSiteGPTGivesNoOrders(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	s.stray(strings.Replace(s.api.Live()[0].Name, "#1 ", "#9 ", 1) + " \x1b[2Jgone\r\nnothing to do")
	s.run(exitOK, "once")
	for _, command := range []string{"orphans", "plan", "status"} {
		out := s.run(exitOK, command)
		if !strings.Contains(out, "#9 ") || strings.ContainsAny(out, "\x1b\r") || strings.Contains(out, "\nnothing to do") {
			t.Errorf("%s prints %q", command, out)
		}
	}
}
