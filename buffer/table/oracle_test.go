package table_test

import (
	"context"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

func TestMain(m *testing.M) { uptest.Main(m) }

// oracle is a session of a real PostgreSQL with the settings that canonical
// text is defined by.
type oracle struct {
	mu   sync.Mutex
	conn *pgx.Conn
}

// verdict is what the server makes of one JSON value in a column of a type.
type verdict struct {
	state string // SQLSTATE, empty when it took the value
	text  string
	json  string // to_jsonb of the stored value; empty when that is not possible
	null  bool
}

// setup: judge asks about each value by itself; format('%s') calls the output
// function, which a cast to text does not for char(n) and boolean.
const setup = `
create type mood as enum ('sad', 'so so', 'happy, "very"', 'NULL');
create domain positive as int check (value > 0);
create domain price as numeric(6,2);
create domain words as text[];
create type spot as (x int, label text, "a b" numeric(5,1));
create type nest as (id bigint, at spot, tags text[], doc jsonb);
create function judge(docs text[], typ text, via text) returns table (state text, textual text, doc text, absent bool)
language plpgsql as $$
declare d text;
begin
	foreach d in array docs loop
		state := ''; textual := ''; doc := ''; absent := false;
		begin
			execute format('select format(''%%s'', r.v), num_nulls(r.v) = 1 from %s_to_record($1::%s) as r(v %s)', via, via, typ)
				into textual, absent using '{"v":' || d || '}';
			begin
				execute format('select to_jsonb(r.v)::text from %s_to_record($1::%s) as r(v %s)', via, via, typ)
					into doc using '{"v":' || d || '}';
			exception when others then doc := ''; end;
		exception when others then state := sqlstate;
		end;
		return next;
	end loop;
end $$;
create function prints(texts text[], typ text) returns table (textual text, doc text)
language plpgsql as $$
declare d text;
begin
	foreach d in array texts loop
		begin
			execute format('select format(''%%s'', v), to_jsonb(v)::text from (select $1::%s as v) s', typ) into textual, doc using d;
		exception when others then
			raise exception '% of %: %', d, typ, sqlerrm;
		end;
		return next;
	end loop;
end $$;`

func newOracle(t testing.TB) *oracle {
	t.Helper()
	config, err := pgx.ParseConfig(uptest.Database(t))
	require.NoError(t, err)
	for name, value := range map[string]string{
		"timezone": "UTC", "datestyle": "ISO, MDY", "intervalstyle": "postgres",
		"bytea_output": "hex", "extra_float_digits": "1",
	} {
		config.RuntimeParams[name] = value
	}
	conn, err := pgx.ConnectConfig(context.Background(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(context.Background(), setup)
	require.NoError(t, err)
	return &oracle{conn: conn}
}

// judge asks what the server makes of the documents in a column of the type,
// through jsonb_to_record or json_to_record.
func (o *oracle) judge(t require.TestingT, sqlType, via string, docs []string) []verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	rows, err := o.conn.Query(context.Background(), `select state, textual, coalesce(doc, ''), absent from judge($1, $2, $3)`, docs, sqlType, via)
	require.NoError(t, err)
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (v verdict, err error) {
		return v, row.Scan(&v.state, &v.text, &v.json, &v.null)
	})
	require.NoError(t, err)
	require.Len(t, out, len(docs))
	return out
}

// prints gives the canonical text and to_jsonb of literals.
func (o *oracle) prints(t require.TestingT, sqlType string, literals []string) []verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	rows, err := o.conn.Query(context.Background(), `select textual, doc from prints($1, $2)`, literals, sqlType)
	require.NoError(t, err)
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (v verdict, err error) {
		return v, row.Scan(&v.text, &v.json)
	})
	require.NoError(t, err)
	require.Len(t, out, len(literals))
	return out
}
