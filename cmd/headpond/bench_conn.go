package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
)

// benchConn is one keep-alive connection. It knows as little of HTTP as it can,
// so that what is measured is the server and not the generator: whole requests
// go out, and of an answer only the status line and Content-Length are read.
type benchConn struct {
	net.Conn

	buf []byte
}

func dialBench(ctx context.Context, addr string) (*benchConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &benchConn{Conn: c, buf: make([]byte, 16<<10)}, nil
}

var (
	headEnd       = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ") // as net/http writes it
)

// post sends a request and reads its answer. An answer that is not 200, 201 or
// 202 is an error that shows the body.
func (c *benchConn) post(request []byte) error {
	a, err := c.exchange(request)
	if err != nil {
		return err
	}
	if a.status < 200 || a.status > 202 {
		return fmt.Errorf("the server answered %d: %s", a.status, a.body)
	}
	return nil
}

// benchHTTP is an answer, good until the next exchange.
type benchHTTP struct {
	status     int
	head, body []byte
}

// exchange sends a request and reads its answer.
func (c *benchConn) exchange(request []byte) (a benchHTTP, err error) {
	if _, err := c.Write(request); err != nil {
		return a, fmt.Errorf("send: %w", err)
	}
	have, end := 0, -1
	for end < 0 {
		n, err := c.Read(c.buf[have:])
		if err != nil {
			return a, fmt.Errorf("read answer: %w", err)
		}
		have += n
		end = bytes.Index(c.buf[:have], headEnd)
		if end < 0 && have == len(c.buf) {
			return a, fmt.Errorf("read answer: the head is longer than %d bytes", len(c.buf))
		}
	}
	if a.body, err = c.body(c.buf[:end], have); err != nil {
		return a, err
	}
	a.head = c.buf[:end]
	a.status, err = strconv.Atoi(string(a.head[9:12]))
	if err != nil {
		return a, fmt.Errorf("read answer: %w", err)
	}
	return a, nil
}

// body reads the rest of an answer, of which have bytes are there.
func (c *benchConn) body(head []byte, have int) ([]byte, error) {
	at := bytes.Index(head, contentLength)
	start := len(head) + len(headEnd)
	if len(head) >= 12 && string(head[9:12]) == "204" {
		return nil, nil
	}
	if len(head) < 12 || at < 0 {
		return nil, fmt.Errorf("read answer: no Content-Length: %s", c.buf[:have])
	}
	digits, _, _ := bytes.Cut(head[at+len(contentLength):], []byte("\r\n"))
	length, err := strconv.Atoi(string(digits))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if start+length > len(c.buf) {
		c.buf = append(c.buf, make([]byte, start+length-len(c.buf))...)
	}
	for have < start+length {
		n, err := c.Read(c.buf[have:])
		if err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		have += n
	}
	return c.buf[start : start+length], nil
}
