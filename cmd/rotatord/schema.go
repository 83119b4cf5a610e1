package main

import (
	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
)

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of rotation.yaml, for your editor",
		Long: `Print the JSON Schema (2020-12) of rotation.yaml: an editor with a YAML language server
completes keys and scopes with it, explains them, and marks mistakes while you type.
What it cannot see (schedules that leave gaps, two sinks at one place), validate does.`,
		Example: `  rotatord schema > rotation.schema.json
  # and at the top of rotation.yaml:
  # yaml-language-server: $schema=./rotation.schema.json`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(config.JSONSchema)
			return err
		},
	}
}
