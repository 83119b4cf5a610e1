package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/sitegpt/sandbox"
)

func (a *app) sandboxCommand() *cobra.Command {
	addr, file := "127.0.0.1:8931", ""
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "Serve a stand-in of SiteGPT's API on this machine",
		Long: `Serve a stand-in of SiteGPT's API on this machine, as strict as the documentation, for
rehearsals and tests. It prints what to set. Faults can be injected while it runs:

  curl localhost:8931/_sandbox/faults -H 'Content-Type: application/json' \
    -d '{"op":"create","kind":"cut-after","times":1}'
  curl -X DELETE localhost:8931/_sandbox/faults
  curl localhost:8931/_sandbox/tokens

The management token is SITEGPT_API_TOKEN if that is set, else a fresh one.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.serveSandbox(c.Context(), addr, file)
		},
	}
	c.Flags().StringVar(&addr, "listen", addr, "address on this machine; port 0 takes a free one")
	c.Flags().StringVar(&file, "file", file, "keep the tokens (as hashes) in this file, so that a restart finds them")
	return c
}

func (a *app) serveSandbox(ctx context.Context, addr, file string) error {
	soft, _, stop := signals(ctx)
	defer stop()
	o := sandbox.Options{Now: a.now, Management: a.set.Token.Secret, Control: true, Behavior: sandbox.Behavior{AnswerExpiry: true, ListMore: true}}
	server := (*sandbox.Server)(nil)
	if file == "" {
		server = sandbox.New(o)
	} else {
		var err error
		if server, err = sandbox.Open(file, o); err != nil {
			return err
		}
	}
	l, err := sandbox.Listen(addr)
	if err != nil {
		return usage("%w", err)
	}
	token := "(as set)"
	if a.set.Token.IsZero() {
		token = reveal(server.Management())
	}
	fmt.Fprintf(a.stdout, "export SITEGPT_API_BASE=http://%s\nexport SITEGPT_API_TOKEN=%s\n", l.Addr(), token)
	fmt.Fprintln(a.stderr, "The stand-in is listening. Ctrl-C ends it.")
	return server.Serve(soft, l)
}

// reveal prints the stand-in's own bearer, which opens nothing but the stand-in.
func reveal(s rotator.Secret) string { return s.Reveal() }
