package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/consumers"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/notify"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/rotator/webhook"
	"github.com/rotatord/rotatord/sinks/envfile"
	filesink "github.com/rotatord/rotatord/sinks/file"
	"github.com/rotatord/rotatord/sinks/vaultkv"
)

// reference is where the types become a page for people.
const reference = "../../../docs/rotation-yaml.md"

// defaults are what holds where the file says nothing, by type and key: the constants themselves.
func defaults() map[string]any {
	d := func(d time.Duration) string { return field.FormatDuration(d) }
	return map[string]any{
		"config.apiBlock.timeout":             d(DefaultAPITimeout),
		"config.apiBlock.requests_per_minute": DefaultRequestsPerMinute,
		"config.daemonBlock.read_back":        d(DefaultReadBack),
		"config.daemonBlock.settle":           d(DefaultSettle),
		"config.daemonBlock.retention":        d(DefaultRetention),
		"config.timing.timezone":              "UTC",
		"config.timing.overlap":               d(DefaultOverlap),
		"config.timing.jitter":                d(DefaultJitter),
		"config.common.on_drift":              string(rotator.DriftHold),
		"config.common.on_remove":             string(rotator.RemoveExpire),
		"config.sinkBlock.required":           true,
		"config.sinkBlock.timeout":            d(DefaultSinkTimeout),
		"envfile.Config.mode":                 envfile.DefaultMode.String(),
		"envfile.Config.format":               string(envfile.Portable),
		"file.Config.mode":                    filesink.DefaultMode.String(),
		"vaultkv.Config.key":                  vaultkv.DefaultKey,
		"vaultkv.Connection.timeout":          d(vaultkv.DefaultTimeout),
		"vaultkv.AppRole.mount":               "approle",
		"vaultkv.Kubernetes.mount":            "kubernetes",
		"vaultkv.JWT.mount":                   "jwt",
		"consumers.Exec.timeout":              d(consumers.DefaultExecTimeout),
		"notify.Target.after":                 d(notify.DefaultAfter),
		"notify.Target.every":                 d(notify.DefaultEvery),
		"notify.Slack.timeout":                d(webhook.DefaultTimeout),
		"webhook.Config.timeout":              d(webhook.DefaultTimeout),
	}
}

// examples are one for each key, as somebody would write it, by type and key or by key alone.
var examples = map[string]string{
	"version": "1", "instance": "prod-eu",
	"base_url": "https://sitegpt.ai", "requests_per_minute": "120", "creates_per_day": "50", "live": "30",
	"timeout": "20s", "read_back": "1h", "settle": "30s", "retention": "90d",
	"listen": "127.0.0.1:9090", "insecure": "true", "hosts": "[rotatord.example.com]",
	"token": "{credential: sitegpt-api-token}", "secret": "{file: deploy.secret}", "bearer": "{env: DEPLOY_BEARER}",
	"expires_at": "2027-01-31", "schedule": `"0 3 * * MON"`, "timezone": "Europe/Berlin", "overlap": "48h", "margin": "12h",
	"lifetime": "30d", "jitter": "10m", "scopes": "[knowledge:read]", "description": "the bot in the help centre",
	"chatbot_ids": "[cb_docs]", "consumers": "[bot]", "on_drift": "restore", "on_remove": "revoke", "was": "old-name",
	"name": "support-bot", "require_chatbot_ids": "true", "required": "false", "take_over": "true",
	"for_each": "{acme: {bot: cb_1}}", "path": "./secrets/app.env", "key": "SITEGPT_API_TOKEN", "mode": `"0640"`, "owner": "app",
	"group": "app", "format": "systemd", "template": `'{"token": "{{.Token}}"}'`, "command": "[./push.sh, a]", "check": "[./push.sh, --check]",
	"read": "[./push.sh, --read]", "env": "{REGION: eu}", "log_output": "true", "id": "push-a",
	"mount": "secret", "kv_version": "2", "vault": "dr", "metadata": "true", "address": "https://vault.example.com:8200", "namespace": "ops",
	"ca_cert": "ca.pem", "client_cert": "client.pem", "client_key": "client.key", "tls_server_name": "vault", "token_file": "vault-token",
	"role_id": "{file: role-id}", "secret_id": "{credential: secret-id}", "wrapped": "true", "role": "rotatord",
	"flag": "bot", "url": "https://deploy.example.com/hook", "headers": "{X-Team: bots}", "allow_http": "true",
	"after": "10m", "every": "1d",

	"config.sinkBlock.name": "the app", "field.SecretRef.file": "/run/secrets/token", "field.SecretRef.credential": "sitegpt-api-token",
	"field.SecretRef.env": "SITEGPT_API_TOKEN", "vaultkv.Config.path": "apps/bot", "vaultkv.Config.key": "sitegpt_token",
	"vaultkv.AppRole.mount": "approle", "vaultkv.Kubernetes.mount": "kubernetes", "vaultkv.JWT.mount": "jwt",
	"notify.Slack.url": "{credential: slack-url}", "config.monitorBlock.token": "{credential: monitor}", "vaultkv.JWT.token": "{file: job.jwt}",
	"consumers.Exec.command": "[./reload.sh, bot]", "notify.Target.on": "[failing]",
}

// prose stands above a block's table.
var prose = map[string]string{
	"tokens": "What a token does not say, it has from [`defaults`](#defaults). When it rotates, and what the five words of time mean,\nis told with pictures in [time.md](time.md).",
	"sets": `Tokens that differ in a few words only. Each row makes every token of the set: in its strings, ` + "`{key}`" + ` becomes the
row's name, and ` + "`{bot}`" + ` the row's value of ` + "`bot`" + `.

- Only strings are touched, and only after the file was read as YAML: no value can change its shape. Keys stay as they are.
- A string that begins with a variable, or stands within brackets, is written in quotes: ` + "`\"{key}-bot\"`" + `.
- A literal ` + "`{key}`" + ` is written ` + "`\\{key}`" + `. What stands between ` + "`{{` and `}}`" + ` is left alone: a ` + "`template`" + ` keeps its own.
- A row's values are text: a number is written in quotes. Every variable needs a value in every row, and every value a use.
- ` + "`{key}`" + ` belongs into the name, or into what makes it differ. ` + "`was`" + ` may have variables, too: a list becomes a set without a
  new token, since a token's name is all that its history hangs on.
- ` + "`rotatord validate --expand`" + ` prints the tokens written out: the same configuration, to the last field.`,
	"tokens.sinks": "Exactly one kind for each sink, and the options beside it:",
	"defaults":     "Every key of [`tokens`](#tokens) but `name` and `sinks`, for those that do not say otherwise; and:",
}

// page writes the reference.
type page struct {
	bytes.Buffer
	s      *schemer
	t      *testing.T
	titles map[reflect.Type]string // of what has a section of its own
	queue  []section
	toc    strings.Builder
	used   map[string]bool
}

type section struct {
	title string
	of    reflect.Type
}

// anchor is the fragment that GitHub gives a heading.
func anchor(title string) string {
	return "#" + regexp.MustCompile(`[^a-z0-9_ -]`).ReplaceAllString(strings.ToLower(title), "")
}

// kind is what a field takes, in words, and where more is said of it.
func (p *page) kind(of reflect.Type, title string) string {
	if of.Kind() == reflect.Pointer {
		return p.kind(of.Elem(), title)
	}
	link := func(t reflect.Type, title string) string {
		if p.titles[t] == "" {
			p.titles[t] = title
			p.queue = append(p.queue, section{title, t})
		}
		return "[`" + p.titles[t] + "`](" + anchor(p.titles[t]) + ")"
	}
	switch of {
	case reflect.TypeFor[templates]():
		return "list of [`tokens`](#tokens)"
	case reflect.TypeFor[map[string]map[string]string]():
		return "mapping of rows"
	case reflect.TypeFor[field.SecretRef]():
		return "[secret](#secrets)"
	case reflect.TypeFor[field.URL]():
		return "URL, or [secret](#secrets)"
	case reflect.TypeFor[field.Duration]():
		return "duration"
	case reflect.TypeFor[field.Mode]():
		return "file mode"
	case reflect.TypeFor[instant]():
		return "instant"
	}
	if reflect.PointerTo(of).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return "text"
	}
	switch of.Kind() {
	case reflect.Struct:
		return link(of, title)
	case reflect.Map:
		if of.Elem().Kind() == reflect.String {
			return "mapping of text"
		}
		return "by name: " + p.kind(of.Elem(), title)
	case reflect.Slice:
		if of.Elem().Kind() == reflect.String {
			return "list of text"
		}
		return "list of " + p.kind(of.Elem(), title)
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "whole number"
	}
	return "text"
}

// limits are what the schema says besides the type.
func limits(o object) string {
	var out []string
	for _, m := range o {
		switch m.key {
		case "enum":
			var values []string
			for _, v := range m.value.([]string) {
				values = append(values, "`"+v+"`")
			}
			out = append(out, strings.Join(values, ", "))
		case "maxLength":
			out = append(out, fmt.Sprintf("at most %d characters", m.value))
		case "minimum":
			out = append(out, fmt.Sprintf("%d or more", m.value))
		case "minItems":
			out = append(out, "at least one")
		case "patternErrorMessage":
			if words := m.value.(string); strings.HasPrefix(words, "must consist of") {
				out = append(out, strings.TrimPrefix(words, "must consist of "))
			}
		}
	}
	return strings.Join(out, "; ")
}

// example returns a key's, after the schema has accepted it.
func (p *page) example(of reflect.Type, key string, value object) string {
	name := of.String() + "." + key
	if of == reflect.TypeFor[document]() && key != "version" && key != "instance" {
		return ""
	}
	text, ok := examples[name]
	if ok {
		p.used[name] = true
	} else if text, ok = examples[key]; ok {
		p.used[key] = true
	} else {
		return "" // a block: its own section has them
	}
	schema, err := json.Marshal(value)
	if err != nil {
		p.t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		p.t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(name, doc); err != nil {
		p.t.Fatal(err)
	}
	compiled, err := c.Compile(name)
	if err != nil {
		p.t.Fatal(err)
	}
	v, err := asJSON([]byte(text))
	if err == nil {
		err = compiled.Validate(v)
	}
	if err != nil {
		p.t.Errorf("the example of %s, %s, is none: %v", name, text, err)
	}
	return "`" + key + ": " + text + "`"
}

func (p *page) section(x section) {
	fmt.Fprintf(p, "## %s\n\n", x.title)
	depth := strings.Count(x.title, ".")
	if x.title != "rotation.yaml" {
		fmt.Fprintf(&p.toc, "%s- [`%s`](%s)\n", strings.Repeat("  ", depth), x.title, anchor(x.title))
	}
	if text := prose[x.title]; text != "" {
		p.WriteString(text + "\n\n")
	}
	if x.title == "sets" {
		p.fleet()
	}
	need := map[string]bool{}
	rows := 0
	row := func(cells ...string) {
		if rows == 0 {
			p.WriteString("| key | takes | default | what it is | example |\n|---|---|---|---|---|\n")
		}
		rows++
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "|", `\|`)
		}
		p.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	var add func(of reflect.Type)
	add = func(of reflect.Type) {
		for _, key := range required(of) {
			need[key] = true
		}
		for i := range of.NumField() {
			f := of.Field(i)
			name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if strings.Contains(opts, "inline") {
				if x.of != reflect.TypeFor[defaultsBlock]() {
					add(f.Type)
				}
				continue
			}
			if name == "" || name == "-" {
				continue
			}
			value, ok := p.s.special(of, name)
			if !ok {
				value = p.s.value(f.Type)
			}
			takes := p.kind(f.Type, strings.TrimPrefix(x.title+"."+name, "rotation.yaml."))
			if l := limits(value); strings.HasPrefix(l, "`") {
				takes = l
			} else if l != "" {
				takes += "; " + l
			}
			otherwise := ""
			if v, ok := defaults()[of.String()+"."+name]; ok {
				otherwise = fmt.Sprintf("`%v`", v)
			} else if f.Type.Kind() == reflect.Bool {
				otherwise = "`false`"
			}
			if need[name] {
				otherwise = "**required**"
			}
			about := p.s.comment(of, f.Name)
			about = regexp.MustCompile(`\\?\{\S*\}`).ReplaceAllString(about, "`$0`")
			row("`"+name+"`", takes, otherwise, about, p.example(of, name, value))
		}
	}
	add(x.of)
	p.WriteString("\n")
}

// fleet is the beginning of the sample with many tokens.
func (p *page) fleet() {
	text, err := os.ReadFile("testdata/fleet.yaml")
	if err != nil {
		p.t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	const rows = 3
	first := slices.Index(lines, "    for_each:") + 1
	rest := 0
	for _, line := range lines[first+rows:] {
		if line != "" {
			rest++
		}
	}
	fmt.Fprintf(p, "This agency has %d customers and three tokens for each of them, on two screens:\n\n```yaml\n%s\n      # … and %d more\n```\n\n",
		rest+rows, strings.Join(lines[:first+rows], "\n"), rest)
}

const aboutThePage = `# rotation.yaml, key by key

What ops say of the tokens that should exist. This page is made from the types that read the file, like the
schema that ` + "`rotatord schema`" + ` prints: it cannot say anything else than what is accepted. A sample to begin with is
[rotation.yaml](../rotation.yaml); check an edit with ` + "`rotatord validate`" + `, and see what it would do with ` + "`rotatord plan`" + `.

The file is strict: an unknown key, a key twice, a null or an empty list where it would widen something, is an
error, and nothing of a file is in force unless all of it is right. Nothing in the text is expanded.
Relative paths start from the file's own folder. ` + "`--config`" + ` may name a folder: of all its ` + "`*.yaml`" + `, tokens and sets are
joined, and every other block stands in one of them.

## In your editor

Begin the file with the line that the sample begins with. An editor with the YAML language server then
completes keys, kinds of sinks and scopes, explains what one points at, and says what ` + "`validate`" + ` would say:

    # yaml-language-server: $schema=%s

- **VS Code**: install the extension *YAML* (redhat.vscode-yaml).
- **JetBrains**: needs no extension; the line is understood as it is. (Or *Settings → JSON Schema Mappings*.)
- **Neovim**: ` + "`vim.lsp.enable('yamlls')`" + `, with yaml-language-server from npm or Mason.
- **Without the network**: ` + "`rotatord schema > rotation.schema.json`" + `, and ` + "`$schema=./rotation.schema.json`" + `.

## How values are written

| kind | how |
|---|---|
| duration | Go's units, and d and w: ` + "`90s`, `36h`, `7d`, `1w2d`" + `. A day has 24 hours |
| file mode | three or four octal digits in quotes: ` + "`\"0640\"`" + ` |
| instant | ` + "`2027-01-31` (its first instant, UTC) or `2027-01-31T08:00:00Z`" + ` |
| schedule | five cron fields, ` + "`@hourly` to `@yearly`, or `@every 7d`" + `; the zone is a key of its own |
| name | a-z, 0-9, ".", "_" and "-", beginning with a letter or digit |

`

const aboutSecrets = `## Secrets

No secret stands in the file, only where it is found: exactly one of these. Blanks and line ends around it are ignored.

`

// The page is what the types say now.
func TestReference(t *testing.T) {
	p := &page{s: &schemer{t: t, comments: map[string]map[string]string{}}, t: t, titles: map[reflect.Type]string{}, used: map[string]bool{}}
	p.titles[reflect.TypeFor[tokenBlock]()] = "tokens"
	p.section(section{"rotation.yaml", reflect.TypeFor[document]()})
	p.queue = append([]section{}, p.queue...)
	for i := 0; i < len(p.queue); i++ { // depth first: what belongs to a block follows it
		x := p.queue[i]
		before := len(p.queue)
		p.section(x)
		found := slices.Clone(p.queue[before:])
		p.queue = slices.Concat(p.queue[:i+1], found, p.queue[i+1:before])
		if strings.HasPrefix(x.title, "defaults") { // in the order of the file
			p.queue = slices.Insert(p.queue, i+1, section{"tokens", reflect.TypeFor[tokenBlock]()})
		}
	}
	p.WriteString(aboutSecrets)
	secrets := p.Len()
	p.section(section{"secrets", reflect.TypeFor[field.SecretRef]()})
	rest := strings.Replace(string(p.Bytes()[secrets:]), "## secrets\n\n", "", 1)
	p.Truncate(secrets)
	p.WriteString(rest)
	p.WriteString("## Scopes\n\nThose that this rotatord knows; another one that is well-formed is warned of, and asked for.\n\n| scope | what it allows |\n|---|---|\n")
	for _, scope := range sitegpt.Scopes() {
		fmt.Fprintf(p, "| `%s` | %s |\n", scope.Name, scope.About)
	}
	sample, err := os.ReadFile("../../../rotation.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, where, _ := strings.Cut(strings.SplitN(string(sample), "\n", 2)[0], "$schema=")
	toc := strings.Replace(p.toc.String(), "- [`secrets`](#secrets)", "- [secrets](#secrets)", 1)
	text := fmt.Sprintf(aboutThePage, where)
	head, tail, _ := strings.Cut(text, "## In your editor")
	text = head + "- [in your editor](#in-your-editor) · [how values are written](#how-values-are-written) · [scopes](#scopes)\n" + toc + "\n## In your editor" + tail + p.String()

	for key := range examples {
		if !p.used[key] {
			t.Errorf("no key needs the example of %s", key)
		}
	}
	for _, m := range regexp.MustCompile(`\]\((#[^)]*)\)`).FindAllStringSubmatch(text, -1) {
		found := false
		for _, h := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(text, -1) {
			found = found || m[1] == anchor(h[1]) || m[1] == strings.ReplaceAll(anchor(h[1]), " ", "-")
		}
		if !found {
			t.Errorf("%s leads nowhere", m[1])
		}
	}
	if *update {
		if err := os.WriteFile(reference, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old, err := os.ReadFile(reference); err != nil || string(old) != text {
		t.Errorf("%s is not what the types say (%v): go test ./cmd/rotatord/config -run Reference -update", reference, err)
	}
}
