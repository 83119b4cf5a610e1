package rotator_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

// The fault matrix: the engine with the real client, over HTTP, against the stand-in. Every fault of the
// stand-in strikes every operation, while none, one or all of the sinks of the token refuse to be written.

// shelf is a sink that can be out of order.
type shelf struct {
	mu     sync.Mutex
	value  string
	broken bool // takes no push
	pushes int
}

func (s *shelf) Check(context.Context) error { return nil } // it breaks behind the preflight's back

func (s *shelf) Push(_ context.Context, _ rotator.Generation, v rotator.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return errors.New("out of order")
	}
	s.value = v.Reveal()
	s.pushes++
	return nil
}

func (s *shelf) Read(context.Context) (rotator.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return rotator.NewSecret(s.value), nil
}

func (s *shelf) state() (value string, pushes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value, s.pushes
}

func (s *shelf) outOfOrder(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

// plant is an engine with all that is around it. Its clock jumps from one wake to the next, and the
// requests are real ones.
type plant struct {
	t      *testing.T
	api    *sandbox.Server
	world  *simulate.World // its clock and its store
	engine *rotator.Engine
	seen   func() // called whenever time goes on
}

func newPlant(t *testing.T, timeout time.Duration) *plant {
	t.Helper()
	p := &plant{t: t, world: simulate.New(start), seen: func() {}}
	p.api = sandbox.New(sandbox.Options{Now: p.world.Now, Behavior: sandbox.Behavior{AnswerExpiry: true}, Seed: 1})
	url, stop, err := p.api.Start(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop() })
	client, err := sitegpt.New(sitegpt.Config{
		BaseURL: url, Token: p.api.Management, Timeout: timeout, Now: p.world.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.engine = rotator.New(rotator.Config{
		API: client, Store: p.world.Store, Key: []byte("key of the instance"), Instance: "test",
		Now: p.world.Now, Pace: func(context.Context, int) error { return nil }, Workers: 4,
	})
	return p
}

// declare gives a token sinks, named by the token and a letter.
func (p *plant) declare(name string, sinks ...*shelf) rotator.Entry {
	p.t.Helper()
	e := rotator.Entry{
		Name: name, Scopes: []string{"chatbots:read", "leads:read"},
		Timing: rotator.Timing{Schedule: every(day), Overlap: 8 * hour, Margin: 2 * hour, Jitter: 5 * time.Minute},
	}
	for i, s := range sinks {
		place := fmt.Sprintf("%s-%c", name, 'a'+i)
		e.Outlets = append(e.Outlets, rotator.Outlet{Place: place, Name: place, Kind: "shelf", Required: true, Sink: s})
	}
	return prepared(p.t, e)
}

func (p *plant) load(entries ...rotator.Entry) {
	p.t.Helper()
	if err := p.engine.Load(p.t.Context(), entries); err != nil {
		p.t.Fatal(err)
	}
}

// run looks as the daemon does, until an instant.
func (p *plant) run(until time.Time) {
	soft := p.t.Context()
	idle, stop := context.WithCancel(soft)
	stop()
	for now := p.world.Now(); now.Before(until); now = p.world.Now() {
		p.engine.Look(soft, soft)
		p.engine.Wait()
		p.seen()
		next := p.engine.Look(idle, idle)
		if least := now.Add(time.Second); next.Before(least) {
			next = least
		}
		if next.After(until) {
			next = until
		}
		p.world.Set(next)
	}
}

// expected is what a fault that strikes twice costs: how many creates are sent for one token, and how
// many tokens they make.
func expected(op sandbox.Op, kind sandbox.Kind) (sent, made int) {
	if op != sandbox.OpCreate {
		return 1, 1 // whatever else fails is tried again with the token that there is
	}
	switch kind {
	case sandbox.ServerErrorAfter, sandbox.HTMLAfter, sandbox.HangAfter, sandbox.DropAfter, sandbox.NotOKAfter,
		sandbox.GarbledAfter, sandbox.CutAfter:
		return 3, 3 // two tokens that nobody has the plaintext of
	case sandbox.Narrow:
		return 3, 3 // two that can too little
	case sandbox.Slow, sandbox.Repeat:
		return 1, 1 // it comes in the end; only a list has pages
	}
	return 3, 1
}

func TestEveryFaultOfEveryOperation(t *testing.T) {
	for _, op := range []sandbox.Op{sandbox.OpCreate, sandbox.OpMe, sandbox.OpList, sandbox.OpRevoke} {
		for _, kind := range sandbox.Kinds() {
			for _, broken := range []int{0, 1, 2} {
				t.Run(fmt.Sprintf("%s/%s/%d", op, kind, broken), func(t *testing.T) {
					t.Parallel()
					strike(t, op, kind, broken)
				})
			}
		}
	}
}

// strike rotates a compromised token while a fault strikes an operation twice, and so many of its two
// sinks are out of order for half an hour.
func strike(t *testing.T, op sandbox.Op, kind sandbox.Kind, broken int) {
	timeout := 20 * time.Second
	if kind == sandbox.Hang || kind == sandbox.HangAfter {
		timeout = time.Second
	}
	p := newPlant(t, timeout)
	sinks, other, healthy := []*shelf{{}, {}}, &shelf{}, &shelf{}
	p.load(p.declare("bot", sinks...), p.declare("other", other), p.declare("healthy", healthy))
	begun := p.world.Now()
	p.run(begun.Add(30 * time.Minute))
	old, _ := sinks[0].state()
	before := p.world.Store.Record("other").Version
	if p.api.Made() != 3 || before == 0 {
		t.Fatalf("%d tokens were made to begin with", p.api.Made())
	}
	p.seen = func() {
		for i, s := range append(slices.Clone(sinks), other, healthy) {
			if v, _ := s.state(); !p.api.Alive(v) {
				t.Errorf("after %s, sink %d holds a dead token", p.world.Now().Sub(begun), i)
			}
		}
	}
	asked := p.world.Now()
	fault := sandbox.Fault{Op: op, Kind: kind, Times: 2, RetryAfter: 40 * time.Second, Delay: time.Millisecond}
	p.api.Inject(fault)
	for i := range broken {
		sinks[i].outOfOrder(true)
	}
	p.world.Store.Ask(rotator.Ask{Entry: "bot", Than: 1, Compromised: true, By: "eve", At: asked})
	p.run(asked.Add(3 * time.Minute))
	for range 2 {
		if op == sandbox.OpCreate && kind == sandbox.Narrow { // that waits for a person, who tries again
			p.world.Store.Ask(rotator.Ask{Entry: "bot", Than: 1, Compromised: true, By: "eve", At: p.world.Now()})
			p.run(p.world.Now().Add(3 * time.Minute))
		}
	}
	if v, _ := sinks[1].state(); broken < 2 && (v == old || !p.api.Alive(v)) {
		t.Error("three minutes after the wish, the healthy sink has no new token")
	}
	if broken == 0 && p.api.Alive(old) {
		t.Error("three minutes after the wish, the compromised token lives")
	}
	p.run(asked.Add(30 * time.Minute))
	// The token that nothing is wrong with is rotated meanwhile, and waits for nobody.
	p.world.Store.Ask(rotator.Ask{Entry: "healthy", Than: 1, By: "eve", At: p.world.Now()})
	p.run(p.world.Now().Add(time.Second))
	if _, n := healthy.state(); n != 2 {
		t.Errorf("the healthy token was pushed %d times, want twice", n)
	}
	if broken > 0 && !p.api.Alive(old) {
		t.Error("the compromised token died while a sink still needed it")
	}
	for _, s := range sinks {
		s.outOfOrder(false)
	}
	p.run(asked.Add(4 * hour))

	var log, struck []sandbox.Request // since the wish, and those that the fault struck
	sent := 0
	for _, r := range p.api.Requests() {
		if r.Fault == kind {
			struck = append(struck, r)
		}
		if r.At.Before(asked) {
			continue
		}
		log = append(log, r)
		if r.Op == sandbox.OpCreate {
			sent++
		}
	}
	// Some faults are none for some operations: those are not tried again.
	harmless := kind == sandbox.Slow || kind == sandbox.Narrow || kind == sandbox.Repeat
	if len(struck) != 2 && (len(struck) == 0 || !harmless) {
		t.Errorf("the fault struck %d times, want twice", len(struck))
	}
	// The healthy one costs one more of each.
	if wantSent, wantMade := expected(op, kind); sent != wantSent+1 || p.api.Made() != 3+wantMade+1 {
		t.Errorf("%d creates made %d tokens, want %d and %d", sent-1, p.api.Made()-4, wantSent, wantMade)
	}
	again(t, log, op, kind)
	value, _ := sinks[0].state()
	if second, _ := sinks[1].state(); value == old || second != value || !p.api.Alive(value) || p.api.Alive(old) {
		t.Error("the sinks do not hold one new token, or the compromised one lives")
	}
	if _, n := other.state(); n != 1 || p.world.Store.Record("other").Version != before {
		t.Errorf("the other token was disturbed: %d pushes, version %d, before %d", n, p.world.Store.Record("other").Version, before)
	}
	entries, recs := p.engine.Snapshot()
	if rep := rotator.Describe(entries, recs, p.world.Now()); len(rep.Problems) > 0 {
		t.Errorf("problems in the end: %+v", rep.Problems)
	}
	for _, tok := range p.api.Live() {
		if !slices.ContainsFunc(recs, func(r rotator.Record) bool {
			return slices.ContainsFunc(r.Generations, func(g rotator.Generation) bool { return g.ID == tok.ID && g.Label == tok.Name })
		}) {
			t.Errorf("%s is an orphan", tok.Name)
		}
	}
	if n := len(p.api.Live()); n != 4 { // the healthy one's predecessor has its overlap
		t.Errorf("%d tokens live, want one for each of three, and one that retires", n)
	}
}

// again asserts, of the requests since the wish, when what failed was tried again.
func again(t *testing.T, log []sandbox.Request, op sandbox.Op, kind sandbox.Kind) {
	t.Helper()
	if op == sandbox.OpList {
		return // that nobody lists for a while after a 429 is the limiter's business
	}
	lists, from := 0, time.Time{} // since the last create that was struck
	failed := map[sandbox.Op]time.Time{}
	for _, r := range log {
		if at := failed[r.Op]; kind == sandbox.Limited && !at.IsZero() && r.At.Sub(at) < 40*time.Second {
			t.Errorf("%s came %s after an answer that said 40 s", r.Op, r.At.Sub(at))
		}
		failed[r.Op] = time.Time{}
		switch {
		case r.Op == sandbox.OpList:
			lists++
		case r.Op == sandbox.OpCreate && !from.IsZero():
			tried(t, kind, lists, r.At.Sub(from))
			from = time.Time{}
		}
		if r.Fault == kind {
			failed[r.Op] = r.At
			if lists = 0; r.Op == sandbox.OpCreate {
				from = r.At
			}
		}
	}
}

// tried asserts what happened between a create that went wrong and the next one.
func tried(t *testing.T, kind sandbox.Kind, lists int, gap time.Duration) {
	t.Helper()
	switch kind {
	case sandbox.Slow, sandbox.Repeat:
	case sandbox.Limited, sandbox.Unauthorized, sandbox.Forbidden, sandbox.Narrow:
		if gap < time.Second {
			t.Errorf("another create came %s after one that was refused", gap)
		}
	case sandbox.ServerErrorAfter, sandbox.HTMLAfter, sandbox.HangAfter, sandbox.DropAfter, sandbox.NotOKAfter,
		sandbox.GarbledAfter, sandbox.CutAfter:
		if lists < 1 {
			t.Error("another create was sent without a search for the token of the one before")
		}
	default:
		if lists < 2 || gap < rotator.DefaultSettle {
			t.Errorf("another create was sent after %d looks at the list, %s later: absence counts twice, a settling time apart", lists, gap)
		}
	}
}
