package up

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// serverGlobs are where packages put PostgreSQL's server programs, which most
// keep off the PATH: Debian, Red Hat's and PGDG's RPMs, Alpine, Homebrew on ARM
// and Intel, and a build from source.
var serverGlobs = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/usr/local/pgsql/bin",
}

var redisDirs = []string{"/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/homebrew/opt/redis/bin", "/usr/local/opt/redis/bin"}

// findRedis finds redis-server, or valkey-server, which speaks the same.
func findRedis() (string, error) {
	looked := []string{"$HEADPOND_REDIS_SERVER"}
	if program := os.Getenv("HEADPOND_REDIS_SERVER"); program != "" {
		if executable(program) {
			return program, nil
		}
		return "", notInstalled("Redis", "$HEADPOND_REDIS_SERVER = "+program)
	}
	dirs := append(filepath.SplitList(os.Getenv("PATH")), redisDirs...)
	for _, name := range []string{"redis-server", "valkey-server"} {
		for _, dir := range dirs {
			if program := filepath.Join(dir, name); filepath.IsAbs(program) && executable(program) {
				return program, nil
			}
		}
	}
	return "", notInstalled("Redis", append(looked, "PATH", strings.Join(redisDirs, ", "))...)
}

// findPostgres finds the server programs; where data exists, those of the
// major version that made it.
func findPostgres(dir string) (postgresBin, error) {
	dirs, looked := postgresDirs()
	want := 0
	if dir != "" {
		want = readNumber(filepath.Join(clusterDir(dir), "PG_VERSION"))
	}
	var have []string
	for _, place := range dirs {
		bin, ok := lookAt(place)
		switch {
		case !ok:
		case want == 0 || bin.major == want:
			return bin, nil
		default:
			have = append(have, fmt.Sprintf("%d (%s)", bin.major, place))
		}
	}
	if len(have) > 0 {
		return postgresBin{}, &VersionError{Dir: dir, Want: strconv.Itoa(want), Have: slices.Compact(have)}
	}
	return postgresBin{}, notInstalled("PostgreSQL", looked...)
}

// postgresDirs lists where to look, best first.
func postgresDirs() (dirs, looked []string) {
	if dir := os.Getenv("HEADPOND_PG_BIN"); dir != "" {
		return []string{dir}, []string{"$HEADPOND_PG_BIN = " + dir}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if program := filepath.Join(dir, "postgres"); executable(program) {
			if real, err := filepath.EvalSymlinks(program); err == nil {
				dirs = append(dirs, filepath.Dir(real)) // where initdb finds its share files
			}
		}
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, glob := range serverGlobs {
		found, _ := filepath.Glob(glob) // the only error is a bad pattern
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(versionIn(b), versionIn(a)) })
		dirs = append(dirs, found...)
	}
	return dirs, append([]string{"$HEADPOND_PG_BIN", "PATH", "pg_config --bindir"}, serverGlobs...)
}

// postgresBin is a directory with postgres and initdb in it.
type postgresBin struct {
	dir   string
	major int
}

func (b postgresBin) postgres() string { return filepath.Join(b.dir, "postgres") }
func (b postgresBin) initdb() string   { return filepath.Join(b.dir, "initdb") }

// checksConnections: client_connection_check_interval came with 14, on Linux
// first (release notes of 14 and 15).
func (b postgresBin) checksConnections() bool {
	return b.major >= 15 || (b.major == 14 && runtime.GOOS == "linux")
}

var numbers = regexp.MustCompile(`[0-9]+`)

func lookAt(dir string) (postgresBin, bool) {
	bin := postgresBin{dir: dir}
	if !executable(bin.postgres()) || !executable(bin.initdb()) {
		return postgresBin{}, false
	}
	out, err := exec.Command(bin.postgres(), "--version").Output() // "postgres (PostgreSQL) 15.18 (Debian …)"
	if err != nil {
		return postgresBin{}, false
	}
	bin.major = versionIn(string(out))
	return bin, bin.major > 0
}

func versionIn(text string) int {
	n, err := strconv.Atoi(numbers.FindString(text))
	if err != nil {
		return 0
	}
	return n
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}
