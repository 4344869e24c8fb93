#!/usr/bin/env bash
# What the layout of the tables on Postgres rests on (docs/decisions/0009): fill factor, TOAST, partitions, the forms of a
# commit, settings of functions. Prints tables.
#
#   benches/choices/postgres-layout.sh                                     all of them
#   benches/choices/postgres-layout.sh partitions /usr/lib/postgresql/16/bin
#
# Starts a server of its own, without fsync, and measures inside it: the CPU time of the server's process, which other work
# on the machine changes least, pages that were touched, and bytes of WAL.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

what=${1:-all}
bin=${2:-$(find /usr/lib/postgresql -maxdepth 2 -name bin | sort -V | tail -n 1)}
folder=$(mktemp -d)
as=()
if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$folder"
    as=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi
"${as[@]}" "$bin/initdb" -D "$folder/data" -U postgres --auth=trust --no-sync >/dev/null
"${as[@]}" "$bin/postgres" -D "$folder/data" -k "$folder" -c listen_addresses= -c fsync=off -c synchronous_commit=off \
    -c autovacuum=off -c shared_buffers=512MB -c max_wal_size=4GB -c jit=off >"$folder/log" 2>&1 &
server=$!
trap 'kill -INT $server; wait $server || true; rm -rf "$folder"' EXIT
until psql -h "$folder" -U postgres -c '' 2>/dev/null; do sleep 0.1; done
run() { psql -h "$folder" -U postgres -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }

# CPU of this process of the server, in milliseconds.
run <<'SQL'
CREATE FUNCTION cpu() RETURNS numeric LANGUAGE sql VOLATILE AS $$
    SELECT 10 * (s[12]::numeric + s[13]::numeric)
    FROM string_to_array(substring(pg_read_file('/proc/self/stat', 0, 2000) FROM '\) (.*)'), ' ') s
$$;
-- Bytes that do not compress: a piece of these, from anywhere.
CREATE TABLE pool AS SELECT string_agg(decode(md5(i::text), 'hex'), '') AS bytes FROM generate_series(1, 4096) i;
SQL

# The schema, as the program makes it. The number of partitions: 0 for plain tables.
schema() {
    local clause='' sql='' table i
    [ "$1" -eq 0 ] || clause='PARTITION BY HASH (database)'
    sql="DROP SCHEMA IF EXISTS m CASCADE; CREATE SCHEMA m;$(sed "s/{schema}/m/g; s/{partition}/$clause/" \
        backend-postgres/src/schema/sql/*.sql)"
    for table in log pages; do
        for ((i = 0; i < $1; i++)); do
            sql+="CREATE TABLE m.${table}_$i PARTITION OF m.$table FOR VALUES WITH (MODULUS $1, REMAINDER $i);"
        done
    done
    run -c "SET client_min_messages = warning; $sql" >/dev/null
}

fill_factor() {
    printf '\n## Fill factor of heads: 100,000 commits to 10,000 databases\n\n'
    echo '| fill factor | written | old snapshot | HOT | CPU per update | WAL per update | table after, before |'
    echo '|---|---|---|---|---|---|---|'
    for snapshot in no yes; do
        for written in all 'one in 100'; do
            for factor in 50 80 100; do
                schema 0
                every=1
                [ "$written" = all ] || every=100
                run -c "ALTER TABLE m.heads SET (fillfactor = $factor); INSERT INTO m.heads (id) SELECT generate_series(1, 10000)"
                before=$(run -c "VACUUM ANALYZE m.heads" -c "SELECT pg_size_pretty(pg_relation_size('m.heads'))")
                if [ $snapshot = yes ]; then
                    run -c "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM m.heads; SELECT pg_sleep(600)" >/dev/null 2>&1 &
                    reader=$!
                    until [ "$(run -c "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")" = 1 ]; do sleep 0.1; done
                fi
                spent=$(
                    run <<SQL
CREATE OR REPLACE PROCEDURE commits() LANGUAGE plpgsql AS \$\$ DECLARE target bigint; BEGIN
    FOR i IN 1 .. 100000 LOOP
        target := $every * (1 + floor(random() * 10000 / $every));
        UPDATE m.heads SET txid = txid + 1, commit_id = gen_random_uuid(), size = 8192 WHERE id = target AND epoch = 0;
        COMMIT;
    END LOOP;
END \$\$;
SELECT cpu() AS cpu, pg_current_wal_insert_lsn() AS wal \gset
CALL commits();
SELECT round((cpu() - :cpu) / 100, 1) || ' µs | ' || round((pg_current_wal_insert_lsn() - :'wal'::pg_lsn) / 100000) || ' bytes';
SQL
                )
                # The statistics come when the session is over.
                sleep 1
                hot="SELECT round(100.0 * n_tup_hot_upd / n_tup_upd) || ' %' FROM pg_stat_user_tables WHERE relname = 'heads'"
                after="SELECT pg_size_pretty(pg_relation_size('m.heads'))"
                echo "| $factor | $written | $snapshot | $(run -c "$hot") | $spent | $(run -c "$after"), $before |"
                if [ $snapshot = yes ]; then
                    run -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'" >/dev/null
                    wait $reader || true
                fi
            done
        done
    done
}

toast() {
    printf '\n## Page rows in the table, or in TOAST: 20,000 rows of bytes that do not compress\n\n'
    echo '| bytes of a row | storage | CPU per row written | per page of 512 neighbours: CPU, blocks | per page of 512 single ones: CPU, blocks | on disk per row |'
    echo '|---|---|---|---|---|---|'
    for bytes in 1000 1900 2500 4106; do
        for storage in 'in the table' 'TOAST, external' 'TOAST, as Postgres has it'; do
            schema 0
            case $storage in
            'in the table') set="ALTER TABLE m.pages ALTER bytes SET STORAGE EXTERNAL, SET (toast_tuple_target = 8160)" ;;
            'TOAST, external') set="ALTER TABLE m.pages ALTER bytes SET STORAGE EXTERNAL" ;;
            *) set="SELECT" ;;
            esac
            measured=$(
                run <<SQL
$set;
SELECT cpu() AS cpu \gset
INSERT INTO m.pages (database, page, txid, kind, bytes)
    SELECT 1, i, 1, 1, substring(p.bytes FROM 1 + (i * 7919 % 60000)::integer FOR $bytes)
    FROM generate_series(1, 20000) i, (SELECT bytes || ''::bytea AS bytes FROM pool OFFSET 0) p;
SELECT round((cpu() - :cpu) / 20, 1) || ' µs';
VACUUM ANALYZE m.pages;
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
PREPARE near AS SELECT sum(get_byte(bytes, 7)) FROM m.pages WHERE database = 1 AND page BETWEEN \$1 AND \$1 + 511 AND txid <= 1;
PREPARE single AS SELECT sum(get_byte(p.bytes, 7)) FROM generate_series(0, 511) i CROSS JOIN LATERAL (
    SELECT * FROM m.pages q WHERE q.database = 1 AND q.page = 1 + (\$1 + i * 7919) % 20000 AND q.txid <= 1
    ORDER BY q.txid DESC LIMIT 1) p;
CREATE OR REPLACE FUNCTION blocks(query text) RETURNS bigint LANGUAGE plpgsql AS \$\$ DECLARE plan json; BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) ' || query INTO plan;
    RETURN (plan->0->'Plan'->>'Shared Hit Blocks')::bigint + (plan->0->'Plan'->>'Shared Read Blocks')::bigint;
END \$\$;
CREATE OR REPLACE PROCEDURE often(query text) LANGUAGE plpgsql AS \$\$ BEGIN
    FOR i IN 1 .. 200 LOOP EXECUTE 'EXECUTE ' || query || '(' || 1 + i * 97 % 19000 || ')'; END LOOP;
END \$\$;
CALL often('near'); CALL often('single');
SELECT cpu() AS cpu \gset
CALL often('near');
SELECT round((cpu() - :cpu) * 1000 / 200 / 512, 2) || ' µs, ' || round(blocks('EXECUTE near(100)') / 512.0, 1);
SELECT cpu() AS cpu \gset
CALL often('single');
SELECT round((cpu() - :cpu) * 1000 / 200 / 512, 2) || ' µs, ' || round(blocks('EXECUTE single(100)') / 512.0, 1);
SELECT pg_total_relation_size('m.pages') / 20000;
SQL
            )
            echo "| $bytes | $storage | ${measured//$'\n'/ | } |"
        done
    done
}

partitions() {
    printf '\n## Partitions: CPU per call, each a transaction\n\n'
    echo '| partitions | nothing | one page read | head and a tail of 3 records | one record written |'
    echo '|---|---|---|---|---|'
    for partitions in 0 8 64; do
        schema $partitions
        measured=$(
            run <<'SQL'
INSERT INTO m.heads (id, txid) SELECT generate_series(1, 64), 3;
INSERT INTO m.names SELECT id::text, id FROM m.heads;
INSERT INTO m.log SELECT d, t, '\x00' FROM generate_series(1, 64) d, generate_series(1, 3) t;
INSERT INTO m.pages (database, page, txid, kind, bytes)
    SELECT d, p, 1, 1, '\x00' FROM generate_series(1, 64) d, generate_series(1, 500) p;
CREATE FUNCTION m.nothing(d bigint) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
    AS $$ BEGIN END $$;
CREATE FUNCTION m.read_one(d bigint) RETURNS void LANGUAGE plpgsql
    AS $$ BEGIN PERFORM FROM m.read_pages(ARRAY[d], ARRAY[3], ARRAY[7], ARRAY[7], '{}', '{}'); END $$;
CREATE FUNCTION m.head_of(d bigint) RETURNS void LANGUAGE plpgsql
    AS $$ BEGIN PERFORM FROM m.head(d, 0, NULL, 1000); END $$;
CREATE FUNCTION m.append(d bigint) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
    AS $$ BEGIN INSERT INTO m.log VALUES (d, nextval('m.database_ids') + 3, '\x00'); END $$;
ANALYZE;
CREATE OR REPLACE PROCEDURE calls(name text, times integer) LANGUAGE plpgsql AS $$ BEGIN
    FOR i IN 1 .. times LOOP
        CASE name
            WHEN 'nothing' THEN PERFORM m.nothing(1 + i % 64);
            WHEN 'read' THEN PERFORM m.read_one(1 + i % 64);
            WHEN 'head' THEN PERFORM m.head_of(1 + i % 64);
            WHEN 'append' THEN PERFORM m.append(1 + i % 64);
        END CASE;
        COMMIT;
    END LOOP;
END $$;
CALL calls('nothing', 100); CALL calls('read', 100); CALL calls('head', 100); CALL calls('append', 100);
SELECT cpu() AS cpu \gset
CALL calls('nothing', 20000);
SELECT round((cpu() - :cpu) / 20) || ' µs';
SELECT cpu() AS cpu \gset
CALL calls('read', 20000);
SELECT round((cpu() - :cpu) / 20) || ' µs';
SELECT cpu() AS cpu \gset
CALL calls('head', 20000);
SELECT round((cpu() - :cpu) / 20) || ' µs';
SELECT cpu() AS cpu \gset
CALL calls('append', 20000);
SELECT round((cpu() - :cpu) / 20) || ' µs';
SQL
        )
        echo "| $partitions | ${measured//$'\n'/ | } |"
    done
}

# A statement as the program has it (backend-postgres/src/statements.rs).
statement() { # name
    awk -v name="$1" '$1 == name { on = 1 } on { print } on && /"$/ { exit }' backend-postgres/src/statements.rs |
        sed -E 's/^ *[A-Za-z]+ "//; s/ *\\$//; s/"$//' | tr '\n' ' ' |
        sed "s/S\\./m./g; s/FROM W/FROM set_config('client_min_messages', 'warning', true)/"
}

# A statement of pgbench's, so often; afterwards :t is how often. Time, and CPU of the server's process.
often() { # mode, times, statement
    local before after time
    printf '\\set t :t + 1\n%s;\n' "$3" >"$folder/script"
    # The times of a process are its parent's a moment after its end.
    sleep 1
    before=$(awk '{ print $16 + $17 }' "/proc/$server/stat")
    time=$("$pgbench" -h "$folder" -U postgres -n -M "$1" -t "$2" -f "$folder/script" -D t=-1 -D e=1 -D s=8192 \
        -D c=00000000-0000-0000-0000-000000000001 -D "r=\\x$(printf '5a%.0s' {1..200})" postgres | sed -n 's/latency average = //p')
    sleep 1
    after=$(awk '{ print $16 + $17 }' "/proc/$server/stat")
    echo "$time, $(((after - before) * 10000 / $2)) µs"
}

forms() {
    local pgbench times=20000 head=0 form mode text row batch=40 rounds=1500
    pgbench=$(command -v pgbench || find /usr/lib/postgresql -path '*/bin/pgbench' | sort -V | tail -n 1)
    printf '\n## Forms of a commit, one at a time, as a client sends them: time (without a flush), CPU of the server\n\n'
    echo '| | parsed each time | prepared |'
    echo '|---|---|---|'
    schema 0
    run -c "CREATE TABLE bare (id bigserial PRIMARY KEY, body bytea NOT NULL)"
    run -c "ALTER DATABASE postgres SET plan_cache_mode = force_generic_plan" -c "ALTER DATABASE postgres SET enable_seqscan = off"
    for form in Commit CommitOne INSERT; do
        row=''
        for mode in extended prepared; do
            head=$((head + 1))
            run -c "INSERT INTO m.heads (id, epoch, holder) VALUES ($head, 1, gen_random_uuid())"
            case $form in
            Commit) text=$(statement Commit | sed -E 's/\$1\b/ARRAY['$head']::bigint[]/; s/\$2/ARRAY[:e]::bigint[]/
                s/\$3/ARRAY[:t]::bigint[]/; s/\$4/ARRAY[:c]::uuid[]/; s/\$5/ARRAY[:s]::bigint[]/; s/\$6/ARRAY[:r]::bytea[]/
                s/\$7/ARRAY[NULL]::bigint[]/; s/\$8/ARRAY[false]/; s/\$9/false/') ;;
            CommitOne) text=$(statement CommitOne | sed -E 's/\$1\b/'$head'/g; s/\$2/:e/g; s/\$3/:t/g; s/\$4/:c/g
                s/\$5/:s/g; s/\$6/:r/g; s/\$7/NULL/g; s/\$8/false/g') ;;
            *) text='INSERT INTO bare (body) VALUES (:r)' ;;
            esac
            row+=" $(often $mode $times "$text") |"
            [ "$form" = INSERT ] || [ "$(run -c "SELECT txid FROM m.heads WHERE id = $head")" = $times ]
        done
        echo "| ${form/INSERT/a bare INSERT} |$row"
    done

    printf '\n## Forms of a commit, %d at once, prepared: CPU of the server for each\n\n' $batch
    echo '| nothing with the same parameters | Commit | CommitMany |'
    echo '|---|---|---|'
    row=''
    for form in nothing Commit CommitMany; do
        schema 0
        case $form in
        nothing) text='SELECT cardinality($1)' ;;
        *) text=$(statement $form) ;;
        esac
        row+=" $(
            run <<SQL
INSERT INTO m.heads (id, epoch, holder) SELECT i, 1, gen_random_uuid() FROM generate_series(1, $batch) i;
PREPARE form(bigint[], bigint[], bigint[], uuid[], bigint[], bytea[], bigint[], boolean[], boolean) AS $text;
CREATE PROCEDURE m.batches(first integer, rounds integer) LANGUAGE plpgsql AS \$\$ DECLARE
    size integer[] := ARRAY[$batch];
BEGIN
    FOR t IN first .. first + rounds - 1 LOOP
        EXECUTE format('EXECUTE form(%L, %L, %L, %L, %L, %L, %L, %L, false)', ARRAY(SELECT generate_series(1, $batch)),
            array_fill(1, size), array_fill(t, size), array_fill(gen_random_uuid(), size), array_fill(8192, size),
            array_fill(decode(repeat('5a', 200), 'hex'), size), array_fill(NULL::bigint, size), array_fill(false, size));
        COMMIT;
    END LOOP;
END \$\$;
CALL m.batches(0, 100);
SELECT cpu() AS cpu \gset
CALL m.batches(100, $rounds);
SELECT round((cpu() - :cpu) * 1000 / $rounds / $batch, 1) || ' µs';
SQL
        ) |"
        [ $form = nothing ] || [ "$(run -c "SELECT DISTINCT txid FROM m.heads")" = $((rounds + 100)) ]
    done
    echo "|$row"
}

settings() {
    printf '\n## Settings of a function: CPU per call of an empty one\n\n'
    echo '| none | two | five |'
    echo '|---|---|---|'
    echo "| $(
        run <<'SQL' | paste -sd '|' | sed 's/|/ | /g'
CREATE OR REPLACE FUNCTION s0() RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE OR REPLACE FUNCTION s2() RETURNS void LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
    AS $$ BEGIN END $$;
CREATE OR REPLACE FUNCTION s5() RETURNS void LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
    SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$ BEGIN END $$;
CREATE OR REPLACE PROCEDURE empty_calls(name text) LANGUAGE plpgsql AS $$ BEGIN
    FOR i IN 1 .. 100000 LOOP
        CASE name WHEN 's0' THEN PERFORM s0(); WHEN 's2' THEN PERFORM s2(); ELSE PERFORM s5(); END CASE;
    END LOOP;
END $$;
SELECT cpu() AS cpu \gset
CALL empty_calls('s0');
SELECT round((cpu() - :cpu) / 100, 1) || ' µs';
SELECT cpu() AS cpu \gset
CALL empty_calls('s2');
SELECT round((cpu() - :cpu) / 100, 1) || ' µs';
SELECT cpu() AS cpu \gset
CALL empty_calls('s5');
SELECT round((cpu() - :cpu) / 100, 1) || ' µs';
SQL
    ) |"
}

echo "server: $("$bin/postgres" --version)"
if [ "$what" = all ]; then
    fill_factor
    toast
    partitions
    forms
    settings
else
    "$what"
fi
