package up

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
)

// RedisOptions says where a private Redis keeps its data.
type RedisOptions struct {
	// Dir is the server's own directory, usually <data dir>/redis. It is made if needed.
	Dir string
	// Ephemeral uses a temporary directory that Stop removes. Dir must be empty then.
	Ephemeral bool
	// Log takes what happens to the child; nil is slog.Default().
	Log *slog.Logger
}

// PostgresOptions says where a private PostgreSQL keeps its data.
type PostgresOptions struct {
	// Dir is the server's own directory, usually <data dir>/postgres. It is made if needed.
	Dir string
	// Ephemeral uses a temporary directory that Stop removes. Dir must be empty then.
	Ephemeral bool
	// NoSync switches fsync off: faster, safe against SIGKILL, not against a
	// power cut. For tests.
	NoSync bool
	// Log takes what happens to the child; nil is slog.Default().
	Log *slog.Logger
}

// DefaultDataDir is where `headpond up` keeps its data if not told otherwise:
// /var/lib/headpond for root, because the children of root run as another user
// and that user can seldom enter root's home; else the user's XDG data directory.
func DefaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/headpond"
	}
	if xdg := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(xdg) {
		return filepath.Join(xdg, "headpond")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "headpond")
	}
	return filepath.Join(os.TempDir(), "headpond-data")
}

func validDir(dir string, ephemeral bool) error {
	switch {
	case dir == "" && !ephemeral:
		return errors.New("either Dir or Ephemeral must be given")
	case dir != "" && ephemeral:
		return errors.New("only one of Dir and Ephemeral may be given")
	}
	return nil
}

func orDefault(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.Default()
	}
	return log
}
