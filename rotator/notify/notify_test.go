package notify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/notify"
	"github.com/rotatord/rotatord/rotator/webhook"
)

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// notes is a store in memory.
type notes struct {
	text  string
	saves int
	err   error
}

func (n *notes) Notes(context.Context) (string, error) { return n.text, nil }

func (n *notes) SetNotes(_ context.Context, text string) error {
	n.saves++
	if n.err != nil {
		return n.err
	}
	n.text = text
	return nil
}

// office is where people are told: it keeps what it got, and can be closed.
type office struct {
	t   *testing.T
	now time.Time

	mu       sync.Mutex
	down     error
	status   int
	after    string // Retry-After
	tries    int
	messages []notify.Message
	slack    []string
	ids      []string
}

// RoundTrip implements http.RoundTripper.
func (o *office) RoundTrip(r *http.Request) (*http.Response, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tries++
	if o.down != nil {
		return nil, o.down
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	resp := &http.Response{StatusCode: o.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("x"))}
	if resp.StatusCode == 0 {
		resp.StatusCode = http.StatusOK
		var m notify.Message
		var s struct{ Text string }
		o.ids = append(o.ids, r.Header.Get("webhook-id"))
		if r.URL.Path == "/slack" {
			if err := json.Unmarshal(body, &s); err != nil {
				o.t.Error(err)
			}
			o.slack = append(o.slack, s.Text)
		} else if err := json.Unmarshal(body, &m); err != nil {
			o.t.Error(err)
		} else {
			o.messages = append(o.messages, m)
		}
	}
	if o.after != "" {
		resp.Header.Set("Retry-After", o.after)
	}
	return resp, nil
}

// watch is a notifier with knobs, whose time is an argument.
type watch struct {
	*office
	n        *notify.Notifier
	kept     *notes
	targets  map[string]notify.Target
	problems []rotator.Problem
	tokens   []rotator.TokenStatus
	log      bytes.Buffer
	failed   error
	again    bool // a restart is wanted, in the middle of everything
}

func duration(d time.Duration) *field.Duration { f := field.Duration(d); return &f }

func newWatch(t *testing.T, targets map[string]notify.Target) *watch {
	t.Helper()
	w := &watch{office: &office{t: t, now: start}, kept: &notes{}, targets: targets}
	if targets == nil {
		w.targets = map[string]notify.Target{"ops": {Webhook: &webhook.Config{URL: field.URL{Text: "https://ops.example.com/json"}}}}
	}
	w.restart()
	return w
}

// restart is another process with the same state.
func (w *watch) restart() {
	w.n = &notify.Notifier{
		Targets: func() map[string]notify.Target { return w.targets },
		Report: func(context.Context) (rotator.Report, error) {
			return rotator.Report{At: w.now, Problems: w.problems, Tokens: w.tokens}, w.failed
		},
		Hint:  func(p rotator.Problem) string { return "→ mend " + p.Token },
		Store: w.kept, Instance: "prod", Host: "host1", Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		World: webhook.World{
			Getenv: func(k string) string { return "https://hooks.example.com/" + strings.ToLower(k) },
			Now:    func() time.Time { return w.now }, Transport: w.office,
		},
	}
}

func (w *watch) look(hurry bool) {
	w.t.Helper()
	if err := w.n.Look(w.t.Context(), hurry); err != nil {
		w.t.Fatal(err)
	}
	w.n.Wait()
}

// pass lets time go by, with a look every few seconds.
func (w *watch) pass(d time.Duration) {
	w.t.Helper()
	step := 5 * time.Second
	if d > 3*time.Hour {
		step = 30 * time.Second
	}
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(step) {
		w.look(false)
	}
}

// got asserts what the messages since the last call say, by their first lines.
func (w *watch) got(heads ...string) []notify.Message {
	w.t.Helper()
	all := w.messages
	w.messages = nil
	var got []string
	for _, m := range all {
		head, _, _ := strings.Cut(m.Text, "\n")
		got = append(got, strings.TrimPrefix(head, "rotatord prod on host1: "))
	}
	if strings.Join(got, "|") != strings.Join(heads, "|") {
		w.t.Errorf("%s: told %q, want %q", w.now.Format(time.TimeOnly), got, heads)
	}
	return all
}

// broken is a sink that does not take the token.
func (w *watch) broken(token string) rotator.Problem {
	return rotator.Problem{
		Kind: rotator.ProblemSink, Token: token, Sink: "app.env", What: "does not take the token", Failing: true,
		Error: "app.env: write /srv/" + token + ".env: no space left on device", Since: w.now, Breaks: w.now.Add(5 * time.Hour),
	}
}

// From the first moment to the all-clear, through a restart, each thing is told once.
func TestOneTroubleFromBeginToEnd(t *testing.T) {
	w := newWatch(t, nil)
	w.pass(5 * time.Minute)
	w.got()
	w.problems = []rotator.Problem{w.broken("a")}
	w.pass(50 * time.Second)
	w.got() // it may heal by itself
	w.pass(time.Minute)
	m := w.got("1 new problem")[0]
	if want := `rotatord prod on host1: 1 new problem
✗ a: app.env: does not take the token
    since 10:05 UTC (1m ago); breaks its users in 4h59m (15:05 UTC)
    write /srv/a.env: no space left on device
    → mend a`; m.Text != want {
		t.Errorf("told\n%s\nwant\n%s", m.Text, want)
	}
	i := m.New[0]
	if i.Kind != "sink" || i.Count != 1 || i.Tokens[0] != "a" || i.Do != "→ mend a" || !i.Failing || !i.Breaks.Equal(w.problems[0].Breaks) || m.Open != 1 || m.Format != 1 || m.Instance != "prod" {
		t.Errorf("%+v", m)
	}
	w.restart()
	w.pass(30 * time.Minute)
	w.got()
	w.problems = nil
	w.pass(50 * time.Second)
	w.got() // it may come back
	w.restart()
	w.pass(2 * time.Minute)
	m = w.got("1 solved. All clear.")[0]
	if !strings.Contains(m.Text, "✓ solved: a: app.env: does not take the token (it lasted 32m4") {
		t.Error(m.Text)
	}
	w.restart()
	w.pass(time.Hour)
	w.got()
	if w.kept.saves != 2 {
		t.Errorf("%d saves for two messages", w.kept.saves)
	}
}

// What heals within the grace is told to nobody, in neither direction; what breaks somebody is told at once.
func TestGrace(t *testing.T) {
	w := newWatch(t, nil)
	for range 20 { // a sink that fails, and takes it 40 s later
		w.problems = []rotator.Problem{w.broken("a")}
		w.pass(40 * time.Second)
		w.problems = nil
		w.pass(time.Minute)
	}
	w.got()
	p := w.broken("a")
	p.Breaks = w.now.Add(40 * time.Second)
	w.problems = []rotator.Problem{p}
	w.pass(15 * time.Second)
	w.got("1 new problem")
	w.pass(time.Minute) // and now it is broken
	m := w.got("1 worse")[0]
	if !strings.Contains(m.Text, "✗ worse: a: app.env: does not take the token") || !strings.Contains(m.Text, "its users have NO working token now") {
		t.Error(m.Text)
	}
	for range 10 { // it comes and goes: it was never over
		w.problems = nil
		w.pass(30 * time.Second)
		w.problems = []rotator.Problem{p}
		w.pass(30 * time.Second)
	}
	w.got()
}

// What begins within moments is one message.
func TestTogether(t *testing.T) {
	w := newWatch(t, nil)
	w.problems = []rotator.Problem{w.broken("a")}
	w.pass(40 * time.Second)
	other := w.broken("b")
	other.Error = "app.env: permission denied"
	w.problems = append(w.problems, other)
	w.pass(5 * time.Minute)
	w.got("2 new problems")
}

// One cause is one trouble: when it spreads it is told again, less and less often, and a reminder
// comes as often as is wanted.
func TestSpreadAndReminders(t *testing.T) {
	w := newWatch(t, nil)
	for i := range 40 {
		w.problems = append(w.problems, w.broken(fmt.Sprintf("t%02d", i)))
		w.pass(30 * time.Second)
	}
	for i := range w.problems {
		w.problems[i].Breaks = time.Time{}
	}
	all := w.got("1 new problem", "1 spreading")
	if n := all[1].More[0].Count; n < 20 {
		t.Errorf("the summary counts %d tokens", n)
	}
	if !strings.Contains(all[1].Text, "✗ more: does not take the token: ") || !strings.Contains(all[1].Text, "(t00, t01, t02, t03, t04, t05, t06, t07 and ") {
		t.Error(all[1].Text)
	}
	w.pass(2 * time.Hour)
	if m := w.got("1 spreading")[0]; m.More[0].Count != 40 || len(m.More[0].Tokens) != 20 {
		t.Errorf("%+v", m.More)
	}
	w.pass(24 * time.Hour)
	w.got("1 still there", "1 still there")
	w.problems = w.problems[:3]
	w.pass(time.Hour)
	w.got()
	// Another cause is another trouble, and both together are one message.
	other := w.broken("x")
	other.Error = "app.env: permission denied"
	third := rotator.Problem{Kind: rotator.ProblemHeldSink, Token: "y", Sink: "y.env", What: "holds a value that is none of ours"}
	w.problems = append(w.problems, other, third)
	w.pass(10 * time.Minute)
	if m := w.got("2 new problems (3 open)")[0]; m.New[0].Tokens[0] != "x" || m.New[1].Failing {
		t.Errorf("%+v", m.New)
	}
	w.problems = nil
	w.pass(10 * time.Minute)
	w.got("3 solved. All clear.")
}

// Who breaks at this very instant has no token now, in every kind of message and at any fraction of a
// second: a state in which nobody has one says that it breaks now.
func TestBreaksNow(t *testing.T) {
	w := newWatch(t, map[string]notify.Target{
		"json":  {Webhook: &webhook.Config{URL: field.URL{Text: "https://ops.example.com/json"}}},
		"slack": {Slack: &notify.Slack{URL: field.SecretRef{Env: "SLACK"}}},
	})
	w.now = start.Add(499 * time.Millisecond)
	p := w.broken("a")
	p.Breaks = w.now
	w.problems = []rotator.Problem{p}
	w.look(false)
	if len(w.messages) != 1 || len(w.slack) != 1 {
		t.Fatalf("%d messages, %d of them for slack", len(w.messages)+len(w.slack), len(w.slack))
	}
	for _, text := range []string{w.messages[0].Text, w.slack[0]} {
		if !strings.Contains(text, "its users have NO working token now") {
			t.Error(text)
		}
	}
}

// A target that is down for a day gets one message when it is back, and nobody is asked in vain all
// the time; the others hear that it cannot be told, and it is a problem for whoever looks.
func TestTargetThatIsDown(t *testing.T) {
	w := newWatch(t, nil)
	w.down = &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	w.problems = []rotator.Problem{w.broken("a")}
	w.pass(12 * time.Hour)
	w.problems = append(w.problems, rotator.Problem{Kind: rotator.ProblemManagement, What: "the API refuses the management token", Failing: true, Token: "b", Since: w.now})
	w.pass(12 * time.Hour)
	if w.tries < 24*60/5 || w.tries > 24*60/5+20 {
		t.Errorf("it was tried %d times in a day", w.tries)
	}
	if n := len(w.kept.text); n > 4000 {
		t.Errorf("the notes have grown to %d bytes", n)
	}
	p := notify.Problems(w.kept.text, w.targets)
	if len(p) != 1 || !p[0].Failing || p[0].Kind != rotator.ProblemNotify || p[0].What != "people cannot be told: ops (ops.example.com)" ||
		!strings.HasPrefix(p[0].Error, "ops.example.com: dial tcp") || p[0].Since.After(start.Add(2*time.Minute)) {
		t.Errorf("problems %+v", p)
	}
	if n := strings.Count(w.log.String(), "people cannot be told"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
	w.restart()
	w.targets["two"] = notify.Target{Webhook: &webhook.Config{URL: field.URL{Text: "https://two.example.com/"}}, On: []string{"notify"}}
	w.n.World.Transport = away{w.office, "ops.example.com"}
	w.down = nil
	w.pass(2 * time.Minute)
	if m := w.got("1 new problem")[0].New[0]; m.Consumer != "ops" || m.Kind != "notify" {
		t.Errorf("the other target was told of %+v", m)
	}
	w.restart()
	w.pass(10 * time.Minute)
	w.got("2 new problems", "1 solved. All clear.")
	if p := notify.Problems(w.kept.text, w.targets); len(p) != 0 {
		t.Errorf("problems %+v", p)
	}

	// What is limited waits as long as it is told to, at most an hour.
	w.status, w.after, w.tries = http.StatusTooManyRequests, "7200", 0
	delete(w.targets, "two")
	w.problems = nil
	w.pass(61 * time.Minute)
	if w.tries != 1 {
		t.Errorf("%d tries within an hour", w.tries)
	}
	w.status, w.after = 0, ""
	w.pass(5 * time.Minute)
	w.got("2 solved. All clear.")
}

// A message that may have arrived is the same message when it is sent again, but another one if more
// is to be told by then.
func TestSameMessageSameID(t *testing.T) {
	w := newWatch(t, nil)
	w.problems = []rotator.Problem{w.broken("a")}
	lost := &losing{office: w.office, lose: 2}
	w.n.World.Transport = lost
	w.pass(3 * time.Minute)
	if len(w.ids) != 3 || w.ids[0] != w.ids[1] || w.ids[1] != w.ids[2] {
		t.Errorf("ids %q", w.ids)
	}
	w.problems = nil
	w.pass(3 * time.Minute)
	if len(w.ids) != 4 || w.ids[3] == w.ids[0] {
		t.Errorf("ids %q", w.ids)
	}
	w.problems = []rotator.Problem{w.broken("a")} // the same once more is no repetition
	w.pass(3 * time.Minute)
	if len(w.ids) != 5 || w.ids[4] == w.ids[0] {
		t.Errorf("ids %q", w.ids)
	}
}

// losing loses answers, not messages.
type losing struct {
	*office
	lose int
}

func (l *losing) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.office.RoundTrip(r)
	if l.lose > 0 {
		l.lose--
		return nil, errors.New("unexpected EOF")
	}
	return resp, err
}

// Clocks that are set make no storm and swallow nothing.
func TestClockSteps(t *testing.T) {
	w := newWatch(t, nil)
	w.problems = []rotator.Problem{w.broken("a")}
	w.problems[0].Breaks = time.Time{}
	w.pass(2 * time.Minute)
	w.got("1 new problem")
	w.now = w.now.Add(-30 * 24 * time.Hour)
	w.pass(11 * time.Hour)
	w.got()
	w.pass(2 * time.Hour)
	w.got("1 still there")
	w.now = w.now.Add(30 * 24 * time.Hour)
	w.pass(11 * time.Hour)
	w.got("1 still there")
	w.problems = nil
	w.pass(30 * time.Second)
	w.now = w.now.Add(-24 * time.Hour)
	w.pass(2 * time.Minute)
	w.got("1 solved. All clear.")
	w.down = errors.New("down")
	w.problems = []rotator.Problem{w.broken("b")}
	w.problems[0].Breaks = time.Time{}
	w.pass(30 * time.Minute)
	w.now = w.now.Add(-24 * time.Hour) // while it waits for its backoff
	w.down = nil
	w.pass(10 * time.Minute)
	w.got("1 new problem")
}

// A pass of once waits for no grace, and the next one remembers.
func TestOnce(t *testing.T) {
	w := newWatch(t, nil)
	w.problems = []rotator.Problem{w.broken("a")}
	w.look(true)
	w.got("1 new problem")
	w.restart()
	w.now = w.now.Add(time.Hour)
	w.look(true)
	w.got()
	w.restart()
	w.problems = nil
	w.now = w.now.Add(time.Hour)
	w.look(true)
	w.got("1 solved. All clear.")
}

// Who wants to hear of rotations hears of each token's once, those of one tick together.
func TestRotations(t *testing.T) {
	w := newWatch(t, map[string]notify.Target{"ops": {
		Webhook: &webhook.Config{URL: field.URL{Text: "https://ops.example.com/"}}, On: []string{"rotated"},
	}})
	for i := range 30 {
		w.tokens = append(w.tokens, rotator.TokenStatus{Name: fmt.Sprintf("t%02d", i), Generation: 3, Converged: start.Add(-48 * time.Hour)})
	}
	w.problems = []rotator.Problem{w.broken("a")} // nothing that it wants to know
	w.pass(10 * time.Minute)
	w.got()
	for i := range w.tokens {
		w.tokens[i].Generation = 4
		w.tokens[i].Converged = time.Time{} // on its way
		w.pass(5 * time.Second)
		w.tokens[i].Converged = w.now
	}
	w.pass(3 * time.Minute)
	all := w.got("13 rotated", "13 rotated", "4 rotated")
	seen := map[string]bool{}
	for _, m := range all {
		for _, r := range m.Rotated {
			if seen[r.Token] || r.Generation != 4 {
				t.Errorf("%s is told of twice, or of generation %d", r.Token, r.Generation)
			}
			seen[r.Token] = true
		}
	}
	if !strings.Contains(all[0].Text, "↻ rotated: t00 (generation 4), t01 (generation 4)") {
		t.Error(all[0].Text)
	}
	w.restart()
	w.pass(10 * time.Minute)
	w.got()
	// One that comes back after it was gone counts from the beginning.
	declared := w.tokens
	w.tokens = declared[1:]
	w.pass(time.Minute)
	w.tokens = declared
	w.tokens[0].Generation, w.tokens[0].Converged = 1, w.now
	w.pass(3 * time.Minute)
	w.got("1 rotated")
}

// Who wants to hear of rotations hears of none that is older than an hour when that begins, and of each
// that comes then, however long nobody is there to tell, or to be told.
func TestRotationsAreNewsFromTheFirstLookOn(t *testing.T) {
	wants := notify.Target{Webhook: &webhook.Config{URL: field.URL{Text: "https://ops.example.com/"}}, On: []string{"rotated", "failing"}}
	for name, c := range map[string]struct {
		tokens []rotator.TokenStatus
		first  []string // what is told at once
		full   bool     // the disk, meanwhile
		away   func(w *watch)
	}{
		"killed": {nil, nil, false, func(w *watch) {
			w.restart()
		}},
		"killed, and there were tokens": {[]rotator.TokenStatus{
			{Name: "old", Generation: 2, Converged: start.Add(-61 * time.Minute)}, {Name: "young", Generation: 3, Converged: start.Add(-59 * time.Minute)},
		}, []string{"1 rotated"}, false, func(w *watch) {
			w.restart()
		}},
		"out of reach": {nil, nil, false, func(w *watch) {
			w.problems = []rotator.Problem{w.broken("a")}
			w.down = errors.New("no route to host")
			w.pass(2 * time.Hour)
		}},
		"the disk was full at first": {nil, nil, true, func(w *watch) {
			w.tokens = nil
			w.pass(30 * time.Second)
			if w.kept.saves != 1 {
				w.t.Errorf("%d tries to write on a full disk within half a minute", w.kept.saves)
			}
			w.kept.err = nil
			w.pass(time.Minute)
			w.tokens = []rotator.TokenStatus{{Name: "new", Generation: 1, Converged: w.now}}
			w.restart()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t, map[string]notify.Target{"ops": wants})
			w.tokens = c.tokens
			if c.full {
				w.kept.err = errors.New("no space left on device")
			}
			w.look(false)
			w.got(c.first...)
			w.tokens = append(w.tokens, rotator.TokenStatus{Name: "new", Generation: 1, Converged: w.now.Add(time.Second)})
			c.away(w)
			w.down, w.problems = nil, nil
			w.now = w.now.Add(3 * time.Hour)
			w.pass(10 * time.Minute)
			for _, m := range w.got("1 rotated") {
				if len(m.Rotated) != 1 || m.Rotated[0].Token != "new" {
					t.Errorf("%+v", m.Rotated)
				}
			}
		})
	}
}

// Who is stopped in the middle of a telling has told nobody, and blames nobody: the next process tells.
func TestStoppedInTheMiddle(t *testing.T) {
	w := newWatch(t, nil)
	w.n.World.Transport = hanging{w.office, "ops.example.com"}
	w.problems = []rotator.Problem{w.broken("a")}
	ctx, stop := context.WithCancel(t.Context())
	if err := w.n.Look(ctx, true); err != nil {
		t.Fatal(err)
	}
	stop()
	w.n.Wait()
	if p := notify.Problems(w.kept.text, w.targets); len(p) != 0 || w.log.Len() > 0 {
		t.Errorf("ops is said to be out of reach: %+v\n%s", p, &w.log)
	}
	w.restart()
	w.look(true)
	w.got("1 new problem")
}

// What a state holds that is no memory of ours is nothing that anybody was told.
func TestNotesThatCannotBeRead(t *testing.T) {
	for _, text := range []string{"{", "[]", "null", `{"ops":null}`, `{"ops":{"seq":1,"open":{"x":null}}}`} {
		w := newWatch(t, nil)
		w.kept.text = text
		if p, s := notify.Problems(text, w.targets), notify.Standings(text, w.targets); len(p) > 0 || len(s) != 1 || len(s[0].Open) > 0 {
			t.Errorf("%s: %+v %+v", text, p, s)
		}
		w.problems = []rotator.Problem{w.broken("a")}
		w.pass(2 * time.Minute)
		w.got("1 new problem")
	}
}

// A panic on the way to a target is one more reason for which it cannot be told.
func TestPanicIsAnError(t *testing.T) {
	w := newWatch(t, nil)
	w.n.World.Transport = panics{}
	w.problems = []rotator.Problem{w.broken("a")}
	w.pass(2 * time.Minute)
	if p := notify.Problems(w.kept.text, w.targets); len(p) != 1 || p[0].Error != "panic: what now" {
		t.Errorf("problems %+v", p)
	}
	w.restart()
	w.pass(5 * time.Minute)
	w.got("1 new problem")
}

type panics struct{}

func (panics) RoundTrip(*http.Request) (*http.Response, error) { panic("what now") }

// What needs one remedy is one trouble: told once, by its most urgent part, and with all who have it.
func TestOneCause(t *testing.T) {
	sink := func(token, err string) rotator.Problem {
		return rotator.Problem{Kind: rotator.ProblemSink, Token: token, What: "does not take the token", Failing: true, Error: err}
	}
	create := func(kind rotator.ProblemKind, token, err string) rotator.Problem {
		return rotator.Problem{Kind: kind, Token: token, What: "no token is made", Failing: true, Error: err}
	}
	late, soon := sink("late", "full"), sink("soon", "full")
	late.Since, late.Breaks = start.Add(-time.Hour), start.Add(9*time.Hour)
	soon.Since, soon.Breaks = start.Add(-2*time.Hour), start.Add(5*time.Hour)
	calm, other := sink("calm", "full"), sink("a", "gone")
	other.Since = late.Since
	calm.Failing, calm.What = false, "is worth a look"
	for name, c := range map[string]struct {
		problems []rotator.Problem
		head     string
		want     string // of the text
	}{
		"another number":      {[]rotator.Problem{sink("a", "503: try again in 17 s"), sink("b", "503: try again in 4 s")}, "1 new problem", "2 tokens (a, b)"},
		"another word":        {[]rotator.Problem{sink("a", "disk full"), sink("b", "disk gone")}, "2 new problems", "disk gone"},
		"two sinks of one":    {[]rotator.Problem{sink("a", "full"), sink("a", "full")}, "1 new problem", "✗ a: does not take the token\n"},
		"unknown, by the API": {[]rotator.Problem{create(rotator.ProblemUnknown, "a", rotator.OutcomeUnknown), create(rotator.ProblemCreate, "b", "503 down")}, "1 new problem", "2 tokens (a, b)"},
		"only unknown":        {[]rotator.Problem{create(rotator.ProblemUnknown, "a", ""), create(rotator.ProblemUnknown, "b", rotator.OutcomeUnknown)}, "1 new problem", "2 tokens (a, b)"},
		"the earliest":        {[]rotator.Problem{late, soon}, "1 new problem", "since 08:00 UTC (2h ago); breaks the first users in 5h (15:00 UTC)"},
		"and the other way":   {[]rotator.Problem{soon, late}, "1 new problem", "since 08:00 UTC (2h ago); breaks the first users in 5h (15:00 UTC)"},
		"the worst names it":  {[]rotator.Problem{calm, late}, "1 new problem", "✗ does not take the token: 2 tokens (calm, late)"},
		"who breaks is first": {[]rotator.Problem{other, late}, "2 new problems", "new problems\n✗ late: does not take the token\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t, nil)
			w.problems = c.problems
			w.pass(time.Minute + 5*time.Second)
			if m := w.got(c.head)[0]; !strings.Contains(m.Text, c.want) {
				t.Errorf("told\n%s\nwant %q", m.Text, c.want)
			}
		})
	}
}

// Who wants to hear of one kind hears of no other, and a target that is removed is forgotten.
func TestOn(t *testing.T) {
	w := newWatch(t, nil)
	ops := w.targets["ops"]
	ops.On = []string{"waiting", "fuse"}
	w.targets["ops"] = ops
	held := rotator.Problem{Kind: rotator.ProblemHeldSink, Token: "y", Sink: "y.env", What: "holds a value"}
	fuse := rotator.Problem{Kind: rotator.ProblemFuse, Token: "z", What: "9 creates within a day", Failing: true}
	w.problems = []rotator.Problem{w.broken("a"), held, fuse}
	w.pass(5 * time.Minute)
	if m := w.got("2 new problems")[0]; m.New[0].Kind != "fuse" || m.New[1].Kind != "held_sink" {
		t.Errorf("%+v", m.New)
	}
	delete(w.targets, "ops")
	w.pass(time.Minute)
	w.problems = nil
	w.targets["ops"] = ops
	w.pass(time.Hour)
	w.got()
	ops.On = []string{"failing"}
	w.targets["ops"] = ops
	w.problems = []rotator.Problem{held}
	w.pass(time.Hour)
	w.got()
}

// What ends only because its error is another one now, or because nobody wants to hear of it any more, is
// not called solved.
func TestWhatGoesOnIsNotSolved(t *testing.T) {
	w := newWatch(t, nil)
	p := w.broken("a")
	w.problems = []rotator.Problem{p}
	w.pass(5 * time.Minute)
	key := w.got("1 new problem")[0].New[0].Key
	p.Error = "app.env: write /srv/a.env: input/output error"
	w.problems = []rotator.Problem{p}
	w.pass(5 * time.Minute)
	m := w.got("1 new problem (2 open)", "1 not solved (1 open)")
	if over := m[1].Over[0]; over.Key != key || over.GoesOn != "for another reason" || !strings.Contains(m[1].Text, "\n· goes on for another reason: a: app.env: does not take the token") {
		t.Errorf("%+v\n%s", over, m[1].Text)
	}
	ops := w.targets["ops"]
	ops.On = []string{"waiting"}
	w.targets["ops"] = ops
	w.pass(5 * time.Minute)
	if m := w.got("1 not solved")[0]; !strings.Contains(m.Text, "\n· goes on and is not told here any more: a: app.env: does not take the token") {
		t.Error(m.Text)
	}
	w.problems = nil
	w.pass(5 * time.Minute)
	w.got()
}

// Who is declared no more is forgotten, and so is somebody new when the name comes back, to whichever
// process: what was told long ago is neither solved now nor known.
func TestTargetThatIsGoneIsForgotten(t *testing.T) {
	for name, restart := range map[string]bool{"by the process that knew it": false, "by one that never saw it declared": true} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t, nil)
			targets := w.targets
			w.problems = []rotator.Problem{w.broken("a")}
			w.pass(2 * time.Minute)
			w.got("1 new problem")
			w.targets = nil
			if restart {
				w.restart()
			}
			w.pass(time.Minute)
			if saves := w.kept.saves; saves != 2 {
				t.Errorf("%d saves", saves)
			}
			w.restart()
			w.targets, w.problems = targets, nil
			w.pass(time.Hour)
			w.got()
			w.problems = []rotator.Problem{w.broken("a")}
			w.pass(2 * time.Minute)
			w.got("1 new problem")
		})
	}
}

// Another address behind a name is somebody else: it is told at once of what is open, whatever became of
// the old one, and of nothing that only the old one knew.
func TestTargetThatMoved(t *testing.T) {
	for name, restart := range map[string]bool{"by a reload": false, "by a restart": true} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t, nil)
			refused := rotator.Problem{Kind: rotator.ProblemManagement, What: "the API refuses the management token", Failing: true, Since: w.now}
			lost := rotator.Problem{Kind: rotator.ProblemConsumer, Token: "b", Consumer: "restart", What: "does not take the change", Failing: true, Since: w.now}
			w.problems = []rotator.Problem{w.broken("a"), refused}
			w.pass(2 * time.Minute)
			w.got("2 new problems")
			w.down = errors.New("no such host")
			w.problems = []rotator.Problem{w.problems[0], lost}
			w.pass(time.Hour) // it is tried every five minutes by now
			w.down, w.tries = nil, 0
			w.targets = map[string]notify.Target{"ops": {Webhook: &webhook.Config{URL: field.URL{Text: "https://ops.example.org/json"}}}}
			if restart {
				w.restart()
			}
			w.look(false)
			if len(notify.Problems(w.kept.text, w.targets)) != 0 {
				t.Error("the new address is said to fail")
			}
			w.pass(2 * time.Minute)
			w.got("2 new problems")
			w.restart()
			w.pass(time.Hour)
			w.got()
			if strings.Contains(w.kept.text, "example.org") {
				t.Errorf("the notes hold an address, which may be a secret: %s", w.kept.text)
			}
		})
	}
}

// However long what is told first, no message is longer than a channel takes, and it says what is left out.
func TestLongestTitle(t *testing.T) {
	w := newWatch(t, map[string]notify.Target{"ops": {Slack: &notify.Slack{URL: field.SecretRef{Env: "SLACK"}}}})
	for _, token := range []string{"a", "b"} {
		w.problems = append(w.problems, rotator.Problem{Kind: rotator.ProblemScopes, Token: token, What: token + " was not granted [" + strings.Repeat("knowledge:read ", 300) + "]"})
	}
	w.pass(2 * time.Minute)
	if len(w.slack) != 1 {
		t.Fatalf("%d messages", len(w.slack))
	}
	if text := w.slack[0]; len([]rune(text)) > 1950 || !strings.HasSuffix(text, "\n… and 1 more: rotatord status") {
		t.Errorf("%d characters:\n%s", len([]rune(text)), text)
	}
}

// In a channel nothing of a text is a link, a mention or a command, and nothing is longer than a
// channel takes.
func TestSlack(t *testing.T) {
	w := newWatch(t, map[string]notify.Target{"ops": {Slack: &notify.Slack{URL: field.SecretRef{Env: "SLACK"}}}})
	p := w.broken("a")
	p.Sink = "<!channel> & @everyone"
	p.Error = "<!here> *bold* sgpt_abcdefghijkl @channel\n" + strings.Repeat("x", 5000)
	w.problems = []rotator.Problem{p}
	for i := range 200 {
		w.problems = append(w.problems, rotator.Problem{Kind: rotator.ProblemHeldSink, Token: fmt.Sprintf("t%d", i), What: "holds " + strings.Repeat("y", i)})
	}
	w.pass(2 * time.Minute)
	if len(w.slack) != 1 {
		t.Fatalf("%d messages", len(w.slack))
	}
	text := w.slack[0]
	for _, bad := range []string{"<", "sgpt_abc", "@c", "@e", "@h"} {
		if strings.Contains(text, bad) {
			t.Errorf("it holds %q:\n%s", bad, text)
		}
	}
	if n := len([]rune(text)); n > 1950 || n < 1500 || !strings.HasPrefix(text, "*rotatord prod on host1: 201 new problems*\n✗ a: &lt;!channel&gt; &amp; @\u200beveryone") ||
		!strings.Contains(text, "more: rotatord status") {
		t.Errorf("%d characters:\n%s", n, text)
	}
}

func TestTest(t *testing.T) {
	w := newWatch(t, nil)
	if err := w.n.Test(t.Context(), "ops", w.targets["ops"]); err != nil {
		t.Fatal(err)
	}
	if len(w.messages) != 1 || w.messages[0].Type != notify.TypeTest || !strings.Contains(w.messages[0].Text, "this is a test") || w.kept.saves != 0 {
		t.Errorf("%+v", w.messages)
	}
	var instead string
	w.n.Instead = func(target, text string) { instead = target + ": " + text }
	if err := w.n.Test(t.Context(), "ops", w.targets["ops"]); err != nil || len(w.messages) != 1 || !strings.HasPrefix(instead, "ops: rotatord prod on host1: this is a test") {
		t.Errorf("in a rehearsal: %v, %q", err, instead)
	}
	w.n.Instead = nil
	w.status = 404
	if err := w.n.Test(t.Context(), "ops", w.targets["ops"]); err == nil || !strings.Contains(err.Error(), "answered 404") {
		t.Error(err)
	}
}

// A target that hangs keeps nobody else waiting.
func TestHangingTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(t, map[string]notify.Target{
			"ops":  {Webhook: &webhook.Config{URL: field.URL{Text: "https://ops.example.com/json"}}},
			"dead": {Webhook: &webhook.Config{URL: field.URL{Text: "https://dead.example.com/json"}, Timeout: duration(time.Second)}},
		})
		w.n.World.Transport = hanging{w.office, "dead.example.com"}
		w.problems = []rotator.Problem{w.broken("a")}
		w.now = start.Add(2 * time.Minute)
		for range 3 {
			before := time.Now()
			if err := w.n.Look(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(before); d > 0 {
				t.Errorf("a look took %s", d)
			}
			synctest.Wait()
		}
		w.mu.Lock()
		if len(w.messages) != 1 {
			t.Errorf("meanwhile %d messages arrived at the other one", len(w.messages))
		}
		w.mu.Unlock()
		w.n.Wait()
		if p := notify.Problems(w.kept.text, w.targets); len(p) != 1 || !strings.Contains(p[0].Error, "dead.example.com did not answer in time") {
			t.Errorf("%+v", p)
		}
	})
}

type hanging struct {
	*office
	host string
}

func (h hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == h.host {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return h.office.RoundTrip(r)
}

// away is an office of which one host is out of reach.
type away struct {
	*office
	host string
}

func (a away) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == a.host {
		return nil, errors.New("no route to host")
	}
	return a.office.RoundTrip(r)
}

func TestValidate(t *testing.T) {
	hook := &webhook.Config{URL: field.URL{Text: "https://a.example/"}}
	for _, c := range []struct {
		target notify.Target
		want   string
	}{
		{notify.Target{Webhook: hook}, ""},
		{notify.Target{Webhook: hook, On: notify.On(), After: duration(0), Every: duration(0)}, ""},
		{notify.Target{Slack: &notify.Slack{URL: field.SecretRef{File: "x"}}}, ""},
		{notify.Target{}, "[] says not how anybody is told"},
		{notify.Target{Webhook: hook, Slack: &notify.Slack{URL: field.SecretRef{File: "x"}}}, "[] is told in two ways"},
		{notify.Target{Slack: &notify.Slack{}}, "[slack url] needs exactly one of file, credential and env"},
		{notify.Target{Webhook: hook, On: []string{}}, "[on] is empty"},
		{notify.Target{Webhook: hook, On: []string{"faling"}}, `[on 0] "faling" is nothing that is told (did you mean "failing"?)`},
		{notify.Target{Webhook: hook, Every: duration(time.Minute)}, "[every] 1m is so often"},
		{notify.Target{Webhook: hook, After: duration(25 * time.Hour)}, "[after] 1d1h is too long"},
		{notify.Target{Webhook: &webhook.Config{}}, "[webhook url] is missing"},
	} {
		p := field.New()
		c.target.Validate(p)
		var got []string
		for _, problem := range p.List() {
			got = append(got, fmt.Sprint(problem.Path)+" "+problem.Text)
		}
		if text := strings.Join(got, "\n"); (c.want == "") != (text == "") || !strings.Contains(text, c.want) {
			t.Errorf("%q, want %q", text, c.want)
		}
	}
}
