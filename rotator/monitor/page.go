package monitor

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Facts are the state of everything at an instant, as a page shows it and as programs read it.
type Facts struct {
	json   []byte
	text   string // for who runs no scripts
	tag    string // another one than before: something changed besides the clock
	zipped func() []byte
}

// NewFacts returns facts in JSON and, for people, as text. at is the instant that they speak of.
func NewFacts(jsonText []byte, text string, at time.Time) *Facts {
	clock, err := json.Marshal(at)
	if err != nil { // a year beyond 9999
		clock = []byte("0")
	}
	sum := sha256.Sum256(bytes.ReplaceAll(jsonText, clock, nil))
	return &Facts{
		json: jsonText, text: text, tag: `W/"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
		zipped: sync.OnceValue(func() []byte {
			var b bytes.Buffer
			z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is right
			z.Write(jsonText)                               //nolint:errcheck // into memory
			z.Close()                                       //nolint:errcheck // likewise
			return b.Bytes()
		}),
	}
}

// Shared returns a function that looks at most once within a while, however many ask.
func Shared(now func() time.Time, while time.Duration, look func(context.Context) (*Facts, error)) func(context.Context) (*Facts, error) {
	var mu sync.Mutex
	var last *Facts
	var seen time.Time
	return func(ctx context.Context) (*Facts, error) {
		mu.Lock()
		defer mu.Unlock()
		if age := now().Sub(seen); last != nil && age >= 0 && age < while {
			return last, nil
		}
		f, err := look(ctx)
		if err != nil {
			return nil, err
		}
		last, seen = f, now()
		return f, nil
	}
}

// The page, in the three languages of its parts. It is sent as one document.
var (
	//go:embed page/page.html
	pageHTML string
	//go:embed page/page.css
	pageCSS string
	//go:embed page/page.js
	pageJS string
)

// page shows facts to people. It acts on nothing, and takes nothing from anywhere else.
type page struct {
	facts        func(context.Context) (*Facts, error)
	before, then string // the document, around the text for who runs no scripts
	policy       string
}

func newPage(facts func(context.Context) (*Facts, error)) *page {
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	document := strings.NewReplacer("@style@", pageCSS, "@script@", pageJS).Replace(pageHTML)
	before, then, _ := strings.Cut(document, "@text@")
	return &page{facts: facts, before: before, then: then, policy: strings.Join([]string{
		"default-src 'none'", "script-src " + hash(pageJS), "style-src " + hash(pageCSS), "connect-src 'self'", "img-src data:",
		"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
	}, "; ")}
}

// document answers with the page. What it shows it asks for by itself; without scripts it is as
// true as at the moment at which it was loaded.
func (p *page) document(w http.ResponseWriter, r *http.Request) {
	text := ""
	if f, err := p.facts(r.Context()); err == nil {
		text = f.text
	} else {
		text = "The state cannot be looked at: " + err.Error()
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", p.policy)
	fmt.Fprint(w, p.before, html.EscapeString(text), p.then)
}

// status answers with the facts in JSON.
func (p *page) status(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	f, err := p.facts(r.Context())
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		json.NewEncoder(w).Encode(map[string]any{"format": 1, "error": err.Error()}) //nolint:errcheck // it may be gone
		return
	}
	h.Set("Etag", f.tag)
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("If-None-Match"), f.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := f.json
	if len(body) > 4<<10 && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.zipped()
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	w.Write(body) //nolint:errcheck // it may be gone
}
