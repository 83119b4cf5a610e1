package audit_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/audit"
)

// tale writes journals: each line is one event of bot's, so many hours after the start.
type tale []rotator.Event

func (t *tale) at(hours float64, kind rotator.EventKind, generation int, change ...func(*rotator.Event)) *tale {
	ev := rotator.Event{At: start.Add(time.Duration(hours * float64(hour))), Kind: kind, Entry: "bot", Generation: generation}
	if generation > 0 {
		ev.Expires = start.Add(time.Duration(generation) * 48 * hour)
	}
	for _, c := range change {
		c(&ev)
	}
	*t = append(*t, ev)
	return t
}

func by(who string) func(*rotator.Event) { return func(ev *rotator.Event) { ev.By = who } }
func sink(s string) func(*rotator.Event) {
	return func(ev *rotator.Event) { ev.Place, ev.Sink = "place:"+s, s }
}
func says(s string) func(*rotator.Event) { return func(ev *rotator.Event) { ev.Detail = s } }
func until(h float64) func(*rotator.Event) {
	return func(ev *rotator.Event) { ev.Next = start.Add(time.Duration(h * float64(hour))) }
}

func err(s string) func(*rotator.Event) { return func(ev *rotator.Event) { ev.Error = s } }

// made is a generation that reaches its sinks.
func (t *tale) made(hours float64, n int, sinks ...string) *tale {
	label := func(ev *rotator.Event) { ev.Label = fmt.Sprintf("bot #%d", n) }
	t.at(hours, rotator.EventIntended, n, label, says("planned")).at(hours, rotator.EventCreated, n, label)
	for _, s := range sinks {
		t.at(hours, rotator.EventPushed, n, label, sink(s))
	}
	return t.at(hours, rotator.EventConverged, n, label)
}

func TestStories(t *testing.T) {
	for name, c := range map[string]struct {
		journal *tale
		until   float64 // hours
		verdict audit.Verdict
		why     []string // in part, in order
		check   func(t *testing.T, tok audit.Token)
	}{
		"one after the other": {
			new(tale).made(0, 1, "a").made(24, 2, "a").at(30, rotator.EventRevoked, 1, says("its overlap has passed")),
			40, audit.Kept, nil,
			func(t *testing.T, tok audit.Token) {
				l := tok.Lives[0]
				if l.Overlap != 6*hour || l.Successor != 2 || l.End != audit.Revoked || tok.Least != 6*hour || tok.Overlaps != 1 || tok.Rotations != 2 {
					t.Errorf("%+v", tok)
				}
			},
		},
		"an end is told once": {
			new(tale).made(0, 1, "a").made(24, 2, "a").at(30, rotator.EventRevoked, 1, says("its overlap has passed")).at(48, rotator.EventExpired, 1), 50, audit.Kept, nil,
			func(t *testing.T, tok audit.Token) {
				if l := tok.Lives[0]; l.End != audit.Revoked || l.Overlap != 6*hour || l.EndWhy != "its overlap has passed" {
					t.Errorf("%+v", l)
				}
			},
		},
		"it died, and its expiry came": {
			new(tale).made(0, 1, "a").made(24, 2, "a").at(30, rotator.EventDied, 1).at(48, rotator.EventExpired, 1), 50, audit.Attention,
			[]string{"generation 1 was revoked by somebody else"},
			func(t *testing.T, tok audit.Token) {
				if l := tok.Lives[0]; l.End != audit.Died || l.Overlap != 6*hour {
					t.Errorf("%+v", l)
				}
			},
		},
		"an orphan that a person killed is no generation": {
			new(tale).made(0, 1, "a").at(5, rotator.EventRevoked, 0, by("bob"), says("by hand, as an orphan")), 10, audit.Kept, nil,
			func(t *testing.T, tok audit.Token) {
				if len(tok.Lives) != 1 {
					t.Errorf("%+v", tok.Lives)
				}
			},
		},
		"adopted, and expired before the next": {
			new(tale).at(0, rotator.EventAdopted, 1, by("bob"), until(24)).made(50, 2, "a"), 60, audit.Broken,
			[]string{"1 gap"},
			func(t *testing.T, tok audit.Token) {
				if g := tok.Gaps[0]; !g.From.Equal(start.Add(48*hour)) || g.Length(start) != 2*hour || len(g.Sinks) != 0 {
					t.Errorf("%+v", g)
				}
			},
		},
		"expired before the next": {
			new(tale).made(0, 1, "a", "b").made(50, 2, "a", "b"), 60, audit.Broken,
			[]string{"1 gap"},
			func(t *testing.T, tok audit.Token) {
				g := tok.Gaps[0]
				if !g.From.Equal(start.Add(48*hour)) || g.Length(start) != 2*hour || !slices.Equal(g.Sinks, []string{"a", "b"}) || g.By != "" || tok.Lives[0].Overlap != -2*hour {
					t.Errorf("%+v", tok)
				}
			},
		},
		"expired, and nothing came": {
			new(tale).made(0, 1, "a"), 49, audit.Broken,
			[]string{"1 gap"},
			func(t *testing.T, tok audit.Token) {
				if g := tok.Gaps[0]; !g.Until.IsZero() || g.Length(start.Add(49*hour)) != hour {
					t.Errorf("%+v", g)
				}
			},
		},
		"one that is not required was too late": {
			new(tale).made(0, 1, "a").
				at(40, rotator.EventIntended, 2).at(40, rotator.EventCreated, 2).at(40, rotator.EventPushed, 2, sink("c"), says("held it already, not required")).
				at(90, rotator.EventIntended, 3).at(90, rotator.EventCreated, 3).at(95, rotator.EventPushed, 3, sink("a")).
				at(97, rotator.EventPushed, 3, sink("c"), says("not required")).at(97, rotator.EventConverged, 3),
			98, audit.Broken,
			[]string{"1 gap"},
			func(t *testing.T, tok audit.Token) {
				if g := tok.Gaps[0]; !slices.Equal(g.Sinks, []string{"a"}) || g.Length(start) != 47*hour {
					t.Errorf("%+v", tok.Gaps)
				}
			},
		},
		"one sink was too late": {
			new(tale).made(0, 1, "a", "b").at(40, rotator.EventIntended, 2).at(40, rotator.EventCreated, 2).at(40, rotator.EventPushed, 2, sink("a")).
				at(49, rotator.EventPushed, 2, sink("b")).at(49, rotator.EventConverged, 2),
			60, audit.Broken,
			[]string{"1 gap"},
			func(t *testing.T, tok audit.Token) {
				if g := tok.Gaps[0]; !slices.Equal(g.Sinks, []string{"b"}) || g.Length(start) != hour {
					t.Errorf("%+v", g)
				}
			},
		},
		"a sink that is not required was too late": {
			new(tale).made(0, 1, "a", "optional").made(24, 2, "a").at(50, rotator.EventPushed, 2, sink("optional")), 60, audit.Kept, nil, nil,
		},
		"a person killed it first": {
			new(tale).made(0, 1, "a").at(10, rotator.EventAsked, 1, by("root (alice)")).at(10, rotator.EventRevoked, 1, by("root (alice)"), says("a person asked for it")).made(11, 2, "a"),
			20, audit.Broken,
			[]string{"1 gap", "root (alice) ended generation 1 by hand"},
			func(t *testing.T, tok audit.Token) {
				if g := tok.Gaps[0]; g.By != "root (alice)" || g.Length(start) != hour {
					t.Errorf("%+v", g)
				}
			},
		},
		"compromised: its successor was in place": {
			new(tale).made(0, 1, "a").made(10, 2, "a").at(10.5, rotator.EventRevoked, 1, by("bob")), 20, audit.Attention, []string{"bob ended generation 1 by hand"}, nil,
		},
		"somebody else revoked it": {
			new(tale).made(0, 1, "a").at(10, rotator.EventDied, 1).made(10.5, 2, "a"), 20, audit.Broken, []string{"1 gap", "generation 1 was revoked by somebody else"}, nil,
		},
		"an answer was lost": {
			new(tale).at(0, rotator.EventIntended, 1, says("first")).at(0, rotator.EventUnknown, 1).at(1, rotator.EventOrphan, 1).at(1, rotator.EventRevoked, 1, says("an orphan")).made(1, 2, "a"),
			20, audit.Kept, nil,
			func(t *testing.T, tok audit.Token) {
				if l := tok.Lives[0]; !l.Orphan || l.End != audit.Revoked || tok.Tries != 1 {
					t.Errorf("%+v", tok)
				}
			},
		},
		"an answer is lost": {
			new(tale).made(0, 1, "a").at(10, rotator.EventIntended, 2).at(10, rotator.EventUnknown, 2), 20, audit.Attention, []string{"whether generation 2 was made"}, nil,
		},
		"refused, and its number is used again": {
			new(tale).at(0, rotator.EventIntended, 1, says("first"), func(ev *rotator.Event) { ev.Label = "x" }).at(0, rotator.EventRefused, 1, func(ev *rotator.Event) { ev.Label = "x" }).made(1, 1, "a"),
			20, audit.Kept, nil,
			func(t *testing.T, tok audit.Token) {
				if len(tok.Lives) != 2 || tok.Lives[0].End != audit.Never || tok.Lives[1].End != audit.Alive {
					t.Errorf("%+v", tok.Lives)
				}
			},
		},
		"somebody changed a sink": {
			new(tale).made(0, 1, "a").at(5, rotator.EventHeld, 0, sink("a")).at(7, rotator.EventAdopted, 0, sink("a"), by("carol")).at(8, rotator.EventPushed, 1, sink("a")),
			20, audit.Attention,
			[]string{"a was changed by somebody else for a time"},
			func(t *testing.T, tok audit.Token) {
				if d := tok.Disturbed[0]; d.Until.Sub(d.From) != 3*hour || len(tok.Held) != 0 {
					t.Errorf("%+v", tok)
				}
			},
		},
		"what somebody else put there is not ours to keep alive": {
			new(tale).made(0, 1, "a", "b").at(5, rotator.EventHeld, 0, sink("a")).at(49, rotator.EventAdopted, 0, sink("a"), by("carol")).made(50, 2, "a", "b"),
			60, audit.Broken,
			[]string{"1 gap", "a was changed"},
			func(t *testing.T, tok audit.Token) {
				if g := tok.Gaps[0]; !slices.Equal(g.Sinks, []string{"b"}) {
					t.Errorf("%+v", g)
				}
			},
		},
		"somebody emptied a sink, and put something else there": {
			new(tale).made(0, 1, "a").at(5, rotator.EventDrift, 1, sink("a"), says("is empty")).at(6, rotator.EventHeld, 0, sink("a")).at(6.5, rotator.EventHeld, 0, sink("a")).at(7, rotator.EventPushed, 1, sink("a")),
			20, audit.Attention,
			[]string{"a was changed by somebody else for a time"},
			func(t *testing.T, tok audit.Token) {
				if len(tok.Disturbed) != 2 {
					t.Fatalf("%+v", tok.Disturbed)
				}
				for i, what := range []string{"is empty", "holds a value that is none of ours"} {
					if d := tok.Disturbed[i]; d.What != what || d.Until.Sub(d.From) != hour {
						t.Errorf("%+v", d)
					}
				}
			},
		},
		"and it waits": {
			new(tale).made(0, 1, "a").at(5, rotator.EventHeld, 0, sink("a")), 20, audit.Attention, []string{"a holds a value", "a waits for a person"}, nil,
		},
		"no longer declared: its end is no gap": {
			new(tale).made(0, 1, "a").at(5, rotator.EventRemoved, 0), 60, audit.Kept, nil,
			func(t *testing.T, tok audit.Token) {
				if tok.Removed.IsZero() || tok.Lives[0].End != audit.Expired {
					t.Errorf("%+v", tok)
				}
			},
		},
		"declared again when it had ended": {
			new(tale).made(0, 1, "a").at(5, rotator.EventRemoved, 0).at(50, rotator.EventRestored, 0).made(51, 2, "a"), 60, audit.Broken,
			[]string{"1 gap"},
			func(t *testing.T, tok audit.Token) {
				if g := tok.Gaps[0]; g.Length(start) != hour {
					t.Errorf("%+v", g)
				}
			},
		},
		"one of two changed sinks is well again": {
			new(tale).made(0, 1, "a", "b").at(5, rotator.EventDrift, 0, sink("a"), says("was emptied")).at(6, rotator.EventDrift, 0, sink("b"), says("was emptied")).
				at(7, rotator.EventPushed, 1, sink("a")),
			10, audit.Attention,
			[]string{"a was changed by somebody else for a time", "b was emptied"},
			nil,
		},
		"what a person found in a sink is given up": {
			new(tale).made(0, 1, "a").at(5, rotator.EventHeld, 0, sink("a")).at(6, rotator.EventAdopted, 0, sink("a"), by("bob")).at(7, rotator.EventPushed, 1, sink("a")),
			10, audit.Attention,
			[]string{"a was changed by somebody else for a time"},
			nil,
		},
		"given up, and not overwritten yet": {
			new(tale).made(0, 1, "a").at(5, rotator.EventHeld, 0, sink("a")).at(6, rotator.EventAdopted, 0, sink("a"), by("bob")),
			10, audit.Attention,
			[]string{"a holds a value that is none of ours"},
			func(t *testing.T, tok audit.Token) {
				if len(tok.Held) > 0 {
					t.Errorf("it waits for a person still: %q", tok.Held)
				}
			},
		},
		"it waits for a person no more": {
			new(tale).made(0, 1, "a").at(5, rotator.EventHeld, 0).at(6, rotator.EventReleased, 0), 10, audit.Kept, nil, nil,
		},
		"it waits for a person until one is promoted": {
			new(tale).made(0, 1, "a").at(5, rotator.EventHeld, 0).made(24, 2, "a"), 30, audit.Kept, nil, nil,
		},
		"it waits for a person, also when a pause is over": {
			new(tale).made(0, 1, "a").at(5, rotator.EventHeld, 0).at(6, rotator.EventReleased, 0, by("bob")),
			10, audit.Attention,
			[]string{"it waits for a person"},
			nil,
		},
		"whether it was made is not known when it would have ended either": {
			new(tale).made(0, 1, "a").at(90, rotator.EventIntended, 2).at(90, rotator.EventUnknown, 2).made(47, 3, "a"),
			100, audit.Attention,
			[]string{"whether generation 2 was made is not known yet"},
			nil,
		},
		"adopted": {
			new(tale).at(0, rotator.EventAdopted, 7, until(300), by("dave")).made(24, 8, "a").at(30, rotator.EventRevoked, 7), 40, audit.Kept, nil,
			func(t *testing.T, tok audit.Token) {
				if l := tok.Lives[0]; l.Generation != 7 || l.By != "dave" || l.Promoted.IsZero() || l.Overlap != 6*hour {
					t.Errorf("%+v", l)
				}
			},
		},
		"who uses it took each in time": {
			new(tale).made(0, 1, "a").at(0.1, rotator.EventTold, 1, says("shop")).at(0.1, rotator.EventTaken, 1, says("shop")).
				made(24, 2, "a").at(24.1, rotator.EventFailed, 2, says("tell shop"), err("503")).
				at(25, rotator.EventTold, 2, says("shop")).at(26, rotator.EventTold, 2, says("shop")).at(27, rotator.EventTaken, 2, says("shop")),
			60, audit.Kept, nil,
			func(t *testing.T, tok audit.Token) {
				want := audit.Telling{Consumer: "shop", Told: start.Add(25 * hour), Taken: start.Add(27 * hour), Failed: 1}
				if got := tok.Lives[1].Told; len(got) != 1 || got[0] != want {
					t.Errorf("%+v", got)
				}
			},
		},
		"who uses it took it when the old one had ended": {
			new(tale).made(0, 1, "a").made(24, 2, "a").at(24, rotator.EventFailed, 2, says("tell shop"), err("503")).
				at(30, rotator.EventTold, 2, says("bot.service")).at(47, rotator.EventTaken, 2, says("bot.service")).
				at(51, rotator.EventTold, 2, says("shop")).at(51, rotator.EventTaken, 2, says("shop")),
			60, audit.Attention,
			[]string{"shop is known to have taken generation 2 only 3h late: generation 1 had ended"},
			nil,
		},
		"who uses it could not be told until one more was there": {
			new(tale).made(0, 1, "a").made(24, 2, "a").at(24, rotator.EventFailed, 2, says("tell shop"), err("503")).
				made(70, 3, "a").at(72, rotator.EventTold, 3, says("shop")).at(72, rotator.EventTaken, 3, says("shop")).at(96, rotator.EventExpired, 2),
			100, audit.Attention,
			[]string{"shop is known to have taken generation 3 only 1d late: generation 1 had ended"},
			nil,
		},
		"who uses it never took it": {
			new(tale).made(0, 1, "a").made(24, 2, "a").at(24, rotator.EventTold, 2, says("bot.service")),
			50, audit.Attention,
			[]string{"bot.service is not known to have taken one newer than generation 1 for 2h"},
			nil,
		},
		"who uses it does not take it yet": {
			new(tale).made(0, 1, "a").made(24, 2, "a").at(24, rotator.EventTold, 2, says("bot.service")),
			25, audit.Attention,
			[]string{"bot.service is not known to have taken generation 2, in place for 1h"},
			nil,
		},
		"who uses it was told a moment ago": {
			new(tale).made(0, 1, "a").made(24, 2, "a").at(24, rotator.EventTold, 2, says("bot.service")), 24.01, audit.Kept, nil, nil,
		},
		"the first one is not taken": {
			new(tale).made(0, 1, "a").at(0, rotator.EventFailed, 1, says("tell shop"), err("503")),
			1, audit.Attention,
			[]string{"shop is not known to have taken generation 1, in place for 1h"},
			nil,
		},
		"who is told of the second is not blamed for what was before": { // added meanwhile, it began at the first one
			new(tale).made(0, 1, "a").made(24, 2, "a").made(72, 3, "a").at(72, rotator.EventTold, 3, says("shop")).at(72, rotator.EventTaken, 3, says("shop")), 100, audit.Kept, nil, nil,
		},
		"who is no longer told may be declared no more": {
			new(tale).made(0, 1, "a").made(24, 2, "a").at(24, rotator.EventTold, 2, says("shop")).made(49, 3, "a").made(90, 4, "a"),
			120, audit.Attention,
			[]string{"shop is not known to have taken one newer than generation 1 for 1h"},
			nil,
		},
		"and so is blamed for nothing if that was in time": {
			new(tale).made(0, 1, "a").made(24, 2, "a").at(24, rotator.EventTold, 2, says("shop")).made(47, 3, "a"), 60, audit.Kept, nil, nil,
		},
		"a token that is no longer declared tells nobody": {
			new(tale).made(0, 1, "a").made(24, 2, "a").at(24, rotator.EventTold, 2, says("shop")).at(47, rotator.EventRemoved, 0), 60, audit.Kept, nil, nil,
		},
		"a gap is not who uses it's fault": {
			new(tale).made(0, 1, "a").made(50, 2, "a").at(50.5, rotator.EventTold, 2, says("shop")).at(50.5, rotator.EventTaken, 2, says("shop")),
			60, audit.Broken,
			[]string{"1 gap", "shop is known to have taken generation 2 only 30m late"},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			rep := report(*c.journal, time.Time{}, start.Add(time.Duration(c.until*float64(hour))))
			if len(rep.Tokens) != 1 {
				t.Fatalf("%d tokens", len(rep.Tokens))
			}
			tok := rep.Tokens[0]
			if tok.Verdict != c.verdict || len(tok.Why) != len(c.why) {
				t.Fatalf("%s: %q, want %s: %q", tok.Verdict, tok.Why, c.verdict, c.why)
			}
			for i, want := range c.why {
				if !strings.Contains(tok.Why[i], want) {
					t.Errorf("%q, want %q", tok.Why, c.why)
				}
			}
			if c.check != nil {
				c.check(t, tok)
			}
		})
	}
}

// Of a period is told what touches it: what ended before it is not, and what goes on is.
func TestPeriod(t *testing.T) {
	of := func(name string) func(*rotator.Event) { return func(ev *rotator.Event) { ev.Entry = name } }
	as := func(name string, t *tale) tale {
		for i := range *t {
			of(name)(&(*t)[i])
		}
		return *t
	}
	journal := slices.Concat(
		as("dead", new(tale).made(0, 1, "a")),
		as("filled", new(tale).made(0, 1, "a").at(3, rotator.EventDrift, 0, sink("a"), says("was emptied")).at(4, rotator.EventPushed, 1, sink("a")).made(50, 3, "a")),
		as("gone", new(tale).made(0, 1, "a").at(20, rotator.EventRemoved, 0).at(48, rotator.EventExpired, 1)),
		as("open", new(tale).made(0, 3, "a").at(5, rotator.EventDrift, 0, sink("a"), says("was emptied"))),
	)
	got := map[string]string{}
	for _, tok := range report(journal, start.Add(60*hour), start.Add(80*hour)).Tokens {
		got[tok.Name] = fmt.Sprintf("%s %d %d %s", tok.Verdict, len(tok.Gaps), len(tok.Disturbed), strings.Join(tok.Why, ", "))
	}
	want := map[string]string{"dead": "gap 1 0 1 gap, no generation is in every required sink", "filled": "kept 0 0 ", "open": "attention 0 1 a was emptied"}
	if !maps.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// What belongs to no token: configurations, starts and crashes, what was dropped; and a period.
func TestInstallation(t *testing.T) {
	none := func(ev *rotator.Event) { ev.Entry = "" }
	hash := func(h string) func(*rotator.Event) { return func(ev *rotator.Event) { ev.Hash = h } }
	run, version := says("rotatord run"), func(ev *rotator.Event) { ev.Version = "v1" }
	journal := new(tale).
		at(0, rotator.EventStarted, 0, none, run, version).at(0, rotator.EventConfigured, 0, none, hash("h1")).
		made(1, 1, "a").made(20, 2, "a").at(22, rotator.EventRevoked, 1).
		at(30, rotator.EventStarted, 0, none, run, version). // after a crash
		at(31, rotator.EventDeclined, 0, none, hash("bad")).at(32, rotator.EventConfigured, 0, none, hash("h2")).
		at(33, rotator.EventStopped, 0, none, run).at(34, rotator.EventStarted, 0, none, says("rotatord once")).at(35, rotator.EventStarted, 0, none, run, version).
		at(36, rotator.EventPruned, 0, none, until(0.5)).
		at(37, rotator.EventAsked, 0, by("alice")).at(37, rotator.EventAsked, 0, none, by("alice")).at(38, rotator.EventPaused, 0, by("alice")).
		at(50, rotator.EventConfigured, 0, none, hash("later"))
	rep := report(*journal, start.Add(25*hour), start.Add(40*hour))
	if rep.InForce.Hash != "h2" || len(rep.Configuration) != 2 || rep.Version != "v1" || len(rep.Service) != 4 || len(rep.Manual) != 3 {
		t.Errorf("%+v", rep)
	}
	if len(rep.Crashes) != 1 || !rep.Crashes[0].Equal(start.Add(30*hour)) {
		t.Errorf("crashes %v", rep.Crashes)
	}
	if !rep.Dropped.Equal(start.Add(hour/2)) || !rep.First.Equal(start) {
		t.Errorf("since %s, dropped %s", rep.First, rep.Dropped)
	}
	tok := rep.Tokens[0]
	if len(tok.Lives) != 1 || tok.Lives[0].Generation != 2 || tok.Rotations != 0 || tok.Verdict != audit.Kept {
		t.Errorf("generation 1 ended before the period: %+v", tok)
	}
}
