package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/consumers"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/simulate"
)

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// daily ticks at midnight UTC.
type daily struct{}

func (daily) Next(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour) }
func (daily) Last(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }
func (daily) String() string             { return "@daily" }

func entry(w *simulate.World, name string, told ...string) rotator.Entry {
	e := rotator.Entry{
		Name: name, Scopes: []string{"chatbots:read"}, Outlets: []rotator.Outlet{w.Outlet(name, true, false)},
		Timing: rotator.Timing{Schedule: daily{}, Overlap: 8 * time.Hour, Margin: 2 * time.Hour, Jitter: 5 * time.Minute},
	}
	e.Facts, _ = e.Timing.Check(start)
	for _, c := range told {
		e.Consumers = append(e.Consumers, rotator.Consumer{Name: c, Title: c + ".service"})
	}
	return e
}

// program is a consumer with knobs.
type program struct {
	told    []string // of each telling, what changed
	err     error
	outcome consumers.Outcome // "": it takes everything at once
}

func (p *program) Tell(_ context.Context, changes []consumers.Change) (bool, error) {
	if p.err != nil {
		return false, p.err
	}
	var text []string
	for _, c := range changes {
		text = append(text, fmt.Sprintf("%s %d", c.Entry, c.Generation))
	}
	slices.Sort(text)
	p.told = append(p.told, strings.Join(text, ", "))
	return p.outcome == "", nil
}

func (p *program) Taken(context.Context) (consumers.Outcome, error) { return p.outcome, nil }

func (p *program) Check(context.Context) (string, error) { return "", nil }

func (p *program) Timeout() time.Duration { return time.Minute }

// scene is a world with a daemon and a program that it tells.
type scene struct {
	t *testing.T
	w *simulate.World
	p *simulate.Process
	program
}

func begin(t *testing.T, entries func(*simulate.World) []rotator.Entry) *scene {
	t.Helper()
	s := &scene{t: t, w: simulate.New(start)}
	s.start(entries(s.w)...)
	return s
}

func (s *scene) start(entries ...rotator.Entry) {
	s.t.Helper()
	p, err := s.w.Start(entries...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.p = p
}

func (s *scene) look() {
	s.t.Helper()
	t := consumers.Teller{
		Engine: s.p.Engine(), Now: s.w.Now, Failed: func(err error) { s.t.Error(err) },
		Consumers: func(string) consumers.Consumer { return &s.program },
	}
	t.Look(s.t.Context(), false)
	t.Wait()
}

// until runs the daemon to an instant, looking at consumers each minute.
func (s *scene) until(at time.Time) {
	s.t.Helper()
	for now := s.w.Now(); !now.After(at); now = now.Add(time.Minute) {
		if err := s.p.Run(now); err != nil {
			s.t.Fatal(err)
		}
		s.look()
	}
}

func (s *scene) tells(want ...string) {
	s.t.Helper()
	if !slices.Equal(s.told, want) {
		s.t.Errorf("it was told %q, want %q", s.told, want)
	}
	s.told = nil
}

func (s *scene) report() rotator.Report {
	entries, records := s.p.Engine().Snapshot()
	return rotator.Describe(entries, records, s.w.Now())
}

// Tokens that change together are one telling; one that changes alone is another.
func TestTellingOnceABatch(t *testing.T) {
	s := begin(t, func(w *simulate.World) []rotator.Entry {
		return []rotator.Entry{entry(w, "a", "bot"), entry(w, "b", "bot"), entry(w, "c")}
	})
	s.until(start.Add(time.Minute))
	s.tells("a 1, b 1")
	s.until(start.Add(10 * time.Minute))
	s.tells() // never twice
	s.until(start.Add(24 * time.Hour))
	if got := strings.Join(s.told, " | "); got != "a 2, b 2" && got != "a 2 | b 2" && got != "b 2 | a 2" {
		t.Errorf("after a tick: %q", got)
	}
	for _, r := range []string{"a", "b"} {
		if n := len(s.w.Store.Record(r).Consumers); n != 1 {
			t.Errorf("%s knows %d consumers", r, n)
		}
	}
}

// While another token of the same program cannot be made, the first waits, but not for ever.
func TestBatchWaitsALittle(t *testing.T) {
	for late, other := range map[string]string{"a": "b", "b": "a"} {
		t.Run(late, func(t *testing.T) {
			s := begin(t, func(w *simulate.World) []rotator.Entry {
				return []rotator.Entry{entry(w, "a", "bot"), entry(w, "b", "bot")}
			})
			s.w.Outage(func(call string) error {
				if call == "push memory:"+late {
					return errors.New("down")
				}
				return nil
			})
			if err := s.p.Run(start); err != nil {
				t.Fatal(err)
			}
			s.look()
			s.tells()
			s.until(start.Add(2 * time.Minute))
			s.tells(other + " 1")
			s.w.Outage(nil)
			s.until(start.Add(30 * time.Minute))
			s.tells(late + " 1")
		})
	}
}

// Who is due at the same tick may stand behind the request limit, before anything is made for it: it
// belongs to the batch all the same. What cannot be created at all does not.
func TestBatchWaitsForWhoIsDue(t *testing.T) {
	s := begin(t, func(w *simulate.World) []rotator.Entry {
		return []rotator.Entry{entry(w, "0", "bot"), entry(w, "a", "bot"), entry(w, "b"), entry(w, "c", "bot")}
	})
	asked := 0
	s.w.Outage(func(call string) error {
		switch call {
		case "check memory:0":
			return errors.New("down")
		case "create":
			asked++
			s.look()
			s.tells()
		}
		return nil
	})
	if err := s.p.Run(start); err != nil {
		t.Fatal(err)
	}
	if asked != 3 {
		t.Fatalf("%d creates", asked)
	}
	s.look()
	s.tells("a 1, c 1")
}

// Tokens of one program that could not be told do not wait for the one that has most time: a token that
// lives for a year is retried seldom, and another one may die meanwhile.
func TestRetryOfTheFirstToBreak(t *testing.T) {
	s := begin(t, func(w *simulate.World) []rotator.Entry {
		short, long := entry(w, "short", "bot"), entry(w, "long", "bot")
		short.Timing.Overlap, short.Timing.Margin = time.Hour, 30*time.Minute
		long.Timing.Overlap = 200 * 24 * time.Hour
		return []rotator.Entry{short, long}
	})
	s.until(start.Add(time.Minute))
	s.tells("long 1, short 1")
	s.err = errors.New("down")
	for _, name := range []string{"long", "short"} {
		s.w.Store.Ask(rotator.Ask{Entry: name, Than: 1, By: "me", At: s.w.Now()})
		s.until(s.w.Now().Add(4 * time.Hour)) // the one of long is tried once an hour by now
	}
	retry := map[string]time.Time{}
	for _, name := range []string{"long", "short"} {
		retry[name] = s.w.Store.Record(name).Consumers[0].Retry.At
	}
	if !retry["short"].Before(retry["long"]) {
		t.Fatalf("tried again at %v", retry)
	}
	s.err = nil
	s.until(retry["short"].Add(time.Minute))
	s.tells("long 2, short 2")
}

// What could not be told is told later, with the newest generation; the old token waits for it.
func TestOldTokenWaitsForTheConsumer(t *testing.T) {
	s := begin(t, func(w *simulate.World) []rotator.Entry { return []rotator.Entry{entry(w, "a", "bot")} })
	s.until(start.Add(time.Minute))
	s.tells("a 1")
	first := s.w.Sinks["memory:a"].Value()
	s.err = errors.New("no such unit")
	// A person's wish retires the first one long before it would expire.
	s.w.Store.Ask(rotator.Ask{Entry: "a", Than: 1, By: "me", At: s.w.Now()})
	s.until(start.Add(9 * time.Hour)) // the overlap is 8 hours
	if !s.w.API.Accepts(first) {
		t.Fatal("the token that the program uses was revoked")
	}
	rep := s.report()
	i := slices.IndexFunc(rep.Problems, func(p rotator.Problem) bool { return p.Kind == rotator.ProblemConsumer })
	if i < 0 || !rep.Problems[i].Failing || rep.Problems[i].Error != "no such unit" || rep.Problems[i].Breaks.IsZero() ||
		rep.Problems[i].What != "bot.service cannot be told of the new token" {
		t.Errorf("problems: %+v", rep.Problems)
	}
	if w := rep.Tokens[0].Retiring[0].Waits; !strings.Contains(w, "bot.service has not taken a newer one") {
		t.Errorf("the old token waits for %q", w)
	}
	s.err = nil
	s.until(start.Add(12 * time.Hour))
	s.tells("a 2")
	if s.w.API.Accepts(first) {
		t.Error("the old token lives on, though everybody has moved")
	}
	if rep := s.report(); len(rep.Problems) > 0 {
		t.Errorf("problems: %+v", rep.Problems)
	}
}

// Who is left with a dead token is told each minute, also when nothing of that is known any more.
func TestRetryOfWhoHasNothing(t *testing.T) {
	s := begin(t, func(w *simulate.World) []rotator.Entry { return []rotator.Entry{entry(w, "a", "bot")} })
	s.until(start.Add(time.Minute))
	s.tells("a 1")
	s.err = errors.New("down")
	s.until(start.Add(3 * 24 * time.Hour))
	r := s.w.Store.Record("a")
	if r.Generation(1) != nil {
		t.Fatal("generation 1 is still known")
	}
	if again := r.Consumers[0].Retry.At.Sub(s.w.Now()); again > 90*time.Second {
		t.Errorf("it is told again after %s", again)
	}
}

// A program that does not react is shown, and a compromised token waits for nobody.
func TestConsumerThatDoesNotTake(t *testing.T) {
	s := begin(t, func(w *simulate.World) []rotator.Entry { return []rotator.Entry{entry(w, "a", "bot")} })
	s.outcome = consumers.Waiting
	s.until(start.Add(time.Minute))
	s.tells("a 1")
	if rep := s.report(); len(rep.Problems) > 0 {
		t.Errorf("at once: %+v", rep.Problems)
	}
	s.until(start.Add(5 * time.Minute))
	s.tells()
	if rep := s.report(); len(rep.Problems) != 1 || rep.Problems[0].What != "bot.service has not taken the new token" {
		t.Errorf("problems: %+v", rep.Problems)
	}
	first := s.w.Sinks["memory:a"].Value()
	s.w.Store.Ask(rotator.Ask{Entry: "a", Than: 1, Compromised: true, By: "me", At: s.w.Now()})
	s.until(start.Add(10 * time.Minute))
	s.tells("a 2")
	if s.w.API.Accepts(first) {
		t.Error("a compromised token waits for a consumer")
	}
	s.outcome = consumers.Taken
	s.until(start.Add(12 * time.Minute))
	if rep := s.report(); len(rep.Problems) > 0 {
		t.Errorf("problems: %+v", rep.Problems)
	}
}

// What a restart lost is told again, and not for ever.
func TestLostTellingIsRepeatedOnce(t *testing.T) {
	s := begin(t, func(w *simulate.World) []rotator.Entry { return []rotator.Entry{entry(w, "a", "bot")} })
	s.outcome = consumers.Waiting
	s.until(start.Add(time.Minute))
	s.tells("a 1")
	s.outcome = consumers.Lost
	s.start(entry(s.w, "a", "bot"))
	if err := s.p.Run(s.w.Now()); err != nil {
		t.Fatal(err)
	}
	s.look()
	s.tells("a 1")
	s.outcome = consumers.Waiting
	s.until(start.Add(5 * time.Minute))
	if c := s.w.Store.Record("a").Consumers[0]; c.Taken == 1 {
		t.Errorf("it waits, and is said to be taken: %+v", c)
	}
	s.outcome = consumers.Lost
	s.until(start.Add(10 * time.Minute))
	s.tells()
	if c := s.w.Store.Record("a").Consumers[0]; c.Taken != 1 {
		t.Errorf("it is not settled: %+v", c)
	}
}

// A consumer that is added uses the token that is there; one that is removed is forgotten.
func TestNewConsumerStartsAtTheCurrentToken(t *testing.T) {
	s := begin(t, func(w *simulate.World) []rotator.Entry { return []rotator.Entry{entry(w, "a")} })
	s.until(start.Add(time.Minute))
	if err := s.p.Load(entry(s.w, "a", "bot")); err != nil {
		t.Fatal(err)
	}
	s.until(start.Add(5 * time.Minute))
	s.tells()
	if c := s.w.Store.Record("a").Consumers; len(c) != 1 || c[0].Told != 1 || c[0].Taken != 1 {
		t.Errorf("known: %+v", c)
	}
	s.until(start.Add(15 * time.Hour))
	s.tells("a 2")
	if err := s.p.Load(entry(s.w, "a", "other")); err != nil {
		t.Fatal(err)
	}
	s.until(start.Add(15*time.Hour + 5*time.Minute))
	s.tells()
	if c := s.w.Store.Record("a").Consumers; len(c) != 1 || c[0].Name != "other" {
		t.Errorf("known: %+v", c)
	}
}

func TestFlag(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	open := func(name consumers.Flag) consumers.Consumer {
		t.Helper()
		c, err := (consumers.Spec{Flag: &name}).Open("c", consumers.World{Flags: dir})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	outcome := func(c consumers.Consumer, want consumers.Outcome) {
		t.Helper()
		if got, err := c.Taken(ctx); err != nil || got != want {
			t.Errorf("taken: %q, %v, want %q", got, err, want)
		}
	}
	tell := func(c consumers.Consumer) {
		t.Helper()
		if taken, err := c.Tell(ctx, nil); err != nil || taken {
			t.Errorf("tell: %v, %v", taken, err)
		}
	}
	c, path := open("bot"), filepath.Join(dir, "bot")
	tell(c)
	info, err := os.Lstat(path)
	if err != nil || info.Size() != 0 || !info.Mode().IsRegular() {
		t.Fatalf("the flag: %v, %v", info, err)
	}
	outcome(c, consumers.Waiting)
	tell(c) // it is still there: nothing more to say
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	outcome(c, consumers.Taken)

	// Another process in the same folder believes it; in a folder that was made anew it does not.
	outcome(open("bot"), consumers.Taken)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c, other := open("bot"), open("other")
	outcome(c, consumers.Lost)
	outcome(other, consumers.Lost)
	tell(c)
	outcome(c, consumers.Waiting)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	outcome(c, consumers.Taken)

	// So does the process that raised it: the folder may be another service's, and go with that.
	tell(c)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]consumers.Consumer{"who raised it": c, "another process": open("bot")} {
		want := "folder " + dir + " does not exist"
		if got, err := c.Taken(ctx); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without its folder, %s says %q, %v", what, got, err)
		}
		if _, err := c.Tell(ctx, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without its folder, %s: %v", what, err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	outcome(c, consumers.Lost)
	name := consumers.Flag("bot")
	if _, err := (consumers.Spec{Flag: &name}).Open("c", consumers.World{}); err == nil || !strings.Contains(err.Error(), "RuntimeDirectory=") {
		t.Errorf("without a folder of flags: %v", err)
	}
}

// A look at a flag raises none, and says what would be in the way.
func TestFlagCheck(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"up", "file"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"down":     "a flag can be raised in " + dir,
		"up":       "a flag can be raised in " + dir + "; it is up now, and waits for whoever takes it",
		"none/bot": "folder " + dir + "/none does not exist: create it",
		"file/bot": dir + "/file is no folder",
	} {
		f := consumers.Flag(filepath.Join(dir, path))
		c, err := (consumers.Spec{Flag: &f}).Open("c", consumers.World{})
		if err != nil {
			t.Fatal(err)
		}
		says, err := c.Check(t.Context())
		if err != nil {
			says = err.Error()
			if _, err := c.Tell(t.Context(), nil); err == nil {
				t.Errorf("%s: %s, and yet it is told", path, says)
			}
		}
		if (err != nil) != strings.Contains(path, "/") || !strings.HasPrefix(says, want) || err == nil && says != want {
			t.Errorf("%s: %q, want %q", path, says, want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("it left %v, %v", left, err)
	}
}

func TestFlagNames(t *testing.T) {
	for name, good := range map[string]bool{
		"bot": true, "bot@1": true, "bot.service": true, "/run/flags/bot": true,
		"": false, "a b": false, "../bot": false, "sub/bot": false, "/run/../bot": false, "/": false, ".hidden": false, "/run/bot/": false,
	} {
		p := field.New()
		f := consumers.Flag(name)
		(consumers.Spec{Flag: &f}).Validate(p)
		if (len(p.List()) == 0) != good {
			t.Errorf("%q: %v", name, p.List())
		}
	}
}
