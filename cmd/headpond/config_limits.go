package main

// check of the limits that may be zero: each wrong one is named with its value.
func (l *limitsConfig) check(bad func(string, ...any)) {
	if l.TotalRows < 0 {
		bad("`limits.total_backlog_rows` must not be negative (0: no limit), not %d", l.TotalRows)
	}
	if l.TotalBytes < 0 {
		bad("`limits.total_backlog_bytes` must not be negative (0: no limit), not %d", l.TotalBytes)
	}
	if l.MaxLag < 0 {
		bad("`limits.max_lag` must not be negative (0s: no limit), not %s", l.MaxLag)
	}
}
