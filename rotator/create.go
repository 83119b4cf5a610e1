package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// create takes an entry from "a successor is due" to "id and hash are saved": preflight, intent,
// one POST, issued.
func (e *Engine) create(soft, hard context.Context, w *work, s Step) error {
	entry, rec := w.view()
	if err := e.preflight(soft, w, &entry, &rec); err != nil {
		return e.createFailed(soft, w, "preflight", rec.newestAsk(), err)
	}
	// Waiting for the limiter comes before the intent: an intent is followed by its POST at once.
	// Two requests: the create, and the proof that the new token works.
	asked := e.c.Now()
	if err := e.c.Pace(soft, 2); err != nil {
		return nil // only the context ends it
	}
	if e.c.Now().Sub(asked) > time.Minute { // the line was long: what the preflight saw is old
		if err := e.preflight(soft, w, &entry, &rec); err != nil {
			return e.createFailed(soft, w, "preflight", rec.newestAsk(), err)
		}
	}

	c := e.c.Now().UTC().Truncate(time.Second)
	g := Generation{
		Entry: entry.Name, Number: rec.Last + 1, Cause: s.Cause,
		Scopes: s.Scopes, Chatbots: s.Chatbots,
		Timing: entry.Timing.Fingerprint(), Intended: c,
	}
	g.Covers = entry.covers(c)
	g.Expires = entry.Timing.Expiry(c, g.since())
	g.Label = Label{
		Instance: e.c.Instance, Entry: g.Entry, Number: g.Number, Expires: g.Expires, Nonce: NewNonce(10),
	}.With(entry.Description)
	err := e.save(soft, w, func(r *Record) []Event {
		r.Last = g.Number
		r.Generations = slices.Insert(r.Generations, 0, g)
		r.Posts = append(slices.DeleteFunc(r.Posts, func(p Post) bool {
			return p.At.Before(c.Add(-24 * time.Hour))
		}), Post{At: c, Asked: s.Asked})
		r.OnRemove, r.Overlap = entry.OnRemove, entry.Timing.Overlap
		r.AskTried = rec.newestAsk()
		for i := range r.Sinks { // a new token is a new try; those that fail again wait longer
			r.Sinks[i].Retry.At = time.Time{}
		}
		ev := g.about(EventIntended)
		ev.Detail = s.Why
		if by, ok := strings.CutPrefix(s.Why, "asked by "); ok && s.Asked {
			ev.By = by
		}
		return []Event{ev}
	})
	if err != nil {
		return err
	}

	var issued Issued
	err = guard(func() (err error) {
		issued, err = e.c.API.Create(hard, Request{
			Label: g.Label, Scopes: g.Scopes, Chatbots: g.Chatbots, ExpiresAt: g.Expires,
		})
		return err
	})
	if err == nil && (issued.ID == "" || issued.Token.IsZero()) {
		err = errors.New("the answer holds no id or no token")
	}
	if err != nil {
		return e.notIssued(hard, w, g, s, err)
	}
	if err := e.issued(hard, w, g, s, issued); err != nil {
		return err
	}
	if err := e.proven(hard, issued.By); err != nil { // of another entry: this one has its token to bring to safety
		e.c.Warn(OwnName+": note that it made a token", err)
	}
	return nil
}

// errHeld says that the preflight found a sink that now waits for a person.
var errHeld = errors.New("a sink holds a value that is none of ours")

// preflight asks every required sink whether a push would work, and reads what it holds now.
func (e *Engine) preflight(ctx context.Context, w *work, entry *Entry, rec *Record) error {
	var outlets []*Outlet
	for i := range entry.Outlets {
		o := &entry.Outlets[i]
		if s := rec.Sink(o.Place); o.Required && (s == nil || s.Held == "") {
			outlets = append(outlets, o)
		}
	}
	errs := make([]error, len(outlets))
	e.aside(len(outlets), func(i int) {
		errs[i] = e.check(ctx, w, outlets[i], entry, rec)
	})
	for i, err := range errs {
		// A person was at this sink: it is settled from now on, and no reason to wait.
		if foreign := (*ForeignError)(nil); errors.As(err, &foreign) && !foreign.Prior {
			err := e.save(ctx, w, func(r *Record) []Event {
				ev := r.sink(outlets[i].Place).hold()
				ev.Place, ev.Sink = outlets[i].Place, outlets[i].Name
				return []Event{ev}
			})
			return errors.Join(errHeld, err)
		}
	}
	refused := map[string]error{}
	for i, err := range errs {
		if err != nil {
			refused[outlets[i].Place] = err
		}
	}
	return Preflight(entry, rec, refused, e.c.Now())
}

// Preflight says why no successor may be created while required sinks would not take it; nil: it
// may. refused holds what is in the way, by place. One dead sink stops the create only while the
// token that the healthy ones hold has half of its overlap left.
func Preflight(e *Entry, r *Record, refused map[string]error, now time.Time) error {
	var errs []error
	accepting, served, newest := false, false, 0
	for i := range e.Outlets {
		o := &e.Outlets[i]
		s := r.Sink(o.Place)
		if !o.Required || (s != nil && s.Held != "") {
			continue
		}
		if err := refused[o.Place]; err != nil {
			errs = append(errs, err)
			continue
		}
		accepting = true
		if s != nil {
			newest, served = max(newest, s.Holds), served || s.Ever
		}
	}
	bad := errors.Join(errs...)
	if bad == nil || !accepting {
		return bad
	}
	for _, a := range r.Asks {
		if a.Compromised && a.Revoke == 0 {
			return nil // the old one must die: whoever can take the new one gets it
		}
	}
	if g := r.Generation(newest); !served || (g != nil && g.Live(now) && g.Expires.Sub(now) >= e.Timing.Overlap/2) {
		return bad
	}
	return nil
}

// check is the preflight of one sink, which a create that follows need not repeat.
func (e *Engine) check(ctx context.Context, w *work, o *Outlet, entry *Entry, rec *Record) error {
	if err := e.checkSink(ctx, o, rec.Sink(o.Place), entry.OnDrift); err != nil {
		return err
	}
	w.mu.Lock()
	w.checked[o.Place] = rec.Last + 1
	w.mu.Unlock()
	return nil
}

// checkSink asks a sink: would a push work, and may it overwrite what is there?
func (e *Engine) checkSink(ctx context.Context, o *Outlet, s *SinkState, drift OnDrift) error {
	err := e.at(ctx, o, "check", o.Sink.Check)
	if err != nil {
		return err
	}
	value, err := e.readSink(ctx, o)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	case err != nil:
		return err
	}
	if err := e.mayOverwrite(o, s, value, drift); err != nil {
		return fmt.Errorf("%s: %w", o.Name, err)
	}
	return nil
}

// mayOverwrite refuses a value that is not ours to overwrite.
func (e *Engine) mayOverwrite(o *Outlet, s *SinkState, value Secret, drift OnDrift) error {
	if value.IsZero() {
		return nil
	}
	if _, ours := e.known.find(value.Hash(e.c.Key)); ours {
		return nil
	}
	if s != nil && s.Ever {
		if drift == DriftRestore || s.Yield {
			return nil
		}
		return &ForeignError{}
	}
	if value.IsToken() || o.TakeOver || s != nil && s.Yield {
		return nil
	}
	return &ForeignError{Prior: true}
}

// aside calls f(0) … f(n-1) side by side, or one after another where the engine has one worker.
func (e *Engine) aside(n int, f func(i int)) {
	if e.c.Workers == 1 || n == 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// at calls one of a sink's methods with the sink's own timeout. The error names the sink; what was
// being done there says the sink itself, unless it had no time to.
func (e *Engine) at(ctx context.Context, o *Outlet, doing string, f func(context.Context) error) error {
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	err := guard(func() error { return f(ctx) })
	if what := outageOf(err); what != "" {
		e.outages.note(o, what, e.c.Now(), err)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded) && o.Timeout > 0:
		return fmt.Errorf("%s: %s: no answer within %s: %w", o.Name, doing, span(o.Timeout), err)
	case errors.As(err, new(*PanicError)):
		return fmt.Errorf("%s: %s: %w", o.Name, doing, err)
	}
	return fmt.Errorf("%s: %w", o.Name, err)
}

// readSink reads what a sink holds.
func (e *Engine) readSink(ctx context.Context, o *Outlet) (value Secret, err error) {
	err = e.at(ctx, o, "read", func(ctx context.Context) (err error) {
		value, err = o.Sink.Read(ctx)
		return err
	})
	return value, err
}

// createFailed backs off before the next try; nothing was sent. asked is the newest wish that this
// try knew of.
func (e *Engine) createFailed(ctx context.Context, w *work, doing string, asked time.Time, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, errHeld) {
		if errs, ok := err.(interface{ Unwrap() []error }); ok && len(errs.Unwrap()) > 1 {
			return err
		}
		return nil // planned again at once, without that sink
	}
	entry, rec := w.view()
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event {
		at := r.Create.fail(w.name+"/create", now, entry.longest(&rec, now, 0), err)
		r.Problem, r.AskTried = doing, asked
		r.OnRemove, r.Overlap = entry.OnRemove, entry.Timing.Overlap
		return []Event{{Kind: EventFailed, Detail: doing, Error: err.Error(), Outage: outageOf(err), Next: at}}
	})
}

// notIssued sorts out a create that gave no token.
func (e *Engine) notIssued(ctx context.Context, w *work, g Generation, s Step, cause error) error {
	entry, rec := w.view()
	now := e.c.Now()
	limited := (*LimitedError)(nil)
	certain := errors.Is(cause, ErrRefused) || errors.As(cause, &limited)
	return e.save(ctx, w, func(r *Record) []Event {
		if !certain {
			ev := g.about(EventUnknown)
			ev.Error = cause.Error()
			ev.Detail = "searching for it before another create"
			p := r.Generation(g.Number)
			p.Retry = Retry{}
			return []Event{ev}
		}
		// Nothing was made: the number is free again, and the journal keeps the label.
		r.Generations = slices.DeleteFunc(r.Generations, func(x Generation) bool { return x.Number == g.Number })
		r.Last = g.Number - 1
		r.unpost(g.Intended)
		kind := EventRefused
		if limited != nil {
			kind = EventLimited
		}
		ev := g.about(kind)
		ev.Error = cause.Error()
		if t := rec.Target(now); t != nil && errors.Is(cause, ErrRejected) && !(SameSet(t.Scopes, s.Scopes) && SameSet(t.Chatbots, s.Chatbots)) {
			r.RefusedSpec = entry.spec()
			held := g.about(EventHeld)
			held.Detail = "the edit of scopes or chatbots is held; rotations go on with the last ones that worked"
			return []Event{ev, held}
		}
		ev.Next = r.Create.fail(w.name+"/create", now, entry.longest(&rec, now, 0), cause)
		r.Problem = "create"
		if errors.Is(cause, ErrUnauthorized) {
			r.Problem = "management"
		}
		return []Event{ev}
	})
}

// issued saves what was made, before anything else happens to it. What cannot be saved is revoked.
func (e *Engine) issued(ctx context.Context, w *work, g Generation, s Step, i Issued) error {
	entry, rec := w.view()
	now := e.c.Now()
	g.ID, g.Granted, g.Hash, g.Created = i.ID, i.Scopes, i.Token.Hash(e.c.Key), now
	if !i.ExpiresAt.IsZero() {
		g.Expires = i.ExpiresAt.UTC()
	}
	var short bool
	g.Planned, short = entry.Timing.Planned(entry.Name, g.since(), g.Expires)
	narrowed := e.narrowed(&entry, &rec, &g, now)

	w.mu.Lock()
	w.secrets[g.Number] = i.Token
	w.mu.Unlock()
	err := e.save(ctx, w, func(r *Record) []Event {
		p := r.Generation(g.Number)
		events := []Event{g.about(EventCreated)}
		events[0].Next, events[0].Detail = g.Planned, string(g.Cause)
		switch {
		case len(narrowed) > 0:
			g.Lost, g.RevokeAt = now, now
			ev := g.about(EventHeld)
			ev.Error = "the new token lacks what its predecessor was granted: " + strings.Join(narrowed, " ")
			if g.Cause == CauseSpec {
				r.RefusedSpec = entry.spec()
				ev.Detail = "it is revoked, and the edit of scopes is held"
			} else {
				r.Blocked = ev.Error
				ev.Detail = "it is revoked; the last quarter of the overlap would take it all the same; rotate tries again"
			}
			events = append(events, ev)
		default:
			r.Create, r.Problem, r.Blocked, r.BlockedUntil = Retry{}, "", "", time.Time{}
			if SameSet(g.Scopes, entry.Scopes) && SameSet(g.Chatbots, entry.Chatbots) {
				r.RefusedSpec = ""
			}
			if g.Granted != nil && !SameSet(g.Granted, g.Scopes) {
				ev := g.about(EventWarning)
				ev.Detail = "granted scopes differ from those requested; granted: " + strings.Join(g.Granted, " ")
				events = append(events, ev)
			}
			if short {
				ev := g.about(EventWarning)
				ev.Detail = fmt.Sprintf("the server granted %s, less than overlap and margin need", span(g.Expires.Sub(g.Intended)))
				events = append(events, ev)
			}
		}
		*p = g
		return events
	})
	if err == nil {
		return nil
	}
	// The record does not know the id: nobody would ever look after this token.
	w.mu.Lock()
	delete(w.secrets, g.Number)
	w.mu.Unlock()
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if rerr := guard(func() error { return e.c.API.Revoke(undo, i.ID) }); rerr != nil {
		return errors.Join(err, fmt.Errorf("revoke the token that could not be recorded: %w", rerr))
	}
	return err
}

// proven notes that generation n of our own token has made a token: only now may its predecessor go.
func (e *Engine) proven(ctx context.Context, n int) error {
	e.mu.Lock()
	w := e.works[OwnName]
	e.mu.Unlock()
	if w == nil {
		return nil
	}
	if g, ok := w.generation(n); !ok || !g.Used.IsZero() {
		return nil
	}
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event {
		if g := r.Generation(n); g != nil { // it may have been forgotten meanwhile
			g.Used = now
		}
		return nil
	})
}

// narrowed returns the scopes that were requested, that the predecessor was granted, and that the
// new token lacks. In the last quarter of the overlap it returns none: less is better than nothing.
func (e *Engine) narrowed(entry *Entry, rec *Record, g *Generation, now time.Time) []string {
	old := rec.Target(now)
	if old == nil || g.Granted == nil || entry.lastQuarter(rec, now, g.Number) {
		return nil
	}
	had := slices.DeleteFunc(slices.Clone(old.Granted), func(s string) bool { return !slices.Contains(g.Scopes, s) })
	return lacks(g.Granted, had)
}

// verify proves that a new token authenticates, before anybody is given it.
func (e *Engine) verify(ctx context.Context, w *work, s Step) error {
	g, ok := w.generation(s.Number)
	if !ok {
		return nil
	}
	secret, err := e.plaintext(ctx, w, &g)
	if err != nil || secret.IsZero() {
		return e.noPlaintext(ctx, w, g, err)
	}
	if g.Retry.Tries > 0 { // the first one was waited for before the create
		if err := e.c.Pace(ctx, 1); err != nil {
			return nil
		}
	}
	err = guard(func() error { return e.c.API.Verify(ctx, secret) })
	if err != nil && ctx.Err() != nil {
		return nil
	}
	entry, rec := w.view()
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event {
		p := r.Generation(s.Number)
		ev := p.about(EventVerified)
		switch {
		case err == nil:
			p.Verified, p.Retry, p.Suspect = now, Retry{}, time.Time{}
		case errors.Is(err, ErrUnauthorized) && !p.Suspect.IsZero() && now.Sub(p.Suspect) >= entry.settle():
			// It will not work any more: never given to anybody, so it may die at once.
			p.Lost, p.RevokeAt = now, now
			ev.Kind, ev.Error = EventDied, "the API refuses the token that it has just made"
			ev.Next = r.Create.fail(w.name+"/create", now, entry.longest(&rec, now, 0), err)
			r.Problem = "verify"
		default:
			if errors.Is(err, ErrUnauthorized) && p.Suspect.IsZero() {
				p.Suspect = now
			}
			ev.Kind, ev.Detail, ev.Error = EventFailed, "verify", err.Error()
			ev.Next = p.Retry.fail(w.name+"/verify", now, entry.longest(&rec, now, s.Number), err)
		}
		return []Event{ev}
	})
}

// search looks for the token of a create whose outcome is unknown. A token that is found is an
// orphan: nobody has its plaintext. Absence counts only in a complete list that is known to be
// current, twice, a settling time apart.
func (e *Engine) search(ctx context.Context, w *work, s Step) error {
	g, ok := w.generation(s.Number)
	if !ok {
		return nil
	}
	listed, err := e.lists.after(ctx, e)
	if err != nil && ctx.Err() != nil {
		return nil
	}
	entry, rec := w.view()
	now := e.c.Now()
	if err != nil {
		return e.save(ctx, w, func(r *Record) []Event {
			p := r.Generation(s.Number)
			ev := p.about(EventFailed)
			ev.Detail, ev.Error = "search for the token of an unknown create", err.Error()
			if errors.Is(err, ErrForbidden) && now.Sub(p.Intended) >= entry.settle() {
				// It can never be searched: the fuse bounds what this may cost.
				p.Closed, p.Retry = now, Retry{}
				ev.Kind = EventClosed
				ev.Detail = "the list is forbidden to the management token (it lacks tokens:read): a token may be left until it expires"
				return []Event{ev}
			}
			at := now.Add(entry.settle())
			if !errors.Is(err, ErrForbidden) {
				at = p.Retry.fail(w.name+"/search", now, entry.longest(&rec, now, 0), err)
			}
			p.Retry.At, ev.Next = at, at
			return []Event{ev}
		})
	}
	for _, l := range listed {
		if l.Name == g.Label && !rec.hasID(l.ID) {
			return e.revokeOrphan(ctx, w, s.Number, l)
		}
	}
	return e.save(ctx, w, func(r *Record) []Event {
		p := r.Generation(s.Number)
		switch {
		case !e.lists.current(listed, e):
			ev := p.about(EventFailed)
			ev.Detail, ev.Error = "search for the token of an unknown create", "the list lacks tokens that are known to be alive"
			ev.Next = p.Retry.fail(w.name+"/search", now, entry.longest(&rec, now, 0), errors.New(ev.Error))
			return []Event{ev}
		case p.Searched.IsZero():
			p.Searched = now
			p.Retry = Retry{At: now.Add(entry.settle())}
			return nil
		case now.Sub(p.Searched) < entry.settle():
			p.Retry.At = p.Searched.Add(entry.settle())
			return nil
		}
		p.Closed, p.Retry = now, Retry{}
		r.unpost(p.Intended) // the fuse counts what may have made a token
		ev := p.about(EventClosed)
		ev.Detail = "no token was made"
		ev.Next = r.Create.fail(w.name+"/create", now, entry.longest(&rec, now, 0), errors.New(OutcomeUnknown))
		r.Problem = "create"
		return []Event{ev}
	})
}

// revokeOrphan kills a token that bears the label of intent n, and closes the intent.
func (e *Engine) revokeOrphan(ctx context.Context, w *work, n int, l Listed) error {
	if err := e.c.Pace(ctx, 1); err != nil {
		return nil
	}
	err := guard(func() error { return e.c.API.Revoke(ctx, l.ID) })
	if err != nil && ctx.Err() != nil {
		return nil
	}
	entry, rec := w.view()
	now := e.c.Now()
	return e.save(ctx, w, func(r *Record) []Event {
		found := Event{Kind: EventOrphan, Generation: n, Label: l.Name, ID: l.ID, Detail: "made by a create whose answer was lost"}
		p := r.Generation(n)
		if err != nil {
			found.Error = err.Error()
			if p != nil {
				found.Next = p.Retry.fail(w.name+"/orphan", now, entry.longest(&rec, now, 0), err)
			}
			return []Event{found}
		}
		gone := Event{Kind: EventRevoked, Generation: n, Label: l.Name, ID: l.ID, Detail: "an orphan"}
		if p != nil && p.ID == "" && p.Closed.IsZero() {
			p.Closed, p.Retry = now, Retry{}
			gone.Next = r.Create.fail(w.name+"/create", now, entry.longest(&rec, now, 0), errors.New("the create's answer was lost"))
			r.Problem = "create"
		}
		return []Event{found, gone}
	})
}

// unpost takes back the count of a create that made nothing.
func (r *Record) unpost(at time.Time) {
	r.Posts = slices.DeleteFunc(r.Posts, func(p Post) bool { return p.At.Equal(at) })
}

// hasID reports whether the record holds a generation with this id.
func (r *Record) hasID(id string) bool {
	return slices.ContainsFunc(r.Generations, func(g Generation) bool { return g.ID == id })
}
