package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"
)

// cli stands in for Vault's command line in the tests of the documentation: Vault's own does not
// build against this SDK. It knows the verbs that the documentation uses, by the requests that
// Vault's own sends, and refuses everything else.
func cli(args []string) int {
	client, err := api.NewClient(nil) // VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT
	if err == nil {
		err = command(client, args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		return 2
	}
	return 0
}

func command(c *api.Client, args []string) error {
	flags, args := split(args)
	at := func(words ...string) bool {
		if len(args) < len(words) || !slices.Equal(args[:len(words)], words) {
			return false
		}
		args = args[len(words):]
		return true
	}
	switch {
	case at("secrets", "enable"):
		kind := args[0]
		body := map[string]any{"type": kind}
		if v := flags["version"]; v != "" {
			body["options"] = map[string]string{"version": v}
		}
		return send(c, http.MethodPost, "sys/mounts/"+or(flags["path"], kind), body, flags)
	case at("auth", "enable"):
		return send(c, http.MethodPost, "sys/auth/"+or(flags["path"], args[0]), map[string]any{"type": args[0]}, flags)
	case at("audit", "enable"):
		options, err := pairs(args[1:])
		if err != nil {
			return err
		}
		return send(c, http.MethodPut, "sys/audit/"+args[0], map[string]any{"type": args[0], "options": options}, flags)
	case at("policy", "write"):
		text, err := content(args[1])
		if err != nil {
			return err
		}
		return send(c, http.MethodPut, "sys/policies/acl/"+args[0], map[string]any{"policy": text}, flags)
	case at("token", "create"):
		body := map[string]any{"policies": flags.all("policy"), "period": flags["period"], "ttl": flags["ttl"]}
		return send(c, http.MethodPost, "auth/token/create", body, flags)
	case at("operator", "seal"):
		return send(c, http.MethodPut, "sys/seal", nil, flags)
	case at("operator", "unseal"):
		return send(c, http.MethodPut, "sys/unseal", map[string]any{"key": args[0]}, flags)
	case at("kv", "get"):
		mount, path := flags["mount"], args[0]
		secret, err := c.Logical().Read(mount + "/data/" + path)
		if err != nil {
			return err
		}
		if secret == nil {
			return errors.New("no value found at " + path)
		}
		data, _ := secret.Data["data"].(map[string]any)
		return show(data, flags)
	case at("kv", "metadata", "get"):
		return send(c, http.MethodGet, flags["mount"]+"/metadata/"+args[0], nil, flags)
	case at("kv", "metadata", "put"):
		return send(c, http.MethodPost, flags["mount"]+"/metadata/"+args[0], map[string]any{"cas_required": flags["cas-required"] == "true"}, flags)
	case at("kv", "put"):
		data, err := pairs(args[1:])
		if err != nil {
			return err
		}
		return send(c, http.MethodPut, flags["mount"]+"/data/"+args[0], map[string]any{"data": data}, flags)
	case at("kv", "delete"):
		return send(c, http.MethodDelete, flags["mount"]+"/data/"+args[0], nil, flags)
	case at("read"):
		return send(c, http.MethodGet, args[0], nil, flags)
	case at("write"):
		body, err := pairs(args[1:])
		if err != nil {
			return err
		}
		return send(c, http.MethodPut, args[0], body, flags)
	}
	return fmt.Errorf("%q is no command that this stand-in knows", strings.Join(args, " "))
}

// options are flags, -name=value; -name alone is true. A flag that is given twice is joined by commas.
type options map[string]string

func (o options) all(name string) []string {
	if o[name] == "" {
		return nil
	}
	return strings.Split(o[name], ",")
}

func split(args []string) (options, []string) {
	flags, rest := options{}, []string(nil)
	for _, a := range args {
		name, ok := strings.CutPrefix(a, "-")
		if !ok || name == "" {
			rest = append(rest, a)
			continue
		}
		name, value, given := strings.Cut(name, "=")
		if !given {
			value = "true"
		}
		if flags[name] != "" {
			value = flags[name] + "," + value
		}
		flags[name] = value
	}
	return flags, rest
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// pairs reads KEY=VALUE and KEY=@FILE; "-" is JSON on standard input.
func pairs(args []string) (map[string]any, error) {
	out := map[string]any{}
	for _, a := range args {
		key, value, ok := strings.Cut(a, "=")
		switch {
		case a == "-":
			if err := json.NewDecoder(os.Stdin).Decode(&out); err != nil {
				return nil, err
			}
			continue
		case !ok && a != "-f" && a != "-force":
			return nil, fmt.Errorf("%q is no KEY=VALUE", a)
		}
		if strings.HasPrefix(value, "@") {
			text, err := content(value[1:])
			if err != nil {
				return nil, err
			}
			value = text
		}
		out[key] = value
	}
	return out, nil
}

// content reads a file, or standard input for "-".
func content(path string) (string, error) {
	if path == "-" {
		b, err := io.ReadAll(os.Stdin)
		return string(b), err
	}
	b, err := os.ReadFile(path)
	return string(b), err
}

// send sends one request, and prints the field of the answer that is asked for, or all of its data.
func send(c *api.Client, method, path string, body map[string]any, flags options) error {
	req := c.NewRequest(method, "/v1/"+path)
	if body != nil {
		if err := req.SetJSONBody(body); err != nil {
			return err
		}
	}
	req.WrapTTL = flags["wrap-ttl"]
	resp, err := c.RawRequest(req) //nolint:staticcheck // a stand-in needs no more
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return err
	}
	secret, err := api.ParseSecret(bytes.NewReader(text))
	if err != nil {
		return err
	}
	all := map[string]any{}
	for k, v := range secret.Data {
		all[k] = v
	}
	if secret.Auth != nil {
		all["token"] = secret.Auth.ClientToken
	}
	if secret.WrapInfo != nil {
		all["wrapping_token"] = secret.WrapInfo.Token
	}
	return show(all, flags)
}

func show(data map[string]any, flags options) error {
	if field := flags["field"]; field != "" {
		value, ok := data[field]
		if !ok {
			return fmt.Errorf("the answer has no field %q", field)
		}
		fmt.Print(value) // without a newline where it is no terminal, like Vault's own
		return nil
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(data)
}
