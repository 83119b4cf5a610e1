package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// What the tab key offers besides commands and flags: the names of tokens and sinks, and the words that
// a flag takes. It only looks, and says nothing of what it cannot read: somebody is in the middle of
// a line.

// completeAll gives every command what it offers.
func (a *app) completeAll(root *cobra.Command) {
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	offer := func(c *cobra.Command, flag string, f cobra.CompletionFunc) {
		if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
			panic("completion: " + err.Error()) // a flag that the command does not have
		}
	}
	yaml := cobra.FixedCompletions([]cobra.Completion{"yaml"}, cobra.ShellCompDirectiveFilterFileExt)
	files := cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
	folders := cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	words := func(list ...cobra.Completion) cobra.CompletionFunc {
		return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
	}
	offer(root, "config", yaml)
	offer(root, "state-dir", folders)
	offer(root, "log-level", words("debug", "info", "warn", "error"))
	offer(root, "log-format", words("auto", "tint", "json", "text"))
	for _, c := range root.Commands() {
		switch c.Name() {
		case "status", "plan", "rotate", "history", "adopt", "pause", "drill", "simulate":
			c.ValidArgsFunction = a.offerTokens
		case "revoke":
			c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
				if len(args) > 0 { // it takes one
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return a.offerTokens(c, args, begun)
			}
		case "validate":
			c.ValidArgsFunction = yaml
		case "notify":
			c.ValidArgsFunction = a.offerTargets
		}
		switch c.Name() {
		case "plan":
			offer(c, "format", words("text", "json", "markdown\twith --diff"))
			offer(c, "diff", yaml)
		case "history":
			offer(c, "format", words("table", "json", "jsonl", "csv", "report\tfor an auditor"))
			var kinds []cobra.Completion
			for _, k := range rotator.EventKinds() {
				kinds = append(kinds, string(k))
			}
			offer(c, "kind", words(kinds...))
		case "validate":
			offer(c, "format", words("text", "json", "github\tworkflow commands"))
		case "simulate":
			offer(c, "outage", a.offerOutages)
			offer(c, "svg", files)
		case "adopt":
			offer(c, "sink", a.offerSinks)
		case "once":
			offer(c, "metrics-file", files)
		case "sandbox":
			offer(c, "file", files)
		}
	}
}

// offerTokens offers the names of tokens: those that are declared, and those that the state still knows.
func (a *app) offerTokens(c *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	about := map[string]string{}
	if dir, err := a.stateDir(); err == nil {
		records, _ := a.records(c.Context(), dir) // one that cannot be read offers nothing
		for i := range records {
			about[records[i].Name] = ""
		}
	}
	for _, t := range a.written().All() {
		about[t.Name] = t.Description
	}
	var out []cobra.Completion
	for _, name := range slices.Sorted(maps.Keys(about)) {
		if !slices.Contains(given, name) {
			out = append(out, cobra.CompletionWithDesc(name, plain(about[name])))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// offerTargets offers the names of those who are told.
func (a *app) offerTargets(_ *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	names := slices.Sorted(maps.Keys(a.written().Notify))
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(given, name) }), cobra.ShellCompDirectiveNoFileComp
}

// offerSinks offers the names of the sinks of the tokens that are named already, or of all.
func (a *app) offerSinks(_ *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var out []cobra.Completion
	for _, t := range a.written().All() {
		if len(given) > 0 && !slices.Contains(given, t.Name) {
			continue
		}
		for _, s := range t.Sinks {
			out = append(out, cobra.CompletionWithDesc(plain(s.Name), t.Name))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// offerOutages offers what can be away; LENGTH@BEGIN is still to be written.
func (a *app) offerOutages(_ *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if strings.Contains(begun, ":") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	kinds := map[string]bool{simulate.APIPlace: true}
	for _, t := range a.written().All() {
		for _, s := range t.Sinks {
			kinds[s.Kind] = true
		}
	}
	var out []cobra.Completion
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		out = append(out, kind+":")
	}
	return out, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

// written is what rotation.yaml says; nothing, where it is refused.
func (a *app) written() *config.Config {
	c, _, err := config.Load(a.configPath(), config.Options{Now: a.now(), AllowEmpty: true})
	if err != nil || c == nil {
		return &config.Config{}
	}
	return c
}
