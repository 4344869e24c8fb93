-- Opening, releasing, and the head. The answers are rows of several sorts: 0 the head, 1 a record of the log, 2 a page,
-- 3 the end of an epoch; refusals are 10 no such database, 11 the session is over, 12 somebody holds the lease.

-- As of one moment: a STABLE function has the snapshot of the statement that calls it.
CREATE FUNCTION {schema}.head_and_tail(
    wanted bigint, created boolean, after bigint, from_checkpoint boolean, tail_bytes bigint,
    OUT sort smallint, OUT numbers bigint[], OUT commit_id uuid, OUT holder uuid, OUT label text, OUT name text,
    OUT bytes bytea, OUT base_bytes bytea
) RETURNS SETOF record
LANGUAGE plpgsql STABLE AS $$
DECLARE
    this record;
    tail integer := 0;
BEGIN
    SELECT h.*, s.label AS who, n.name AS called,
        CASE WHEN s.id IS NULL OR s.ended THEN 0
            ELSE greatest(0, extract(epoch FROM s.expires - clock_timestamp()) * 1000000)::bigint END AS remaining
    INTO this
    FROM {schema}.heads h JOIN {schema}.names n ON n.database = h.id LEFT JOIN {schema}.sessions s ON s.id = h.holder
    WHERE h.id = wanted;
    IF NOT FOUND THEN RETURN; END IF;
    after := CASE WHEN from_checkpoint THEN this.checkpoint ELSE after END;
    IF after < this.log_start OR after > this.txid THEN
        tail := 2;
    ELSIF after < this.txid AND (
        SELECT coalesce(sum(octet_length(l.record)), 0) FROM {schema}.log l WHERE l.database = wanted AND l.txid > after
    ) > tail_bytes THEN
        tail := 1;
    END IF;
    sort := 0;
    numbers := ARRAY[
        this.id, created::integer, this.epoch, this.txid, this.size, this.checkpoint, this.horizon, this.generation,
        (this.entry IS NOT NULL)::integer, tail, this.remaining
    ];
    commit_id := this.commit_id;
    holder := this.holder;
    label := coalesce(this.who, '');
    name := this.called;
    RETURN NEXT;
    IF tail = 0 AND after < this.txid THEN
        RETURN QUERY SELECT 1::smallint, ARRAY[l.txid], NULL::uuid, NULL::uuid, NULL, NULL, l.record, NULL::bytea
            FROM {schema}.log l WHERE l.database = wanted AND l.txid > after ORDER BY l.txid;
    END IF;
    IF from_checkpoint THEN
        RETURN QUERY
            SELECT 2::smallint, ARRAY[p.page, p.txid, p.kind, p.base], NULL::uuid, NULL::uuid, NULL, NULL, p.bytes, b.bytes
            FROM {schema}.warm w CROSS JOIN LATERAL unnest(w.pages) u(page)
            CROSS JOIN LATERAL (
                SELECT q.* FROM {schema}.pages q
                WHERE q.database = wanted AND q.page = u.page AND q.txid <= this.checkpoint
                ORDER BY q.txid DESC LIMIT 1
            ) p
            LEFT JOIN {schema}.pages b ON b.database = wanted AND b.page = p.page AND b.txid = p.base
            WHERE w.database = wanted;
    END IF;
END $$;

-- known is the database and txid that the caller has, or null.
CREATE FUNCTION {schema}.open(
    wanted text, may_create boolean, session uuid, force boolean, known bigint, known_txid bigint, tail_bytes bigint,
    OUT sort smallint, OUT numbers bigint[], OUT commit_id uuid, OUT holder uuid, OUT label text, OUT name text,
    OUT bytes bytea, OUT base_bytes bytea
) RETURNS SETOF record
LANGUAGE plpgsql AS $$
DECLARE
    target bigint;
    headless boolean;
    refused record;
    created boolean := false;
BEGIN
    LOOP
        SELECT n.database, h.id IS NULL INTO target, headless
        FROM {schema}.names n LEFT JOIN {schema}.heads h ON h.id = n.database WHERE n.name = wanted;
        IF NOT FOUND THEN
            IF NOT may_create THEN
                sort := 10;
                RETURN NEXT;
                RETURN;
            END IF;
            IF session IS NOT NULL AND NOT {schema}.session_lives(session) THEN
                sort := 11;
                RETURN NEXT;
                RETURN;
            END IF;
            INSERT INTO {schema}.names (name, database) VALUES (wanted, nextval('{schema}.database_ids'))
            ON CONFLICT ON CONSTRAINT names_pkey DO NOTHING RETURNING names.database INTO target;
            -- Somebody else made it, or is about to: look again.
            CONTINUE WHEN NOT FOUND;
            INSERT INTO {schema}.heads (id) VALUES (target);
            created := true;
        ELSIF headless THEN
            -- Both are made and deleted together. To look again would never end.
            RAISE EXCEPTION 'the head of % is missing: the table heads is damaged', wanted USING ERRCODE = 'LF010';
        END IF;
        IF session IS NOT NULL THEN
            SELECT * INTO refused FROM {schema}.grant_lease(wanted, target, session, force);
            CONTINUE WHEN refused.refusal = 1;
            IF refused.refusal > 0 THEN
                IF created THEN
                    -- Its session ended while another's creation was waited for: then nothing is created.
                    DELETE FROM {schema}.names n WHERE n.database = target;
                    DELETE FROM {schema}.heads h WHERE h.id = target;
                END IF;
                sort := refused.refusal;
                label := refused.label;
                numbers := refused.numbers;
                RETURN NEXT;
                RETURN;
            END IF;
        END IF;
        RETURN QUERY SELECT * FROM {schema}.head_and_tail(
            (SELECT n.database FROM {schema}.names n WHERE n.name = wanted AND n.database = target),
            created, known_txid, known IS DISTINCT FROM target, tail_bytes);
        EXIT WHEN FOUND;
        -- Without a lock it may have been deleted or renamed between two of our statements: look again.
    END LOOP;
END $$;


-- The pages that the next open should get along with it, unless there are none.
CREATE FUNCTION {schema}.put_warm(wanted bigint, warm bigint[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO {schema}.warm AS w SELECT wanted, put_warm.warm WHERE cardinality(put_warm.warm) > 0
    ON CONFLICT (database) DO UPDATE SET pages = excluded.pages WHERE w.pages <> excluded.pages
$$;

CREATE FUNCTION {schema}.release(wanted bigint, epoch bigint, warm bigint[]) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    head {schema}.heads;
BEGIN
    UPDATE {schema}.heads h SET holder = NULL WHERE h.id = wanted AND h.epoch = release.epoch AND h.holder IS NOT NULL;
    IF FOUND THEN
        PERFORM {schema}.put_warm(wanted, release.warm);
        RETURN '{0}';
    END IF;
    -- With its lock, which is a write: that it was released is an answer too, and waits for the standby (settled_head).
    SELECT * INTO head FROM {schema}.heads h WHERE h.id = wanted FOR NO KEY UPDATE;
    IF head.epoch = release.epoch THEN RETURN '{0}'; END IF;
    RETURN ARRAY[{schema}.fence(head, release.epoch), coalesce(head.epoch, 0), coalesce(head.txid, 0)];
END $$;

CREATE FUNCTION {schema}.head(
    wanted bigint, known bigint, epoch bigint, tail_bytes bigint,
    OUT sort smallint, OUT numbers bigint[], OUT commit_id uuid, OUT holder uuid, OUT label text, OUT name text,
    OUT bytes bytea, OUT base_bytes bytea
) RETURNS SETOF record
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT * FROM {schema}.head_and_tail(wanted, false, known, false, tail_bytes);
    IF NOT FOUND THEN
        sort := 10;
        RETURN NEXT;
        RETURN;
    END IF;
    IF epoch IS NOT NULL THEN
        RETURN QUERY SELECT 3::smallint, ARRAY[e.epoch, e.txid], e.commit_id, NULL::uuid, NULL, NULL, NULL::bytea, NULL::bytea
            FROM {schema}.epoch_ends e WHERE e.database = wanted AND e.epoch = head.epoch;
    END IF;
END $$;

-- As head(), for whoever finds out by it what became of a commit or a release, and relies on it. A commit that its synchronous
-- standby does not have yet can be seen after a crash of the server, or when its wait was cancelled. The lock is a write:
-- our own end comes after everything that was seen in the log of the server, and waits for the standby.
CREATE FUNCTION {schema}.settled_head(
    wanted bigint, known bigint, epoch bigint, tail_bytes bigint,
    OUT sort smallint, OUT numbers bigint[], OUT commit_id uuid, OUT holder uuid, OUT label text, OUT name text,
    OUT bytes bytea, OUT base_bytes bytea
) RETURNS SETOF record
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM {schema}.heads h WHERE h.id = wanted FOR NO KEY UPDATE;
    RETURN QUERY SELECT * FROM {schema}.head(wanted, known, settled_head.epoch, tail_bytes);
END $$;
