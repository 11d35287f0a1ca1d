package api

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/headpond/headpond/buffer/table"
)

const hexDigits = "0123456789abcdef"

// random gives random bytes, read in blocks: one system call for many ids. The
// pool of package uuid would do, but turning it on is a race with everybody
// who makes an id. Safe for concurrent use.
type random struct {
	mu   sync.Mutex // guards from
	from *bufio.Reader
}

func newRandom() *random { return &random{from: bufio.NewReaderSize(rand.Reader, 1024)} }

func (r *random) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return io.ReadFull(r.from, p)
}

// steeredUUID makes a UUIDv7 (RFC 9562) whose row falls into the given
// partition: its last 16 bits are counted up until it does, which leaves 58
// random bits beside the milliseconds.
// It appends the text to dst.
func (r *random) steeredUUID(dst []byte, partition, partitions int) ([]byte, error) {
	id, err := uuid.NewV7FromReader(r)
	if err != nil {
		return dst, fmt.Errorf("make key: %w", err)
	}
	at := len(dst)
	dst = append(dst, "00000000-0000-0000-0000-000000000000"...)
	text := dst[at:]
	encodeUUID(text, id)
	start := table.Prefix(text[:32])
	for range 1 << 12 {
		if start.Partition(text[32:], partitions) == partition {
			return dst, nil
		}
		id[15]++
		if id[15] == 0 {
			id[14]++
		}
		text[32], text[33] = hexDigits[id[14]>>4], hexDigits[id[14]&15]
		text[34], text[35] = hexDigits[id[15]>>4], hexDigits[id[15]&15]
	}
	return dst, nil
}

func encodeUUID(dst []byte, id uuid.UUID) {
	hex.Encode(dst, id[:4])
	dst[8] = '-'
	hex.Encode(dst[9:], id[4:6])
	dst[13] = '-'
	hex.Encode(dst[14:], id[6:8])
	dst[18] = '-'
	hex.Encode(dst[19:], id[8:10])
	dst[23] = '-'
	hex.Encode(dst[24:], id[10:])
}

// nowText is the moment as JSON text that every date and time type reads.
func nowText(now time.Time) []byte {
	return now.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.999999Z"`)
}
