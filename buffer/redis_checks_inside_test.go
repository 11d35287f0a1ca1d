package buffer

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMendsCanBeRun: how much is at stake is that of the setting, and a full Redis
// is given a size.
func TestMendsCanBeRun(t *testing.T) {
	t.Parallel()
	f := &redisFacts{
		config: map[string]string{"appendonly": "yes", "appendfsync": "everysec", "maxmemory": "104857600"},
		info:   map[string]string{"used_memory": "100000000", "total_system_memory": "1000000000"},
	}
	require.Contains(t, checkPersistence(f).Text, "every second or so")
	f.config["appendfsync"] = "no"
	require.Contains(t, checkPersistence(f).Text, "30 seconds")
	require.Equal(t, "redis-cli CONFIG SET maxmemory 209715200", checkMemory(f).Mend)
	f.config["maxmemory"] = "1048576"
	require.Equal(t, "redis-cli CONFIG SET maxmemory 200000000", checkMemory(f).Mend, "above what it uses")
	f.info["total_system_memory"] = "200000000"
	require.NotContains(t, checkMemory(f).Mend, "CONFIG")
}
