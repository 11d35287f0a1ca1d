package up

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Redis is one private Redis (or Valkey) server. Safe for concurrent use.
type Redis struct{ *server }

// StartRedis starts a Redis that has every write on disk before it answers
// (appendonly yes, appendfsync always), evicts nothing but cached rows, and listens on a free
// loopback port. The context bounds the start alone.
func StartRedis(ctx context.Context, o RedisOptions) (*Redis, error) {
	program, err := findRedis()
	if err != nil {
		return nil, err
	}
	s, err := newServer("redis", o.Dir, o.Ephemeral, o.Log)
	if err != nil {
		return nil, err
	}
	s.engine = &redisEngine{program: program, dir: s.dir}
	s.traits = traits{
		programs:  []string{processName(program)},
		farewells: []farewell{{syscall.SIGTERM, 10 * time.Second}},
		// With appendfsync always a clean end saves nothing that SIGKILL would
		// lose, and a script that runs for long cannot delay SIGKILL.
		deathSignal: syscall.SIGKILL,
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return &Redis{s}, nil
}

// URL is redis://host:port/0, the same for as long as this process lives.
func (r *Redis) URL() string { return "redis://" + r.Addr() + "/0" }

type redisEngine struct{ program, dir string }

func (e *redisEngine) prepare(context.Context) error { return nil }

// command passes everything on the command line: there is no file that could
// disagree with it, and CONFIG SET works for experiments that end with the child.
func (e *redisEngine) command(port int) (string, []string) {
	return e.program, []string{
		"--port", strconv.Itoa(port),
		"--bind", "127.0.0.1",
		"--protected-mode", "yes",
		"--daemonize", "no",
		"--dir", e.dir,
		"--logfile", "",
		"--appendonly", "yes",
		"--appendfsync", "always",
		"--no-appendfsync-on-rewrite", "no",
		"--auto-aof-rewrite-min-size", "512mb", // at 64 MB, the default, a busy log is rewritten every other second
		"--aof-load-truncated", "yes", // a tail cut by a crash was never acknowledged
		"--save", "",
		"--maxmemory", halfOfMemory(),
		"--maxmemory-policy", "volatile-lru", // cached rows go; what is not committed has no TTL
		"--tcp-keepalive", "60",
	}
}

// halfOfMemory of this machine, as Redis reads it.
func halfOfMemory() string {
	text, err := os.ReadFile("/proc/meminfo")
	_, total, found := strings.Cut(string(text), "MemTotal:")
	fields := strings.Fields(total)
	if err != nil || !found || len(fields) == 0 {
		return "1gb"
	}
	kb, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return "1gb"
	}
	return strconv.FormatInt(kb/2, 10) + "kb"
}

// ready asks the server who it is: another one may have taken the port.
func (e *redisEngine) ready(ctx context.Context, pid, port int) bool {
	info, err := redisInfo(ctx, address(port))
	return err == nil && info["process_id"] == strconv.Itoa(pid) && info["loading"] == "0"
}

func (e *redisEngine) greet(context.Context, int) error { return nil }

// processName is how the kernel shows a program: its base name, 15 bytes of it.
func processName(program string) string {
	name := filepath.Base(program)
	return name[:min(len(name), 15)]
}
