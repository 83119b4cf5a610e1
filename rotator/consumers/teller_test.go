package consumers_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/consumers"
	"github.com/rotatord/rotatord/rotator/simulate"
)

// slow is a consumer that hangs until its time is over, as often as it is to.
type slow struct {
	program
	hang int

	mu    sync.Mutex
	at    []time.Time // each telling's begin
	inUse bool
}

func (s *slow) Tell(ctx context.Context, changes []consumers.Change) (bool, error) {
	s.mu.Lock()
	if s.inUse {
		panic("told twice at once")
	}
	s.inUse = true
	s.at = append(s.at, time.Now())
	hang := s.hang
	s.hang--
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.inUse = false; s.mu.Unlock() }()
	if hang > 0 {
		<-ctx.Done()
		return false, ctx.Err()
	}
	return s.program.Tell(ctx, changes)
}

// A consumer that hangs delays nobody but itself, is given up at its own timeout, and is told in the end.
func TestHangingConsumerDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := simulate.New(time.Now())
		p, err := w.Start(entry(w, "a", "hangs", "works"), entry(w, "b", "works"))
		if err != nil {
			t.Fatal(err)
		}
		hangs, works := &slow{hang: 3}, &slow{}
		teller := consumers.Teller{
			Engine: p.Engine(), Now: w.Now, Failed: func(err error) { t.Error(err) },
			Consumers: func(name string) consumers.Consumer {
				if name == "hangs" {
					return hangs
				}
				return works
			},
		}
		looks := 0
		begin := time.Now()
		for ; time.Since(begin) < 20*time.Minute; time.Sleep(2 * time.Second) {
			if err := p.Run(time.Now()); err != nil {
				t.Fatal(err)
			}
			before := time.Now()
			teller.Look(t.Context(), false)
			if d := time.Since(before); d > 0 {
				t.Fatalf("a look took %s", d)
			}
			looks++
			synctest.Wait()
			if looks == 2 && !slices.Equal(works.told, []string{"a 1, b 1"}) {
				t.Errorf("while another one hangs, it was told %q", works.told)
			}
			entries, records := p.Engine().Snapshot()
			rep := rotator.Describe(entries, records, w.Now())
			failing := slices.ContainsFunc(rep.Problems, func(p rotator.Problem) bool {
				return p.Kind == rotator.ProblemConsumer && p.Consumer == "hangs.service" && strings.Contains(p.Error, "deadline")
			})
			if between := len(hangs.at) >= 2 && len(hangs.told) == 0; failing != between && len(hangs.at) != 1 {
				t.Fatalf("after %d tellings, its problem is shown: %v", len(hangs.at), failing)
			}
		}
		teller.Wait()
		if len(hangs.at) != 4 || !slices.Equal(hangs.told, []string{"a 1"}) {
			t.Errorf("it was told at %v, and took %q", hangs.at, hangs.told)
		}
		for i := 1; i < len(hangs.at); i++ {
			if d := hangs.at[i].Sub(hangs.at[i-1]); d < hangs.Timeout()+time.Second {
				t.Errorf("it was told again after %s: no timeout, or no backoff", d)
			}
		}
		if !slices.Equal(works.told, []string{"a 1, b 1"}) {
			t.Errorf("the other one was told %q", works.told)
		}
	})
}

// One that fails ten times works in the end, without a telling too many, and no rotation waited.
func TestConsumerFailsTenTimes(t *testing.T) {
	s := begin(t, func(w *simulate.World) []rotator.Entry { return []rotator.Entry{entry(w, "a", "bot")} })
	s.err = errors.New("not yet")
	tries := 0
	for now := start; tries < 11 && now.Before(start.Add(60*time.Hour)); now = now.Add(30 * time.Second) {
		if err := s.p.Run(now); err != nil {
			t.Fatal(err)
		}
		before := s.w.Store.Record("a")
		s.look()
		c := s.w.Store.Record("a").Consumers[0]
		if len(before.Consumers) == 0 || c.Retry.Tries != before.Consumers[0].Retry.Tries {
			tries++
		}
		if c.Retry.Tries == 10 {
			s.err = nil
		}
	}
	if tries != 11 || len(s.told) != 1 {
		t.Errorf("it was told %d times, and took %q", tries, s.told)
	}
	if r := s.w.Store.Record("a"); r.Consumers[0].Taken != r.Last || r.Consumers[0].Retry.Tries != 0 {
		t.Errorf("in the end: %+v, of %d generations", r.Consumers[0], r.Last)
	}
	var told []rotator.EventKind
	for _, ev := range s.w.Store.Journal {
		if ev.Detail == "bot.service" {
			told = append(told, ev.Kind)
		}
	}
	if !slices.Equal(told, []rotator.EventKind{rotator.EventTold, rotator.EventTaken}) {
		t.Errorf("the journal says %q: whether it was taken, nobody could prove later", told)
	}
}
