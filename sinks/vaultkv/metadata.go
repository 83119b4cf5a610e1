package vaultkv

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/rotatord/rotatord/rotator"
)

// metadata is what Vault tells of a secret without its data.
type metadata struct {
	version int // the latest one
	created time.Time
	gone    bool // it was deleted or destroyed
}

// metadata reads the secret's metadata.
func (s *Sink) metadata(ctx context.Context) (metadata, error) {
	var answer struct {
		Data struct {
			Current  int `json:"current_version"`
			Versions map[string]struct {
				Created   time.Time `json:"created_time"`
				Deleted   string    `json:"deletion_time"`
				Destroyed bool      `json:"destroyed"`
			} `json:"versions"`
		} `json:"data"`
	}
	if err := s.client.do(ctx, http.MethodGet, s.metadataPath(), nil, &answer); err != nil {
		return metadata{}, err
	}
	m := metadata{version: answer.Data.Current}
	v, ok := answer.Data.Versions[strconv.Itoa(m.version)]
	if !ok {
		return m, nil // nothing was ever written: no reading has the version 0
	}
	m.created = v.Created
	m.gone = v.Destroyed
	if v.Deleted != "" { // it may lie ahead: delete_version_after
		at, err := time.Parse(time.RFC3339Nano, v.Deleted)
		m.gone = m.gone || err != nil || !at.After(s.client.now())
	}
	return m, nil
}

// describe says in the secret's custom metadata what was pushed, for people who look at it in Vault.
// The keys begin with the entry, since the metadata belong to the whole secret. The token is in
// place by now: what fails here is no failure of the push. Check knows whether it will.
func (s *Sink) describe(ctx context.Context, g rotator.Generation) {
	if !s.config.Metadata || s.version != 2 {
		return
	}
	about := map[string]string{}
	add := func(name, value string) {
		if value != "" && len(g.Entry)+1+len(name) <= 128 && len(value) <= 512 {
			about[g.Entry+"."+name] = value
		}
	}
	add("token_id", g.ID)
	add("generation", strconv.Itoa(g.Number))
	add("expires_at", g.Expires.UTC().Format(time.RFC3339))
	add("label", g.Label)
	s.client.do(ctx, http.MethodPatch, s.metadataPath(), map[string]any{"custom_metadata": about}, nil) //nolint:errcheck // see above
}

func (s *Sink) metadataPath() string { return s.config.Mount + "/metadata/" + s.config.Path }
