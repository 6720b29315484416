package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageError is the exit code of docker's commands, and so of all, for wrong flags.
const usageError = 125

// viewFlags are the flags that all views take.
var viewFlags = []string{"format", "node"}

// handDown gives the command in args the flags of views that stood before it: there
// they mean the command, whichever it is, docker's too. What stands after it as well
// counts there, for that is read later.
func handDown(root *cobra.Command, args []string) error {
	target, _, err := root.Find(args)
	if err != nil || target == root {
		return nil // the command itself says what is wrong with it
	}
	for _, name := range viewFlags {
		given := root.Flags().Lookup(name)
		if !given.Changed {
			continue
		}
		if target.Flags().Lookup(name) == nil {
			return cli.StatusError{StatusCode: usageError, Status: fmt.Sprintf("%s takes no --%s", target.CommandPath(), name)}
		}
		if err := target.Flags().Set(name, given.Value.String()); err != nil {
			return err
		}
	}
	return nil
}

// misplaced explains a flag that a command does not know but netctl does: docker's
// global flags are read before the command is.
func misplaced(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		name := unknown.GetSpecifiedName()
		f := cmd.Root().Flags().Lookup(name)
		if f == nil && len(name) == 1 {
			f = cmd.Root().Flags().ShorthandLookup(name)
		}
		if f != nil {
			_, rest, _ := strings.Cut(cmd.CommandPath(), " ")
			err = fmt.Errorf("--%s stands before the command: %s --%s ... %s", f.Name, cmd.Root().Name(), f.Name, rest)
		}
	}
	return cli.FlagErrorFunc(cmd, err)
}
