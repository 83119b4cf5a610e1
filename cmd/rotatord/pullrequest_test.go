//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// workflow is as much of GitHub's format as the page uses.
type workflow struct {
	Jobs map[string]struct {
		Steps []struct {
			Name string
			Run  string
			Env  map[string]string
		}
	}
}

// The commands of the workflow in docs/pull-requests.md work in a real repository: one whose main has
// the configuration, and one that gets its first.
func TestTheWorkflowForPullRequests(t *testing.T) {
	t.Parallel()
	var w workflow
	if err := yaml.Unmarshal([]byte(fenced(t, "../../docs/pull-requests.md", "yaml")[0]), &w); err != nil {
		t.Fatal(err)
	}
	wanted.Do(func() {})
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	const edit = `  - {name: kb, scopes: [leads:read], schedule: "@weekly", sinks: [{env_file: {path: app.env, key: KB}}]}
`
	for _, c := range []struct {
		name, before, after string
		fails               string // the step that does
		want                []string
	}{
		{"an edit", oneToken, strings.Replace(oneToken, "[chatbots:read]", "[leads:read]", 1) + edit, "", []string{
			"| `bot` | ", "created again: scopes changed", "| `kb` | ", "a first token is created",
		}},
		{"the first configuration", "", oneToken, "", []string{"| `bot` | ", "a first token is created"}},
		{"nothing but a comment", oneToken, oneToken + "# a comment\n", "", []string{"Nothing changes: 1 token"}},
		{"a mistake", oneToken, strings.Replace(oneToken, "@daily", "@dayly", 1), "Check it", []string{"::error file=rotation.yaml,line=8,"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, temp := t.TempDir(), t.TempDir()
			bin := filepath.Join(temp, "bin")
			if err := os.Mkdir(bin, 0o700); err != nil {
				t.Fatal(err)
			}
			write := func(path, text string, mode os.FileMode) {
				t.Helper()
				if err := os.WriteFile(path, []byte(text), mode); err != nil {
					t.Fatal(err)
				}
			}
			write(filepath.Join(bin, "gh"), "#!/bin/sh\nprintf '%s\\n' \"$*\" > \"$RUNNER_TEMP/gh\"\n", 0o700)
			write(filepath.Join(bin, "go"), "#!/bin/sh\necho \"$*\" > \"$RUNNER_TEMP/go\"\n", 0o700)
			if err := os.Symlink(program, filepath.Join(bin, "rotatord")); err != nil {
				t.Fatal(err)
			}
			sh := func(script string, env ...string) (string, error) {
				cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
				cmd.Dir = dir
				cmd.Env = append([]string{
					"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + temp, "RUNNER_TEMP=" + temp, "GITHUB_STEP_SUMMARY=" + filepath.Join(temp, "summary"),
					"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
				}, env...)
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			must := func(script string) string {
				t.Helper()
				out, err := sh(script)
				if err != nil {
					t.Fatalf("%s: %v\n%s", script, err, out)
				}
				return strings.TrimSpace(out)
			}
			must("git init -q -b main . && git commit -q --allow-empty -m begin")
			if c.before != "" {
				write(filepath.Join(dir, "rotation.yaml"), c.before, 0o600)
				must("git add . && git commit -q -m before")
			}
			must("git checkout -q -b edit")
			write(filepath.Join(dir, "rotation.yaml"), c.after, 0o600)
			must("git add . && git commit -q -m after && git checkout -q main && git commit -q --allow-empty -m meanwhile")
			base := must("git rev-parse main")
			must("git checkout -q --detach main && git merge -q --no-ff --no-edit edit") // what GitHub checks out

			printed, ran := "", 0
			for _, s := range w.Jobs["plan"].Steps {
				if s.Run == "" {
					continue
				}
				var env []string
				for name, value := range s.Env {
					env = append(env, name+"="+strings.NewReplacer(
						"${{ github.event.pull_request.base.sha }}", base, "${{ github.event.pull_request.number }}", "17", "${{ github.token }}", "ghs_none",
					).Replace(value))
				}
				out, err := sh(s.Run, env...)
				printed += out
				if fails := c.fails != "" && s.Name == c.fails; fails != (err != nil) {
					t.Fatalf("step %q: %v\n%s", s.Name, err, out)
				} else if fails {
					break
				}
				ran++
			}
			if c.fails == "" {
				gh, _ := os.ReadFile(filepath.Join(temp, "gh"))
				if want := "pr comment 17 --body-file " + filepath.Join(temp, "plan.md"); ran != 4 || !strings.HasPrefix(string(gh), want) {
					t.Errorf("%d steps ran; the comment was written by %q", ran, gh)
				}
				comment, err := os.ReadFile(filepath.Join(temp, "plan.md"))
				if err != nil {
					t.Fatal(err)
				}
				summary, err := os.ReadFile(filepath.Join(temp, "summary"))
				if err != nil || string(summary) != string(comment) {
					t.Errorf("the summary is not the comment: %v\n%s", err, summary)
				}
				printed = string(comment)
			}
			for _, want := range c.want {
				if !strings.Contains(printed, want) {
					t.Errorf("no %q in:\n%s", want, printed)
				}
			}
		})
	}
}
