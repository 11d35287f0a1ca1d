package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkDirect: PUTs of one row by 64 clients, in each strategy.
func BenchmarkDirect(b *testing.B) {
	for _, strategy := range []string{"write-behind", "write-through", "cache-aside"} {
		b.Run(strategy, func(b *testing.B) {
			s := setupWith(b, `create table c (id int primary key, name text not null default 'none', n bigint not null default 0)`, options{strategy: strategy})
			s.startFlusher()
			url := s.url + s.path("c") + "/"
			var next atomic.Int64
			b.SetParallelism(32)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n := next.Add(1) % 10000
					r, err := http.NewRequest(http.MethodPut, fmt.Sprint(url, n), strings.NewReader(`{"name":"a name","n":7}`))
					require.NoError(b, err)
					r.Header.Set("Content-Type", "application/json")
					a, err := s.client.Do(r)
					require.NoError(b, err)
					_ = a.Body.Close()
					if a.StatusCode > 202 {
						b.Errorf("%d", a.StatusCode)
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			s.flushed()
		})
	}
}
