package postgres

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
	"github.com/headpond/headpond/migrations"
)

// serious gives the checks that are not ok, by their names.
func serious(t *testing.T, checks []buffer.Check, err error) map[string]buffer.Check {
	t.Helper()
	require.NoError(t, err)
	out := make(map[string]buffer.Check)
	for _, c := range checks {
		require.NotEmpty(t, c.Text)
		if c.Severity != buffer.CheckOK {
			out[c.Name] = c
		}
	}
	return out
}

func TestServerChecks(t *testing.T) {
	t.Parallel()
	dsn := uptest.Database(t)
	c := NewChecks(openURL(t, dsn, ""), 40)
	all, err := c.Server(t.Context())
	bad := serious(t, all, err)
	require.Equal(t, buffer.CheckError, bad["fsync"].Severity, "the shared server runs without")
	require.Contains(t, bad["fsync"].Mend, "ALTER SYSTEM SET fsync = on")
	delete(bad, "fsync")
	delete(bad, "full_page_writes")
	require.Empty(t, bad)

	all, err = NewChecks(c.pool, 100_000).Server(t.Context())
	require.Contains(t, serious(t, all, err), "connections")

	execute(t, c.pool, "do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$")
	readOnly := openURL(t, dsn+"&target_session_attrs=read-only", "")
	all, err = NewChecks(readOnly, 40).Server(t.Context())
	require.Contains(t, serious(t, all, err), "writable")
}

func TestTableChecks(t *testing.T) {
	t.Parallel()
	dsn := uptest.Database(t)
	role := "checks_" + uptestName(t, dsn)
	owner := openURL(t, dsn, `
		create role `+role+` login password 'x';
		create table sound (id int primary key, v text);
		create table added (id int primary key, v text);
		create table hidden (id int primary key, v text);
		create table small (id smallserial primary key, v text);
		create table touched (id int primary key, v text);
		create table heap (v text);
		create unlogged table fleeting (id int primary key);
		create view looked as select * from sound;
		create function touch() returns trigger language plpgsql as 'begin return new; end';
		create trigger touch before insert or update on touched for each row execute function touch();
		create trigger after after insert on sound for each row execute function touch();
		select setval('small_id_seq', 32000);
		grant select, insert, update, delete on sound, small, touched, heap, fleeting, looked to `+role+`;
		grant usage on sequence small_id_seq to `+role+`;
		grant insert on added to `+role)
	t.Cleanup(func() { _, _ = owner.Exec(t.Context(), "drop owned by "+role) })
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	u.User = url.UserPassword(role, "x")
	pool := openURL(t, u.String(), "")
	tables := loadTables(t, pool)
	all, err := NewChecks(pool, 40).Tables(t.Context(), tables, nil)
	bad := serious(t, all, err)
	for name, says := range map[string]string{
		"added": "GRANT DELETE, SELECT, UPDATE ON public.added", "hidden": "may not insert", "small": "32000 are used up",
		"touched": "trigger", "fleeting": "unlogged",
	} {
		c := bad[name]
		require.Contains(t, c.Sentence(), says, name)
		delete(bad, name)
	}
	require.Empty(t, bad)
	all, err = NewChecks(pool, 40).Tables(t.Context(), tables, []string{"fleeting", "nowhere", "sound"})
	bad = serious(t, all, err)
	require.Equal(t, buffer.CheckError, bad["fleeting"].Severity)
	require.Equal(t, buffer.CheckError, bad["nowhere"].Severity)
	require.NotContains(t, bad, "sound")
}

// uptestName is one that no other database of the server has.
func uptestName(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	return u.Path[1:]
}

func TestOwnChecks(t *testing.T) {
	t.Parallel()
	dsn := uptest.Database(t)
	c := NewChecks(openURL(t, dsn, ""), 40)
	all, err := c.Own(t.Context())
	require.NoError(t, err)
	require.Empty(t, all, "the migrations are missing, which another check says")
	require.NoError(t, migrations.Up(t.Context(), dsn))
	all, err = c.Own(t.Context())
	require.Empty(t, serious(t, all, err))
	require.NotEmpty(t, all)

	execute(t, c.pool, `
		insert into headpond.watermarks (table_name, partition, epoch, seq, committed, dead, lost) values ('orders', 0, 1, 10, 2, 1, 7);
		insert into headpond.dead_letters (table_name, partition, epoch, seq, sqlstate, message, columns, "values", accepted_at)
		values ('orders', 0, 1, 3, '23514', 'no', '{}', '{}', now())`)
	all, err = c.Own(t.Context())
	bad := serious(t, all, err)
	require.Contains(t, bad["dead letters"].Text, "1 row of orders")
	require.Contains(t, bad["lost"].Text, "7 accepted rows of orders")

	execute(t, c.pool, "alter table headpond.watermarks set unlogged")
	all, err = c.Own(t.Context())
	require.Equal(t, buffer.CheckError, serious(t, all, err)["schema"].Severity)
}
