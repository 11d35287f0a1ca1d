package up

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// redisAnswer is short because the question is asked again, and because it may
// be somebody else who has the port and never answers.
const redisAnswer = 500 * time.Millisecond

// redisInfo sends INFO over a connection of its own and returns its fields.
// Rejected: go-redis, whose pool dials again and again and writes about each
// refusal, when refusals are what a start consists of.
func redisInfo(ctx context.Context, addr string) (map[string]string, error) {
	conn, err := (&net.Dialer{Timeout: redisAnswer}).DialContext(ctx, "tcp4", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(redisAnswer)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, "INFO\r\n"); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	var size int64
	if _, err := fmt.Fscanf(in, "$%d\r\n", &size); err != nil {
		return nil, fmt.Errorf("read INFO: %w", err)
	}
	fields := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(in, size))
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok {
			fields[name] = value
		}
	}
	return fields, lines.Err()
}
