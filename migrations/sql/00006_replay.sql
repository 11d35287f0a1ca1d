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

-- +goose Down
alter table headpond.dead_letters
    drop column parked_epoch, drop column parked_seq, drop column ignores_existing, drop column replays, drop column replayed_at;
drop index if exists headpond.dead_letters_table_name_id_idx;
