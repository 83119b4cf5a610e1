package vaultkv

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// mount is what Vault says of a KV engine. All sinks of a connection share it: a thousand secrets
// need no thousand questions.
type mount struct {
	version int // of the engine
	at      time.Time
}

// mountFresh is how long a preflight believes what another one has found out about a mount.
const mountFresh = time.Minute

// lookup asks Vault which version of KV is mounted, unless it said so not longer ago than fresh.
// Any token with a permission below the mount may ask.
func (c *Client) lookup(ctx context.Context, name string, fresh time.Duration) (int, error) {
	if version := c.mounted(name, fresh); version != 0 {
		return version, nil
	}
	unlock, err := c.lock(ctx, "mount "+name)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if version := c.mounted(name, fresh); version != 0 { // who was faster has asked
		return version, nil
	}
	var answer struct {
		Data struct {
			Type    string            `json:"type"`
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	if err := c.do(ctx, http.MethodGet, "sys/internal/ui/mounts/"+name, nil, &answer); err != nil {
		return 0, err
	}
	version := 1
	switch typ := answer.Data.Type; {
	case typ != "kv" && typ != "generic":
		return 0, fmt.Errorf("vault: mount %s is an engine of the type %q, not kv: look at mount", name, typ)
	case answer.Data.Options["version"] == "2":
		version = 2
	}
	c.mountsMu.Lock()
	c.mounts[name] = mount{version, c.now()}
	c.mountsMu.Unlock()
	return version, nil
}

// mounted returns what is known of a mount for less than fresh; 0: nothing.
func (c *Client) mounted(name string, fresh time.Duration) int {
	c.mountsMu.Lock()
	defer c.mountsMu.Unlock()
	if m, ok := c.mounts[name]; ok && c.now().Sub(m.at) < fresh {
		return m.version
	}
	return 0
}

// forgetMount makes the next lookup ask again.
func (c *Client) forgetMount(name string) {
	c.mountsMu.Lock()
	defer c.mountsMu.Unlock()
	delete(c.mounts, name)
}

// detect finds out the engine's version where it is not known yet.
func (s *Sink) detect(ctx context.Context) error {
	if s.version != 0 {
		return nil
	}
	version, err := s.client.lookup(ctx, s.config.Mount, 24*time.Hour)
	if err != nil {
		if n, e := status(err); n == http.StatusForbidden && e.Hint == "" {
			e.Hint = s.unreached()
		}
		return err
	}
	s.version = version
	return nil
}

// moved forgets what is known of the mount: something else is there now.
func (s *Sink) moved() {
	s.version, s.last = s.config.KVVersion, sighting{}
	s.client.forgetMount(s.config.Mount)
}
