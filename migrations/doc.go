// Package migrations keeps the schema headpond in the user's database.
//
// Job: bring the schema headpond (watermarks, dead letters) to the version
// that this program needs, however many processes start at once.
//
// Takes / gives: a database URL; nothing but an error back.
//
// Never: touches a table of the user's, except that Examples fills a schema
// public that holds no table at all. Never needs a privilege when there is
// nothing to do: a role that may not create anything can serve a database that
// somebody else has migrated.
//
// Invariants:
//
//  1. Up may run any number of times and in any number of processes at once.
//     Test: TestUpFourAtOnce.
//  2. All that is created lies in the schema headpond, the version table too.
//     Test: TestUpLeavesPublicAlone.
//  3. Up on a migrated database changes nothing and needs no privilege to
//     create. Test: TestUpWithoutPrivileges.
package migrations
