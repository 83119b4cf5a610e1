package monitor

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rotatord/rotatord/rotator"
)

// View is all that a scrape is computed from: the state at one instant.
type View struct {
	Report  rotator.Report // with the problems of the management token
	Entries []rotator.Entry
	Records []rotator.Record

	Management time.Time     // when the management token in use expires; zero: nobody knows
	Offset     time.Duration // what has to be added to this machine's clock to get the API's
	Offsets    bool          // ... is known
	Outages    []rotator.Outage
	Found      rotator.Found // of the last look at the API's list

	LastPass time.Time     // when the loop last moved, or once began
	Lag      time.Duration // how long ago that is, by the monotonic clock; of a daemon only
	Interval time.Duration // the distance to the next pass; 0: nobody promised one

	Reloaded time.Time // when the configuration was last read, with whatever outcome
	Accepted bool      // ... and is in force
	Stands   bool      // the last accepted configuration stands in for a file that was refused at the start
}

// MetricsConfig is what Metrics are made of.
type MetricsConfig struct {
	Version string
	// View looks at the state, at each scrape. It must hold up nobody.
	View func() View
	Log  *slog.Logger
	// What observers can say, so that a series is there before the first time.
	APIOperations, APIOutcomes, VaultOperations, VaultOutcomes []string
	// Once: what is written to a file for somebody else to collect, by a process that ends. It has no
	// loop that could lag.
	Once bool
}

// Metrics say how a daemon's tokens are. Gauges are computed from the state at each scrape, so they
// are right after a restart; counters count what happened since the process began. No label bears an
// id, a token's label or a text: names come from the configuration, and leave with their entry.
type Metrics struct {
	c     MetricsConfig
	descs map[string]*prometheus.Desc

	gauges, counters *prometheus.Registry

	events                     *prometheus.CounterVec
	creates                    *prometheus.CounterVec
	apiRequests, vaultRequests *prometheus.CounterVec
	apiDuration, vaultDuration *prometheus.HistogramVec
	mu                         sync.Mutex
	pushes, failures           map[string]int // by place
	vaults                     map[string]bool
}

// NewMetrics returns metrics with a registry of their own.
func NewMetrics(c MetricsConfig) *Metrics {
	m := &Metrics{
		c: c, descs: map[string]*prometheus.Desc{}, gauges: prometheus.NewRegistry(), counters: prometheus.NewRegistry(),
		pushes: map[string]int{}, failures: map[string]int{}, vaults: map[string]bool{},
	}
	for _, f := range Families() {
		m.descs[f.Name] = prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)
	}
	m.events = counter("rotatord_events_total")
	for _, kind := range rotator.EventKinds() {
		m.events.WithLabelValues(string(kind))
	}
	m.creates = counter("rotatord_creates_total")
	for _, outcome := range createOutcomes() {
		m.creates.WithLabelValues(outcome)
	}
	m.apiRequests, m.apiDuration = counter("rotatord_api_requests_total"), histogram("rotatord_api_request_duration_seconds")
	for _, operation := range c.APIOperations {
		m.apiDuration.WithLabelValues(operation)
		for _, outcome := range c.APIOutcomes {
			m.apiRequests.WithLabelValues(operation, outcome)
		}
	}
	m.vaultRequests, m.vaultDuration = counter("rotatord_vault_requests_total"), histogram("rotatord_vault_request_duration_seconds")
	m.gauges.MustRegister(state{m})
	m.counters.MustRegister(
		m.events, m.creates, m.apiRequests, m.apiDuration, m.vaultRequests, m.vaultDuration,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// createOutcomes are how a create can end: what rotatord_creates_total counts.
func createOutcomes() []string { return []string{"created", "limited", "refused", "unknown"} }

func counter(name string) *prometheus.CounterVec {
	f := family(name)
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: f.Name, Help: f.Help}, f.Labels)
}

func histogram(name string) *prometheus.HistogramVec {
	f := family(name)
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: f.Name, Help: f.Help, Buckets: []float64{0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
	}, f.Labels)
}

// Told counts what happened, as the store tells it after the save.
func (m *Metrics) Told(events []rotator.Event) {
	for _, ev := range events {
		m.events.WithLabelValues(string(ev.Kind)).Inc()
		switch ev.Kind {
		case rotator.EventCreated, rotator.EventLimited, rotator.EventRefused, rotator.EventUnknown:
			m.creates.WithLabelValues(string(ev.Kind)).Inc()
		case rotator.EventPushed:
			m.count(m.pushes, ev.Place)
		case rotator.EventFailed:
			m.count(m.failures, ev.Place)
		}
	}
}

func (m *Metrics) count(what map[string]int, place string) {
	if place == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	what[place]++
}

// API counts a request to SiteGPT.
func (m *Metrics) API(operation, outcome string, took time.Duration) {
	m.apiRequests.WithLabelValues(operation, outcome).Inc()
	m.apiDuration.WithLabelValues(operation).Observe(took.Seconds())
}

// vaultName is the label of a connection: that of sinks which name none is called default.
func vaultName(vault string) string {
	if vault == "" {
		return "default"
	}
	return vault
}

// Vault counts a request to a Vault of the configuration in force.
func (m *Metrics) Vault(vault, operation, outcome string, took time.Duration) {
	m.mu.Lock() // held throughout, so that what leaves does not come back
	defer m.mu.Unlock()
	if !m.vaults[vaultName(vault)] {
		return
	}
	m.vaultRequests.WithLabelValues(vaultName(vault), operation, outcome).Inc()
	m.vaultDuration.WithLabelValues(vaultName(vault), operation).Observe(took.Seconds())
}

// Vaults names the connections of the configuration in force: their series begin at zero, and those of
// others vanish.
func (m *Metrics) Vaults(names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := map[string]bool{}
	for _, name := range names {
		name = vaultName(name)
		now[name] = true
		for _, operation := range m.c.VaultOperations {
			m.vaultDuration.WithLabelValues(name, operation)
			for _, outcome := range m.c.VaultOutcomes {
				m.vaultRequests.WithLabelValues(name, operation, outcome)
			}
		}
	}
	for name := range m.vaults {
		if !now[name] {
			m.vaultRequests.DeletePartialMatch(prometheus.Labels{"vault": name})
			m.vaultDuration.DeletePartialMatch(prometheus.Labels{"vault": name})
		}
	}
	m.vaults = now
}

// Handler answers a scrape.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(prometheus.Gatherers{m.gauges, m.counters}, promhttp.HandlerOpts{
		ErrorLog: errorLog{m.c.Log}, ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: 4,
	})
}

type errorLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) { l.log.Debug("a scrape failed", "error", v) }

// WriteFile writes the gauges, whole or not at all, for a collector of text files: counters of a
// process that ends say nothing.
func (m *Metrics) WriteFile(path string) error { return prometheus.WriteToTextfile(path, m.gauges) }

// state is the collector of what is computed at each scrape.
type state struct{ *Metrics }

// Describe implements prometheus.Collector: entries come and go, so it names nothing beforehand.
func (state) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. A panic is an error of this scrape, and of nothing else.
func (s state) Collect(ch chan<- prometheus.Metric) {
	var all []prometheus.Metric
	var failed error
	func() {
		defer func() {
			if v := recover(); v != nil {
				s.c.Log.Error("a scrape panicked", "panic", v, "stack", string(debug.Stack()))
				failed = errors.New("the scrape panicked: the log of rotatord says more")
			}
		}()
		all, failed = s.look()
	}()
	if failed != nil {
		ch <- prometheus.NewInvalidMetric(s.descs["rotatord_build_info"], failed)
		return
	}
	for _, m := range all {
		ch <- m
	}
}

// scrape is one look at the state.
type scrape struct {
	*Metrics
	v        View
	problems map[string][]rotator.Problem // by entry
	records  map[string]*rotator.Record   // by entry
	out      []prometheus.Metric
	err      error
}

func (s *scrape) gauge(name string, value float64, labels ...string) {
	s.metric(name, prometheus.GaugeValue, value, labels...)
}

func (s *scrape) metric(name string, kind prometheus.ValueType, value float64, labels ...string) {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "?")
	}
	m, err := prometheus.NewConstMetric(s.descs[name], kind, value, labels...)
	if err != nil {
		s.err = errors.New(name + " cannot be told")
		return
	}
	s.out = append(s.out, m)
}

// instant tells a point in time, where there is one.
func (s *scrape) instant(name string, t time.Time, labels ...string) {
	if !t.IsZero() {
		s.gauge(name, float64(t.UnixMilli())/1000, labels...)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s state) look() ([]prometheus.Metric, error) {
	l := &scrape{Metrics: s.Metrics, v: s.c.View(), problems: map[string][]rotator.Problem{}, records: map[string]*rotator.Record{}}
	for _, p := range l.v.Report.Problems {
		l.problems[p.Token] = append(l.problems[p.Token], p)
	}
	for i := range l.v.Records {
		l.records[l.v.Records[i].Name] = &l.v.Records[i]
	}
	l.process()
	l.kinds()
	declared := map[string]*rotator.Entry{}
	for i := range l.v.Entries {
		if e := &l.v.Entries[i]; !e.Removed {
			declared[e.Name] = e
		}
	}
	l.gauge("rotatord_tokens", float64(len(declared)))
	unmanaged := 0
	for i := range l.v.Report.Tokens {
		t := &l.v.Report.Tokens[i]
		if e := declared[t.Name]; e != nil {
			l.token(e, t)
		} else {
			unmanaged += len(t.Retiring)
		}
	}
	l.gauge("rotatord_unmanaged_tokens", float64(unmanaged))
	return l.out, l.err
}

func (s *scrape) process() {
	v := &s.v
	s.gauge("rotatord_build_info", 1, s.c.Version, runtime.Version())
	s.instant("rotatord_loop_last_pass_timestamp_seconds", v.LastPass)
	if v.Interval > 0 {
		s.gauge("rotatord_loop_interval_seconds", v.Interval.Seconds())
	}
	if !s.c.Once {
		s.gauge("rotatord_loop_lag_seconds", v.Lag.Seconds())
	}
	s.instant("rotatord_config_last_reload_timestamp_seconds", v.Reloaded)
	s.gauge("rotatord_config_last_reload_successful", truth(v.Accepted))
	s.gauge("rotatord_config_stands_in", truth(v.Stands))
	s.instant("rotatord_management_token_expiry_timestamp_seconds", v.Management)
	if v.Offsets {
		s.gauge("rotatord_clock_offset_seconds", v.Offset.Seconds())
	}
	s.gauge("rotatord_outages", float64(len(v.Outages)))
	waiting := map[string]bool{}
	for _, o := range v.Outages {
		for _, name := range o.Waiting {
			waiting[name] = true
		}
	}
	s.gauge("rotatord_outage_waiting_tokens", float64(len(waiting)))
	if !v.Found.At.IsZero() {
		s.instant("rotatord_list_last_success_timestamp_seconds", v.Found.At)
		s.gauge("rotatord_list_unexplained_tokens", float64(len(v.Found.Unexplained)))
		s.gauge("rotatord_list_other_instances_tokens", float64(len(v.Found.Others)))
		s.gauge("rotatord_list_foreign_tokens", float64(v.Found.Foreign))
	}
}

// kinds counts what is not as it should be, by kind.
func (s *scrape) kinds() {
	kinds, failing := map[rotator.ProblemKind]int{}, 0
	for _, p := range s.v.Report.Problems {
		kinds[p.Kind]++
		if p.Failing {
			failing++
		}
	}
	for _, kind := range rotator.ProblemKinds() {
		s.gauge("rotatord_problems", float64(kinds[kind]), string(kind))
	}
	s.gauge("rotatord_failing_problems", float64(failing))
}

// states are those of tokens that are declared.
func states() []string {
	return []string{"current", "due", "failing", "held", "none", "paused", "rotating"}
}

func (s *scrape) token(e *rotator.Entry, t *rotator.TokenStatus) {
	problems := s.problems[t.Name]
	for _, state := range states() {
		s.gauge("rotatord_token_state", truth(state == t.State), t.Name, state)
	}
	s.gauge("rotatord_token_generation", float64(t.Generation), t.Name)
	s.gauge("rotatord_token_retiring", float64(len(t.Retiring)), t.Name)
	s.gauge("rotatord_token_overlap_seconds", e.Timing.Overlap.Seconds(), t.Name)
	margin := e.Facts.Margin
	if margin == 0 {
		margin = e.Timing.Margin
	}
	s.gauge("rotatord_token_margin_seconds", margin.Seconds(), t.Name)
	s.instant("rotatord_token_created_timestamp_seconds", t.Created, t.Name)
	s.instant("rotatord_token_expiry_timestamp_seconds", t.Expires, t.Name)
	s.instant("rotatord_token_planned_timestamp_seconds", t.Planned, t.Name)
	s.instant("rotatord_token_breaks_timestamp_seconds", Breaks(t, problems, s.v.Report.At), t.Name)
	s.instant("rotatord_token_paused_until_timestamp_seconds", t.Paused, t.Name)
	s.instant("rotatord_token_failing_since_timestamp_seconds", failingSince(problems, ""), t.Name)
	kinds := map[rotator.ProblemKind]int{}
	for _, p := range problems {
		kinds[p.Kind]++
	}
	for kind, n := range kinds {
		s.gauge("rotatord_token_problems", float64(n), t.Name, string(kind))
	}
	s.sinks(t)
}

func (s *scrape) sinks(t *rotator.TokenStatus) {
	problems, record := s.problems[t.Name], s.records[t.Name]
	labels := sinkLabels(t.Sinks)
	for i := range t.Sinks {
		k := &t.Sinks[i]
		name := labels[i]
		required := "false"
		if k.Required {
			required = "true"
		}
		s.gauge("rotatord_sink_info", 1, t.Name, name, k.Kind, required)
		s.gauge("rotatord_sink_converged", truth(k.State == "holds"), t.Name, name)
		s.gauge("rotatord_sink_held", truth(k.State == "held"), t.Name, name)
		s.gauge("rotatord_sink_generation", float64(k.Generation), t.Name, name)
		s.instant("rotatord_sink_last_push_timestamp_seconds", k.Since, t.Name, name)
		s.instant("rotatord_sink_breaks_timestamp_seconds", sinkBreaks(t, k, problems, s.v.Report.At), t.Name, name)
		s.instant("rotatord_sink_failing_since_timestamp_seconds", failingSince(problems, k.Name), t.Name, name)
		tries := 0
		if record != nil {
			if r := record.Sink(k.Place); r != nil {
				tries = r.Retry.Tries
			}
		}
		s.gauge("rotatord_sink_failed_tries", float64(tries), t.Name, name)
		if s.c.Once {
			continue
		}
		s.mu.Lock()
		pushes, failures := s.pushes[k.Place], s.failures[k.Place]
		s.mu.Unlock()
		s.metric("rotatord_sink_pushes_total", prometheus.CounterValue, float64(pushes), t.Name, name)
		s.metric("rotatord_sink_failures_total", prometheus.CounterValue, float64(failures), t.Name, name)
	}
}

// sinkLabels are the names of a token's sinks, numbered where a person gave one to several: two series
// must not be the same, and a place may hold what is not for everybody's eyes.
func sinkLabels(sinks []rotator.SinkStatus) []string {
	labels := make([]string, len(sinks))
	taken := map[string]bool{}
	for i := range sinks {
		taken[sinks[i].Name] = true
	}
	for i := range sinks {
		labels[i] = sinks[i].Name
		if !slices.ContainsFunc(sinks[:i], func(k rotator.SinkStatus) bool { return k.Name == labels[i] }) {
			continue
		}
		for n := 2; taken[labels[i]]; n++ {
			labels[i] = fmt.Sprintf("%s #%d", sinks[i].Name, n)
		}
		taken[labels[i]] = true
	}
	return labels
}

// Breaks is when the first consumer of a token is left with a dead one if every try fails until then:
// a required sink that does not wait for a person, or a program that does not take what is there.
// Zero where nobody ever had one. problems are the token's.
func Breaks(t *rotator.TokenStatus, problems []rotator.Problem, now time.Time) time.Time {
	first := t.Breaks
	earlier := func(at time.Time) {
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	for i := range t.Sinks {
		if t.Sinks[i].Required {
			earlier(sinkBreaks(t, &t.Sinks[i], problems, now))
		}
	}
	for _, p := range problems {
		if p.Failing && p.Sink == "" {
			earlier(p.Breaks)
		}
	}
	return first
}

// sinkBreaks is when what a sink holds dies; zero where it holds nothing of ours, or waits for a person.
func sinkBreaks(t *rotator.TokenStatus, k *rotator.SinkStatus, problems []rotator.Problem, now time.Time) time.Time {
	if k.State == "held" {
		return time.Time{}
	}
	for _, p := range problems {
		if p.Kind == rotator.ProblemSink && p.Sink == k.Name && !p.Breaks.IsZero() {
			return p.Breaks
		}
	}
	switch i := slices.IndexFunc(t.Retiring, func(g rotator.GenerationStatus) bool { return g.Generation == k.Generation }); {
	case k.Generation == 0:
		return time.Time{}
	case k.Generation == t.Generation:
		return t.Expires
	case i >= 0:
		return t.Retiring[i].Expires
	}
	return now
}

// failingSince is when the first of the failures began that are a sink's, or no sink's.
func failingSince(problems []rotator.Problem, sink string) (since time.Time) {
	for _, p := range problems {
		if p.Kind == rotator.ProblemUnread && p.Outage != "" {
			continue // one alert for what is out, not one for each sink behind it
		}
		if p.Failing && p.Sink == sink && !p.Since.IsZero() && (since.IsZero() || p.Since.Before(since)) {
			since = p.Since
		}
	}
	return since
}
