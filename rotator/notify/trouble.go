package notify

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// trouble is one cause of problems: of one, or of five hundred.
type trouble struct {
	key    string
	worst  rotator.Problem // the most urgent of them
	tokens []string        // that have it, sorted
	since  time.Time       // of the first
	breaks time.Time       // the first instant at which somebody is left with a dead token
	roots  []string        // of an outage: the ends of the errors that it showed itself by
}

// group puts problems together that have one cause. known are the outages that were told of, and the
// errors that they showed themselves by: what an outage left behind belongs to it until it is mended.
func group(problems []rotator.Problem, known map[string]*told) []*trouble {
	outages := map[string]string{} // the end of an error → the outage that it comes from
	for key, t := range known {
		for _, root := range t.Roots {
			outages[root] = strings.TrimPrefix(key, outageKey)
		}
	}
	for i := range problems {
		if p := &problems[i]; p.Outage != "" && p.Error != "" {
			outages[tail(p.Error, 3)] = p.Outage
		}
	}
	api := "" // the trouble with the API that shows itself by an error, if there is one
	note := func(key string) {
		if strings.HasPrefix(key, apiKey) && key > api {
			api = key
		}
	}
	problems = slices.Clone(problems)
	keys := make([]string, len(problems))
	for i := range problems {
		p := &problems[i]
		switch p.Kind {
		case rotator.ProblemConsumer, rotator.ProblemNotify, rotator.ProblemConfiguration, rotator.ProblemManagement:
		default:
			if p.Outage == "" && p.Error != "" {
				p.Outage = outages[tail(p.Error, 3)]
			}
		}
		keys[i] = causeOf(p)
		note(keys[i])
	}
	for key := range known {
		note(key)
	}
	all := map[string]*trouble{}
	var order []*trouble
	for i, p := range problems {
		key := keys[i]
		if key == apiKey && api != "" {
			key = api
		}
		t := all[key]
		if t == nil {
			t = &trouble{key: key, worst: p, since: p.Since, breaks: p.Breaks}
			all[key] = t
			order = append(order, t)
		}
		if rotator.Urgency(&p, &t.worst) < 0 {
			t.worst = p
		}
		if p.Token != "" {
			t.tokens = append(t.tokens, p.Token)
		}
		if !p.Since.IsZero() && (t.since.IsZero() || p.Since.Before(t.since)) {
			t.since = p.Since
		}
		if !p.Breaks.IsZero() && (t.breaks.IsZero() || p.Breaks.Before(t.breaks)) {
			t.breaks = p.Breaks
		}
		if p.Outage != "" && p.Error != "" {
			if root := tail(p.Error, 3); !slices.Contains(t.roots, root) && len(t.roots) < 8 {
				t.roots = append(t.roots, root)
			}
		}
	}
	for _, t := range order {
		slices.Sort(t.tokens)
		t.tokens = slices.Compact(t.tokens)
	}
	slices.SortStableFunc(order, func(a, b *trouble) int {
		return cmp.Or(rotator.Urgency(&a.worst, &b.worst), cmp.Compare(a.key, b.key))
	})
	return order
}

const (
	outageKey = "outage "
	apiKey    = "api "
)

// causeOf tells problems apart that need different remedies, and no others.
func causeOf(p *rotator.Problem) string {
	if p.Outage != "" {
		return outageKey + p.Outage
	}
	switch p.Kind {
	case rotator.ProblemManagement, rotator.ProblemOwnExpiry, rotator.ProblemConfiguration:
		return string(p.Kind)
	case rotator.ProblemConsumer, rotator.ProblemNotify:
		return string(p.Kind) + " " + p.Consumer
	case rotator.ProblemCreate, rotator.ProblemUnknown, rotator.ProblemVerify, rotator.ProblemRevoke:
		if p.Error != "" && p.Error != rotator.OutcomeUnknown { // SiteGPT's, whatever was asked of it
			return apiKey + tail(p.Error, 1)
		}
		if p.Kind == rotator.ProblemUnknown || p.Error != "" { // of whatever made the outcome unknown
			return apiKey
		}
	case rotator.ProblemPreflight, rotator.ProblemSink, rotator.ProblemUnread:
		if p.Error != "" { // a sink's, whatever was wanted of it
			return "sink " + tail(p.Error, 1)
		}
	}
	if p.Error != "" {
		return string(p.Kind) + " " + tail(p.Error, 1)
	}
	return string(p.Kind) + " " + numberless(p.What)
}

// numberless is text with # for each number, which differs where nothing else does.
func numberless(text string) string {
	var b strings.Builder
	within := false
	for _, r := range text {
		digit := '0' <= r && r <= '9'
		switch {
		case !digit:
			b.WriteRune(r)
		case !within:
			b.WriteByte('#')
		}
		within = digit
	}
	return b.String()
}

// tail is the end of an error, where its cause stands: so many of its parts, in its first line.
func tail(text string, parts int) string {
	text, _, _ = strings.Cut(text, "\n")
	all := strings.Split(text, ": ")
	end := strings.Join(all[max(0, len(all)-parts):], ": ")
	if parts == 1 {
		end = numberless(end)
	}
	return end
}

// level is how urgent it is: 2 where somebody has no working token now, 1 where that comes soon.
func (t *trouble) level(now time.Time) int {
	switch left := t.breaks.Sub(now); {
	case t.breaks.IsZero() || left > time.Hour:
		return 0
	case left > 0:
		return 1
	}
	return 2
}
