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
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/sinks"
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

// special are fields that mean more than their type says, by the type and the key in the file.
func (*schemer) special(of reflect.Type, key string) (object, bool) {
	pattern := func(p string) (object, bool) {
		return object{{"type", "string"}, {"pattern", p}}, true
	}
	enum := func(values ...string) (object, bool) { return object{{"enum", values}}, true }
	switch key {
	case "version":
		return object{{"const", 1}}, true
	case "instance":
		return object{{"type", "string"}, {"pattern", instanceShape.String()}, {"maxLength", rotator.MaxInstance}}, true
	case "name", "was":
		if of == reflect.TypeFor[tokenBlock]() || key == "was" {
			return object{{"type", "string"}, {"pattern", nameShape.String()}, {"maxLength", rotator.MaxName}}, true
		}
	case "scopes":
		var known []object
		for _, scope := range sitegpt.Scopes() {
			known = append(known, object{{"const", scope.Name}, {"description", scope.About}})
		}
		known = append(known, object{{"type", "string"}, {"pattern", sitegpt.ScopePattern}, {"description", "a scope that this rotatord does not know"}})
		return object{{"type", "array"}, {"minItems", 1}, {"items", object{{"anyOf", known}}}}, true
	case "chatbot_ids":
		return object{{"type", "array"}, {"minItems", 1}, {"items", object{{"type", "string"}, {"pattern", `^\S+$`}}}}, true
	case "on_drift":
		return enum(string(rotator.DriftHold), string(rotator.DriftRestore))
	case "on_remove":
		return enum(string(rotator.RemoveExpire), string(rotator.RemoveRevoke))
	case "expires_at":
		return pattern(`^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].+)?$`)
	case "requests_per_minute", "creates_per_day", "live":
		return object{{"type", "integer"}, {"minimum", 1}}, true
	}
	return nil, false
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
	case reflect.TypeFor[field.Duration]():
		return object{{"type", []string{"string", "integer"}}, {"pattern", `^(0|([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h|d|w))+)$`}, {"examples", []string{"90s", "36h", "7d"}}}
	case reflect.TypeFor[field.Mode]():
		return object{{"type", "string"}, {"pattern", "^[0-7]{3,4}$"}, {"examples", []string{"0640"}}}
	case reflect.TypeFor[field.SecretRef](), reflect.TypeFor[vaultkv.Auth]():
		o := s.mapping(of)
		return append(o, member{"minProperties", 1}, member{"maxProperties", 1})
	}
	if reflect.PointerTo(of).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return object{{"type", "string"}}
	}
	switch of.Kind() {
	case reflect.Struct:
		return s.mapping(of)
	case reflect.Map:
		return object{{"type", "object"}, {"additionalProperties", s.value(of.Elem())}}
	case reflect.Slice:
		return object{{"type", "array"}, {"items", s.value(of.Elem())}}
	case reflect.Bool:
		return object{{"type", "boolean"}}
	case reflect.Int, reflect.Int64:
		return object{{"type", "integer"}}
	case reflect.String:
		return object{{"type", "string"}}
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
			if about := s.comment(of, f.Name); about != "" {
				value = append(object{{"description", about}}, value...)
			} else {
				s.t.Errorf("%s.%s has no comment: people see it in their editor", of, f.Name)
			}
			properties = append(properties, member{name, value})
		}
	}
	add(of)
	o := object{{"type", "object"}, {"properties", properties}, {"additionalProperties", false}}
	if need := required(of); len(need) > 0 {
		o = append(o, member{"required", need})
	}
	if len(kinds) > 0 {
		var one []object
		for _, kind := range sinks.Kinds() {
			one = append(one, object{{"required", []string{kind}}})
		}
		o = append(o, member{"oneOf", one})
	}
	return o
}

// TestSchemaIsMadeFromTheTypes: what is committed is what the types say now.
func TestSchemaIsMadeFromTheTypes(t *testing.T) {
	s := &schemer{t: t, comments: map[string]map[string]string{}}
	top := s.mapping(reflect.TypeFor[document]())
	for i, m := range top {
		if m.key == "required" { // in a folder, each file has a part
			top = slices.Delete(top, i, i+1)
			break
		}
	}
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

// TestSchemaAgreesWithTheParser: the schema refuses nothing that the parser accepts, and refuses of
// what the parser refuses all that can be told from one value alone.
func TestSchemaAgreesWithTheParser(t *testing.T) {
	schema := compiled(t)
	sample, err := os.ReadFile("../../../rotation.yaml")
	if err != nil {
		t.Fatal(err)
	}
	accepted := map[string][]byte{"the sample": sample}
	paths, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(paths) < 40 {
		t.Fatalf("%d samples, %v", len(paths), err)
	}
	refused, both := 0, 0
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
		refused++
		if schema.Validate(v) != nil {
			both++
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
	if both*10 < refused*6 {
		t.Errorf("of %d files that the parser refuses, the schema refuses %d", refused, both)
	}
	for name, text := range map[string]string{
		"an unknown key":      "version: 1\nnotes: x\ntokens: []\n",
		"a scope's typo":      "version: 1\ntokens: [{name: a, scopes: [knowledge wirte], schedule: '@daily', sinks: [{file: {path: a}}]}]\n",
		"two kinds of a sink": "version: 1\ntokens: [{name: a, scopes: [leads:read], schedule: '@daily', sinks: [{file: {path: a}, env_file: {path: b, key: C}}]}]\n",
		"no kind of a sink":   "version: 1\ntokens: [{name: a, scopes: [leads:read], schedule: '@daily', sinks: [{name: a}]}]\n",
		"an empty list":       "version: 1\ntokens: [{name: a, chatbot_ids: [], scopes: [leads:read], schedule: '@daily', sinks: [{file: {path: a}}]}]\n",
		"a duration":          "version: 1\ntokens: [{name: a, overlap: 2 days, scopes: [leads:read], schedule: '@daily', sinks: [{file: {path: a}}]}]\n",
		"a mode":              "version: 1\ntokens: [{name: a, scopes: [leads:read], schedule: '@daily', sinks: [{file: {path: a, mode: '0999'}}]}]\n",
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
