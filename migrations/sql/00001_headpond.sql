-- +goose Up
-- The schema itself is made before goose runs: its version table lies in it.

-- One row per partition of a table. It is both the progress and the lock: a
-- flush holds the row FOR UPDATE and moves it in the transaction that writes
-- the rows. It is updated with every flush and nothing of it that changes is
-- indexed, so with half of each page free every update is HOT (no index entry,
-- the old version pruned by the next reader), and the table stays at a page or
-- two however often it moves.
create table headpond.watermarks (
    table_name text        not null,
    partition  int         not null,
    epoch      bigint      not null,
    seq        bigint      not null,
    opened     bigint      not null default 0,
    committed  bigint      not null default 0,
    coalesced  bigint      not null default 0,
    dead       bigint      not null default 0,
    lost       bigint      not null default 0,
    updated_at timestamptz not null default now(),
    primary key (table_name, partition)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

comment on schema headpond is
    'Headpond, the write-behind buffer in front of this database, keeps its progress and its dead letters here. See https://github.com/headpond/headpond.';
comment on table headpond.watermarks is
    'How far each partition of each table has been written: everything up to (epoch, seq) is committed. The row is the flusher''s lock too; it moves in the transaction that writes the rows. Do not edit it.';
comment on column headpond.watermarks.table_name is 'The table as it is named in paths: orders for public.orders, audit.orders for other schemas.';
comment on column headpond.watermarks.partition is 'Partition of the buffer, 0 and up.';
comment on column headpond.watermarks.epoch is 'Life of the buffer''s log: one more each time Redis has lost data.';
comment on column headpond.watermarks.seq is 'Dense number of the last row that is done with; seq = committed + coalesced + dead + lost.';
comment on column headpond.watermarks.opened is 'The highest epoch that was ever opened in the buffer, so that none is opened twice.';
comment on column headpond.watermarks.committed is 'Rows written to the table.';
comment on column headpond.watermarks.coalesced is 'Rows merged into a later one of the same key, and so written with it.';
comment on column headpond.watermarks.dead is 'Rows that Postgres refused: see headpond.dead_letters.';
comment on column headpond.watermarks.lost is 'Rows that were accepted and that Redis lost before they were flushed. Anything but 0 is an alarm.';
comment on column headpond.watermarks.updated_at is 'When the last flush of this partition began its transaction.';

create table headpond.dead_letters (
    id               bigint generated always as identity primary key,
    table_name       text,
    partition        int,
    epoch            bigint,
    seq              bigint,
    key              text,
    operation        text        not null default 'insert',
    sqlstate         text        not null,
    message          text        not null,
    detail           text,
    constraint_name  text,
    column_name      text,
    "row"            jsonb,
    columns          text[]      not null,
    "values"         text[]      not null,
    trace_id         text,
    accepted_at      timestamptz not null,
    dead_lettered_at timestamptz not null default now(),
    unique (table_name, partition, epoch, seq)
);

comment on table headpond.dead_letters is
    'Rows that were accepted and that Postgres then refused, each with the reason. Each row is kept exactly as it was accepted.';
comment on column headpond.dead_letters.id is 'Its name in the API and on the command line.';
comment on column headpond.dead_letters.table_name is 'The table as it is named in paths.';
comment on column headpond.dead_letters.partition is 'With epoch and seq: the receipt that the client got.';
comment on column headpond.dead_letters.epoch is 'See headpond.watermarks.epoch.';
comment on column headpond.dead_letters.seq is 'Number of the row in its partition.';
comment on column headpond.dead_letters.key is 'Primary key as it is written in paths; null when the table has none.';
comment on column headpond.dead_letters.operation is 'insert, put, patch, increment or delete.';
comment on column headpond.dead_letters.sqlstate is 'Five characters, as in appendix A of the PostgreSQL documentation.';
comment on column headpond.dead_letters.message is 'What Postgres said.';
comment on column headpond.dead_letters.detail is 'What Postgres said in detail.';
comment on column headpond.dead_letters.constraint_name is 'The constraint that refused the row, where one did.';
comment on column headpond.dead_letters.column_name is 'The column that was to blame, where one was.';
comment on column headpond.dead_letters."row" is 'The row for people, as to_jsonb would print it.';
comment on column headpond.dead_letters.columns is 'Names of the columns that were written.';
comment on column headpond.dead_letters."values" is 'Their values in canonical text, exact: what a replay writes.';
comment on column headpond.dead_letters.trace_id is 'Trace of the request that was accepted.';
comment on column headpond.dead_letters.accepted_at is 'When the client got its 2xx.';
comment on column headpond.dead_letters.dead_lettered_at is 'When Postgres refused the row.';

-- +goose Down
drop table headpond.dead_letters;
drop table headpond.watermarks;
