package config

import (
	"bytes"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"
)

// Expand writes what the files say as one file without sets: each row's tokens stand in tokens. It is
// read as the same configuration, from the same folder. The text is nil unless it is accepted.
func (s Source) Expand(o Options) ([]byte, Problems, error) {
	files := s.parse()
	k, problems := check(files, s.ignored, o)
	if problems.Errors() > 0 {
		return nil, problems, nil
	}
	text, err := k.expanded()
	return text, problems, err
}

// expanded writes all files and views as one.
func (k *checker) expanded() ([]byte, error) {
	top := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	tokens := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	tokensKey := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "tokens"}
	placed := false
	place := func() {
		if !placed {
			top.Content = append(top.Content, tokensKey, tokens)
			placed = true
		}
	}
	seen := map[string]bool{}
	for _, f := range k.files {
		for i := 0; i+1 < len(f.root.Content); i += 2 {
			switch name := target(f.root.Content[i]).Value; name {
			case "sets":
				place()
			case "tokens":
				place()
				for _, item := range target(f.root.Content[i+1]).Content {
					tokens.Content = append(tokens.Content, plain(item, true))
				}
			default:
				if !seen[name] { // version may stand in every file
					seen[name] = true
					top.Content = append(top.Content, plain(f.root.Content[i], true), plain(f.root.Content[i+1], true))
				}
			}
		}
		for _, v := range k.views[f] {
			for _, item := range v.locate([]any{"sets", v.view.set, "tokens"}).node.Content {
				tokens.Content = append(tokens.Content, plain(item, false))
			}
		}
	}
	if len(tokens.Content) == 0 {
		tokens.Style = yaml.FlowStyle // []: what is given as no tokens stays so
	}
	var b bytes.Buffer
	// As it was written: no line is folded.
	e, err := yaml.NewDumper(&b, yaml.WithIndent(2), yaml.WithLineWidth(-1))
	if err != nil {
		return nil, fmt.Errorf("write the expanded configuration: %w", err)
	}
	if err := e.Dump(top); err != nil {
		return nil, fmt.Errorf("write the expanded configuration: %w", err)
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("write the expanded configuration: %w", err)
	}
	if text := b.Bytes(); bytes.HasSuffix(text, []byte("\n")) {
		return text, nil
	}
	return append(b.Bytes(), '\n'), nil
}

// plain copies a tree without anchors and aliases, which would lead to what is not there any more, and
// without the comments of templates, which would stand there once for each row.
func plain(n *yaml.Node, comments bool) *yaml.Node {
	c := *target(n)
	c.Anchor, c.Alias = "", nil
	if !comments {
		c.HeadComment, c.LineComment, c.FootComment = "", "", ""
	}
	c.Content = slices.Clone(c.Content)
	for i := range c.Content {
		c.Content[i] = plain(c.Content[i], comments)
	}
	return &c
}
