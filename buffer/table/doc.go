// Package table says what a row is: columns, types, their text, and how rows
// lie in a frame.
//
// Job: turn strict JSON into Postgres' canonical text and back, and lay rows
// out as COPY lines in frames. Pure: no network, no clock, no drivers.
//
// Takes / gives: JSON in, canonical text ("what the server would print") in
// the middle, the JSON of to_jsonb(row) out.
//
// Never: passes a number through a float, replaces invalid input, or guesses.
// What it cannot judge exactly it hands to Postgres (ErrJudge).
//
// Invariants:
//
//  1. Canonical text is what Postgres prints for the same input, with
//     TimeZone=UTC, DateStyle=ISO, IntervalStyle=postgres, bytea_output=hex,
//     extra_float_digits=1. Test: TestCanonicalEqualsPostgres.
//  2. JSON made from canonical text equals to_jsonb of the stored value.
//     Test: TestJSONEqualsToJSONB.
//  3. A COPY line parsed gives back the cells that made it.
//     Test: TestLineRoundTrip.
package table
