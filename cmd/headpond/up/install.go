package up

import (
	"os"
	"os/exec"
	"runtime"
)

func notInstalled(program string, looked ...string) *NotInstalledError {
	return &NotInstalledError{Program: program, Looked: looked, Install: installLine(program, runtime.GOOS, os.Geteuid() == 0, onPath)}
}

// installLine is the exact line to type. setup.sh knows the same package names.
func installLine(program, system string, root bool, has func(string) bool) string {
	redis := program == "Redis"
	pick := func(forRedis, forPostgres string) string {
		if redis {
			return forRedis
		}
		return forPostgres
	}
	sudo := "sudo "
	if root {
		sudo = ""
	}
	switch {
	case system == "darwin":
		return "brew install " + pick("redis", "postgresql@17")
	case has("apt-get"):
		return sudo + "apt-get update && " + sudo + "apt-get install -y " + pick("redis-server", "postgresql")
	case has("dnf"):
		return sudo + "dnf install -y " + pick("redis", "postgresql-server")
	case has("apk"):
		return sudo + "apk add " + pick("redis", "postgresql postgresql-contrib")
	case has("pacman"):
		return sudo + "pacman -S " + pick("valkey", "postgresql")
	}
	return "the package manager's line for " + pick("redis-server 6.2 or newer, or valkey", "the PostgreSQL 14 or newer server")
}

func onPath(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}
