package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headpond/headpond/buffer/table"
)

// The triggers of a watched table: one for each kind of statement, because
// transition tables ask for it. tgtype is that of pg_trigger: AFTER and FOR EACH
// STATEMENT are no bits.
var watchTriggers = []struct {
	name, event, referencing string
	tgtype                   int16
	old, new                 string
}{
	{"headpond_watch_insert", "insert", "referencing new table as headpond_new", 4, "", "headpond_new"},
	{"headpond_watch_delete", "delete", "referencing old table as headpond_old", 8, "headpond_old", ""},
	{"headpond_watch_update", "update", "referencing old table as headpond_old new table as headpond_new", 16, "headpond_old", "headpond_new"},
	{"headpond_watch_truncate", "truncate", "", 32, "", ""},
}

// Watches installs and removes the triggers that note what others change. Safe
// for concurrent use.
type Watches struct{ pool *pgxpool.Pool }

// NewWatches on a pool of a role that owns the tables.
func NewWatches(pool *pgxpool.Pool) *Watches { return &Watches{pool: pool} }

// notInstalled is what Problems says of a table without triggers.
const notInstalled = "its changes are not watched"

// Problems says what is wrong with the triggers of tables, by their names in
// paths; nothing of those that are watched well.
func (w *Watches) Problems(ctx context.Context, tables []*table.Table) (map[string]string, error) {
	oids := make([]uint32, len(tables))
	for i, t := range tables {
		oids[i] = t.OID
	}
	type trigger struct {
		relation          uint32
		name, enabled     string
		kind              int16
		old, new          string
		plain, ours, heir bool
		other             bool // made for another primary key
	}
	found := make(map[uint32]map[string]trigger)
	rows, err := w.pool.Query(ctx, `
		select t.tgrelid, t.tgname::text, t.tgenabled::text, t.tgtype, coalesce(t.tgoldtable::text, ''), coalesce(t.tgnewtable::text, ''),
			t.tgqual is null and t.tgattr = '' as plain, p.pronamespace = to_regnamespace('headpond') and p.proname like 'watch\_%' as ours,
			p.proname is distinct from 'watch_' || md5(headpond.watch_key(t.tgrelid)) as other,
			exists (select from pg_catalog.pg_inherits i where i.inhrelid = t.tgrelid)
		from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid where t.tgrelid = any ($1) and not t.tgisinternal and t.tgname like 'headpond\_watch\_%'`, oids)
	if err != nil {
		return nil, storeError("look at triggers", err)
	}
	err = each(rows, func() ([]any, func()) {
		var t trigger
		return []any{&t.relation, &t.name, &t.enabled, &t.kind, &t.old, &t.new, &t.plain, &t.ours, &t.other, &t.heir}, func() {
			if found[t.relation] == nil {
				found[t.relation] = make(map[string]trigger)
			}
			found[t.relation][t.name] = t
		}
	})
	if err != nil {
		return nil, storeError("look at triggers", err)
	}
	problems := make(map[string]string)
	for _, t := range tables {
		there := found[t.OID]
		for _, want := range watchTriggers {
			is, known := there[want.name]
			switch {
			case len(there) == 0:
				problems[t.Name] = notInstalled
			case !known:
				problems[t.Name] = fmt.Sprintf("its trigger %s is missing", want.name)
			case is.enabled != "A" && is.enabled != "O":
				problems[t.Name] = fmt.Sprintf("its trigger %s is disabled", want.name)
			case !is.ours || !is.plain || is.kind != want.tgtype || is.old != want.old || is.new != want.new:
				problems[t.Name] = fmt.Sprintf("its trigger %s is not as Headpond made it", want.name)
			case is.other:
				problems[t.Name] = "its primary key is another one than when it was installed, so each change makes all of its rows leave"
			case is.heir:
				problems[t.Name] = "it is a partition or inherits: what is changed through the other table is not noticed"
			default:
				continue
			}
			break
		}
	}
	return problems, nil
}

// Install makes the triggers of a table, or makes them as they should be. All that
// is cached of it leaves: nobody watched it before. It does nothing when they are
// there. The lock that it needs waits for writers, for at most five seconds.
//
// The triggers fire in sessions whose session_replication_role is replica too:
// those change rows like others. What logical replication applies fires no
// triggers of statements.
func (w *Watches) Install(ctx context.Context, t *table.Table) error {
	if err := w.mayWatch(ctx, t); err != nil {
		return err
	}
	problems, err := w.Problems(ctx, []*table.Table{t})
	if err != nil || problems[t.Name] == "" {
		return err
	}
	return w.change(ctx, t, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "lock table only "+t.SQLName+" in share row exclusive mode"); err != nil {
			return err
		}
		var function string
		if err := tx.QueryRow(ctx, "select headpond.watch_function($1)", t.OID).Scan(&function); err != nil {
			return err
		}
		var sql strings.Builder
		for _, tr := range watchTriggers {
			fmt.Fprintf(&sql, "drop trigger if exists %s on %s;\n", tr.name, t.SQLName)
			fmt.Fprintf(&sql, "create trigger %s after %s on %s %s for each statement execute function %s();\n",
				tr.name, tr.event, t.SQLName, tr.referencing, function)
			fmt.Fprintf(&sql, "alter table %s enable always trigger %s;\n", t.SQLName, tr.name)
		}
		sql.WriteString(dropUnused)
		if _, err := tx.Conn().PgConn().Exec(ctx, sql.String()).ReadAll(); err != nil {
			return err
		}
		return forget(ctx, tx, t)
	})
}

// dropUnused drops trigger functions that no table needs any more.
const dropUnused = "select headpond.drop_watch_functions();\n"

// mayWatch says why a table cannot be watched.
func (w *Watches) mayWatch(ctx context.Context, t *table.Table) error {
	switch {
	case t.Unusable != "":
		return fmt.Errorf("watch table=%s: %s", t.Name, t.Unusable)
	case t.Partitioned:
		return fmt.Errorf("watch table=%s: it is partitioned, and triggers of its own do not see what is written to its partitions directly", t.Name)
	case !t.HasKey():
		return fmt.Errorf("watch table=%s: it has no primary key, so nothing of it is cached", t.Name)
	}
	var owner string
	var mine, heir, migrated bool
	err := w.pool.QueryRow(ctx, `
		select pg_get_userbyid(c.relowner)::text, pg_has_role(c.relowner, 'usage'), exists (select from pg_inherits i where i.inhrelid = c.oid),
			exists (select from pg_proc p where p.oid = to_regprocedure('headpond.watch_function(oid)') and p.prosrc like '%#variable_conflict%')
		from pg_class c where c.oid = $1`, t.OID).Scan(&owner, &mine, &heir, &migrated)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("watch table=%s: %w", t.Name, ErrCatalogStale)
	case err != nil:
		return storeError("watch table="+t.Name, err)
	case heir:
		return fmt.Errorf("watch table=%s: it is a partition or inherits from another table: what is changed through that one would not be noticed", t.Name)
	case !migrated:
		return fmt.Errorf("watch table=%s: the schema headpond is missing or older than this program: headpond migrate up", t.Name)
	case !mine:
		return fmt.Errorf("watch table=%s: it belongs to the role %s: connect as that role, or as a superuser", t.Name, owner)
	}
	return nil
}

// Remove takes the triggers of a table away. What they have noted already still
// leaves the cache.
func (w *Watches) Remove(ctx context.Context, t *table.Table) error {
	var sql strings.Builder
	for _, tr := range watchTriggers {
		fmt.Fprintf(&sql, "drop trigger if exists %s on %s;\n", tr.name, t.SQLName)
	}
	sql.WriteString(dropUnused)
	return w.change(ctx, t, func(tx pgx.Tx) error {
		_, err := tx.Conn().PgConn().Exec(ctx, sql.String()).ReadAll()
		return err
	})
}

// Forget makes all that is cached of a table leave: for when it was not watched
// for a while.
func (w *Watches) Forget(ctx context.Context, t *table.Table) error {
	return w.change(ctx, t, func(tx pgx.Tx) error { return forget(ctx, tx, t) })
}

func forget(ctx context.Context, tx pgx.Tx, t *table.Table) error {
	_, err := tx.Exec(ctx, "insert into headpond.changes (table_name, relation, own) values ($1, $2, true)", t.Name, t.OID)
	return err
}

func (w *Watches) change(ctx context.Context, t *table.Table, do func(pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select set_config('lock_timeout', '5s', true)"); err != nil {
			return err
		}
		return do(tx)
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "55P03" {
		return fmt.Errorf("watch table=%s: somebody has it locked for more than five seconds; try again", t.Name)
	}
	return storeError("watch table="+t.Name, err)
}

// WatchState is what is known of one watched table.
type WatchState struct {
	Table     string    `json:"table"`
	Problem   string    `json:"problem,omitempty"`
	Entries   int64     `json:"entries"` // statements, or thousands of keys, that are still to leave the cache
	Oldest    time.Time `json:"oldest,omitzero"`
	Conflicts int64     `json:"conflicts"` // keys with operations that waited when others changed them
}

// Status of every table that has a trigger of Headpond's, or changes that wait;
// size is that of headpond.changes in bytes.
func (w *Watches) Status(ctx context.Context) (states []WatchState, size int64, err error) {
	var tables []*table.Table
	b := &pgx.Batch{}
	b.Queue(`select coalesce(pg_total_relation_size(to_regclass('headpond.changes')), -1)`).QueryRow(func(row pgx.Row) error { return row.Scan(&size) })
	b.Queue(`
		select c.oid, case when n.nspname = 'public' and strpos(c.relname, '.') = 0 then c.relname else n.nspname || '.' || c.relname end
		from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname like 'headpond\_watch\_%')
		order by 2`).Query(func(rows pgx.Rows) error {
		return each(rows, func() ([]any, func()) {
			t := &table.Table{}
			return []any{&t.OID, &t.Name}, func() { tables = append(tables, t) }
		})
	})
	if err := w.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, 0, storeError("read the watches", err)
	}
	if size < 0 {
		return nil, 0, errors.New("the schema headpond is missing or older than this program: headpond migrate up")
	}
	problems, err := w.Problems(ctx, tables)
	if err != nil {
		return nil, 0, err
	}
	waiting, err := w.waiting(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, t := range tables {
		s := waiting[t.Name]
		s.Table, s.Problem = t.Name, problems[t.Name]
		states = append(states, s)
		delete(waiting, t.Name)
	}
	for _, s := range waiting {
		s.Problem = notInstalled
		states = append(states, s)
	}
	return states, size, nil
}

func (w *Watches) waiting(ctx context.Context) (map[string]WatchState, error) {
	rows, err := w.pool.Query(ctx, `
		select table_name, coalesce(c.n, 0), coalesce(c.oldest, 'epoch'), coalesce(k.n, 0)
		from (select table_name, count(*) n, min(at) oldest from headpond.changes group by 1) c
		full join (select table_name, count(*) n from headpond.conflicts group by 1) k using (table_name)`)
	if err != nil {
		return nil, storeError("read what waits", err)
	}
	out := make(map[string]WatchState)
	err = each(rows, func() ([]any, func()) {
		var s WatchState
		return []any{&s.Table, &s.Entries, &s.Oldest, &s.Conflicts}, func() {
			if s.Entries == 0 {
				s.Oldest = time.Time{}
			}
			out[s.Table] = s
		}
	})
	return out, storeError("read what waits", err)
}
