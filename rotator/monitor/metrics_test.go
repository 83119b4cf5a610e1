package monitor_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/monitor"
)

var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// metrics are those of a state that a test makes up.
func metrics(view func() monitor.View, change ...func(*monitor.MetricsConfig)) *monitor.Metrics {
	c := monitor.MetricsConfig{
		Version: "v1.2.3", View: view, Log: slog.New(slog.DiscardHandler),
		APIOperations: []string{"create", "list"}, APIOutcomes: []string{"ok", "no_answer"},
		VaultOperations: []string{"read"}, VaultOutcomes: []string{"ok"},
	}
	for _, f := range change {
		f(&c)
	}
	return monitor.NewMetrics(c)
}

// scrape asks as Prometheus does.
func scrape(t testing.TB, m *monitor.Metrics) (status int, text string) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body)
}

// parse reads the text of a scrape.
func parse(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// values are the series of a scrape as they stand there.
func values(t *testing.T, m *monitor.Metrics) map[string]string {
	t.Helper()
	status, text := scrape(t, m)
	if status != http.StatusOK {
		t.Fatalf("%d: %s", status, text)
	}
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			out[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return out
}

const canary = "canary"

// troubled is a fleet in which everything that can be told is there. What must not be told says so.
func troubled() monitor.View {
	at := func(hours int) time.Time { return noon.Add(time.Duration(hours) * time.Hour) }
	timing := rotator.Timing{Overlap: 48 * time.Hour, Margin: 12 * time.Hour}
	bot := rotator.Entry{
		Name: "bot", Timing: timing, Description: canary,
		Outlets: []rotator.Outlet{
			{Place: "env_file:/a", Name: "a", Kind: "env_file", Required: true},
			{Place: "file:/b", Name: "same", Kind: "file", Required: true},
			{Place: "file:/c", Name: "same", Kind: "file"},
			{Place: "file:/d", Name: "d", Kind: "file", Required: true},
		},
		Consumers: []rotator.Consumer{{Name: "app", Title: "app.service"}},
	}
	records := []rotator.Record{{
		Name: "bot", Last: 2, PausedUntil: at(5), Blocked: canary,
		Generations: []rotator.Generation{
			{Number: 2, ID: "id-" + canary, Label: canary, Hash: canary, Created: at(-2), Intended: at(-2), Verified: at(-2), Expires: at(100), Planned: at(50)},
			{Number: 1, ID: "id-" + canary, Label: canary, Created: at(-90), Intended: at(-90), Verified: at(-90), Converged: at(-90), Expires: at(40), Planned: at(-2)},
		},
		Sinks: []rotator.SinkState{
			{Place: "env_file:/a", Begun: 2, Holds: 2, Ever: true, Since: at(-1)},
			{Place: "file:/b", Holds: 1, Ever: true, Since: at(-90), Retry: rotator.Retry{Tries: 3, Since: at(-1), At: at(1), Error: canary}},
			{Place: "file:/c", Holds: 1, Ever: true, Held: canary},
		},
		Consumers: []rotator.ConsumerState{{Name: "app", Told: 2, Taken: 2, Retry: rotator.Retry{Tries: 1, Since: at(-1), Error: canary}}},
	}, {
		Name: "gone", Generations: []rotator.Generation{{Number: 1, ID: canary, Label: canary, Expires: at(10), Created: at(-10)}},
	}}
	entries := []rotator.Entry{bot, {Name: "gone", Removed: true}, {Name: "new", Timing: timing}}
	return monitor.View{
		Report: rotator.Describe(entries, records, noon), Entries: entries, Records: records,
		Management: at(700), Offset: -2 * time.Second, Offsets: true,
		Outages:  []rotator.Outage{{What: canary, Error: canary, Waiting: []string{"bot"}}},
		Found:    rotator.Found{At: at(-1), Unexplained: []rotator.Listed{{ID: canary, Name: canary}}, Foreign: 3},
		LastPass: at(0), Lag: 1500 * time.Millisecond, Interval: time.Hour, Reloaded: at(-3), Accepted: false, Stands: true,
	}
}

// full has told everything that it can.
func full() *monitor.Metrics {
	m := metrics(troubled)
	m.Vaults([]string{"", "team"})
	m.Told([]rotator.Event{
		{Kind: rotator.EventCreated, Entry: "bot", ID: canary, Label: canary},
		{Kind: rotator.EventUnknown, Error: canary},
		{Kind: rotator.EventPushed, Place: "env_file:/a"},
		{Kind: rotator.EventFailed, Place: "file:/b", Error: canary},
		{Kind: rotator.EventFailed, Place: "file:/b"},
		{Kind: rotator.EventFailed, Detail: canary},
		{Kind: rotator.EventOrphan, ID: canary},
	})
	m.API("create", "ok", 300*time.Millisecond)
	m.Vault("", "read", "ok", 20*time.Millisecond)
	m.Vault("team", "read", "ok", 20*time.Millisecond)
	return m
}

func TestEveryFamilyIsToldAsItIsNamed(t *testing.T) {
	_, text := scrape(t, full())
	if strings.Contains(text, canary) {
		for line := range strings.Lines(text) {
			if strings.Contains(line, canary) {
				t.Errorf("tells %s", line)
			}
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
	got := parse(t, text)
	for _, f := range monitor.Families() {
		family := got[f.Name]
		if family == nil {
			t.Errorf("%s is missing", f.Name)
			continue
		}
		delete(got, f.Name)
		if kind := strings.ToLower(family.GetType().String()); kind != f.Type || family.GetHelp() != f.Help {
			t.Errorf("%s is a %s: %q", f.Name, kind, family.GetHelp())
		}
		for _, series := range family.GetMetric() {
			var labels []string
			for _, l := range series.GetLabel() {
				labels = append(labels, l.GetName())
			}
			if want := slices.Sorted(slices.Values(f.Labels)); !slices.Equal(labels, want) {
				t.Errorf("%s has the labels %q, and says %q", f.Name, labels, want)
			}
		}
	}
	for name := range got {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is not listed", name)
		}
	}
}

func TestWhatIsTold(t *testing.T) {
	got := values(t, full())
	unix := func(hours int) string {
		return fmt.Sprintf("%.9e", float64(noon.Add(time.Duration(hours)*time.Hour).Unix()))
	}
	for series, want := range map[string]string{
		`rotatord_token_state{state="failing",token="bot"}`:                            "1",
		`rotatord_token_state{state="current",token="bot"}`:                            "0",
		`rotatord_token_state{state="none",token="new"}`:                               "1",
		`rotatord_token_retiring{token="bot"}`:                                         "1",
		`rotatord_token_overlap_seconds{token="bot"}`:                                  "172800",
		`rotatord_token_margin_seconds{token="bot"}`:                                   "43200",
		`rotatord_token_problems{kind="sink",token="bot"}`:                             "1",
		`rotatord_token_problems{kind="held_sink",token="bot"}`:                        "1",
		`rotatord_token_problems{kind="consumer",token="bot"}`:                         "1",
		`rotatord_sink_converged{sink="a",token="bot"}`:                                "1",
		`rotatord_sink_converged{sink="same",token="bot"}`:                             "0",
		`rotatord_sink_held{sink="same #2",token="bot"}`:                               "1",
		`rotatord_sink_failed_tries{sink="same",token="bot"}`:                          "3",
		`rotatord_sink_failures_total{sink="same",token="bot"}`:                        "2",
		`rotatord_sink_pushes_total{sink="a",token="bot"}`:                             "1",
		`rotatord_sink_info{kind="file",required="false",sink="same #2",token="bot"}`:  "1",
		`rotatord_problems{kind="blocked"}`:                                            "1",
		`rotatord_problems{kind="fuse"}`:                                               "0",
		`rotatord_tokens`:                                                              "2",
		`rotatord_unmanaged_tokens`:                                                    "1",
		`rotatord_outages`:                                                             "1",
		`rotatord_outage_waiting_tokens`:                                               "1",
		`rotatord_list_unexplained_tokens`:                                             "1",
		`rotatord_creates_total{outcome="created"}`:                                    "1",
		`rotatord_creates_total{outcome="refused"}`:                                    "0",
		`rotatord_events_total{event="orphan"}`:                                        "1",
		`rotatord_events_total{event="failed"}`:                                        "3",
		`rotatord_api_requests_total{operation="create",outcome="ok"}`:                 "1",
		`rotatord_api_requests_total{operation="list",outcome="no_answer"}`:            "0",
		`rotatord_api_request_duration_seconds_bucket{operation="create",le="0.25"}`:   "0",
		`rotatord_api_request_duration_seconds_bucket{operation="create",le="0.5"}`:    "1",
		`rotatord_vault_requests_total{operation="read",outcome="ok",vault="default"}`: "1",
		`rotatord_loop_lag_seconds`:                                                    "1.5",
		`rotatord_config_last_reload_successful`:                                       "0",
		`rotatord_config_stands_in`:                                                    "1",
		`rotatord_clock_offset_seconds`:                                                "-2",
		`rotatord_token_breaks_timestamp_seconds{token="bot"}`:                         unix(40), // of the sink that does not take the new one
		`rotatord_sink_breaks_timestamp_seconds{sink="a",token="bot"}`:                 unix(100),
		`rotatord_sink_breaks_timestamp_seconds{sink="same",token="bot"}`:              unix(40),
		`rotatord_sink_failing_since_timestamp_seconds{sink="same",token="bot"}`:       unix(-1),
		`rotatord_token_failing_since_timestamp_seconds{token="bot"}`:                  unix(-1),
		`rotatord_token_expiry_timestamp_seconds{token="bot"}`:                         unix(100),
		`rotatord_management_token_expiry_timestamp_seconds`:                           unix(700),
	} {
		value, ok := got[series]
		if ok && strings.Contains(want, "e+") {
			var f float64
			fmt.Sscan(value, &f)
			value = fmt.Sprintf("%.9e", f)
		}
		if !ok || value != want {
			t.Errorf("%s is %q, want %q", series, value, want)
		}
	}
	for series := range got {
		for _, absent := range []string{
			`{token="gone"`, `,token="gone"`, `state="unmanaged"`, `rotatord_token_breaks_timestamp_seconds{token="new"}`,
			`rotatord_sink_breaks_timestamp_seconds{sink="d"`, `rotatord_sink_breaks_timestamp_seconds{sink="same #2"`,
		} {
			if strings.Contains(series, absent) {
				t.Errorf("%s is told", series)
			}
		}
	}
}

func TestBreaks(t *testing.T) {
	at := func(hours int) time.Time { return noon.Add(time.Duration(hours) * time.Hour) }
	token := func(sinks ...rotator.SinkStatus) *rotator.TokenStatus {
		return &rotator.TokenStatus{
			Generation: 3, Expires: at(100), Breaks: at(100), Sinks: sinks,
			Retiring: []rotator.GenerationStatus{{Generation: 2, Expires: at(40)}},
		}
	}
	for _, tt := range []struct {
		what     string
		token    *rotator.TokenStatus
		problems []rotator.Problem
		want     time.Time
	}{
		{"nobody ever had one", &rotator.TokenStatus{}, nil, time.Time{}},
		{"all is well", token(rotator.SinkStatus{Generation: 3, Required: true}), nil, at(100)},
		{"a sink lags", token(rotator.SinkStatus{Generation: 3, Required: true}, rotator.SinkStatus{Generation: 2, Required: true}), nil, at(40)},
		{"one that nobody needs lags", token(rotator.SinkStatus{Generation: 2}), nil, at(100)},
		{"one waits for a person", token(rotator.SinkStatus{Generation: 2, Required: true, State: "held"}), nil, at(100)},
		{"one holds what is dead", token(rotator.SinkStatus{Generation: 1, Required: true}), nil, noon},
		{"one is new", token(rotator.SinkStatus{Required: true}), nil, at(100)},
		{"a program does not take it", token(), []rotator.Problem{{Kind: rotator.ProblemConsumer, Failing: true, Breaks: at(30)}}, at(30)},
		{"a person does not take care", token(), []rotator.Problem{{Kind: rotator.ProblemPaused, Breaks: at(30)}}, at(100)},
	} {
		if got := monitor.Breaks(tt.token, tt.problems, noon); !got.Equal(tt.want) {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}

// What leaves the configuration leaves the metrics, and the number of series does not grow by what happens.
func TestSeriesLeaveWithTheirEntry(t *testing.T) {
	v := troubled()
	m := metrics(func() monitor.View { return v })
	m.Vaults([]string{"old"})
	m.Vault("old", "read", "ok", time.Second)
	before := len(values(t, m))
	for i := range 1000 {
		m.Told([]rotator.Event{{Kind: rotator.EventFailed, Entry: fmt.Sprint(i), Place: fmt.Sprint(i), ID: fmt.Sprint(i)}})
		m.Vault(fmt.Sprint(i), "read", "ok", time.Second)
	}
	if now := len(values(t, m)); now != before {
		t.Errorf("%d series were %d", now, before)
	}
	v.Entries = []rotator.Entry{{Name: "bot", Removed: true}, {Name: "new"}}
	v.Report = rotator.Describe(v.Entries, v.Records, noon)
	m.Vaults([]string{"team"})
	m.Vault("old", "read", "ok", time.Second) // a last request of what is gone
	for series := range values(t, m) {
		if strings.Contains(series, `"bot"`) || strings.Contains(series, `"old"`) {
			t.Errorf("%s is still there", series)
		}
	}
}

func TestAPanicIsAnErrorOfTheScrape(t *testing.T) {
	var log bytes.Buffer
	bad := true
	m := metrics(func() monitor.View {
		if bad {
			panic("sgpt_" + canary)
		}
		return troubled()
	}, func(c *monitor.MetricsConfig) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	status, text := scrape(t, m)
	if status != http.StatusInternalServerError || strings.Contains(text, canary) || !strings.Contains(text, "panicked") {
		t.Errorf("%d: %s", status, text)
	}
	if !strings.Contains(log.String(), "a scrape panicked") {
		t.Errorf("the log says %q", log.String())
	}
	bad = false
	if status, _ := scrape(t, m); status != http.StatusOK {
		t.Errorf("the next scrape: %d", status)
	}
}

func TestScrapesSideBySide(t *testing.T) {
	m := full()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				m.Told([]rotator.Event{{Kind: rotator.EventFailed, Place: "file:/b"}})
				m.Vaults([]string{"team"})
				if status, text := scrape(t, m); status != http.StatusOK {
					t.Errorf("%d: %s", status, text)
				}
			}
		})
	}
	all.Wait()
}

// thousand is a thousand tokens in trouble.
func thousand() monitor.View {
	v := troubled()
	v.Entries, v.Records = nil, nil
	for i := range 1000 {
		one := troubled()
		one.Entries[0].Name, one.Records[0].Name = fmt.Sprintf("bot%d", i), fmt.Sprintf("bot%d", i)
		v.Entries, v.Records = append(v.Entries, one.Entries[0]), append(v.Records, one.Records[0])
	}
	v.Report = rotator.Describe(v.Entries, v.Records, noon)
	return v
}

func TestAThousandTokens(t *testing.T) {
	v := thousand()
	status, text := scrape(t, metrics(func() monitor.View { return v }))
	if n := strings.Count(text, "\nrotatord_token_expiry_timestamp_seconds{"); status != http.StatusOK || n != 1000 {
		t.Errorf("%d: %d tokens are told", status, n)
	}
}

func BenchmarkScrapeOfAThousand(b *testing.B) {
	v := thousand()
	m := metrics(func() monitor.View { return v })
	for b.Loop() {
		scrape(b, m)
	}
}

// A pass of once leaves what it found for somebody else to collect: no counters, which begin anew with
// each pass, and nothing of the process that node_exporter tells of itself.
func TestFileForACollector(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rotatord.prom")
	m := metrics(troubled, func(c *monitor.MetricsConfig) { c.Once = true })
	for range 2 {
		if err := m.WriteFile(path); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range parse(t, string(text)) {
		if f.GetType() != dto.MetricType_GAUGE || !strings.HasPrefix(name, "rotatord_") || strings.Contains(name, "lag") {
			t.Errorf("%s is in the file", name)
		}
	}
	if !strings.Contains(string(text), "rotatord_loop_interval_seconds 3600") || strings.Contains(string(text), canary) {
		t.Errorf("%s", text)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("%d files are left", len(files))
	}
	if err := m.WriteFile(filepath.Join(path, "not", "there.prom")); err == nil {
		t.Error("it was written nowhere")
	}
}
