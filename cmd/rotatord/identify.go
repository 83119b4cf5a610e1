package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
)

func (a *app) identifyCommand() *cobra.Command {
	var asJSON, offline bool
	c := &cobra.Command{
		Use:   "identify",
		Short: "Say whose a leaked token is, and whether it is alive",
		Long: `Read one token from standard input, and say which entry and generation it is, and
whether SiteGPT still accepts it. The token is compared by its keyed hash; it is not
stored, and not printed. Exit code 1: it is none of ours.`,
		Example: `  rotatord identify < found.txt`,
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.identify(c.Context(), asJSON, offline)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&offline, "offline", false, "do not ask SiteGPT")
	return c
}

type identity struct {
	Format     int       `json:"format"`
	Ours       bool      `json:"ours"`
	Token      string    `json:"token,omitempty"`
	Generation int       `json:"generation,omitempty"`
	ID         string    `json:"id,omitempty"`
	State      string    `json:"state,omitempty"` // what the record says: current, pending, retiring, revoked, expired or forgotten
	Expires    time.Time `json:"expires,omitzero"`
	Alive      *bool     `json:"alive"` // what SiteGPT says; null: it was not asked, or did not say
	Error      string    `json:"error,omitempty"`
}

func (a *app) identify(ctx context.Context, asJSON, offline bool) error {
	if terminalIn(a.stdin) {
		fmt.Fprintln(a.stderr, "Paste the token, then Enter:")
	}
	line, err := bufio.NewReader(io.LimitReader(a.stdin, 64<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read standard input: %w", err)
	}
	secret := rotator.NewSecret(strings.TrimSpace(line))
	if secret.IsZero() {
		return usage("standard input holds no token")
	}
	st, err := a.state(ctx)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // only read
	key, err := st.Key(ctx)
	if err != nil {
		return err
	}
	records, err := st.Records(ctx)
	if err != nil {
		return err
	}
	id := find(records, secret.Hash(key), a.now())
	if !offline {
		a.alive(ctx, secret, &id)
	}
	if asJSON {
		err = printJSON(a.stdout, id)
	} else {
		a.printIdentity(id)
	}
	if err == nil && !id.Ours {
		return &codeError{code: exitFailed}
	}
	return err
}

// find looks a hash up in the records.
func find(records []rotator.Record, hash string, now time.Time) identity {
	id := identity{Format: 1}
	for i := range records {
		r := &records[i]
		for _, p := range r.Past {
			if p.Hash == hash {
				id.Ours, id.Token, id.Generation, id.State = true, r.Name, p.Number, "forgotten"
			}
		}
		for j := range r.Generations {
			g := &r.Generations[j]
			if g.Hash != hash {
				continue
			}
			id.Ours, id.Token, id.Generation, id.ID, id.Expires = true, r.Name, g.Number, g.ID, g.Expires
			switch target := r.Target(now); {
			case !g.Revoked.IsZero():
				id.State = "revoked"
			case !g.Live(now):
				id.State = "expired"
			case target != nil && target.Number == g.Number && g.Converged.IsZero():
				id.State = "pending"
			case target != nil && target.Number == g.Number:
				id.State = "current"
			default:
				id.State = "retiring"
			}
			return id
		}
	}
	return id
}

// alive asks SiteGPT, as the token itself: no management token is needed.
func (a *app) alive(ctx context.Context, secret rotator.Secret, id *identity) {
	c, err := a.load(ctx)
	if err != nil {
		id.Error = "SiteGPT was not asked: " + err.Error()
		return
	}
	client, _, err := a.client(c, func() rotator.Secret { return secret }, nil)
	if err != nil {
		id.Error = "SiteGPT was not asked: " + err.Error()
		return
	}
	defer client.Close()
	yes := true
	switch err := client.Verify(ctx, secret); {
	case err == nil:
	case errors.Is(err, rotator.ErrUnauthorized):
		yes = false
	default:
		id.Error = err.Error()
		return
	}
	id.Alive = &yes
}

func (a *app) printIdentity(id identity) {
	out := a.stdout
	if !id.Ours {
		fmt.Fprintln(out, "It is none that this state knows.")
	} else {
		fmt.Fprintf(out, "It is generation %d of %s, %s", id.Generation, id.Token, id.State)
		if id.ID != "" {
			fmt.Fprintf(out, "; its id is %s, and it expires %s", id.ID, local(id.Expires))
		}
		fmt.Fprintln(out, ".")
	}
	switch {
	case id.Alive == nil && id.Error != "":
		fmt.Fprintf(out, "Whether it is alive is unknown: %s\n", id.Error)
	case id.Alive == nil:
	case !*id.Alive:
		fmt.Fprintln(out, "SiteGPT does not accept it.")
	default:
		fmt.Fprintln(out, "SiteGPT ACCEPTS it.")
		switch id.State {
		case "current", "pending":
			fmt.Fprintf(out, "Replace it now:  rotatord rotate %s --compromised\n", id.Token)
		case "":
			fmt.Fprintln(out, "Revoke it in SiteGPT's dashboard.")
		default:
			fmt.Fprintf(out, "Kill it now:  rotatord revoke %s --generation %d\n", id.Token, id.Generation)
		}
	}
}
