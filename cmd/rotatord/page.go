package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/monitor"
	"github.com/rotatord/rotatord/rotator/store"
)

const (
	sandboxListen = "127.0.0.1:7683" // of a rehearsal's page, where nobody names another address
	shareFor      = time.Second      // what one look found, among all who ask
)

// listen answers probes and shows the page, where that is wanted. shut ends it.
func (s *service) listen() (shut func(), err error) {
	l, err := s.bind()
	if l == nil || err != nil {
		return func() {}, err
	}
	at := l.Addr().String()
	if err := s.lock.Describe(func(h *store.Holder) { h.Listen = at }); err != nil {
		l.Close() //nolint:errcheck // it never answered
		return nil, err
	}
	d := &door{getenv: s.a.getenv, listen: s.address(), local: loopback(l.Addr()), warn: func(why string) {
		s.log.Warn("the page and the metrics are shown to nobody: monitor.token cannot be read", "error", why)
	}}
	c, _ := s.inForce()
	s.log.Info("answering probes", "at", at, "page", d.says(c.Monitor))
	ctx, cancel := context.WithCancel(context.Background()) // probes are answered while it stops, too
	var serving sync.WaitGroup
	serving.Go(func() {
		site := monitor.Site{Health: s.health(), Facts: monitor.Shared(s.a.now, shareFor, s.view), Metrics: s.metrics.Handler(), Access: func() monitor.Access {
			c, _ := s.inForce()
			return d.access(c.Monitor)
		}}
		if err := monitor.Serve(ctx, l, monitor.Handler(site), s.log); err != nil {
			s.log.Error("probes are answered no more", "error", err)
		}
	})
	return func() { cancel(); serving.Wait() }, nil
}

// address is the one that is wanted; "": none is.
func (s *service) address() string {
	c, _ := s.inForce()
	return cmp.Or(s.a.set.Listen, c.Monitor.Listen)
}

// bind takes the address; nil: none is wanted. A rehearsal shows its page even unasked, where it can.
func (s *service) bind() (net.Listener, error) {
	addr := s.address()
	if addr == "" {
		if s.a.inSandbox {
			for _, addr := range []string{sandboxListen, "127.0.0.1:0"} {
				if l, err := net.Listen("tcp", addr); err == nil {
					return l, nil
				}
			}
		}
		return nil, nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil { // the file's own was looked at when it was read
		return nil, usage("ROTATORD_LISTEN: %q is no address to listen on: write it like 127.0.0.1:9090", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("answer probes (ROTATORD_LISTEN, monitor.listen): %w", err)
	}
	return l, nil
}

// loopback reports whether no other machine reaches an address.
func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// minToken is the length from which on a token is not guessed.
const minToken = 16

// door decides who may look at the daemon. What the configuration says of it is taken over by a
// reload, and the token is read each time: another one counts at once.
type door struct {
	getenv func(string) string
	listen string // the address as it was named, whoever did: its name is known to be ours
	local  bool
	warn   func(why string)

	mu   sync.Mutex
	last string // why the token could not be read, as it was last told
}

func (d *door) access(m config.Monitor) monitor.Access {
	a := monitor.Access{Local: d.local, Insecure: m.Insecure, Hosts: m.Hosts}
	if host, _, err := net.SplitHostPort(d.listen); err == nil && host != "" {
		a.Hosts = append([]string{strings.ToLower(host)}, a.Hosts...)
	}
	if !m.Token.IsZero() {
		a.Token = func() (rotator.Secret, error) { return d.token(m) }
	}
	return a
}

// monitorToken reads what has to be shown.
func monitorToken(m config.Monitor, getenv func(string) string) (rotator.Secret, error) {
	text, err := m.Token.Read(getenv)
	if err == nil && len(text) < minToken {
		err = fmt.Errorf("%s: has fewer than %d characters: others could guess it (openssl rand -hex 32 makes a good one)", m.Token, minToken)
	}
	if err != nil {
		return rotator.Secret{}, err
	}
	return rotator.NewSecret(text), nil
}

// token reads what has to be shown; why it cannot is for the log, and not for who asks.
func (d *door) token(m config.Monitor) (rotator.Secret, error) {
	token, err := monitorToken(m, d.getenv)
	why := ""
	if err != nil {
		why = err.Error()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if why != "" && why != d.last {
		d.warn(why)
	}
	d.last = why
	if err != nil {
		return rotator.Secret{}, errors.New("monitor.token cannot be read")
	}
	return token, nil
}

// says who may look, in words; it tries to read the token.
func (d *door) says(m config.Monitor) string {
	a := d.access(m)
	switch {
	case a.Token != nil:
		if _, err := a.Token(); err != nil {
			return "for nobody"
		}
		return "for who has monitor.token"
	case d.local:
		return "for this machine"
	case a.Insecure:
		return "for everybody who reaches it (monitor.insecure)"
	}
	return "for nobody: others reach this address, and there is no monitor.token"
}
