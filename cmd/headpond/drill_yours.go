package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/mattn/go-isatty"
	"github.com/urfave/cli/v3"
)

// drillYours is a stack that somebody else runs. It is written to, and only
// what `headpond up` restarts by itself, on this machine, is killed, and only
// when that was asked for.
type drillYours struct{ api, database string }

// newDrillYours asks first.
func newDrillYours(ctx context.Context, c *cli.Command, d *drill) (*drillYours, error) {
	y := &drillYours{api: strings.TrimSuffix(c.String("api"), "/"), database: c.String("database-url")}
	if y.database == "" {
		return nil, usage(errors.New("--api needs DATABASE_URL (or --database-url) too: the tables of the drill are made and read there"))
	}
	faults := "kills nothing"
	if c.Bool("yes-kill") {
		faults = "kills its flusher, Redis and PostgreSQL with SIGKILL, again and again"
		if err := y.mayKill(ctx); err != nil {
			return nil, usage(err)
		}
	}
	if c.Bool("yes") {
		return y, nil
	}
	if !isatty.IsTerminal(os.Stdin.Fd()) {
		return nil, usage(errors.New("a stack of yours would be written to, and nobody can be asked: say --yes"))
	}
	fmt.Fprintf(os.Stderr, "The drill makes the tables headpond_drill_*, writes %d rows/s to them through %s for %s, %s, and drops them. Go on? [y/N] ",
		d.rate, y.api, d.lasts, faults)
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return nil, cli.Exit("drill: nothing was done", exitFailed)
	}
	return y, nil
}

// localPIDs are those of the processes that may be killed; empty where there is
// no local stack.
func (y *drillYours) localPIDs(ctx context.Context) (map[drillFaultKind]int, error) {
	text, err := fetchStatus(ctx, y.api)
	if err != nil {
		return nil, err
	}
	var v struct {
		PID   int `json:"pid"`
		Stack struct {
			Flusher  int `json:"flusher_pid"`
			Redis    int `json:"redis_pid"`
			Postgres int `json:"postgres_pid"`
		} `json:"local_stack"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	pids := map[drillFaultKind]int{killFlusher: v.Stack.Flusher, killRedis: v.Stack.Redis, killPostgres: v.Stack.Postgres}
	for kind, pid := range pids {
		if pid <= 1 || pid == v.PID { // without --split the flusher is the API itself, which nobody restarts
			delete(pids, kind)
		}
	}
	return pids, nil
}

func (y *drillYours) mayKill(ctx context.Context) error {
	u, err := url.Parse(y.api)
	if err != nil {
		return fmt.Errorf("read --api: %w", err)
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("--yes-kill is for a stack on this machine: --api must be a loopback address")
	}
	pids, err := y.localPIDs(ctx)
	if err == nil && len(pids) == 0 {
		err = errors.New("--yes-kill is for `headpond up`, which starts again what was killed: this status names no process of a local stack")
	}
	return err
}

// plan keeps of a plan what can be done here.
func (y *drillYours) plan(ctx context.Context, all []drillFault) (plan []drillFault, err error) {
	pids, err := y.localPIDs(ctx)
	for _, f := range all {
		if pids[f.kind] != 0 {
			plan = append(plan, f)
		}
	}
	return plan, err
}

// strike kills a process and waits until the status names another in its place.
func (y *drillYours) strike(ctx context.Context, _ *striker, f drillFault, _ *drillEvent) error {
	ctx, cancel := context.WithTimeout(ctx, drillPatience)
	defer cancel()
	killed := 0
	for ctx.Err() == nil {
		pids, err := y.localPIDs(ctx)
		pid := pids[f.kind]
		switch {
		case err != nil || pid == 0: // it is being started
		case killed == 0:
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
			killed = pid
		case pid != killed:
			return nil
		}
		pause(ctx, drillSampleEvery)
	}
	return errors.New("it was not started again")
}

// open makes the tables and waits until the API serves them.
func (y *drillYours) open(ctx context.Context) error {
	if err := runSQL(ctx, y.database, createDrillTables); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, drillPatience/2)
	defer cancel()
	for _, name := range drillTables {
		if err := awaitOK(ctx, y.api+"/v1/"+name+"/_schema"); err != nil {
			return fmt.Errorf("%w: is the table %s exposed? See `expose` in headpond.yaml", err, name)
		}
	}
	return errors.Join(y.forget(ctx, drillCounters), y.forget(ctx, drillRows))
}

// forget what is cached of a table: an earlier drill may have dropped one of
// the same name, and its rows must not be taken for those of this one.
func (y *drillYours) forget(ctx context.Context, table string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, y.api+"/admin/v1/cache/"+table, nil)
	if err != nil {
		return fmt.Errorf("invalidate: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("invalidate: %w", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("invalidate table=%s: %s", table, resp.Status)
	}
	return nil
}

// close drops the tables.
func (y *drillYours) close(ctx context.Context) error {
	return runSQL(context.WithoutCancel(ctx), y.database, "drop table if exists "+strings.Join(drillTables, ", "))
}
