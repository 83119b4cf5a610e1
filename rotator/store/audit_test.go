package store

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// What stands in the journal stays as it is, whoever writes to the file by whatever statement.
func TestJournalIsAppendOnly(t *testing.T) {
	ctx, s := t.Context(), fresh(t, Options{})
	r := rotator.Record{Name: "a"}
	must(t, s.Save(ctx, &r, rotator.Event{At: noon, Kind: rotator.EventCreated, ID: "tok_1"}, rotator.Event{At: noon, Kind: rotator.EventRevoked, ID: "tok_1"}))
	before, err := s.History(ctx, Query{})
	must(t, err)
	for _, q := range []string{
		`UPDATE events SET done_by = 'nobody'`,
		`UPDATE events SET seq = seq + 1000`,
		`UPDATE events SET at = 0 WHERE kind = 'revoked'`,
		`DELETE FROM events`,
		`DELETE FROM events WHERE seq = (SELECT MAX(seq) FROM events)`,
		`INSERT OR REPLACE INTO events SELECT * FROM events`,
		`REPLACE INTO events (seq, at, kind, entry, generation, label, token_id, place, sink, detail, error, done_by)
			VALUES (1, 0, 'created', 'b', 1, '', '', '', '', '', '', '')`,
	} {
		if _, err := s.writer.ExecContext(ctx, q); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", q, err)
		}
	}
	// An instant before which may be dropped lets go of nothing that is younger.
	if _, err := s.writer.ExecContext(ctx, `INSERT INTO meta VALUES ('.pruning', $1)`, noon.UnixMicro()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.writer.ExecContext(ctx, `DELETE FROM events`); err == nil {
		t.Error("what is as young as the limit was deleted")
	}
	if after, err := s.History(ctx, Query{}); err != nil || !slices.Equal(before, after) {
		t.Errorf("the journal is %+v, %v; it was %+v", after, err, before)
	}
}

// A rename of a record leaves what was written under the old name, and is followed by who asks.
func TestHistoryThroughARename(t *testing.T) {
	ctx, s := t.Context(), fresh(t, Options{})
	r := rotator.Record{Name: "old"}
	must(t, s.Save(ctx, &r, rotator.Event{At: noon, Kind: rotator.EventCreated}))
	_, err := s.Rename(ctx, rotator.Renaming{Record: r, To: "new", Told: rotator.Event{At: noon, Kind: rotator.EventRenamed, Detail: "was old"}})
	must(t, err)
	must(t, s.Tell(ctx, rotator.Event{At: noon, Kind: rotator.EventStarted, Version: "v1"}))
	for _, c := range []struct {
		q    Query
		want []string
	}{
		{Query{Entries: []string{"new"}}, []string{"old", "new"}},
		{Query{Entries: []string{"old"}}, []string{"old"}},
		{Query{Entries: []string{"old", "new"}, Renamed: true}, []string{"new", "new"}},
		{Query{Entries: []string{"n*"}, Renamed: true, Plus: true}, []string{"new", "new", ""}},
	} {
		events, err := s.History(ctx, c.q)
		must(t, err)
		var names []string
		for _, e := range events {
			names = append(names, e.Entry)
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("%+v: %q, want %q", c.q, names, c.want)
		}
	}
}

// Pruning says what it dropped, and keeps whatever tells how a living token came and went.
func TestPruneLeavesATrace(t *testing.T) {
	ctx, s, day := t.Context(), fresh(t, Options{}), 24*time.Hour
	old, live := noon.Add(-90*day), noon.Add(200*day)
	r := rotator.Record{Name: "a"}
	var events []rotator.Event
	lasts := []rotator.EventKind{
		rotator.EventIntended, rotator.EventCreated, rotator.EventVerified, rotator.EventPushed, rotator.EventConverged,
		rotator.EventAdopted, rotator.EventLost, rotator.EventRevoked, rotator.EventDied,
	}
	for _, k := range lasts {
		events = append(events, rotator.Event{At: old, Kind: k, Generation: 1, Expires: live})
	}
	must(t, s.Save(ctx, &r, events...))
	for _, k := range []rotator.EventKind{rotator.EventConfigured, rotator.EventAccount, rotator.EventStarted} {
		must(t, s.Tell(ctx, rotator.Event{At: old, Kind: k, Hash: "h1", Version: "v1"}, rotator.Event{At: old, Kind: k, Hash: "h2", Version: "v2"}))
	}
	before := noon.Add(-30 * day)
	n, err := s.Prune(ctx, before, noon)
	if err != nil || n != 3 {
		t.Errorf("%d were dropped, %v; want the first of each pair", n, err)
	}
	left, err := s.History(ctx, Query{})
	must(t, err)
	if len(left) != len(lasts)+3+1 {
		t.Fatalf("%d are left: %+v", len(left), left)
	}
	for _, e := range left[len(lasts) : len(lasts)+3] {
		if e.Hash != "h2" || e.Version != "v2" {
			t.Errorf("%+v is not the last one of its kind", e)
		}
	}
	if trace := left[len(left)-1]; trace.Kind != rotator.EventPruned || !trace.Next.Equal(before) || !trace.At.Equal(noon) || !strings.Contains(trace.Detail, "3 events") {
		t.Errorf("the trace is %+v", trace)
	}
	if n, err := s.Prune(ctx, before, noon); n != 0 || err != nil {
		t.Errorf("again: %d %v", n, err)
	}
	if again, err := s.History(ctx, Query{}); err != nil || len(again) != len(left) {
		t.Errorf("where nothing is dropped, nothing is told: %+v %v", again, err)
	}
	if _, ok, err := s.Meta(ctx, metaPruning); ok || err != nil {
		t.Errorf("the door stays open: %v %v", ok, err)
	}
}
