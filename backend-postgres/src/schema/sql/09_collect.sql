-- Garbage. Outcomes as in 03; then the horizon, the start of the log, rows and records deleted.

CREATE FUNCTION {schema}.collect(
    wanted bigint, epoch bigint, at_most bigint, completed_before bigint, firsts bigint[], lasts bigint[], log_through bigint
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    head {schema}.heads;
    outcome integer;
    allowed bigint;
    line bigint;
    through bigint;
    rows bigint := 0;
    zeros bigint := 0;
    records bigint := 0;
BEGIN
    SELECT * INTO head FROM {schema}.heads h WHERE h.id = wanted FOR KEY SHARE;
    outcome := {schema}.fence(head, collect.epoch);
    IF outcome > 0 THEN RETURN ARRAY[outcome, coalesce(head.epoch, 0), coalesce(head.txid, 0)]; END IF;
    SELECT c.txid INTO allowed FROM {schema}.checkpoints c
    WHERE c.database = wanted AND c.txid <= at_most AND c.at <= completed_before ORDER BY c.txid DESC LIMIT 1;
    line := greatest(head.horizon, allowed);
    IF cardinality(firsts) > 0 THEN
        -- Dead: a newer row is at or below the horizon, and no row that is kept is based on it. Those that are kept are that
        -- newest one and all above the horizon.
        DELETE FROM {schema}.pages d
        USING (
            SELECT p.page, p.txid
            FROM unnest(firsts, lasts) r(first, last) CROSS JOIN LATERAL generate_series(r.first, r.last) g(page)
            CROSS JOIN LATERAL (
                SELECT q.page, q.txid FROM {schema}.pages q
                WHERE q.database = wanted AND q.page = g.page AND q.txid <= line ORDER BY q.txid DESC LIMIT 1
            ) p
        ) newest
        WHERE d.database = wanted AND d.page = newest.page AND d.txid < newest.txid
            AND NOT EXISTS (
                SELECT FROM {schema}.pages k
                WHERE k.database = wanted AND k.page = d.page AND k.txid >= newest.txid AND k.base = d.txid
            );
        GET DIAGNOSTICS rows = ROW_COUNT;
        -- Zeros with nothing before them say what a missing row says.
        DELETE FROM {schema}.pages z
        USING unnest(firsts, lasts) r(first, last) CROSS JOIN LATERAL generate_series(r.first, r.last) g(page)
        WHERE z.database = wanted AND z.page = g.page AND z.txid <= line AND z.kind = 0
            AND NOT EXISTS (
                SELECT FROM {schema}.pages o WHERE o.database = wanted AND o.page = z.page AND o.txid < z.txid
            );
        GET DIAGNOSTICS zeros = ROW_COUNT;
    END IF;
    through := greatest(head.log_start, least(log_through, line));
    IF through > head.log_start THEN
        DELETE FROM {schema}.log l WHERE l.database = wanted AND l.txid <= through;
        GET DIAGNOSTICS records = ROW_COUNT;
    END IF;
    IF line > head.horizon OR through > head.log_start THEN
        DELETE FROM {schema}.checkpoints c WHERE c.database = wanted AND c.txid < line;
        -- Last, so that a commit waits no longer than for the end of this transaction.
        UPDATE {schema}.heads h
        SET horizon = greatest(h.horizon, line), log_start = greatest(h.log_start, through) WHERE h.id = wanted;
    END IF;
    RETURN ARRAY[0, line, through, rows + zeros, records];
END $$;

-- Removes what deleted databases left, locks of sessions that are over, and sessions and ends of epochs that are old enough to
-- forget: up to so many rows.
CREATE FUNCTION {schema}.purge(most bigint, OUT removed bigint, OUT done boolean)
LANGUAGE plpgsql AS $$
DECLARE
    target bigint;
    gone bigint;
    -- What a database may have many rows of: the table, and its key within the database.
    parts text[] := ARRAY[
        ['pages', 'page, txid'], ['log', 'txid'], ['epoch_ends', 'epoch'], ['staged', 'generation, sequence'],
        ['checkpoints', 'txid'], ['shared_locks', 'session, number']
    ];
    part text[];
BEGIN
    removed := 0;
    done := false;
    LOOP
        -- Two purges at once do not wait for each other.
        SELECT c.database INTO target FROM {schema}.condemned c ORDER BY c.database LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        FOREACH part SLICE 1 IN ARRAY parts LOOP
            EXECUTE format(
                'DELETE FROM {schema}.%1$I d WHERE d.database = $1 AND (%2$s) IN (
                    SELECT %2$s FROM {schema}.%1$I e WHERE e.database = $1 ORDER BY %2$s LIMIT $2)', part[1], part[2])
            USING target, most - removed;
            GET DIAGNOSTICS gone = ROW_COUNT;
            removed := removed + gone;
            IF removed >= most THEN RETURN; END IF;
        END LOOP;
        DELETE FROM {schema}.warm w WHERE w.database = target;
        DELETE FROM {schema}.pieces p WHERE p.database = target;
        DELETE FROM {schema}.exclusive_locks e WHERE e.database = target;
        DELETE FROM {schema}.condemned c WHERE c.database = target;
    END LOOP;
    DELETE FROM {schema}.epoch_ends e WHERE (e.database, e.epoch) IN (
        SELECT f.database, f.epoch FROM {schema}.epoch_ends f WHERE f.at < clock_timestamp() - interval '25 hours'
        ORDER BY f.at LIMIT most - removed FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;
    IF removed >= most THEN RETURN; END IF;
    -- Locks of sessions that are over, found session by session: those that live may have many. One that has just expired may
    -- have a renewal under way, which counts.
    WITH RECURSIVE lockers (session) AS (
        (SELECT l.session FROM {schema}.shared_locks l ORDER BY l.session LIMIT 1)
        UNION ALL
        SELECT (SELECT l.session FROM {schema}.shared_locks l WHERE l.session > o.session ORDER BY l.session LIMIT 1)
        FROM lockers o WHERE o.session IS NOT NULL
    ), gone AS (
        SELECT o.session FROM lockers o LEFT JOIN {schema}.sessions s ON s.id = o.session
        WHERE o.session IS NOT NULL AND (s.id IS NULL OR s.ended OR s.expires < clock_timestamp() - interval '1 hour')
    )
    DELETE FROM {schema}.shared_locks l WHERE (l.database, l.session, l.number) IN (
        SELECT k.database, k.session, k.number FROM gone g JOIN {schema}.shared_locks k ON k.session = g.session
        LIMIT most - removed FOR UPDATE OF k SKIP LOCKED);
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;
    IF removed >= most THEN RETURN; END IF;
    DELETE FROM {schema}.sessions s WHERE s.id IN (
        SELECT t.id FROM {schema}.sessions t WHERE t.expires < clock_timestamp() - interval '25 hours'
        LIMIT most - removed FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;
    -- Another purge may have what is left in its hands: then the caller comes again, and not at once.
    done := removed < most AND NOT EXISTS (SELECT FROM {schema}.condemned);
    IF removed = 0 AND NOT done THEN PERFORM pg_sleep(0.1); END IF;
END $$;
