package up

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are picked below the range from which Linux (32768) and macOS (49152)
// take the local ends of outgoing connections. A port from that range can be
// gone when a killed server wants it back, because some client was given it.
const (
	firstPort = 20000
	lastPort  = 32767
	portTries = 50
)

var errNoPort = errors.New("no free port found on 127.0.0.1")

// pickPort prefers the given port, the one of the last start, if it is free.
// A free port can be gone a moment later: the caller tries again.
func pickPort(prefer int) (int, error) {
	if prefer > 0 && portFree(prefer) {
		return prefer, nil
	}
	for range portTries {
		if port := firstPort + rand.IntN(lastPort-firstPort+1); portFree(port) {
			return port, nil
		}
	}
	return 0, errNoPort
}

func portFree(port int) bool {
	l, err := net.Listen("tcp4", address(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
