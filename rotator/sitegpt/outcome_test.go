package sitegpt_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

// seen notes what an observer is told.
type seen struct {
	mu  sync.Mutex
	all []string
}

func (s *seen) watch(c *sitegpt.Config) {
	c.Observe = func(op, outcome string, took time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if took < 0 || !slices.Contains(sitegpt.Operations(), op) || !slices.Contains(sitegpt.Outcomes(), outcome) {
			outcome += "?"
		}
		s.all = append(s.all, op+" "+outcome)
	}
}

func (s *seen) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	s.all = nil
	return all
}

func TestEveryRequestIsObserved(t *testing.T) {
	var s seen
	_, c := start(t, sandbox.Behavior{}, s.watch)
	issued, err := c.Create(t.Context(), request("x"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		c.Health(t.Context()), c.Verify(t.Context(), issued.Token), c.Revoke(t.Context(), issued.ID), c.Revoke(t.Context(), "tok_gone"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := c.List(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Verify(t.Context(), issued.Token); err == nil {
		t.Error("a revoked token works")
	}
	want := []string{"create ok", "health ok", "verify ok", "revoke ok", "revoke ok", "list ok", "verify unauthorized"}
	if got := s.take(); !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestOutcomes(t *testing.T) {
	const no = `{"ok":false,"error":{"code":"%s","message":"no"}}`
	for _, test := range []struct {
		status                 int
		body                   string
		create, verify, revoke string
	}{
		{200, `{"ok":true}`, "ok", "ok", "ok"},
		{200, `<html>`, "strange", "strange", "strange"},
		{301, ``, "strange", "strange", "strange"},
		{400, fmt.Sprintf(no, "X"), "refused", "refused", "refused"},
		{401, fmt.Sprintf(no, "TOKEN_NOT_VALID"), "unauthorized", "unauthorized", "unauthorized"},
		{403, fmt.Sprintf(no, "TOKEN_SCOPE_NOT_ALLOWED"), "forbidden", "ok", "forbidden"},
		{404, fmt.Sprintf(no, "X"), "refused", "refused", "ok"},
		{404, `<html>`, "strange", "strange", "strange"},
		{429, ``, "limited", "limited", "limited"},
		{503, `<html>`, "server_error", "server_error", "server_error"},
	} {
		var s seen
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(test.status)
			fmt.Fprint(w, test.body)
		}, s.watch)
		c.Create(t.Context(), request("x"))                //nolint:errcheck // the outcome is asked for
		c.Verify(t.Context(), rotator.NewSecret("sgpt_x")) //nolint:errcheck // the outcome is asked for
		c.Revoke(t.Context(), "t1")                        //nolint:errcheck // the outcome is asked for
		want := []string{"create " + test.create, "verify " + test.verify, "revoke " + test.revoke}
		if got := s.take(); !slices.Equal(got, want) {
			t.Errorf("%d %s: %q, want %q", test.status, test.body, got, want)
		}
	}

	var s seen
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, s.watch,
		func(c *sitegpt.Config) { c.Timeout = 100 * time.Millisecond })
	c.Health(t.Context()) //nolint:errcheck // the outcome is asked for
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	c.Health(ctx)                                                //nolint:errcheck // the outcome is asked for
	client(t, "http://127.0.0.1:1", s.watch).Health(t.Context()) //nolint:errcheck // the outcome is asked for
	if got := s.take(); !slices.Equal(got, []string{"health no_answer", "health canceled", "health no_answer"}) {
		t.Errorf("%q", got)
	}
}
