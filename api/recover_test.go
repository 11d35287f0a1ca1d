package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
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
