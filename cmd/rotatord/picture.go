package main

import (
	"fmt"
	"html"
	"math"
	"slices"
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
	picHead   = 58.0 // the title
	picRow    = 17.0 // a line of text
	picGap    = 3.0  // between bars
	picBand   = 24.0 // between tokens
	picBottom = 50.0
	picLetter = 6.4 // about as wide as a letter is
)

const picStyle = `
text{font:12px system-ui,sans-serif;fill:#1f2933}
.title{font-size:17px;font-weight:600}.dim{fill:#66727f}.small{font-size:10px}.name{font-weight:600}.on{fill:#fff;font-size:11px}.alarm{fill:#c4211a;font-weight:600}
.paper{fill:#fff}.grid{stroke:#e4e8ec}.tick{fill:#66727f}.serves{fill:#2a6fbb}.fades{fill:#a9cbee}.spare{fill:none;stroke:#a9cbee;stroke-dasharray:3 2}.away{fill:#8a94a0;opacity:.22}.gap{fill:#d22f27}
@media (prefers-color-scheme:dark){text{fill:#e6e9ed}.dim{fill:#98a3ae}.on{fill:#fff}.alarm{fill:#ff7b72}.paper{fill:#15191e}.grid{stroke:#2b323a}.tick{fill:#98a3ae}.serves{fill:#2f7fd0}.fades{fill:#2f5277}.spare{stroke:#4d7196}.away{fill:#aab4be;opacity:.2}.gap{fill:#ff5a50}}
`

// picLines is for bars that are drawn as lines.
const picLines = `path.serves,path.fades,path.spare{fill:none;stroke-dasharray:none}path.serves{stroke:#2a6fbb}path.fades{stroke:#a9cbee}
@media (prefers-color-scheme:dark){path.serves{stroke:#2f7fd0}path.fades{stroke:#2f5277}}
`

// picMarks is how many bars and ticks are drawn each by itself, with words of its own: a browser shows a
// megabyte of them at once, and ten of them after a while.
const picMarks = 5000

// picture draws what was simulated.
type picture struct {
	strings.Builder
	from, until time.Time
	zone        *time.Location
	lane        float64 // the height of a bar
	dense       bool    // there is too much to draw each mark by itself
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

// day writes an instant on the picture's clock.
func (p *picture) day(t time.Time) string { return t.In(p.zone).Format("Mon 2 Jan 2006 15:04") }

func (p *picture) bar(class string, from, until time.Time, y, height float64, title string) {
	a, b := p.x(from), p.x(until)
	least := 1.0
	if class == "gap" { // however short it is, and however long the year
		least = 2
	} else if b <= a {
		return
	}
	fmt.Fprintf(p, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5"><title>%s</title></rect>`+"\n",
		class, a, y, max(b-a, least), height, html.EscapeString(title))
}

func (p *picture) text(class string, x, y float64, anchor, text string) {
	fmt.Fprintf(p, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, html.EscapeString(text))
}

// note is a text that begins at an instant, above the bars.
type note struct {
	at   time.Time
	text string
}

// notes writes texts in as few rows as they fit into, from the highest one on. It returns the rows.
func (p *picture) notes(list []note, y float64) (rows int) {
	var ends []float64
	slices.SortStableFunc(list, func(a, b note) int { return a.at.Compare(b.at) })
	for _, n := range list {
		width := picLetter * float64(len(n.text))
		x := max(picLeft, min(p.x(n.at), picWidth-picRight-width))
		row := 0
		for row < len(ends) && ends[row] > x {
			row++
		}
		if row == len(ends) {
			ends = append(ends, 0)
		}
		ends[row] = x + width + 8
		p.text("dim", x, y+float64(row)*picRow, "start", n.text)
	}
	return len(ends)
}

// draw is an SVG document: one band for each token, in which each generation is a bar; dark while it
// is the one that the sinks should hold, light while its successor is there already.
func (a *app) draw(s *simulated) string {
	p := &picture{from: s.From, until: s.Until, zone: s.zone, lane: 18}
	if len(s.Tokens) > 6 {
		p.lane = 9
	}
	bands := make([][][]span, len(s.Tokens))
	bars, marks := 0.0, 0
	for i, c := range s.Tokens {
		bands[i] = lanes(c)
		bars += float64(max(len(bands[i]), 1))*(p.lane+picGap) + picBand
		marks += 2*len(c.Lives) + len(s.ticks[c.Token])
	}
	p.dense = marks > picMarks

	var away []note
	for _, o := range s.Outages {
		away = append(away, note{o.From, awayName(o.What) + " away, " + field.FormatDuration(o.Until.Sub(o.From))})
	}
	for _, d := range s.Down {
		away = append(away, note{d.From, "daemon down, " + field.FormatDuration(d.Until.Sub(d.From))})
	}
	body := &picture{from: p.from, until: p.until, zone: p.zone, lane: p.lane, dense: p.dense}
	top := picHead + float64(body.notes(away, picHead+10))*picRow
	axis := top + picRow
	top = axis + 24
	bottom := top + bars - picBand + 8
	height := bottom + picBottom

	for _, o := range s.Outages {
		body.bar("away", o.From, o.Until, axis+8, bottom-axis-8, o.What+" is away")
	}
	for _, d := range s.Down {
		body.bar("away", d.From, d.Until, axis+8, bottom-axis-8, "the daemon does not run")
	}
	y := top
	ticks := false
	for i, c := range s.Tokens {
		inside := float64(max(len(bands[i]), 1))*(p.lane+picGap) - picGap
		name := c.Token
		if r := []rune(name); len(r) > 24 {
			name = string(r[:23]) + "…"
		}
		body.text("name", picLeft-12, y+inside/2+4, "end", name)
		ticks = body.ticks(s.ticks[c.Token], y) || ticks
		for j, lane := range bands[i] {
			at := y + float64(j)*(p.lane+picGap)
			if p.dense {
				body.columns(c.Token, lane, at)
			}
			for _, b := range lane {
				body.generation(c.Token, b, at)
			}
		}
		for _, g := range c.Gaps {
			body.bar("gap", g.From, g.Until, y-3, inside+6, fmt.Sprintf("%s: %s holds a dead token from %s to %s", c.Token, g.Sink, p.day(g.From), p.day(g.Until)))
			if p.lane > 9 {
				body.text("alarm", p.x(g.Until)+5, y+inside+12, "start", "no valid token for "+field.FormatDuration(g.Until.Sub(g.From).Round(time.Minute)))
			}
		}
		y += inside + picGap + picBand
	}
	body.legend(height-16, s, bands, ticks)

	style := picStyle
	if p.dense {
		style += picLines
	}
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img" aria-label="The rotations to come">`+"\n<style>%s</style>\n", picWidth, height, style)
	fmt.Fprintf(p, `<rect class="paper" width="%.0f" height="%.0f"/>`+"\n", picWidth, height)
	p.text("title", 16, 28, "start", "Rotations from "+s.From.In(p.zone).Format("2 Jan 2006")+" to "+s.Until.In(p.zone).Format("2 Jan 2006"))
	p.text("dim", 16, 46, "start", "on the clock of "+zoneName(p.zone, s.From))
	if s.Gaps > 0 {
		p.text("alarm", picWidth-picRight, 28, "end", count(s.Gaps, "gap"))
	} else {
		p.text("dim", picWidth-picRight, 28, "end", "at no instant does a required sink hold a dead token")
	}
	p.axis(axis, bottom)
	p.WriteString(body.String())
	p.WriteString("</svg>\n")
	return p.String()
}

// awayName is what is away, as people call it.
func awayName(what string) string {
	if what == simulate.APIPlace {
		return "SiteGPT"
	}
	return what
}

// zoneName is what people call a clock.
func zoneName(zone *time.Location, at time.Time) string {
	if name := zone.String(); name != "Local" {
		return name
	}
	return "this machine (" + at.In(zone).Format("MST") + ")"
}

// generation draws one bar, dark and light, and what is left of its life when it is revoked.
func (p *picture) generation(token string, b span, y float64) {
	if !p.dense {
		title := fmt.Sprintf("%s, generation %d: %s to %s", token, b.number, p.day(b.from), p.day(b.until))
		p.bar("serves", b.from, b.fades, y, p.lane, title)
		p.bar("fades", b.fades, b.until, y, p.lane, title)
		if b.expires.After(b.until) {
			p.bar("spare", b.until, b.expires, y+p.lane/2-2, 4, fmt.Sprintf("revoked; it would have expired on %s", p.day(b.expires)))
		}
	}
	if p.lane < 12 {
		return
	}
	from, until := p.x(b.from), p.x(b.fades)
	for _, text := range []string{fmt.Sprintf("generation %d", b.number), fmt.Sprint(b.number)} {
		if picLetter*float64(len(text))+8 < until-from {
			p.text("on", (from+until)/2, y+p.lane/2+4, "middle", text)
			break
		}
	}
}

// columns draws a whole lane as a line for each class, a pixel at a time: bars that fall on one are one.
// Of several classes on a pixel, the one that says most is seen.
func (p *picture) columns(token string, lane []span, y float64) {
	classes := []string{"", "spare", "fades", "serves"}
	column := func(t time.Time) int { return int(math.Round(p.x(t))) }
	pixels := make([]int, int(picWidth)+1)
	paint := func(class, from, until int) {
		for x := from; x < until; x++ {
			pixels[x] = max(pixels[x], class)
		}
	}
	for _, b := range lane {
		from, fades, until := column(b.from), column(b.fades), column(b.until)
		paint(1, until, column(b.expires))
		paint(2, fades, until)
		paint(3, from, max(fades, from+1))
	}
	title := fmt.Sprintf("%s, generations %d to %d", token, lane[0].number, lane[len(lane)-1].number)
	for class, name := range classes[1:] {
		class++
		var d strings.Builder
		end := 0
		for x := 0; x < len(pixels); x++ {
			if pixels[x] != class {
				continue
			}
			from := x
			for x < len(pixels) && pixels[x] == class {
				x++
			}
			if end == 0 {
				fmt.Fprintf(&d, "M%d %.1fh%d", from, y+p.lane/2, x-from)
			} else {
				fmt.Fprintf(&d, "m%d 0h%d", from-end, x-from)
			}
			end = x
		}
		width := p.lane
		if name == "spare" {
			width = 2
		}
		if d.Len() > 0 {
			fmt.Fprintf(p, `<path class="%s" stroke-width="%.0f" d="%s"><title>%s</title></path>`+"\n", name, width, &d, html.EscapeString(title))
		}
	}
}

// ticks draws the schedule's, where they leave room between them.
func (p *picture) ticks(list []time.Time, y float64) bool {
	if len(list) == 0 || (p.x(list[len(list)-1])-p.x(list[0]))/float64(len(list)) < 9 {
		return false
	}
	room := p.lane > 9 && p.until.Sub(p.from) < 45*24*time.Hour && (p.x(list[len(list)-1])-p.x(list[0]))/float64(len(list)) > 84
	var all strings.Builder
	for _, t := range list {
		x := p.x(t)
		if room && x < picWidth-picRight-40 {
			p.text("dim small", x+7, y-4, "start", t.In(p.zone).Format("15:04"))
		}
		if p.dense {
			fmt.Fprintf(&all, "M%.1f %.1fh8l-4 6z", x-4, y-9)
			continue
		}
		fmt.Fprintf(p, `<path class="tick" d="M%.1f %.1fh8l-4 6z"><title>tick: %s</title></path>`+"\n", x-4, y-9, html.EscapeString(p.day(t)))
	}
	if p.dense {
		fmt.Fprintf(p, `<path class="tick" d="%s"/>`+"\n", &all)
	}
	return true
}

// legend says what the marks mean.
func (p *picture) legend(y float64, s *simulated, bands [][][]span, ticks bool) {
	spare := false
	for _, band := range bands {
		for _, lane := range band {
			for _, b := range lane {
				spare = spare || b.expires.After(b.until)
			}
		}
	}
	x := 16.0
	if ticks {
		fmt.Fprintf(p, `<path class="tick" d="M%.1f %.1fh8l-4 6z"/>`+"\n", x, y-8)
		p.text("dim", x+14, y, "start", "a tick of the schedule")
		x += 14 + 24 + picLetter*22
	}
	for _, item := range []struct {
		class, text string
		wanted      bool
	}{
		{"serves", "what the sinks should hold", true},
		{"fades", "still valid, for those who have not moved yet", true},
		{"spare", "revoked before it expired", spare},
		{"away", "an outage", len(s.Outages)+len(s.Down) > 0},
		{"gap", "a sink holds a dead token", s.Gaps > 0},
	} {
		if !item.wanted {
			continue
		}
		fmt.Fprintf(p, `<rect class="%s" x="%.0f" y="%.0f" width="18" height="9" rx="1.5"/>`+"\n", item.class, x, y-9)
		p.text("dim", x+24, y, "start", item.text)
		x += 24 + 24 + picLetter*float64(len(item.text))
	}
}

// axis draws lines at round instants, as close as their labels allow.
func (p *picture) axis(y, bottom float64) {
	at := func(t time.Time, years, months, days, hours int) time.Time {
		t = t.In(p.zone)
		return time.Date(t.Year()+years, t.Month()+time.Month(months), t.Day()+days, t.Hour()+hours, 0, 0, 0, p.zone)
	}
	from := p.from.In(p.zone)
	midnight := time.Date(from.Year(), from.Month(), from.Day(), 0, 0, 0, 0, p.zone)
	monday := midnight.AddDate(0, 0, -(int(midnight.Weekday())+6)%7)
	first := time.Date(from.Year(), from.Month(), 1, 0, 0, 0, 0, p.zone)
	step, format, begin := func(t time.Time) time.Time { return at(t, 0, 1, 0, 0) }, "Jan 2006", first
	switch length := p.until.Sub(p.from); {
	case length <= 3*24*time.Hour:
		step, format, begin = func(t time.Time) time.Time { return at(t, 0, 0, 0, 6) }, "Mon 15:04", midnight
	case length <= 12*24*time.Hour:
		step, format, begin = func(t time.Time) time.Time { return at(t, 0, 0, 1, 0) }, "Mon 2 Jan", midnight
	case length <= 24*24*time.Hour:
		step, format, begin = func(t time.Time) time.Time { return at(t, 0, 0, 2, 0) }, "Mon 2 Jan", midnight
	case length <= 150*24*time.Hour:
		step, format, begin = func(t time.Time) time.Time { return at(t, 0, 0, 7, 0) }, "Mon 2 Jan", monday
	case length > 800*24*time.Hour:
		step, format, begin = func(t time.Time) time.Time { return at(t, 1, 0, 0, 0) }, "2006", time.Date(from.Year(), 1, 1, 0, 0, 0, 0, p.zone)
	}
	last := 0.0
	for t := begin; !t.After(p.until); t = step(t) {
		if t.Before(p.from) {
			continue
		}
		x := p.x(t)
		fmt.Fprintf(p, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.0f" y2="%.0f"/>`+"\n", x, x, y+6, bottom)
		if x-last > 72 && x < picWidth-picRight-20 {
			p.text("dim", x, y, "middle", t.Format(format))
			last = x
		}
	}
}

// span is a generation's bar.
type span struct {
	number                      int
	from, fades, until, expires time.Time
}

// lanes puts the generations of a token into as few rows as they fit into without touching.
func lanes(c *simulate.Course) [][]span {
	var out [][]span
	for i := range c.Lives {
		l := &c.Lives[i]
		s := span{number: l.Generation, from: l.Created, until: l.Ends(), fades: l.Ends(), expires: l.Expires}
		for j := i + 1; j < len(c.Lives); j++ { // the first successor that every sink held
			if at := c.Lives[j].Converged; !at.IsZero() {
				if at.Before(s.fades) {
					s.fades = at
				}
				break
			}
		}
		row := 0
		for row < len(out) && out[row][len(out[row])-1].expires.After(s.from) {
			row++
		}
		if row == len(out) {
			out = append(out, nil)
		}
		out[row] = append(out[row], s)
	}
	return out
}
