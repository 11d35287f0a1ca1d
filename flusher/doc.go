// Package flusher decides when and what to flush.
//
// Job: bring what was accepted to Postgres, in batches, each partition in
// order, exactly once, and soon.
//
// Takes / gives: notices and tails of partitions in; batches for a Store out;
// what was committed goes back to the Log.
//
// Never: speaks to Redis or Postgres itself (Log and Store do), keeps anything
// that a restart would need: the watermark in Postgres is the only progress.
//
// Invariants:
//
//  1. A batch of a partition starts at its watermark and has no hole.
//     Test: TestGapStopsPartition.
//  2. A partition is in at most one batch of this process at a time.
//     Test: TestScheduleNeverRunsAPartitionTwice.
//  3. One table's trouble never delays another table.
//     Test: TestTroubleStaysInItsTable.
//  4. Log.Settle is called only with watermarks that Postgres committed.
//     Test: TestSettleOnlyAfterCommit.
//  5. Operations on a key are merged only into what they are one by one.
//     Test: TestCoalescePairs.
package flusher
