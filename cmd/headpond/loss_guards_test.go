package main_test

// lossGuard is a guard that several lines make, or that a fault shows.
type lossGuard struct {
	guard

	too   []guard // what has to go as well, because it guards the same thing
	chaos string  // the faults that must be noticed, when tests is TestChaos
}

// lossGuards keep accepted rows from being lost or applied twice.
var lossGuards = []lossGuard{
	{
		guard: guard{
			name: "watermark compare", file: "flusher/postgres/flush.go",
			line: ` and w.seq = x.before`, instead: ``,
			in: "./cmd/headpond", tests: "TestChaos$",
		},
		// The lock keeps two flushers apart as well: without the compare alone
		// nothing happens, nor without the lock alone but failed flushes.
		too:   []guard{{file: "flusher/postgres/flush.go", line: `for update skip locked`, instead: ``}},
		chaos: "F47",
	},
	{
		guard: guard{
			name: "watermark lock", file: "flusher/postgres/flush.go",
			line: `for update skip locked`, instead: `for update`,
			in: "./flusher/postgres", tests: "TestFlushSkipsLocked",
		},
	},
	{
		guard: guard{
			name: "rows and watermark in one transaction", file: "flusher/postgres/flush.go",
			line: `if err := advance(ctx, tx, report, b.dead); err != nil {`, instead: `if err := error(nil); err != nil {`,
			in: "./cmd/headpond", tests: "TestChaos$",
		},
		too: []guard{{
			file: "flusher/postgres/flush.go", line: `report.Committed = time.Now()`,
			instead: `late, err := conn.Begin(ctx)
	if err == nil {
		err = advance(ctx, late, report, b.dead)
	}
	if err == nil {
		err = late.Commit(ctx)
	}
	if err != nil {
		return nil, err
	}
	report.Committed = time.Now()`,
		}},
		chaos: "F5",
	},
	{
		guard: guard{
			name: "dead letter in the same transaction", file: "flusher/postgres/flush.go",
			line: `if err := advance(ctx, tx, report, b.dead); err != nil {`, instead: `if err := advance(ctx, tx, report, nil); err != nil {`,
			in: "./cmd/headpond", tests: "TestChaos$",
		},
		too: []guard{{
			file: "flusher/postgres/flush.go", line: `report.Committed = time.Now()`,
			instead: `if late, err := conn.Begin(ctx); err == nil {
		if bury(ctx, late, b.dead) == nil {
			_ = late.Commit(ctx)
		}
		rollback(ctx, late)
	}
	report.Committed = time.Now()`,
		}},
		chaos: "F18",
	},
	{
		guard: guard{
			name: "producer dedupe", file: "buffer/scripts/append.lua",
			line: `if tonumber(last) == number then return {'K', e, first, '1'} end`, instead: ``,
			in: "./cmd/headpond", tests: "TestChaos$",
		},
		chaos: "F36",
	},
	{
		guard: guard{
			name: "compare-and-append", file: "buffer/scripts/append.lua",
			line: `ok = now[key] ~= nil and string.match(now[key], '^[%d%-]+') == basis`, instead: `ok = true`,
			in: "./buffer", tests: "TestBasis",
		},
	},
	{
		guard: guard{
			name: "epoch: Redis behind the watermark is noticed", file: "buffer/scripts/open.lua",
			line: `elseif opened > e or after(we, ws, e, s) then`, instead: `elseif false then`,
			in: "./buffer", tests: "TestRedisBehindPostgres",
		},
	},
	{
		guard: guard{
			name: "epoch: another run of Redis is noticed", file: "buffer/scripts/open.lua",
			line: `elseif m[5] ~= run then`, instead: `elseif false then`,
			in: "./buffer", tests: "TestRestartLosesTheEnd",
		},
	},
	{
		guard: guard{
			name: "epoch: what Redis lost before a closed one is lost in the next one too", file: "buffer/scripts/open.lua",
			line: `if why == 'restart' and (m[7] == 'behind' or m[7] == 'emptied') then why = m[7] end`, instead: ``,
			in: "./buffer", tests: "TestRestartWhileClosed",
		},
	},
	{
		guard: guard{
			name: "a restart while the epoch is closed keeps the producers' last calls", file: "buffer/scripts/open.lua",
			line: `redis.call('HSET', meta, unpack(producers, i, math.min(i + 999, n)))`, instead: ``,
			in: "./buffer", tests: "TestRestartWhileClosed",
		},
	},
	{
		guard: guard{
			name: "a call that Redis may have forgotten is not sent again, whoever did the handshake", file: "buffer/lane.go",
			line: `if calls = l.doubtful(calls); len(calls) == 0 {`, instead: `if len(calls) == 0 {`,
			in: "./buffer", tests: "TestRestartWhileClosed",
		},
	},
	{
		guard: guard{
			name: "a slot that is being moved takes no scripts", file: "buffer/scripts/append.lua",
			line: `redis.call('EXISTS', prefix .. 'here:1', prefix .. 'here:2')`, instead: ``,
			in: "./cmd/headpond", tests: "TestChaos$",
		},
		chaos: "F43",
	},
	{
		guard: guard{
			name: "epoch: closed until every process has given back what it holds", file: "buffer/join.go",
			line: `len(missing) > 0 {`, instead: `len(missing) > 100 {`,
			in: "./buffer", tests: "TestWaitsForEveryProcess|TestEmptiedRedisGetsEverythingBack",
		},
	},
	{
		guard: guard{
			name: "a row is kept before it is acknowledged", file: "buffer/lane.go",
			line: `l.b.memory.keep(k.place, unitOf(k, last))`, instead: ``,
			in: "./buffer", tests: "TestEmptiedRedisGetsEverythingBack",
		},
	},
	{
		guard: guard{
			name: "what is given back is put back once", file: "buffer/scripts/append.lua",
			line: `redis.call('HDEL', prefix .. 'returned', ARGV[10])`, instead: ``,
			in: "./buffer", tests: "TestEmptiedRedisGetsEverythingBack",
		},
	},
	{
		guard: guard{
			name: "what Postgres has is not put back", file: "buffer/held.go",
			line: `if u.last.After(kept) && u.last.Epoch < epoch {`, instead: `if u.last.Epoch < epoch {`,
			in: "./buffer", tests: "TestCommittedRowsDoNotComeBack",
		},
	},
	{
		guard: guard{
			name: "Postgres going back is noticed", file: "buffer/scripts/open.lua",
			line: `elseif ws < wm then`, instead: `elseif false then`,
			in: "./buffer", tests: "TestRewind",
		},
	},
	{
		guard: guard{
			name: "epoch of clean rows", file: "buffer/scripts/read.lua",
			line: `local left = e == epoch and tonumber(ends) - now`, instead: `local left = tonumber(ends) - now`,
			in: "./buffer", tests: "TestOpen|TestFillOfAnotherEpoch",
		},
	},
	{
		guard: guard{
			name: "generation dropped only when committed", file: "buffer/scripts/settle.lua",
			line: `if last and tonumber(last) > wm then break end`, instead: ``,
			in: "./buffer", tests: "TestGenerationsDropOnlyWhenCommitted",
		},
	},
	{
		guard: guard{
			name: "trim lag", file: "buffer/scripts/settle.lua",
			line: `if tonumber(ARGV[5]) - t < tonumber(ARGV[8]) and wmbytes - b <= tonumber(ARGV[9]) then break end`, instead: ``,
			in: "./buffer", tests: "TestLogIsTrimmed",
		},
	},
	{
		guard: guard{
			name: "dense seq", file: "flusher/flusher.go",
			line: `if f.First().Seq != next {`, instead: `if false {`,
			in: "./flusher", tests: "TestGapStopsPartition",
		},
	},
}
