package sandbox

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/rotatord/rotatord/rotator/sitegpt"
)

// reply is an answer before it is written: the data of a success, or an error's code and message.
type reply struct {
	status        int
	data          any
	code, message string
	header        http.Header
}

func refuse(status int, code, format string, args ...any) reply {
	return reply{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// encode returns the envelope as it goes over the wire.
func (r reply) encode() []byte {
	env := map[string]any{"ok": r.code == "", "meta": map[string]any{"requestId": "req_" + random(12)}}
	if r.code == "" {
		env["data"] = r.data
	} else {
		env["error"] = map[string]any{"code": r.code, "message": r.message}
	}
	b, err := json.Marshal(env)
	if err != nil {
		panic(fmt.Sprintf("sandbox: an answer cannot be encoded: %v", err)) // only our own types go in
	}
	return append(b, '\n')
}

// exchange is one request on its way through the server.
type exchange struct {
	http   *http.Request
	op     Op
	id     string // of the token in the path
	allow  string // the methods that the route has; "": there is no such route
	body   []byte
	log    *Request // guarded by the server's mutex
	fault  *Fault
	caller *token
}

func (x *exchange) struck(k Kind) bool { return x.fault != nil && x.fault.Kind == k }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.control != nil && strings.HasPrefix(r.URL.Path, "/_sandbox/") {
		s.control.ServeHTTP(w, r)
		return
	}
	x := &exchange{http: r}
	x.route()
	// The body is read before anything else: only then does net/http notice a client that goes.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	x.body = body
	s.enter(x)
	if err != nil {
		s.write(w, x, refuse(http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", "the body cannot be read, or is larger than 1 MiB"))
		return
	}
	if x.fault != nil && s.before(w, x, x.fault) {
		return
	}
	answer := s.answer(x)
	if x.fault != nil && answer.code == "" {
		s.after(w, x, x.fault, answer)
		return
	}
	s.write(w, x, answer)
}

// route finds out what the request wants.
func (x *exchange) route() {
	x.op = OpNone
	var ops map[string]Op
	path := x.http.URL.EscapedPath()
	switch path {
	case "/api/v2/tokens":
		ops = map[string]Op{http.MethodGet: OpList, http.MethodPost: OpCreate}
	case "/api/v2/me":
		ops = map[string]Op{http.MethodGet: OpMe}
	case "/api/v2/health":
		ops = map[string]Op{http.MethodGet: OpHealth}
	default:
		rest, ok := strings.CutPrefix(path, "/api/v2/tokens/")
		id, err := url.PathUnescape(rest)
		if !ok || rest == "" || strings.Contains(rest, "/") || err != nil {
			return
		}
		x.id = id
		ops = map[string]Op{http.MethodDelete: OpRevoke}
	}
	var allow []string
	for m := range ops {
		allow = append(allow, m)
	}
	slices.Sort(allow)
	x.allow = strings.Join(allow, ", ")
	if op, ok := ops[x.http.Method]; ok {
		x.op = op
	}
}

// enter logs the request and draws the fault that strikes it.
func (s *Server) enter(x *exchange) {
	x.log = &Request{At: s.now().UTC(), Op: x.op, Method: x.http.Method, Path: x.http.URL.RequestURI()}
	if x.op == OpCreate {
		x.log.Body = string(x.body)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[x.op]++
	if len(s.log) >= maxLog {
		s.log = slices.Clone(s.log[maxLog/2:])
	}
	s.log = append(s.log, x.log)
	if x.op != OpNone {
		x.fault = s.draw(x.op)
	}
	if x.fault != nil {
		x.log.Fault = x.fault.Kind
	}
}

// write sends an answer.
func (s *Server) write(w http.ResponseWriter, x *exchange, r reply) {
	for k, v := range r.header {
		w.Header()[k] = v
	}
	body := r.encode()
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	s.head(w, x, r.status)
	w.Write(body) //nolint:errcheck // the client may be gone
}

// head sends the status and what every answer has, and completes the log.
func (s *Server) head(w http.ResponseWriter, x *exchange, status int) {
	h := w.Header()
	h.Set("Date", s.now().UTC().Format(http.TimeFormat))
	h.Set("Cache-Control", "no-store")
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json; charset=utf-8")
	}
	s.mu.Lock()
	x.log.Status = status
	s.mu.Unlock()
	w.WriteHeader(status)
}

// answer carries the request out, and keeps what it changed before anybody learns of it.
func (s *Server) answer(x *exchange) reply {
	s.mu.Lock()
	before := s.version
	r, undo := s.handle(x)
	version := s.version
	s.mu.Unlock()
	if version == before {
		return r
	}
	if err := s.save(version); err != nil {
		if undo != nil {
			s.mu.Lock()
			undo()
			s.mu.Unlock()
		}
		return refuse(http.StatusInternalServerError, "INTERNAL_ERROR", "the sandbox cannot write its file")
	}
	return r
}

// handle carries the request out; s.mu is held. undo takes a change back that cannot be kept.
func (s *Server) handle(x *exchange) (r reply, undo func()) {
	switch {
	case x.allow == "":
		return refuse(http.StatusNotFound, "ROUTE_NOT_FOUND", "there is no such route"), nil
	case x.op == OpNone:
		r := refuse(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "this route knows %s only", x.allow)
		r.header = http.Header{"Allow": {x.allow}}
		return r, nil
	case x.op == OpHealth:
		return reply{status: http.StatusOK, data: map[string]any{"status": "ok"}}, nil
	}
	if r, limited := s.limit(); limited {
		return r, nil
	}
	if r, ok := s.authenticate(x); !ok {
		return r, nil
	}
	switch x.op {
	case OpCreate:
		return s.create(x)
	case OpList:
		return s.list(x), nil
	case OpRevoke:
		return s.revoke(x), nil
	default:
		return s.me(x), nil
	}
}

// limit counts requests by the minute of the server's clock.
func (s *Server) limit() (reply, bool) {
	if s.behavior.RequestsPerMinute == 0 {
		return reply{}, false
	}
	now := s.now()
	if minute := now.Truncate(time.Minute); !minute.Equal(s.window) {
		s.window, s.inWindow = minute, 0
	}
	if s.inWindow++; s.inWindow <= s.behavior.RequestsPerMinute {
		return reply{}, false
	}
	r := refuse(http.StatusTooManyRequests, "RATE_LIMITED", "more than %d requests in a minute", s.behavior.RequestsPerMinute)
	if !s.behavior.NoRetryAfter {
		r = retryAfter(r, s.window.Add(time.Minute).Sub(now))
	}
	return r, true
}

// refuse is refuse with the status that Behavior may have changed.
func (s *Server) refuse(usual int, code, format string, args ...any) reply {
	return refuse(s.behavior.status(code, usual), code, format, args...)
}

func (s *Server) authenticate(x *exchange) (reply, bool) {
	header := x.http.Header.Get("Authorization")
	if header == "" {
		return s.refuse(http.StatusUnauthorized, "AUTHORIZATION_HEADER_REQUIRED", "send Authorization: Bearer sgpt_…"), false
	}
	scheme, plaintext, _ := strings.Cut(header, " ")
	t := s.byHash[hash(plaintext)]
	now := s.now()
	if !strings.EqualFold(scheme, "Bearer") || t == nil || !t.Live(now) {
		return s.refuse(http.StatusUnauthorized, "TOKEN_NOT_VALID", "the token is unknown, revoked or expired"), false
	}
	t.LastUsed = now.UTC().Truncate(time.Millisecond) // kept with the next change
	x.caller, x.log.Bearer = t, t.ID
	return reply{}, true
}

// allowed says whether the caller has a scope.
func (s *Server) allowed(x *exchange, scope string) (reply, bool) {
	if slices.Contains(x.caller.Scopes, scope) {
		return reply{}, true
	}
	return s.refuse(http.StatusForbidden, "TOKEN_SCOPE_NOT_ALLOWED", "the token lacks the scope %s", scope), false
}

func (s *Server) create(x *exchange) (reply, func()) {
	if r, ok := s.allowed(x, "tokens:write"); !ok {
		return r, nil
	}
	media, _, err := mime.ParseMediaType(x.http.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "CONTENT_TYPE_NOT_SUPPORTED", "send Content-Type: application/json"), nil
	}
	var q struct {
		Name          *string   `json:"name"`
		Scopes        *[]string `json:"scopes"`
		ChatbotIDs    *[]string `json:"chatbotIds"`
		ExpiresInDays *int      `json:"expiresInDays"`
		ExpiresAt     *string   `json:"expiresAt"`
	}
	bad := func(format string, args ...any) (reply, func()) {
		return refuse(http.StatusBadRequest, "VALIDATION_ERROR", format, args...), nil
	}
	if err := strict(x.body, &q); err != nil {
		return bad("the body is not the documented object: %v", err)
	}
	b := &s.behavior
	if q.Name == nil {
		return bad("name is required")
	}
	x.log.Label = *q.Name
	length := utf8.RuneCountInString(*q.Name)
	if b.UTF16Names {
		length = len(utf16.Encode([]rune(*q.Name)))
	}
	if length < 1 || length > 120 {
		return bad("name must have 1 to 120 characters, and has %d", length)
	}
	if q.Scopes == nil || len(*q.Scopes) == 0 {
		return bad("scopes needs at least one scope")
	}
	for _, scope := range *q.Scopes {
		if !sitegpt.KnownScope(scope) {
			return s.refuse(http.StatusBadRequest, "TOKEN_SCOPE_NOT_VALID", "there is no scope %q", scope), nil
		}
	}
	now := s.now().UTC()
	expires, err := b.expiry(now, q.ExpiresAt, q.ExpiresInDays)
	if err != nil {
		return bad("%v", err)
	}
	var chatbots []string
	if q.ChatbotIDs != nil {
		chatbots = append([]string{}, *q.ChatbotIDs...)
		if len(chatbots) == 0 {
			switch b.EmptyChatbots {
			case "all":
				chatbots = nil
			case "none":
			default:
				return bad("chatbotIds must not be empty; leave it out for all chatbots")
			}
		}
	}
	for _, id := range chatbots {
		if id == "" || b.Chatbots != nil && !slices.Contains(b.Chatbots, id) {
			return refuse(http.StatusForbidden, "CHATBOT_NOT_ALLOWED", "there is no chatbot %q that the user may manage", id), nil
		}
	}
	var granted []string
	for _, scope := range *q.Scopes {
		switch {
		case slices.Contains(granted, scope):
		case b.Role != nil && !slices.Contains(b.Role, scope), b.CapToCaller && !slices.Contains(x.caller.Scopes, scope):
			if !b.Narrow {
				return s.refuse(http.StatusForbidden, "TOKEN_SCOPE_NOT_ALLOWED", "the scope %s may not be granted", scope), nil
			}
		default:
			granted = append(granted, scope)
		}
	}
	if len(granted) == 0 {
		return s.refuse(http.StatusForbidden, "TOKEN_SCOPE_NOT_ALLOWED", "none of the scopes may be granted"), nil
	}
	if x.struck(Narrow) && len(granted) > 1 {
		granted = granted[:len(granted)-1]
	}
	if b.UniqueNames || b.MaxLive > 0 {
		live := 0
		for _, t := range s.tokens {
			if !t.Live(now) {
				continue
			}
			live++
			if b.UniqueNames && t.Name == *q.Name {
				return refuse(http.StatusConflict, "NAME_TAKEN", "a live token has this name"), nil
			}
		}
		if b.MaxLive > 0 && live >= b.MaxLive {
			return refuse(http.StatusForbidden, "TOKEN_LIMIT_REACHED", "the account has %d live tokens, and may have no more", live), nil
		}
	}

	plaintext := newPlaintext()
	t := &token{
		Token: Token{ID: "tok_" + random(20), Name: *q.Name, Scopes: granted, Chatbots: chatbots, Created: now.Truncate(time.Millisecond), Expires: expires},
		Hash:  hash(plaintext),
	}
	s.add(t)
	s.made++
	shown := map[string]any{"id": t.ID, "name": t.Name, "scopes": granted}
	if b.AnswerExpiry {
		shown["expiresAt"] = timestamp(t.Expires)
	}
	r := reply{status: b.createStatus(), data: map[string]any{"token": shown, "plaintextToken": plaintext}}
	return r, func() { s.remove(t); s.made-- }
}

// expiry returns when the new token ends.
func (b Behavior) expiry(now time.Time, at *string, days *int) (time.Time, error) {
	longest := now.Add(b.maxLifetime())
	var e time.Time
	switch {
	case at != nil && days != nil:
		return e, errors.New("expiresAt and expiresInDays cannot be combined")
	case at != nil:
		var err error
		if e, err = time.Parse(time.RFC3339, *at); err != nil {
			return e, errors.New("expiresAt must be a date-time, like 2026-12-01T03:00:00Z")
		}
		if !e.After(now) {
			return e, errors.New("expiresAt must be in the future")
		}
	case days != nil:
		if *days < 1 || *days > 365 {
			return e, errors.New("expiresInDays must be 1 to 365")
		}
		e = now.AddDate(0, 0, *days)
	default:
		e = now.AddDate(0, 0, 90)
		if e.After(longest) {
			e = longest
		}
	}
	if e.After(longest) {
		if !b.CapExpiry {
			return e, fmt.Errorf("the token may live for %s at most", b.maxLifetime())
		}
		e = longest
	}
	return e.UTC().Truncate(time.Second), nil
}

func (s *Server) list(x *exchange) reply {
	b := &s.behavior
	if !b.ListFree {
		if r, ok := s.allowed(x, "tokens:read"); !ok {
			return r
		}
	}
	bad := func(what string) reply {
		return refuse(http.StatusBadRequest, "VALIDATION_ERROR", "%s", what)
	}
	query := x.http.URL.Query()
	limit := b.pageSize()
	if v := query.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return bad("limit must be a number from 1")
		}
		limit = min(limit, n)
	}
	revoked := false
	if v := query.Get("includeRevoked"); v != "" {
		var err error
		if revoked, err = strconv.ParseBool(v); err != nil {
			return bad("includeRevoked must be true or false")
		}
	}
	from := len(s.tokens) - 1 // the newest first
	if v := query.Get(b.pageParam()); v != "" && !x.struck(Repeat) {
		seq, err := decodeCursor(v)
		if err != nil {
			return bad("this is no cursor of ours")
		}
		at, _ := slices.BinarySearchFunc(s.tokens, seq, func(t *token, seq int) int { return t.Seq - seq })
		from = at - 1
	}
	now := s.now()
	items := []any{}
	next := ""
	var last *token
	for i := from; i >= 0; i-- {
		t := s.tokens[i]
		if !revoked && !t.Revoked.IsZero() || !b.ListExpired && t.Revoked.IsZero() && !t.Live(now) {
			continue
		}
		if len(items) == limit {
			next = encodeCursor(last.Seq)
			break
		}
		last = t
		items = append(items, b.item(t))
	}
	if x.struck(Repeat) {
		next = encodeCursor(0)
	}
	page := map[string]any{"limit": limit, "hasNextPage": next != "", "nextCursor": nil}
	if next != "" {
		page["nextCursor"] = next
	}
	return reply{status: http.StatusOK, data: map[string]any{"tokens": items, "pagination": page}}
}

// item is a token as the list shows it.
func (b *Behavior) item(t *token) map[string]any {
	m := map[string]any{"id": t.ID, "name": t.Name, "createdAt": timestamp(t.Created)}
	if b.ListMore {
		m["scopes"] = t.Scopes
		m["expiresAt"] = timestamp(t.Expires)
		m["revokedAt"], m["lastUsedAt"] = timestamp(t.Revoked), timestamp(t.LastUsed)
	}
	return m
}

func (s *Server) revoke(x *exchange) reply {
	if !s.behavior.RevokeFree {
		if r, ok := s.allowed(x, "tokens:write"); !ok {
			return r
		}
	}
	t := s.byID[x.id]
	if t == nil || !t.Revoked.IsZero() {
		if s.behavior.RevokeGone == http.StatusOK {
			return reply{status: http.StatusOK, data: map[string]any{"token": map[string]any{"id": x.id}}}
		}
		status := s.behavior.RevokeGone
		if status == 0 {
			status = http.StatusNotFound
		}
		return refuse(status, "TOKEN_NOT_FOUND", "there is no such token")
	}
	t.Revoked = s.now().UTC().Truncate(time.Millisecond)
	s.version++
	return reply{status: http.StatusOK, data: map[string]any{"token": map[string]any{
		"id": t.ID, "name": t.Name, "revokedAt": timestamp(t.Revoked),
	}}}
}

func (s *Server) me(x *exchange) reply {
	if s.behavior.MeNeedsScope {
		if r, ok := s.allowed(x, "account:read"); !ok {
			return r
		}
	}
	auth := map[string]any{"type": "token", "scopes": x.caller.Scopes}
	if s.behavior.MeMore {
		auth["tokenId"], auth["expiresAt"] = x.caller.ID, timestamp(x.caller.Expires)
	}
	return reply{status: http.StatusOK, data: map[string]any{
		"user": map[string]any{"id": cmp.Or(s.behavior.User, "usr_sandbox"), "email": "sandbox@example.com", "name": "Sandbox"},
		"auth": auth,
	}}
}

// strict decodes one JSON value and refuses unknown fields and anything behind it.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}

// timestamp is t as the API writes it; nil for none.
func timestamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func encodeCursor(seq int) string {
	return base64.RawURLEncoding.EncodeToString([]byte("before:" + strconv.Itoa(seq)))
}

func decodeCursor(c string) (int, error) {
	b, err := base64.RawURLEncoding.DecodeString(c)
	if err != nil {
		return 0, err
	}
	n, ok := strings.CutPrefix(string(b), "before:")
	if !ok {
		return 0, errors.New("no cursor")
	}
	return strconv.Atoi(n)
}
