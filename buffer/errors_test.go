package buffer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// TestClassifyEveryReply: the whole texts as Redis 7.0 sends them (server.c,
// script.c, cluster.c), and what the driver says without a reply.
func TestClassifyEveryReply(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]verdict{
		"OOM command not allowed when used memory > 'maxmemory'.":                                                          notApplied,
		"OOM command not allowed when used memory > 'maxmemory'. script: 6b1b, on @user_script:1.":                         notApplied,
		"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.":                 notApplied,
		"MISCONF Errors writing to the AOF file: No space left on device":                                                  notApplied,
		"READONLY You can't write against a read only replica.":                                                            notApplied,
		"LOADING Redis is loading the dataset in memory":                                                                   notApplied,
		"NOREPLICAS Not enough good replicas to write.":                                                                    notApplied,
		"CLUSTERDOWN The cluster is down":                                                                                  notApplied,
		"CLUSTERDOWN Hash slot not served":                                                                                 notApplied,
		"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.":                                 notApplied,
		"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.":                           notApplied,
		"TRYAGAIN Multiple keys request during rehashing of slot":                                                          notApplied,
		"MOVED 3999 127.0.0.1:6381":                                                                                        notApplied,
		"ASK 3999 127.0.0.1:6381":                                                                                          notApplied,
		"NOAUTH Authentication required.":                                                                                  notApplied,
		"WRONGPASS invalid username-password pair or user is disabled.":                                                    notApplied,
		"NOPERM this user has no permissions to run the 'evalsha' command":                                                 notApplied,
		"DENIED Redis is running in protected mode because protected mode is enabled":                                      notApplied,
		"ERR max number of clients reached":                                                                                notApplied,
		"ERR AUTH <password> called without any password configured for the default user. Are you sure your config is ok?": notApplied,

		"NOSCRIPT No matching script. Please use EVAL.":                                                                       noScript,
		"ERR The ID specified in XADD is equal or smaller than the target stream top item script: 6b1b, on @user_script:157.": noScript,

		"ERR Script attempted to access a non local key in a cluster node script: 6b1b, on @user_script:48.": notApplied,

		"WRONGTYPE Operation against a key holding the wrong kind of value script: 6b1b, on @user_script:7.": broken,
		"ERR user_script:12: Script attempted to access nonexistent global variable 'x' script: 6b1b":        broken,
		"ERR value is not an integer or out of range script: 6b1b":                                           broken,
		"CROSSSLOT Keys in request don't hash to the same slot":                                              broken,
		"ERR something that nobody has seen yet":                                                             broken,
	} {
		require.Equal(t, want, classify(replyError(text)), text)
		require.Equal(t, want, classify(fmt.Errorf("append: %w", replyError(text))), text)
	}
	for _, c := range []struct {
		err  error
		want verdict
	}{
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, notApplied},
		{redis.ErrPoolTimeout, notApplied},
		{redis.ErrPoolExhausted, notApplied},
		{redis.ErrClosed, notApplied},
		{&net.OpError{Op: "read", Err: errors.New("connection reset by peer")}, unknown},
		{&net.OpError{Op: "write", Err: errors.New("broken pipe")}, unknown},
		{io.EOF, unknown},
		{io.ErrUnexpectedEOF, unknown},
		{os.ErrDeadlineExceeded, unknown},
		{context.DeadlineExceeded, unknown},
		{context.Canceled, unknown},
	} {
		require.Equal(t, c.want, classify(c.err), "%v", c.err)
	}
}
