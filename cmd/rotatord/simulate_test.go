package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator/simulate"
)

const twoTokens = `version: 1
api: {requests_per_minute: 60}
tokens:
  - name: bot
    scopes: [chatbots:read]
    schedule: "@daily"
    overlap: 12h
    sinks:
      - env_file: {path: app.env, key: BOT_TOKEN}
  - name: <writer> & co
    scopes: [chatbots:read]
    schedule: "0 3 * * MON"
    sinks:
      - {name: the file, file: {path: writer}}
`

func TestSimulateCommand(t *testing.T) {
	s := newStage(t, strings.Replace(twoTokens, "<writer> & co", "writer", 1))
	out := s.run(exitOK, "simulate", "--from", "2027-01-04", "--until", "30d")
	says(t, out, "from nothing", "bot     30", "writer  5", "… and 24 more (--all)", "At no instant would a required sink hold a dead token", "requests to SiteGPT, of 60")
	if all := s.run(exitOK, "simulate", "bot", "--from", "2027-01-04", "--until", "2027-02-03", "--all"); strings.Count(all, "planned") != 29 || strings.Contains(all, "writer") {
		t.Errorf("all rotations of bot:\n%s", all)
	}

	// Fifteen hours are survived, and sixteen are not.
	s.run(exitOK, "simulate", "--from", "2027-01-04", "--until", "30d", "--outage", "api:14h58m@2027-01-10T23:59")
	broken := s.run(exitFailed, "simulate", "--from", "2027-01-04", "--until", "30d", "--outage", "api:16h@2027-01-10 23:59")
	says(t, broken, "SiteGPT is away for 16h", "✗ bot: env_file", "holds a dead token from Mon 11 Jan 2027 15:0", "none left")
	if strings.Contains(broken, "✗ writer") {
		t.Errorf("writer has two days:\n%s", broken)
	}
	says(t, s.run(exitFailed, "simulate", "--from", "2027-01-04", "--until", "30d", "--down", "4d@2027-01-10T23:59"), "The daemon does not run for 4d", "✗ bot", "✗ writer: the file")
	says(t, s.run(exitFailed, "simulate", "--from", "2027-01-04", "--until", "30d", "--outage", "the file:9d@2027-01-10"), "✗ writer: the file")
	s.run(exitOK, "simulate", "--from", "2027-01-04", "--until", "30d", "--outage", "env_file:9h@2027-01-10")

	never := s.run(exitFailed, "simulate", "--from", "2027-01-04", "--until", "30d", "--down", "40d@2027-01-01")
	if says(t, never, "✗ bot: no token is there, or made, in all that time"); strings.Contains(never, "At no instant") {
		t.Errorf("nobody has a token, and all is well:\n%s", never)
	}

	worst := s.run(exitOK, "simulate", "--from", "2027-01-04", "--until", "30d", "--worst")
	says(t, worst, "The shortest outages that break a token", "bot     SiteGPT", "15h", "writer  the file", "2d12h")

	for _, args := range [][]string{
		{"--until", "soon"},
		{"--until", "2020-01-01"},
		{"--until", "50w", "--from", "never"},
		{"--until", "600w"},
		{"--outage", "api"},
		{"--outage", "api:48h"},
		{"--outage", "api:long@2027-01-01"},
		{"--outage", "api:-1h@2027-01-01"},
		{"--outage", "vault:1h@2027-01-01", "--from", "2027-01-01"},
		{"--down", "48h"},
		{"--down", "1h@eve"},
		{"--down", "1h@2020-01-01"},
		{"--outage", "api:48h@2027-03-01", "--from", "2027-01-01", "--until", "30d"},
		{"nobody"},
	} {
		s.run(exitUsage, append([]string{"simulate"}, args...)...)
	}
	says(t, s.stderr, "nobody")
	if s.run(exitUsage, "simulate", "--outage", "vault:1h@2027-01-01", "--from", "2027-01-01"); !strings.Contains(s.stderr, "there is api, env_file") {
		t.Errorf("what can be away is not named: %s", s.stderr)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "state")); !errors.Is(err, os.ErrNotExist) || s.api.Made() != 0 {
		t.Errorf("simulate left a state (%v), or made %d tokens", err, s.api.Made())
	}
}

// It goes on from what there is, and asks nobody.
func TestSimulateFromTheState(t *testing.T) {
	s := newStage(t, oneToken)
	s.run(exitOK, "once")
	s.run(exitOK, "rotate", "bot")
	before := len(s.api.Requests())
	out := s.run(exitOK, "simulate", "--until", "5d")
	says(t, out, "from the present state", "asked")
	var got simulated
	if err := json.Unmarshal([]byte(s.run(exitOK, "simulate", "--until", "5d", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	if l := got.Tokens[0].Lives; !got.Resumed || got.Format != 1 || len(l) < 6 || l[0].Generation != 1 || l[1].Generation != 2 || l[2].Created.Before(got.From) {
		t.Errorf("%+v", got.Tokens[0])
	}
	if c := got.Tokens[0]; c.Left < 60*3600 || c.Left > 61*3600 || c.At.IsZero() {
		t.Errorf("the tightest moment, %s, had %g seconds left", c.At, c.Left)
	}
	if err := json.Unmarshal([]byte(s.run(exitOK, "simulate", "--until", "5d", "--json", "--fresh")), &got); err != nil || got.Resumed || got.Tokens[0].Creates < 5 {
		t.Errorf("%+v %v", got, err)
	}
	if n := len(s.api.Requests()); n != before {
		t.Errorf("%d requests were sent", n-before)
	}
}

// The picture is a well-formed document that says what it shows.
func TestSimulateDraws(t *testing.T) {
	s := newStage(t, strings.Replace(twoTokens, "<writer> & co", "writer", 1))
	for i, until := range []string{"2d", "15d", "50d", "100d", "365d", "1000d"} {
		path := filepath.Join(s.dir, fmt.Sprintf("%d.svg", i))
		s.run(exitFailed, "simulate", "--from", "2027-01-04", "--until", until, "--outage", "api:40h@2027-01-04T01:00", "--down", "2h@2027-01-05", "--svg", path)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(bytes.NewReader(text))
		rects := map[string]int{}
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", until, err)
			}
			if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "rect" {
				rects[e.Attr[0].Value]++
			}
		}
		if rects["gap"] < 2 || rects["away"] != 3 || rects["serves"] < 2 || rects["fades"] < 1 {
			t.Errorf("%s: %v", until, rects)
		}
	}
}

// A year of a hundred tokens is a picture that a browser shows: small, and with all that matters. Every
// token has its bars, and a gap of a minute is seen.
func TestThePictureOfAYearOfManyTokens(t *testing.T) {
	begin := time.Date(2027, 1, 4, 0, 0, 0, 0, time.UTC)
	day := func(n float64) time.Time { return begin.Add(time.Duration(n * 24 * float64(time.Hour))) }
	drawn := func(tokens int) string {
		s := &simulated{From: begin, Until: day(365), Gaps: 1, zone: time.UTC, ticks: map[string][]time.Time{}}
		for i := range tokens {
			c := &simulate.Course{Token: fmt.Sprintf("token-%d", i)}
			for n := range 365 {
				l := simulate.Life{Generation: n + 1, Created: day(float64(n)), Converged: day(float64(n)), Expires: day(float64(n) + 3.5)}
				if n%7 == 0 {
					l.Revoked = day(float64(n) + 3)
				}
				c.Lives = append(c.Lives, l)
			}
			for week := range 52 {
				s.ticks[c.Token] = append(s.ticks[c.Token], day(7*float64(week)))
			}
			s.Tokens = append(s.Tokens, c)
		}
		s.Tokens[0].Gaps = []simulate.Gap{{Sink: "app.env", Span: simulate.Span{From: day(200), Until: day(200).Add(time.Minute)}}}
		return (&app{}).draw(s)
	}
	text := drawn(100)
	if n := len(text); n > 1<<20 {
		t.Errorf("%d bytes", n)
	}
	gap, bars := "", map[string]int{}
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		attr := map[string]string{}
		for _, a := range e.Attr {
			attr[a.Name.Local] = a.Value
		}
		switch {
		case attr["class"] == "gap" && attr["height"] != "9": // not the legend's
			gap = attr["width"]
		case attr["d"] != "":
			bars[attr["class"]]++
			if attr["class"] == "serves" && strings.Count(attr["d"], "h") < 80 {
				t.Fatalf("365 generations in 4 lanes, and in one of them %s", attr["d"])
			}
		}
	}
	if gap != "2.0" {
		t.Errorf("the gap of a minute is %q pixels wide", gap)
	}
	if bars["serves"] != 400 || bars["fades"] != 400 || bars["spare"] < 100 || bars["tick"] < 100 {
		t.Errorf("drawn: %v", bars)
	}
	// What few tokens do is said of each generation.
	if few := drawn(2); strings.Count(few, "<rect class=\"serves\"") != 2*365+1 || !strings.Contains(few, "token-1, generation 300: ") {
		t.Error("a picture with room lacks words")
	}
}

// A year of a hundred tokens comes while one waits.
func BenchmarkSimulateHundredTokens(b *testing.B) {
	var text strings.Builder
	text.WriteString("version: 1\napi: {requests_per_minute: 600}\ndefaults: {scopes: [chatbots:read], schedule: \"@daily\"}\ntokens:\n")
	for i := range 100 {
		fmt.Fprintf(&text, "  - {name: t%d, sinks: [{env_file: {path: a.env, key: T%d}}]}\n", i, i)
	}
	path := filepath.Join(b.TempDir(), "rotation.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var out, errs bytes.Buffer
		code := run(b.Context(), []string{"simulate", "--config", path, "--state-dir", filepath.Join(b.TempDir(), "none")}, environment{
			stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(string) string { return "" }, now: time.Now,
		})
		if code != exitOK {
			b.Fatal(errs.String())
		}
	}
}
