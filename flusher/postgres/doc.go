// Package postgres is the room that speaks to PostgreSQL.
//
// Job: read the catalog, judge values that only Postgres can judge, load rows,
// and flush batches: COPY or merge, and the watermark, in one transaction.
//
// Takes / gives: tables and rows as package table has them; claims and parts
// as package flusher has them.
//
// Never: speaks HTTP or Redis; pastes a value into SQL; lets a cached plan or
// a binary format guess at a column's type.
//
// Invariants:
//
//  1. Rows and watermark move in one transaction. Test: TestFlushIsAtomic.
//  2. A watermark that is locked by somebody else is skipped, never waited
//     for. Test: TestFlushSkipsLocked.
//  3. A bad row goes to the dead letters in the transaction that commits its
//     neighbours. Test: TestPoisonRows.
//  4. An error of schema or environment never makes a dead letter.
//     Test: TestClassify.
//  5. A merge leaves what its operations leave one by one, and counts each of
//     them as committed, coalesced or dead. Test: TestMergeEqualsOneByOne.
//  6. Inserts alone are copied as they lie. Test: TestInsertsAloneAreCopied.
//  7. A merge locks rows in the order of their keys. Test: TestMergeLocksInKeyOrder.
package postgres
