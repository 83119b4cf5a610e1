package sinks_test

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/rotatord/rotatord/rotator/field"
	"github.com/rotatord/rotatord/sinks"
	"github.com/rotatord/rotatord/sinks/vaultkv"
	"github.com/rotatord/rotatord/sinks/vaultkv/vaulttest"
)

// A wrapped secret id can be taken out once. An edit of the vault block makes another client, which
// needs it again, also where the first edit is refused in the end.
func TestAnEditedVaultKeepsItsUnwrappedSecretID(t *testing.T) {
	vault := vaulttest.Start(t)
	role := vault.AppRole(t, "approle", `path "secret/*" { capabilities = ["create", "read", "update", "patch"] }`, nil)
	role.WrapSecretID(t)
	declared := func(timeout time.Duration) *sinks.Opener {
		return sinks.NewOpener(map[string]vaultkv.Connection{"": {
			Address: vault.Address, Timeout: field.Duration(timeout), Auth: &vaultkv.Auth{AppRole: &vaultkv.AppRole{
				RoleID: field.SecretRef{File: role.RoleIDFile}, SecretID: field.SecretRef{File: role.SecretIDFile}, Wrapped: true,
			}},
		}}, sinks.World{Logger: slog.New(slog.DiscardHandler), Getenv: func(string) string { return "" }, Now: time.Now})
	}
	check := func(what string, o *sinks.Opener) {
		t.Helper()
		sink, err := o.Open(parse(t, "vault_kv: {mount: secret, path: team/app}"))
		if err == nil {
			err = sink.Check(t.Context())
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	before := sinks.NewOpener(nil, sinks.World{Logger: slog.New(slog.DiscardHandler), Getenv: os.Getenv, Now: time.Now}) // no Vault yet
	refused := declared(10 * time.Second)
	refused.Follow(before)
	check("the first edit", refused)
	refused.Close()
	first := declared(10 * time.Second)
	first.Follow(before)
	check("the same again", first)
	before.Close()
	second := declared(20 * time.Second)
	second.Follow(first)
	first.Close()
	check("another timeout", second)
	second.Close()
}
