// Package client speaks to Headpond's HTTP API.
//
// Job: send a write once and no more than once, however often the network has
// to be tried, and say in one type of error what is known when it fails.
//
// Takes / gives: whatever encoding/json can write and read. Numbers that are
// decoded into an interface become [json.Number]: none passes through a float.
//
//	c, err := client.New("http://127.0.0.1:8080")
//	w, err := c.Insert(ctx, "orders", Order{Customer: "ada", Total: "99.90"})
//	_, err = c.WaitFor(ctx, w.Receipt) // now it is in Postgres
//
// # Retries
//
// Every write carries an Idempotency-Key, so that it can be repeated when it
// is not known whether it was applied. A request is repeated when there was no
// answer, and on 429, 502, 503 and 504 that may pass, after what Retry-After
// asks for and a pause that grows and is jittered, for as long as the retry
// budget and the context allow. A request of many rows that was accepted in
// part is repeated when the rest may be accepted later; its other rows are not
// applied again. Redirects are not followed.
//
// # Errors
//
// What the server refused, and what it did not answer, is an [*Error]; errors.Is
// takes its [Code]:
//
//	if errors.Is(err, client.ErrRowNotFound) { … }
//
// What never left the client, such as a row that cannot be encoded, is any
// other error.
//
// Never: says that nothing was applied unless that is certain; reads a float
// where a number was sent; follows a redirect; keeps a goroutine beyond a call,
// except for a [Writer] until it is closed.
//
// Invariants:
//
//  1. A write without an Idempotency-Key is repeated only when it was certainly
//     not applied. Test: TestRetryWithoutKey.
//  2. A write counts once, whatever the network does. Test: TestOnceThroughFaults.
//  3. A row that a Writer took is accepted or reported, once. Test:
//     TestWriterThroughFaults.
package client
