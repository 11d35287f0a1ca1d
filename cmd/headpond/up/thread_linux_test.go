package up_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// The parent-death signal comes when the thread that forked ends. Were a child
// forked on its caller's thread, it would die with the caller's goroutine.
func TestChildOutlivesTheThreadOfItsCaller(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(uptest.Dir(t), "redis")
	started := make(chan *up.Redis, 1)
	thread := make(chan int, 1)
	onThreadThatEnds(func() {
		thread <- syscall.Gettid()
		r, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: dir})
		if err != nil {
			t.Errorf("start redis: %v", err)
		}
		started <- r
	})
	r := <-started
	require.NotNil(t, r)
	task := fmt.Sprintf("/proc/self/task/%d", <-thread)
	require.Eventually(t, func() bool { _, err := os.Stat(task); return os.IsNotExist(err) }, soon, tick)
	require.NoError(t, client(t, r).Ping(t.Context()).Err())
	require.NotZero(t, r.PID())
	require.NoError(t, r.Stop())
}

// onThreadThatEnds runs f on a thread that ends with it: Go ends the thread of
// a goroutine that returns while locked to it, unless it is the process' first.
func onThreadThatEnds(f func()) {
	go func() {
		runtime.LockOSThread()
		if syscall.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread()
			onThreadThatEnds(f)
			return
		}
		f()
	}()
}
