package monitor_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/monitor"
	"github.com/rotatord/rotatord/rotator/monitor/promtest"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The table of docs/monitoring.md is the registry, row for row.
func TestTheTableOfMetrics(t *testing.T) {
	var want strings.Builder
	for _, f := range monitor.Families() {
		labels := "–"
		if len(f.Labels) > 0 {
			labels = "`" + strings.Join(f.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", f.Name, f.Type, labels, f.Help)
	}
	text := read(t, "monitoring.md")
	const head = "| metric | type | labels | what it says |\n|---|---|---|---|\n"
	_, table, found := strings.Cut(text, head)
	table, _, _ = strings.Cut(table, "\n\n")
	if !found || table+"\n" != want.String() {
		t.Errorf("the table of docs/monitoring.md should be:\n%s%s", head, want.String())
	}
}

// known are the names that a text may use: those of metrics, with what a histogram makes of them, and of
// records.
func known(t *testing.T) map[string]bool {
	names := map[string]bool{}
	for _, f := range monitor.Families() {
		names[f.Name] = true
		if f.Type == "histogram" {
			names[f.Name+"_bucket"], names[f.Name+"_sum"], names[f.Name+"_count"] = true, true, true
		}
	}
	for _, r := range rules(t) {
		if r.Record != "" {
			names[r.Record] = true
		}
	}
	return names
}

// Whatever is asked for, somewhere, is there to be asked for.
func TestEveryMetricThatIsNamedExists(t *testing.T) {
	names := known(t)
	for _, file := range []string{"monitoring/rotatord.rules.yaml", "monitoring/rotatord_test.yaml", "monitoring/rotatord-dashboard.json", "monitoring.md", "runbook.md"} {
		found := 0
		for _, name := range promtest.Metric.FindAllString(read(t, file), -1) {
			if name == "rotatord_test" { // a file
				continue
			}
			if found++; !names[strings.TrimSuffix(name, ":")] {
				t.Errorf("docs/%s names %s, which does not exist", file, name)
			}
		}
		if found < 5 {
			t.Errorf("docs/%s names %d metrics", file, found)
		}
	}
	// A label's value that nobody ever sets is an alert that never fires.
	for _, r := range rules(t) {
		for _, m := range regexp.MustCompile(`kind=~?"([^"]*)"`).FindAllStringSubmatch(r.Expr, -1) {
			for kind := range strings.SplitSeq(m[1], "|") {
				if !slices.Contains(rotator.ProblemKinds(), rotator.ProblemKind(kind)) {
					t.Errorf("%s asks for the kind %q", r.Alert, kind)
				}
			}
		}
		for _, m := range regexp.MustCompile(`event="([^"]*)"`).FindAllStringSubmatch(r.Expr, -1) {
			if !slices.Contains(rotator.EventKinds(), rotator.EventKind(m[1])) {
				t.Errorf("%s asks for the event %q", r.Alert, m[1])
			}
		}
	}
}

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	return strings.ReplaceAll(strings.ToLower(heading), " ", "-")
}

// Each alert has its entry in the runbook, and links to it; each entry has its alert, and says what
// breaks and what to type.
func TestTheRunbookHasEveryAlert(t *testing.T) {
	book := read(t, "runbook.md")
	entries := map[string]string{}
	for section := range strings.SplitSeq(book, "\n### ") {
		name, body, _ := strings.Cut(section, "\n")
		body, _, _ = strings.Cut(body, "\n## ")
		entries[name] = body
	}
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^##+ (.*)$`).FindAllStringSubmatch(book, -1) {
		anchors[anchor(m[1])] = true
	}
	alerts := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		alerts[r.Alert] = true
		if entries[r.Alert] == "" {
			t.Errorf("the runbook has no entry for %s", r.Alert)
		}
		url, fragment, _ := strings.Cut(r.Annotations["runbook_url"], "#")
		if url != "https://github.com/rotatord/rotatord/blob/main/docs/runbook.md" || fragment != anchor(r.Alert) || !anchors[fragment] {
			t.Errorf("%s links to %s", r.Alert, r.Annotations["runbook_url"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s says nothing", r.Alert)
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s has the severity %q", r.Alert, r.Labels["severity"])
		}
	}
	for name, body := range entries {
		if !strings.HasPrefix(name, "Rotatord") {
			continue
		}
		if !alerts[name] {
			t.Errorf("the runbook explains %s, which is no alert", name)
		}
		if !strings.Contains(body, "- Type: ") && !strings.Contains(body, "See [") {
			t.Errorf("the entry of %s does not say what to type", name)
		}
	}
	for _, kind := range rotator.ProblemKinds() {
		if !strings.Contains(book, "\n| `"+string(kind)+"` | ") {
			t.Errorf("the runbook does not explain the kind of problem %s", kind)
		}
	}
	for _, file := range []string{"runbook.md", "monitoring.md"} {
		for _, m := range regexp.MustCompile(`\]\((runbook\.md)?#([a-z_-]+)\)`).FindAllStringSubmatch(read(t, file), -1) {
			if (m[1] != "" || file == "runbook.md") && !anchors[m[2]] {
				t.Errorf("docs/%s links to #%s", file, m[2])
			}
		}
	}
}

// dashboard is the part of Grafana's format that a mistake breaks without a word.
type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
	Panels []struct {
		ID          int
		Type, Title string
		Datasource  *struct{ Type, UID string }
		GridPos     struct{ X, Y, W, H int }
		Targets     []struct {
			RefID, Expr, Format string
			Datasource          *struct{ Type, UID string }
		}
	}
}

// The dashboard can be provisioned anywhere, and every question in it is PromQL.
func TestTheDashboard(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "monitoring/rotatord-dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	variables := map[string]bool{"$__rate_interval": true}
	for _, v := range d.Templating.List {
		variables["$"+v.Name] = true
		if v.Name == "datasource" && (v.Type != "datasource" || v.Query != "prometheus") {
			t.Errorf("the data source is %s %v", v.Type, v.Query)
		}
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 || !variables["$datasource"] {
		t.Errorf("uid %q, title %q, schema %d, variables %v", d.UID, d.Title, d.SchemaVersion, variables)
	}
	ids, types := map[int]bool{}, map[string]bool{}
	var taken [100][24]string
	var exprs []string
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID], types[p.Type] = true, true
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 || g.Y+g.H > len(taken) {
			t.Fatalf("%s stands at %+v", p.Title, g)
		}
		for y := g.Y; y < g.Y+g.H; y++ {
			for x := g.X; x < g.X+g.W; x++ {
				if taken[y][x] != "" {
					t.Fatalf("%s lies on %s", p.Title, taken[y][x])
				}
				taken[y][x] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource == nil || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%s asks %v %d questions", p.Title, p.Datasource, len(p.Targets))
		}
		refs := map[string]bool{}
		for _, q := range p.Targets {
			if q.RefID == "" || refs[q.RefID] || q.Datasource == nil || q.Datasource.UID != "${datasource}" || (p.Type == "table") != (q.Format == "table") {
				t.Errorf("%s: %+v", p.Title, q)
			}
			refs[q.RefID] = true
			for _, v := range regexp.MustCompile(`\$\w+`).FindAllString(q.Expr, -1) {
				if !variables[v] {
					t.Errorf("%s uses %s", p.Title, v)
				}
			}
			exprs = append(exprs, q.Expr)
		}
	}
	if !types["table"] || !types["timeseries"] || !types["stat"] || len(exprs) < 20 {
		t.Errorf("%d questions in panels of %v", len(exprs), types)
	}
	var b strings.Builder
	fmt.Fprint(&b, "groups:\n- name: dashboard\n  rules:\n")
	for i, expr := range exprs {
		expr = strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*", "$token", ".*").Replace(expr)
		fmt.Fprintf(&b, "  - record: question%d\n    expr: %q\n", i, expr)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtest.Tool(t), "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
