package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"
)

// BenchmarkGetHit: GETs of clean rows by 64 clients, and of a constant row from
// an Echo handler that does nothing else.
func BenchmarkGetHit(b *testing.B) {
	s := setup(b, `create table c (id int primary key, name text not null default 'none', n bigint not null default 0, doc jsonb)`)
	s.exec(`insert into c select i, 'name of ' || i, i * 1000, jsonb_build_object('page', '/a/b/c', 'n', i, 'tags', jsonb_build_array('a', 'b')) from generate_series(0, 99) i`)
	for i := range 100 {
		s.get(s.path("c", string(rune('0'+i/10))+string(rune('0'+i%10))))
	}
	constant := s.get(s.path("c", "42")).body
	e := echo.New()
	e.GET("/", func(c echo.Context) error { return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, constant) })
	plain := httptest.NewServer(e)
	defer plain.Close()
	for name, url := range map[string]string{"echo": plain.URL + "/", "hit": s.url + s.path("c", "42")} {
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					a, err := s.client.Get(url)
					require.NoError(b, err)
					_, _ = io.Copy(io.Discard, a.Body)
					_ = a.Body.Close()
					if a.StatusCode != 200 {
						b.Error(a.Status)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
		})
	}
}
