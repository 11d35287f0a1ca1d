-- +goose Up
-- What stands for rows that were not written themselves: of a dead letter the row
-- that replayed it, of a replay that found its dead letter gone that dead letter.
-- Their receipts tell what became of that one. Replays that were refused too make
-- a chain, each link of which is added once and never changed.
create table headpond.replays (
    table_name    text        not null,
    partition     int         not null,
    seq           bigint      not null,
    epoch         bigint      not null,
    key           text        not null,
    new_partition int,
    new_epoch     bigint,
    new_seq       bigint,
    at            timestamptz not null default clock_timestamp(),
    primary key (table_name, partition, seq, epoch)
);
create index on headpond.replays (at);
comment on table headpond.replays is
    'Receipts of dead letters that were replayed, kept for a week, and as long as the last replay is a dead letter itself.';
comment on column headpond.replays.table_name is 'The table as it is named in paths.';
comment on column headpond.replays.partition is 'With epoch and seq: the receipt that the client got.';
comment on column headpond.replays.seq is 'Number of the row in its partition.';
comment on column headpond.replays.epoch is 'See headpond.watermarks.epoch.';
comment on column headpond.replays.key is 'Primary key as it is written in paths; empty when the table has none.';
comment on column headpond.replays.new_partition is
    'With new_epoch and new_seq: the receipt of what stands for it; null when its replay was written directly.';
comment on column headpond.replays.new_epoch is 'See new_partition.';
comment on column headpond.replays.new_seq is 'See new_partition.';
comment on column headpond.replays.at is 'When, moments before the COMMIT.';

-- +goose Down
drop table headpond.replays;
