package up_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

func TestPortIsKept(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	require.NoError(t, r.Stop())
	again, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: r.Dir()})
	require.NoError(t, err)
	require.Equal(t, r.URL(), again.URL())
	require.NoError(t, again.Stop())
}

func TestPortTakenByAnother(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	require.NoError(t, r.Stop())
	thief, err := net.Listen("tcp4", r.Addr())
	require.NoError(t, err)
	defer thief.Close()

	require.ErrorContains(t, r.Restart(t.Context()), "Address already in use", "the address was given out: no other will do")
	require.NoError(t, r.Stop())

	fresh, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: r.Dir()})
	require.NoError(t, err)
	require.NotEqual(t, r.Addr(), fresh.Addr())
	require.NoError(t, client(t, fresh).Ping(t.Context()).Err())
	require.NoError(t, fresh.Stop())
}
