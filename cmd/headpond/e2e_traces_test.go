package main_test

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// traced is an API that exports over HTTP and a flusher that exports over gRPC.
// Neither samples anything of its own accord.
type traced struct {
	*servers
	*receiver
	h       *headpond
	flusher *process
	n       int
}

func startTraced(t *testing.T) *traced {
	t.Helper()
	x := &traced{servers: startServers(t, buildProgram(t)), receiver: newReceiver(t)}
	execute(t, x.postgres.URL(), `alter system set track_commit_timestamp = on`)
	execute(t, x.postgres.URL(), `alter system set fsync = off`) // a disk's time lies between the commit and its answer
	require.NoError(t, x.postgres.Restart(t.Context()))
	execute(t, x.postgres.URL(), `
		create table t (id int primary key, v text, n int not null default 0 check (n >= 0));
		create table noted (v text)`)
	quiet := []string{"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0", "OTEL_BSP_SCHEDULE_DELAY=50"}
	x.extra = append(quiet, "OTEL_EXPORTER_OTLP_ENDPOINT="+x.http, "OTEL_METRIC_EXPORT_INTERVAL=200")
	x.h = x.serve(t, "--role", "api")
	x.extra = append(quiet, "OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_ENDPOINT="+x.grpc, "OTEL_SERVICE_NAME=flushes")
	x.flusher = start(t, x.program, x.env(), "serve", "--role", "flusher", "--listen", "127.0.0.1:0")
	x.h.serves(t, "t", "noted")
	return x
}

// send makes a request in a trace of its own, and gives the trace and the answer.
func (x *traced) send(t *testing.T, method, path, body string, sampled bool) (trace string, a answer) {
	t.Helper()
	x.n++
	trace = fmt.Sprintf("0af7651916cd43dd8448eb211c%06x", x.n)
	q := sentRequest{method: method, path: path, body: body, header: map[string]string{
		"Content-Type": typeJSON, "traceparent": fmt.Sprintf("00-%s-b7ad6b7169203331-%02d", trace, map[bool]int{true: 1}[sampled]),
	}}
	a, err := q.to(x.h)
	require.NoError(t, err)
	return trace, a
}

// frames gives the times fields of the log of a table.
func (x *traced) times(t *testing.T, table string) (all []string) {
	t.Helper()
	o, err := redis.ParseURL(x.redis.URL())
	require.NoError(t, err)
	rdb := redis.NewClient(o)
	defer func() { _ = rdb.Close() }()
	for p := range 8 {
		got, err := rdb.XRange(t.Context(), fmt.Sprintf("hp:{%s.%d}:log", table, p), "-", "+").Result()
		require.NoError(t, err)
		for _, m := range got {
			text, _ := m.Values["t"].(string)
			all = append(all, text)
		}
	}
	return all
}

// TestTraces follows writes from their request to their commit.
func TestTraces(t *testing.T) {
	t.Parallel()
	x := startTraced(t)

	t.Run("one POST", func(t *testing.T) {
		goOn := holdFlush(t, x.postgres.URL(), "t")
		trace, a := x.send(t, "POST", "/v1/t", `{"id":1,"v":"s3cret value"}`, true)
		require.Equal(t, http.StatusAccepted, a.code)
		_, other := x.send(t, "POST", "/v1/t", `{"id":2}`, false)
		require.Equal(t, http.StatusAccepted, other.code)
		plain, err := x.h.post("t", typeJSON, `{"id":3}`)
		require.NoError(t, err)
		require.Equal(t, http.StatusAccepted, plain.code)

		server := x.one(t, trace, "POST /v1/:table")
		require.Equal(t, "b7ad6b7169203331", server.parent)
		require.Equal(t, "headpond", server.service)
		require.Equal(t, "/v1/:table", server.text("http.route"))
		require.EqualValues(t, 202, server.number("http.response.status_code"))
		sent := x.one(t, trace, "send t")
		require.Equal(t, server.id, sent.parent)
		require.Equal(t, "SPAN_KIND_PRODUCER", sent.GetKind().String())
		require.Equal(t, "t", sent.text("messaging.destination.name"))

		number := regexp.MustCompile(`^\d{16}$`)
		ids, err := hex.DecodeString(trace + sent.id)
		require.NoError(t, err)
		all := x.times(t, "t")
		require.Len(t, all, 3)
		var with int
		for _, at := range all {
			if strings.HasSuffix(at, string(ids)) {
				with++
			} else {
				require.Regexp(t, number, at, "what is not sampled carries nothing")
			}
		}
		require.Equal(t, 1, with)
		life := x.h.get(t, "/admin/v1/writes/"+a.header.Get("Headpond-Receipt"))
		require.Equal(t, trace, life.field("trace_id"), "%s", life.body)

		goOn()
		lag := x.one(t, trace, "durability lag")
		require.Equal(t, sent.id, lag.parent)
		require.Equal(t, "flushes", lag.service)
		require.Equal(t, a.header.Get("Headpond-Receipt"), lag.text("headpond.receipt"))
		flush := x.one(t, "", "process t")
		require.True(t, flush.linksTo(sent), "%v", flush.GetLinks())
		require.Len(t, flush.GetLinks(), 1, "of sampled writes alone")
		require.EqualValues(t, 1, flush.number("headpond.sampled_writes"))
		require.EqualValues(t, 3, flush.number("messaging.batch.message_count"))
		require.True(t, lag.linksTo(flush))
		require.NotEqual(t, trace, flush.trace)
		await(t, "children", func() bool { return len(x.children(flush)) == 4 })
		require.Equal(t, []string{"COPY", "commit", "read", "settle"}, x.children(flush))
		require.WithinRange(t, lag.started(), server.started(), server.ended())
	})

	// A busy machine may take its time to bring COMMIT's answer: so the best of many
	// writes counts for how exact the end is, and all for that it is never too early.
	t.Run("the end is the commit", func(t *testing.T) {
		exact := false
		for id := 100; id < 140 && !exact; id++ {
			trace, a := x.send(t, "POST", "/v1/t", fmt.Sprintf(`{"id":%d}`, id), true)
			require.Equal(t, http.StatusAccepted, a.code)
			lag := x.one(t, trace, "durability lag")
			committed := value[time.Time](t, x.postgres.URL(), fmt.Sprintf(`select pg_xact_commit_timestamp(xmin) from t where id = %d`, id))
			require.False(t, lag.ended().Before(committed), "%s is before %s", lag.ended(), committed)
			moved := value[time.Time](t, x.postgres.URL(), `select max(updated_at) from headpond.watermarks where table_name = 't'`)
			require.False(t, moved.After(committed), "%s is after %s", moved, committed)
			exact = lag.ended().Sub(committed) < 10*time.Millisecond && committed.Sub(moved) < 10*time.Millisecond
		}
		require.True(t, exact, "no span of 40 ends within 10 ms of its commit")
	})

	t.Run("writes that look at their row", func(t *testing.T) {
		patch, a := x.send(t, "PATCH", "/v1/t/2", `{"v":"x"}`, true)
		require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
		unsampled, a := x.send(t, "POST", "/v1/t/2/increment", `{"n":2}`, false)
		require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
		bulk, a := x.send(t, "POST", "/v1/t", `[{"id":11},{"id":12},{"id":13},{"id":14},{"id":15},{"id":16},{"id":17},{"id":18},{"id":19}]`, true)
		require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
		put, a := x.send(t, "PUT", "/v1/t/12", `{"v":"y"}`, true)
		require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
		x.h.settled(t)
		await(t, "a batch that is merged", func() bool { return len(x.named("", "merge")) > 0 })
		for _, trace := range []string{patch, put} {
			require.Equal(t, x.one(t, trace, "send t").id, x.one(t, trace, "durability lag").parent)
		}
		rows := func() (n int64) {
			for _, s := range x.named(bulk, "durability lag") {
				n += s.number("headpond.rows")
			}
			return n
		}
		await(t, "the rows of a list", func() bool { return rows() == 9 })
		require.Empty(t, x.named(unsampled, "durability lag"))
		require.Empty(t, x.named(unsampled, "send t"))
	})

	t.Run("retries, dead letters and replays", func(t *testing.T) {
		require.NoError(t, x.postgres.Kill())
		late, a := x.send(t, "POST", "/v1/t", `{"id":30}`, true)
		require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
		await(t, "a flush that fails", func() bool {
			return strings.Contains(x.flusher.log.String(), `"flush"`) || strings.Contains(x.flusher.log.String(), "flushes pause")
		})
		require.NoError(t, x.postgres.Restart(t.Context()))
		lag := x.one(t, late, "durability lag")
		require.NotNil(t, lag.event("retry"), "%v", lag)
		require.Equal(t, "unreachable", attributeOf(lag.event("retry").GetAttributes(), "error.type").GetStringValue())

		execute(t, x.postgres.URL(), `alter table t add constraint small check (v <> 's3cret poison')`)
		dead, a := x.send(t, "POST", "/v1/t", `{"id":31,"v":"s3cret poison"}`, true)
		require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
		lag = x.one(t, dead, "durability lag")
		require.Equal(t, "STATUS_CODE_ERROR", lag.GetStatus().GetCode().String())
		require.Equal(t, "23514", attributeOf(lag.event("dead letter").GetAttributes(), "db.response.status_code").GetStringValue())
		require.Equal(t, dead, value[string](t, x.postgres.URL(), `select trace_id from headpond.dead_letters`))
		await(t, "the API to find Postgres again", func() bool {
			return strings.Contains(string(x.h.get(t, "/admin/v1/dead-letters").body), `"trace_id":"`+dead+`"`)
		})

		execute(t, x.postgres.URL(), `alter table t drop constraint small`)
		replay, a := x.send(t, "POST", "/admin/v1/dead-letters/replay?table=t", "", true)
		require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
		lag = x.one(t, replay, "durability lag")
		require.NotNil(t, lag.event("replay"))
		require.True(t, x.one(t, replay, "POST /admin/v1/dead-letters/replay").linksTo(x.one(t, dead, "send t")))
	})

	t.Run("metrics", func(t *testing.T) {
		await(t, "metrics over OTLP", func() bool {
			x.mu.Lock()
			defer x.mu.Unlock()
			return x.metrics["headpond_accepted_rows"] != nil && x.metrics["http.server.request.duration"] != nil
		})
		url, _ := x.flusher.logged("serving")["url"].(string)
		scrape := scrapeOpenMetrics(t, url)
		require.Regexp(t, `headpond_durability_lag_seconds_bucket\{table="t",le="[^"]+"\} \d+ # \{trace_id="0af7651916cd43dd8448eb211c0000[0-9a-f]{2}",span_id="[0-9a-f]{16}"\}`, scrape)
	})

	t.Run("no values", func(t *testing.T) {
		_, a := x.send(t, "GET", "/v1/t/s3cret-key", "", true)
		require.Equal(t, http.StatusUnprocessableEntity, a.code)
		trace, a := x.send(t, "POST", "/v1/noted", `{"v":"s3cret value"}`, true)
		require.Equal(t, http.StatusAccepted, a.code)
		x.one(t, trace, "durability lag")
		require.True(t, x.told("headpond.receipt"))
		for _, secret := range []string{"s3cret", "insert into", "select "} {
			require.False(t, x.told(secret), "a span holds %q", secret)
		}
	})

	t.Run("problems and logs", func(t *testing.T) {
		trace, a := x.send(t, "POST", "/v1/nothing", `{}`, false)
		require.Equal(t, trace, a.field("trace_id"))
		_, a = x.send(t, "POST", "/v1/t", `{`, true)
		require.Equal(t, fmt.Sprintf("0af7651916cd43dd8448eb211c%06x", x.n), a.field("trace_id"))
	})
}

func scrapeOpenMetrics(t *testing.T, url string) string {
	t.Helper()
	q := sentRequest{method: http.MethodGet, path: "/metrics", header: map[string]string{"Accept": "application/openmetrics-text"}}
	a, err := q.to(&headpond{api: url})
	require.NoError(t, err)
	return string(a.body)
}

// holdFlush keeps one table from being flushed.
func holdFlush(t *testing.T, database, table string) (goOn func()) {
	t.Helper()
	conn := connect(t, database)
	_, err := conn.Exec(t.Context(), "begin; lock table "+table+" in access exclusive mode")
	require.NoError(t, err)
	return func() {
		_, err := conn.Exec(t.Context(), "rollback")
		require.NoError(t, err)
	}
}

// TestTelemetryEndpointHangs: an endpoint that takes connections and never answers
// delays no write and no stop.
func TestTelemetryEndpointHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // the backlog takes connections; nobody reads from them
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		s := startServers(t, buildProgram(t))
		execute(t, s.postgres.URL(), `create table t (id int primary key)`)
		s.extra = []string{
			"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + l.Addr().String(), "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol,
			"OTEL_BSP_SCHEDULE_DELAY=10", "OTEL_METRIC_EXPORT_INTERVAL=50",
		}
		h := s.serve(t)
		h.serves(t, "t")
		const rows = 5000 // 15,000 spans are more than the queue holds
		for i := range rows / 100 {
			for j := range 100 {
				a, err := h.post("t", typeJSON, fmt.Sprintf(`{"id":%d}`, i*100+j))
				require.NoError(t, err)
				require.Equal(t, http.StatusAccepted, a.code)
			}
		}
		h.settled(t)
		require.EqualValues(t, rows, value[int64](t, s.postgres.URL(), `select count(*) from t`))
		require.NoError(t, syscall.Kill(h.pid(), syscall.SIGTERM))
		await(t, "the process to stop", h.ended)
	}
}

// TestTelemetryUnset: without OTEL_* variables nothing is sent anywhere and nothing
// complains; what they say wrong is told.
func TestTelemetryUnset(t *testing.T) {
	t.Parallel()
	s := startServers(t, buildProgram(t))
	execute(t, s.postgres.URL(), `create table t (id int primary key)`)
	h := s.serve(t)
	h.serves(t, "t")
	a, err := h.post("t", typeJSON, `{"id":1}`)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, a.code)
	h.settled(t)
	require.NotContains(t, strings.ToLower(h.log.String()), "telemetry")
	require.NotContains(t, h.log.String(), "4318")
	s.extra = []string{"OTEL_SDK_DISABLED=true", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1"}
	off := s.serve(t)
	require.Equal(t, http.StatusNotFound, off.get(t, "/metrics").code)
	require.Equal(t, http.StatusOK, off.get(t, "/v1/t/1").code)
	s.extra = []string{"OTEL_TRACES_EXPORTER=pigeon"}
	bad := command(t, s.program, s.env(), "serve")
	require.Equal(t, 2, bad.code)
	require.Contains(t, bad.err, "OTEL_TRACES_EXPORTER=pigeon")
}
