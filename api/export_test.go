package api

// StatusOfCode is the HTTP status of a code, for tests.
func StatusOfCode(c string) int { return code(c).status() }
