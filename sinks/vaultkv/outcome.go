package vaultkv

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// Operations returns the names of all kinds of request, as World.Observe is told.
func Operations() []string { return []string{"login", "patch", "read", "system", "token", "write"} }

// operation says in one word what a request is for. A path never says it: there are too many.
func operation(method, path string) string {
	switch {
	case strings.HasPrefix(path, "auth/token/"):
		return "token"
	case strings.HasPrefix(path, "auth/"):
		return "login"
	case strings.HasPrefix(path, "sys/"):
		return "system"
	case method == http.MethodPatch:
		return "patch"
	case method == http.MethodGet:
		return "read"
	}
	return "write"
}

// How a request can end, as World.Observe is told.
const (
	OutcomeOK          = "ok"
	OutcomeNotFound    = "not_found"    // 404: nothing is there, or this login may not see it
	OutcomeDenied      = "denied"       // 403
	OutcomeRefused     = "refused"      // another 4xx, like a check-and-set that lost
	OutcomeLimited     = "limited"      // 429
	OutcomeServerError = "server_error" // 5xx: sealed, for one
	OutcomeStrange     = "strange"      // an answer that is not Vault's
	OutcomeNoAnswer    = "no_answer"    // no connection, or no answer in time
	OutcomeCanceled    = "canceled"     // we stopped waiting
)

// Outcomes returns every way in which a request can end.
func Outcomes() []string {
	return []string{
		OutcomeCanceled, OutcomeDenied, OutcomeLimited, OutcomeNoAnswer, OutcomeNotFound, OutcomeOK, OutcomeRefused, OutcomeServerError,
		OutcomeStrange,
	}
}

// outcome says in one word how a request went.
func outcome(ctx context.Context, err error) string {
	n, said := status(err)
	switch {
	case err == nil:
		return OutcomeOK
	case errors.Is(ctx.Err(), context.Canceled):
		return OutcomeCanceled
	case errors.Is(err, errStrange), said != nil && said.raw:
		return OutcomeStrange
	case n == 0:
		return OutcomeNoAnswer
	case n == http.StatusNotFound:
		return OutcomeNotFound
	case n == http.StatusForbidden:
		return OutcomeDenied
	case n == http.StatusTooManyRequests:
		return OutcomeLimited
	case n >= http.StatusInternalServerError:
		return OutcomeServerError
	}
	return OutcomeRefused
}
