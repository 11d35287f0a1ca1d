package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// PoolOptions are the few things about a pool that callers choose.
type PoolOptions struct {
	MaxConns        int32         // 0: pgx's default, the larger of 4 and the number of cores
	ApplicationName string        // as pg_stat_activity shows it; "headpond" when empty
	ConnectTimeout  time.Duration // for one connection; 5 s when 0 and the URL says nothing
}

// session is what fixes canonical text: with these settings the same value is
// printed in the same way on every connection, whatever the role or database
// has set. They go with the start-up message, so there is no connection
// without them.
//
// search_path is left as the user has set it, on purpose: triggers, CHECK
// functions and the functions in default expressions run in our sessions, and
// most of them name tables without a schema. Where names are printed to be
// pasted into SQL (the catalog) it is pinned for that transaction.
var session = map[string]string{
	"TimeZone":           "UTC",
	"DateStyle":          "ISO, MDY",
	"IntervalStyle":      "postgres",
	"bytea_output":       "hex",
	"extra_float_digits": "1",
	"client_encoding":    "UTF8",
	"lc_monetary":        "C",
	"xmloption":          "content",
}

// isSession: names of settings do not care about case, keys of a map do.
func isSession(name string) bool {
	for ours := range session {
		if strings.EqualFold(name, ours) {
			return true
		}
	}
	return false
}

// NewPool makes a pool whose connections print canonical text. It connects to
// nothing: Postgres may be down when the program starts.
//
// Statements are described anew each time (QueryExecModeDescribeExec): a
// cached description goes on giving the type a column had before ALTER TABLE,
// which fails for ever on that connection or, where the widths agree, writes
// wrong data. Connections that cannot write (a demoted primary, a standby) are
// refused when they are made, unless the URL asks otherwise.
func NewPool(ctx context.Context, url string, o PoolOptions) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, badURL(url, err)
	}
	c := cfg.ConnConfig
	maps.DeleteFunc(c.RuntimeParams, func(name, _ string) bool { return isSession(name) })
	maps.Copy(c.RuntimeParams, session)
	if c.RuntimeParams["jit"] == "" {
		c.RuntimeParams["jit"] = "off" // our statements run for milliseconds; compiling them takes a second
	}
	c.RuntimeParams["application_name"] = cmp.Or(o.ApplicationName, "headpond")
	c.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	c.ConnectTimeout = cmp.Or(o.ConnectTimeout, c.ConnectTimeout, 5*time.Second)
	c.DialFunc = (&net.Dialer{Timeout: c.ConnectTimeout, KeepAliveConfig: keepAlive}).DialContext
	if c.ValidateConnect == nil {
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if o.MaxConns > 0 {
		cfg.MaxConns = o.MaxConns
	}
	c.OnNotice = hearNotice
	cfg.PingTimeout = c.ConnectTimeout
	cfg.AfterConnect = durable
	return pgxpool.NewWithConfig(ctx, cfg)
}

// badURL says that a URL cannot be read. pgx leaves out what it takes for the
// password, as well as it can: in what cannot be parsed nobody knows where that
// begins and ends. So of a URL that may hold one nothing is told.
func badURL(url string, err error) error {
	if strings.ContainsAny(url, "@%") || strings.Contains(strings.ToLower(url), "pass") {
		return errors.New("read the database URL: it is not one such as postgres://user:password@host:5432/database?sslmode=verify-full, nor a list such as host=… password=…; special characters of a password must be percent-encoded")
	}
	return fmt.Errorf("read the database URL: %w", err)
}

// keepAlive finds a server that vanished without a word in 25 seconds; the
// system's default takes two hours.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}

// durable raises synchronous_commit where the role or the database has turned
// it off. Ids taken from a sequence are in answers at once: a crash must not
// hand them out again.
func durable(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.PgConn().Exec(ctx, `
		select set_config('synchronous_commit', 'on', false)
		where current_setting('synchronous_commit') in ('off', 'local')`).ReadAll()
	return err
}

// ErrUnavailable means that Postgres could not be asked: it is down, starting,
// read-only, out of resources or too slow. The cause is wrapped.
var ErrUnavailable = errors.New("the store (Postgres) cannot be reached or cannot answer now")

// ErrCatalogStale means that a table or type is no longer what the catalog
// said when it was read. Read it again.
var ErrCatalogStale = errors.New("the schema changed since it was read")

// storeError says what an error of the driver means to callers of Edge.
// Cancellation stays cancellation.
func storeError(doing string, err error) error {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, err)
	case errors.As(err, &connect), !errors.As(err, &pg):
		return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
	case blamesSchema(pg):
		return fmt.Errorf("%s: %w: %w", doing, ErrCatalogStale, err)
	case blamesData(pg):
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
}

// blamesSchema: undefined or mismatched objects.
func blamesSchema(pg *pgconn.PgError) bool {
	switch pg.Code {
	case "42703", "42P01", "42704", "42883", "42804", "3F000":
		return true
	}
	return false
}

// blamesData reports whether the statement itself was refused, by what it
// holds, by a privilege or by code of the user's. All other classes are about
// the server's state. XX000 is "internal error", and what input functions of
// some extensions (hstore) say of a value they cannot read.
func blamesData(pg *pgconn.PgError) bool {
	if pg.Code == "XX000" || madeUp(pg) {
		return true
	}
	switch pg.Code[:2] {
	case "22", "23", "P0", "54", "0A", "42", "3F", "2F", "38", "39", "44", "21":
		return true
	}
	return false
}
