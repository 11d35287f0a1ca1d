package postgres

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Processes are those that accept rows, each of which keeps what is not
// committed yet. A process beats as long as it lives. Safe for concurrent use.
type Processes struct {
	pool *pgxpool.Pool
	id   string

	mu    sync.Mutex // guards since
	since time.Time  // of the first of the beats without a failure between them
}

// A process beats every beatEvery. One that was silent for silence is dead, if
// it is not Postgres that was away: so only while this one's own beats came
// through for as long. On its own machine a process is looked for, and that is
// known at once.
const (
	beatEvery = time.Second
	silence   = 10 * time.Second
)

// NewProcesses on a pool, for this process.
func NewProcesses(pool *pgxpool.Pool) *Processes {
	return &Processes{pool: pool, id: machine() + "." + strconv.Itoa(os.Getpid()) + "." + started(os.Getpid())}
}

// ID of this process.
func (p *Processes) ID() string { return p.id }

// Run beats until ctx ends. held is asked then: a process that still holds rows
// stays on the list, because a Redis that loses them later loses them for good.
func (p *Processes) Run(ctx context.Context, held func() bool) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		p.Beat(ctx)
		select {
		case <-ctx.Done():
			if held() {
				return nil
			}
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_, _ = p.pool.Exec(last, `delete from headpond.processes where id = $1`, p.id) // it is found dead otherwise
			return nil
		case <-tick.C:
		}
	}
}

// Beat says that this process lives.
func (p *Processes) Beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beatEvery)
	defer cancel()
	_, err := p.pool.Exec(ctx, `insert into headpond.processes (id) values ($1) on conflict (id) do update set seen_at = now()`, p.id)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil:
		p.since = time.Time{}
	case p.since.IsZero():
		p.since = time.Now()
	}
}

func (p *Processes) beatingFor() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		return 0
	}
	return time.Since(p.since)
}

// List implements buffer.Peers. It takes those off the list that have been dead
// for so long that nobody asks for what they held any more.
func (p *Processes) List(ctx context.Context) (alive, dead []string, err error) {
	rows, err := p.pool.Query(ctx, `
		with gone as (delete from headpond.processes where seen_at < now() - interval '30 days' and id <> $1)
		select id, extract(epoch from now() - seen_at)::float8 from headpond.processes`, p.id)
	if err != nil {
		return nil, nil, fmt.Errorf("list processes: %w", err)
	}
	defer rows.Close()
	alive = []string{p.id}
	for rows.Next() {
		var id string
		var silent float64
		if err := rows.Scan(&id, &silent); err != nil {
			return nil, nil, fmt.Errorf("list processes: %w", err)
		}
		late := silent > silence.Seconds() && p.beatingFor() > silence
		switch {
		case id == p.id:
		case late || died(id):
			dead = append(dead, id)
		default:
			alive = append(alive, id)
		}
	}
	return alive, dead, rows.Err()
}

// died reports whether a process was on this machine and is not any more.
func died(id string) bool {
	parts := strings.Split(id, ".")
	if len(parts) != 3 || parts[0] != machine() || parts[0] == "" {
		return false
	}
	pid, err := strconv.Atoi(parts[1])
	return err == nil && started(pid) != parts[2]
}

// machine names this boot of this machine, or this container on it: where two
// processes see each other under their numbers. Source: proc(5), namespaces(7).
var machine = sync.OnceValue(func() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	space, err2 := os.Readlink("/proc/self/ns/pid")
	if err != nil || err2 != nil {
		host, _ := os.Hostname()
		return strings.ReplaceAll(host, ".", "_")
	}
	digits := strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, space)
	return strings.ReplaceAll(strings.TrimSpace(string(boot)), "-", "")[:12] + "-" + digits
})

// started is when a process was started, in ticks after the boot; "" when there
// is none, or the system does not tell.
func started(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The second field is a name in parentheses, which may hold anything.
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}
