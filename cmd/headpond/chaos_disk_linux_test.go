package main_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Disks that fill up or lose their power, processes whose system calls fail.

// needsRoot: mounts do.
func needsRoot() string {
	if os.Geteuid() != 0 {
		return "it takes root to mount file systems"
	}
	return ""
}

func needsStrace() string {
	if _, err := exec.LookPath("strace"); err != nil {
		return "strace is not installed"
	}
	return needsRoot()
}

func (c *chaos) tool(name string, args ...string) {
	c.Helper()
	out, err := exec.CommandContext(c.Context(), name, args...).CombinedOutput()
	require.NoError(c, err, "%s %v: %s", name, args, out)
}

// unmount at the end, whoever is still there.
func (c *chaos) unmount(dir string) { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }

func (c *chaos) mountTmpfs(name, size, under string) string {
	c.Helper()
	dir := filepath.Join(under, name)
	makeDir(c, dir)
	require.NoError(c, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0755"))
	c.Cleanup(func() { c.unmount(dir) })
	return dir
}

// onLoop is a directory on an ext4 of its own.
func onLoop(c *chaos) string {
	c.Helper()
	image, dir := filepath.Join(c.dir, "disk.img"), filepath.Join(c.dir, "disk")
	f, err := os.Create(image)
	require.NoError(c, err)
	require.NoError(c, f.Truncate(512<<20))
	require.NoError(c, f.Close())
	makeDir(c, dir)
	c.tool("mkfs.ext4", "-q", "-E", "lazy_itable_init=1", image)
	c.tool("mount", "-o", "loop", image, dir)
	c.Cleanup(func() { c.unmount(dir) })
	require.NoError(c, os.Chmod(dir, 0o755))
	return filepath.Join(dir, "data")
}

// FS_IOC_SHUTDOWN of linux/fs.h (EXT4_IOC_SHUTDOWN), and its flag that leaves
// what the journal has not written where the power was lost: nowhere.
const (
	fsIocShutdown = 0x8004587d
	noLogFlush    = 2
)

// powerLoss of the disk that a server's directory lies on: nothing is written
// from one moment to the next; then the server is killed, and the disk comes back.
func (c *chaos) powerLoss(s interface {
	Dir() string
	PID() int
	Kill() error
	Stop() error
}) {
	c.Helper()
	dir := filepath.Dir(s.Dir())
	f, err := os.Open(dir)
	require.NoError(c, err)
	flag := uint32(noLogFlush)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), fsIocShutdown, uintptr(unsafe.Pointer(&flag))) //nolint:gosec // as ioctl(2) wants it
	require.NoError(c, f.Close())
	if errno != 0 {
		require.NoError(c, errno)
	}
	c.step("no power on %s", dir)
	for _, pid := range freeze(c.T, s.PID())[1:] {
		_ = syscall.Kill(pid, syscall.SIGKILL) // a backend may hold on to the disk for long
	}
	require.NoError(c, s.Kill())
	_ = s.Stop() // lets go of the directory; it cannot write there
	c.await("the disk to be free", func() bool { return syscall.Unmount(dir, 0) == nil })
	c.tool("mount", "-o", "loop", filepath.Join(c.dir, "disk.img"), dir)
	c.step("power is back")
}

// strace makes system calls of a process fail, until it ends.
func (c *chaos) strace(pid int, inject string) *process {
	c.Helper()
	name, _, _ := bytes.Cut([]byte(inject), []byte(":"))
	p := start(c.T, "strace", os.Environ(), "-f", "-p", strconv.Itoa(pid), "-e", "trace="+string(name), "-e", "inject="+inject)
	p.killed = true // its exit code is that of its victim
	c.await("strace", func() bool { return bytes.Contains([]byte(p.log.String()), []byte("attached")) })
	c.step("strace: %s", inject)
	return p
}

func limitDescriptors(c *chaos, pid int, n uint64) {
	c.Helper()
	var old unix.Rlimit
	require.NoError(c, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old))
	require.NoError(c, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}, nil))
}

// fill a disk.
func fill(c *chaos, file string) {
	c.Helper()
	f, err := os.Create(file)
	require.NoError(c, err)
	block := make([]byte, 4096)
	for {
		if _, err = f.Write(block); err != nil {
			break
		}
	}
	require.ErrorIs(c, err, syscall.ENOSPC)
	require.NoError(c, f.Close())
}

// own gives a directory to the owner of another one.
func (c *chaos) own(dir, of string) {
	c.Helper()
	info, err := os.Stat(of)
	require.NoError(c, err)
	st, ok := info.Sys().(*syscall.Stat_t)
	require.True(c, ok)
	require.NoError(c, os.Chown(dir, int(st.Uid), int(st.Gid)))
}

// asOwner runs a program as the owner of a directory.
func (c *chaos) asOwner(dir, program string, args ...string) {
	c.Helper()
	info, err := os.Stat(dir)
	require.NoError(c, err)
	st, ok := info.Sys().(*syscall.Stat_t)
	require.True(c, ok)
	cmd := exec.CommandContext(c.Context(), program, args...)
	cmd.Dir = dir
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: st.Uid, Gid: st.Gid}}
	}
	out, err := cmd.CombinedOutput()
	require.NoError(c, err, "%s: %s", program, out)
}

// postgresProgram finds a program beside the server that runs.
func (c *chaos) postgresProgram(name string) string {
	c.Helper()
	server, err := os.Readlink("/proc/" + strconv.Itoa(c.postgres.PID()) + "/exe")
	require.NoError(c, err)
	return filepath.Join(filepath.Dir(server), name)
}

func makeDir(c *chaos, dir string) {
	c.Helper()
	require.NoError(c, os.MkdirAll(dir, 0o755))
}

func freePort(c *chaos) string {
	c.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(c, err)
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(c, err)
	return port
}
