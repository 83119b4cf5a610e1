package sitegpt

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"unicode"

	"github.com/rotatord/rotatord/rotator"
)

// Error is a call that did not succeed: the API refused it, something between us and the API
// answered in its place, or nothing answered. It holds no header, body or URL, and nothing shaped
// like a token. A 429 comes inside a *rotator.LimitedError.
//
// errors.Is finds rotator.ErrRefused, ErrRejected, ErrUnauthorized and ErrForbidden as rotator
// defines them, and context.Canceled or DeadlineExceeded where time was the reason.
type Error struct {
	Op        string // health, me, verify, create, list, revoke
	Status    int    // HTTP status; 0: there was no answer
	Code      string // the API's own, like TOKEN_NOT_VALID; often ""
	Message   string // the API's, or ours where the API did not speak
	Hint      string // the API's
	RequestID string // what SiteGPT's support asks for

	is []error
}

// Error reads like "create: 403 TOKEN_SCOPE_NOT_ALLOWED: message (hint: …; request req_1)".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	switch {
	case e.Status != 0 && e.Code != "":
		fmt.Fprintf(&b, ": %d %s", e.Status, e.Code)
	case e.Status != 0:
		fmt.Fprintf(&b, ": %s", strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))))
	case e.Code != "":
		fmt.Fprintf(&b, ": %s", e.Code)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Code == codeScopeNotAllowed {
		b.WriteString(e.causes())
	}
	var more []string
	if e.Hint != "" {
		more = append(more, "hint: "+e.Hint)
	}
	if e.RequestID != "" {
		more = append(more, "request "+e.RequestID)
	}
	if more != nil {
		b.WriteString(" (" + strings.Join(more, "; ") + ")")
	}
	return b.String()
}

// causes names what can be behind a TOKEN_SCOPE_NOT_ALLOWED: the answer does not tell which.
func (e *Error) causes() string {
	switch e.Op {
	case "create":
		return "; either the user's role may not grant these scopes or chatbots, or the daemon's own token lacks a scope (creating needs tokens:write, and perhaps each scope that is given)"
	case "revoke":
		return "; either the user's role may not revoke it, or the daemon's own token lacks a scope (revoking needs tokens:write)"
	case "list":
		return "; either the user's role may not list tokens, or the daemon's own token lacks a scope (listing needs tokens:read)"
	case "me", "verify":
		return "; either the user's role may not see the account, or the token lacks a scope (account:read)"
	}
	return ""
}

// Unwrap gives errors.Is what the error means.
func (e *Error) Unwrap() []error { return e.is }

// Codes seen in answers. They are looked at before the status, which is not documented.
const (
	codeScopeNotAllowed = "TOKEN_SCOPE_NOT_ALLOWED"
	codeTokenNotValid   = "TOKEN_NOT_VALID"
	codeNoAuthorization = "AUTHORIZATION_HEADER_REQUIRED"
)

// meaning returns what an answer with an error envelope says, as rotator's sentinels.
func meaning(op string, status int, code string) []error {
	if status < 400 || status > 499 || status == http.StatusTooManyRequests {
		return nil
	}
	var is []error
	switch {
	case code == codeTokenNotValid, code == codeNoAuthorization,
		status == http.StatusUnauthorized && code != codeScopeNotAllowed:
		is = append(is, rotator.ErrUnauthorized)
	case code == codeScopeNotAllowed, status == http.StatusForbidden:
		is = append(is, rotator.ErrForbidden)
	}
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly:
		// Each of them can follow a first copy of the request that was carried out.
	default:
		switch {
		case op != "create":
		case len(is) > 0 && is[0] == rotator.ErrUnauthorized:
			is = append(is, rotator.ErrRefused) // the bearer, not what was asked for
		default:
			is = append(is, rotator.ErrRejected)
		}
	}
	return is
}

var tokenShape = regexp.MustCompile(`(?i)sgpt_[^\s"'<>\\,;]*`)

// clean makes a text of somebody else fit for a log: one line, printable, at most limit
// characters, without the bearers that were sent and without anything shaped like a token.
func clean(text string, limit int, bearers ...string) string {
	// Far more than any limit, and little enough to look through.
	text = text[:min(len(text), 16<<10)]
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t' || r == ' ':
			return ' '
		case !unicode.IsPrint(r) || r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, text)
	for _, s := range bearers {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[redacted]")
		}
	}
	text = tokenShape.ReplaceAllLiteralString(text, "[redacted]")
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > limit {
		text = strings.TrimSpace(string(r[:limit])) + "…"
	}
	return text
}
