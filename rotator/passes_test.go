package rotator_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// passes runs once every distance for two weeks, with an outage of SiteGPT in between, and returns
// the least life that the sink's token ever had left when a pass was over, and before the next one.
func passes(t *testing.T, timing rotator.Timing, begin time.Time, outage time.Duration) time.Duration {
	t.Helper()
	w := simulate.New(start)
	w.Outage(func(string) error {
		if now := w.Now(); !now.Before(begin) && now.Before(begin.Add(outage)) {
			return errors.New("down")
		}
		return nil
	})
	facts, problems := timing.Check(start)
	for _, p := range problems {
		if !p.Warning {
			t.Fatalf("%s: %s", p.Field, p.Text)
		}
	}
	timing.Margin = facts.Margin
	least := time.Duration(1<<63 - 1)
	for now := start; now.Before(start.Add(14 * 24 * time.Hour)); now = now.Add(timing.Passes) {
		w.Set(now)
		e := rotator.Entry{
			Name: "bot", Scopes: []string{"chatbots:read"}, Outlets: []rotator.Outlet{w.Outlet("a", true, false)},
			Timing: timing, Facts: facts, Ahead: timing.Passes,
		}
		p, err := w.Start(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Run(now); err != nil {
			t.Fatal(err)
		}
		for _, tok := range w.API.Tokens() {
			if tok.Plaintext == w.Sinks["memory:a"].Value() {
				least = min(least, tok.Expires.Sub(now.Add(timing.Passes)))
			}
		}
	}
	return least
}

// What validate promises for passes is so: through a shorter outage, the users keep their overlap.
func TestPassesKeepTheirPromise(t *testing.T) {
	for _, timing := range []rotator.Timing{
		{Schedule: every(24 * time.Hour), Overlap: 8 * time.Hour, Margin: 6 * time.Hour, Jitter: 5 * time.Minute, Passes: time.Hour},
		{Schedule: every(24 * time.Hour), Overlap: 24 * time.Hour, Margin: 12 * time.Hour, Passes: 5 * time.Hour},
		{Schedule: every(36 * time.Hour), Overlap: 12 * time.Hour, Lifetime: 96 * time.Hour, Passes: 7 * time.Hour},
	} {
		facts, _ := timing.Check(start)
		for n := range 40 { // wherever it begins
			begin := start.Add(3*24*time.Hour + time.Duration(n)*73*time.Minute)
			if got, want := passes(t, timing, begin, facts.KeepsOverlap()-time.Minute), timing.Overlap-time.Minute; got < want {
				t.Errorf("%s, passes each %s, down from %s for %s: %s left before a pass, want %s", timing.Schedule, timing.Passes, begin, facts.KeepsOverlap(), got, want)
			}
			if got := passes(t, timing, begin, facts.NoGap()-time.Minute); got < -time.Minute {
				t.Errorf("%s, passes each %s, down from %s for %s: a gap of %s", timing.Schedule, timing.Passes, begin, facts.NoGap(), -got)
			}
		}
	}
}

func TestCheckOfPasses(t *testing.T) {
	for _, tc := range []struct {
		passes time.Duration
		field  string
		text   string // "": nothing to say
		warn   bool
	}{
		{0, "", "", false},
		{time.Hour, "", "", false},
		{5 * time.Hour, "margin", "2h does not reach to the next pass, 5h later", true},
		{10 * time.Hour, "margin", "used up by a single pass that fails", false},
		{30 * time.Hour, "schedule", "share one rotation", true},
	} {
		timing := rotator.Timing{Schedule: every(24 * time.Hour), Overlap: 8 * time.Hour, Margin: 2 * time.Hour, Passes: tc.passes}
		facts, problems := timing.Check(start)
		if facts.Lifetime < 34*time.Hour+tc.passes {
			t.Errorf("passes each %s: a token lives %s, too short for one that is made early", tc.passes, facts.Lifetime)
		}
		if tc.text == "" {
			if len(problems) > 0 {
				t.Errorf("passes each %s: %+v", tc.passes, problems)
			}
			continue
		}
		if !slices.ContainsFunc(problems, func(p rotator.TimingProblem) bool {
			return p.Field == tc.field && p.Warning == tc.warn && strings.Contains(p.Text, tc.text)
		}) {
			t.Errorf("passes each %s: %+v, want %q", tc.passes, problems, tc.text)
		}
	}
	long := rotator.Timing{Schedule: every(24 * time.Hour), Overlap: 8 * time.Hour, Lifetime: 40 * time.Hour, Passes: 10 * time.Hour}
	if _, problems := long.Check(start); len(problems) == 0 || !strings.Contains(problems[0].Text, "between rotations + up to 10h early") {
		t.Errorf("a lifetime that is too short for passes: %+v", problems)
	}
}
