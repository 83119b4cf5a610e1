package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/schedule"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/sinks/vaultkv"
)

// checker looks at what the files mean, all of them together, and fills in the Config.
type checker struct {
	o     Options
	files []*file
	docs  []document        // of each file
	views map[*file][]*file // of each file: its sets, row by row
	c     *Config

	owner    map[string]*file // top-level block: the file that has it
	defaults common
	require  bool        // require_chatbot_ids
	tokens   []*tokenRef // in the order of Config.Tokens
	byName   map[string]*tokenRef
	own      *tokenRef       // rotatord's own token; nil where the file says nothing of it
	inherits map[string]bool // problems of a default that were told for a token already

	schedules map[[2]string]parsed
	proofs    map[string]proof
}

// tokenRef is a token and the place where it stands.
type tokenRef struct {
	f        *file
	path     []any // tokens and the index, or management
	block    *tokenBlock
	defaults *file // where it gets from what it does not say itself; nil: nowhere
	token    Token
	unproven bool // the proof of its timing failed
}

// at is a path below the token's own.
func (r *tokenRef) at(path ...any) []any { return append(slices.Clip(r.path), path...) }

// inherits reports whether the token gets a field from the defaults, if it does not say it itself.
func (r *tokenRef) inherits(key string) bool {
	return r.defaults != nil && r.defaults.has("defaults", key)
}

type parsed struct {
	schedule *schedule.Schedule
	err      error
}

type proof struct {
	facts    rotator.Facts
	problems []rotator.TimingProblem
}

var (
	nameShape = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)
	hostShape = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)
	// What is shown on one line has no line breaks, and nothing that a terminal takes for an order. A
	// description may be longer than a line, and is joined.
	lineShape     = regexp.MustCompile(`^[^\x00-\x1f\x7f-\x9f]*$`)
	proseShape    = regexp.MustCompile(`^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$`)
	instanceShape = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
)

const (
	notOneLine = "must be one line, without control characters"
	notProse   = "must hold no control characters but line breaks"
)

// turns reports whether a text breaks lines in Unicode's way, or turns the direction of what follows.
func turns(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) })
}

func (k *checker) run() {
	k.owner = map[string]*file{}
	k.byName = map[string]*tokenRef{}
	k.inherits = map[string]bool{}
	k.schedules = map[[2]string]parsed{}
	k.proofs = map[string]proof{}
	k.views = map[*file][]*file{}
	defer k.gather()

	readable := k.files[:0:0]
	for _, f := range k.files {
		k.c.Files = append(k.c.Files, f.name)
		if f.root != nil {
			readable = append(readable, f)
		}
	}
	whole := len(readable) == len(k.files)
	k.files = readable
	k.docs = make([]document, len(k.files))
	for i, f := range k.files {
		f.decode(&k.docs[i])
		if f.root == nil {
			return
		}
	}
	if len(k.files) == 0 {
		return
	}
	k.blocks()
	k.version(whole)
	for i, f := range k.files {
		k.instance(f, &k.docs[i])
		k.api(f, &k.docs[i])
		k.daemon(f, &k.docs[i])
		k.monitor(f, &k.docs[i])
		k.vaults(f, &k.docs[i])
		k.consumers(f, &k.docs[i])
		k.notify(f, &k.docs[i])
	}
	for i, f := range k.files {
		if k.views[f] = f.expand(k.docs[i].Sets); f.root == nil {
			return
		}
	}
	k.readDefaults()
	k.list(whole)
	for _, r := range k.tokens {
		k.token(r)
	}
	k.was()
	k.places()
	k.idle()
	for i, f := range k.files {
		k.management(f, &k.docs[i])
	}
	k.load()
	for _, r := range k.tokens {
		k.c.Tokens = append(k.c.Tokens, r.token)
	}
	if k.own != nil && k.own.token.Schedule != "" {
		k.c.Management.Token = &k.own.token
	}
}

// say reports what checks have found at paths of one file.
func say(f *file, check func(p field.Problems)) {
	p := field.New()
	check(p)
	for _, problem := range p.List() {
		f.report(problem)
	}
}

// blocks finds the one file that holds each block.
func (k *checker) blocks() {
	for _, block := range []string{"instance", "api", "management", "daemon", "monitor", "vault", "vaults", "consumers", "notify", "defaults"} {
		for _, f := range k.files {
			if !f.has(block) {
				continue
			}
			if first := k.owner[block]; first != nil {
				at := first.locate([]any{block}).key
				say(f, func(p field.Problems) {
					p.At(block).Errorf("is given in %s:%d already: it stands in one file only", first.name, at.Line)
				})
				continue
			}
			k.owner[block] = f
		}
	}
}

func (k *checker) version(whole bool) {
	given := false
	for i, f := range k.files {
		if !f.has("version") {
			continue
		}
		given = true
		if v := k.docs[i].Version; v != 1 {
			say(f, func(p field.Problems) {
				p.At("version").Errorf("is %d, and this rotatord knows version 1 only: write \"version: 1\"", v)
			})
		}
	}
	if !given && whole {
		say(k.files[0], func(p field.Problems) {
			p.At("version").Errorf("is missing: add the line \"version: 1\" at the top")
		})
	}
}

func (k *checker) instance(f *file, d *document) {
	if k.owner["instance"] != f {
		return
	}
	k.c.Instance = d.Instance
	say(f, func(p field.Problems) {
		switch p := p.At("instance"); {
		case !instanceShape.MatchString(d.Instance):
			p.Errorf("%q must consist of a-z, 0-9 and -, and begin with a letter or digit", d.Instance)
		case len(d.Instance) > rotator.MaxInstance:
			p.Errorf("%q has %d characters, and %d fit into a label", d.Instance, len(d.Instance), rotator.MaxInstance)
		}
	})
}

func (k *checker) api(f *file, d *document) {
	if k.owner["api"] == nil {
		k.c.API = API{Timeout: DefaultAPITimeout, RequestsPerMinute: DefaultRequestsPerMinute}
		return
	}
	if k.owner["api"] != f {
		return
	}
	b := d.API
	if b == nil {
		b = &apiBlock{}
	}
	say(f, func(p field.Problems) {
		p = p.At("api")
		if b.BaseURL != nil {
			origin, err := sitegpt.ParseOrigin(*b.BaseURL, false)
			if err != nil {
				f.conceal(f.locate([]any{"api", "base_url"}).node) // it may hold a password, or a key in a query
				p.At("base_url").Errorf("%s", strings.TrimPrefix(err.Error(), "base URL: "))
			}
			k.c.API.BaseURL = origin
		}
		k.c.API.Timeout = positive(p.At("timeout"), b.Timeout, DefaultAPITimeout)
		k.c.API.RequestsPerMinute = DefaultRequestsPerMinute
		if n := b.RequestsPerMinute; n != nil {
			if *n < 1 {
				p.At("requests_per_minute").Errorf("must be at least 1")
			}
			k.c.API.RequestsPerMinute = *n
		}
		if b.Token != nil {
			b.Token.Validate(p.At("token"))
			k.c.API.Token = *b.Token
			if name := b.Token.File; name != "" && !filepath.IsAbs(name) {
				k.c.API.Token.File = filepath.Join(f.dir, name)
			}
		}
	})
}

func (k *checker) daemon(f *file, d *document) {
	if k.owner["daemon"] == nil {
		k.c.Daemon = Daemon{ReadBack: DefaultReadBack, Settle: DefaultSettle, Retention: DefaultRetention}
		return
	}
	if k.owner["daemon"] != f {
		return
	}
	b := d.Daemon
	if b == nil {
		b = &daemonBlock{}
	}
	say(f, func(p field.Problems) {
		p = p.At("daemon")
		k.c.Daemon.ReadBack = positive(p.At("read_back"), b.ReadBack, DefaultReadBack)
		k.c.Daemon.Settle = positive(p.At("settle"), b.Settle, DefaultSettle)
		k.c.Daemon.Retention = positive(p.At("retention"), b.Retention, DefaultRetention)
		if r := k.c.Daemon.Retention; r > 0 && r < 24*time.Hour {
			p.At("retention").Errorf("%s is too short to see what happened yesterday: use at least 1d", field.FormatDuration(r))
		}
		if b.Fuse != nil {
			for _, limit := range []struct {
				key   string
				value *int
				to    *int
			}{
				{"creates_per_day", b.Fuse.CreatesPerDay, &k.c.Daemon.Fuse.CreatesPerDay},
				{"live", b.Fuse.Live, &k.c.Daemon.Fuse.Live},
			} {
				if limit.value == nil {
					continue
				}
				if n := *limit.value; n < 1 || n > 10_000 {
					p.At("fuse", limit.key).Errorf("must be 1 to 10000: a fuse without a limit is none")
					continue
				}
				*limit.to = *limit.value
			}
		}
	})
}

func (k *checker) monitor(f *file, d *document) {
	b := d.Monitor
	if k.owner["monitor"] != f || b == nil {
		return
	}
	m := &k.c.Monitor
	m.Insecure = b.Insecure
	say(f, func(p field.Problems) {
		p = p.At("monitor")
		if b.Token != nil {
			b.Token.Validate(p.At("token"))
			m.Token = *b.Token
			m.Token.File = field.Absolute(f.dir, m.Token.File)
			if b.Insecure {
				p.At("insecure").Errorf("lets everybody look, and token only who has it: remove one of them")
			}
		}
		for i, name := range b.Hosts {
			if !hostShape.MatchString(name) {
				p.At("hosts", i).Errorf("%q must be a host's name alone, like rotatord.example.com: no https://, no port", name)
			}
			m.Hosts = append(m.Hosts, strings.ToLower(name))
		}
		if b.Listen == nil {
			return
		}
		m.Listen = *b.Listen
		if why := badListen(m.Listen); why != "" {
			p.At("listen").Errorf("%q is no address to listen on: %s (write it like 127.0.0.1:9090)", m.Listen, why)
		} else if b.Token == nil && !b.Insecure && reachable(m.Listen) {
			p.At("listen").Warnf("others can reach %s: it answers /healthz and /readyz alone there; the page and the metrics need a token (monitor.token), or insecure: true", m.Listen)
		}
	})
}

// reachable reports whether an address is surely another one than this machine's own.
func reachable(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if host == "" || err != nil {
		return err == nil
	}
	ip := net.ParseIP(host)
	return ip != nil && !ip.IsLoopback()
}

// positive returns what was given, or the default; 0 is no way to switch any of these off.
func positive(p field.Problems, given *field.Duration, otherwise time.Duration) time.Duration {
	if given == nil {
		return otherwise
	}
	if *given <= 0 {
		p.Errorf("must be longer than 0: leave it out for the default, %s", field.FormatDuration(otherwise))
	}
	return time.Duration(*given)
}

func badListen(s string) string {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		var e *net.AddrError
		if errors.As(err, &e) {
			return e.Err
		}
		return err.Error()
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Sprintf("the port %q must be 0 to 65535", port)
	}
	return ""
}

func (k *checker) vaults(f *file, d *document) {
	if k.owner["vault"] == f && d.Vault != nil {
		v := *d.Vault
		say(f, func(p field.Problems) { v.Validate(p.At("vault")) })
		v.Resolve(f.dir)
		k.c.Vault = &v
	}
	if k.owner["vaults"] == f && d.Vaults != nil {
		k.c.Vaults = map[string]vaultkv.Connection{}
		for _, name := range slices.Sorted(maps.Keys(d.Vaults)) {
			v := d.Vaults[name]
			say(f, func(p field.Problems) {
				p = p.At("vaults", name)
				wellNamed(p, name)
				v.Validate(p)
			})
			v.Resolve(f.dir)
			k.c.Vaults[name] = v
		}
	}
}

func (k *checker) readDefaults() {
	f := k.owner["defaults"]
	if f == nil {
		return
	}
	if b := k.docs[slices.Index(k.files, f)].Defaults; b != nil {
		k.defaults, k.require = b.common, b.RequireChatbotIDs
		say(f, func(p field.Problems) { k.common(p.At("defaults"), b.common, common{}) })
	}
}

// common checks what a block says by itself. inherited is what it gets from the defaults.
func (k *checker) common(p field.Problems, b, inherited common) {
	if b.Scopes != nil {
		scopes(p.At("scopes"), b.Scopes)
	}
	if b.ChatbotIDs != nil {
		chatbots(p.At("chatbot_ids"), b.ChatbotIDs)
	}
	zone := text(b.Timezone, text(inherited.Timezone, "UTC"))
	spec := "@daily" // looks at the zone alone
	if b.Schedule != nil {
		spec = *b.Schedule
	}
	if b.Schedule != nil || b.Timezone != nil {
		s := k.schedule(spec, zone)
		var bad *schedule.ZoneError
		switch {
		case errors.As(s.err, &bad):
			if b.Timezone != nil {
				p.At("timezone").Errorf("%s", s.err)
				if b.Schedule != nil {
					if s := k.schedule(spec, "UTC"); s.err != nil {
						p.At("schedule").Errorf("%s", s.err)
					}
				}
			}
		case s.err != nil:
			p.At("schedule").Errorf("%s", s.err)
		case b.Schedule != nil:
			for _, w := range s.schedule.Warnings() {
				p.At("schedule").Warnf("%s", w)
			}
		}
	}
	if b.Margin != nil && b.Lifetime != nil {
		p.At("lifetime").Errorf("cannot be combined with margin: with a lifetime, the margin is what schedule, jitter and overlap leave of it; remove one of them")
	}
	k.told(p, b.Consumers)
	oneOf(p.At("on_drift"), b.OnDrift, string(rotator.DriftHold), string(rotator.DriftRestore))
	oneOf(p.At("on_remove"), b.OnRemove, string(rotator.RemoveExpire), string(rotator.RemoveRevoke))
	if b.Was != nil {
		slug(p.At("was"), *b.Was)
	}
	if b.Description != nil && (!proseShape.MatchString(*b.Description) || turns(*b.Description)) {
		p.At("description").Errorf("%q "+notProse, *b.Description)
	}
}

func scopes(p field.Problems, list []string) {
	if len(list) == 0 {
		p.Errorf("is empty: a token needs at least one scope")
	}
	first := map[string]int{}
	for i, s := range list {
		at := p.At(i)
		if _, twice := first[s]; twice {
			at.Warnf("%q is listed twice", s)
			continue
		}
		first[s] = i
		var hint string
		if near := sitegpt.Suggest(s); len(near) > 0 {
			quoted := make([]string, len(near))
			for j, n := range near {
				quoted[j] = strconv.Quote(n)
			}
			hint = " (did you mean " + strings.Join(quoted, " or ") + "?)"
		}
		switch {
		case s == "":
			at.Errorf("an item is empty: write a scope like \"knowledge:read\", or remove it")
		case !sitegpt.WellFormedScope(s):
			if hint == "" {
				hint = " (write it like \"knowledge:read\")"
			}
			at.Errorf("%q is no scope%s", s, hint)
		case !sitegpt.KnownScope(s):
			at.Warnf("%q is not a known scope%s", s, hint)
		}
	}
}

func chatbots(p field.Problems, list []string) {
	if len(list) == 0 {
		p.Errorf("is an empty list, which could come to mean all chatbots: list their ids, or leave the key out if all are meant")
	}
	first := map[string]bool{}
	for i, s := range list {
		switch at := p.At(i); {
		case strings.TrimSpace(s) == "":
			at.Errorf("an item is empty: write a chatbot's id, or remove it")
		case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
			at.Errorf("%q has blanks in it: one item is one chatbot's id", s)
		case first[s]:
			at.Warnf("%q is listed twice", s)
		}
		first[s] = true
	}
}

func oneOf(p field.Problems, given *string, known ...string) {
	if given == nil || slices.Contains(known, *given) {
		return
	}
	hint := ""
	if near := nearest(*given, known); near != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", near)
	}
	p.Errorf("%q is none of %s%s", *given, strings.Join(known, ", "), hint)
}

// wellNamed reports whether a key of a mapping can be a name, and says so where it cannot.
func wellNamed(p field.Problems, name string) bool {
	if nameShape.MatchString(name) {
		return true
	}
	p.Errorf("the name %q must consist of a-z, 0-9, \".\", \"_\" and \"-\", and begin with a letter or digit", name)
	return false
}

func slug(p field.Problems, s string) {
	switch {
	case s == "":
		p.Errorf("is empty: write a name of a-z, 0-9, \".\", \"_\" and \"-\"")
	case !nameShape.MatchString(s):
		p.Errorf("%q must consist of a-z, 0-9, \".\", \"_\" and \"-\", and begin with a letter or digit", s)
	case len(s) > rotator.MaxName:
		p.Errorf("has %d characters, and at most %d fit into a label", len(s), rotator.MaxName)
	}
}

// schedule parses each schedule once.
func (k *checker) schedule(spec, zone string) parsed {
	key := [2]string{spec, zone}
	s, ok := k.schedules[key]
	if !ok {
		s.schedule, s.err = schedule.Parse(spec, zone)
		k.schedules[key] = s
	}
	return s
}

// list collects the tokens of all files.
func (k *checker) list(whole bool) {
	var first *file
	sets := false // what is wrong with them, they say themselves
	for i, f := range k.files {
		sets = sets || f.has("sets")
		if f.has("tokens") && first == nil {
			first = f
		}
		for j := range k.docs[i].Tokens {
			k.declare(f, []any{"tokens", j}, &k.docs[i].Tokens[j])
		}
		for _, v := range k.views[f] {
			generic := v.view.generic()
			for j := range v.view.tokens {
				r := k.declare(v, []any{"sets", v.view.set, "tokens", j}, &v.view.tokens[j])
				r.token.Row, r.token.generic = v.view.row, generic
				if l := f.locate(append(slices.Clip(r.path), "name")); len(l.rest) == 0 {
					r.token.Template = l.node.Value
				}
			}
		}
	}
	switch {
	case sets:
	case first == nil && whole:
		say(k.files[0], func(p field.Problems) {
			p.At("tokens").Errorf("is missing: list the tokens that should exist")
		})
	case first != nil && len(k.tokens) == 0 && !k.o.AllowEmpty:
		say(first, func(p field.Problems) {
			p.At("tokens").Errorf("is empty: every token would stop rotating, and expire; if that is meant, say --allow-empty")
		})
	}
}

// declare adds a token.
func (k *checker) declare(f *file, path []any, block *tokenBlock) *tokenRef {
	r := &tokenRef{f: f, path: path, block: block, defaults: k.owner["defaults"]}
	if f.sound(append(slices.Clip(path), "name")...) {
		r.token.Name = block.Name
	}
	r.token.File = f.name
	r.token.Line, _ = f.locate(path).position()
	k.tokens = append(k.tokens, r)
	return r
}

// ref names a token for a message about another one in f.
func (r *tokenRef) ref(f *file, path ...any) string {
	full := r.at(path...)
	_, where := r.f.describe(full, "")
	line, _ := r.f.locate(full).position()
	if r.f.name != f.name {
		return fmt.Sprintf("%s (%s:%d)", where, r.f.name, line)
	}
	return fmt.Sprintf("%s (line %d)", where, line)
}

func text(s *string, otherwise string) string {
	if s == nil {
		return otherwise
	}
	return *s
}

// either returns what a token says, or what the defaults say.
func either[T any](own, otherwise *T) *T {
	if own != nil {
		return own
	}
	return otherwise
}

// token checks one token and fills in what it does not say.
func (k *checker) token(r *tokenRef) {
	b, d, t, f := r.block, k.defaults, &r.token, r.f
	at := r.at
	say(f, func(p field.Problems) {
		p = p.At(r.at()...)
		switch {
		case !f.has(at("name")...):
			p.At("name").Errorf("is missing: every token needs one, it is the key of its record")
		default:
			slug(p.At("name"), b.Name)
			if t.Name == "" {
				break
			}
			if t.Name == rotator.OwnName {
				p.At("name").Errorf("%q is the name of rotatord's own token, which the block management is about: choose another one", t.Name)
				break
			}
			if other := k.byName[t.Name]; other != nil {
				p.At("name").Errorf("%q is the name of %s already", t.Name, other.ref(f))
			} else {
				k.byName[t.Name] = r
			}
		}
		k.common(p, b.common, d)
	})

	t.Description = text(either(b.Description, d.Description), "")
	t.Scopes, t.ChatbotIDs = b.Scopes, b.ChatbotIDs
	if t.Scopes == nil {
		t.Scopes = d.Scopes
	}
	if t.ChatbotIDs == nil {
		t.ChatbotIDs = d.ChatbotIDs
	}
	if t.Consumers = b.Consumers; t.Consumers == nil {
		t.Consumers = d.Consumers
	}
	t.OnDrift = rotator.OnDrift(text(either(b.OnDrift, d.OnDrift), string(rotator.DriftHold)))
	t.OnRemove = rotator.OnRemove(text(either(b.OnRemove, d.OnRemove), string(rotator.RemoveExpire)))
	t.Was = text(either(b.Was, d.Was), "")
	t.Schedule = text(either(b.Schedule, d.Schedule), "")
	t.Timezone = text(either(b.Timezone, d.Timezone), "UTC")

	say(f, func(p field.Problems) {
		p = p.At(r.at()...)
		if !f.has(at("scopes")...) && !r.inherits("scopes") {
			p.At("scopes").Errorf("is missing: list what the token may do, here or under defaults")
		}
		if !f.has(at("schedule")...) && !r.inherits("schedule") {
			p.At("schedule").Errorf("is missing: say when to rotate, like \"0 3 * * MON\" or \"@every 7d\", here or under defaults")
		}
		if k.require && !f.has(at("chatbot_ids")...) && !r.inherits("chatbot_ids") {
			p.At("chatbot_ids").Errorf("is missing, which means all chatbots, and defaults.require_chatbot_ids forbids that: list their ids")
		}
	})
	k.timing(r)
	k.sinks(r)
}

// timing proves the time rule for a token.
func (k *checker) timing(r *tokenRef) {
	b, d, t := r.block, k.defaults, &r.token
	if r.defaults == nil {
		d = common{}
	}
	// A value that could not be read stops the proof: it is told already.
	for _, key := range []string{"schedule", "timezone", "overlap", "margin", "lifetime", "jitter"} {
		if r.f.has(r.at(key)...) {
			if !r.f.sound(r.at(key)...) {
				return
			}
		} else if r.inherits(key) && !r.defaults.sound("defaults", key) {
			return
		}
	}
	margin, lifetime := b.Margin, b.Lifetime
	if margin == nil && lifetime == nil {
		margin, lifetime = d.Margin, d.Lifetime
	}
	if t.Schedule == "" || margin != nil && lifetime != nil {
		return
	}
	s := k.schedule(t.Schedule, t.Timezone)
	if s.err != nil {
		var zone *schedule.ZoneError
		if b.Schedule == nil && b.Timezone != nil && !errors.As(s.err, &zone) {
			k.blame(r, rotator.TimingProblem{Field: "schedule", Text: s.err.Error()})
		}
		return
	}
	t.Timing = rotator.Timing{Schedule: s.schedule, Overlap: DefaultOverlap, Passes: k.o.NextPass}
	if o := either(b.Overlap, d.Overlap); o != nil {
		t.Timing.Overlap = time.Duration(*o)
	}
	t.Timing.Jitter = min(DefaultJitter, (t.Timing.Overlap / 4).Truncate(time.Second))
	if j := either(b.Jitter, d.Jitter); j != nil {
		t.Timing.Jitter = time.Duration(*j)
	}
	switch {
	case lifetime != nil && *lifetime <= 0:
		k.blame(r, rotator.TimingProblem{Field: "lifetime", Text: "must be longer than 0: leave it out, and a token lives as long as schedule, margin and overlap need"})
		return
	case lifetime != nil:
		t.Timing.Lifetime = time.Duration(*lifetime)
	case margin != nil:
		t.Timing.Margin = time.Duration(*margin)
	default:
		t.Timing.Margin = (t.Timing.Overlap / 4).Truncate(time.Second)
	}
	key := t.Timing.Fingerprint()
	pr, ok := k.proofs[key]
	if !ok {
		pr.facts, pr.problems = t.Timing.Check(k.o.Now)
		k.proofs[key] = pr
	}
	written := func(p rotator.TimingProblem) bool {
		return !p.Warning && (r.f.has(r.at(p.Field)...) || r.inherits(p.Field))
	}
	// A default that goes wrong only follows from a value that is wrong as it was written.
	follows := slices.ContainsFunc(pr.problems, written)
	for _, problem := range pr.problems {
		r.unproven = r.unproven || !problem.Warning
		if !follows || written(problem) {
			k.blame(r, problem)
		}
	}
	t.Facts = pr.facts
	t.Timing.Margin = pr.facts.Margin
}

// blame reports a problem of a token's timing where the field at fault stands: in the token, or
// in the defaults, and then once for all tokens that have it from there.
func (k *checker) blame(r *tokenRef, problem rotator.TimingProblem) {
	add := func(p field.Problems, format string, args ...any) {
		if problem.Warning {
			p.Warnf(format, args...)
		} else {
			p.Errorf(format, args...)
		}
	}
	if r.f.has(r.at(problem.Field)...) || !r.inherits(problem.Field) {
		at, text := problem.Field, problem.Text
		// Nobody wrote the field: what is wrong is how its default goes with what was written.
		if !r.f.has(r.at(at)...) && at != "schedule" {
			at, text = "schedule", problem.Field+" (by default): "+problem.Text
			if !r.f.has(r.at("schedule")...) && r.inherits("schedule") {
				k.blame(r, rotator.TimingProblem{Field: at, Text: text, Warning: problem.Warning})
				return
			}
		}
		say(r.f, func(p field.Problems) { add(p.At(r.at(at)...), "%s", text) })
		return
	}
	if key := problem.Field + " " + problem.Text; !k.inherits[key] {
		k.inherits[key] = true
		say(r.defaults, func(p field.Problems) {
			_, where := r.f.describe(r.at(), "")
			add(p.At("defaults", problem.Field), "%s (in %s)", problem.Text, where)
		})
	}
}

// was checks renamings, once every name is known.
func (k *checker) was() {
	first := map[string]*tokenRef{}
	for _, r := range k.tokens {
		old := r.token.Was
		if old == "" {
			continue
		}
		say(r.f, func(p field.Problems) {
			p = p.At(r.at("was")...)
			switch other := k.byName[old]; {
			case old == rotator.OwnName:
				p.Errorf("%q is the name of rotatord's own token, which cannot become one of yours", old)
			case old == r.token.Name:
				p.Errorf("%q is the token's own name: it is what the token was called before", old)
			case other != nil:
				p.Errorf("%q is the name of %s: a token that still exists cannot have become another one", old, other.ref(r.f))
			case first[old] != nil:
				p.Errorf("%q is what %s was, too: one record can go on in one token only", old, first[old].ref(r.f))
			}
		})
		if first[old] == nil {
			first[old] = r
		}
	}
}

// load proves that the request limit lets every tick be served in time.
func (k *checker) load() {
	if k.c.API.RequestsPerMinute < 1 {
		return
	}
	refs := slices.Clone(k.tokens)
	if k.own != nil && k.own.token.Schedule != "" {
		refs = append(refs, k.own)
		k.byName[rotator.OwnName] = k.own
	}
	entries := make([]rotator.Entry, 0, len(refs))
	for _, r := range refs {
		if r.token.Timing.Schedule == nil || r.token.Facts.Lifetime <= 0 || r.unproven || k.byName[r.token.Name] != r {
			return // there is something to mend before this can be told
		}
		entries = append(entries, k.c.entry(&r.token))
	}
	for _, problem := range rotator.CheckLoad(entries, k.c.API.RequestsPerMinute, k.o.Now) {
		if r := k.byName[problem.Entries[0]]; r != nil {
			k.blame(r, rotator.TimingProblem{Field: "schedule", Text: problem.Text})
		}
	}
}
