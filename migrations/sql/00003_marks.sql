-- +goose Up
-- What was answered to requests with an Idempotency-Key that wrote directly
-- (write-through, cache-aside): set in the transaction of their rows, so that a
-- repeat finds it exactly when they are there.
create table headpond.marks (
    table_name text        not null,
    name       text        not null,
    value      text        not null,
    at         timestamptz not null default now(),
    primary key (table_name, name)
);
create index on headpond.marks (at);
comment on table headpond.marks is 'Answers to requests with an Idempotency-Key that wrote directly, kept for a day.';
comment on column headpond.marks.table_name is 'The table as it is named in paths.';
comment on column headpond.marks.name is 'The Idempotency-Key, and which part of the request.';
comment on column headpond.marks.value is 'What was answered, as Headpond notes it.';
comment on column headpond.marks.at is 'When; older than a day it is forgotten.';

-- +goose Down
drop table headpond.marks;
