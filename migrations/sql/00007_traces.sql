-- +goose Up
-- With trace_id: where in its trace a row was put into the log, so that a replay can lead there.
alter table headpond.dead_letters add column span_id text;
comment on column headpond.dead_letters.trace_id is 'Trace of the request that wrote the row, in hex; null when it was not sampled.';
comment on column headpond.dead_letters.span_id is 'Span of that trace in which the row was put into the log, in hex.';
comment on column headpond.watermarks.updated_at is 'When the last flush of this partition moved it, moments before its COMMIT.';

-- +goose Down
alter table headpond.dead_letters drop column span_id;
comment on column headpond.watermarks.updated_at is 'When the last flush of this partition began its transaction.';
