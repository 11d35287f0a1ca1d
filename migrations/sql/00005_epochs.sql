-- +goose Up
-- What each epoch of a partition began with. A receipt of an earlier epoch is
-- understood with it: what became of that row when Redis or Postgres went back.
create table headpond.epochs (
    table_name  text        not null,
    partition   int         not null,
    epoch       bigint      not null,
    why         text        not null,
    kept_epoch  bigint      not null,
    kept_seq    bigint      not null,
    opened_at   timestamptz not null default now(),
    recorded_at timestamptz,
    replayed    bigint      not null default 0,
    lost        bigint      not null default 0,
    lost_from   bigint,
    lost_to     bigint,
    primary key (table_name, partition, epoch)
);
comment on table headpond.epochs is 'What each epoch of a partition began with: why it was opened, what nobody had lost, what was put back, and what was lost.';
comment on column headpond.epochs.table_name is 'The table as it is named in paths.';
comment on column headpond.epochs.partition is 'Partition of the buffer.';
comment on column headpond.epochs.epoch is 'See headpond.watermarks.epoch.';
comment on column headpond.epochs.why is 'first; restart: of Redis, or a replica was promoted; behind or emptied: Redis had lost rows; rewind: Postgres went back.';
comment on column headpond.epochs.kept_epoch is 'With kept_seq: up to here no row was missing.';
comment on column headpond.epochs.kept_seq is 'See kept_epoch.';
comment on column headpond.epochs.opened_at is 'When Redis was compared with Postgres.';
comment on column headpond.epochs.recorded_at is 'When every process had given back what it held; null while the partition is closed.';
comment on column headpond.epochs.replayed is 'Rows that Redis had lost and that processes gave back.';
comment on column headpond.epochs.lost is 'Rows that were acknowledged and are lost. Anything but 0 is an alarm.';
comment on column headpond.epochs.lost_from is 'The first seq that a lost row may have had.';
comment on column headpond.epochs.lost_to is 'The last one.';

-- Where rows went that were put back: seqs up to seq, as many as rows, went to
-- those up to new_seq.
create table headpond.moves (
    table_name text   not null,
    partition  int    not null,
    new_epoch  bigint not null,
    epoch      bigint not null,
    seq        bigint not null,
    rows       int    not null,
    new_seq    bigint not null,
    primary key (table_name, partition, new_epoch, epoch, seq),
    foreign key (table_name, partition, new_epoch) references headpond.epochs on delete cascade
);
comment on table headpond.moves is 'Under which numbers rows were put back into the buffer that Redis had lost.';
comment on column headpond.moves.table_name is 'The table as it is named in paths.';
comment on column headpond.moves.partition is 'Partition of the buffer.';
comment on column headpond.moves.new_epoch is 'The epoch into which they were put back.';
comment on column headpond.moves.epoch is 'With seq: the number that the last of them had.';
comment on column headpond.moves.seq is 'See epoch.';
comment on column headpond.moves.rows is 'How many rows, each one seq after the other.';
comment on column headpond.moves.new_seq is 'The number that the last of them has now.';

-- Who may hold rows that Redis has lost: an epoch is opened when all that are
-- alive have given them back.
create table headpond.processes (
    id         text primary key,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now()
) with (fillfactor = 50);
comment on table headpond.processes is 'Processes that accept rows, each of which keeps what is not committed yet.';
comment on column headpond.processes.id is 'Machine, process number and start of the process.';
comment on column headpond.processes.started_at is 'When it came.';
comment on column headpond.processes.seen_at is 'When it was heard of last.';

comment on column headpond.watermarks.epoch is 'Life of the buffer''s log: one more each time Redis was restarted, or one of the two went back. See headpond.epochs.';

-- +goose Down
drop table headpond.processes;
drop table headpond.moves;
drop table headpond.epochs;
