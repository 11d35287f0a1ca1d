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

-- +goose Down
drop table headpond.marks;
