//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/crashpoint"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

// crashesEnv asks for every point instead of a few (make crash), or for every n-th, beginning at a
// random one.
const crashesEnv = "ROTATORD_TEST_CRASHES"

// everyPoint says whether every point is wanted, with its table, or, with n > 1, every n-th.
func everyPoint() (n int, ok bool) {
	text := os.Getenv(crashesEnv)
	if text == "all" {
		return 1, true
	}
	n, err := strconv.Atoi(text)
	if text != "" && (err != nil || n < 1) { // a few points must not pass for all of them
		panic(crashesEnv + "=" + text + ": it is all, or a number")
	}
	return n, n > 0
}

// crashKind is a kind of sink, and the files that its sinks of token a end up in.
type crashKind struct {
	name   string
	sinks  string
	places []place
}

// crashKinds are all kinds that need nothing but this machine. Each has two sinks, since a copy in the
// one can mend the other, but for the last.
func crashKinds() []crashKind {
	return []crashKind{
		{"env_file", `
      - env_file: {path: app.env, key: A}
      - env_file: {path: other.env, key: A}`, []place{{"app.env", "A"}, {"other.env", "A"}}},
		{"file", `
      - file: {path: a.env}
      - file: {path: other.env, template: "{\"token\": \"{{.Token}}\"}"}`, []place{{"a.env", ""}, {"other.env", "{\"token\": \""}}},
		{"exec", `
      - exec: {id: one, command: [./push.sh, one.env], read: [./push.sh, one.env]}
      - exec: {id: two, command: [./push.sh, two.env], read: [./push.sh, two.env]}`, []place{{"one.env", ""}, {"two.env", ""}}},
		{"exec, blind", `
      - exec: {id: one, command: [./push.sh, one.env]}`, []place{{"one.env", ""}}},
		{"all", `
      - env_file: {path: app.env, key: A}
      - file: {path: a.env}
      - exec: {id: one, command: [./push.sh, one.env], read: [./push.sh, one.env]}
      - exec: {id: two, command: [./push.sh, two.env]}
        required: false`, []place{{"app.env", "A"}, {"a.env", ""}, {"one.env", ""}, {"two.env", ""}}},
	}
}

// pushScript keeps a token in a file, as durably as an exec sink's program has to.
const pushScript = `#!/bin/sh
set -eu
case $ROTATORD_ACTION in
read) if [ -s "$1" ]; then cat "$1"; fi ;;
push)
	IFS= read -r token || true
	printf %s "$token" >"$1.tmp"
	sync "$1.tmp"
	mv "$1.tmp" "$1"
	sync .
	;;
esac
`

const crashConfig = `version: 1
api: {requests_per_minute: 60000}
daemon: {settle: 20ms, fuse: {creates_per_day: 10000, live: 10000}}
defaults: {schedule: "@daily", scopes: [chatbots:read]}
tokens:
  - name: a
    sinks:%s
  - name: b
    sinks: [{env_file: {path: app.env, key: B}}]
`

func (k crashKind) stage(t *testing.T) *stage {
	t.Helper()
	s := newStage(t, fmt.Sprintf(crashConfig, k.sinks))
	if err := os.WriteFile(filepath.Join(s.dir, "push.sh"), []byte(pushScript), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// at returns the places of both tokens on a stage.
func (k crashKind) at(s *stage) (a []place, b place) {
	for _, p := range k.places {
		a = append(a, place{filepath.Join(s.dir, p.path), p.key})
	}
	return a, place{filepath.Join(s.dir, "app.env"), "B"}
}

// life is a command as a life that can be cut short.
func (s *stage) life(args ...string) crashpoint.Life {
	s.t.Helper()
	cmd, _ := s.process(nil, args...)
	dir, err := filepath.EvalSymlinks(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return crashpoint.Life{Path: cmd.Path, Args: args, Env: cmd.Env, Dir: s.dir, Watch: []string{dir}}
}

// lived runs a life.
func (s *stage) lived(l crashpoint.Life) crashpoint.End {
	s.t.Helper()
	end, err := l.Run(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	s.output.WriteString(end.Output)
	if !end.Killed && end.Code != exitOK {
		s.t.Fatalf("rotatord %v: exit code %d\n%s", l.Args, end.Code, end.Output)
	}
	return end
}

// standing says which of its holders has no working token now: how many tokens are there, and what
// is wrong with the others.
func (s *stage) standing(places []place) (n int, wrong []string) {
	for _, p := range places {
		switch v := held(p.path, p.key); {
		case v == "":
			wrong = append(wrong, fmt.Sprintf("%s holds nothing", p))
		case !s.api.Alive(v):
			wrong = append(wrong, fmt.Sprintf("%s holds a dead token", p))
		default:
			n++
		}
	}
	return n, wrong
}

// settled lets the program start again, and says what is not as if nothing had happened.
func (s *stage) settled(a []place, b place) (wrong []string) {
	s.t.Helper()
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	cmd, output := s.process(nil, "once")
	code := ended(s.t, cmd.Run())
	s.output.WriteString(output.String())
	if code != exitOK {
		complain("once ends with %d:\n%s", code, output)
	}
	_, dead := s.standing(append(slices.Clone(a), b))
	wrong = append(wrong, dead...)
	known := map[string]string{} // id → label of what status shows
	ids := map[string]string{}   // entry → id of the current one
	var st statusJSON
	if err := json.Unmarshal([]byte(s.run(exitOK, "status", "--json")), &st); err != nil {
		s.t.Fatal(err)
	}
	for _, tok := range st.Tokens {
		if tok.State != "current" {
			complain("%s is %s", tok.Name, tok.State)
		}
		known[tok.ID], ids[tok.Name] = tok.Label, tok.ID
		for _, g := range tok.Retiring {
			known[g.ID] = g.Label
		}
	}
	if len(ids) != 2 {
		complain("status shows %d tokens", len(ids))
	}
	for _, tok := range s.api.Live() {
		if known[tok.ID] != tok.Name {
			complain("an orphan lives: %s", tok.Name)
		}
		delete(known, tok.ID)
	}
	for id := range known {
		complain("status shows %s, which is not alive", id)
	}
	for _, p := range a {
		if v := held(p.path, p.key); v != held(a[0].path, a[0].key) {
			complain("%s holds another token than %s", p, a[0])
		}
	}
	for name, p := range map[string]place{"a": a[0], "b": b} {
		out := s.feed(held(p.path, p.key)+"\n", exitOK, "identify", "--offline")
		if !strings.Contains(out, " of "+name+", current") {
			complain("%s is not what the record of %s says: %s", p, name, out)
		}
	}
	if s.unclean() {
		complain("the state folder holds a plaintext")
	}
	return wrong
}

// unclean reports whether a plaintext is in the state.
func (s *stage) unclean() bool {
	files, _ := filepath.Glob(filepath.Join(s.dir, "state", "*"))
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && (plaintext.Match(b) || bytes.Contains(b, []byte(s.api.Management().Reveal()))) {
			return true
		}
	}
	return len(files) == 0
}

// what names a step for a table: whose file it is, and what happens to it.
func (k crashKind) what(s *stage, step crashpoint.Step) string {
	rel := strings.TrimPrefix(step.Path, s.dir)
	base := filepath.Base(step.Path)
	switch {
	case strings.HasPrefix(rel, "/state"):
		switch {
		case rel == "/state":
			base = "folder"
		case strings.HasSuffix(base, "-wal"):
			base = "log"
		case strings.HasSuffix(base, ".lock"):
			base = "lock"
		case strings.Contains(base, ".db.new"):
			base = "first database"
		default:
			base = "database"
		}
		return "state: " + step.Call + " " + base
	case rel == "":
		base = "folder"
	case strings.HasSuffix(base, ".lock"):
		base = "lock"
	case strings.HasSuffix(base, ".check"):
		base = "scratch file of the check"
	case strings.HasSuffix(base, ".tmp"):
		base = "new file"
	case strings.HasSuffix(base, ".sh"):
		base = "program"
	default:
		base = "file"
	}
	return "sink: " + step.Call + " " + base
}

// tally counts trials and those that broke the promise, by step and kind of sink.
type tally struct {
	mu    sync.Mutex
	kinds []string
	cells map[string]map[string]*[2]int
}

func (c *tally) add(what, kind string, broken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cells == nil {
		c.cells = map[string]map[string]*[2]int{}
	}
	if c.cells[what] == nil {
		c.cells[what] = map[string]*[2]int{}
	}
	if c.cells[what][kind] == nil {
		c.cells[what][kind] = &[2]int{}
	}
	if !slices.Contains(c.kinds, kind) {
		c.kinds = append(c.kinds, kind)
	}
	c.cells[what][kind][0]++
	if broken {
		c.cells[what][kind][1]++
	}
}

// show prints the table where every point was wanted.
func (c *tally) show(title string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, every := everyPoint()
	if !every {
		return
	}
	if n > 1 {
		title += fmt.Sprintf(" (one in %d of them)", n)
	}
	slices.Sort(c.kinds)
	fmt.Printf("\n%s\n", title)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\t%s\t\n", strings.Join(c.kinds, "\t"))
	sum := map[string]*[2]int{}
	line := func(what string, cells map[string]*[2]int) {
		fmt.Fprintf(w, "%s\t", what)
		for _, k := range c.kinds {
			switch n := cells[k]; {
			case n == nil:
				fmt.Fprint(w, "·\t")
			case n[1] > 0:
				fmt.Fprintf(w, "%d (%d BROKEN)\t", n[0], n[1])
			default:
				fmt.Fprintf(w, "%d\t", n[0])
			}
		}
		fmt.Fprintln(w)
	}
	for _, what := range slices.SortedFunc(maps.Keys(c.cells), cmp.Compare[string]) {
		for k, n := range c.cells[what] {
			if sum[k] == nil {
				sum[k] = &[2]int{}
			}
			sum[k][0] += n[0]
			sum[k][1] += n[1]
		}
		line(what, c.cells[what])
	}
	line("kills", sum)
	w.Flush()
	total, broken := 0, 0
	for _, n := range sum {
		total, broken = total+n[0], broken+n[1]
	}
	fmt.Printf("%d kills, the promise was broken %d times\n", total, broken)
}

// sum is the number of all kills.
func (c *tally) sum() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cells := range c.cells {
		for _, cell := range cells {
			n += cell[0]
		}
	}
	return n
}

// crashLanes is how many stages share the points of a kind, when every one is wanted: most of the time a
// program that starts again waits.
const crashLanes = 4

// crashEverywhere tries a command at the points of each kind of sink, side by side.
func crashEverywhere(t *testing.T, title string, sample int, kinds []crashKind, try func(t *testing.T, k crashKind, at points)) {
	t.Helper()
	table := &tally{}
	t.Run("at", func(t *testing.T) {
		if _, every := everyPoint(); !every {
			kinds = kinds[len(kinds)-1:]
		}
		for _, k := range kinds {
			for _, lane := range everyLane(sample) {
				t.Run(fmt.Sprintf("%s/%d", k.name, lane.first), func(t *testing.T) {
					t.Parallel()
					lane.table = table
					try(t, k, lane)
				})
			}
		}
	})
	table.show(title)
}

// points are those of one lane.
type points struct {
	first, step int
	table       *tally
}

func everyLane(sample int) (out []points) {
	n, every := everyPoint()
	if !every {
		return []points{{first: 1 + rand.IntN(sample), step: sample}}
	}
	for i := range crashLanes {
		out = append(out, points{first: 1 + i + crashLanes*rand.IntN(n), step: crashLanes * n})
	}
	return out
}

// TestCrashAtEveryStep kills the program before each change that it makes to the disk while it
// rotates a compromised token, starts it again, and looks whether all is as if nothing had happened;
// a witness looks all the time.
func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	crashEverywhere(t, "SIGKILL before each change to the disk, while a compromised token is rotated; kills by sink", 61, crashKinds(),
		func(t *testing.T, k crashKind, at points) {
			l := crashpoint.Life{Args: []string{"rotate", "a", "--compromised"}}
			at.each(t, k, func(s *stage, n int) bool {
				l.Kill = n
				return s.crash(k, l, at.table)
			})
		})
}

// fresh is how many kills a stage gets: the record keeps what was made within a day, and a rotation
// is to have as many steps as any other.
const fresh = 8

// each calls f for each point of a lane, until there are no more, on stages where every sink is
// filled and a witness looks at it.
func (at points) each(t *testing.T, k crashKind, f func(s *stage, n int) bool) {
	t.Helper()
	for n, more := at.first, true; more; {
		s := k.stage(t)
		s.execute(exitOK, "once")
		a, b := k.at(s)
		end := s.witness(20*time.Millisecond, s.api.Alive, append(slices.Clone(a), b)...)
		for i := 0; more && i < fresh; i++ {
			more = f(s, n)
			n += at.step
		}
		for p, looked := range end() {
			if looked == 0 {
				t.Errorf("the witness never saw %s", p)
			}
		}
	}
}

// TestCrashOfTheFirstPass kills the program at every step from an empty folder to its first tokens.
func TestCrashOfTheFirstPass(t *testing.T) {
	t.Parallel()
	crashEverywhere(t, "SIGKILL before each change to the disk of the very first pass; kills by sink", 200, crashKinds()[4:],
		func(t *testing.T, k crashKind, at points) {
			for n := at.first; ; n += at.step {
				s := k.stage(t)
				if !s.crash(k, crashpoint.Life{Args: []string{"once"}, Kill: n}, at.table) {
					return
				}
			}
		})
}

// TestPowerCutAtEverySync lets the power fail before each sync, when most is at stake, and when the
// program has just ended.
func TestPowerCutAtEverySync(t *testing.T) {
	t.Parallel()
	for _, power := range []crashpoint.Power{crashpoint.LoseAll, crashpoint.LoseData, crashpoint.LoseNames} {
		t.Run(string(power), func(t *testing.T) {
			t.Parallel()
			title := fmt.Sprintf("the power fails before each sync, while a compromised token is rotated; %s; cuts by sink", power)
			crashEverywhere(t, title, 17, crashKinds(), func(t *testing.T, k crashKind, at points) {
				l := crashpoint.Life{Args: []string{"rotate", "a", "--compromised"}, Only: "sync", Power: power}
				at.each(t, k, func(s *stage, n int) bool {
					l.Kill = n
					return s.crash(k, l, at.table)
				})
			})
		})
	}
}

// TestCrashAtAnyMoment kills the program again and again at random moments of its life, some of them
// while it gets over the last one.
func TestCrashAtAnyMoment(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("ROTATORD_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("ROTATORD_TEST_SEED=%d draws the same commands and the same shares of their lives", seed)
		}
	})
	kinds, lanes, rounds, want := crashKinds(), 12, 80, 500
	n, every := everyPoint()
	rounds, want = rounds/max(n, 1), want/max(n, 1)
	if !every {
		kinds, lanes, rounds, want = kinds[len(kinds)-1:], 1, 15, 5
	}
	table := &tally{}
	t.Run("lane", func(t *testing.T) {
		for lane := range lanes {
			t.Run(strconv.Itoa(lane), func(t *testing.T) {
				t.Parallel()
				kinds[lane%len(kinds)].killed(t, rand.New(rand.NewPCG(seed, uint64(lane))), rounds, table)
			})
		}
	})
	table.show("SIGKILL at random moments; kills that struck, by sink")
	if struck := table.sum(); struck < want && !t.Failed() {
		t.Errorf("%d kills struck in %d rounds, want at least %d", struck, lanes*rounds, want)
	}
}

// killed is one lane of TestCrashAtAnyMoment.
func (k crashKind) killed(t *testing.T, dice *rand.Rand, rounds int, table *tally) {
	const first = 3 // rounds that try to make the first tokens, one after the other
	// The answer to a create trickles in: that is when a kill leaves an orphan.
	slow := sandbox.Fault{Op: sandbox.OpCreate, Kind: sandbox.Slow, Delay: 2 * time.Millisecond}
	// A kill may strike at any moment of a life. How long a life is depends on the machine, and on what
	// else it does just now: it is measured, and measured again.
	lived := func(s *stage, args ...string) time.Duration {
		begun := time.Now()
		s.execute(exitOK, args...)
		return time.Since(begun)
	}
	rehearsal := k.stage(t) // so that ours still begins with nothing
	rehearsal.api.Inject(slow)
	life := lived(rehearsal, "once")

	s := k.stage(t)
	s.api.Inject(slow)
	a, b := k.at(s)
	end := s.witness(5*time.Millisecond, s.api.Alive, append(slices.Clone(a), b)...)
	commands := [][]string{{"once"}, {"rotate", "--all", "--compromised"}, {"rotate", "--all"}, {"rotate", "a", "--compromised"}, {"run"}}
	for round := range rounds {
		if round >= first && round%10 == first {
			life = lived(s, "rotate", "--all", "--compromised")
		}
		args := commands[0]
		if round >= first {
			args = commands[dice.IntN(len(commands))]
		}
		delay := time.Duration(dice.Float64() * float64(life))
		cmd, output := s.process(nil, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		var err error
		select {
		case err = <-exited:
		case <-time.After(delay):
			cmd.Process.Kill() // it may just have ended
			err = <-exited
		}
		code := ended(t, err)
		if code > 0 {
			t.Fatalf("round %d: rotatord %v: exit code %d\n%s", round, args, code, output)
		}
		var wrong []string
		if round >= first && (dice.IntN(3) > 0 || round == rounds-1) { // else the next one begins with what this one left
			wrong = s.settled(a, b)
		}
		if code < 0 {
			table.add("rotatord "+strings.Join(args, " "), k.name, len(wrong) > 0)
		}
		if len(wrong) > 0 {
			t.Fatalf("round %d: %v was killed after %v:\n%s\n%s", round, args, delay, strings.Join(wrong, "\n"), s.output.String()[max(0, s.output.Len()-4000):])
		}
		s.output.Reset()
	}
	for p, n := range end() {
		if n < rounds {
			t.Errorf("the witness saw %s only %d times", p, n)
		}
	}
	s.clean()
}

// gate kills a program before or after one request to the API is carried out.
type gate struct {
	api   http.Handler
	mu    sync.Mutex
	n     int    // the request that it waits for, counted from 1; 0: none
	after bool   // it is carried out, and not answered
	kill  func() // returns when the program is dead
	path  string // of the request that was waited for
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	hit := g.n == 1
	g.n = max(0, g.n-1)
	kill, after := g.kill, g.after
	if hit {
		g.path = r.Method + " " + strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v2/"), "/")[0]
	}
	g.mu.Unlock()
	switch {
	case !hit:
		g.api.ServeHTTP(w, r)
		return
	case after:
		// The client's end of the connection must not stop it.
		g.api.ServeHTTP(httptest.NewRecorder(), r.WithContext(context.WithoutCancel(r.Context())))
	}
	kill()
	panic(http.ErrAbortHandler)
}

// TestCrashAtEveryRequest kills the program when a request has arrived and nothing was done yet, and
// when it is done and not answered.
func TestCrashAtEveryRequest(t *testing.T) {
	t.Parallel()
	crashEverywhere(t, "SIGKILL at each request to the API, before and after it is carried out; kills by sink", 5, crashKinds(),
		func(t *testing.T, k crashKind, at points) {
			for n := at.first; n > 0; n += at.step {
				for _, after := range []bool{false, true} {
					s := k.stage(t)
					g := &gate{api: s.api}
					server := httptest.NewServer(g)
					t.Cleanup(server.Close)
					server.Config.ErrorLog = log.New(io.Discard, "", 0)
					s.url = server.URL
					s.execute(exitOK, "once")
					a, b := k.at(s)
					end := s.witness(20*time.Millisecond, s.api.Alive, append(slices.Clone(a), b)...)
					cmd, output := s.process(nil, "rotate", "a", "--compromised")
					started, dead := make(chan struct{}), make(chan struct{})
					g.mu.Lock()
					g.n, g.after, g.kill = n, after, func() { <-started; cmd.Process.Kill(); <-dead }
					g.mu.Unlock()
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					close(started)
					code := ended(t, cmd.Wait())
					close(dead)
					if code == exitOK { // there are not so many requests
						if n < 5 {
							t.Errorf("a rotation has %d requests", n-1)
						}
						return
					}
					if code > 0 {
						t.Fatalf("rotate ends with %d:\n%s", code, output)
					}
					g.mu.Lock()
					what := g.path + ", before it"
					if after {
						what = g.path + ", after it"
					}
					g.mu.Unlock()
					_, wrong := s.standing(append(slices.Clone(a), b))
					wrong = append(wrong, s.settled(a, b)...)
					end()
					at.table.add(what, k.name, len(wrong) > 0)
					if len(wrong) > 0 {
						t.Errorf("killed at request %d (%s):\n%s\n%s", n, what, strings.Join(wrong, "\n"), s.output.String()[max(0, s.output.Len()-4000):])
					}
				}
			}
		})
}

// crash runs a life, starts the program again after it, and looks at everything; false where the life
// was not cut short.
func (s *stage) crash(k crashKind, l crashpoint.Life, table *tally) bool {
	t := s.t
	t.Helper()
	a, b := k.at(s)
	all := append(slices.Clone(a), b)
	before, _ := s.standing(all)
	whole := s.life(l.Args...)
	whole.Kill, whole.Only, whole.Power = l.Kill, l.Only, l.Power
	made := s.api.Made()
	end := s.lived(whole)
	what := "it has ended"
	switch {
	case end.Killed:
		what = k.what(s, last(end.Steps))
	case len(end.Steps) < 60:
		t.Errorf("it has %d steps: they are not all seen", len(end.Steps))
	}
	_, wrong := s.standing(all)
	if before == 0 { // the first pass: nobody has anything yet
		wrong = slices.DeleteFunc(wrong, func(w string) bool { return strings.HasSuffix(w, "holds nothing") })
	}
	wrong = append(wrong, s.settled(a, b)...)
	if made = s.api.Made() - made; made > 2 && before > 0 || made > 4 {
		wrong = append(wrong, fmt.Sprintf("%d tokens were made", made))
	}
	if end.Killed || l.Power != crashpoint.Stays {
		table.add(what, k.name, len(wrong) > 0)
	}
	if len(wrong) > 0 {
		t.Errorf("killed before step %d (%s); %s:\n%s\n%s", l.Kill, what, l.Power, strings.Join(wrong, "\n"), s.output.String()[max(0, s.output.Len()-4000):])
		return false
	}
	s.output.Reset()
	return end.Killed
}
