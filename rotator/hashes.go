package rotator

import "sync"

// hashes knows the hash of every plaintext that was ever ours.
type hashes struct {
	mu sync.Mutex
	of map[string]owner
}

type owner struct {
	entry  string
	number int
}

func (h *hashes) add(r *Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = map[string]owner{}
	}
	for i := range r.Generations {
		if g := &r.Generations[i]; g.Hash != "" {
			h.of[g.Hash] = owner{r.Name, g.Number}
		}
	}
	for _, p := range r.Past {
		h.of[p.Hash] = owner{r.Name, p.Number}
	}
}

func (h *hashes) find(hash string) (owner, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o, ok := h.of[hash]
	return o, ok
}
