package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// realInput are tables made for real data, and how psql's own casts read a
// line of it.
var realInput = []struct {
	file, table, columns, ddl, casts string
}{
	{
		file: "flights-20k.ndjson", table: "flights", columns: "id, date, delay, distance, origin, destination",
		ddl: `(id int primary key, date timestamp not null, delay int, distance int, origin varchar(3), destination char(3))`,
		casts: `(l->>'id')::int, (l->>'date')::timestamp, (l->>'delay')::int, (l->>'distance')::int,
			(l->>'origin')::varchar(3), (l->>'destination')::char(3)`,
	},
	{
		file: "github-webhooks.ndjson", table: "webhooks", columns: "event, action, payload",
		ddl:   `(id bigint generated always as identity primary key, event text not null, action text, payload jsonb not null)`,
		casts: `l->>'event', l->>'action', l->'payload'`,
	},
}

// TestRealInput posts real lines, together and one by one: each is in Postgres
// once, and equal, value by value, to what psql makes of it.
func TestRealInput(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "shared", "data")
	if v := os.Getenv("HEADPOND_TEST_DATA"); v != "" {
		dir = v
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no real data: HEADPOND_TEST_DATA is not set and there is no %s", dir)
	}
	ctx := context.Background()
	r := start(t, "up", "--ephemeral", "--json", "--listen", "127.0.0.1:0")
	conn, err := pgx.Connect(ctx, r.DB)
	require.NoError(t, err)
	defer func() { _ = conn.Close(ctx) }()
	for _, in := range realInput {
		for _, name := range []string{in.table, in.table + "_singly"} {
			_, err := conn.Exec(ctx, "create table "+name+in.ddl)
			require.NoError(t, err)
		}
	}
	for _, in := range realInput {
		text, err := os.ReadFile(filepath.Join(dir, in.file))
		require.NoError(t, err)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		require.Eventually(t, func() bool { // the new tables are noticed
			resp, err := http.Get(r.API + "/v1/" + in.table + "_singly/_schema") //nolint:noctx // local
			require.NoError(t, err)
			_ = resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		}, 30*time.Second, 50*time.Millisecond)

		accepted, code, err := r.post(in.table, string(text))
		require.NoError(t, err)
		require.Equal(t, http.StatusAccepted, code)
		require.Equal(t, len(lines), accepted)
		r.postSingly(in.table+"_singly", lines)
		r.drained()
		_, err = conn.Exec(ctx, `create temp table lines (l jsonb); delete from lines`)
		require.NoError(t, err)
		_, err = conn.Exec(ctx, `insert into lines select x::jsonb from unnest($1::text[]) x`, lines)
		require.NoError(t, err)
		for _, name := range []string{in.table, in.table + "_singly"} {
			var rows, missing, extra int
			require.NoError(t, conn.QueryRow(ctx, `select
				(select count(*) from `+name+`),
				(select count(*) from (select `+in.casts+` from lines except all select `+in.columns+` from `+name+`) x),
				(select count(*) from (select `+in.columns+` from `+name+` except all select `+in.casts+` from lines) x)`).
				Scan(&rows, &missing, &extra))
			require.Equal(t, len(lines), rows, name)
			require.Zero(t, missing, name)
			require.Zero(t, extra, name)
		}
		_, err = conn.Exec(ctx, `drop table lines`)
		require.NoError(t, err)
	}
}

// postSingly posts each line by itself, from several clients.
func (r *running) postSingly(table string, lines []string) {
	next := make(chan string)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for line := range next {
				resp, err := http.Post(r.API+"/v1/"+table, "application/json", strings.NewReader(line)) //nolint:noctx // local
				if err != nil {
					r.t.Error(err)
					continue
				}
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusAccepted {
					r.t.Errorf("answer %d to %.80s", resp.StatusCode, line)
				}
			}
		})
	}
	for _, line := range lines {
		next <- line
	}
	close(next)
	wg.Wait()
}
