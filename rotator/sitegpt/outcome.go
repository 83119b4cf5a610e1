package sitegpt

import (
	"context"
	"errors"
	"net/http"

	"github.com/rotatord/rotatord/rotator"
)

// Operations returns the names of all requests that a Client makes.
func Operations() []string { return []string{"create", "health", "list", "me", "revoke", "verify"} }

// How a request can end, as Config.Observe is told.
const (
	OutcomeOK           = "ok"           // what was asked is so: also where it was before (a revoked id), or a 403 proved enough
	OutcomeRefused      = "refused"      // the API understood it, and says no
	OutcomeUnauthorized = "unauthorized" // the API does not know the bearer
	OutcomeForbidden    = "forbidden"    // the bearer may not do this
	OutcomeLimited      = "limited"      // 429
	OutcomeServerError  = "server_error" // 5xx
	OutcomeStrange      = "strange"      // not an answer of the API: a proxy's page, a redirect, a form that is not documented
	OutcomeNoAnswer     = "no_answer"    // no connection, no answer in time, or nothing to authenticate with
	OutcomeCanceled     = "canceled"     // we stopped waiting
)

// Outcomes returns every way in which a request can end.
func Outcomes() []string {
	return []string{
		OutcomeCanceled, OutcomeForbidden, OutcomeLimited, OutcomeNoAnswer, OutcomeOK, OutcomeRefused, OutcomeServerError, OutcomeStrange,
		OutcomeUnauthorized,
	}
}

// outcome says in one word how a request went.
func outcome(op string, err error) string {
	limited, said := (*rotator.LimitedError)(nil), (*Error)(nil)
	byAPI := errors.Is(err, errEnvelope)
	switch {
	case err == nil:
		return OutcomeOK
	case errors.Is(err, context.Canceled):
		return OutcomeCanceled
	case errors.As(err, &limited):
		return OutcomeLimited
	case !errors.As(err, &said) || said.Status == 0:
		return OutcomeNoAnswer
	case op == "revoke" && byAPI && said.Status == http.StatusNotFound, op == "verify" && errors.Is(err, rotator.ErrForbidden):
		return OutcomeOK
	case errors.Is(err, rotator.ErrUnauthorized):
		return OutcomeUnauthorized
	case errors.Is(err, rotator.ErrForbidden):
		return OutcomeForbidden
	case said.Status >= 500:
		return OutcomeServerError
	case byAPI && said.Status >= 400:
		return OutcomeRefused
	}
	return OutcomeStrange
}
