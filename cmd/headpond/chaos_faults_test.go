//go:build linux

package main_test

import "slices"

// faults is the matrix of faults (F1 to F52): those that are made to happen
// here. The others are in elsewhere, with the reason.
var faults = slices.Concat(processFaults, postgresFaults, schemaFaults, redisFaults, memoryFaults, networkFaults, failoverFaults)

// notYet are faults whose promise is not kept yet, each with what is missing.
// HEADPOND_NOT_YET=1 runs them all the same.
var notYet = map[string]string{}

// elsewhere are the faults that do not happen in this suite, and why.
var elsewhere = []struct{ id, why string }{
	{"F1", "needs failpoints in the program: TestFailpointsOfTheFlush and TestFailpointsOfDirectWrites, built with the tag failpoints, kill the program at each step"},
	{"F42", "not built: Headpond speaks to one address of Redis, or to a Cluster. With Sentinel, a proxy or a service name follows the master, which is F39 to F41"},
	{"F44", "libfaketime 0.9.10 and redis-server 7.0 do not run together here (it recurses in jemalloc's start). No id of the log comes from a clock: it is epoch and seq"},
	{"F46", "a Go program reads the clock past libc, so libfaketime does not reach it, and a time namespace moves the monotonic clock alone. Leases and clean rows end by the clock of Redis (PX); TestExpiryDuringLoad and TestFillAfterWriteIsRefused show that a lease that ends early or late lets no old row in"},
	{"F50", "Debian 12 has pgbouncer 1.18; transaction mode needs 1.21 or later for prepared statements"},
	{"F51", "needs a reader that stops between Postgres and the cache: TestFillAfterWriteIsRefused, TestSlowLoadIsNotStored, TestFillAgainstDirectWrite; porcupine checks TestLinearizable"},
}
