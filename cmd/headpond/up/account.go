package up

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// account is who the children run as. nil means "as we are": only root has to
// change, because PostgreSQL refuses to run as root.
type account struct {
	name     string
	uid, gid uint32
}

// accountFor picks the owner of a directory that already belongs to somebody,
// so that `sudo headpond up` does not take a user's data away from them; else
// postgres, which exists where PostgreSQL was installed by a package; else nobody.
func accountFor(dir string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if info, err := os.Stat(dir); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			return &account{name: userName(st.Uid), uid: st.Uid, gid: st.Gid}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		if a, err := lookUpAccount(name); err == nil {
			return a, nil
		}
	}
	return nil, fmt.Errorf("neither user postgres nor user nobody exists, and PostgreSQL refuses to run as root: run headpond as an ordinary user")
}

func lookUpAccount(name string) (*account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	// 32 bits hold macOS' nobody, which is -2.
	uid, err := strconv.ParseInt(u.Uid, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read uid of user %s: %w", name, err)
	}
	gid, err := strconv.ParseInt(u.Gid, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read gid of user %s: %w", name, err)
	}
	return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// canEnter judges by the mode bits. An access list could say otherwise, but
// those are rare on the way to a data directory.
func (a *account) canEnter(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if a == nil || !ok {
		return true
	}
	mode := info.Mode().Perm()
	switch {
	case st.Uid == a.uid:
		return mode&0o100 != 0
	case st.Gid == a.gid:
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}
