// Package config reads rotation.yaml: which tokens should exist, where they go, and when they
// rotate. It takes the whole file or nothing. Whatever is wrong with it is told at once, each
// problem with its line, its column and the way out, before anything is rotated.
//
// Nothing in the text is expanded, and no secret stands in it: only where one is found.
package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/consumers"
	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/notify"
	"github.com/rotatord/rotatord/sinks"
	"github.com/rotatord/rotatord/sinks/vaultkv"
)

// Options is what reading a configuration needs to know besides its text.
type Options struct {
	// Now is where the proofs about schedules begin: they hold for the five years after it.
	Now time.Time
	// NextPass is the distance between passes of once that somebody promised; 0: nobody did.
	NextPass time.Duration
	// AllowEmpty accepts a list of no tokens, which leaves every token that exists to expire.
	AllowEmpty bool
}

// Config is an accepted configuration, with every default filled in.
type Config struct {
	Instance string // "" where the file names none
	API      API
	Daemon   Daemon
	Monitor  Monitor
	Vault    *vaultkv.Connection           // of sinks that name no other; nil where the file does not say
	Vaults   map[string]vaultkv.Connection // by name
	Tokens   []Token

	Consumers map[string]consumers.Spec // by name
	Notify    map[string]notify.Target  // by name

	// Management is rotatord's own token.
	Management Management

	Files  []string // that were read, as they were named
	Hash   string   // of all that was read: another one means that something was edited
	Source Source   // all that was read; empty after Parse
}

// API is how SiteGPT is reached.
type API struct {
	BaseURL           string          // canonical origin; "" where the file does not say
	Timeout           time.Duration   // of one request
	RequestsPerMinute int             // shared by all tokens
	Token             field.SecretRef // the daemon's own bearer; zero where the file does not say
}

// Daemon is what has no home elsewhere.
type Daemon struct {
	ReadBack  time.Duration // how often every sink is read back
	Settle    time.Duration // how long the API may need to agree with itself
	Retention time.Duration // how long history is kept
	Fuse      Fuse
}

// Monitor is how the daemon is looked at.
type Monitor struct {
	Listen   string          // host:port; "" for none
	Token    field.SecretRef // who shows it may look; zero where the file does not say
	Insecure bool            // whoever can reach the address may look
	Hosts    []string        // names by which browsers reach the address, in lower case
}

// Fuse raises the limits of creates above those that follow from an entry's schedule. 0 leaves
// them as they are; none is ever lowered, since that would break honest use.
type Fuse struct {
	CreatesPerDay int // of one entry within 24 hours
	Live          int // live generations of one entry
}

// The defaults of rotation.yaml.
const (
	DefaultAPITimeout        = 10 * time.Second
	DefaultRequestsPerMinute = 60
	DefaultReadBack          = 15 * time.Minute
	DefaultSettle            = rotator.DefaultSettle
	DefaultRetention         = 400 * 24 * time.Hour
	DefaultOverlap           = 48 * time.Hour
	DefaultJitter            = 5 * time.Minute // or a quarter of the overlap, if that is shorter
	DefaultSinkTimeout       = 30 * time.Second
)

// Token is one item of the list, with the defaults filled in.
type Token struct {
	Name        string
	Description string
	Scopes      []string
	ChatbotIDs  []string // nil: all
	Schedule    string   // as written
	Timezone    string
	Timing      rotator.Timing
	Facts       rotator.Facts // what the timing comes to
	OnDrift     rotator.OnDrift
	OnRemove    rotator.OnRemove
	Was         string
	Consumers   []string // names
	Sinks       []Sink

	File     string // where it stands
	Line     int
	Row      string // the row of the set that it comes from; "" where it stands by itself
	Template string // its name there, with the variables

	generic *strings.Replacer // puts the variables back; nil outside of a set
}

// Sink is one sink of a token.
type Sink struct {
	Name     string // for people
	Kind     string
	Place    string // unique over all tokens
	Required bool
	TakeOver bool
	Timeout  time.Duration
	Spec     sinks.Spec
}

// Source is the text of a configuration. What was accepted once is kept as one, and read again when
// the files themselves cannot be.
type Source struct {
	Path  string `json:"path"` // as it was named: of a file, or of a folder
	Files []Text `json:"files"`

	ignored []Problem
	dir     string // what relative paths start from; "": each file's own folder
}

// In returns s as if its files stood in the folder dir: relative paths in them start there.
func (s Source) In(dir string) Source {
	s.dir = dir
	return s
}

// Text is one file of a configuration.
type Text struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Load reads a file, or every *.yaml of a folder in the order of their names. In a folder, each
// block but version, tokens and sets stands in one file only; tokens and sets are joined.
//
// The Config is nil unless it is accepted as a whole; the Problems may hold warnings then. The
// error says that something could not be read at all; problems are no error.
func Load(path string, o Options) (*Config, Problems, error) {
	s, err := Read(path)
	if err != nil {
		return nil, nil, err
	}
	c, problems := s.Parse(o)
	return c, problems, nil
}

// Read reads what Load would, and looks at nothing that it says.
func Read(path string) (Source, error) {
	s := Source{Path: path}
	names := []string{path}
	st, err := os.Stat(path)
	if err != nil {
		return Source{}, fmt.Errorf("read the configuration: %w", err)
	}
	if st.IsDir() {
		if names, s.ignored, err = list(path); err != nil {
			return Source{}, fmt.Errorf("read the configuration: %w", err)
		}
	}
	var errs []error
	for _, name := range names {
		text, err := read(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("read the configuration: %w", err))
			continue
		}
		s.Files = append(s.Files, Text{Name: name, Text: string(text)})
	}
	if len(errs) > 0 {
		return Source{}, errors.Join(errs...)
	}
	return s, nil
}

// Parse reads what the files say, as Load does.
func (s Source) Parse(o Options) (*Config, Problems) {
	c, problems := build(s.parse(), s.ignored, o)
	if c != nil {
		c.Hash, c.Source = s.Hash(), s
	}
	return c, problems
}

// parse reads every file up to its tree.
func (s Source) parse() []*file {
	files := make([]*file, 0, len(s.Files))
	for _, f := range s.Files {
		files = append(files, parse(f.Name, cmp.Or(s.dir, filepath.Dir(f.Name)), []byte(f.Text)))
	}
	for _, f := range files {
		if f.empty && len(files) > 1 { // what is missing may stand in another file
			f.problems[0].Message = "is empty: remove it, or give it a name that does not end in .yaml"
		}
	}
	return files
}

// Hash tells two sources apart: another one means that something was edited.
func (s Source) Hash() string {
	sum := sha256.New()
	for _, f := range s.Files {
		fmt.Fprintf(sum, "%s %d\n", filepath.Base(f.Name), len(f.Text))
		io.WriteString(sum, f.Text)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Absolute returns s with paths that mean the same from any working folder.
func (s Source) Absolute() (Source, error) {
	var err error
	if s.Path, err = filepath.Abs(s.Path); err != nil {
		return Source{}, fmt.Errorf("find the configuration: %w", err)
	}
	s.Files = slices.Clone(s.Files)
	for i := range s.Files {
		if s.Files[i].Name, err = filepath.Abs(s.Files[i].Name); err != nil {
			return Source{}, fmt.Errorf("find the configuration: %w", err)
		}
	}
	return s, nil
}

// Parse reads one file's text. Problems call it name; relative paths in it start from dir. The
// Config is nil unless the text is accepted.
func Parse(name string, text []byte, dir string, o Options) (*Config, Problems) {
	c, problems := build([]*file{parse(name, dir, text)}, nil, o)
	if c != nil {
		sum := sha256.Sum256(text)
		c.Hash = hex.EncodeToString(sum[:])
	}
	return c, problems
}

// list returns the files of a folder, and a warning for each that looks like one but is not read.
func list(dir string) (names []string, ignored []Problem, err error) {
	items, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, item := range items {
		name := filepath.Join(dir, item.Name())
		if strings.HasPrefix(item.Name(), ".") {
			continue
		}
		switch filepath.Ext(name) {
		case ".yaml":
			if st, err := os.Stat(name); err != nil || !st.IsDir() { // a link that leads nowhere is told when it is read
				names = append(names, name)
			}
		case ".yml":
			ignored = append(ignored, Problem{File: name, Severity: Warning, Message: "is not read: only names that end in .yaml are"})
		}
	}
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("%s holds no file that ends in .yaml", dir)
	}
	return names, ignored, nil
}

// read reads one file, but not more of it than parse accepts.
func read(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if to, nolink := os.Readlink(name); nolink == nil && errors.Is(err, fs.ErrNotExist) { // the name itself is there, as ls shows
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("is a link to %q: %w", to, fs.ErrNotExist)}
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() { // a pipe might never end, or be empty at the next reload
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is no regular file")}
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return io.ReadAll(io.LimitReader(f, maxSize+1))
}

// All returns the declared tokens and, where it is rotated, rotatord's own, last.
func (c *Config) All() []*Token {
	all := make([]*Token, 0, len(c.Tokens)+1)
	for i := range c.Tokens {
		all = append(all, &c.Tokens[i])
	}
	if t := c.Management.Token; t != nil {
		all = append(all, t)
	}
	return all
}

// Connections returns every Vault that is declared: the one of sinks that name none under "".
func (c *Config) Connections() map[string]vaultkv.Connection {
	all := maps.Clone(c.Vaults)
	if all == nil {
		all = map[string]vaultkv.Connection{}
	}
	if c.Vault != nil {
		all[""] = *c.Vault
	}
	return all
}

// Entries builds the entries that the engine keeps fresh. open makes the sink that a spec
// describes; own is where rotatord's own token is kept. An error names every token and sink that
// could not be opened.
func (c *Config) Entries(open func(sinks.Spec) (rotator.Sink, error), own rotator.Outlet) ([]rotator.Entry, error) {
	entries := make([]rotator.Entry, 0, len(c.Tokens)+1)
	var errs []error
	for i := range c.Tokens {
		t := &c.Tokens[i]
		e := c.entry(t)
		for _, s := range t.Sinks {
			opened, err := open(s.Spec)
			if err != nil {
				errs = append(errs, fmt.Errorf("token %s: sink %s: %w", t.Name, s.Name, err))
				continue
			}
			e.Outlets = append(e.Outlets, rotator.Outlet{
				Place: s.Place, Name: s.Name, Kind: s.Kind,
				Required: s.Required, TakeOver: s.TakeOver, Timeout: s.Timeout,
				Sink: opened,
			})
		}
		entries = append(entries, e)
	}
	if t := c.Management.Token; t != nil {
		e := c.entry(t)
		e.Outlets = []rotator.Outlet{own}
		entries = append(entries, e)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return entries, nil
}

// entry is a token without its sinks.
func (c *Config) entry(t *Token) rotator.Entry {
	return rotator.Entry{
		Name: t.Name, Description: t.Description,
		Scopes: slices.Clone(t.Scopes), Chatbots: slices.Clone(t.ChatbotIDs),
		Timing: t.Timing, Facts: c.Daemon.Fuse.raise(t.Facts), Settle: c.Daemon.Settle,
		OnDrift: t.OnDrift, OnRemove: t.OnRemove, Was: t.Was,
		Consumers: c.consumersOf(t),
	}
}

// raise lifts the fuse's limits, which rotator derives from the facts.
func (f Fuse) raise(facts rotator.Facts) rotator.Facts {
	for facts.MaxPosts() < f.CreatesPerDay {
		facts.PerDay++
	}
	for facts.MaxLive() < f.Live {
		facts.Live++
	}
	return facts
}

// build checks files together. Nothing is kept of them unless all of it is right.
func build(files []*file, ignored []Problem, o Options) (*Config, Problems) {
	k, problems := check(files, ignored, o)
	if problems.Errors() > 0 {
		return nil, problems
	}
	return k.c, problems
}

// check looks at files together, and gathers all that is wrong with them.
func check(files []*file, ignored []Problem, o Options) (*checker, Problems) {
	k := &checker{o: o, files: files, c: &Config{}}
	k.run()
	all := slices.Clone(ignored)
	for _, f := range files {
		for _, p := range f.problems {
			p.Source, p.SourceFrom = f.source(p.Line, p.Column)
			all = append(all, p)
		}
	}
	return k, arrange(all, files)
}
