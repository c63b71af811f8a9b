package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/everynode/everynode/internal/apiserver/tokens"
	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/internal/jointoken"
)

// tokenTimeout bounds a whole token command.
const tokenTimeout = 15 * time.Second

func newToken() *cobra.Command {
	var dataDir, kubeconfig string
	cmd := &cobra.Command{
		Use:     "token",
		GroupID: "cluster",
		Short:   "Join tokens: create, list, revoke",
		Long: `Manage the tokens with which machines join.

A token lets its holder ask for one thing, to become a node of a name that is free, and it
expires. Machines that have joined keep their own certificates, whatever becomes of the token.
The server keeps a valid one in DIR/join-token.`,
		Example: `  everynode token create --ttl 1h > join-token
  everynode token list
  everynode token revoke 4d2c6a`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&dataDir, "data-dir", layout.DefaultDataDir, "data directory of the server, for its admin.kubeconfig")
	cmd.PersistentFlags().StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig to use instead")
	connect := func() (*rest.Config, kubernetes.Interface, error) {
		if kubeconfig == "" {
			kubeconfig = layout.Layout{DataDir: dataDir}.AdminKubeconfig()
		}
		return connectWith(kubeconfig)
	}
	cmd.AddCommand(newTokenCreate(connect), newTokenList(connect), newTokenRevoke(connect))
	return cmd
}

type connector func() (*rest.Config, kubernetes.Interface, error)

func connectWith(kubeconfig string) (*rest.Config, kubernetes.Interface, error) {
	if _, err := os.Stat(kubeconfig); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("token: there is no %s; run this on the machine of the server, with its --data-dir, or name a kubeconfig with --kubeconfig", kubeconfig)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("token: %s: %w", kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("token: %w", err)
	}
	return config, client, nil
}

func newTokenCreate(connect connector) *cobra.Command {
	var ttl time.Duration
	var description string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token and print it",
		Example: `  everynode token create > join-token
  everynode token create --ttl 30m --description "rack 12"`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ttl < time.Second {
				return usagef("--ttl %v: must be a second at least, like 24h", ttl)
			}
			config, client, err := connect()
			if err != nil {
				return err
			}
			caHash, err := caHash(config)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), tokenTimeout)
			defer cancel()
			token, err := tokens.Create(ctx, client, caHash, ttl, description)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", tokens.DefaultTTL, "how long it is valid")
	cmd.Flags().StringVar(&description, "description", "", "what it is for, shown by list")
	return cmd
}

// caHash is of the CA by which the kubeconfig knows its server: the one a joining machine will meet.
func caHash(config *rest.Config) (string, error) {
	if err := rest.LoadTLSFiles(config); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	hash, err := jointoken.HashCA(config.CAData)
	if err != nil {
		return "", fmt.Errorf("token: the kubeconfig names no CA of its server, which a token has to: %w", err)
	}
	return hash, nil
}

func newTokenList(connect connector) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "Show the tokens that are valid, without their secrets",
		Example: `  everynode token list`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, client, err := connect()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), tokenTimeout)
			defer cancel()
			all, err := tokens.List(ctx, client)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 3, ' ', 0)
			fmt.Fprintln(w, "ID\tEXPIRES IN\tDESCRIPTION")
			for _, t := range all {
				expires := "never"
				if !t.Expires.IsZero() {
					expires = duration.HumanDuration(time.Until(t.Expires))
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", t.ID, expires, t.Description)
			}
			return w.Flush()
		},
	}
}

func newTokenRevoke(connect connector) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID...",
		Short: "Make tokens useless; nodes that have joined stay",
		Example: `  everynode token list
  everynode token revoke 4d2c6a`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s: which token? `everynode token list` shows their ids", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			_, client, err := connect()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), tokenTimeout)
			defer cancel()
			for _, id := range args {
				if err := tokens.Revoke(ctx, client, id); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "token revoked")
			}
			return nil
		},
	}
}
