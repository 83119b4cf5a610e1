package config

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.yaml.in/yaml/v4"
)

// Any document that the parser accepts, the schema accepts: of the samples with one to three values
// in them changed at random.
func TestSchemaRefusesNothingThatIsAccepted(t *testing.T) {
	schema := compiled(t)
	paths, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal(err)
	}
	paths = append(paths, "../../../rotation.yaml")
	var docs [][]byte
	var all []*yaml.Node
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var n yaml.Node
		if err := yaml.Unmarshal(text, &n); err != nil {
			t.Fatal(err)
		}
		docs = append(docs, text)
		nodes(&n, &all)
	}
	odd := []string{
		"0", "0s", "00", "1", "-1", "1.5", "1e3", "0x10", "010", "1_000", "+1", "0o17", ".inf", ".nan", "9999999999999999999", "60",
		"yes", "true", "True", "null", "~", "''", "' '", "a", `"a\tb"`, `"a\nb"`, "hold", `"\u00e9"`, `"\u200b"`, `"\ufeff"`, `"\u00a0"`, `"\u2028"`, `"a\u0085b"`, `"\e"`,
		"2027-01-31", "2027-01-31T08:00:00Z", "2027-01-31 08:00:00", "1h30m", ".5h", "1.h", "1h 1m", "1\u00b5s", "1us", "-1h", "1d", "365d", `"0640"`, "0640", `"640"`,
		"https://a", "HTTP://a", "http://10.0.0.1", "{file: a}", "{env: A}", "[]", "{}", "[a]", "[a, a]", `"{key}"`, "knowledge:read", "a:b", "[knowledge:read]", "[a:b]", "'@daily'", "'@every 1h'",
	}
	rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // of a test
	accepted := 0
	const n = 1500
	for range n {
		var doc yaml.Node
		if err := yaml.Unmarshal(docs[rnd.IntN(len(docs))], &doc); err != nil {
			t.Fatal(err)
		}
		for range 1 + rnd.IntN(2) {
			var in []*yaml.Node
			nodes(&doc, &in)
			to := in[rnd.IntN(len(in))]
			switch rnd.IntN(8) {
			case 0, 1, 2, 3:
				var v yaml.Node
				if err := yaml.Unmarshal([]byte(odd[rnd.IntN(len(odd))]), &v); err != nil {
					t.Fatal(err)
				}
				*to = *v.Content[0]
			case 4:
				if to.Kind == yaml.MappingNode && len(to.Content) > 0 {
					i := rnd.IntN(len(to.Content)/2) * 2
					to.Content = slices.Concat(to.Content[:i], to.Content[i+2:])
				} else if len(to.Content) > 0 {
					to.Content = slices.Clone(to.Content[:len(to.Content)-1])
				}
			case 5:
				if to.Kind == yaml.SequenceNode && len(to.Content) > 0 {
					to.Content = append(slices.Clip(to.Content), to.Content[0])
				}
			default:
				from := all[rnd.IntN(len(all))]
				if to.Kind == yaml.MappingNode && from.Kind == yaml.MappingNode && len(from.Content) > 0 {
					i := rnd.IntN(len(from.Content)/2) * 2
					to.Content = append(slices.Clip(to.Content), from.Content[i], from.Content[i+1])
				} else {
					*to = *from
				}
			}
		}
		text, err := yaml.Marshal(&doc)
		if err != nil || len(text) > 60000 {
			continue
		}
		v, err := asJSON(text)
		if err != nil {
			continue
		}
		if c, _ := Parse("rotation.yaml", text, "/etc/rotatord", Options{Now: now, AllowEmpty: true}); c == nil {
			continue
		}
		accepted++
		if err := schema.Validate(v); err != nil {
			t.Errorf("the parser accepts this, and the schema does not: %v\n%s", err, text)
		}
	}
	if accepted < n/20 {
		t.Errorf("only %d of %d are accepted", accepted, n)
	}
}

// nodes gathers all values of a document.
func nodes(n *yaml.Node, into *[]*yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			*into = append(*into, n.Content[i])
			nodes(n.Content[i], into)
		}
	default:
		for _, c := range n.Content {
			if n.Kind == yaml.SequenceNode {
				*into = append(*into, c)
			}
			nodes(c, into)
		}
	}
}
