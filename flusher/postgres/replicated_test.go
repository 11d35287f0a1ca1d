package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
	"github.com/headpond/headpond/flusher"
)

// waitsForStandby is the backend whose COMMIT waits.
const waitsForStandby = `select coalesce(max(pid), 0) from pg_stat_activity where wait_event = 'SyncRep' and application_name = 'headpond'`

// TestCommitThatNoStandbyHasSeen: the wait for a synchronous standby is cancelled.
// COMMIT answers with success and a warning, and the Report says so; a later commit
// that is confirmed does not (F14).
func TestCommitThatNoStandbyHasSeen(t *testing.T) {
	t.Parallel()
	server := uptest.Postgres(t) // of its own: the setting is the whole server's
	b := setupFlushAt(t, server.URL(), intTable+`;
		create function warn() returns trigger language plpgsql as $$ begin raise warning 'a trigger may warn'; return new; end $$;
		create trigger warn before insert on t for each row execute function warn()`, 1)
	other := openURL(t, server.URL()+"&synchronous_commit=local", "")
	standby := func(name string) {
		execute(t, other, `alter system set synchronous_standby_names = '`+name+`'`)
		execute(t, other, `select pg_reload_conf()`)
		require.Eventually(t, func() bool { return value(t, other, `show synchronous_standby_names`) == name }, 30*time.Second, 5*time.Millisecond)
	}
	r, err := b.flush(give("id,v,w", "1,1,a"), 0)
	require.NoError(t, err)
	require.False(t, r.Unreplicated, "a warning of a trigger is none of ours")

	standby("x")
	flush := func(load flusher.Load) *flusher.Report {
		type outcome struct {
			r   *flusher.Report
			err error
		}
		done := make(chan outcome, 1)
		go func() {
			r, err := b.flush(load, 0)
			done <- outcome{r, err}
		}()
		require.Eventually(t, func() bool { return value(t, other, waitsForStandby) != "0" }, 30*time.Second, 5*time.Millisecond)
		execute(t, other, `select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'`)
		o := <-done
		require.NoError(t, o.err)
		return o.r
	}
	require.True(t, flush(give("id,v,w", "2,2,b")).Unreplicated)
	require.Equal(t, 2, b.count(`select count(*) from t`), "it is committed")
	nothing := func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
		return []flusher.Part{{Claim: claims[0]}}, nil
	}
	require.True(t, flush(nothing).Unreplicated, "nor does a look that finds it committed say that it is safe")

	standby("")
	r, err = b.flush(nothing, 0)
	require.NoError(t, err)
	require.False(t, r.Unreplicated)
	require.Equal(t, buffer.Place{Table: "t"}, r.Parts[0].Place)
	require.Equal(t, table.ID{Epoch: 1, Seq: 2}, r.Parts[0].Watermark)
}
