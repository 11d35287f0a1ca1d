// Command headpond is a write-behind buffer in front of PostgreSQL.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v3"
)

// Exit codes, as the README documents them.
const (
	exitOK      = 0
	exitFailed  = 1 // the command did its work and the answer is bad, or it failed
	exitUsage   = 2 // wrong flags or configuration
	exitMissing = 69
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	os.Exit(run(ctx, os.Args))
}

func run(ctx context.Context, args []string) int {
	c := command()
	strict(c)
	err := c.Run(ctx, args)
	var exit cli.ExitCoder
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		if text := err.Error(); text != "" {
			fmt.Fprintln(os.Stderr, "headpond:", text)
		}
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "headpond:", err)
	return exitFailed
}

func command() *cli.Command {
	return &cli.Command{
		Name:                  "headpond",
		Usage:                 "a write-behind buffer in front of PostgreSQL",
		Version:               version(),
		EnableShellCompletion: true,
		HideVersion:           false,
		ExitErrHandler:        func(context.Context, *cli.Command, error) {}, // run does it
		Commands: []*cli.Command{
			upCommand(), serveCommand(), migrateCommand(), statusCommand(), flushCommand(), doctorCommand(), verifyCommand(), tailCommand(), warmCommand(),
			watchCommand(), deadLettersCommand(), benchCommand(), drillCommand(), configCommand(), versionCommand(),
		},
	}
}

// strict makes unknown flags and commands, of every sub-command too, end with
// exitUsage.
func strict(c *cli.Command) {
	c.OnUsageError = func(_ context.Context, _ *cli.Command, err error, _ bool) error { return usage(err) }
	if len(c.Commands) > 0 && c.Action == nil {
		c.Action = func(_ context.Context, c *cli.Command) error {
			if name := c.Args().First(); name != "" {
				return usage(fmt.Errorf("there is no command %q; see %s --help", name, c.FullName()))
			}
			return cli.ShowSubcommandHelp(c)
		}
	}
	for _, sub := range c.Commands {
		strict(sub)
	}
}

func usage(err error) error { return cli.Exit(err.Error(), exitUsage) }
