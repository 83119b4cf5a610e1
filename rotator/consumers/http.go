package consumers

import (
	"context"
	"time"

	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/rotator/webhook"
)

// HTTP is a URL that is posted to when tokens changed: an answer of 2xx says that their user has the
// new values, or surely will. The body is JSON, signed with the shared secret, and holds no token.
type HTTP struct {
	webhook.Config `yaml:",inline"`
}

// Validate reports what is wrong with h.
func (h *HTTP) Validate(p field.Problems) {
	h.Config.Validate(p)
	if h.Secret == nil {
		p.At("secret").Errorf("is missing: the receiver restarts something, and should know who asks; write {file: PATH} of a text that you share with it")
	}
}

func (h *HTTP) title() string { return h.URL.Host() }

func (h *HTTP) open(name string, w World) Consumer {
	return &httpConsumer{name: name, instance: w.Instance, poster: webhook.New(h.Config, webhook.World{
		Getenv: w.Getenv, Now: w.Now, Agent: w.Agent, Transport: w.Transport,
	})}
}

type httpConsumer struct {
	name, instance string
	poster         *webhook.Poster
}

// Timeout implements Consumer.
func (h *httpConsumer) Timeout() time.Duration { return h.poster.Timeout() }

// Tell implements Consumer.
func (h *httpConsumer) Tell(ctx context.Context, changes []Change) (bool, error) {
	m := newMessage(h.name, h.instance, changes)
	err := h.poster.Post(ctx, m.ID, m.body())
	return err == nil, err
}

// Taken implements Consumer: whoever was told by another kind of consumer is told again.
func (*httpConsumer) Taken(context.Context) (Outcome, error) { return Lost, nil }

// Check implements Consumer.
func (h *httpConsumer) Check(ctx context.Context) (string, error) { return h.poster.Check(ctx) }
