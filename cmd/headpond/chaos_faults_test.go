//go:build linux

package main_test

import "slices"

// faults is the matrix of faults (F1 to F52): those that are made to happen here.
// The rest is in elsewhere, with the reason.
var faults = slices.Concat(processFaults, postgresFaults, schemaFaults, redisFaults, memoryFaults, networkFaults, failoverFaults)

// notYet are faults whose promise is not kept yet, each with what is missing.
// HEADPOND_NOT_YET=1 runs them all the same.
var notYet = map[string]string{}

// elsewhere are the faults that do not happen in this suite, and why.
var elsewhere = map[string]string{}
