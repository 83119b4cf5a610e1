package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
)

// eachOf calls f(0) … f(n-1) on all processors, and tells a person at a terminal how far that is. what
// is done with each.
func (a *app) eachOf(n int, what string, f func(i int) error) error {
	p := &progress{all: n, what: what}
	if terminal(a.stderr) {
		p.w = a.stderr
	}
	p.say()
	defer p.end()
	errs := make([]error, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range n {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = f(i)
			p.one()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// progress is one line that is written again and again, and is gone at the end.
type progress struct {
	w    io.Writer // nil: nobody looks
	all  int
	what string

	mu   sync.Mutex
	done int
	wide int // what is on the line
}

func (p *progress) one() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	p.say()
}

func (p *progress) say() {
	if p.w == nil {
		return
	}
	line := fmt.Sprintf("%d of %d %s", p.done, p.all, p.what)
	fmt.Fprint(p.w, "\r"+line) // it never gets shorter
	p.wide = len(line)
}

func (p *progress) end() {
	if p.wide > 0 {
		fmt.Fprint(p.w, "\r"+strings.Repeat(" ", p.wide)+"\r")
	}
}
