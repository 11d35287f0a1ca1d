-- +goose Up
-- What a replay needs to know of a dead letter.
alter table headpond.dead_letters
    add column parked_epoch bigint,
    add column parked_seq bigint,
    add column ignores_existing boolean not null default false,
    add column replays int not null default 0,
    add column replayed_at timestamptz;
comment on column headpond.dead_letters.parked_epoch is
    'With parked_seq: the dead letter of the same partition that this change was computed on, and that it follows when that one is replayed; null when it is not parked.';
comment on column headpond.dead_letters.parked_seq is 'See parked_epoch.';
comment on column headpond.dead_letters.ignores_existing is 'An insert that does nothing when its key exists.';
comment on column headpond.dead_letters.replays is 'How often it was replayed and refused again.';
comment on column headpond.dead_letters.replayed_at is
    'When a replay was accepted last; the flush that commits it removes the dead letter in the same transaction.';
create index on headpond.dead_letters (table_name, id);
create index on headpond.dead_letters (table_name, partition, parked_epoch, parked_seq) where parked_seq is not null;

-- What is left of a discarded dead letter for a week, without its row: so that its
-- receipt does not say that it was committed, and a change that was computed on it
-- and is still on its way is not applied.
create table headpond.discarded (
    table_name text        not null,
    partition  int         not null,
    epoch      bigint      not null,
    seq        bigint      not null,
    key        text        not null,
    sqlstate   text        not null,
    message    text        not null,
    at         timestamptz not null default now(),
    primary key (table_name, partition, epoch, seq)
);
create index on headpond.discarded (at);
comment on table headpond.discarded is 'Receipts of dead letters that an operator discarded, kept for a week.';
comment on column headpond.discarded.table_name is 'The table as it is named in paths.';
comment on column headpond.discarded.partition is 'With epoch and seq: the receipt that the client got.';
comment on column headpond.discarded.epoch is 'See headpond.watermarks.epoch.';
comment on column headpond.discarded.seq is 'Number of the row in its partition.';
comment on column headpond.discarded.key is 'Primary key as it is written in paths; empty when the table has none.';
comment on column headpond.discarded.sqlstate is 'Why Postgres refused it.';
comment on column headpond.discarded.message is 'What Postgres said, cut.';
comment on column headpond.discarded.at is 'When it was discarded.';

-- +goose Down
drop table headpond.discarded;
alter table headpond.dead_letters
    drop column parked_epoch, drop column parked_seq, drop column ignores_existing, drop column replays, drop column replayed_at;
drop index if exists headpond.dead_letters_table_name_id_idx;
