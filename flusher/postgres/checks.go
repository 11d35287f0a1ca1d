package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headpond/headpond/buffer"
)

// Checks looks at what Headpond's promise stands on in Postgres. It changes
// nothing. Safe for concurrent use.
type Checks struct {
	pool  *pgxpool.Pool
	needs int // connections of a process
}

// NewChecks on a pool. needs is how many connections a process of Headpond may
// have at once.
func NewChecks(pool *pgxpool.Pool, needs int) *Checks { return &Checks{pool: pool, needs: needs} }

// server is what serverSQL reads.
type server struct {
	number            int
	version           string
	recovery          bool
	readOnly          string
	fsync, pages      string
	commit            string // synchronous_commit of the role, before we set ours
	most, kept, taken int
	role, database    int // limits of connections, -1 for none
	clock             float64
	age, multiAge     int64
	transaction       string // transaction_timeout, in ms; "" before PostgreSQL 17
}

const serverSQL = `
select current_setting('server_version_num')::int, current_setting('server_version'),
	pg_is_in_recovery(), (select reset_val from pg_settings where name = 'default_transaction_read_only'),
	current_setting('fsync'), current_setting('full_page_writes'),
	(select reset_val from pg_settings where name = 'synchronous_commit'),
	current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int,
	(select sum(numbackends)::int from pg_stat_database),
	(select rolconnlimit from pg_roles where rolname = current_user), d.datconnlimit,
	extract(epoch from clock_timestamp())::float8, age(d.datfrozenxid)::bigint, mxid_age(d.datminmxid)::bigint,
	coalesce((select setting from pg_settings where name = 'transaction_timeout'), '')
from pg_database d where d.datname = current_database()`

// Server checks the settings and the state of the server.
func (c *Checks) Server(ctx context.Context) ([]buffer.Check, error) {
	conn, err := c.pool.Acquire(ctx) // before the clock is looked at
	if err != nil {
		return nil, storeError("check Postgres", err)
	}
	defer conn.Release()
	var s server
	began := time.Now()
	err = conn.QueryRow(ctx, serverSQL).Scan(&s.number, &s.version, &s.recovery, &s.readOnly, &s.fsync, &s.pages, &s.commit,
		&s.most, &s.kept, &s.taken, &s.role, &s.database, &s.clock, &s.age, &s.multiAge, &s.transaction)
	if err != nil {
		return nil, storeError("check Postgres", err)
	}
	ahead := time.UnixMicro(int64(s.clock * 1e6)).Sub(began.Add(time.Since(began) / 2))
	return []buffer.Check{
		s.checkVersion(), s.checkWritable(), s.checkDisk(), s.checkPages(), s.checkCommit(),
		s.checkConnections(c.needs), s.checkTimeouts(), s.checkAge(), checkClock(ahead),
	}, nil
}

func (s *server) checkVersion() buffer.Check {
	if s.number < 140000 {
		return buffer.Risk(buffer.GroupPostgres, "version", "upgrade PostgreSQL", "PostgreSQL %s is older than any that Headpond is tested with, and its makers mend it no more.", s.version)
	}
	return buffer.Fine(buffer.GroupPostgres, "version", "PostgreSQL %s.", s.version)
}

func (s *server) checkWritable() buffer.Check {
	switch {
	case s.recovery:
		return buffer.Wrong(buffer.GroupPostgres, "writable", "point DATABASE_URL at the primary", "This PostgreSQL is a standby: it takes no writes.")
	case s.readOnly == "on":
		return buffer.Wrong(buffer.GroupPostgres, "writable", "ALTER SYSTEM RESET default_transaction_read_only, SELECT pg_reload_conf() (or ALTER ROLE, ALTER DATABASE)",
			"Transactions are read-only here (default_transaction_read_only): nothing can be flushed.")
	}
	return buffer.Fine(buffer.GroupPostgres, "writable", "This PostgreSQL takes writes.")
}

func (s *server) checkDisk() buffer.Check {
	if s.fsync != "on" {
		return buffer.Wrong(buffer.GroupPostgres, "fsync", "ALTER SYSTEM SET fsync = on, SELECT pg_reload_conf()",
			"fsync is off: a crash of the machine can destroy the database, with rows that Headpond has let go of because they were committed.")
	}
	return buffer.Fine(buffer.GroupPostgres, "fsync", "A commit is on PostgreSQL's disk.")
}

func (s *server) checkPages() buffer.Check {
	if s.pages != "on" {
		return buffer.Risk(buffer.GroupPostgres, "full_page_writes", "ALTER SYSTEM SET full_page_writes = on, SELECT pg_reload_conf()",
			"full_page_writes is off: a crash of the machine in the middle of a write can damage a page (unless the file system writes pages whole).")
	}
	return buffer.Fine(buffer.GroupPostgres, "full_page_writes", "Pages that a crash has torn are restored.")
}

func (s *server) checkCommit() buffer.Check {
	if s.commit == "off" || s.commit == "local" {
		return buffer.Fine(buffer.GroupPostgres, "synchronous_commit", "synchronous_commit is %s for this role; Headpond's own transactions set it on.", s.commit)
	}
	return buffer.Fine(buffer.GroupPostgres, "synchronous_commit", "synchronous_commit is %s.", s.commit)
}

// checkConnections: a process that gets no connection does not lose anything,
// but falls behind.
func (s *server) checkConnections(needs int) buffer.Check {
	free, limit := s.most-s.kept-s.taken, "max_connections"
	if s.role >= 0 && s.role < s.most {
		free, limit = min(free, s.role), "CONNECTION LIMIT of the role"
	}
	if s.database >= 0 && s.database < s.most {
		free, limit = min(free, s.database), "CONNECTION LIMIT of the database"
	}
	if free+s.taken < needs || free < 3 {
		return buffer.Risk(buffer.GroupPostgres, "connections", "ALTER SYSTEM SET max_connections = 200, restart PostgreSQL; or fewer flusher.workers",
			"%d of %d connections are in use, and a process of Headpond may want %d (%s): writes and reads may have to wait.", s.taken, s.most, needs, limit)
	}
	return buffer.Fine(buffer.GroupPostgres, "connections", "%d of %d are in use; a process of Headpond has up to %d.", s.taken, s.most, needs)
}

// checkTimeouts: a flush sets lock_timeout, statement_timeout and
// idle_in_transaction_session_timeout for itself, so that a worker that vanishes
// holds its partitions for a minute at most, whatever the server's keepalives and
// client_connection_check_interval are. It cannot lengthen transaction_timeout
// once it runs.
func (s *server) checkTimeouts() buffer.Check {
	if limit, err := time.ParseDuration(s.transaction + "ms"); err == nil && limit > 0 && limit < time.Minute {
		return buffer.Risk(buffer.GroupPostgres, "timeouts", "ALTER ROLE … SET transaction_timeout = 0",
			"transaction_timeout ends transactions after %s: a large batch may never be committed.", limit)
	}
	return buffer.Fine(buffer.GroupPostgres, "timeouts", "A flush sets its own: a worker that vanishes holds its partitions for a minute at most.")
}

// Transaction numbers: PostgreSQL stops taking writes 3 million before 2^31.
const (
	ageRisk  = 1_000_000_000
	ageWrong = 1_900_000_000
)

func (s *server) checkAge() buffer.Check {
	const mend = "end old transactions and prepared ones, then VACUUM (FREEZE)"
	switch age := max(s.age, s.multiAge); {
	case age > ageWrong:
		return buffer.Wrong(buffer.GroupPostgres, "wraparound", mend, "The oldest transaction is %d million behind: PostgreSQL is about to refuse all writes.", age/1e6)
	case age > ageRisk:
		return buffer.Risk(buffer.GroupPostgres, "wraparound", mend, "The oldest transaction is %d million behind: autovacuum does not keep up, and at 2,147 million PostgreSQL refuses all writes.", age/1e6)
	}
	return buffer.Fine(buffer.GroupPostgres, "wraparound", "Transaction numbers are far from their end.")
}

// checkClock: created_at is taken at Headpond, now() at Postgres.
func checkClock(ahead time.Duration) buffer.Check {
	if ahead.Abs() <= time.Second {
		return buffer.Fine(buffer.GroupPostgres, "clock", "PostgreSQL's clock agrees with Headpond's.")
	}
	return buffer.Risk(buffer.GroupPostgres, "clock", "run chrony or systemd-timesyncd on both machines",
		"PostgreSQL's clock is %s off Headpond's: times that Headpond gives rows do not fit those that PostgreSQL gives.", ahead.Abs().Round(100*time.Millisecond))
}

// ownSQL reads the state of the schema headpond: tables that are unlogged, those
// that the role may not write, and how many rows were lost.
const ownSQL = `
select coalesce(string_agg(relname, ', ' order by relname) filter (where relpersistence <> 'p'), ''),
	coalesce(string_agg(relname, ', ' order by relname) filter (where not (has_table_privilege(c.oid, 'select')
		and has_table_privilege(c.oid, 'insert') and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete'))), ''),
	count(*), current_user::text
from pg_class c where c.relnamespace = to_regnamespace('headpond') and c.relkind = 'r'
	and c.relname in ('watermarks', 'dead_letters', 'discarded', 'replays', 'marks', 'changes', 'conflicts')`

// mostDead is how many dead letters of a table are counted.
const mostDead = 10_000

// Own checks Headpond's own tables.
func (c *Checks) Own(ctx context.Context) ([]buffer.Check, error) {
	const group = buffer.GroupHeadpond
	var unlogged, forbidden, role string
	var tables int
	if err := c.pool.QueryRow(ctx, ownSQL).Scan(&unlogged, &forbidden, &tables, &role); err != nil {
		return nil, storeError("check the schema headpond", err)
	}
	switch {
	case tables == 0:
		return nil, nil // the migrations are missing
	case unlogged != "":
		return []buffer.Check{buffer.Wrong(group, "schema", "ALTER TABLE headpond.… SET LOGGED",
			"Tables of the schema headpond are unlogged (%s): a crash of PostgreSQL empties them, and Headpond does not know any more what was committed.", unlogged)}, nil
	case forbidden != "":
		return []buffer.Check{buffer.Wrong(group, "schema", fmt.Sprintf("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA headpond TO %s", quote(role)),
			"The role may not read and write all tables of the schema headpond (%s).", forbidden)}, nil
	}
	return c.losses(ctx)
}

// losses are rows that did not arrive.
func (c *Checks) losses(ctx context.Context) (out []buffer.Check, err error) {
	const group = buffer.GroupHeadpond
	rows, err := c.pool.Query(ctx, `
		select w.table_name, sum(w.lost)::bigint, (select count(*) from (
			select from headpond.dead_letters d where d.table_name = w.table_name limit $1) x)
		from headpond.watermarks w group by 1 order by 1`, mostDead)
	if err != nil {
		return nil, storeError("check the dead letters", err)
	}
	err = each(rows, func() ([]any, func()) {
		var name string
		var lost, dead int64
		return []any{&name, &lost, &dead}, func() {
			if lost > 0 {
				out = append(out, buffer.Risk(group, "lost", "", "%d accepted rows of %s were lost: Redis had lost them before they were flushed.", lost, name))
			}
			if dead > 0 {
				out = append(out, buffer.Risk(group, "dead letters", "headpond dead-letters ls --table "+name,
					"%s of %s were refused by PostgreSQL and wait in headpond.dead_letters.", countText(dead), name))
			}
		}
	})
	if err == nil && len(out) == 0 {
		out = append(out, buffer.Fine(group, "dead letters", "No row was refused, and none was lost."))
	}
	return out, err
}

func countText(n int64) string {
	switch {
	case n >= mostDead:
		return fmt.Sprintf("%d rows or more", n)
	case n == 1:
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}
