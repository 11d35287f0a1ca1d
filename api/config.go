package api

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// Limits bound what one request may ask for.
type Limits struct {
	Body int64         // bytes
	Rows int           // rows of one request
	List int           // most that ?limit= may ask for
	Wait time.Duration // most that Prefer: wait and ?wait= may ask for

	Rate    float64        // requests per second of one client; 0: any number
	Burst   int            // of them at once; 0: those of two seconds
	Proxies []netip.Prefix // whose X-Forwarded-For is believed

	// A body may take BodyGrace and no longer, unless it comes at BodyRate bytes a second.
	BodyGrace time.Duration
	BodyRate  float64
}

// Default limits: 8 MiB is 50,000 rows of 160 bytes.
const (
	DefaultBody = 8 << 20
	DefaultRows = 50_000
	DefaultList = 10_000
	DefaultWait = 60 * time.Second

	DefaultBodyGrace = 10 * time.Second
	DefaultBodyRate  = 16 << 10 // 8 MiB take 8 minutes and a half
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
	if l.BodyGrace == 0 {
		l.BodyGrace = DefaultBodyGrace
	}
	if l.BodyRate == 0 {
		l.BodyRate = DefaultBodyRate
	}
	return l
}

func (l Limits) validate() error {
	if l.Body < 0 || l.Rows < 0 || l.List < 0 || l.Wait < 0 || l.Rate < 0 || l.Burst < 0 || l.BodyGrace < 0 || l.BodyRate < 0 {
		return errors.New("api limits: no value may be negative")
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	p = p.Masked()
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
