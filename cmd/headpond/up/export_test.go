package up

// For tests that look from outside at what is left running.
var (
	Workers          = workers
	PostgresPrograms = func() []string { return postgresTraits().programs }
	WritePID         = writePID
	InstallLine      = installLine
	VersionIn        = versionIn
	PostgresInstall  = postgresDirs
)
