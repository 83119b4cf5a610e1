package main

import (
	"fmt"
	"strings"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
)

// maxComment is how long the details of a comment may grow: GitHub takes 65536 characters.
const maxComment = 50_000

// maxRows is how many rows the table of a comment has: tokens, or some of a set that are alike.
const maxRows = 100

// diffMarkdown is the difference as a comment on a pull request: what happens in a table, and the
// details behind a fold. What somebody wrote into a configuration stands in code spans only, so that
// it can neither mention people nor break out of its cell.
func diffMarkdown(d *config.Diff) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### What this does to the tokens\n\n%s\n", escape(diffSummary(d)))
	if d.Empty() {
		return b.String()
	}
	all := groups(d)
	if len(all) > 0 {
		b.WriteString("\n| token | what happens |\n|---|---|\n")
		left := len(d.Tokens)
		for i, g := range all {
			if i == maxRows {
				fmt.Fprintf(&b, "| … | and %d more |\n", left)
				break
			}
			left -= len(g)
			fmt.Fprintf(&b, "| %s%s | %s |\n", code(g[0].Token), g.more(), marked(headline(g[0])))
		}
	}
	b.WriteString("\n<details><summary>Details</summary>\n")
	left := len(d.Tokens)
	for _, g := range all {
		if b.Len() > maxComment {
			break
		}
		left -= len(g)
		var list []string
		for _, l := range details(g[0]) {
			indent := ""
			if l[0] == "  " {
				indent, l = "  ", l[1:]
			}
			list = append(list, indent+"- "+marked(l))
		}
		if len(list) > 0 {
			fmt.Fprintf(&b, "\n**%s%s**\n\n%s\n", code(g[0].Token), g.more(), strings.Join(list, "\n"))
		}
	}
	if len(d.Blocks) > 0 {
		b.WriteString("\n**Other settings**\n\n")
		for i := range d.Blocks {
			if b.Len() > maxComment {
				fmt.Fprintf(&b, "- … and %d more\n", len(d.Blocks)-i)
				break
			}
			fmt.Fprintf(&b, "- %s\n", marked(changeLine(&d.Blocks[i])))
		}
	}
	if left > 0 {
		fmt.Fprintf(&b, "\n… and %s more, which do not fit here.\n", count(left, "token"))
	}
	b.WriteString("\n</details>\n")
	return b.String()
}

// marked is a line in Markdown.
func marked(l line) string {
	var b strings.Builder
	for _, part := range l {
		if v, ok := part.(value); ok {
			b.WriteString(code(string(v)))
		} else {
			b.WriteString(escape(fmt.Sprint(part)))
		}
	}
	return b.String()
}
