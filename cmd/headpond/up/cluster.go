package up

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// prepare makes the cluster on first use. initdb works under another name, so
// that what bears the final one is always whole.
func (e *postgresEngine) prepare(ctx context.Context) error {
	if err := e.makeSocketDir(); err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(e.data, "PG_VERSION")); err == nil {
		return e.dropMisleadingPID()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at cluster: %w", err)
	}
	half := e.data + ".new"
	if err := os.RemoveAll(half); err != nil {
		return fmt.Errorf("remove half a cluster: %w", err)
	}
	// C.UTF-8 sorts by code point and knows letters beyond ASCII. Systems
	// without it (older macOS) have C, which sorts the same way.
	err := e.initdb(ctx, half, "C.UTF-8")
	var died *DiedError
	if errors.As(err, &died) && died.says("invalid locale name") {
		err = e.initdb(ctx, half, "C")
	}
	if err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	return os.Rename(half, e.data)
}

// makeSocketDir makes it again after a Stop has removed it.
func (e *postgresEngine) makeSocketDir() error {
	if err := os.Mkdir(e.sockets, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return e.who.own(e.sockets)
}

func (e *postgresEngine) initdb(ctx context.Context, data, locale string) error {
	args := []string{"-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=" + locale, "--lc-messages=C"}
	if e.noSync {
		args = append(args, "--no-sync")
	}
	cmd := command(e.dir, e.who, syscall.SIGKILL, e.bin.initdb(), args...)
	kid, err := spawn(cmd, filepath.Join(e.dir, "initdb.log"), e.who)
	if err != nil {
		return err
	}
	select {
	case <-kid.done:
	case <-ctx.Done():
		_ = kid.signal(syscall.SIGKILL) // it may have ended by itself meanwhile
		<-kid.done
		return context.Cause(ctx)
	}
	if kid.err != nil {
		return kid.died("initdb")
	}
	return nil
}

// dropMisleadingPID removes a postmaster.pid whose process id now belongs to
// somebody else, as after a reboot or in a container, where PostgreSQL would
// refuse to start. Everything of ours has been ended before. A dead process id
// is left to PostgreSQL, which then also looks for shared memory in use.
func (e *postgresEngine) dropMisleadingPID() error {
	pid := readNumber(e.postmasterPID())
	if pid == 0 || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || worksIn(pid, e.dir, postgresTraits().programs) {
		return nil
	}
	if err := removeIfThere(e.postmasterPID()); err != nil {
		return fmt.Errorf("remove stale postmaster.pid: %w", err)
	}
	return nil
}

// greet makes the database, at every start: a start may have been cut short
// between initdb and here.
func (e *postgresEngine) greet(ctx context.Context, port int) error {
	conn, err := pgx.Connect(ctx, postgresURL(address(port), "postgres"))
	if err != nil {
		return fmt.Errorf("connect to private server: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, database).Scan(&there); err != nil {
		return fmt.Errorf("look for database: %w", err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, `CREATE DATABASE `+database); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	return nil
}
