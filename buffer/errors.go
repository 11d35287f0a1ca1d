package buffer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// The outcomes of an append that was not accepted. ErrUnavailable and
// BacklogFull mean that nothing was applied; ErrOutcomeUnknown means that it
// may have been.
var (
	ErrUnavailable    = errors.New("the buffer (Redis) cannot take writes now; nothing was applied")
	ErrOutcomeUnknown = errors.New("the buffer (Redis) did not answer in time; the write may or may not have been applied")
	ErrDraining       = errors.New("this process is shutting down; nothing was applied")
	ErrSwitched       = errors.New("the strategy of the table was changed a moment ago; nothing was applied")
	ErrCommitUnknown  = errors.New("Postgres did not answer the COMMIT; the write may or may not have been applied")
)

// StillPending refuses a direct write because rows of its partition that were
// accepted before wait in the log.
type StillPending struct {
	Place Place
	Seq   uint64 // of the last of them
}

func (e *StillPending) Error() string {
	return fmt.Sprintf("rows of %s that were accepted earlier are flushed first, up to %d", e.Place, e.Seq)
}

// verdict of an error of one script call.
type verdict int

const (
	notApplied verdict = iota // certainly not applied; may be tried again
	unknown                   // sent, and no answer
	noScript                  // not applied; handshake first, which loads the scripts
	broken                    // an error of the script itself: a bug
)

// refusals are the replies with which Redis refuses a command whole, before
// its first write. Source: Redis 7.0 server.c (processCommand), script.c.
var refusals = []string{
	"OOM", "MISCONF", "READONLY", "LOADING", "NOREPLICAS", "CLUSTERDOWN", "MASTERDOWN",
	"BUSY", "TRYAGAIN", "NOAUTH", "NOPERM", "WRONGPASS", "DENIED", "ERR max number of clients", "ERR AUTH", "MOVED", "ASK",
	moving,
}

// moving is how Redis ends a script that asks for a key of a slot which is being
// moved to another node of a Cluster. Half of the partition's keys are there
// already, and nobody can tell a key that was moved from one that never was. So
// each script that uses keys which it does not declare first asks for two that
// never are: as long as the slot is being moved that is an error, on both nodes,
// and the script has done nothing. Source: Redis 7.0 cluster.c (getNodeByQuery),
// script.c (scriptVerifyClusterState).
const moving = "ERR Script attempted to access a non local key"

// passing reports whether err is one of a slot that is being moved.
func passing(err error) bool {
	return err != nil && (strings.HasPrefix(err.Error(), moving) || strings.HasPrefix(err.Error(), "TRYAGAIN"))
}

// belowLog is how Redis refuses a frame whose id is not above the last of the
// log: the partition's meta is behind its log, and was not compared with it. Nothing
// was applied, since XADD is the first write.
const belowLog = "The ID specified in XADD is equal or smaller"

// classify says what is known after a call ended with err.
func classify(err error) verdict {
	var reply redis.Error
	if errors.As(err, &reply) {
		text := reply.Error()
		if strings.HasPrefix(text, "NOSCRIPT") || strings.Contains(text, belowLog) {
			return noScript
		}
		for _, r := range refusals {
			if strings.HasPrefix(text, r) {
				return notApplied
			}
		}
		return broken
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return notApplied
	}
	if errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) || errors.Is(err, redis.ErrClosed) {
		return notApplied
	}
	return unknown
}

// unavailable wraps a driver's error into a sentence of this room.
func unavailable(doing string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w: %s", doing, ErrUnavailable, err.Error())
}

// badURL says that a URL cannot be read. Errors of parsers quote it, and where a
// password begins and ends in what cannot be parsed nobody knows: so of a URL
// that may hold one nothing is told.
func badURL(url string, err error) error {
	if strings.ContainsAny(url, "@%") || strings.Contains(strings.ToLower(url), "pass") {
		return errors.New("read Redis URL: it is not one such as redis://user:password@host:6379/0 with the options of go-redis; special characters of a password must be percent-encoded")
	}
	return fmt.Errorf("read Redis URL: %w", err)
}
