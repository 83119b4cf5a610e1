package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator/store"
)

// version is a release's, given by -ldflags "-X main.version=v1.2.3" where the build sees no
// repository (the Dockerfile); nothing else sets it.
var version string

// buildVersion is the release's version, or what the Go toolchain recorded of this build.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return printJSON(a.stdout, struct {
					Format   int    `json:"format"`
					Version  string `json:"version"`
					Go       string `json:"go"`
					Platform string `json:"platform"`
				}{1, buildVersion(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
			}
			_, err := fmt.Fprintf(a.stdout, "rotatord %s (%s, %s/%s)\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (a *app) healthCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "health",
		Short: "Exit with 0 if a daemon works on the state",
		Long: `Exit with 0 if a daemon works on the state, and with 1 if none does: for images without
a shell. Whether its tokens are well is "rotatord status --check".`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return a.health(c.Context(), asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	a.sandboxFlag(c, lookSandbox)
	return c
}

func (a *app) health(ctx context.Context, asJSON bool) error {
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	held, ok, err := store.Holding(dir)
	if err != nil {
		return err
	}
	alive := ok && held.Kind == store.Daemon
	if alive {
		st, err := a.reader(ctx, dir)
		if err != nil {
			return err
		}
		defer st.Close() //nolint:errcheck // only read
		if _, err := st.Records(ctx); err != nil {
			return err
		}
	}
	if asJSON {
		out := struct {
			Format int           `json:"format"`
			OK     bool          `json:"ok"`
			Daemon *store.Holder `json:"daemon"` // null: none works on the state
			State  string        `json:"state_dir"`
		}{Format: 1, OK: alive, State: dir}
		if alive {
			out.Daemon = &held
		}
		if err := printJSON(a.stdout, out); err != nil {
			return err
		}
		if !alive {
			return &codeError{code: exitFailed}
		}
		return nil
	}
	if !alive {
		return &codeError{exitFailed, fmt.Errorf("no daemon works on %s: start it with rotatord run, or name its folder with --state-dir", dir)}
	}
	fmt.Fprintf(a.stdout, "ok: pid %d since %s\n", held.PID, local(held.Since))
	return nil
}
