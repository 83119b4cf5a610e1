package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sethvargo/go-envconfig"
	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/store"
)

// The exit codes, for all commands alike.
const (
	exitOK      = 0
	exitFailed  = 1 // something failed
	exitUsage   = 2 // wrong usage or configuration
	exitHeld    = 3 // another rotatord holds the state
	exitChanges = 4 // plan --exit-code: something would change
)

// environment is all that a process gets from outside, so that tests can be outside.
type environment struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	getenv  func(string) string
	environ func() []string
	now     func() time.Time
	program string // as it was typed, for what people copy; "": rotatord
	system  string // folder of the state on a host that has one; "": there is none
}

// settings come from the environment; a flag of the same name wins. Nothing here is read again.
type settings struct {
	Config    string    `env:"ROTATORD_CONFIG, overwrite"`
	StateDir  string    `env:"ROTATORD_STATE_DIR, overwrite"`
	LogLevel  string    `env:"ROTATORD_LOG_LEVEL, overwrite, default=info"`
	LogFormat string    `env:"ROTATORD_LOG_FORMAT, overwrite, default=auto"`
	Listen    string    `env:"ROTATORD_LISTEN, overwrite"`
	Token     envSecret `env:"SITEGPT_API_TOKEN, overwrite"`
	TokenFile string    `env:"SITEGPT_API_TOKEN_FILE, overwrite"`
	Base      string    `env:"SITEGPT_API_BASE, overwrite"`
	StateEnv  string    `env:"STATE_DIRECTORY, overwrite"`
	StateHome string    `env:"XDG_STATE_HOME, overwrite"`
	Home      string    `env:"HOME, overwrite"`
	Runtime   string    `env:"RUNTIME_DIRECTORY, overwrite"`
	NoColor   string    `env:"NO_COLOR, overwrite"`
	Journal   string    `env:"JOURNAL_STREAM, overwrite"`
}

// envSecret is a Secret that the environment can fill.
type envSecret struct{ rotator.Secret }

// EnvDecode implements envconfig's Decoder.
func (s *envSecret) EnvDecode(v string) error {
	s.Secret = rotator.NewSecret(strings.TrimSpace(v))
	return nil
}

// app is one invocation.
type app struct {
	environment
	set        settings
	args       []string // of the command line
	allowEmpty bool
	nextPass   durationFlag // the promised distance between passes; 0: none was promised
	inSandbox  bool         // --sandbox: a rehearsal
	wishJSON   bool         // --json of commands that save a wish
	excused    bool         // it was said that the last accepted configuration has to do
}

// codeError carries an exit code. With a nil err, everything was said already.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &codeError{exitUsage, fmt.Errorf(format, args...)}
}

// run is the whole program but for the process around it; it returns the exit code.
func run(ctx context.Context, args []string, env environment) int {
	out := &printer{to: env.stdout}
	env.stdout = out
	a := &app{environment: env, args: args}
	if err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: &a.set, Lookuper: lookuper(env.getenv)}); err != nil {
		fmt.Fprintln(env.stderr, "rotatord: environment:", err)
		return exitUsage
	}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	code, failed := exitCode(err), out.failed()
	if said := (*codeError)(nil); err != nil && !(errors.As(err, &said) && said.err == nil) && (failed == nil || !errors.Is(err, failed)) {
		fmt.Fprintln(env.stderr, "rotatord:", err)
	}
	if failed != nil {
		fmt.Fprintf(env.stderr, "rotatord: what it prints cannot be written, and is not whole: %v\n", failed)
		if code == exitOK || code == exitChanges {
			code = exitFailed
		}
	}
	return code
}

// printer is where a command prints. It remembers what went wrong, so that no command has to look at
// each line that it prints: whoever reads half of it, or nothing, must not take that for all.
type printer struct {
	to  io.Writer
	mu  sync.Mutex
	err error
}

// Write implements io.Writer. After an error nothing more is written: there would be a hole in it.
func (p *printer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.to.Write(b)
	p.err = err
	return n, err
}

func (p *printer) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func exitCode(err error) int {
	var coded *codeError
	var held *store.HeldError
	var owner *store.OwnerError
	var missing *noStateError
	var refused *refusedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &held):
		return exitHeld
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &owner), errors.As(err, &missing), errors.As(err, &refused):
		return exitUsage
	}
	return exitFailed
}

// lookuper lets envconfig see the environment; an empty variable counts as not set.
type lookuper func(string) string

func (l lookuper) Lookup(key string) (string, bool) {
	v := l(key)
	return v, v != ""
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "rotatord",
		Short: "Keeps short-lived SiteGPT API tokens fresh",
		Long: `rotatord keeps short-lived SiteGPT API tokens fresh. It reads the tokens that you
want from rotation.yaml, creates each one's successor before it expires, brings it
to every sink, and lets the old one die once its users have had time to move.

Try it without an account:  rotatord run --sandbox

Exit codes: 0 nothing failed, 1 something failed, 2 wrong usage or configuration,
3 another rotatord holds the state, 4 (plan --exit-code) something would change.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout) // which the completion command remembers when it is made
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w\ntry: %s --help", err, c.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.set.Config, "config", a.set.Config, "rotation.yaml, or a folder of *.yaml (ROTATORD_CONFIG; default: ./rotation.yaml, then /etc/rotatord/rotation.yaml)")
	f.StringVar(&a.set.StateDir, "state-dir", a.set.StateDir, "folder of the state (ROTATORD_STATE_DIR)")
	f.StringVar(&a.set.LogLevel, "log-level", a.set.LogLevel, "debug, info, warn or error (ROTATORD_LOG_LEVEL)")
	f.StringVar(&a.set.LogFormat, "log-format", a.set.LogFormat, "auto, tint, json or text (ROTATORD_LOG_FORMAT)")
	root.AddGroup(
		&cobra.Group{ID: "daily", Title: "Daily:"},
		&cobra.Group{ID: "night", Title: "At night:"},
		&cobra.Group{ID: "setup", Title: "Set-up:"},
		&cobra.Group{ID: "rest", Title: "The rest:"},
	)
	group := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("daily", a.statusCommand(), a.planCommand(), a.rotateCommand(), a.historyCommand())
	group("night", a.identifyCommand(), a.adoptCommand(), a.orphansCommand(), a.revokeCommand(), a.pauseCommand(), a.newInstanceCommand())
	group("setup", a.validateCommand(), a.doctorCommand(), a.notifyCommand(), a.drillCommand(), a.simulateCommand(), a.sandboxCommand(), a.schemaCommand())
	group("rest", a.runCommand(), a.onceCommand(), a.reloadCommand(), a.healthCommand(), a.versionCommand())
	root.SetHelpCommandGroupID("rest")
	root.SetCompletionCommandGroupID("rest")
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(a.args...)
	a.completeAll(root)
	a.strictArgs(root)
	return root
}

// strictArgs turns complaints about arguments into usage errors, in our words.
func (a *app) strictArgs(c *cobra.Command) {
	check := c.Args
	switch {
	case c.Name() == "help": // cobra's own prints the root's help for a command that there is not
		check = func(c *cobra.Command, args []string) error {
			for at := c.Root(); len(args) > 0; args = args[1:] {
				i := slices.IndexFunc(at.Commands(), func(sub *cobra.Command) bool { return sub.Name() == args[0] })
				if i < 0 {
					return noCommand(at, args[0])
				}
				at = at.Commands()[i]
			}
			return nil
		}
	case c.HasSubCommands():
		if !c.Runnable() { // else cobra looks at no arguments
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
		check = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noCommand(c, args[0])
			}
			return nil
		}
	}
	if check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usage("%w\ntry: %s --help", err, c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		a.strictArgs(sub)
	}
}

// noCommand says that c has no command of this name, and which one may be meant.
func noCommand(c *cobra.Command, name string) error {
	var known []string
	for _, sub := range c.Commands() {
		known = append(known, sub.Name())
	}
	if near := field.Nearest(name, known); near != "" {
		return fmt.Errorf("there is no command %q (did you mean %q?)", name, near)
	}
	return fmt.Errorf("there is no command %q", name)
}

// noArguments is for commands that take none.
func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("no arguments are taken, and %q is one", args[0])
	}
	return nil
}

// configPath is where rotation.yaml is.
func (a *app) configPath() string {
	if a.set.Config != "" {
		return a.set.Config
	}
	const system = "/etc/rotatord/rotation.yaml"
	if _, err := os.Stat("rotation.yaml"); err != nil {
		if _, err := os.Stat(system); err == nil {
			return system
		}
	}
	return "rotation.yaml"
}

// home is the folder where relative paths of the configuration start.
func (a *app) home() (string, error) {
	path := a.configPath()
	if st, err := os.Stat(path); err != nil || !st.IsDir() {
		path = filepath.Dir(path)
	}
	return filepath.Abs(path)
}

// fromHome writes what is below home as it is written there: in what is shown to others, such as a
// picture or a comment, where that is on the machine of whoever asks says nothing.
func fromHome(text, home string) string {
	return strings.ReplaceAll(text, strings.TrimSuffix(home, "/")+"/", "./")
}

// stateDir is where the state is, or will be. It makes nothing: who only looks leaves nothing behind.
func (a *app) stateDir() (string, error) {
	dir, ours, err := a.stateFolder()
	if err != nil {
		return "", err
	}
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return "", usage("the state folder %s is not a folder: name another one with --state-dir", dir)
	}
	if _, err := os.Stat(filepath.Dir(dir)); errors.Is(err, fs.ErrNotExist) && !ours {
		return "", usage("the state folder %s cannot be made: %s does not exist; make that one first, or name another one with --state-dir", dir, filepath.Dir(dir))
	}
	return dir, nil
}

// makeStateHome makes what the state folder stands in, where that is ours to make. It is for who is
// about to write.
func (a *app) makeStateHome() error {
	dir, ours, err := a.stateFolder()
	if err != nil || !ours {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("make the folder of the state: %w: name another one with --state-dir", err)
	}
	return nil
}

// stateFolder is the path of the state. ours says that nobody named it: what it stands in may be
// missing, and is made with it.
func (a *app) stateFolder() (dir string, ours bool, err error) {
	switch {
	case a.inSandbox:
		dir, err = sandboxPath("state")
		return dir, true, err
	case a.set.StateDir != "":
		return a.set.StateDir, false, nil
	case a.set.StateEnv != "":
		dir, _, _ := strings.Cut(a.set.StateEnv, ":") // systemd joins several with a colon
		return dir, false, nil
	}
	if st, err := os.Stat(a.system); err == nil && st.IsDir() {
		return a.system, false, nil
	}
	home := a.set.StateHome
	if home == "" {
		if a.set.Home == "" {
			return "", false, usage("where is the state to be kept? set --state-dir, or ROTATORD_STATE_DIR")
		}
		home = filepath.Join(a.set.Home, ".local", "state")
	}
	return filepath.Join(home, "rotatord"), true, nil
}
