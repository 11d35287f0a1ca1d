// Package api is HTTP in, buffer out.
//
// Job: read a request strictly, check every row against the catalog, make it
// complete, hand it to the buffer, and answer with what is true.
//
// Takes / gives: the contract of http-api.md.
//
// Never: answers 2xx before the buffer has accepted; says applied=no unless
// that is certain; shows SQL, secrets or a stack; passes a number through a
// float.
//
// Invariants:
//
//  1. A request with a bad row in strict mode applies nothing.
//     Test: TestStrictAppliesNothing.
//  2. Every error is a problem+json with a stable code. Test: TestBadInput.
//  3. A GET before the flush equals a GET after it. Test: TestReadYourWrites.
package api
