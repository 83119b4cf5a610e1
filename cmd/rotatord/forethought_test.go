package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

// Whatever happened before, and however the configuration was edited: what plan says is what the next
// pass then does, no more and no less. ROTATORD_TEST_PLANS is how many histories are tried.
func TestPlanIsWhatThenHappens(t *testing.T) {
	histories := 3
	if n, err := strconv.Atoi(os.Getenv("ROTATORD_TEST_PLANS")); err == nil {
		histories = n
	}
	for seed := range histories {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			h := &operated{
				stage: newStage(t, ""), rnd: rand.New(rand.NewPCG(uint64(seed), 7)), //nolint:gosec // a number of a test
				tokens: []operatedToken{
					{name: "a", scopes: "leads:read", schedule: "@daily", overlap: "2d", drift: "hold", remove: "expire", sinks: []string{"a1", "a2"}},
					{name: "b", scopes: "leads:read", schedule: "@weekly", overlap: "12h", drift: "restore", remove: "revoke", sinks: []string{"b1"}},
				},
				away:   []operatedToken{{name: "c", scopes: "chatbots:read", schedule: "@every 7h", overlap: "1h", drift: "hold", remove: "revoke", sinks: []string{"c1", "c2", "c3"}}},
				spare:  []string{"x1", "x2"},
				values: []string{"sgpt_0123456789abcdef0123456789abcdef", "somebody's own", ""},
			}
			h.stage.now = func() time.Time { return time.Date(2027, 1, 4, 5, 0, 0, 0, time.UTC).Add(h.waited) }
			for range 25 {
				h.did = nil
				h.waited += time.Duration(h.rnd.IntN(5)) * time.Second // for what was to be tried again
				for range 1 + h.rnd.IntN(2) {
					h.did = append(h.did, h.something())
				}
				h.configure()
				h.compare()
				for i := range h.tokens {
					h.tokens[i].was = ""
				}
			}
		})
	}
}

// operated is a host on which everything happens that people, programs and SiteGPT do.
type operated struct {
	*stage
	rnd    *rand.Rand
	waited time.Duration
	tokens []operatedToken
	away   []operatedToken // were removed
	spare  []string        // files that no token has
	values []string        // that sinks held once
	did    []string        // since the last comparison
}

type operatedToken struct {
	name, was, scopes, schedule, overlap, drift, remove string
	sinks                                               []string // files
}

func (h *operated) configure() {
	var b strings.Builder
	b.WriteString("version: 1\ninstance: acme\napi: {requests_per_minute: 6000}\ndaemon: {settle: 1s}\ndefaults: {jitter: 0}\ntokens:\n")
	for _, d := range h.tokens {
		fmt.Fprintf(&b, "  - {name: %s, scopes: [%s], schedule: %q, overlap: %s, on_drift: %s, on_remove: %s, ", d.name, d.scopes, d.schedule, d.overlap, d.drift, d.remove)
		if d.was != "" {
			fmt.Fprintf(&b, "was: %s, ", d.was)
		}
		b.WriteString("sinks: [")
		for _, file := range d.sinks {
			fmt.Fprintf(&b, "{file: {path: %s}}, ", file)
		}
		b.WriteString("]}\n")
	}
	h.write("rotation.yaml", b.String())
	for _, text := range h.files() {
		if text = strings.TrimSpace(text); !slices.Contains(h.values, text) {
			h.values = append(h.values, text)
		}
	}
}

// files are what all sinks hold.
func (h *operated) files() map[string]string {
	out := map[string]string{}
	for _, name := range []string{"a1", "a2", "b1", "c1", "c2", "c3", "x1", "x2"} {
		if text, err := os.ReadFile(filepath.Join(h.dir, name)); err == nil {
			out[name] = string(text)
		}
	}
	return out
}

func (h *operated) pick(of ...string) string { return of[h.rnd.IntN(len(of))] }

// something happens, and is told.
func (h *operated) something() string {
	t := &h.tokens[h.rnd.IntN(len(h.tokens))]
	sink := h.pick(t.sinks...)
	path := filepath.Join(h.dir, sink)
	var ours []sandbox.Token
	for _, l := range h.api.Live() {
		if strings.HasPrefix(l.Name, "rotatord/") {
			ours = append(ours, l)
		}
	}
	put := func(f func() error) {
		if err := os.RemoveAll(path); err != nil {
			h.t.Fatal(err)
		}
		if err := f(); err != nil {
			h.t.Fatal(err)
		}
	}
	what := h.pick("wait", "wait", "wait", "empty", "overwrite", "block", "scopes", "schedule", "overlap", "on_drift", "remove", "declare", "rename", "add sink", "drop sink", "revoke", "plant", "fault", "fault", "pause")
	told := what + " of " + t.name
	switch what {
	case "wait":
		d := time.Duration(1+h.rnd.IntN(3)) * []time.Duration{time.Minute, time.Hour, 9 * time.Hour, 24 * time.Hour}[h.rnd.IntN(4)]
		h.waited += d
		return "wait " + d.String()
	case "empty":
		put(func() error { return nil })
		return "empty " + sink
	case "overwrite":
		put(func() error { return os.WriteFile(path, []byte(h.pick(h.values...)+"\n"), 0o600) })
		return "overwrite " + sink
	case "block":
		put(func() error { return os.Mkdir(path, 0o700) })
		return "a folder at " + sink
	case "scopes":
		t.scopes = h.pick("leads:read", "chatbots:read", "leads:read, chatbots:read")
	case "schedule":
		t.schedule = h.pick("@daily", "@weekly", "@every 7h", "0 3 1 * *", "0 */6 * * *")
	case "overlap":
		t.overlap = h.pick("2d", "12h", "1h")
	case "on_drift":
		t.drift = h.pick("hold", "restore")
	case "remove":
		if i := h.rnd.IntN(len(h.tokens)); len(h.tokens) > 1 {
			told = "remove " + h.tokens[i].name
			h.away = append(h.away, h.tokens[i])
			h.tokens = slices.Delete(h.tokens, i, i+1)
		}
	case "declare":
		if len(h.away) > 0 {
			told = "declare " + h.away[0].name
			h.tokens, h.away = append(h.tokens, h.away[0]), h.away[1:]
		}
	case "rename":
		if t.was == "" {
			t.was, t.name = t.name, t.name+"x"
		}
	case "add sink":
		if len(h.spare) > 0 {
			t.sinks, h.spare = append(slices.Clip(t.sinks), h.spare[0]), h.spare[1:]
		}
	case "drop sink":
		if len(t.sinks) > 1 {
			h.spare, t.sinks = append(h.spare, t.sinks[0]), t.sinks[1:]
		}
	case "revoke":
		if len(ours) > 0 {
			l := ours[h.rnd.IntN(len(ours))]
			h.api.Revoke(l.ID)
			return "somebody revokes " + l.Name
		}
	case "plant":
		if len(ours) > 0 {
			return "an orphan, " + h.plant(ours[h.rnd.IntN(len(ours))].Name)
		}
	case "fault":
		h.configure()
		kinds := []sandbox.Kind{sandbox.ServerError, sandbox.ServerErrorAfter, sandbox.DropAfter, sandbox.Unavailable} // who is limited waits by the clock, which stands
		ops := []sandbox.Op{sandbox.OpCreate, sandbox.OpCreate, sandbox.OpRevoke, sandbox.OpMe, sandbox.OpList}
		f := sandbox.Fault{Op: ops[h.rnd.IntN(len(ops))], Kind: kinds[h.rnd.IntN(len(kinds))], Times: 1 + h.rnd.IntN(3)}
		if h.rnd.IntN(6) == 0 {
			f.Op, f.Kind = sandbox.OpCreate, sandbox.Narrow
		}
		h.api.Inject(f)
		h.pass()
		h.api.Clear()
		return fmt.Sprintf("a pass with a fault of %s: %s", f.Op, f.Kind)
	case "pause":
		h.try("pause", t.name, "--for", h.pick("1h", "1d", "3d")) // it may have no record yet
	}
	return told
}

// pass is one of once, which waits for nothing, and to which nothing is due early.
func (h *operated) pass() (code int, told string) {
	code, told = h.try("once", "--patience", "0", "--next-pass", "1s")
	return code, told + h.stderr
}

// compare plans, takes a pass, and holds the one against the other.
func (h *operated) compare() {
	seen := 0
	if code, _ := h.try("history"); code == exitOK {
		seen = len(h.journal())
	}
	before, asked := h.files(), len(h.api.Requests())
	code, text := h.try("plan", "--exit-code")
	var plan struct {
		Tokens []planned    `json:"tokens"`
		List   *plannedList `json:"list"`
	}
	if err := json.Unmarshal([]byte(h.run(exitOK, "plan", "--json")), &plan); err != nil {
		h.t.Fatal(err)
	}
	if planned := h.changed(asked); planned > 0 || !maps.Equal(before, h.files()) {
		h.t.Fatalf("after %q plan changed something", h.did)
	}
	asked = len(h.api.Requests())
	onceCode, once := h.pass()
	happened := h.journal()[seen:]
	bad := func(format string, args ...any) {
		h.t.Helper()
		var told strings.Builder
		for _, ev := range happened {
			fmt.Fprintln(&told, ev.Entry, ev.Generation, ev.Kind, ev.Sink, ev.Detail, ev.Error)
		}
		h.t.Fatalf("%s\nafter: %s\nplan, exit code %d:\n%s\nonce, exit code %d:\n%s\nand what happened:\n%s", fmt.Sprintf(format, args...), strings.Join(h.did, "\n  "), code, text, onceCode, once, &told)
	}
	if code == exitOK && (h.changed(asked) > 0 || !maps.Equal(before, h.files())) {
		bad("nothing was to change")
	}
	var status statusJSON
	if err := json.Unmarshal([]byte(h.run(exitOK, "status", "--json")), &status); err != nil {
		h.t.Fatal(err)
	}
	for i := range plan.Tokens {
		p := &plan.Tokens[i]
		did := func(number int, kinds ...rotator.EventKind) bool {
			return slices.ContainsFunc(happened, func(ev rotator.Event) bool {
				return ev.Entry == p.Token && ev.Detail != "an orphan" && (number == 0 || ev.Generation == number) && slices.Contains(kinds, ev.Kind)
			})
		}
		steps := map[rotator.StepKind]bool{}
		for _, s := range p.Steps {
			steps[s.Kind] = true
			switch s.Kind {
			case rotator.StepCreate:
				if !did(s.Number, rotator.EventIntended) {
					bad("%s: generation %d was to be created", p.Token, s.Number)
				}
			case rotator.StepRevoke:
				if !did(s.Number, rotator.EventRevoked) {
					bad("%s: generation %d was to be revoked", p.Token, s.Number)
				}
			case rotator.StepPush:
				if !did(s.Number, rotator.EventPushed, rotator.EventFailed, rotator.EventHeld, rotator.EventLost) {
					bad("%s: generation %d was to be pushed", p.Token, s.Number)
				}
			}
		}
		// What the list or an answer decides, plan cannot know: it says that it is asked.
		open := steps[rotator.StepSearch] || steps[rotator.StepProbe] || steps[rotator.StepVerify]
		if plan.List != nil {
			open = open || slices.ContainsFunc(plan.List.Missing, func(m missing) bool { return m.Token == p.Token })
		}
		if !open {
			if did(0, rotator.EventIntended) != steps[rotator.StepCreate] {
				bad("%s: a create was planned: %v", p.Token, steps[rotator.StepCreate])
			}
			if did(0, rotator.EventPushed) && len(p.Steps) == 0 && len(p.Sinks) == 0 {
				bad("%s: no push was planned", p.Token)
			}
			for _, ev := range happened {
				if ev.Entry == p.Token && ev.Kind == rotator.EventRevoked && ev.Detail != "an orphan" && !slices.ContainsFunc(p.Steps, func(s rotator.Step) bool {
					return s.Number == ev.Generation && (s.Kind == rotator.StepRevoke || s.Kind == rotator.StepForce)
				}) {
					bad("%s: no revocation of generation %d was planned", p.Token, ev.Generation)
				}
			}
			if did(0, rotator.EventHeld, rotator.EventDrift, rotator.EventFailed, rotator.EventLost, rotator.EventReplanned) && len(p.Steps)+len(p.Sinks)+len(p.Problems) == 0 {
				bad("%s: nothing was said", p.Token)
			}
		}
		for _, s := range p.Sinks {
			if s.Changes && !did(0, rotator.EventDrift, rotator.EventReleased, rotator.EventPushed, rotator.EventFailed) {
				bad("%s: %s was to be written", p.Token, s.Name)
			}
		}
		for _, s := range status.Tokens {
			if s.Name == p.Token && !open && p.Stopped == nil && onceCode == exitOK && !p.Next.IsZero() && !s.Planned.IsZero() && s.Planned.Sub(p.Next).Abs() > time.Minute {
				bad("%s: it was to rotate at %s next, and is to at %s", p.Token, p.Next, s.Planned)
			}
		}
	}
	if plan.List != nil {
		for _, o := range plan.List.Orphans {
			if slices.ContainsFunc(h.api.Live(), func(l sandbox.Token) bool { return l.ID == o.ID }) {
				bad("the orphan %s was to be revoked", o.ID)
			}
		}
	}
}

// changed counts the requests that change something, from a given one on.
func (h *operated) changed(from int) (n int) {
	for _, r := range h.api.Requests()[from:] {
		if r.Method != http.MethodGet {
			n++
		}
	}
	return n
}
