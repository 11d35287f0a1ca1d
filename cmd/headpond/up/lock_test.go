package up

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Found as "in use by" ourselves, right after Stop, while another test forked.
func TestReleasedLockIsFreeWhileAChildHoldsACopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	held, err := takeLock(dir)
	require.NoError(t, err)
	copied, err := syscall.Dup(int(held.file.Fd())) // as fork does
	require.NoError(t, err)
	defer func() { require.NoError(t, syscall.Close(copied)) }()

	_, err = takeLock(dir)
	var inUse *InUseError
	require.ErrorAs(t, err, &inUse)
	require.NoError(t, held.release())
	again, err := takeLock(dir)
	require.NoError(t, err)
	require.NoError(t, again.release())
}
