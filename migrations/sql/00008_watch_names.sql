-- +goose Up
-- A column of a watched table that was named like a variable of the trigger
-- function (path, within, n, most, tg_op ...) made every statement on it fail.

-- +goose StatementBegin
-- Makes the trigger function for tables with the primary key of this one, and
-- gives its name: for the same key it is the same function. It is made for speed:
-- with statements that are planned once a change costs 0.07 ms, with statements
-- that are put together at each change 0.25 ms.
--
-- The trigger function notes the keys of the rows that a statement changed. It
-- must never make a user's statement fail and never miss a row, whatever became of
-- the table since it was installed: where the primary key is another one by now,
-- or too many rows are changed, it notes the whole table.
--
-- Keys are what the types' output functions print under these settings, which is
-- the text by which Headpond knows a row (a cast is not: bool, char(n), inet).
-- Headpond sets headpond.own in its transactions, and its own statements are not
-- noted; what they set off, in triggers of the user's and foreign keys, is.
--
-- A name that a column of the table shares with a variable is the column: hence
-- #variable_conflict, and no variable beside LIMIT, where a column is an error.
--
-- There is no NOTIFY: it makes all transactions that notify commit one by one.
create or replace function headpond.watch_function(relation oid) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $make$
declare
    key text := headpond.watch_key(relation);
    name text := 'watch_' || md5(key);
    numbers int[];
    names text;   -- of the key's columns
    aliases text; -- k1, k2 ...
    texts text;
    now_key text; -- gives what key is at each change
    note text;
    body text;
begin
    if key is null then
        raise exception 'the table has no primary key' using errcode = '55000';
    end if;
    select array_agg(x.indkey[i - 1]::int order by i), string_agg(pg_get_indexdef(x.indexrelid, i, false), ', ' order by i),
        string_agg('k' || i, ', ' order by i), string_agg('format(''%s'', k' || i || ')', ', ' order by i),
        string_agg('pg_get_indexdef(x.indexrelid, ' || i || ', false)', ' || '','' || ' order by i)
    into numbers, names, aliases, texts, now_key
    from pg_index x cross join lateral generate_series(1, x.indnkeyatts::int) i
    where x.indrelid = relation and x.indisprimary;
    note := format($note$
                insert into headpond.changes (table_name, relation, columns, keys, own)
                select path, tg_relid, %L::int[], array_agg(array[%s]), within <> ''
                from (select s.*, (row_number() over () - 1) / 1000 from (%%s) s) x (%s, entry) group by entry$note$,
        numbers, replace(texts, '%', '%%'), aliases);
    body := format($body$
        #variable_conflict use_column
        declare
            path text := case when tg_table_schema = 'public' and strpos(tg_table_name, '.') = 0
                then tg_table_name else tg_table_schema || '.' || tg_table_name end;
            within text := coalesce(current_setting('headpond.own', true), '');
            n bigint := 1;
        begin
            if pg_trigger_depth() = 1 and within = 'on' or to_regclass('headpond.changes') is null then
                return null;
            end if;
            if tg_op in ('INSERT', 'UPDATE') then
                select count(*) into n from (select from headpond_new limit 100001) x;
            elsif tg_op = 'DELETE' then
                select count(*) into n from (select from headpond_old limit 100001) x;
            end if;
            if n = 0 then
                return null;
            end if;
            if tg_op = 'TRUNCATE' or n > 100000 or (
                select x.indkey::text || ':' || %s from pg_index x where x.indrelid = tg_relid and x.indisprimary) is distinct from %L
            then
                insert into headpond.changes (table_name, relation, own) values (path, tg_relid, within <> '');
            elsif tg_op = 'INSERT' then %s;
            elsif tg_op = 'DELETE' then %s;
            else %s;
            end if;
            return null;
        end $body$, now_key, key,
        format(note, format('select %s from headpond_new', names)),
        format(note, format('select %s from headpond_old', names)),
        format(note, format('select %1$s from headpond_old union select %1$s from headpond_new', names)));
    execute format($format$
        create or replace function headpond.%I() returns trigger
        language plpgsql security definer
        set search_path = pg_catalog, pg_temp
        set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres'
        set bytea_output = 'hex' set extra_float_digits = '1' set lc_monetary = 'C'
        as %L $format$, name, body);
    execute format('comment on function headpond.%I() is %L', name, 'Function of triggers headpond_watch_*, for the primary key ' || key);
    return format('headpond.%I', name);
end $make$;
-- +goose StatementEnd

-- The functions of triggers that are installed get the same two changes, whatever
-- became of their tables: the table need not be locked, nor its owner be asked.
-- +goose StatementBegin
do $$
declare
    one text;
begin
    for one in
        select pg_get_functiondef(oid) from pg_proc
        where pronamespace = 'headpond'::regnamespace and proname like 'watch\_%' and prorettype = 'trigger'::regtype
    loop
        -- Each replaces the first alone: names of columns come later.
        one := regexp_replace(one, '\n\s*declare\n', E'\n#variable_conflict use_column\ndeclare\n');
        one := regexp_replace(one, 'from headpond_new limit most \+ 1\)', 'from headpond_new limit 100001)');
        execute regexp_replace(one, 'from headpond_old limit most \+ 1\)', 'from headpond_old limit 100001)');
    end loop;
end $$;
-- +goose StatementEnd

-- +goose Down
-- The functions stay: they do all that those before them did.
select;
