package main

import (
	"fmt"
	"strings"
	"time"
)

// cachePattern is one way to keep a cache over a table.
type cachePattern struct {
	key, name string
	settings  string // of the table in headpond.yaml; empty where Headpond does not serve it
	watched   bool   // with the triggers of `headpond watch install`
	behind    bool   // writes are answered before Postgres has them
	cached    bool   // reads may be hits
	reads     readWay
	writes    writeWay
}

// readWay is how a client of a pattern reads.
type readWay int

const (
	readSQL    readWay = iota // SELECT
	readCached                // GET of Headpond, which loads on a miss
	readAside                 // GET from the cache alone; on a miss SELECT and PUT into the cache
)

// writeWay is how a client of a pattern writes.
type writeWay int

const (
	writeSQL   writeWay = iota // UPDATE
	writePut                   // PUT to Headpond
	writeAside                 // UPDATE, then DELETE from the cache
)

// cacheTTL is so long that no row ends in a run. staleTTL is that of the
// read-through table on which the staleness is measured: its window is the TTL
// by nature, and the run is to be shorter than ten minutes.
const cacheTTL = "2h"

// The tables are named so that reset empties their part of Redis and of the
// watermarks too.
const cacheTablePrefix = "headpond_bench_cache_"

var cachePatterns = []*cachePattern{
	{key: "sql", name: "direct SQL", reads: readSQL, writes: writeSQL},
	{key: "client", name: "cache-aside, by the client", settings: "strategy: cache-aside", reads: readAside, writes: writeAside, cached: true},
	{key: "through", name: "read-through, TTL only", settings: "strategy: cache-aside", reads: readCached, writes: writeSQL, cached: true},
	{key: "watch", name: "read-through, watch", settings: "strategy: cache-aside, watch: notify", watched: true, reads: readCached, writes: writeSQL, cached: true},
	{key: "write_through", name: "write-through", settings: "strategy: write-through", reads: readCached, writes: writePut, cached: true},
	{key: "aside", name: "cache-aside", settings: "strategy: cache-aside", reads: readCached, writes: writePut, cached: true},
	{key: "behind", name: "write-behind", settings: "strategy: write-behind", reads: readCached, writes: writePut, behind: true, cached: true},
}

// table of a pattern.
func (p *cachePattern) table() string { return cacheTablePrefix + p.key }

// staleTable is where the staleness of a pattern is measured: of its own where
// the TTL bounds it.
func (p *cachePattern) staleTable() string {
	if p.key == "through" {
		return p.table() + "_short"
	}
	return p.table()
}

// cacheConfig is headpond.yaml for some patterns.
func cacheConfig(patterns []*cachePattern, shortTTL time.Duration) string {
	var b strings.Builder
	b.WriteString("expose: []\nflusher: {drain: 1s}\ntables:\n")
	for _, p := range patterns {
		if p.settings == "" {
			continue
		}
		fmt.Fprintf(&b, "  %s: {%s, ttl: %s}\n", p.table(), p.settings, cacheTTL)
		if t := p.staleTable(); t != p.table() {
			fmt.Fprintf(&b, "  %s: {%s, ttl: %s}\n", t, p.settings, shortTTL)
		}
	}
	return b.String()
}

// seedCacheTable makes a table of rows of 150 bytes whose n is 0.
func seedCacheTable(table string, rows int) string {
	return fmt.Sprintf(`drop table if exists %[1]s;
		create table %[1]s (id bigint primary key, name text not null, n bigint not null, payload jsonb) with (autovacuum_enabled = false);
		insert into %[1]s select i, 'customer number ' || i, 0, jsonb_build_object('page', '/item/' || i, 'ref', 'newsletter', 'note', '%[3]s')
			from generate_series(1, %[2]d) i;
		analyze %[1]s`, table, rows, cacheNote)
}

const cacheNote = "a row of some hundred and fifty bytes, as many are"
