package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// TestReceiptsAfterALoss: Redis loses everything. Receipts of rows that were
// given back tell where they are, and who waits for a commit is not told of
// another row's.
func TestReceiptsAfterALoss(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := setupWith(t, `create table t (id bigint primary key, v text)`, options{redis: uptest.Redis(t).URL(), buffer: buffer.Config{Memory: 64 << 20}})
	var before []string
	for _, id := range []string{"1", "2", "3"} {
		a := s.do(http.MethodPut, s.path("t", id), `{"v":"x"}`)
		require.Equal(t, 202, a.status)
		before = append(before, a.header.Get("Headpond-Receipt"))
	}
	waits := make(chan *answer)
	go func() { waits <- s.do(http.MethodPut, s.path("t", "1"), `{"v":"waits"}`, "Prefer", "wait=20") }()
	require.Eventually(t, func() bool { return s.accepted("t") == 4 }, 10*time.Second, time.Millisecond)
	require.NoError(t, s.rdb.FlushAll(ctx).Err())
	require.JSONEq(t, `{"id":2,"v":"x"}`, string(s.get(s.path("t", "2")).body))
	s.startFlusher()
	s.flushed()
	for _, r := range before {
		var got struct{ State string }
		require.NoError(t, json.Unmarshal(s.get("/v1/receipts/"+r).body, &got))
		require.Equal(t, "committed", got.State, r)
	}
	require.Equal(t, 202, (<-waits).status, "it is not known under which number it is now")
	require.Equal(t, 3, s.count("t"))
	require.NotEmpty(t, s.status().Recoveries, "where it is looked for")
}

// TestPostgresGoesBack: a backup is restored that lacks the last commits. The log
// still has them, so nothing is lost; readers are never given what Postgres has
// no more, but what is committed again.
func TestPostgresGoesBack(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id bigint primary key, v text)`, options{partitions: 1, ttl: time.Hour, buffer: buffer.Config{Keys: keysOf}})
	s.background(s.Sample)
	stop := s.startFlusher()
	for _, id := range []string{"1", "2", "3"} {
		require.Equal(t, 202, s.do(http.MethodPut, s.path("t", id), `{"v":"x"}`).status)
	}
	s.flushed()
	stop()
	back := func(seq int) {
		s.exec(`with gone as (delete from t where id > $2::bigint)
			update headpond.watermarks set seq = $2::bigint, committed = $2::bigint where table_name = $1`, s.schema+".t", seq)
	}
	back(1)
	require.Eventually(t, func() bool {
		tails, err := s.buf.Tails(context.Background(), s.places(s.schema+".t"))
		return err == nil && tails[0].Settled == 1 && !tails[0].Closed
	}, 20*time.Second, 5*time.Millisecond, "it is noticed though there is nothing to flush")
	a := s.get(s.path("t", "3"))
	require.JSONEq(t, `{"id":3,"v":"x"}`, string(a.body))
	require.Equal(t, "pending", a.header.Get("Headpond-Durability"))
	stop = s.startFlusher()
	s.flushed()
	require.Equal(t, 3, s.count("t"))
	require.Zero(t, s.status().Ledger.Lost)
	stop()

	// Further back than the log is kept.
	require.NoError(t, s.rdb.XTrimMinID(context.Background(), "hp:{"+s.schema+".t.0}:log", "1-3").Err())
	back(0)
	require.Eventually(t, func() bool { return len(s.status().Warnings) > 0 }, 20*time.Second, 5*time.Millisecond)
	require.Contains(t, s.status().Warnings[0], "rows 1 to 2 were committed, and nobody has them any more")
	s.startFlusher()
	var out struct{ Lost int }
	s.do(http.MethodPost, "/admin/v1/tables/"+s.schema+".t/accept-gap", "").into(t, &out)
	require.Equal(t, 2, out.Lost)
	s.flushed()
	require.Equal(t, 1, s.count("t"))
	require.EqualValues(t, 2, s.status().Ledger.Lost)
}

// keysOf: the first column is the key.
func keysOf(_ string, f *table.Frame) (keys []string, err error) {
	for i := range f.Len() {
		keys = append(keys, string(table.ParseLine(f.Line(i))[0].Text))
	}
	return keys, nil
}
