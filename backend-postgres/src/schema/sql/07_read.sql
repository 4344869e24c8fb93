-- Reading. Each is one statement with one snapshot, and so is the check of the horizon: a row that was collected meanwhile
-- never looks like a hole. Refusals are errors of our own: LF002 no such database, LF009 the snapshot is too old.

-- Returns the largest horizon, and of the first database the newest checkpoint and the head's txid.
CREATE FUNCTION {schema}.check_lineage(databases bigint[], ats bigint[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    horizon bigint;
    checkpoint bigint;
    head bigint;
    answer bigint[] := '{0, 0, 0}';
BEGIN
    FOR i IN 1 .. cardinality(databases) LOOP
        SELECT h.horizon, h.checkpoint, h.txid INTO horizon, checkpoint, head
        FROM {schema}.heads h WHERE h.id = databases[i];
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'LF002', MESSAGE = format('there is no database with id %s', databases[i]);
        END IF;
        IF ats[i] < horizon THEN
            RAISE EXCEPTION USING ERRCODE = 'LF009',
                MESSAGE = format('snapshot %s is below the horizon %s', ats[i], horizon);
        END IF;
        IF i = 1 THEN answer := ARRAY[0, checkpoint, head]; END IF;
        answer[1] := greatest(answer[1], horizon);
    END LOOP;
    RETURN answer;
END $$;

-- The newest row at or below ats for each page of the ranges, and the row it is based on. Of the ranges that are walked
-- (only with a single database) all rows at or below ats, which costs half as much per page as long as there are not many
-- to a page: eight per page at the most, and whoever gets so many asks again without walking. A row without a page says
-- the horizon, as its txid: a page without a row is zeros as of that; the newest checkpoint, as its base; and the head's txid,
-- as its database.
CREATE FUNCTION {schema}.read_pages(
    databases bigint[], ats bigint[], firsts bigint[], lasts bigint[], walked_firsts bigint[], walked_lasts bigint[],
    OUT database bigint, OUT page bigint, OUT txid bigint, OUT kind smallint, OUT base bigint, OUT bytes bytea,
    OUT base_bytes bytea
) RETURNS SETOF record
LANGUAGE plpgsql STABLE AS $$
DECLARE
    reached bigint[] := {schema}.check_lineage(databases, ats);
BEGIN
    txid := reached[1];
    base := reached[2];
    database := reached[3];
    RETURN NEXT;
    IF cardinality(walked_firsts) > 0 THEN
        RETURN QUERY
            SELECT databases[1], p.page, p.txid, p.kind, p.base, p.bytes, NULL::bytea
            FROM unnest(walked_firsts, walked_lasts) r(first, last)
            CROSS JOIN LATERAL (
                SELECT q.* FROM {schema}.pages q
                WHERE q.database = databases[1] AND q.page BETWEEN r.first AND r.last AND q.txid <= ats[1]
                LIMIT 8 * (r.last - r.first + 1)
            ) p;
    END IF;
    IF cardinality(firsts) = 0 THEN
        RETURN;
    END IF;
    IF cardinality(databases) = 1 THEN
        RETURN QUERY
            SELECT databases[1], p.page, p.txid, p.kind, p.base, p.bytes, b.bytes
            FROM unnest(firsts, lasts) r(first, last) CROSS JOIN LATERAL generate_series(r.first, r.last) g(page)
            CROSS JOIN LATERAL (
                SELECT q.* FROM {schema}.pages q
                WHERE q.database = databases[1] AND q.page = g.page AND q.txid <= ats[1]
                ORDER BY q.txid DESC LIMIT 1
            ) p
            LEFT JOIN {schema}.pages b ON b.database = databases[1] AND b.page = p.page AND b.txid = p.base;
        RETURN;
    END IF;
    RETURN QUERY
        SELECT p.database, p.page, p.txid, p.kind, p.base, p.bytes, b.bytes
        FROM unnest(firsts, lasts) r(first, last) CROSS JOIN LATERAL generate_series(r.first, r.last) g(page)
        CROSS JOIN LATERAL (
            SELECT q.*
            FROM unnest(databases, ats) WITH ORDINALITY l(database, at, place)
            CROSS JOIN LATERAL (
                SELECT o.* FROM {schema}.pages o
                WHERE o.database = l.database AND o.page = g.page AND o.txid <= l.at
                ORDER BY o.txid DESC LIMIT 1
            ) q
            ORDER BY l.place LIMIT 1
        ) p
        LEFT JOIN {schema}.pages b ON b.database = p.database AND b.page = p.page AND b.txid = p.base;
END $$;

CREATE FUNCTION {schema}.scan(
    wanted bigint, after_page bigint, after_txid bigint, most bigint,
    OUT page bigint, OUT txid bigint, OUT kind smallint, OUT base bigint, OUT bytes bytea
) RETURNS SETOF record
LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM {schema}.check_lineage(ARRAY[wanted], ARRAY[9223372036854775807]);
    RETURN QUERY
        SELECT p.page, p.txid, p.kind, p.base, p.bytes FROM {schema}.pages p
        WHERE p.database = wanted AND (p.page, p.txid) > (after_page, after_txid)
        ORDER BY p.page, p.txid LIMIT most;
END $$;

-- Records after one txid up to another, oldest first, until there are enough bytes; at least one. Ancestors come last in the
-- lineage and hold the older records.
CREATE FUNCTION {schema}.read_log(
    databases bigint[], ats bigint[], after bigint, upto bigint, enough bigint, OUT txid bigint, OUT record bytea
) RETURNS SETOF record
LANGUAGE plpgsql STABLE AS $$
DECLARE
    head {schema}.heads;
    first bigint;
    last bigint;
    total bigint := 0;
    this record;
BEGIN
    FOR i IN REVERSE cardinality(databases) .. 1 LOOP
        SELECT * INTO head FROM {schema}.heads h WHERE h.id = databases[i];
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'LF002', MESSAGE = format('there is no database with id %s', databases[i]);
        END IF;
        last := least(upto, ats[i], head.txid);
        first := greatest(after, ats[i + 1]);
        CONTINUE WHEN first >= last;
        IF first < head.log_start THEN
            RAISE EXCEPTION USING ERRCODE = 'LF009',
                MESSAGE = format('records after %s were asked for, those up to %s are gone', first, head.log_start);
        END IF;
        FOR this IN
            SELECT l.txid, l.record FROM {schema}.log l
            WHERE l.database = databases[i] AND l.txid > first AND l.txid <= last ORDER BY l.txid
        LOOP
            IF total > 0 AND total + octet_length(this.record) > enough THEN RETURN; END IF;
            -- An empty record counts too, or a log of them would never be enough.
            total := total + greatest(1, octet_length(this.record));
            txid := this.txid;
            record := this.record;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $$;
