package monitor_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/monitor"
	"github.com/rotatord/rotatord/rotator/monitor/promtest"
	"github.com/rotatord/rotatord/rotator/schedule"
	"github.com/rotatord/rotatord/rotator/simulate"
)

const (
	rulesFile = "../../docs/monitoring/rotatord.rules.yaml"
	day       = 24 * time.Hour
)

// rule is what a rules file says of one alert or record.
type rule struct {
	Alert, Record, Expr, For string
	Labels, Annotations      map[string]string
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	text, err := os.ReadFile(rulesFile)
	if err == nil {
		err = yaml.Unmarshal(text, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// fleet is a world whose daemon is scraped, as Prometheus would keep it.
type fleet struct {
	*promtest.Scrapes
	t    *testing.T
	w    *simulate.World
	p    *simulate.Process
	m    *monitor.Metrics
	told int // events
}

// newFleet starts a daemon that keeps these tokens.
func newFleet(t *testing.T, step time.Duration, make func(w *simulate.World) []rotator.Entry) *fleet {
	f := &fleet{Scrapes: promtest.New(t, rulesFile, noon, step), t: t, w: simulate.New(noon)}
	var err error
	if f.p, err = f.w.Start(make(f.w)...); err != nil {
		t.Fatal(err)
	}
	f.m = metrics(func() monitor.View {
		entries, records := f.p.Engine().Snapshot()
		now := f.w.Now()
		return monitor.View{
			Report: rotator.Describe(entries, records, now), Entries: entries, Records: records,
			Offsets: true, Outages: f.p.Engine().Outages(), Found: f.p.Engine().Found(),
			LastPass: now, Reloaded: noon, Accepted: true, Management: noon.Add(300 * day),
		}
	})
	return f
}

// run goes on until an instant, and is scraped at each step.
func (f *fleet) run(until time.Time) {
	f.t.Helper()
	for f.Next().Before(until) {
		f.scrape()
		if err := f.p.Run(f.Next()); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fleet) scrape() {
	f.t.Helper()
	events := f.w.Store.Journal[f.told:]
	f.told += len(events)
	f.m.Told(events)
	for _, ev := range events { // the requests behind them, as the API's client observes them
		switch ev.Kind {
		case rotator.EventCreated:
			f.m.API("create", "ok", time.Second)
		case rotator.EventUnknown:
			f.m.API("create", "no_answer", time.Second)
		}
	}
	status, text := scrape(f.t, f.m)
	if status != 200 {
		f.t.Fatal(text)
	}
	f.Scraped(f.t, text)
}

// token is an entry with sinks of the world.
func token(t *testing.T, w *simulate.World, name, spec string, overlap, margin time.Duration) rotator.Entry {
	t.Helper()
	s, err := schedule.Parse(spec, "UTC")
	if err != nil {
		t.Fatal(err)
	}
	e := rotator.Entry{
		Name: name, Scopes: []string{"knowledge:read"}, Timing: rotator.Timing{Schedule: s, Overlap: overlap, Margin: margin},
		Outlets: []rotator.Outlet{w.Outlet(name, true, false), w.Outlet(name+"-blind", true, true), w.Outlet(name+"-more", false, false)},
	}
	facts, problems := e.Timing.Check(noon)
	if problems = slices.DeleteFunc(problems, func(p rotator.TimingProblem) bool { return p.Warning }); len(problems) > 0 {
		t.Fatal(problems)
	}
	e.Facts = facts
	return e
}

// Nothing fires, or is even about to, as long as everything works: tokens of an hour for days, of a day
// to half a year for a year, and the shortest that are accepted, of which Prometheus sees, half a minute
// late, little more than the end.
func TestHonestOperationIsSilent(t *testing.T) {
	t.Parallel()
	promtest.Tool(t)
	for _, tt := range []struct {
		name       string
		step, long time.Duration
		every      time.Duration
		creates    int
		tokens     func(w *simulate.World) []rotator.Entry
	}{
		{"an hour of the shortest lives", 30 * time.Second, time.Hour, 5 * time.Second, 60 + 30, func(w *simulate.World) []rotator.Entry {
			return []rotator.Entry{
				token(t, w, "minute", "* * * * *", 20*time.Second, 10*time.Second),
				token(t, w, "minutes", "*/2 * * * *", 5*time.Second, 20*time.Second),
			}
		}},
		{"days of short lives", time.Minute, 3 * day, 0, 3 * 25, func(w *simulate.World) []rotator.Entry {
			return []rotator.Entry{
				token(t, w, "hourly", "@hourly", 12*time.Minute, 3*time.Minute),
				token(t, w, "daily", "0 3 * * *", 2*time.Hour, 30*time.Minute),
			}
		}},
		{"a year of long lives", 2 * time.Hour, 365 * day, 0, 365 + 52 + 12 + 2, func(w *simulate.World) []rotator.Entry {
			return []rotator.Entry{
				token(t, w, "daily", "0 3 * * *", 8*time.Hour, 2*time.Hour),
				token(t, w, "weekly", "0 3 * * MON", 2*day, 12*time.Hour),
				token(t, w, "monthly", "@monthly", 7*day, 2*day),
				token(t, w, "half-yearly", "0 0 1 1,7 *", 30*day, 7*day),
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, tt.step, tt.tokens)
			f.Every = tt.every
			if tt.every > 0 { // scraped as late after the ticks as can be
				f.Begun = noon.Add(tt.step - tt.every)
				if err := f.p.Run(f.Begun); err != nil {
					t.Fatal(err)
				}
			}
			f.run(noon.Add(tt.long))
			if created := len(f.w.Store.Events(rotator.EventCreated)); created < tt.creates {
				t.Fatalf("%d tokens were created: that is no operation", created)
			}
			last := time.Duration(f.Len()-1) * f.Step
			f.Check(t, []promtest.Expectation{
				promtest.Ask(last, "count(count_over_time(ALERTS[400d]))"),
				promtest.Ask(last, "count(rotatord_token:left_seconds > 0)", promtest.Is(float64(len(tt.tokens(f.w))))), // they did look
			})
		})
	}
}

// Whatever fails, the alerts come one after the other while there is still time: failing at a quarter
// of the margin, late at half of it, at risk when it is gone and the whole overlap is left.
func TestAlertsComeEarlyEnough(t *testing.T) {
	t.Parallel()
	promtest.Tool(t)
	down := errors.New("simulated")
	for _, life := range []struct {
		name, spec      string
		overlap, margin time.Duration
	}{
		{"an hour", "@hourly", 20 * time.Minute, 5 * time.Minute},
		{"a week", "0 3 * * MON", 48 * time.Hour, 12 * time.Hour},
		{"half a year", "0 0 1 1,7 *", 30 * day, 7 * day},
	} {
		for _, trouble := range []struct {
			name, alert string
			what        func(what string) bool
		}{
			{"a sink is out of reach", "RotatordTokenFailing", func(what string) bool { return strings.HasSuffix(what, " memory:bot") }},
			{"a sink takes nothing", "RotatordSinkFailing", func(what string) bool { return what == "push memory:bot" }},
			{"SiteGPT is out of reach", "RotatordTokenFailing", func(what string) bool { return slices.Contains([]string{"create", "list", "verify", "revoke"}, what) }},
		} {
			t.Run(life.name+", "+trouble.name, func(t *testing.T) {
				t.Parallel()
				step := (life.margin / 30).Truncate(time.Second)
				f := newFleet(t, step, func(w *simulate.World) []rotator.Entry {
					return []rotator.Entry{token(t, w, "bot", life.spec, life.overlap, life.margin)}
				})
				if err := f.p.Run(noon.Add(time.Minute)); err != nil {
					t.Fatal(err)
				}
				planned := f.w.Store.Record("bot").Current(f.w.Now()).Planned
				if err := f.p.Run(planned.Add(-life.margin)); err != nil {
					t.Fatal(err)
				}
				f.Begun = planned.Add(-life.margin)
				f.w.Outage(func(what string) error {
					if trouble.what(what) {
						return down
					}
					return nil
				})
				f.run(planned.Add(life.margin + life.overlap + 5*time.Minute + 10*step))
				var all []promtest.Expectation
				fires := func(alert string, after, left time.Duration) {
					after += life.margin // since the fleet is scraped
					count := fmt.Sprintf(`count(ALERTS{alertname="%s",alertstate="firing"})`, alert)
					slack := 3 * step
					all = append(all,
						promtest.Ask((after-slack).Truncate(step), count),
						promtest.Ask((after+slack+step).Truncate(step), count, promtest.Is(1)),
						promtest.Ask((after+slack+step).Truncate(step), fmt.Sprintf("min(rotatord_token:left_seconds) > bool %d", int(left.Seconds())), promtest.Is(1)))
				}
				fires(trouble.alert, max(life.margin/4, time.Minute), life.overlap+life.margin/2)
				fires("RotatordTokenLate", life.margin/2, life.overlap+life.margin/4)
				fires("RotatordTokenAtRisk", life.margin, life.overlap*9/10)
				all = append(all,
					promtest.Ask(time.Duration(f.Len()-1)*step, `count(ALERTS{alertname="RotatordTokenDead",alertstate="firing"})`, promtest.Is(1)),
					promtest.Ask((2*life.margin+life.overlap-time.Minute-2*step).Truncate(step), `count(ALERTS{alertname="RotatordTokenDead"})`))
				f.Check(t, all)
			})
		}
	}
}
