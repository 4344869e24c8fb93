-- Locks: for those who ask for them. Nothing else looks at them.
--
-- Of a reader and a writer that ask at the same time, each takes one advisory lock first, readers together and the writer alone.
-- So one waits for the other's end; each statement after that has a snapshot of its own (READ COMMITTED), which has what the
-- other did. Whoever locks the head does so before that, and rows of sessions after it. The lock of the head's row would do as well and cost others: FOR UPDATE waits for every piece of a checkpoint, and
-- FOR KEY SHARE writes into the row for each reader, where commits meet it. As it is nobody here waits for a commit,
-- nor a commit for anybody here, but for a reader that asks how an epoch ended.

-- Whether a session is over; then it is so for good, also if the server's clock is set back. A renewal that is under way is
-- waited for, and counts.
CREATE FUNCTION {schema}.session_is_over(session uuid) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF {schema}.session_lives(session) THEN RETURN false; END IF;
    UPDATE {schema}.sessions s SET ended = true
    WHERE s.id = session_is_over.session AND NOT s.ended AND s.expires <= clock_timestamp();
    RETURN NOT {schema}.session_lives(session);
END $$;

-- On a standby, what is not logged cannot even be looked at. This is the error of all that write there: another server is sought.
CREATE FUNCTION {schema}.refuse_standby() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE read_only_sql_transaction USING MESSAGE = 'locks are taken on the primary alone';
    END IF;
    -- A snapshot from before the advisory lock would show nobody.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE invalid_transaction_state USING MESSAGE = 'locks need READ COMMITTED';
    END IF;
END $$;

-- The rows are those of head(), read when the lock is there; refusals are those of open().
CREATE FUNCTION {schema}.lock_shared(
    wanted bigint, session uuid, number bigint, known bigint, epoch bigint, tail_bytes bigint,
    OUT sort smallint, OUT numbers bigint[], OUT commit_id uuid, OUT holder uuid, OUT label text, OUT name text,
    OUT bytes bytea, OUT base_bytes bytea
) RETURNS SETOF record
LANGUAGE plpgsql AS $$
DECLARE
    this record;
BEGIN
    PERFORM {schema}.refuse_standby();
    IF epoch IS NOT NULL THEN PERFORM FROM {schema}.heads h WHERE h.id = wanted FOR NO KEY UPDATE; END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('litefleet.locks.{schema}', wanted));
    -- The exclusive lock of another session: that of the head's own epoch, while somebody holds it.
    SELECT n.name AS called, s.id AS writer, s.label INTO this
    FROM {schema}.heads h JOIN {schema}.names n ON n.database = h.id
        LEFT JOIN {schema}.exclusive_locks e ON e.database = h.id AND e.epoch = h.epoch
        LEFT JOIN {schema}.sessions s ON s.id = h.holder AND s.id <> lock_shared.session AND e.database IS NOT NULL
    WHERE h.id = wanted;
    IF NOT FOUND THEN
        sort := 10;
    ELSIF {schema}.session_is_over(lock_shared.session) THEN
        sort := 11;
    ELSIF this.writer IS NOT NULL
        AND NOT EXISTS (SELECT FROM {schema}.shared_locks l WHERE l.database = wanted AND l.session = lock_shared.session)
        AND NOT {schema}.session_is_over(this.writer)
    THEN
        sort := 12;
        label := this.label;
        name := this.called;
    ELSE
        INSERT INTO {schema}.shared_locks VALUES (wanted, session, number) ON CONFLICT DO NOTHING;
        IF epoch IS NULL THEN
            RETURN QUERY SELECT * FROM {schema}.head(wanted, known, NULL, tail_bytes);
        ELSE
            RETURN QUERY SELECT * FROM {schema}.settled_head(wanted, known, lock_shared.epoch, tail_bytes);
        END IF;
        RETURN;
    END IF;
    RETURN NEXT;
END $$;

-- Outcomes as in 03.
CREATE FUNCTION {schema}.unlock_shared(wanted bigint, session uuid, number bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.refuse_standby();
    DELETE FROM {schema}.shared_locks l
    WHERE l.database = wanted AND l.session = unlock_shared.session AND l.number = unlock_shared.number;
    RETURN ARRAY[CASE WHEN EXISTS (SELECT FROM {schema}.heads h WHERE h.id = wanted) THEN 0 ELSE 2 END];
END $$;

-- Outcomes as in 03, and 18: it is locked, but the session of that label still reads; 19: the holder's own session is over.
CREATE FUNCTION {schema}.lock_exclusive(
    wanted bigint, epoch bigint, OUT numbers bigint[], OUT label text, OUT name text
)
LANGUAGE plpgsql AS $$
DECLARE
    head {schema}.heads;
    outcome integer;
    reader uuid;
BEGIN
    -- A grant waits, or is waited for.
    SELECT * INTO head FROM {schema}.heads h WHERE h.id = wanted FOR KEY SHARE;
    outcome := {schema}.fence(head, lock_exclusive.epoch);
    IF outcome = 0 THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('litefleet.locks.{schema}', wanted));
        IF {schema}.session_is_over(head.holder) THEN outcome := 19; END IF;
    END IF;
    IF outcome = 0 THEN
        INSERT INTO {schema}.exclusive_locks AS e VALUES (wanted, lock_exclusive.epoch)
        ON CONFLICT (database) DO UPDATE SET epoch = excluded.epoch WHERE e.epoch <> excluded.epoch;
        FOR reader IN
            SELECT DISTINCT l.session FROM {schema}.shared_locks l
            WHERE l.database = wanted AND l.session <> head.holder ORDER BY l.session
        LOOP
            IF {schema}.session_is_over(reader) THEN
                DELETE FROM {schema}.shared_locks l WHERE l.database = wanted AND l.session = reader;
            ELSE
                outcome := 18;
                SELECT s.label INTO label FROM {schema}.sessions s WHERE s.id = reader;
                SELECT n.name INTO name FROM {schema}.names n WHERE n.database = wanted;
                EXIT;
            END IF;
        END LOOP;
    END IF;
    numbers := ARRAY[outcome, coalesce(head.epoch, 0), coalesce(head.txid, 0)];
END $$;

-- Outcomes as in 03. The row stays for the next, so that it is changed in its place.
CREATE FUNCTION {schema}.unlock_exclusive(wanted bigint, epoch bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    head {schema}.heads;
    outcome integer;
BEGIN
    SELECT * INTO head FROM {schema}.heads h WHERE h.id = wanted FOR KEY SHARE;
    outcome := {schema}.fence(head, unlock_exclusive.epoch);
    IF outcome = 0 THEN
        UPDATE {schema}.exclusive_locks e SET epoch = 0 WHERE e.database = wanted AND e.epoch <> 0;
    END IF;
    RETURN ARRAY[outcome, coalesce(head.epoch, 0), coalesce(head.txid, 0)];
END $$;
