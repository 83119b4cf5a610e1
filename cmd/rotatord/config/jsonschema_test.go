package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/consumers"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/notify"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/sinks"
	"github.com/rotatord/rotatord/sinks/envfile"
	"github.com/rotatord/rotatord/sinks/vaultkv"
)

// module is where our packages begin, seen from this one.
const module = "github.com/rotatord/rotatord/"

// object is a JSON object whose members keep their order: editors offer them in it.
type object []member

type member struct {
	key   string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		var value bytes.Buffer
		enc := json.NewEncoder(&value)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(m.value); err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(bytes.TrimSpace(value.Bytes()))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// schemer makes a JSON Schema from the types that a file is decoded into.
type schemer struct {
	t        *testing.T
	variable bool                         // below a set's tokens: every string may hold variables
	comments map[string]map[string]string // package → "Type.Field" → comment
}

// comment is what stands beside a field in the source: the same words for whoever reads the code and
// for whoever writes the file.
func (s *schemer) comment(of reflect.Type, name string) string {
	pkg := of.PkgPath()
	if s.comments[pkg] == nil {
		found := map[string]string{}
		s.comments[pkg] = found
		dir := filepath.Join("..", "..", "..", strings.TrimPrefix(pkg, module))
		paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(paths) == 0 {
			s.t.Fatalf("no source of %s in %s: %v", pkg, dir, err)
		}
		for _, path := range paths {
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			if err != nil {
				s.t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				if st, ok := spec.Type.(*ast.StructType); ok {
					for _, field := range st.Fields.List {
						for _, name := range field.Names {
							found[spec.Name.Name+"."+name.Name] = strings.TrimSpace(field.Comment.Text())
						}
					}
				}
				return true
			})
		}
	}
	return s.comments[pkg][of.Name()+"."+name]
}

// orVariable also accepts a string with a variable in it, where the value is a string of some shape.
func orVariable(o object) object {
	if slices.ContainsFunc(o, func(m member) bool { return m.key == "properties" }) {
		return o // a block stays one
	}
	variable := object{{"type", "string"}, {"pattern", `\{[a-z][a-z0-9_]*\}`}, {"description", "with a variable of the set's rows"}}
	for i, m := range o {
		switch m.key {
		case "pattern", "enum":
			return object{{"anyOf", []object{o, variable}}}
		case "items":
			o[i].value = orVariable(m.value.(object))
		case "allOf": // of a scope, or a duration
			return object{{"anyOf", []object{o, variable}}}
		}
	}
	return o
}

// special are fields that mean more than their type says, by the type and the key in the file.
func (*schemer) special(of reflect.Type, key string) (object, bool) {
	enum := func(values ...string) (object, bool) {
		return object{{"enum", values}, says("is none of " + strings.Join(values, ", "))}, true
	}
	switch key {
	case "version":
		return object{{"const", 1}, says(`this rotatord knows version 1 only: write "version: 1"`)}, true
	case "instance":
		return object{aString, {"pattern", instanceShape.String()}, {"maxLength", rotator.MaxInstance}, says(expectedText), saysOfShape("must consist of a-z, 0-9 and -, and begin with a letter or digit")}, true
	case "name", "was":
		if of == reflect.TypeFor[tokenBlock]() || key == "was" {
			return object{aString, {"pattern", nameShape.String()}, {"maxLength", rotator.MaxName}, says(expectedText), saysOfShape(`must consist of a-z, 0-9, ".", "_" and "-", and begin with a letter or digit`)}, true
		}
		return object{aString, {"pattern", lineShape.String()}, says(expectedText), saysOfShape(notOneLine)}, true
	case "description":
		return object{aString, {"pattern", proseShape.String()}, says(expectedText), saysOfShape(notProse)}, true
	case "scopes":
		var known []object
		var names []string
		for _, scope := range sitegpt.Scopes() {
			known = append(known, object{{"const", scope.Name}, {"description", scope.About}})
			names = append(names, scope.Name)
		}
		known = append(known, object{aString, {"description", "a scope that this rotatord does not know"}})
		items := object{{"anyOf", known}, {"allOf", []object{
			{aString, {"pattern", sitegpt.ScopePattern}, says(expectedText), saysOfShape("is no scope")},
			// It may be right for all that: to a validator this is no mistake, and an editor marks it.
			{{"if", object{{"pattern", sitegpt.ScopePattern}, {"not", object{{"enum", names}}}}}, {"then", object{{"deprecationMessage", "is not a known scope"}}}},
		}}}
		return object{{"type", "array"}, {"minItems", 1}, says("expected a list of strings"), {"items", items}}, true
	case "chatbot_ids":
		return object{{"type", "array"}, {"minItems", 1}, says("expected a list of strings"), {"items", object{aString, {"pattern", `^\S+$`}, says(expectedText), saysOfShape("has blanks in it: one item is one chatbot's id")}}}, true
	case "on":
		return object{{"type", "array"}, {"minItems", 1}, says("expected a list of strings"), {"items", object{{"enum", notify.On()}}}}, true
	case "command", "check", "read":
		return object{{"type", "array"}, {"minItems", 1}, says("expected a list of strings"), {"items", object{aString, says(expectedText)}}}, true
	case "timeout", "read_back", "settle", "retention", "lifetime":
		if of == reflect.TypeFor[vaultkv.Connection]() {
			return nil, false // the default
		}
		return append(aDuration(), member{"allOf", []object{
			{{"not", object{{"anyOf", []object{{{"const", 0}}, {aString, {"pattern", `^(0|(0+(\.0*)?(ns|us|µs|ms|s|m|h|d|w))+)$`}}}}}}, says("must be longer than 0")},
		}}), true
	case "format":
		return enum(string(envfile.Portable), string(envfile.Systemd), string(envfile.Docker), string(envfile.Shell))
	case "on_drift":
		return enum(string(rotator.DriftHold), string(rotator.DriftRestore))
	case "on_remove":
		return enum(string(rotator.RemoveExpire), string(rotator.RemoveRevoke))
	case "expires_at":
		const shape = "write it like 2027-01-31 or 2027-01-31T08:00:00Z"
		return object{aString, {"pattern", `^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].+)?$`}, says(expectedIn(of, key)), saysOfShape("is no instant: " + shape)}, true
	case "requests_per_minute", "creates_per_day", "live":
		return object{{"type", "integer"}, {"minimum", 1}, says(expectedIn(of, key))}, true
	}
	return nil, false
}

func aDuration() object {
	return object{
		{"type", []string{"string", "integer"}},
		{"pattern", `^(0|([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h|d|w))+)$`},
		{"examples", []string{"90s", "36h", "7d"}},
		says("expected " + expected(reflect.TypeFor[field.Duration]())), saysOfShape("is no duration: (write it like 90s, 36h, 7d or 1w2d; 1d is 24 hours)"),
	}
}

// An editor says these words instead of its own: those that validate says of the same mistake. They
// are known to yaml-language-server, and to others no more than a comment.
func says(words string) member        { return member{"errorMessage", words} }
func saysOfShape(words string) member { return member{"patternErrorMessage", words} }

var aString = member{"type", "string"}

const expectedText = "expected text"

// expectedIn is what the decoder expects of a field.
func expectedIn(of reflect.Type, key string) string {
	fields := map[string]reflect.Value{}
	keys(reflect.New(of).Elem(), fields)
	t := fields[key].Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return "expected " + expected(t)
}

// fieldsOf are the keys of a struct.
func fieldsOf(of reflect.Type) []string {
	var all []string
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("yaml"), ",")
		all = append(all, name)
	}
	return all
}

// exactlyOne is a oneOf in an editor's words, with others for none of the keys than for many.
func exactlyOne(keys []string, none, many string) object {
	var one []object
	var rest object
	for i := len(keys) - 1; i >= 0; i-- {
		one = append([]object{{{"required", []string{keys[i]}}, says(none)}}, one...)
		if i == len(keys)-1 {
			continue
		}
		others := object{}
		for _, other := range keys[i+1:] {
			others = append(others, member{other, false})
		}
		with := object{
			{"if", object{{"required", []string{keys[i]}}}},
			{"then", object{{"properties", others}, says(many)}},
		}
		if rest != nil {
			with = append(with, member{"else", rest})
		}
		rest = with
	}
	return append(object{{"anyOf", one}}, rest...)
}

// required are the keys that a block cannot do without.
func required(of reflect.Type) []string {
	var out []string
	for i := range of.NumField() {
		tag := of.Field(i).Tag.Get("yaml")
		if name, opts, _ := strings.Cut(tag, ","); name != "" && opts == "" {
			out = append(out, name)
		}
	}
	return out
}

func (s *schemer) value(of reflect.Type) object {
	if of.Kind() == reflect.Pointer {
		return s.value(of.Elem())
	}
	switch of {
	case reflect.TypeFor[templates]():
		inside := *s
		inside.variable = true
		return object{{"type", "array"}, {"items", inside.mapping(reflect.TypeFor[tokenBlock]())}}
	case reflect.TypeFor[field.Duration]():
		return aDuration()
	case reflect.TypeFor[field.Mode]():
		return object{
			aString,
			{"pattern", "^[0-7]{3,4}$"},
			{"examples", []string{"0640"}},
			says("expected " + expected(of)), saysOfShape(`is no file mode (write it as a quoted octal string, like "0640")`),
		}
	case reflect.TypeFor[field.URL]():
		return object{{"anyOf", []object{{aString, {"pattern", "^[Hh][Tt][Tt][Pp][Ss]?://"}, says("expected " + expected(of))}, s.value(reflect.TypeFor[field.SecretRef]())}}}
	case reflect.TypeFor[notify.Target]():
		return append(s.mapping(of), exactlyOne([]string{"slack", "webhook"}, "says not how anybody is told: it needs one of slack and webhook", "is told in two ways: declare a target for each")...)
	case reflect.TypeFor[field.SecretRef]():
		const words = "needs exactly one of file, credential and env"
		return append(s.mapping(of), exactlyOne(fieldsOf(of), words, words)...)
	case reflect.TypeFor[vaultkv.Auth]():
		all := fieldsOf(of)
		return append(s.mapping(of), exactlyOne(all, "names no method: it needs one of "+strings.Join(all, ", "), "one connection has one login")...)
	case reflect.TypeFor[consumers.Spec]():
		all := consumers.Kinds()
		return append(s.mapping(of), exactlyOne(all, "says not how the program is told: it needs one of "+strings.Join(all, ", "), "declare a consumer for each, and name all of them in the token")...)
	}
	expects := says("expected " + expected(of))
	if reflect.PointerTo(of).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return object{{"type", "string"}}
	}
	switch of.Kind() {
	case reflect.Struct:
		return s.mapping(of)
	case reflect.Map:
		return object{{"type", "object"}, expects, {"additionalProperties", s.value(of.Elem())}}
	case reflect.Slice:
		return object{{"type", "array"}, expects, {"items", s.value(of.Elem())}}
	case reflect.Bool:
		return object{{"type", "boolean"}, expects}
	case reflect.Int, reflect.Int64:
		return object{{"type", "integer"}, expects}
	case reflect.String:
		return object{aString, expects}
	}
	s.t.Fatalf("a field of type %s has no schema", of)
	return nil
}

func (s *schemer) mapping(of reflect.Type) object {
	var properties object
	kinds := map[string]bool{}
	var add func(of reflect.Type)
	add = func(of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if strings.Contains(opts, "inline") {
				if f.Type == reflect.TypeFor[sinks.Spec]() {
					for _, kind := range sinks.Kinds() {
						kinds[kind] = true
					}
				}
				add(f.Type)
				continue
			}
			if name == "" || name == "-" {
				continue
			}
			value, ok := s.special(of, name)
			if !ok {
				value = s.value(f.Type)
			}
			if s.variable {
				value = orVariable(value)
			}
			if v, ok := defaults()[of.String()+"."+name]; ok {
				value = append(object{{"default", v}}, value...)
			}
			if about := s.comment(of, f.Name); about != "" {
				value = append(object{{"description", about}}, value...)
			} else {
				s.t.Errorf("%s.%s has no comment: people see it in their editor", of, f.Name)
			}
			properties = append(properties, member{name, value})
		}
	}
	add(of)
	known := make([]string, 0, len(properties))
	for _, m := range properties {
		known = append(known, m.key)
	}
	// additionalProperties would do the same as propertyNames, but in an editor's words.
	o := object{
		{"type", "object"},
		says("expected " + expected(of)),
		{"properties", properties},
		{"propertyNames", object{{"enum", known}, says("unknown key"), {"doNotSuggest", true}}},
	}
	var all []object
	for _, key := range required(of) {
		if of == reflect.TypeFor[document]() { // in a folder, each file has a part
			break
		}
		all = append(all, object{{"required", []string{key}}, says(key + ": is missing")})
	}
	if len(all) > 0 {
		o = append(o, member{"allOf", all})
	}
	if len(kinds) > 0 {
		o = append(o, exactlyOne(sinks.Kinds(), "says not where the token goes: it needs one of "+strings.Join(sinks.Kinds(), ", "), "is one sink: make it many sinks")...)
	}
	return o
}

// TestSchemaIsMadeFromTheTypes: what is committed is what the types say now.
func TestSchemaIsMadeFromTheTypes(t *testing.T) {
	s := &schemer{t: t, comments: map[string]map[string]string{}}
	top := s.mapping(reflect.TypeFor[document]())
	whole := append(object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", "rotation.yaml"},
		{"description", "The tokens that rotatord keeps fresh, and where they go."},
	}, top...)
	text, err := json.MarshalIndent(whole, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.WriteFile("schema.json", text, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(text, JSONSchema) {
		t.Error("schema.json is not what the types say: go test ./cmd/rotatord/config -run Schema -update")
	}
}

// compiled is the committed schema, for a validator that we did not write.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(JSONSchema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("rotation.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("rotation.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// asJSON is a YAML text as a validator of JSON sees it.
func asJSON(text []byte) (any, error) {
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(b))
}

// onlyLoad are the refused samples that a schema cannot refuse, and why.
var onlyLoad = map[string]string{
	"tokens-missing":         "in a folder, each file has a part",
	"version-missing":        "in a folder, each file has a part",
	"api-http":               "which hosts are this machine",
	"tokens-empty":           "--allow-empty accepts it",
	"schedules":              "cron and time zones have no pattern, and no end",
	"default-jitter":         "the rule of time",
	"leap-day":               "the rule of time",
	"lifetime-short":         "the rule of time",
	"management-idle":        "what one key means without another",
	"too-many-requests":      "the load of all tokens together",
	"same-place":             "two sinks at one place",
	"shared-file":            "what two sinks say of one file",
	"vault-unknown":          "names that are declared elsewhere",
	"plaintext-in-reference": "a name that looks like a token",
	"plaintext-elsewhere":    "a name that looks like a token",
	"merge-key":              "YAML, before a schema sees it",
	"tags":                   "YAML, before a schema sees it",
	"second-document":        "YAML, before a schema sees it",
	"utf16":                  "YAML, before a schema sees it",
}

// TestSchemaAgreesWithTheParser: the schema refuses nothing that the parser accepts, and refuses of
// what the parser refuses all that can be told from one value alone.
func TestSchemaAgreesWithTheParser(t *testing.T) {
	schema := compiled(t)
	sample, err := os.ReadFile("../../../rotation.yaml")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(sample), "\n")
	if where, ok := strings.CutPrefix(first, "# yaml-language-server: $schema=https://"); !ok || !strings.HasSuffix(where, "/main/cmd/rotatord/config/schema.json") {
		t.Errorf("the sample tells editors nothing: %s", first)
	}
	accepted := map[string][]byte{"the sample": sample}
	paths, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(paths) < 40 {
		t.Fatalf("%d samples, %v", len(paths), err)
	}
	unseen := map[string]bool{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		c, _ := Parse(path, text, "/etc/rotatord", Options{Now: now})
		if c != nil {
			accepted[path] = text
			continue
		}
		v, err := asJSON(text)
		if err != nil {
			continue // no YAML at all, or a key twice: an editor says so without a schema
		}
		if schema.Validate(v) == nil {
			unseen[strings.TrimSuffix(filepath.Base(path), ".yaml")] = true
		}
	}
	for name, text := range accepted {
		v, err := asJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s is accepted by the parser, and not by the schema: %v", name, err)
		}
	}
	for name := range unseen {
		if onlyLoad[name] == "" {
			t.Errorf("testdata/bad/%s.yaml is accepted by the schema: say it there, or say in onlyLoad why it cannot", name)
		}
	}
	for name := range onlyLoad {
		if !unseen[name] {
			t.Errorf("onlyLoad names %s, which the schema refuses, too, or which is gone", name)
		}
	}
	for name, text := range map[string]string{
		"an unknown key":      "version: 1\nnotes: x\ntokens: []\n",
		"a scope's typo":      "version: 1\ntokens: [{name: a, scopes: [knowledge wirte], schedule: '@daily', sinks: [{file: {path: a}}]}]\n",
		"two kinds of a sink": "version: 1\ntokens: [{name: a, scopes: [leads:read], schedule: '@daily', sinks: [{file: {path: a}, env_file: {path: b, key: C}}]}]\n",
		"no kind of a sink":   "version: 1\ntokens: [{name: a, scopes: [leads:read], schedule: '@daily', sinks: [{name: a}]}]\n",
		"an empty list":       "version: 1\ntokens: [{name: a, chatbot_ids: [], scopes: [leads:read], schedule: '@daily', sinks: [{file: {path: a}}]}]\n",
		"a duration":          "version: 1\ntokens: [{name: a, overlap: 2 days, scopes: [leads:read], schedule: '@daily', sinks: [{file: {path: a}}]}]\n",
		"no time":             "version: 1\napi: {timeout: 0m0s}\ntokens: []\n",
		"no time at all":      "version: 1\ndaemon: {settle: 0}\ntokens: []\n",
		"no command":          "version: 1\nconsumers: {x: {exec: {command: []}}}\ntokens: []\n",
		"a mode":              "version: 1\ntokens: [{name: a, scopes: [leads:read], schedule: '@daily', sinks: [{file: {path: a, mode: '0999'}}]}]\n",
		"text for a block":    "version: 1\nsets: [{for_each: {x: {}, y: {}}, tokens: [{name: '{key}', scopes: [leads:read], schedule: '@daily', sinks: [{file: '{key}'}]}]}]\n",
		"version 2":           "version: 2\ntokens: []\n",
	} {
		v, err := asJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if schema.Validate(v) == nil {
			t.Errorf("%s is not refused by the schema", name)
		}
		if c, _ := Parse("rotation.yaml", []byte(text), "/etc/rotatord", Options{Now: now, AllowEmpty: true}); c != nil {
			t.Errorf("%s is not refused by the parser", name)
		}
	}
}
