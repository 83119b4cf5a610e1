package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.UTC)

// fresh opens a new state that ends with the test.
func fresh(t testing.TB, o Options) *Store {
	t.Helper()
	return reopen(t, filepath.Join(t.TempDir(), "state"), o)
}

func reopen(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// full is a record with something in every field.
func full(name string) rotator.Record {
	return rotator.Record{
		Name: name, Last: 7,
		Generations: []rotator.Generation{{
			Entry: name, Number: 7, Label: "rotatord/r-abc/" + name + "#7", ID: "tok_7", Cause: rotator.CausePlanned,
			Scopes: []string{"a:read"}, Granted: []string{"a:read"}, Hash: "beef", Timing: "@daily",
			Intended: noon, Created: noon, Expires: noon.Add(time.Hour), Planned: noon.Add(time.Minute),
			Retry: rotator.Retry{Tries: 1, At: noon, Error: "refused", Since: noon},
		}},
		Sinks:   []rotator.SinkState{{Place: "env_file:/x#K", Name: "x", Holds: 7, Since: noon, Proven: true}},
		Posts:   []rotator.Post{{At: noon, Asked: true}},
		Problem: "none", OnRemove: rotator.RemoveRevoke, Overlap: time.Hour,
		Past: []rotator.Past{{Number: 1, Hash: "cafe"}},
	}
}

func TestSaveAndReadBack(t *testing.T) {
	s := fresh(t, Options{})
	ctx := t.Context()
	r := full("kb-writer")
	events := []rotator.Event{
		{At: noon, Kind: rotator.EventIntended, Generation: 7, Label: "the label", Expires: noon.Add(time.Hour)},
		{
			At: noon.Add(time.Second), Kind: rotator.EventFailed, Entry: "kb-writer", Generation: 7, Label: "l", ID: "tok_7",
			Expires: noon.Add(time.Hour), Place: "p", Sink: "s", Detail: "d", Error: "e", Next: noon.Add(time.Minute), By: "me",
		},
	}
	must(t, s.Save(ctx, &r, events...))
	if r.Version != 1 {
		t.Fatalf("version %d after the first save", r.Version)
	}
	r.Last = 8
	must(t, s.Save(ctx, &r))

	got, ok, err := s.Record(ctx, "kb-writer")
	must(t, err)
	if !ok || !reflect.DeepEqual(got, r) {
		t.Errorf("read back\n%+v\nsaved\n%+v", got, r)
	}
	if _, ok, err := s.Record(ctx, "nobody"); ok || err != nil {
		t.Errorf("a record of nobody: %v, %v", ok, err)
	}
	events[0].Entry = "kb-writer" // filled in
	if got, err := s.History(ctx, Query{}); err != nil || !reflect.DeepEqual(got, events) {
		t.Errorf("history\n%+v, %v\nwrote\n%+v", got, err, events)
	}
	entry, ok, err := s.Intended(ctx, "the label")
	if entry != "kb-writer" || !ok || err != nil {
		t.Errorf("intended: %q %v %v", entry, ok, err)
	}
	if _, ok, err := s.Intended(ctx, "l"); ok || err != nil {
		t.Errorf("a label of another event counts as an intent: %v %v", ok, err)
	}
	if err := s.Save(ctx, &rotator.Record{}); err == nil {
		t.Error("a record without a name was saved")
	}
}

func TestConflictWritesNothing(t *testing.T) {
	s := fresh(t, Options{})
	ctx := t.Context()
	r := rotator.Record{Name: "a"}
	must(t, s.Save(ctx, &r))
	for name, stale := range map[string]rotator.Record{
		"made twice":      {Name: "a"},
		"an old version":  {Name: "a", Version: 7},
		"was never there": {Name: "b", Version: 1},
	} {
		before := stale.Clone()
		err := s.Save(ctx, &stale, rotator.Event{Kind: rotator.EventWarning})
		if !errors.Is(err, rotator.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(stale, before) {
			t.Errorf("%s: the caller's record was changed", name)
		}
	}
	if events, err := s.History(ctx, Query{}); err != nil || len(events) > 0 {
		t.Errorf("a save that lost left events: %v, %v", events, err)
	}
}

// One conflict, or one write that breaks the transaction, fails alone: the rest of its batch is saved.
func TestOneOfABatchFailsAlone(t *testing.T) {
	var mu sync.Mutex
	var told []string
	s := fresh(t, Options{Told: func(events []rotator.Event) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			told = append(told, e.Entry)
		}
	}})
	broken := errors.New("broken")
	save := func(r rotator.Record) *write {
		body, err := encode(&r)
		must(t, err)
		return &write{done: make(chan error, 1), do: func(ctx context.Context, tx *sql.Tx) ([]rotator.Event, error) {
			id, err := swapped(tx.QueryRowContext(ctx, `INSERT INTO records (name, version, body) VALUES ($1, 1, $2)
				ON CONFLICT (name) DO NOTHING RETURNING id`, r.Name, body))
			if err != nil {
				return nil, err
			}
			events := []rotator.Event{{Kind: rotator.EventWarning, Entry: r.Name}}
			return events, record(ctx, tx, id, events)
		}}
	}
	batch := []*write{
		save(rotator.Record{Name: "a"}),
		save(rotator.Record{Name: "a"}),
		{done: make(chan error, 1), do: func(ctx context.Context, tx *sql.Tx) ([]rotator.Event, error) {
			if _, err := tx.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ($1, $2)`, "half", "written"); err != nil {
				return nil, err
			}
			return nil, broken
		}},
		save(rotator.Record{Name: "b"}),
	}
	s.commit.commit(batch)
	for i, want := range []error{nil, rotator.ErrConflict, broken, nil} {
		if err := <-batch[i].done; !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i, err, want)
		}
	}
	if _, ok, err := s.Meta(t.Context(), "half"); ok || err != nil {
		t.Errorf("the broken write left something: %v %v", ok, err)
	}
	batch = []*write{save(rotator.Record{Name: "c"}), save(rotator.Record{Name: "a"}), save(rotator.Record{Name: "d"})}
	s.commit.commit(batch)
	for i, want := range []error{nil, rotator.ErrConflict, nil} {
		if err := <-batch[i].done; !errors.Is(err, want) {
			t.Errorf("write %d of the second batch: %v, want %v", i, err, want)
		}
	}
	records, err := s.Records(t.Context())
	must(t, err)
	if len(records) != 4 {
		t.Errorf("%d records, want a, b, c and d", len(records))
	}
	must(t, s.Close())
	if !slices.Equal(told, []string{"a", "b", "c", "d"}) {
		t.Errorf("told %v: want each event once, in order", told)
	}
}

func TestManySaveAtOnce(t *testing.T) {
	s := fresh(t, Options{})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			r := rotator.Record{Name: fmt.Sprintf("t-%02d", i)}
			for n := range 5 {
				r.Last = n
				if err := s.Save(context.Background(), &r, rotator.Event{Kind: rotator.EventWarning, Generation: n}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	records, err := s.Records(t.Context())
	must(t, err)
	for _, r := range records {
		if r.Version != 5 || r.Last != 4 {
			t.Errorf("%s: version %d, last %d", r.Name, r.Version, r.Last)
		}
	}
	events, err := s.History(t.Context(), Query{})
	must(t, err)
	if len(records) != 64 || len(events) != 320 {
		t.Errorf("%d records, %d events", len(records), len(events))
	}
}

// A caller who leaves while waiting wrote nothing; one who leaves while being written is told the truth.
func TestLeavingEarly(t *testing.T) {
	s := fresh(t, Options{})
	begun, goOn := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		first <- s.commit.do(ctx, func(ctx context.Context, tx *sql.Tx) ([]rotator.Event, error) {
			close(begun)
			<-goOn
			_, err := tx.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ('first', 'x')`)
			return nil, err
		})
	}()
	<-begun
	second := make(chan error, 1)
	go func() { second <- s.SetMeta(ctx, "second", "x") }()
	for queued := 0; queued == 0; {
		s.commit.mu.Lock()
		queued = len(s.commit.queue)
		s.commit.mu.Unlock()
	}
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that waited: %v", err)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Errorf("the one that was being written: %v", err)
	}
	if err := s.SetMeta(ctx, "third", "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("one that came too late: %v", err)
	}
	must(t, s.SetMeta(t.Context(), "last", "x"))
	for name, want := range map[string]bool{"first": true, "second": false, "third": false, "last": true} {
		if _, ok, err := s.Meta(t.Context(), name); ok != want || err != nil {
			t.Errorf("%s: %v %v, want %v", name, ok, err, want)
		}
	}
}

func TestListener(t *testing.T) {
	var got []int
	release := make(chan struct{})
	s := fresh(t, Options{Told: func(events []rotator.Event) {
		<-release // slow at first
		for _, e := range events {
			got = append(got, e.Generation)
		}
		if len(got)%2 == 0 {
			panic("a listener's mistake")
		}
	}})
	r := rotator.Record{Name: "a"}
	for n := range 10 {
		must(t, s.Save(t.Context(), &r, rotator.Event{Kind: rotator.EventWarning, Generation: n}))
	}
	stale := rotator.Record{Name: "a"}
	if err := s.Save(t.Context(), &stale, rotator.Event{Generation: 99}); !errors.Is(err, rotator.ErrConflict) {
		t.Error(err)
	}
	close(release)
	must(t, s.Close())
	if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	if err := s.Save(t.Context(), &r); !errors.Is(err, ErrClosed) {
		t.Errorf("a save after Close: %v", err)
	}
}

func TestRename(t *testing.T) {
	s := fresh(t, Options{})
	ctx := t.Context()
	r, other, third := full("old"), rotator.Record{Name: "taken"}, rotator.Record{Name: "third"}
	must(t, s.Save(ctx, &r, rotator.Event{At: noon, Kind: rotator.EventIntended, Label: "L"}))
	must(t, s.Save(ctx, &other))
	must(t, s.Save(ctx, &third))
	must(t, s.Ask(ctx, rotator.Ask{Entry: "old", Than: 7, Compromised: true, By: "me", At: noon}))
	must(t, s.Ask(ctx, rotator.Ask{Entry: "new", Than: 7, By: "me", At: noon}))

	stale := r.Clone()
	stale.Version = 9
	for name, try := range map[string]func() error{
		"a name that is taken": func() error { _, err := s.Rename(ctx, rotator.Renaming{Record: r, To: "taken"}); return err },
		"an old version":       func() error { _, err := s.Rename(ctx, rotator.Renaming{Record: stale, To: "new"}); return err },
		"a second that is taken": func() error {
			_, err := s.Rename(ctx, rotator.Renaming{Record: r, To: "new"}, rotator.Renaming{Record: third, To: "taken"})
			return err
		},
	} {
		if err := try(); !errors.Is(err, rotator.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
		if _, ok, err := s.Record(ctx, "old"); !ok || err != nil {
			t.Errorf("%s: the record has moved: %v", name, err)
		}
	}
	both, err := s.Rename(ctx,
		rotator.Renaming{Record: r, To: "new", Told: rotator.Event{At: noon, Kind: rotator.EventRenamed, Detail: "was old"}},
		rotator.Renaming{Record: third, To: "last", Told: rotator.Event{At: noon, Kind: rotator.EventRenamed}},
	)
	must(t, err)
	renamed := both[0]
	if _, ok, _ := s.Record(ctx, "last"); !ok || both[1].Name != "last" {
		t.Errorf("the second record: %v, %+v", ok, both[1])
	}
	if renamed.Name != "new" || renamed.Version != 2 || renamed.Generations[0].Entry != "new" || r.Generations[0].Entry != "old" {
		t.Errorf("renamed %+v from %+v", renamed, r)
	}
	must(t, s.Save(ctx, &renamed, rotator.Event{At: noon, Kind: rotator.EventWarning}))
	if _, ok, _ := s.Record(ctx, "old"); ok {
		t.Error("the old record is still there")
	}
	if entry, ok, err := s.Intended(ctx, "L"); entry != "new" || !ok || err != nil {
		t.Errorf("the intent belongs to %q, %v, %v", entry, ok, err)
	}
	asks, err := s.Asks(ctx)
	must(t, err)
	if len(asks) != 1 || asks[0].Entry != "new" || !asks[0].Compromised {
		t.Errorf("asks: %+v", asks)
	}
	for pattern, want := range map[string]int{"new": 5, "ne*": 5, "old": 2, "o?d": 2, "taken": 0} {
		if events, err := s.History(ctx, Query{Entries: []string{pattern}}); err != nil || len(events) != want {
			t.Errorf("history of %q: %d events, %v; want %d", pattern, len(events), err, want)
		}
	}
}

func TestHistory(t *testing.T) {
	s := fresh(t, Options{})
	ctx := t.Context()
	for i, name := range []string{"kb-reader", "kb_reader", "kb-writer", "a%b"} {
		r := rotator.Record{Name: name}
		for n := 1; n <= 3; n++ {
			kind := rotator.EventCreated
			if n == 3 {
				kind = rotator.EventFailed
			}
			must(t, s.Save(ctx, &r, rotator.Event{At: noon.Add(time.Duration(n) * time.Hour), Kind: kind, Generation: 10*i + n}))
		}
	}
	for name, c := range map[string]struct {
		q    Query
		want []int
	}{
		"all":            {Query{}, []int{1, 2, 3, 11, 12, 13, 21, 22, 23, 31, 32, 33}},
		"newest first":   {Query{Newest: true, Limit: 2}, []int{33, 32}},
		"oldest first":   {Query{Limit: 2}, []int{1, 2}},
		"one":            {Query{Entries: []string{"kb-writer"}}, []int{21, 22, 23}},
		"star":           {Query{Entries: []string{"kb-*"}, Newest: true, Limit: 4}, []int{23, 22, 21, 3}},
		"question mark":  {Query{Entries: []string{"kb?reader"}, Limit: 4}, []int{1, 2, 3, 11}},
		"no wild card _": {Query{Entries: []string{"kb_reader"}}, []int{11, 12, 13}},
		"class":          {Query{Entries: []string{"kb[_]*"}}, []int{11, 12, 13}},
		"percent":        {Query{Entries: []string{"*%b"}}, []int{31, 32, 33}},
		"escaped":        {Query{Entries: []string{`kb\_reader`}}, []int{11, 12, 13}},
		"since":          {Query{Entries: []string{"kb-reader"}, Since: noon.Add(2 * time.Hour)}, []int{2, 3}},
		"until":          {Query{Entries: []string{"kb-reader"}, Until: noon.Add(2 * time.Hour)}, []int{1}},
		"kinds":          {Query{Kinds: []rotator.EventKind{rotator.EventFailed, rotator.EventHeld}}, []int{3, 13, 23, 33}},
		"nothing":        {Query{Entries: []string{"KB-reader"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			events, err := s.History(ctx, c.q)
			must(t, err)
			var got []int
			for _, e := range events {
				got = append(got, e.Generation)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	if _, err := s.History(ctx, Query{Entries: []string{"["}}); err == nil {
		t.Error("a broken pattern was accepted")
	}
}

// Property: the prefilter in SQL never hides what path.Match would show.
func TestGlobsFindWhatTheyMatch(t *testing.T) {
	s := fresh(t, Options{})
	letters := rapid.StringOfN(rapid.RuneFrom([]rune(`ab_%!-`)), 1, 4, -1)
	pattern := rapid.StringOfN(rapid.RuneFrom([]rune(`ab_%!-*?[]\`)), 1, 5, -1)
	rapid.Check(t, func(t *rapid.T) {
		name, glob := letters.Draw(t, "name"), pattern.Draw(t, "glob")
		if _, err := s.History(context.Background(), Query{Entries: []string{glob}}); err != nil || !matches(glob, name) {
			return
		}
		var ok bool
		if err := s.db.QueryRow(`SELECT $1 LIKE $2 ESCAPE '!'`, name, like(glob)).Scan(&ok); err != nil || !ok {
			t.Fatalf("%q is hidden from %q (LIKE %q): %v", name, glob, like(glob), err)
		}
	})
}

func TestAsks(t *testing.T) {
	at := func(m int) time.Time { return noon.Add(time.Duration(m) * time.Minute) }
	plain := func(than, m int) rotator.Ask { return rotator.Ask{Entry: "a", Than: than, By: "me", At: at(m)} }
	compromised := func(than, m int) rotator.Ask {
		return rotator.Ask{Entry: "a", Than: than, Compromised: true, By: "you", At: at(m)}
	}
	revoke := func(n, m int) rotator.Ask { return rotator.Ask{Entry: "a", Revoke: n, By: "me", At: at(m)} }
	for name, c := range map[string]struct{ asks, want []rotator.Ask }{
		"once":                      {[]rotator.Ask{plain(5, 0)}, []rotator.Ask{plain(5, 0)}},
		"twice is once":             {[]rotator.Ask{plain(5, 0), plain(5, 1)}, []rotator.Ask{plain(5, 1)}},
		"a newer one":               {[]rotator.Ask{plain(5, 0), plain(6, 1)}, []rotator.Ask{plain(6, 1)}},
		"an older one":              {[]rotator.Ask{plain(6, 0), plain(5, 1)}, []rotator.Ask{plain(6, 0)}},
		"more of the same":          {[]rotator.Ask{plain(5, 0), compromised(5, 1)}, []rotator.Ask{compromised(5, 1)}},
		"less does not take back":   {[]rotator.Ask{compromised(5, 0), plain(5, 1)}, []rotator.Ask{{Entry: "a", Than: 5, Compromised: true, By: "me", At: at(1)}}},
		"compromised stays with 5":  {[]rotator.Ask{compromised(5, 0), plain(6, 1)}, []rotator.Ask{compromised(5, 0), plain(6, 1)}},
		"revocations are their own": {[]rotator.Ask{revoke(3, 0), plain(5, 0), revoke(4, 1)}, []rotator.Ask{plain(5, 0), revoke(3, 0), revoke(4, 1)}},
		"the fuse is one more wish": {
			[]rotator.Ask{plain(5, 0), {Entry: "a", Than: 5, Override: true, By: "me", At: at(1)}, plain(5, 2)},
			[]rotator.Ask{{Entry: "a", Than: 5, Override: true, By: "me", At: at(2)}},
		},
		"revoke ignores the rest": {[]rotator.Ask{{Entry: "a", Revoke: 3, Than: 9, Now: true, By: "me", At: at(0)}}, []rotator.Ask{revoke(3, 0)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := fresh(t, Options{})
			for _, a := range c.asks {
				must(t, s.Ask(t.Context(), a))
			}
			got, err := s.Asks(t.Context())
			must(t, err)
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, c.want)
			}
			events, err := s.History(t.Context(), Query{Entries: []string{"a"}, Kinds: []rotator.EventKind{rotator.EventAsked}})
			must(t, err)
			if len(events) != len(c.asks) || events[0].By != c.asks[0].By || events[0].Detail == "" {
				t.Errorf("the journal says %+v", events)
			}
		})
	}
	if err := fresh(t, Options{}).Ask(t.Context(), rotator.Ask{}); err == nil {
		t.Error("a wish for nobody was taken")
	}
}

func TestOrders(t *testing.T) {
	ctx, s := t.Context(), fresh(t, Options{})
	must(t, s.Ask(ctx, rotator.Ask{Entry: "a", Adopt: true, Sink: "vault", By: "me", At: noon}))
	must(t, s.Ask(ctx, rotator.Ask{Entry: "b", Pause: noon.Add(time.Hour), By: "me", At: noon}))
	must(t, s.Ask(ctx, rotator.Ask{Entry: "a", Adopt: true, Sink: "vault", By: "me", At: noon})) // each one is carried out
	got, err := s.Asks(ctx)
	must(t, err)
	want := []rotator.Ask{
		{Seq: 1, Entry: "a", Adopt: true, Sink: "vault", By: "me", At: noon},
		{Seq: 2, Entry: "b", Pause: noon.Add(time.Hour), By: "me", At: noon},
		{Seq: 3, Entry: "a", Adopt: true, Sink: "vault", By: "me", At: noon},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	events, err := s.History(ctx, Query{Kinds: []rotator.EventKind{rotator.EventAsked}})
	must(t, err)
	if len(events) != 3 || events[1].Next != noon.Add(time.Hour) || events[0].Sink != "vault" {
		t.Errorf("the journal says %+v", events)
	}
	_, err = s.Prune(ctx, noon.Add(rotator.MaxLifetime+time.Hour), noon)
	must(t, err)
	must(t, s.Ask(ctx, rotator.Ask{Entry: "a", Adopt: true, By: "me", At: noon.Add(rotator.MaxLifetime)}))
	if got, err = s.Asks(ctx); err != nil || len(got) != 1 || got[0].Seq != 4 {
		t.Errorf("after those were pruned: %+v %v; a number must never come again", got, err)
	}
}

func TestPrune(t *testing.T) {
	s := fresh(t, Options{})
	ctx := t.Context()
	day := 24 * time.Hour
	event := func(kind rotator.EventKind, age, expires time.Duration, label string) rotator.Event {
		e := rotator.Event{At: noon.Add(-age), Kind: kind, Label: label}
		if expires != 0 {
			e.Expires = noon.Add(expires)
		}
		return e
	}
	r := rotator.Record{Name: "a"}
	must(t, s.Save(ctx, &r,
		event(rotator.EventIntended, 90*day, 30*day, "keep: its token may live"),
		event(rotator.EventIntended, 90*day, 0, "keep: nobody knows its expiry"),
		event(rotator.EventIntended, 90*day, -60*day, "drop: intent"),
		event(rotator.EventCreated, 90*day, 30*day, "keep: where a living token comes from"),
		event(rotator.EventFailed, 90*day, 30*day, "drop: failure"),
		event(rotator.EventWarning, 90*day, 0, "drop: warning"),
		event(rotator.EventWarning, 10*day, 0, "keep: young"),
	))
	var many []rotator.Event
	for range pruneAtOnce {
		many = append(many, event(rotator.EventFailed, 80*day, 0, "drop: many"))
	}
	must(t, s.Save(ctx, &r, many...))
	must(t, s.Ask(ctx, rotator.Ask{Entry: "a", Than: 1, At: noon.Add(-90 * day)}))
	must(t, s.Ask(ctx, rotator.Ask{Entry: "b", Than: 1, At: noon.Add(-30*day - rotator.MaxLifetime - time.Hour)}))

	n, err := s.Prune(ctx, noon.Add(-30*day), noon)
	must(t, err)
	if want := pruneAtOnce + 3 + 2; n != want { // with the asked events
		t.Errorf("pruned %d, want %d", n, want)
	}
	events, err := s.History(ctx, Query{})
	must(t, err)
	kept := 0
	for _, e := range events {
		if strings.HasPrefix(e.Label, "drop") {
			t.Errorf("still there: %s", e.Label)
		}
		if strings.HasPrefix(e.Label, "keep") {
			kept++
		}
	}
	if kept != 4 {
		t.Errorf("%d kept, want 4", kept)
	}
	if entry, ok, err := s.Intended(ctx, "keep: its token may live"); entry != "a" || !ok || err != nil {
		t.Errorf("the intent of a living token is gone: %v %v", ok, err)
	}
	asks, err := s.Asks(ctx)
	must(t, err)
	if len(asks) != 1 || asks[0].Entry != "a" {
		t.Errorf("asks %+v, want that of a", asks)
	}
}

func TestMeta(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := reopen(t, dir, Options{})
	ctx := t.Context()
	key, err := s.Key(ctx)
	must(t, err)
	name, err := s.Instance(ctx, "", "alice", noon)
	must(t, err)
	if len(key) != 32 || len(name) != 8 || !instanceShape.MatchString(name) || !strings.HasPrefix(name, "r-") {
		t.Errorf("key of %d bytes, instance %q", len(key), name)
	}
	if _, _, ok, err := s.Pinned(ctx); ok || err != nil {
		t.Errorf("a new state is pinned: %v %v", ok, err)
	}
	must(t, s.Pin(ctx, "https://a.example", "u1"))
	must(t, s.Pin(ctx, "https://b.example", "u2"))
	for _, bad := range []string{"-a", "A", "a.b", "a/b", "much-too-long-name"} {
		if _, err := s.Instance(ctx, bad, "alice", noon); err == nil {
			t.Errorf("instance %q was accepted", bad)
		}
	}
	for _, bad := range []string{"", metaKey, ".x"} {
		if err := s.SetMeta(ctx, bad, "x"); err == nil {
			t.Errorf("meta %q was accepted", bad)
		}
	}
	must(t, s.SetMeta(ctx, "told", "1"))
	must(t, s.SetMeta(ctx, "told", "2"))
	if got, err := s.Instance(ctx, "prod", "alice", noon); got != "prod" || err != nil {
		t.Errorf("declared: %q, %v", got, err)
	}
	must(t, s.Close())

	s = reopen(t, dir, Options{})
	if again, err := s.Key(ctx); err != nil || !slices.Equal(again, key) {
		t.Errorf("the key changed: %v", err)
	}
	if got, err := s.Instance(ctx, "", "alice", noon); got != "prod" || err != nil {
		t.Errorf("the declared instance was forgotten: %q, %v", got, err)
	}
	if origin, user, ok, err := s.Pinned(ctx); origin != "https://b.example" || user != "u2" || !ok || err != nil {
		t.Errorf("pinned to %s %s %v %v", origin, user, ok, err)
	}
	if v, ok, err := s.Meta(ctx, "told"); v != "2" || !ok || err != nil {
		t.Errorf("told %q %v %v", v, ok, err)
	}
	if _, ok, err := s.Meta(ctx, "nothing"); ok || err != nil {
		t.Errorf("nothing: %v %v", ok, err)
	}
}

func TestDataVersion(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	daemon, command := reopen(t, dir, Options{}), reopen(t, dir, Options{})
	ctx := t.Context()
	look := func() int64 {
		v, err := daemon.DataVersion(ctx)
		must(t, err)
		return v
	}
	before := look()
	must(t, daemon.SetMeta(ctx, "mine", "x"))
	if v := look(); v != before {
		t.Errorf("its own write counts: %d, was %d", v, before)
	}
	must(t, command.Ask(ctx, rotator.Ask{Entry: "a", Than: 1, At: noon}))
	if v := look(); v == before {
		t.Error("the write of another one does not count")
	}
}

// Property: whatever several holders of copies do, the store agrees with a map.
func TestCompareAndSwapAgainstAModel(t *testing.T) {
	s := fresh(t, Options{})
	ctx := context.Background()
	if _, err := s.writer.Exec(`PRAGMA synchronous = OFF`); err != nil { // no power cut is played here
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		if _, err := s.writer.Exec(`DROP TRIGGER IF EXISTS events_kept; DELETE FROM events; DELETE FROM records`); err != nil {
			t.Fatal(err)
		}
		model := map[string]rotator.Record{}
		copies := []rotator.Record{{Name: "a"}} // somebody always holds one
		events := 0
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		t.Repeat(map[string]func(*rapid.T){
			"new": func(t *rapid.T) { copies = append(copies, rotator.Record{Name: name.Draw(t, "name")}) },
			"read": func(t *rapid.T) {
				if r, ok := model[name.Draw(t, "name")]; ok {
					copies = append(copies, r.Clone())
				}
			},
			"save": func(t *rapid.T) {
				r := &copies[rapid.IntRange(0, len(copies)-1).Draw(t, "copy")]
				r.Last = rapid.IntRange(0, 1000).Draw(t, "last")
				version := r.Version
				err := s.Save(ctx, r, rotator.Event{Kind: rotator.EventWarning})
				switch {
				case model[r.Name].Version != version:
					if !errors.Is(err, rotator.ErrConflict) || r.Version != version {
						t.Fatalf("stale save: %v, version %d", err, r.Version)
					}
				case err != nil || r.Version != version+1:
					t.Fatalf("good save: %v, version %d", err, r.Version)
				default:
					model[r.Name] = r.Clone()
					events++
				}
			},
			"rename": func(t *rapid.T) {
				r := copies[rapid.IntRange(0, len(copies)-1).Draw(t, "copy")]
				to := name.Draw(t, "to")
				_, taken := model[to]
				old, found := model[r.Name]
				got, err := s.Rename(ctx, rotator.Renaming{Record: r, To: to, Told: rotator.Event{Kind: rotator.EventRenamed}})
				if !found || old.Version != r.Version || taken {
					if !errors.Is(err, rotator.ErrConflict) {
						t.Fatalf("bad rename: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatalf("good rename: %v", err)
				}
				delete(model, r.Name)
				model[to] = got[0]
				copies = append(copies, got[0])
				events++
			},
			"": func(t *rapid.T) {
				got, err := s.Records(ctx)
				if err != nil {
					t.Fatal(err)
				}
				want := slices.SortedFunc(maps.Values(model), func(a, b rotator.Record) int { return cmp.Compare(a.Name, b.Name) })
				if len(got) != len(want) {
					t.Fatalf("%d records, want %d", len(got), len(want))
				}
				for i := range got {
					if got[i].Name != want[i].Name || got[i].Version != want[i].Version || got[i].Last != want[i].Last {
						t.Fatalf("stored %+v, want %+v", got[i], want[i])
					}
				}
				if h, err := s.History(ctx, Query{}); err != nil || len(h) != events {
					t.Fatalf("%d events, %v; want %d", len(h), err, events)
				}
			},
		})
	})
}

// No room: the save says so and leaves nothing; with room, the same Store works on.
func TestFullDisk(t *testing.T) {
	s := fresh(t, Options{})
	ctx := t.Context()
	r := rotator.Record{Name: "a"}
	must(t, s.Save(ctx, &r))
	pages := func(n int) {
		var got int
		must(t, s.writer.QueryRow(fmt.Sprintf(`PRAGMA max_page_count = %d`, n)).Scan(&got))
	}
	pages(1) // SQLite makes it the present size
	big := r.Clone()
	big.Problem = strings.Repeat("x", 1<<20)
	err := s.Save(ctx, &big, rotator.Event{Kind: rotator.EventWarning})
	if !errors.Is(err, ErrFull) || !strings.HasPrefix(err.Error(), "the disk is full: ") || !strings.Contains(err.Error(), filepath.Dir(s.Path())) {
		t.Fatalf("on a full disk: %v", err)
	}
	if got, _, err := s.Record(ctx, "a"); err != nil || got.Version != 1 || big.Version != 1 || got.Problem != "" {
		t.Fatalf("half of it was written: version %d, %v", got.Version, err)
	}
	if events, err := s.History(ctx, Query{}); err != nil || len(events) > 0 {
		t.Fatalf("events without their record: %v, %v", events, err)
	}
	// The big one must not take the small ones along.
	var wg sync.WaitGroup
	wg.Go(func() { err = s.Save(ctx, &big) })
	wg.Go(func() {
		if err := s.SetMeta(ctx, "small", "x"); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	if !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	pages(1 << 30)
	must(t, s.Save(ctx, &big))
}

func FuzzRecord(f *testing.F) {
	r := full("a")
	body, err := encode(&r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a", []byte(body))
	f.Add("a", []byte(`{"name":"a","of_a_newer_version":1}`))
	f.Add("a", []byte(`{"name":"a"}{}`))
	f.Add("a", []byte(`null`))
	f.Add("", []byte(`{"name":"a","generations":[{"expires":"2026-13-01"}]}`))
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		r, err := decode(name, body)
		if err != nil || name == "" {
			return
		}
		first, err := encode(&r)
		if err != nil {
			t.Fatalf("decoded, and cannot be encoded: %v", err)
		}
		again, err := decode(r.Name, []byte(first))
		if err != nil {
			t.Fatalf("encoded, and cannot be decoded: %v", err)
		}
		second, err := encode(&again)
		if err != nil || first != second {
			t.Fatalf("round trip\n%s\n%s\n%v", first, second, err)
		}
		// What can be read can be looked at, whoever wrote it: this must not panic.
		now := time.Date(2026, time.November, 25, 12, 0, 0, 0, time.UTC)
		e := rotator.Entry{Name: r.Name, Removed: len(body)%2 == 0, Outlets: []rotator.Outlet{{Place: "file:/a", Name: "a", Required: true}}}
		rotator.Plan(&e, &r, now)
		rotator.Describe([]rotator.Entry{e}, []rotator.Record{r}, now)
	})
}

func TestDecodeNoticesWhatItDoesNotKnow(t *testing.T) {
	for name, body := range map[string]string{
		"a new field":         `{"name":"a","leases":3}`,
		"a new nested field":  `{"name":"a","generations":[{"number":1,"color":"red"}]}`,
		"another type":        `{"name":"a","last":"7"}`,
		"something behind it": `{"name":"a"} {}`,
		"garbage behind it":   `{"name":"a"}}`,
		"another name":        `{"name":"b"}`,
		"cut off":             `{"name":"a"`,
		"nothing":             ``,
		"null":                `null`,
	} {
		if _, err := decode("a", []byte(body)); err == nil || !strings.Contains(err.Error(), `record "a"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decode("a", []byte(`{"name":"a"}`+"\n")); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

// BenchmarkSave measures what sharing writes to the disk is worth: the ratio is the time of a
// thousand saves one by one over that of the same saves from 32 goroutines.
func BenchmarkSave(b *testing.B) {
	const saves, workers = 1000, 32
	s := fresh(b, Options{})
	records := make([]rotator.Record, saves)
	for i := range records {
		records[i] = full(fmt.Sprintf("t-%03d", i))
	}
	save := func(i int) {
		if err := s.Save(context.Background(), &records[i], rotator.Event{At: noon, Kind: rotator.EventWarning}); err != nil {
			b.Error(err)
		}
	}
	var alone, together time.Duration
	for b.Loop() {
		start := time.Now()
		for i := range saves {
			save(i)
		}
		alone += time.Since(start)
		start = time.Now()
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := w; i < saves; i += workers {
					save(i)
				}
			})
		}
		wg.Wait()
		together += time.Since(start)
	}
	n := float64(b.N * saves)
	b.ReportMetric(float64(alone.Microseconds())/n, "µs/save-alone")
	b.ReportMetric(float64(together.Microseconds())/n, "µs/save-together")
	b.ReportMetric(float64(alone)/float64(together), "ratio")
}

func TestNoFileOfTheStateIsReadableByOthers(t *testing.T) {
	s := fresh(t, Options{})
	must(t, s.SetMeta(t.Context(), "a", "b")) // makes the log
	dir := filepath.Dir(s.Path())
	l, err := TakeLock(t.Context(), dir, Holder{Kind: Daemon})
	must(t, err)
	defer l.Unlock() //nolint:errcheck // only its mode matters
	st, err := os.Stat(dir)
	must(t, err)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %o", st.Mode().Perm())
	}
	files, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
		if st, err := f.Info(); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s has mode %o, %v", f.Name(), st.Mode(), err)
		}
	}
	if want := []string{File, File + "-shm", File + "-wal", LockFile}; !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
}

func TestNewInstance(t *testing.T) {
	ctx, s := t.Context(), fresh(t, Options{})
	first, err := s.Instance(ctx, "", "alice", noon)
	must(t, err)
	was, is, err := s.NewInstance(ctx, "", "me", noon)
	if err != nil || was != first || is == was {
		t.Errorf("%q %q %v", was, is, err)
	}
	if _, is, err = s.NewInstance(ctx, "acme-2", "me", noon); err != nil || is != "acme-2" {
		t.Errorf("%q %v", is, err)
	}
	if got, err := s.Instance(ctx, "", "alice", noon); got != "acme-2" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if got, err := s.Instance(ctx, "declared", "alice", noon); got != "declared" || err != nil { // no token bears a name yet
		t.Errorf("%q %v", got, err)
	}
	must(t, s.Pin(ctx, "https://sitegpt.ai", "usr_1"))
	if got, err := s.Instance(ctx, "acme-3", "alice", noon); got != "acme-3" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if _, _, err := s.NewInstance(ctx, "Not A Name", "me", noon); err == nil {
		t.Error("a name that fits into no label was taken")
	}
	events, err := s.History(ctx, Query{Kinds: []rotator.EventKind{rotator.EventRenamed}})
	must(t, err)
	if len(events) != 3 || events[0].By != "me" || !strings.Contains(events[1].Detail, "acme-2") || events[2].By != "alice" || !strings.Contains(events[2].Detail, "acme-3") {
		t.Errorf("the journal says %+v", events)
	}
}

func TestHolderTellsHowItIs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	lock, err := TakeLock(t.Context(), dir, Holder{Kind: Daemon, Command: "run"})
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	at := time.Date(2026, 11, 30, 3, 0, 0, 0, time.UTC)
	if err := lock.Describe(func(h *Holder) { h.Listen = "127.0.0.1:" + strings.Repeat("9", 60) }); err != nil {
		t.Fatal(err)
	}
	if err := lock.Describe(func(h *Holder) { h.Listen, h.Ready = "127.0.0.1:9", at }); err != nil {
		t.Fatal(err)
	}
	held, ok, err := Holding(dir)
	if err != nil || !ok || held.Listen != "127.0.0.1:9" || !held.Ready.Equal(at) || held.PID != os.Getpid() || held.Command != "run" {
		t.Errorf("the holder is %+v, %v, %v", held, ok, err)
	}
	if err := lock.Beat(at); err != nil {
		t.Fatal(err)
	}
	if moved, err := Moved(dir); err != nil || !moved.Equal(at) {
		t.Errorf("it moved at %s, %v, want %s", moved, err, at)
	}
}
