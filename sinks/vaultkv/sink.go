package vaultkv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/rotatord/rotatord/rotator"
)

// Sink is one key of one secret.
type Sink struct {
	config  Config
	client  *Client
	version int  // of the KV engine; 0 until it is known
	noPatch bool // policies allow none, or Vault is too old for it
	noMeta  bool // the metadata may not be read
	last    sighting

	advice []string // of the last Check

	turn chan struct{} // held through each call: the engine also asks for others whether an outage is over
}

// begin waits until no other call is under way.
func (s *Sink) begin(ctx context.Context) (end func(), err error) {
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("vault: %s: wait for another request about it: %w", s.path(), ctx.Err())
	}
}

// sighting is what the sink was last seen to hold. It is only ever a hint for a write, which names
// the version, and an answer only while the metadata show the very same version.
type sighting struct {
	version int       // 0: none
	created time.Time // a secret that was wiped counts from 1 again
	value   rotator.Secret
}

// New returns the sink that c, which Resolve has seen, declares in the Vault of client.
func New(c Config, client *Client) *Sink {
	return &Sink{config: c, client: client, version: c.KVVersion, turn: make(chan struct{}, 1)}
}

var _ rotator.Sink = (*Sink)(nil)

// maxTries bounds how often a push reads again because somebody else was faster.
const maxTries = 16

// writeGrace is how long a push whose time is over waits for the answer to its write.
const writeGrace = 2 * time.Second

// casMismatch is in Vault's words where the version is not the one that a write names.
const casMismatch = "check-and-set parameter did not match"

// Push makes the key hold the token; see the package's comment on how. Where the key holds
// something that is no string, nothing is written.
func (s *Sink) Push(ctx context.Context, g rotator.Generation, secret rotator.Secret) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := s.detect(ctx); err != nil {
		return err
	}
	unlock, err := s.client.lock(ctx, s.config.Mount+"/"+s.config.Path)
	if err != nil {
		return err
	}
	defer unlock()
	if !utf8.ValidString(secret.Reveal()) {
		return errors.New("vault: the token is not UTF-8, and JSON cannot hold it")
	}
	// What was seen last is good enough to begin with: check-and-set tells if it is not.
	cur := current{known: true, alive: true, version: s.last.version}
	guess := s.version == 2 && !s.noPatch && s.last.version != 0 && s.last.value.Reveal() != secret.Reveal()
	for range maxTries {
		if !guess {
			if cur, err = s.look(ctx); err != nil {
				return err
			}
			held, err := s.value(cur)
			if err != nil {
				return err
			}
			if held.Reveal() == secret.Reveal() {
				return nil
			}
		}
		guess, s.last = false, sighting{}
		patch := s.version == 2 && cur.alive && !s.noPatch
		err = s.write(ctx, cur, secret, patch)
		n, e := status(err)
		switch {
		case err == nil:
			s.describe(ctx, g)
			return nil
		case s.version == 2 && n == http.StatusBadRequest && e.says(casMismatch):
			// Somebody else wrote. Read again.
		case patch && n == http.StatusNotFound:
			// Somebody else deleted it. Read again.
		case patch && (n == http.StatusForbidden && e.Hint == "" || n == http.StatusMethodNotAllowed):
			s.noPatch = true // not permitted, or an old Vault: write it whole
		case n == http.StatusForbidden:
			return s.denied(e)
		default:
			return err
		}
	}
	return fmt.Errorf("vault: %s: somebody else changes the secret all the time: gave up after %d tries", s.path(), maxTries)
}

// Read returns what the key holds; the zero Secret where the secret or its key is missing,
// deleted, empty or null. A value that is no string is an error that matches
// *rotator.ForeignError.
func (s *Sink) Read(ctx context.Context) (rotator.Secret, error) {
	end, err := s.begin(ctx)
	if err != nil {
		return rotator.Secret{}, err
	}
	defer end()
	if err := s.detect(ctx); err != nil {
		return rotator.Secret{}, err
	}
	if s.last.version != 0 && !s.noMeta {
		m, err := s.metadata(ctx)
		switch n, _ := status(err); {
		case err == nil && m.version == s.last.version && m.created.Equal(s.last.created) && !m.gone:
			return s.last.value, nil
		case err == nil && m.gone:
			s.last = sighting{}
			return rotator.Secret{}, nil
		case n == http.StatusForbidden, n == http.StatusNotFound:
			s.noMeta = n == http.StatusForbidden // a missing secret is told apart from a missing mount by its data
		case err != nil:
			return rotator.Secret{}, err
		}
	}
	cur, err := s.look(ctx)
	if err != nil {
		return rotator.Secret{}, err
	}
	return s.value(cur)
}

// look reads the secret, and notes what was seen.
func (s *Sink) look(ctx context.Context) (current, error) {
	s.last = sighting{}
	cur, err := s.read(ctx)
	if err != nil {
		return current{}, err
	}
	if value, err := s.value(cur); err == nil && s.version == 2 && cur.alive {
		s.last = sighting{version: cur.version, created: cur.created, value: value}
	}
	return cur, nil
}

// current is the secret as Vault holds it now.
type current struct {
	known   bool                       // Vault knows of the secret, alive or deleted
	alive   bool                       // its latest version is neither deleted nor destroyed
	data    map[string]json.RawMessage // of the latest version
	version int                        // the latest one, for check-and-set
	created time.Time                  // the latest version
}

func (s *Sink) read(ctx context.Context) (current, error) {
	var answer struct {
		Data     json.RawMessage `json:"data"`
		Warnings []string        `json:"warnings"`
	}
	err := s.client.do(ctx, http.MethodGet, s.path(), nil, &answer)
	n, e := status(err)
	missing := len(answer.Data) == 0 || bytes.Equal(answer.Data, []byte("null"))
	switch {
	case n == http.StatusNotFound && missing && len(answer.Warnings) > 0:
		// The other version of the engine is mounted there, for one.
		s.moved()
		for _, w := range answer.Warnings {
			e.Words = append(e.Words, tidy(w))
		}
		return current{}, e
	case n == http.StatusNotFound && e.says("no handler for route"):
		s.moved()
		e.Hint = "mount " + s.config.Mount + " does not exist: look at mount, and at the namespace"
		return current{}, e
	case n == http.StatusNotFound && (len(e.Words) > 0 || e.Hint != ""):
		return current{}, err
	case n == http.StatusForbidden:
		return current{}, s.denied(e)
	case err != nil && n != http.StatusNotFound:
		return current{}, err
	}
	if n == http.StatusNotFound && missing {
		return current{}, nil // never written
	}
	if s.version == 1 {
		var data map[string]json.RawMessage
		if json.Unmarshal(answer.Data, &data) != nil {
			return current{}, s.strange()
		}
		return current{known: n == 0, alive: n == 0, data: data}, nil
	}
	var v2 struct {
		Data     map[string]json.RawMessage `json:"data"`
		Metadata struct {
			Version *int      `json:"version"`
			Created time.Time `json:"created_time"`
		} `json:"metadata"`
	}
	if json.Unmarshal(answer.Data, &v2) != nil || v2.Metadata.Version == nil {
		return current{}, s.strange()
	}
	if n == http.StatusNotFound {
		v2.Data = nil // deleted or destroyed
	} else if v2.Data == nil {
		v2.Data = map[string]json.RawMessage{}
	}
	return current{known: true, alive: n == 0, data: v2.Data, version: *v2.Metadata.Version, created: v2.Metadata.Created}, nil
}

func (s *Sink) strange() error {
	return fmt.Errorf("vault: GET %s: the answer is not that of a KV version %d engine: look at mount and kv_version", s.path(), s.version)
}

// value returns what the key holds.
func (s *Sink) value(cur current) (rotator.Secret, error) {
	raw, ok := cur.data[s.config.Key]
	if !ok || bytes.Equal(raw, []byte("null")) {
		return rotator.Secret{}, nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return rotator.Secret{}, fmt.Errorf("vault: %s: key %q is no string: %w", s.path(), s.config.Key, &rotator.ForeignError{Prior: true})
	}
	return rotator.NewSecret(text), nil
}

// write changes the key in Vault, provided that the secret still is as cur says.
func (s *Sink) write(ctx context.Context, cur current, secret rotator.Secret, patch bool) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("vault: write %s: not begun: %w", s.path(), err)
	}
	lenient, cancel := extend(ctx, writeGrace)
	defer cancel()
	err := s.send(lenient, cur, secret, patch)
	if n, _ := status(err); err != nil && n == 0 && lenient.Err() != nil && ctx.Err() != nil {
		return fmt.Errorf("vault: write %s: no answer in time, and it may still be carried out: %w", s.path(), ctx.Err())
	}
	return err
}

// extend returns a context that ends a while after ctx does.
func extend(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(by)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-out.Done():
		}
	})
	return out, func() { stop(); cancel() }
}

func (s *Sink) send(ctx context.Context, cur current, secret rotator.Secret, patch bool) error {
	value, err := json.Marshal(secret.Reveal())
	if err != nil {
		return errors.New("vault: the token cannot be written as JSON")
	}
	data := map[string]json.RawMessage{s.config.Key: value}
	method := http.MethodPatch
	if !patch {
		method = http.MethodPut
		whole := maps.Clone(cur.data)
		if whole == nil {
			whole = map[string]json.RawMessage{}
		}
		whole[s.config.Key] = value
		data = whole
	}
	if s.version == 1 {
		return s.client.do(ctx, method, s.path(), data, nil)
	}
	return s.client.do(ctx, method, s.path(), map[string]any{
		"options": map[string]int{"cas": cur.version},
		"data":    data,
	}, nil)
}

// path is where Vault's API has the secret.
func (s *Sink) path() string {
	if s.version == 1 {
		return s.config.Mount + "/" + s.config.Path
	}
	return s.config.Mount + "/data/" + s.config.Path
}
