package main

import (
	"fmt"
	"html"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// The measures of a picture, in pixels.
const (
	picWidth  = 1200.0
	picLeft   = 170.0 // room for names
	picRight  = 24.0
	picTop    = 74.0
	picLane   = 9.0 // the height of a bar
	picGap    = 3.0 // between bars
	picBand   = 16.0
	picBottom = 56.0
)

const picStyle = `
text{font:12px system-ui,sans-serif;fill:#1f2933}
.title{font-size:17px;font-weight:600}.dim{fill:#66727f}.name{font-weight:600}
.paper{fill:#fff}.grid{stroke:#e4e8ec}.serves{fill:#2a6fbb}.fades{fill:#a9cbee}.away{fill:#8a94a0;opacity:.22}.gap{fill:#d22f27}
@media (prefers-color-scheme:dark){text{fill:#e6e9ed}.dim{fill:#98a3ae}.paper{fill:#15191e}.grid{stroke:#2b323a}.serves{fill:#5a9fe8}.fades{fill:#2f5277}.away{fill:#aab4be;opacity:.2}.gap{fill:#ff5a50}}
`

// picture draws what was simulated.
type picture struct {
	strings.Builder
	from, until time.Time
}

func (p *picture) x(t time.Time) float64 {
	if t.Before(p.from) {
		t = p.from
	}
	if t.After(p.until) {
		t = p.until
	}
	return picLeft + (picWidth-picLeft-picRight)*float64(t.Sub(p.from))/float64(p.until.Sub(p.from))
}

func (p *picture) bar(class string, from, until time.Time, y, height float64, title string) {
	a, b := p.x(from), p.x(until)
	if b <= a && class != "gap" {
		return
	}
	fmt.Fprintf(p, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5"><title>%s</title></rect>`+"\n",
		class, a, y, max(b-a, 1), height, html.EscapeString(title))
}

func (p *picture) text(class string, x, y float64, anchor, text string) {
	fmt.Fprintf(p, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, html.EscapeString(text))
}

// draw is an SVG document: one band for each token, in which each generation is a bar; dark while it
// is the one that the sinks should hold, light while its successor is there already.
func (a *app) draw(s *simulated) string {
	p := &picture{from: s.From, until: s.Until}
	bands := make([][][]span, len(s.Tokens))
	height := picTop + picBottom
	for i, c := range s.Tokens {
		bands[i] = lanes(c)
		height += float64(max(len(bands[i]), 1))*(picLane+picGap) + picBand
	}
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img" aria-label="The rotations to come">`+"\n<style>%s</style>\n", picWidth, height, picStyle)
	fmt.Fprintf(p, `<rect class="paper" width="%.0f" height="%.0f"/>`+"\n", picWidth, height)
	p.text("title", 16, 28, "start", "Rotations from "+s.From.Local().Format("2 Jan 2006")+" to "+s.Until.Local().Format("2 Jan 2006"))
	says := "at no instant does a required sink hold a dead token"
	if s.Gaps > 0 {
		says = count(s.Gaps, "gap")
	}
	p.text("dim", picWidth-picRight, 28, "end", says)
	p.axis(height - picBottom)
	for _, o := range s.Outages {
		p.bar("away", o.From, o.Until, picTop-14, height-picTop-picBottom+14, o.What+" is away")
		p.text("dim", p.x(o.From)+2, picTop-18, "start", o.What+" "+field.FormatDuration(o.Until.Sub(o.From)))
	}
	for _, d := range s.Down {
		p.bar("away", d.From, d.Until, picTop-14, height-picTop-picBottom+14, "the daemon does not run")
		p.text("dim", p.x(d.From)+2, picTop-18, "start", "down "+field.FormatDuration(d.Until.Sub(d.From)))
	}
	y := picTop
	for i, c := range s.Tokens {
		rows := float64(max(len(bands[i]), 1))
		inside := rows*(picLane+picGap) - picGap
		name := c.Token
		if r := []rune(name); len(r) > 24 {
			name = string(r[:23]) + "…"
		}
		p.text("name", picLeft-12, y+inside/2+4, "end", name)
		for j, lane := range bands[i] {
			for _, b := range lane {
				at := y + float64(j)*(picLane+picGap)
				title := fmt.Sprintf("%s, generation %d: %s to %s", c.Token, b.number, day(b.from), day(b.until))
				p.bar("serves", b.from, b.fades, at, picLane, title)
				p.bar("fades", b.fades, b.until, at, picLane, title)
			}
		}
		for _, g := range c.Gaps {
			p.bar("gap", g.From, g.Until, y-3, inside+6, fmt.Sprintf("%s: %s holds a dead token from %s to %s", c.Token, g.Sink, day(g.From), day(g.Until)))
		}
		y += inside + picGap + picBand
	}
	p.legend(height-20, s)
	p.WriteString("</svg>\n")
	return p.String()
}

// legend says what the colours mean.
func (p *picture) legend(y float64, s *simulated) {
	x := picLeft
	for _, item := range []struct {
		class, text string
		wanted      bool
	}{
		{"serves", "what the sinks should hold", true},
		{"fades", "still valid, for those who have not moved yet", true},
		{"away", "an outage", len(s.Outages)+len(s.Down) > 0},
		{"gap", "a sink holds a dead token", s.Gaps > 0},
	} {
		if !item.wanted {
			continue
		}
		fmt.Fprintf(p, `<rect class="%s" x="%.0f" y="%.0f" width="18" height="9" rx="1.5"/>`+"\n", item.class, x, y-9)
		p.text("dim", x+24, y, "start", item.text)
		x += 60 + 6.3*float64(len(item.text))
	}
}

// axis draws lines at round instants, as close as their labels allow.
func (p *picture) axis(bottom float64) {
	step, format := func(t time.Time) time.Time { return t.AddDate(0, 1, 0) }, "Jan 2006"
	begin := time.Date(p.from.Local().Year(), p.from.Local().Month(), 1, 0, 0, 0, 0, time.Local) //nolint:gosmopolitan // for a person on this machine
	switch length := p.until.Sub(p.from); {
	case length <= 3*24*time.Hour:
		step, format = func(t time.Time) time.Time { return t.Add(6 * time.Hour) }, "2 Jan 15:04"
	case length <= 20*24*time.Hour:
		step, format = func(t time.Time) time.Time { return t.AddDate(0, 0, 2) }, "2 Jan"
	case length <= 60*24*time.Hour:
		step, format = func(t time.Time) time.Time { return t.AddDate(0, 0, 5) }, "2 Jan"
	case length <= 150*24*time.Hour:
		step, format = func(t time.Time) time.Time { return t.AddDate(0, 0, 14) }, "2 Jan"
	case length > 800*24*time.Hour:
		step, format = func(t time.Time) time.Time { return t.AddDate(1, 0, 0) }, "2006"
		begin = time.Date(p.from.Local().Year(), 1, 1, 0, 0, 0, 0, time.Local) //nolint:gosmopolitan // likewise
	}
	last := 0.0
	for t := begin; !t.After(p.until); t = step(t) {
		if t.Before(p.from) {
			continue
		}
		x := p.x(t)
		fmt.Fprintf(p, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.0f" y2="%.0f"/>`+"\n", x, x, picTop-10, bottom)
		if x-last > 62 && x < picWidth-picRight-20 {
			p.text("dim", x, 50, "middle", t.Format(format))
			last = x
		}
	}
}

// span is a generation's bar.
type span struct {
	number             int
	from, fades, until time.Time
}

// lanes puts the generations of a token into as few rows as they fit into without touching.
func lanes(c *simulate.Course) [][]span {
	var out [][]span
	for i := range c.Lives {
		l := &c.Lives[i]
		s := span{number: l.Generation, from: l.Created, until: l.Ends(), fades: l.Ends()}
		for j := i + 1; j < len(c.Lives); j++ { // the first successor that every sink held
			if at := c.Lives[j].Converged; !at.IsZero() {
				if at.Before(s.fades) {
					s.fades = at
				}
				break
			}
		}
		row := 0
		for row < len(out) && out[row][len(out[row])-1].until.After(s.from) {
			row++
		}
		if row == len(out) {
			out = append(out, nil)
		}
		out[row] = append(out[row], s)
	}
	return out
}
