package api

import (
	"errors"
	"time"
)

// Limits bound what one request may ask for.
type Limits struct {
	Body int64         // bytes
	Rows int           // rows of one request
	List int           // most that ?limit= may ask for
	Wait time.Duration // most that Prefer: wait and ?wait= may ask for
}

// Default limits: 8 MiB is 50,000 rows of 160 bytes.
const (
	DefaultBody = 8 << 20
	DefaultRows = 50_000
	DefaultList = 10_000
	DefaultWait = 60 * time.Second
)

func (l Limits) withDefaults() Limits {
	if l.Body == 0 {
		l.Body = DefaultBody
	}
	if l.Rows == 0 {
		l.Rows = DefaultRows
	}
	if l.List == 0 {
		l.List = DefaultList
	}
	if l.Wait == 0 {
		l.Wait = DefaultWait
	}
	return l
}

func (l Limits) validate() error {
	if l.Body < 0 || l.Rows < 0 || l.List < 0 || l.Wait < 0 {
		return errors.New("api limits: no value may be negative")
	}
	return nil
}
