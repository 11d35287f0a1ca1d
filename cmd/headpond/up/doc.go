// Package up runs a private Redis and a private PostgreSQL as child processes,
// so that `headpond up` and the tests need no Docker and no server of the
// machine's own.
//
// Job: find the installed programs, keep one child of each alive on a data
// directory of ours, and leave nothing running behind.
//
// Takes / gives: a directory in; a URL that works out. Data directories are
// <dir>/redis and <dir>/postgres, each with:
//
//	lock    held with flock by the process that owns the directory
//	port    the port of the last start, taken again if it is still free
//	pid     the child's process id and its start time
//	log     what the child wrote; one older file is kept as log.old
//	data/   PostgreSQL only: the cluster, beside initdb.log (Redis writes appendonlydir/)
//
// Never: downloads anything, listens on more than loopback, deletes data that
// it was not asked to forget (only Ephemeral directories are removed), signals
// a process that is not provably ours.
//
// Invariants:
//
//  1. When the process that started a child dies, however it dies, the child
//     dies too (Linux; elsewhere the next start on its directory ends it).
//     Tests: TestKillNineLeavesNoOrphan,
//     TestChildOutlivesTheThreadOfItsCaller.
//  2. What was acknowledged before a SIGKILL of everything is there after the
//     next start. Tests: TestKillNineLeavesNoOrphan, TestPostgresKillAndRestart,
//     TestRedisStartsWithTruncatedTail.
//  3. A directory has one owner. Tests: TestSecondOwnerIsRefused,
//     TestReleasedLockIsFreeWhileAChildHoldsACopy.
//  4. The address of a server does not change while this process lives, nor
//     from one start to the next if the port is free. Tests:
//     TestRedisKillAndRestart, TestPortIsKept, TestPortTakenByAnother.
//  5. A child that dies is started again; one that was stopped is not. Tests:
//     TestSuperviseStartsItAgain, TestStopEndsSupervise.
//  6. Only a process that works in our directory is taken for a leftover of
//     ours. Tests: TestStaleServerIsEnded, TestRecycledPIDIsLeftAlone.
//  7. Ctrl-C in a terminal does not reach the children.
//     Test: TestChildIsInAGroupOfItsOwn.
package up
