//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/monitor/promtest"
	"github.com/rotatord/rotatord/rotator/notify"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
	"github.com/rotatord/rotatord/rotator/store"
)

const hourStep = 15 * time.Second // between two looks, scrapes and evaluations of the alerts

// hour is a daemon whose clock a test moves. All else is real: state, sinks, HTTP, the page, the
// metrics, promtool. What a daemon does by tickers, the test does at each step.
type hour struct {
	*stage
	scrapes *promtest.Scrapes
	log     bytes.Buffer

	mu  sync.Mutex
	now time.Time

	service *service // nil: it is dead
	kill    func()
	moments []moment
	shown   string   // all pages and scrapes
	values  []string // every plaintext that was in a sink
}

// moment is what could be seen at one step.
type moment struct {
	at      time.Time
	up      bool
	status  statusJSON
	page    string
	metrics map[string]string
}

func (h *hour) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// start begins a daemon, as run does.
func (h *hour) start() {
	h.t.Helper()
	ctx := h.t.Context()
	a := &app{environment: environment{
		stdin: strings.NewReader(""), stdout: io.Discard, stderr: &h.log, getenv: func(string) string { return "" },
		environ: func() []string { return nil }, now: h.clock,
	}, set: settings{
		Config: filepath.Join(h.dir, "rotation.yaml"), StateDir: filepath.Join(h.dir, "state"), Base: h.url,
		Token: envSecret{h.api.Management()}, Listen: "127.0.0.1:0", LogLevel: "debug", LogFormat: "text",
	}}
	b, leave, err := a.enter(ctx, ctx, how{kind: store.Daemon, command: "run"})
	if err != nil {
		h.t.Fatal(err, h.log.String())
	}
	h.service = newService(ctx, b, newSupervisor(a.getenv), nil)
	shut, err := h.service.listen()
	if err != nil {
		h.t.Fatal(err)
	}
	h.kill = func() { // without a word: nothing is noted, nobody is told
		shut()
		leave()
		h.service = nil
	}
	h.service.beat(ctx, ctx)
	h.service.engine.Wait()
	h.service.becomeReady(ctx)
}

// get asks the daemon as a browser or Prometheus does.
func (h *hour) get(path string) string {
	h.t.Helper()
	res, err := http.Get("http://" + h.service.lock.Who().Listen + path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		h.t.Fatalf("%s: %s, %v", path, res.Status, err)
	}
	return string(body)
}

// step is one round of all that a daemon does, and a look at it from outside.
func (h *hour) step() {
	h.t.Helper()
	h.mu.Lock()
	h.now = h.scrapes.Next()
	h.mu.Unlock()
	m := moment{at: h.clock()}
	if h.service == nil {
		h.scrapes.Down()
	} else {
		ctx, s := h.t.Context(), h.service
		if s.edits.edited() {
			s.edits.try(ctx)
		}
		s.beat(ctx, ctx)
		s.engine.Wait()
		s.teller.Look(ctx, false)
		s.teller.Wait()
		s.tellPeople(ctx)
		s.notifier.Wait()
		m.up = true
		m.page = html.UnescapeString(h.get("/"))
		if err := json.Unmarshal([]byte(h.get("/api/status.json")), &m.status); err != nil {
			h.t.Fatal(err)
		}
		text := h.get("/metrics")
		h.scrapes.Scraped(h.t, text)
		m.metrics = series(text)
		h.shown += m.page + text
		for _, name := range []string{"API", "BOT", "CRM"} {
			if v := held(filepath.Join(h.dir, map[bool]string{true: "crm", false: "web"}[name == "CRM"], "app.env"), name); v != "" && !slices.Contains(h.values, v) {
				h.values = append(h.values, v)
			}
		}
		if why := differ(text, m.status); why != "" {
			h.t.Errorf("%s: the metrics say other than the status: %s", m.at.Format(time.TimeOnly), why)
		}
	}
	h.moments = append(h.moments, m)
}

// until steps to an instant of that day.
func (h *hour) until(clock string) {
	h.t.Helper()
	at, err := time.Parse(time.DateTime, h.scrapes.Begun.Format(time.DateOnly)+" "+clock+":00")
	if err != nil {
		h.t.Fatal(err)
	}
	for h.scrapes.Next().Before(at) {
		h.step()
	}
}

// shows reports whether at that moment the page showed anything wrong.
func (m *moment) shows() bool {
	return len(m.status.Problems) > 0 || m.status.Configuration.Refused != nil
}

// An hour of trouble, seen by all who look: the metrics, the alerts, the page, the people who are told,
// the programs that are told, and afterwards the auditor. They must tell the same.
func TestAnHourOfTrouble(t *testing.T) {
	t.Parallel()
	begun := time.Date(2027, 3, 1, 9, 2, 0, 0, time.UTC)
	people, channel, shop := newReceiver(t), newReceiver(t), newReceiver(t)
	h := &hour{stage: newStage(t, ""), now: begun, scrapes: promtest.New(t, "../../docs/monitoring/rotatord.rules.yaml", begun, hourStep)}
	ticks := time.Duration(0) // for commands time passes: they do not wait for ever
	h.stage.now = func() time.Time {
		now := h.clock()
		h.mu.Lock()
		defer h.mu.Unlock()
		ticks++
		return now.Add(ticks)
	}
	h.write("shared", "shared-with-the-shop\n")
	h.write("channel", channel.URL+"/services/T0/hunter2\n")
	config := `version: 1
instance: shop-eu
api: {requests_per_minute: 6000}
daemon: {read_back: 5m, settle: 1s}
defaults: {schedule: "@hourly", overlap: 20m, margin: 8m, scopes: [chatbots:read]}
consumers: {shop: {http: {url: ` + shop.URL + `, secret: {file: shared}}}}
notify:
  people: {webhook: {url: ` + people.URL + `}, on: [failing, waiting, rotated]}
  channel: {slack: {url: {file: channel}}}
tokens:
  - {name: api, consumers: [shop], sinks: [{env_file: {path: web/app.env, key: API}}]}
  - {name: bot, consumers: [shop], sinks: [{env_file: {path: web/app.env, key: BOT}}]}
  - {name: crm, sinks: [{env_file: {path: crm/app.env, key: CRM}}]}
`
	h.write("rotation.yaml", config)
	web := filepath.Join(h.dir, "web")
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(web, 0o700), os.Mkdir(filepath.Join(h.dir, "crm"), 0o700))

	h.start()
	h.until("09:50") // two of three tokens cannot be rotated any more, nor read
	must(os.Rename(web, web+".gone"), os.WriteFile(web, nil, 0o600))
	h.until("10:11") // the tick has passed, half of the time for retries is gone, and the daemon dies
	h.kill()
	h.until("10:18") // it comes back, all of the time for retries is gone
	h.start()
	h.until("10:19") // somebody edits in a hurry
	h.write("rotation.yaml", config+"oops: 1\n")
	h.until("10:20") // somebody mends the folder, and does not want to wait
	must(os.Remove(web), os.Rename(web+".gone", web))
	h.run(exitFailed, "rotate", "api", "bot", "--timeout", "1ns")
	h.until("10:32") // the edit is mended
	h.write("rotation.yaml", config)
	h.until("10:40") // crm's token was seen in a log
	h.run(exitFailed, "rotate", "crm", "--compromised", "--timeout", "1ns")
	h.until("11:15") // the next ticks are as every day
	h.kill()

	events := h.journal()
	t.Run("the page and the metrics", h.pageAndMetrics)
	t.Run("the alerts", h.alerts)
	t.Run("people", func(t *testing.T) { h.people(t, people.messages(t), channel.got()) })
	t.Run("programs", func(t *testing.T) { h.programs(t, shop.got(), events) })
	t.Run("the audit trail", func(t *testing.T) { h.audited(t, people.messages(t), events) })
	if len(h.values) != 10 {
		t.Errorf("%d plaintexts were seen in sinks, want 10", len(h.values))
	}
	told := strings.Join(slices.Concat(people.got(), channel.got(), shop.got()), "\n")
	h.noCanary("what was shown and told", []byte(h.shown+told+h.log.String()+h.output.String()), h.values...)
	if strings.Contains(h.shown+told+h.log.String()+h.output.String(), "hunter2") {
		t.Error("the address of the channel was told")
	}
}

// pageAndMetrics holds the page against the metrics at every step; and what is not in a status either
// is on the page as text.
func (h *hour) pageAndMetrics(t *testing.T) {
	shown := 0
	for _, m := range h.moments {
		if !m.up {
			continue
		}
		at := m.at.Format(time.TimeOnly)
		failing := 0
		for _, p := range m.status.Problems {
			if !strings.Contains(m.page, p.What) || !strings.Contains(m.page, strings.TrimPrefix(p.Error, p.Sink+": ")) || !strings.Contains(m.page, p.Do) {
				t.Errorf("%s: the page does not show: %+v", at, p)
			}
			if p.Failing {
				failing++
			}
			shown++
		}
		if refused := m.status.Configuration.Refused; refused != nil {
			failing++
			if !strings.Contains(m.page, `unknown key "oops"`) {
				t.Errorf("%s: the page does not show the refused edit:\n%s", at, m.page)
			}
		}
		if got := m.metrics["rotatord_failing_problems"]; got != fmt.Sprint(failing) {
			t.Errorf("%s: %s problems by the metrics, %d on the page", at, got, failing)
		}
		for _, tok := range m.status.Tokens {
			if !strings.Contains(m.page, tok.Name) || !strings.Contains(m.page, fmt.Sprint(tok.Generation)) {
				t.Errorf("%s: the page does not show %s", at, tok.Name)
			}
		}
	}
	if shown < 100 {
		t.Errorf("%d problems were looked at", shown)
	}
}

// firing is from when to when an alert fires.
type firing struct{ from, to string }

// alerts says which fire, and when: at every step, but for two around each change. While the page is
// clean none does.
func (h *hour) alerts(t *testing.T) {
	fires := map[string][]firing{
		"RotatordTokenFailing":  {{"10:02:30", "10:11:00"}, {"10:18:00", "10:20:00"}}, // a quarter of the margin after the tick
		"RotatordTokenLate":     {{"10:09:00", "10:11:00"}, {"10:18:00", "10:20:00"}}, // half of the margin after the tick
		"RotatordTokenAtRisk":   {{"10:18:00", "10:20:00"}},
		"RotatordSinkFailing":   {{"09:54:30", "10:11:00"}, {"10:18:00", "10:20:00"}}, // and after the sinks could first not be read
		"RotatordDown":          {{"10:16:00", "10:18:00"}},                           // which needs no daemon
		"RotatordConfigRefused": {{"10:29:15", "10:32:15"}},                           // nobody is in a hurry
	}
	clock := func(text string) time.Time {
		at, err := time.Parse(time.DateTime, h.scrapes.Begun.Format(time.DateOnly)+" "+text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	var ask []promtest.Expectation
	for i, m := range h.moments {
		var want []promtest.Sample
		unsure := false
		for name, spans := range fires {
			for _, s := range spans {
				from, to := clock(s.from), clock(s.to)
				for _, edge := range []time.Time{from, to} {
					unsure = unsure || m.at.Sub(edge).Abs() <= 2*hourStep
				}
				if !m.at.Before(from) && m.at.Before(to) {
					want = append(want, promtest.Sample{Labels: `alertname="` + name + `"`, Value: 1})
				}
			}
		}
		if unsure {
			continue
		}
		if m.up && len(want) > 0 && !m.shows() {
			t.Errorf("%s: alerts fire, and the page is clean: %v", m.at.Format(time.TimeOnly), want)
		}
		ask = append(ask, promtest.Ask(time.Duration(i)*hourStep, `count by (alertname) (count by (alertname, instance) (ALERTS{alertstate="firing"}))`, want...))
	}
	if len(ask) < 450 {
		t.Errorf("%d steps are asked about", len(ask))
	}
	h.scrapes.Check(t, ask)
}

// people are told of each trouble once, as it grows and when it is over; also by the other daemon. What
// they are told of is on the page at that moment, and what was over is not.
func (h *hour) people(t *testing.T, all []notify.Message, channel []string) {
	var got []string
	for _, m := range all {
		first, _, _ := strings.Cut(m.Text, "\n")
		_, news, _ := strings.Cut(first, ": ")
		got = append(got, m.At.Format("15:04:05 ")+news)
	}
	want := []string{
		"09:03:00 3 rotated",
		"09:53:30 1 new problem",
		"10:00:30 1 worse",
		"10:06:00 1 rotated (1 open)",
		"10:20:15 1 new problem, 2 rotated (2 open)",
		"10:21:00 1 solved (1 open)",
		"10:33:15 1 solved. All clear.",
		"10:41:00 1 rotated",
		"11:01:30 2 rotated",
		"11:06:00 1 rotated",
	}
	if !slices.Equal(got, want) {
		t.Errorf("people were told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(channel) != 5 { // it does not want to know what rotated
		t.Errorf("the channel was told %d times: %q", len(channel), channel)
	}
	for _, m := range all {
		i := slices.IndexFunc(h.moments, func(x moment) bool { return !x.at.Before(m.At) })
		now := h.moments[i]
		if !now.up {
			t.Errorf("%s: told by nobody", m.At)
		}
		for _, item := range slices.Concat(m.New, m.Worse) {
			if item.Kind == string(rotator.ProblemConfiguration) {
				if now.status.Configuration.Refused == nil {
					t.Errorf("%s: the page shows no refused edit", m.At)
				}
				continue
			}
			worst := false // of the kind that people are told, and with what they are to do
			for _, token := range item.Tokens {
				if !slices.ContainsFunc(now.status.Problems, func(p problemJSON) bool {
					worst = worst || p.Token == token && string(p.Kind) == item.Kind && strings.Contains(item.Do, p.Do)
					return p.Token == token && p.Failing
				}) {
					t.Errorf("%s: people are told of %s, and the page does not show it", m.At, token)
				}
			}
			if !worst {
				t.Errorf("%s: the page shows no such thing, or another advice: %+v", m.At, item)
			}
		}
		if now.shows() != (m.Open > 0) {
			t.Errorf("%s: %d are open by what people are told; the page: %+v", m.At, m.Open, now.status.Problems)
		}
	}
}

// programs are told of each new value once, and in one message of what came at once.
func (h *hour) programs(t *testing.T, shop []string, events []rotator.Event) {
	var got []string
	for _, body := range shop {
		var m struct {
			Tokens []struct {
				Name       string
				Generation int
			}
		}
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, tok := range m.Tokens {
			text += fmt.Sprintf("%s %d ", tok.Name, tok.Generation)
		}
		got = append(got, text)
	}
	if want := []string{"api 1 bot 1 ", "api 2 bot 2 ", "api 3 ", "bot 3 "}; !slices.Equal(got, want) {
		t.Errorf("the shop was told of %q, want %q", got, want)
	}
	promoted, told := map[string]bool{}, map[string]bool{}
	for _, ev := range events {
		if key := fmt.Sprintf("%s %d ", ev.Entry, ev.Generation); ev.Kind == rotator.EventConverged && ev.Entry != "crm" {
			promoted[key] = true
		} else if ev.Kind == rotator.EventTold {
			told[key] = true
		}
	}
	if len(promoted) != 6 || !maps.Equal(promoted, told) {
		t.Errorf("%v were promoted, and of %v the shop was told", promoted, told)
	}
}

// journal is what the state says of all.
func (h *hour) journal() (events []rotator.Event) {
	h.t.Helper()
	for line := range strings.Lines(h.run(exitOK, "history", "--limit", "0", "--format", "jsonl")) {
		var ev rotator.Event
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			h.t.Fatal(err)
		}
		events = append(events, ev)
	}
	return events
}

// audited holds the journal against SiteGPT, what the metrics counted, and what people were told.
func (h *hour) audited(t *testing.T, told []notify.Message, events []rotator.Event) {
	count := map[rotator.EventKind]int{}
	by := map[string]int{}
	for _, ev := range events {
		count[ev.Kind]++
		if ev.Kind == rotator.EventAsked {
			by[ev.By]++
		}
	}
	counted := func(prefix string) (sum int) { // by both daemons
		for i, m := range h.moments {
			if m.up && (i+1 == len(h.moments) || !h.moments[i+1].up) {
				for series, value := range m.metrics {
					if strings.HasPrefix(series, prefix) {
						n, err := strconv.Atoi(value)
						if err != nil {
							t.Fatal(series, err)
						}
						sum += n
					}
				}
			}
		}
		return sum
	}
	rotated := 0
	for _, m := range told {
		rotated += len(m.Rotated)
	}
	for _, x := range []struct {
		what string
		got  int
		want int
	}{
		{"created, by the journal", count[rotator.EventCreated], 10},
		{"created, by SiteGPT", h.api.Made(), 10},
		{"created, by the metrics", counted(`rotatord_creates_total{outcome="created"}`), 10},
		{"pushed, by the journal", count[rotator.EventPushed], 10},
		{"pushed, by the metrics", counted("rotatord_sink_pushes_total{"), 10},
		{"in place, by the journal", count[rotator.EventConverged], 10},
		{"in place, by what people were told", rotated, 10},
		{"revoked, by the journal", count[rotator.EventRevoked], 1},
		{"revoked, by SiteGPT", h.api.Count(sandbox.OpRevoke), 1},
		{"revoked, by the metrics", counted(`rotatord_events_total{event="revoked"}`), 1},
		{"failed, by the metrics and the journal", counted(`rotatord_events_total{event="failed"}`), count[rotator.EventFailed]},
		{"asked for", count[rotator.EventAsked], 3},
		{"started", count[rotator.EventStarted], 2},
		{"ended in order", count[rotator.EventStopped], 0},
		{"configurations accepted", count[rotator.EventConfigured], 1},
		{"configurations refused", count[rotator.EventDeclined], 1},
		{"users who asked", len(by), 1},
	} {
		if x.got != x.want {
			t.Errorf("%s: %d, want %d", x.what, x.got, x.want)
		}
	}
	report := h.run(exitOK, "history", "--format", "report")
	says(t, report, "**There was no gap: whenever a token ended, its successor was in place.** 1 token needs a look, of 3.",
		"a generation newer than 1 | api, bot |", "it is compromised | crm |", "| declined |", `unknown key "oops"`,
		"follows one that did not end in order", "| 2 | 2027-03-01 10:05:00 | 2027-03-01 10:05:00 | 2027-03-01 10:40:00 | 35m | 3 at 2027-03-01 10:40:00 |",
		"revoked; a person asked for it; by ")
}
