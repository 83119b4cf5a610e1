package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// keepDead is how long a file keeps tokens that are revoked or expired.
const keepDead = 7 * 24 * time.Hour

// kept is the file's content: hashes, no plaintext.
type kept struct {
	Version int      `json:"version"`
	Tokens  []*token `json:"tokens"`
}

// Open returns a server that finds the tokens of its last run in file, and keeps them there from
// then on: each change is written, as a whole and with mode 0600, before it is answered. One
// process may use a file at a time. The management token is not kept: each start mints its own.
func Open(file string, o Options) (*Server, error) {
	s := New(o)
	s.file = file
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	var k kept
	if json.Unmarshal(b, &k) != nil || k.Version != 1 {
		return nil, fmt.Errorf("sandbox: %s is no file of this sandbox; remove it to start afresh", file)
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	management := s.tokens[0]
	mint := true
	s.tokens, s.seq = nil, 0
	for _, t := range k.Tokens {
		dead := t.Expires
		if !t.Revoked.IsZero() {
			dead = t.Revoked
		}
		if t.ID == "" || t.Hash == "" || t.Seq <= s.seq {
			return nil, fmt.Errorf("sandbox: %s is damaged; remove it to start afresh", file)
		}
		if t.Hash == management.Hash {
			// The given management token is one that was made here: it stays what it is.
			mint = false
			delete(s.byID, management.ID)
		} else if now.Sub(dead) > keepDead {
			s.seq = t.Seq
			continue
		}
		s.add(t)
	}
	if mint {
		management.Seq = 0
		s.add(management)
	}
	return s, nil
}

// save makes sure that file holds version, or a later one. Callers that wait for another one's
// writing find their own change already written.
func (s *Server) save(version int) error {
	if s.file == "" {
		return nil
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	if s.saved >= version {
		return nil
	}
	s.mu.Lock()
	k := kept{Version: 1, Tokens: []*token{}}
	for _, t := range s.tokens {
		if !t.management {
			k.Tokens = append(k.Tokens, t)
		}
	}
	now := s.version
	b, err := json.Marshal(k)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := replace(s.file, b); err != nil {
		return err
	}
	s.saved = now
	return nil
}

// replace writes file as a whole: a process that dies leaves the old content or the new one. It
// does not wait for the disk: these tokens are worth nothing after a power cut.
func replace(file string, b []byte) error {
	temp := file + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, file)
}
