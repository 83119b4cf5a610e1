package rotator_test

import (
	"slices"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// A program that does not take the new token breaks when the one that it uses dies, and stays broken
// until it takes another one.
func TestWhenAConsumerBreaks(t *testing.T) {
	made := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return made.Add(time.Duration(minutes) * time.Minute) }
	generation := func(n, created, expires int) rotator.Generation {
		return rotator.Generation{
			Entry: "a", Number: n, ID: "tok", Intended: at(created), Created: at(created), Verified: at(created), Converged: at(created),
			Planned: at(created + 30), Expires: at(expires),
		}
	}
	e := rotator.Entry{Name: "a", Consumers: []rotator.Consumer{{Name: "bot", Title: "bot.service"}}}
	for _, c := range []struct {
		name   string
		taken  int
		now    time.Time
		breaks time.Time
	}{
		{"what it uses lives", 1, at(40), at(60)},
		{"what it uses has expired", 1, at(61), at(61)},
		{"what it uses is forgotten", 7, at(61), at(61)},
		{"it never used one", 0, at(61), time.Time{}},
	} {
		r := rotator.Record{
			Name: "a", Generations: []rotator.Generation{generation(9, 30, 90), generation(1, 0, 60)},
			Consumers: []rotator.ConsumerState{{Name: "bot", Told: c.taken, Taken: c.taken, Retry: rotator.Retry{Tries: 3, Error: "bot: exit code 1", Since: at(31), At: at(70)}}},
		}
		rep := rotator.Describe([]rotator.Entry{e}, []rotator.Record{r}, c.now)
		if len(rep.Problems) != 1 || rep.Problems[0].Kind != rotator.ProblemConsumer || !rep.Problems[0].Breaks.Equal(c.breaks) {
			t.Errorf("%s: %+v, want one that breaks at %s", c.name, rep.Problems, c.breaks)
		}
	}
}

// Who put a token of their own into the only sink is not told, once ours has expired, that somebody has
// none: nothing of ours is used there, and nothing is made until a person decides.
func TestASinkThatWaitsForAPersonBreaksNobody(t *testing.T) {
	made := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	e := rotator.Entry{Name: "a", Outlets: []rotator.Outlet{{Place: "p", Name: "app.env", Required: true}}}
	r := rotator.Record{
		Name: "a", Generations: []rotator.Generation{{
			Entry: "a", Number: 1, ID: "tok", Intended: made, Created: made, Verified: made, Converged: made,
			Planned: made.Add(time.Minute), Expires: made.Add(time.Hour),
		}},
		Sinks: []rotator.SinkState{{Place: "p", Holds: 1, Ever: true, Held: "holds a value that is none of ours"}},
	}
	for _, after := range []time.Duration{time.Second, 30 * time.Minute, 2 * time.Hour} {
		rep := rotator.Describe([]rotator.Entry{e}, []rotator.Record{r}, made.Add(after))
		if tok := rep.Tokens[0]; !tok.Breaks.IsZero() || tok.State != "held" || len(rep.Problems) != 1 || rep.Problems[0].Kind != rotator.ProblemHeldSink {
			t.Errorf("after %s: %s, breaks %s: %+v", after, tok.State, tok.Breaks, rep.Problems)
		}
	}
	r.Sinks[0].Held = ""
	if rep := rotator.Describe([]rotator.Entry{e}, []rotator.Record{r}, made.Add(2*time.Hour)); !slices.ContainsFunc(rep.Problems, func(p rotator.Problem) bool { return p.Kind == rotator.ProblemNoToken && p.Failing }) {
		t.Errorf("nobody holds it: %+v", rep.Problems)
	}
}

// Where the sinks of a token are others now, and a new one cannot be made for them yet, nobody is told
// that there is no working token, and in the same breath that it breaks in an hour.
func TestMovedSinksAreNotADeadToken(t *testing.T) {
	made := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return made.Add(time.Duration(minutes) * time.Minute) }
	e := rotator.Entry{Name: "a", Outlets: []rotator.Outlet{{Place: "new", Name: "new.env", Required: true}}}
	r := rotator.Record{
		Name: "a", Last: 1, Generations: []rotator.Generation{{
			Entry: "a", Number: 1, ID: "tok", Intended: made, Created: made, Verified: made, Converged: made, Planned: at(30), Expires: at(60), Lost: at(10),
		}},
		Sinks: []rotator.SinkState{{Place: "old", Holds: 1, Ever: true}},
	}
	const lives = "none of its sinks is known to hold a working token, and who has the last one can use it still"
	tried := rotator.Retry{Tries: 1, Error: "new.env: folder does not exist", Since: at(10), At: at(12)}
	for _, c := range []struct {
		name   string
		retry  rotator.Retry
		now    int
		what   string
		breaks time.Time
	}{
		{"before the first try", rotator.Retry{}, 11, lives, at(60)},
		{"after it", tried, 11, lives + ": no successor is created while a required sink would not take it", at(60)},
		{"and when that one died", tried, 61, "has no working token: no successor is created while a required sink would not take it", at(61)},
	} {
		r.Create, r.Problem = c.retry, "preflight"
		rep := rotator.Describe([]rotator.Entry{e}, []rotator.Record{r}, at(c.now))
		if len(rep.Problems) != 1 || rep.Problems[0].What != c.what || !rep.Problems[0].Breaks.Equal(c.breaks) || !rep.Problems[0].Failing {
			t.Errorf("%s: %+v, want %q that breaks at %s", c.name, rep.Problems, c.what, c.breaks)
		}
	}
}

// What waits for a person is no try. It goes on by itself when it has to: what is not explained has then
// as little left as the users may be left with, or the users have.
func TestUntilWhenAPersonMayDecide(t *testing.T) {
	made := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return made.Add(time.Duration(minutes) * time.Minute) }
	e := rotator.Entry{Name: "a", Timing: rotator.Timing{Overlap: 40 * time.Minute}}
	old := []rotator.Generation{{Entry: "a", Number: 1, ID: "tok", Intended: made, Created: made, Verified: made, Converged: made, Planned: at(30), Expires: at(60)}}
	for _, c := range []struct {
		name         string
		generations  []rotator.Generation
		until, wants time.Time
	}{
		{"a fresh state", nil, at(500), at(500)},
		{"and nothing is known of what is not explained", nil, time.Time{}, time.Time{}},
		{"what the users have ends first", old, at(500), at(50)},
		{"what is not explained ends first", old, at(40), at(40)},
		{"what the users have is all that is known", old, time.Time{}, at(50)},
	} {
		r := rotator.Record{Name: "a", Last: 1, Generations: c.generations, Blocked: "unexplained: tokens", BlockedUntil: c.until}
		for _, p := range rotator.Describe([]rotator.Entry{e}, []rotator.Record{r}, at(5)).Problems {
			if p.Kind == rotator.ProblemBlocked && (!p.Next.IsZero() || !p.Until.Equal(c.wants)) {
				t.Errorf("%s: %+v, want it until %s", c.name, p, c.wants)
			}
		}
	}
}
