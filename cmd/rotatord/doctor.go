package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/management"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/rotator/store"
	"github.com/rotatord/rotatord/sinks"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Try everything that rotatord needs, and change nothing",
		Long: `Try everything that rotatord needs: the configuration, the state folder, SiteGPT and
rotatord's own token there, this machine's clock, each Vault with the login, each sink,
each consumer, whoever is told of problems, and the monitor's token. It changes nothing,
needs no daemon and disturbs none: no token is made, no sink is written, nobody is told
anything, and a wrapped secret id is not used up. A login at Vault ends with it.

Run it before the first start, after an edit, and at night. It exits with 0 when nothing
failed, with 1 when something did, and with 2 when the configuration is refused.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return a.doctor(c.Context(), asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// health is how one thing that was tried stands.
type health string

const (
	works   health = "ok"
	doubts  health = "warning" // it works, and should not stay so
	fails   health = "failed"
	skipped health = "skipped" // not tried, because of something above
)

// finding is one line of doctor.
type finding struct {
	Area    string `json:"area"` // configuration, state, api, clock, management, consumer, notify, monitor, vault, sink
	Subject string `json:"subject"`
	Verdict health `json:"verdict"`
	Says    string `json:"says"` // what is so; more lines are a policy to paste and the like
	Do      string `json:"do,omitempty"`
}

// patient is what doctor looks at.
type patient struct {
	a        *app
	config   *config.Config
	findings []finding
}

func (p *patient) say(area, subject string, v health, says, do string) {
	p.findings = append(p.findings, finding{Area: area, Subject: subject, Verdict: v, Says: says, Do: do})
}

func (a *app) doctor(ctx context.Context, asJSON bool) error {
	a.allowEmpty = true // that is for run to refuse
	p := &patient{a: a}
	if err := p.configuration(); err != nil {
		return err
	}
	if p.config != nil {
		p.rest(ctx)
	}
	failed := 0
	for _, f := range p.findings {
		if f.Verdict == fails {
			failed++
		}
	}
	if asJSON {
		if err := printJSON(a.stdout, struct {
			Format   int       `json:"format"`
			OK       bool      `json:"ok"`
			Findings []finding `json:"findings"`
		}{1, failed == 0, p.findings}); err != nil {
			return err
		}
	} else {
		p.print(a.stdout, failed)
	}
	switch {
	case p.config == nil:
		return &codeError{code: exitUsage}
	case failed > 0:
		return &codeError{code: exitFailed}
	}
	return nil
}

// configuration reads the file, and tells what is wrong and doubtful in it.
func (p *patient) configuration() error {
	path := p.a.configPath()
	c, problems, err := config.Load(path, config.Options{Now: p.a.now(), AllowEmpty: true})
	if err != nil {
		return unreadable(path, err)
	}
	for _, q := range problems {
		v := doubts
		if q.Severity == config.Error {
			v = fails
		}
		first, _, _ := strings.Cut(strings.TrimPrefix(q.String(), "warning: "), "\n")
		p.say("configuration", path, v, strings.TrimPrefix(first, path+":"), "")
	}
	switch {
	case c == nil:
		p.say("configuration", path, fails, "is refused: "+count(problems.Errors(), "error"), "correct it; rotatord validate shows each mistake in its line")
	case len(c.Tokens) == 0:
		p.say("configuration", path, doubts, "declares no token", "")
	default:
		n := 0
		for i := range c.Tokens {
			n += len(c.Tokens[i].Sinks)
		}
		p.say("configuration", path, works, count(len(c.Tokens), "token")+" in "+count(n, "sink"), "")
	}
	p.config = c
	return nil
}

// rest is what needs a configuration.
func (p *patient) rest(ctx context.Context) {
	opener := sinks.NewOpener(p.config.Connections(), sinks.World{
		Logger: slog.New(slog.DiscardHandler), Getenv: p.a.getenv, Now: p.a.now, Peek: true,
	})
	defer opener.Close()
	l := &look{config: p.config}
	entries, opening := p.config.Entries(opener.Open, management.New(management.Config{}).Outlet())
	l.entries = entries
	p.state(ctx, l)
	p.api(ctx, l)
	p.consumers(ctx, l)
	p.notifiers(ctx)
	p.monitor()
	if opening != nil {
		for line := range strings.Lines(opening.Error()) {
			p.say("sink", "", fails, strings.TrimSpace(line), "")
		}
		return
	}
	p.sinks(ctx, l, p.shared(ctx, opener))
}

// firstToMake is the highest folder on the way to dir that is not there; dir itself, where only that
// may be missing.
func firstToMake(dir string) string {
	for {
		above := filepath.Dir(dir)
		if _, err := os.Stat(above); !errors.Is(err, fs.ErrNotExist) {
			return dir
		}
		dir = above
	}
}

// state looks at the state folder, and reads it.
func (p *patient) state(ctx context.Context, l *look) {
	dir, err := p.a.stateDir()
	if err != nil {
		p.say("state", "", fails, err.Error(), "")
		return
	}
	l.dir = dir
	x, err := store.Examine(firstToMake(dir))
	room := bytesText(x.Free) + " free"
	const little = 64 << 20
	switch {
	case err != nil:
		p.say("state", dir, fails, err.Error(), "run doctor as the user of the daemon: then it tells what the daemon meets")
	case x.Free < little:
		p.say("state", dir, doubts, "writable, but only "+room, "make room: a state that cannot be written stops every rotation")
	case x.Missing:
		p.say("state", dir, works, "is not there yet, and can be made; "+room, "")
	default:
		p.say("state", dir, works, "writable, "+room, "")
	}
	if read, err := p.a.look(ctx, asWritten, nil); err != nil {
		p.say("state", dir, fails, err.Error(), "")
		l.fresh = true
	} else {
		entries := l.entries
		*l = *read
		l.entries = entries
	}
	switch {
	case l.holder.PID == 0 && !l.fresh:
		p.say("daemon", dir, doubts, "no rotatord works on this state now", "that is right between two passes of rotatord once; else start it")
	case l.holder.PID != 0:
		p.say("daemon", dir, works, fmt.Sprintf("rotatord %s works on it since %s (pid %d)", l.holder.Command, local(l.holder.Since), l.holder.PID), "")
	}
	rep := rotator.Describe(l.entries, l.records, p.a.now())
	if n := len(rep.Failing()); n > 0 {
		p.say("daemon", dir, doubts, count(n, "problem")+" of tokens in the state", "rotatord status tells which")
	}
}

// api asks SiteGPT with rotatord's own token.
func (p *patient) api(ctx context.Context, l *look) {
	client, api, err := p.a.asker(ctx, l)
	if err != nil {
		p.say("management", "", fails, err.Error(), "make a token with tokens:write and tokens:read at SiteGPT, and give it to rotatord")
		return
	}
	defer client.Close()
	listed, err := api.List(ctx)
	origin := client.Origin()
	refused := errors.Is(err, rotator.ErrUnauthorized)
	forbidden := errors.Is(err, rotator.ErrForbidden)
	limited := (*rotator.LimitedError)(nil)
	switch {
	case refused, forbidden, errors.As(err, &limited):
		p.say("api", origin, works, "answers", "")
	case err != nil:
		p.say("api", origin, fails, err.Error(), "look at this machine's network, proxy (HTTPS_PROXY) and name service, and at api.base_url")
		p.say("clock", "", skipped, "SiteGPT does not answer", "")
		p.say("management", "", skipped, "SiteGPT does not answer", "")
		return
	default:
		p.say("api", origin, works, "answers, and lists "+count(len(listed), "token"), "")
	}
	p.clock(client)
	p.management(ctx, l, client, api, refused, forbidden)
}

func (p *patient) clock(client *sitegpt.Client) {
	d, told := client.Offset()
	side := map[bool]string{true: "behind", false: "ahead of"}[d > 0]
	switch _, far := client.Skew(); {
	case !told:
		p.say("clock", "this machine", doubts, "SiteGPT's answers do not tell the time, so nobody can tell whether it is right", "see that this machine's clock is synchronised")
	case far:
		p.say("clock", "this machine", doubts, fmt.Sprintf("is %s %s SiteGPT's", field.FormatDuration(d.Abs()), side), "synchronise it (NTP); rotatord goes by SiteGPT's meanwhile, and revokes only what both clocks say is over")
	default:
		p.say("clock", "this machine", works, "agrees with SiteGPT's to within "+field.FormatDuration(max(d.Abs(), time.Second)), "")
	}
}

// management looks at rotatord's own token.
func (p *patient) management(ctx context.Context, l *look, client *sitegpt.Client, api rotator.API, refused, forbidden bool) {
	const give = "give rotatord another one (SITEGPT_API_TOKEN, its file, or api.token), with tokens:write and tokens:read"
	if refused {
		p.say("management", "rotatord's own token", fails, "SiteGPT refuses it: it has expired, or was revoked", give)
		return
	}
	var who sitegpt.Account
	if own, ok := api.(*management.API); ok {
		bearer, _ := own.Keeper.Bearer()
		var err error
		if who, err = client.Me(ctx, bearer); err != nil && !errors.Is(err, rotator.ErrForbidden) {
			p.say("management", "rotatord's own token", fails, err.Error(), give)
			return
		}
	}
	says := "is accepted"
	if name := cmp.Or(who.Email, who.Name, who.ID); name != "" {
		says += ", and belongs to " + name
	}
	if !who.Expires.IsZero() {
		says += ", expires " + in(who.Expires, p.a.now())
	}
	if who.Scopes != nil {
		says += ", scopes " + scopesText(who.Scopes)
	} else {
		says += "; SiteGPT does not tell its scopes"
	}
	switch {
	case who.Scopes != nil && !slices.Contains(who.Scopes, "tokens:write"):
		p.say("management", "rotatord's own token", fails, says+": it lacks tokens:write, so no token can be made or revoked", give)
	case forbidden:
		p.say("management", "rotatord's own token", doubts, says+": it may not list tokens (tokens:read), so lost answers and orphans cannot be found", give)
	default:
		p.say("management", "rotatord's own token", works, says, "")
	}
	for _, q := range ownExpiry(p.config, l.records, l.ownExpires, p.a.now()) {
		v := doubts
		if q.Failing {
			v = fails
		}
		p.say("management", "rotatord's own token", v, q.What, give)
	}
}

// monitor reads what has to be shown by who wants to look at the daemon.
func (p *patient) monitor() {
	m := p.config.Monitor
	if m.Token.IsZero() {
		return
	}
	if _, err := monitorToken(m, p.a.getenv); err != nil {
		p.say("monitor", m.Listen, fails, "monitor.token: "+err.Error(), "until it can be read, the page and the metrics are shown to nobody")
		return
	}
	p.say("monitor", m.Listen, works, "monitor.token can be read", "")
}

// consumers looks whether each could be told, and tells none of them.
func (p *patient) consumers(ctx context.Context, l *look) {
	w := p.a.consumerWorld(l.instance)
	names := slices.Sorted(maps.Keys(p.config.Consumers))
	all := make([]finding, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		spec := p.config.Consumers[name]
		f := &all[i]
		f.Area, f.Subject = "consumer", spec.Title(name)
		c, err := spec.Open(name, w)
		if err != nil { // a flag without its folder
			f.Verdict, f.Says, f.Do = doubts, err.Error(), "systemd sets it for the service alone: where that is so, all is well"
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, min(c.Timeout(), 15*time.Second))
			defer cancel()
			says, err := c.Check(ctx)
			if err != nil {
				f.Verdict, f.Says = fails, err.Error()
				return
			}
			f.Verdict, f.Says = works, says
		})
	}
	wg.Wait()
	p.findings = append(p.findings, all...)
}

// shared looks at what many sinks need, and returns what of it is out.
func (p *patient) shared(ctx context.Context, opener *sinks.Opener) (out map[string]bool) {
	out = map[string]bool{}
	for _, f := range opener.Examine(ctx) {
		switch {
		case f.Err != nil:
			out[f.What] = true
			p.say("vault", f.What, fails, f.Err.Error(), "")
		case f.Doubts != "":
			p.say("vault", f.What, doubts, f.Says, f.Doubts)
		default:
			p.say("vault", f.What, works, f.Says, "")
		}
		out[f.What] = out[f.What] || f.Peeked
	}
	return out
}

// sinks asks each sink whether a push would work, a few of them at once.
func (p *patient) sinks(ctx context.Context, l *look, out map[string]bool) {
	records := map[string]*rotator.Record{}
	for i := range l.records {
		records[l.records[i].Name] = &l.records[i]
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	type looked struct {
		e     *rotator.Entry
		r     *rotator.Record
		found []glimpse
	}
	var all []looked
	for i := range l.entries {
		e := &l.entries[i]
		if e.Name == rotator.OwnName {
			continue // its sink is the state folder
		}
		r := records[e.Name]
		if r == nil {
			r = &rotator.Record{Name: e.Name}
		}
		x := looked{e, r, make([]glimpse, len(e.Outlets))}
		all = append(all, x)
		for j := range e.Outlets {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				x.found[j] = glance(ctx, &e.Outlets[j])
			})
		}
	}
	wg.Wait()
	foresight, now := rotator.NewForesight(l.records, l.key), p.a.now()
	foresight.Running = l.holder.Kind == store.Daemon
	for _, x := range all {
		readings := make([]rotator.Reading, len(x.found))
		for j := range x.found {
			readings[j] = x.found[j].Reading
		}
		next := foresight.Look(x.e, x.r, readings, now)
		for j := range x.found {
			o := &x.e.Outlets[j]
			f := finding{Area: "sink", Subject: x.e.Name + ": " + o.Name}
			says, err := l.judge(x.r, &next, o, x.found[j], now)
			f.sink(o, says, err, out)
			p.findings = append(p.findings, f)
		}
	}
}

// sink is the preflight of one sink.
func (f *finding) sink(o *rotator.Outlet, says *plannedSink, err error, out map[string]bool) {
	shared := (*rotator.OutageError)(nil)
	switch {
	case errors.As(err, &shared) && out[shared.What]:
		f.Verdict, f.Says = skipped, "see "+shared.What
	case says == nil:
		f.Verdict, f.Says = works, "a push would work"
		if advice := sinks.Advice(o.Sink); advice != "" {
			f.Verdict, f.Says, f.Do = doubts, "a push would work", advice
		}
	case says.Refuses:
		f.Verdict, f.Says = fails, says.Says
		if !o.Required {
			f.Verdict = doubts
			f.Says += " (a rotation does not need this sink)"
		}
	default:
		f.Verdict, f.Says = doubts, says.Says
	}
}

// scopesText names the scopes that rotatord needs, and counts the others where they are many.
func scopesText(scopes []string) string {
	var own []string
	for _, s := range scopes {
		if strings.HasPrefix(s, "tokens:") {
			own = append(own, s)
		}
	}
	if rest := len(scopes) - len(own); rest > 3 {
		return strings.Join(own, " ") + " and " + strconv.Itoa(rest) + " more"
	}
	return strings.Join(scopes, " ")
}

func bytesText(n uint64) string {
	const unit = 1024
	names := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for ; v >= unit && i < len(names)-1; i++ {
		v /= unit
	}
	return fmt.Sprintf("%.4g %s", v, names[i])
}

// print writes a line for each finding; what it says beyond its first line, and what to do, stands below.
func (p *patient) print(out io.Writer, failed int) {
	marks := map[health]string{works: "ok", doubts: "warn", fails: "FAIL", skipped: "-"}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	below := make([][]string, 0, len(p.findings))
	warned := 0
	for _, f := range p.findings {
		if f.Verdict == doubts {
			warned++
		}
		first, more, _ := strings.Cut(f.Says, "\n")
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", marks[f.Verdict], f.Area, f.Subject, first)
		var lines []string
		for line := range strings.Lines(more) {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
		if f.Do != "" {
			lines = append(lines, "→ "+f.Do)
		}
		below = append(below, lines)
	}
	w.Flush() //nolint:errcheck // there is nowhere else to complain
	i := 0
	for line := range strings.Lines(table.String()) {
		io.WriteString(out, strings.TrimRight(line, " \n")+"\n")
		for _, text := range below[i] {
			io.WriteString(out, "        "+text+"\n")
		}
		i++
	}
	switch {
	case failed > 0:
		fmt.Fprintf(out, "\n%s failed, %s. Nothing was changed.\n", count(failed, "check"), count(warned, "warning"))
	case warned > 0:
		fmt.Fprintf(out, "\nNothing failed, %s. Nothing was changed.\n", count(warned, "warning"))
	default:
		fmt.Fprintln(out, "\nAll is well. Nothing was changed.")
	}
}
