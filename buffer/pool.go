package buffer

// Pool is how many connections to Redis this process has. The counts are since its
// start.
type Pool struct {
	Total    uint32 `json:"total"`
	Idle     uint32 `json:"idle"`
	Hits     uint32 `json:"hits"`     // a connection was free
	Misses   uint32 `json:"misses"`   // one had to be made
	Timeouts uint32 `json:"timeouts"` // none was to be had in time
}

// Pool of connections to Redis.
func (b *Buffer) Pool() Pool {
	s := b.rdb.PoolStats()
	return Pool{Total: s.TotalConns, Idle: s.IdleConns, Hits: s.Hits, Misses: s.Misses, Timeouts: s.Timeouts}
}
