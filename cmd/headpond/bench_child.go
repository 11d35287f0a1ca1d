package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/headpond/headpond/cmd/headpond/up"
)

// benchChild is `headpond serve --role all` as a process of its own, so that
// its CPU and its memory are its own.
type benchChild struct {
	*up.Process

	addr string
	dir  string
}

// spawn starts it with a configuration file and waits until it is ready.
func (s *benchStack) spawn(ctx context.Context, yaml string, env ...string) (*benchChild, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start headpond: %w", err)
	}
	c := &benchChild{}
	if c.dir, err = os.MkdirTemp("", "headpond-bench-"); err != nil {
		return nil, fmt.Errorf("start headpond: %w", err)
	}
	file := filepath.Join(c.dir, "headpond.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		return nil, fmt.Errorf("start headpond: %w", err)
	}
	if c.addr, err = freeAddress(); err != nil {
		return nil, err
	}
	c.Process, err = up.StartProcess(ctx, up.ProcessOptions{
		Name: "headpond", Program: self, Log: s.log,
		Args: []string{"serve", "--role", "all", "--listen", c.addr, "--config", file, "--log-level", "error"},
		Env: append(environment("DATABASE_URL="+s.databaseURL, "REDIS_URL="+s.redisURL,
			"HEADPOND_DATABASE_URL="+s.databaseURL, "HEADPOND_REDIS_URL="+s.redisURL), env...),
	})
	if err != nil {
		return nil, err
	}
	if err := c.ready(ctx); err != nil {
		_ = c.stop()
		return nil, err
	}
	return c, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

func (c *benchChild) ready(ctx context.Context) error {
	client := &http.Client{Timeout: time.Second}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && c.PID() != 0; pause(ctx, 20*time.Millisecond) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.addr+"/readyz", nil)
		if err != nil {
			return fmt.Errorf("ask headpond: %w", err)
		}
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				client.CloseIdleConnections()
				return nil
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("headpond serve (pid %d) did not become ready", c.PID())
}

func (c *benchChild) stop() error {
	err := c.Stop()
	_ = os.RemoveAll(c.dir)
	return err
}
