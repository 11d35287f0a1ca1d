// Package buffer keeps accepted rows in Redis until they are in Postgres.
//
// Job: make a row durable in Redis in one script call, and give it back, by
// key to readers and in order to the flusher.
//
// Takes / gives: chunks of encoded rows in; ids out. Keys in; rows out. For the
// flusher: frames after an id, and "everything up to here is committed".
//
// Never: speaks HTTP or SQL, looks into a value, puts a TTL on anything that
// is not yet committed.
//
// The keys of partition 3 of table orders; all share one hash tag, so that
// every script stays in one Redis Cluster slot:
//
//	hp:{orders.3}:log       stream   frames, id = epoch-seq of the last row   (the data)
//	hp:{orders.3}:dirty:<g> hash     row key → epoch-seq of its newest write  (the index, generation g)
//	hp:{orders.3}:meta      hash     epoch, seq, wm, bytes, wmbytes, gen, glo, gn, ge:<g>, p:<producer>, run, cache, closed
//	hp:{orders.3}:commits   stream   what was committed when, and from which row on; id = watermark after it
//	hp:{orders.3}:row:<key> string   a clean row with a TTL, or that there is none, or a lease to load it, or a writer's marker
//	hp:{orders.3}:refresh:<key> string  somebody loads the clean row again
//
//	hp:{orders.3}:joined    hash     while an epoch is closed: who has given back what it holds, and the newest row it had acknowledged
//	hp:{orders.3}:returned  hash     what was given back and is not put back yet
//	hp:{orders.3}:moved     hash     what was put back, and where it is now
//	hp:{orders.3}:torn      stream   a log that lacked frames
//
// and those of the table's lists, in another slot:
//
//	hp:{orders}:lists        string  their version, made by the first reader, deleted with each change
//	hp:{orders}:list:<query> string  a list with its version and a TTL, or a lease to load it
//
//	hp:paused   hash  tables that are not to be flushed, and since when
//	hp:flushers hash  the last report of each flusher process
//
//	hp:wake, hp:settled, hp:opened  channels "there is something to flush" / "this is committed" / "look at the epoch"
//
// Invariants:
//
//  1. A script writes nothing before it has checked everything, and XADD is
//     the first write. Tests: TestAppendRefusedWhole, TestOOMAppliesNothing.
//  2. seq is dense: a partition's frames follow each other without a hole.
//     Test: TestSeqIsDense.
//  3. A call sent twice is applied once. Test: TestProducerSentTwice.
//  4. A generation goes only when its last row is committed.
//     Test: TestGenerationsDropOnlyWhenCommitted.
//  5. A fill is taken only while its lease stands, and any write takes the
//     lease away. Test: TestFillAfterWriteIsRefused.
//  6. Nothing under log, dirty, meta or commits carries a TTL.
//     Test: TestNoTTLOnDirtyKeys.
//  7. Rows that Redis has lost are put back in the order in which they were
//     accepted, each once, before anybody reads or writes their partition.
//     Tests: TestEmptiedRedisGetsEverythingBack, TestWaitsForEveryProcess.
//  8. A list is served only under the version under which its load began, and a
//     settlement ends that before anybody hears of it.
//     Tests: TestListVersions, TestSettleDropsListsFirst.
package buffer
