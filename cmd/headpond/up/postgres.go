package up

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// database is the one that is made for Headpond and that URL names.
const database = "headpond"

// Postgres is one private PostgreSQL server. Safe for concurrent use.
type Postgres struct {
	*server
	socketDir string
}

// StartPostgres starts a PostgreSQL on a free loopback port and a Unix socket,
// both without a password, with a cluster that it makes on first use and a
// database "headpond". The context bounds the start alone.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	bin, err := findPostgres(o.Dir)
	if err != nil {
		return nil, err
	}
	s, err := newServer("postgres", o.Dir, o.Ephemeral, o.Log)
	if err != nil {
		return nil, err
	}
	sockets, err := socketDir(s.dir)
	if err != nil {
		return nil, err
	}
	if sockets != s.dir {
		s.scratch = sockets
	}
	s.engine = &postgresEngine{bin: bin, dir: s.dir, data: clusterDir(s.dir), sockets: sockets, who: s.who, noSync: o.NoSync}
	s.traits = postgresTraits()
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return &Postgres{server: s, socketDir: sockets}, nil
}

// URL is postgres://…@127.0.0.1:port/headpond, the same for as long as this process lives.
func (p *Postgres) URL() string { return postgresURL(p.Addr(), database) }

// SocketURL leads to the same database over the Unix socket.
func (p *Postgres) SocketURL() string {
	_, port, _ := strings.Cut(p.Addr(), ":")
	where := url.Values{"host": {p.socketDir}, "port": {port}, "sslmode": {"disable"}}
	return (&url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/" + database, RawQuery: where.Encode()}).String()
}

func postgresURL(addr, name string) string {
	return (&url.URL{Scheme: "postgres", User: url.User("postgres"), Host: addr, Path: "/" + name, RawQuery: "sslmode=disable"}).String()
}

type postgresEngine struct {
	bin                postgresBin
	dir, data, sockets string
	who                *account
	noSync             bool
}

func (e *postgresEngine) postmasterPID() string { return filepath.Join(e.data, "postmaster.pid") }

// command passes everything on the command line, above postgresql.conf and
// ALTER SYSTEM: the durability that `up` promises cannot be edited away by accident.
func (e *postgresEngine) command(port int) (string, []string) {
	args := []string{"-D", e.data}
	for _, setting := range e.settings(port) {
		args = append(args, "-c", setting)
	}
	return e.bin.postgres(), args
}

func (e *postgresEngine) settings(port int) []string {
	settings := []string{
		"listen_addresses=127.0.0.1",
		"port=" + strconv.Itoa(port),
		"unix_socket_directories=" + e.sockets,
		"unix_socket_permissions=0700",
		"max_connections=100",
		"shared_buffers=128MB",
		"max_wal_size=2GB",
		"synchronous_commit=on",
		"tcp_keepalives_idle=30",
		"tcp_keepalives_interval=10",
		"tcp_keepalives_count=3",
		"logging_collector=off", // the log is our file
		"log_destination=stderr",
		"log_line_prefix=%m [%p] ",
		"log_min_error_statement=panic", // a statement may hold the user's data
	}
	if e.bin.checksConnections() {
		settings = append(settings, "client_connection_check_interval=5s")
	}
	if e.noSync {
		return append(settings, "fsync=off", "full_page_writes=off")
	}
	return append(settings, "fsync=on", "full_page_writes=on")
}

// ready reads the postmaster's own word, as pg_ctl does: the first line of
// postmaster.pid is its process id, the eighth its state.
func (e *postgresEngine) ready(_ context.Context, pid, _ int) bool {
	text, err := os.ReadFile(e.postmasterPID())
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

// postgresTraits: SIGINT is the fast shutdown, which ends sessions and writes a
// checkpoint; SIGQUIT the immediate one, which leaves recovery to the next
// start. The latter is also the death signal, and not SIGKILL: the postmaster
// then takes its backends along, and a backend that computes for an hour would
// not notice by itself that it has no postmaster.
func postgresTraits() traits {
	return traits{
		programs:    []string{"postgres", "initdb"},
		farewells:   []farewell{{syscall.SIGINT, 30 * time.Second}, {syscall.SIGQUIT, 10 * time.Second}},
		deathSignal: syscall.SIGQUIT,
	}
}

func clusterDir(dir string) string { return filepath.Join(dir, "data") }

// socketDir is the server's directory if the socket's path fits: 108 bytes with
// the final zero on Linux, 104 on macOS (unix(7)).
func socketDir(dir string) (string, error) {
	const longest = 103
	if len(dir)+len("/.s.PGSQL.65535.lock") <= longest && !strings.ContainsAny(dir, `,"`) {
		return dir, nil
	}
	short, err := os.MkdirTemp("/tmp", "headpond-sock-")
	if err != nil {
		return "", fmt.Errorf("make socket directory: %w", err)
	}
	return short, nil
}
