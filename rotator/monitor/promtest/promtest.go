// Package promtest holds what a daemon exposes, scrape by scrape, against the rules of its alerts. The
// rules are evaluated by promtool, Prometheus's own tester of rules.
package promtest

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Tool is the path of promtool, of Debian's package prometheus. Where there is none the test is
// skipped, so that make test needs Go alone; in CI, which installs it first, the test fails.
func Tool(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("the alerts cannot be tested: .ci/apt prometheus installs promtool")
		}
		t.Skip("no promtool: .ci/apt prometheus installs it") // so that make test needs Go alone; .ci/run installs it first
	}
	return path
}

// Metric finds names of rotatord's in a text: those of metrics, and of records of rules.
var Metric = regexp.MustCompile(`\brotatord_[a-z0-9_:]+`)

// Scrapes are samples of one daemon, as Prometheus keeps them: what vanishes from a scrape is stale at
// once.
type Scrapes struct {
	Begun time.Time // of the first sample
	Step  time.Duration
	Every time.Duration // between two evaluations of the rules, which look at samples that are older then; 0: Step

	rules  string
	n      int
	used   map[string]bool     // metrics that the rules speak of: the others are of no interest
	series map[string][]string // by name and labels, one value a sample
}

// New begins without a sample.
func New(t testing.TB, rules string, begun time.Time, step time.Duration) *Scrapes {
	t.Helper()
	path, err := filepath.Abs(rules)
	if err != nil {
		t.Fatal(err)
	}
	s := &Scrapes{Begun: begun, Step: step, rules: path, used: map[string]bool{}, series: map[string][]string{}}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Metric.FindAllString(string(text), -1) {
		s.used[name] = true
	}
	return s
}

// Len is how many samples there are.
func (s *Scrapes) Len() int { return s.n }

// Next is the instant of the next sample.
func (s *Scrapes) Next() time.Time { return s.Begun.Add(time.Duration(s.n) * s.Step) }

// Scraped adds a sample: what the daemon exposes.
func (s *Scrapes) Scraped(t testing.TB, text string) {
	t.Helper()
	var of strings.Builder // what rules look at: to read the rest costs most of the time
	for line := range strings.Lines(text) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# TYPE "), "# HELP ")
		if s.used[name[:strings.IndexAny(name, "{ ")]] {
			of.WriteString(line)
		}
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(of.String()))
	if err != nil {
		t.Fatal(err)
	}
	s.keep("up", nil, 1)
	for name, family := range families {
		for _, m := range family.GetMetric() {
			value := m.GetGauge().GetValue()
			if family.GetType() == dto.MetricType_COUNTER {
				value = m.GetCounter().GetValue()
			}
			if strings.Contains(name, "_timestamp_seconds") {
				value -= float64(s.Begun.Unix()) // promtool's time begins at zero
			}
			s.keep(name, m.GetLabel(), value)
		}
	}
	s.end()
}

// Down adds a sample: nobody answers.
func (s *Scrapes) Down() {
	s.keep("up", nil, 0)
	s.end()
}

func (s *Scrapes) keep(name string, labels []*dto.LabelPair, value float64) {
	key := name + `{instance="host:9090",job="rotatord"`
	for _, l := range labels {
		key += fmt.Sprintf(",%s=%q", l.GetName(), l.GetValue())
	}
	key += "}"
	of := s.series[key]
	for len(of) < s.n {
		of = append(of, "_")
	}
	s.series[key] = append(of, strconv.FormatFloat(value, 'f', -1, 64))
}

// end completes a sample.
func (s *Scrapes) end() {
	s.n++
	for key, of := range s.series {
		if len(of) == s.n-1 && of[s.n-2] != "stale" && of[s.n-2] != "_" {
			s.series[key] = append(of, "stale")
		} else if len(of) < s.n {
			s.series[key] = append(of, "_")
		}
	}
}

// Expectation is a question to PromQL, and its answer.
type Expectation struct {
	At   time.Duration // since the first sample
	Expr string
	Want []Sample // none: nothing
}

// Sample is one answer.
type Sample struct {
	Labels string // as PromQL writes them, without braces
	Value  float64
}

// Ask is what an expression is expected to answer, so long after the first sample.
func Ask(at time.Duration, expr string, want ...Sample) Expectation {
	return Expectation{At: at, Expr: expr, Want: want}
}

// Is is an answer without labels.
func Is(value float64) Sample { return Sample{Value: value} }

// Check lets promtool evaluate the rules over all samples.
func (s *Scrapes) Check(t testing.TB, all []Expectation) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "rule_files: [%s]\nevaluation_interval: %s\ntests:\n- interval: %s\n  input_series:\n", s.rules, cmp.Or(s.Every, s.Step), s.Step)
	for _, key := range slices.Sorted(maps.Keys(s.series)) {
		fmt.Fprintf(&b, "  - series: '%s'\n    values: '%s'\n", key, packed(s.series[key]))
	}
	fmt.Fprint(&b, "  promql_expr_test:\n")
	for _, x := range all {
		fmt.Fprintf(&b, "  - expr: '%s'\n    eval_time: %ds\n    exp_samples: [", x.Expr, int(x.At.Seconds()))
		for _, v := range x.Want {
			fmt.Fprintf(&b, "{labels: '{%s}', value: %v}, ", v.Labels, v.Value)
		}
		fmt.Fprint(&b, "]\n")
	}
	path := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(Tool(t), "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v: %.6000s", err, out)
	}
}

// packed is a list of values as promtool reads it, with repetitions counted.
func packed(values []string) string {
	var out []string
	for i := 0; i < len(values); {
		n := 1
		for i+n < len(values) && values[i+n] == values[i] {
			n++
		}
		switch {
		case values[i] == "_":
			out = append(out, fmt.Sprintf("_x%d", n))
		case n == 1 || values[i] == "stale":
			out = append(out, values[i:i+n]...)
		default:
			out = append(out, fmt.Sprintf("%s+0x%d", values[i], n-1))
		}
		i += n
	}
	return strings.Join(out, " ")
}
