package simulate

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// Process is one life of the daemon in a World: an engine that is dropped when it is cut off.
type Process struct {
	w *World
	e *rotator.Engine
}

// key is the instance's, in every world.
var key = []byte("key of the instance")

// Start loads entries into a fresh engine, as the daemon does when it starts.
func (w *World) Start(entries ...rotator.Entry) (*Process, error) {
	w.mu.Lock()
	w.offset, w.measured = 0, false // nothing of the clocks survives a process
	w.mu.Unlock()
	var api rotator.API = w.API
	if w.Through != nil {
		api = w.Through(api)
	}
	p := &Process{w: w, e: rotator.New(rotator.Config{
		API: api, Store: w.Store, Key: key, Instance: cmp.Or(w.Instance, "sim"),
		Now: w.Corrected, Local: w.Local, Measured: w.Measured, LookEvery: w.LookEvery,
		Each: w.Each, Workers: 1, ReadBack: w.ReadBack, Sweep: w.Sweep,
	})}
	return p, p.Load(entries...)
}

// Load hands a configuration to the engine, as a reload does.
func (p *Process) Load(entries ...rotator.Entry) error {
	return p.e.Load(context.Background(), entries)
}

// Engine returns the engine.
func (p *Process) Engine() *rotator.Engine { return p.e }

// Run looks until the given instant, jumping from wake to wake as the daemon's clock would pass
// them, and stops early when the process is dead. It fails when the engine spins.
func (p *Process) Run(until time.Time) error { return p.RunContext(context.Background(), until) }

// RunContext is Run until ctx ends.
func (p *Process) RunContext(stop context.Context, until time.Time) error {
	ctx := context.Background()
	n, hour := 0, p.w.Now()
	for ; ; n++ {
		if err := stop.Err(); err != nil {
			return err
		}
		p.e.Look(ctx, ctx)
		p.e.Wait()
		if p.w.Dead() {
			return nil
		}
		next := p.wake()
		now := p.w.Now()
		if !next.IsZero() { // from this machine's time to the true one
			next = next.Add(now.Sub(p.w.Corrected()))
		}
		if p.w.LookEvery > 0 {
			next = minTime(next, now.Add(p.w.LookEvery))
		}
		if next.IsZero() || next.After(until) {
			if until.After(now) {
				p.w.Set(until)
			}
			return nil
		}
		if now.Sub(hour) >= time.Hour {
			n, hour = 0, now
		}
		if n > 20_000 {
			return fmt.Errorf("the engine spins at %s", now)
		}
		if !next.After(now) {
			next = now.Add(time.Second)
		}
		p.w.Set(next)
	}
}

// wake is when the engine wants to look next.
func (p *Process) wake() time.Time {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing is started: only the instant is wanted
	return p.e.Look(ctx, ctx)
}

// Sleep lets the machine sleep until the given instant, with this process and all others on it.
func (p *Process) Sleep(until time.Time) { p.w.Set(until) }

func minTime(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
