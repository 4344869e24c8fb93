-- Staging and checkpoints. The answers are an outcome, the head's epoch and its txid: 0 done, 2 no such database, 3 another
-- epoch, 4 released, 5 another txid, 8 another generation, 9 not between the newest checkpoint and the head, 14 the checkpoint
-- that it rests on is gone, 15 pieces that came before it are, 16 a later attempt has begun; to stage,
-- also 1: this request or a later one was applied before, and 13: one that was acknowledged is gone.

CREATE FUNCTION {schema}.put_rows(
    wanted bigint, at bigint, numbers bigint[], kinds smallint[], bases bigint[], contents bytea[]
) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO {schema}.pages AS p (database, page, txid, kind, base, bytes)
    SELECT wanted, r.page, at, r.kind, r.base, r.bytes
    FROM unnest(numbers, kinds, bases, contents) r(page, kind, base, bytes)
    ON CONFLICT (database, page, txid) DO UPDATE SET kind = excluded.kind, base = excluded.base, bytes = excluded.bytes
$$;

CREATE FUNCTION {schema}.stage(
    wanted bigint, epoch bigint, expected bigint, generation bigint, sequence bigint, after bigint,
    numbers bigint[], kinds smallint[], contents bytea[]
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    head {schema}.heads;
    outcome integer;
BEGIN
    -- NO KEY UPDATE: waits for a grant, and a grant for us.
    SELECT * INTO head FROM {schema}.heads h WHERE h.id = wanted FOR NO KEY UPDATE;
    outcome := {schema}.fence(head, stage.epoch);
    IF outcome = 0 THEN
        outcome := CASE
            WHEN head.txid <> expected THEN 5
            WHEN head.generation <> stage.generation OR head.entry < head.generation THEN 8
            WHEN head.entry IS NOT NULL AND stage.sequence <= head.sequence THEN 1
            WHEN stage.after > CASE WHEN head.entry IS NULL THEN 0 ELSE head.sequence END THEN 13
            ELSE 0 END;
    END IF;
    IF outcome = 0 THEN
        UPDATE {schema}.heads h SET entry = stage.generation, sequence = stage.sequence WHERE h.id = wanted;
        INSERT INTO {schema}.staged VALUES (wanted, stage.generation, stage.sequence, numbers);
        PERFORM {schema}.put_rows(wanted, expected + 1, numbers, kinds, NULL, contents);
    END IF;
    RETURN ARRAY[outcome, coalesce(head.epoch, 0), coalesce(head.txid, 0)];
END $$;

-- Deletes up to so many of the staged rows. The answer's second number is 1 when nothing is left.
CREATE FUNCTION {schema}.discard(wanted bigint, epoch bigint, expected bigint, generation bigint, most bigint)
RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    head {schema}.heads;
    outcome integer;
    chunk {schema}.staged;
    room bigint := greatest(most, 1);
    piece bigint[];
BEGIN
    SELECT * INTO head FROM {schema}.heads h WHERE h.id = wanted FOR NO KEY UPDATE;
    outcome := {schema}.fence(head, discard.epoch);
    IF outcome = 0 AND head.txid <> expected THEN outcome := 5; END IF;
    IF outcome = 0 AND head.generation <> discard.generation
        AND NOT (head.generation - 1 = discard.generation AND (head.entry IS NULL OR head.entry < head.generation))
    THEN
        outcome := 8;
    END IF;
    IF outcome > 0 THEN RETURN ARRAY[outcome, coalesce(head.epoch, 0), coalesce(head.txid, 0)]; END IF;
    WHILE head.entry IS NOT NULL AND room > 0 LOOP
        SELECT * INTO chunk FROM {schema}.staged s
        WHERE s.database = wanted AND s.generation = head.entry ORDER BY s.sequence LIMIT 1;
        IF NOT FOUND THEN
            head.entry := NULL;
            EXIT;
        END IF;
        piece := chunk.pages[1 : room];
        DELETE FROM {schema}.pages p WHERE p.database = wanted AND p.page = ANY (piece) AND p.txid = expected + 1;
        room := room - cardinality(piece);
        IF cardinality(piece) = cardinality(chunk.pages) THEN
            DELETE FROM {schema}.staged s
            WHERE s.database = wanted AND s.generation = chunk.generation AND s.sequence = chunk.sequence;
        ELSE
            UPDATE {schema}.staged s SET pages = chunk.pages[cardinality(piece) + 1 :]
            WHERE s.database = wanted AND s.generation = chunk.generation AND s.sequence = chunk.sequence;
        END IF;
    END LOOP;
    IF head.entry IS NOT NULL AND NOT EXISTS (
        SELECT FROM {schema}.staged s WHERE s.database = wanted AND s.generation = head.entry
    ) THEN
        head.entry := NULL;
    END IF;
    UPDATE {schema}.heads h SET generation = discard.generation + 1, entry = head.entry WHERE h.id = wanted;
    RETURN ARRAY[0, (head.entry IS NULL)::integer, head.txid];
END $$;

CREATE FUNCTION {schema}.checkpoint(
    wanted bigint, epoch bigint, at bigint, since bigint, attempt bigint, piece bigint, is_last boolean, completed bigint,
    numbers bigint[], kinds smallint[], bases bigint[], contents bytea[], warm bigint[]
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    head {schema}.heads;
    before {schema}.pieces;
    outcome integer;
    newest bigint;
BEGIN
    IF cardinality(numbers) = 0 AND NOT is_last THEN
        -- An attempt begins after one that failed: waits for what that one still has under way, so that all of it comes
        -- before this, or sees it and is refused.
        SELECT * INTO head FROM {schema}.heads h WHERE h.id = wanted FOR UPDATE;
    ELSE
        -- KEY SHARE lets commits pass, and makes a grant wait.
        SELECT * INTO head FROM {schema}.heads h WHERE h.id = wanted FOR KEY SHARE;
    END IF;
    outcome := {schema}.fence(head, checkpoint.epoch);
    IF outcome = 0 AND (at < head.checkpoint OR at > head.txid) THEN outcome := 9; END IF;
    IF outcome = 0 AND since > head.checkpoint THEN outcome := 14; END IF;
    IF outcome = 0 THEN
        SELECT * INTO before FROM {schema}.pieces p WHERE p.database = wanted AND p.epoch = checkpoint.epoch;
        outcome := CASE
            WHEN before.attempt > checkpoint.attempt THEN 16
            WHEN piece = 0 OR at = head.checkpoint THEN 0
            WHEN before.attempt = checkpoint.attempt AND before.txid = at AND before.count >= piece THEN 0
            ELSE 15 END;
    END IF;
    IF outcome > 0 THEN
        RETURN ARRAY[outcome, coalesce(head.epoch, 0), coalesce(head.txid, 0), coalesce(head.checkpoint, 0)];
    END IF;
    IF cardinality(numbers) > 0 THEN
        PERFORM {schema}.put_rows(wanted, at, numbers, kinds, bases, contents);
    END IF;
    IF NOT is_last AND at > head.checkpoint THEN
        INSERT INTO {schema}.pieces AS p VALUES (wanted, checkpoint.epoch, checkpoint.attempt, at, piece + 1)
        ON CONFLICT (database) DO UPDATE SET
            epoch = excluded.epoch, attempt = excluded.attempt, txid = excluded.txid,
            -- One that comes again does not take back those after it.
            count = CASE
                WHEN (p.epoch, p.attempt, p.txid) = (excluded.epoch, excluded.attempt, excluded.txid)
                THEN greatest(p.count, excluded.count) ELSE excluded.count END;
    END IF;
    -- What transactions that were committed had listed: some at a time, so that after any of them this ends in time.
    DELETE FROM {schema}.staged s WHERE s.database = wanted AND (s.generation, s.sequence) IN (
        SELECT t.generation, t.sequence FROM {schema}.staged t
        WHERE t.database = wanted AND t.generation < head.generation AND t.generation IS DISTINCT FROM head.entry
        ORDER BY t.generation, t.sequence LIMIT 1024);
    IF is_last THEN
        INSERT INTO {schema}.checkpoints VALUES (wanted, at, completed) ON CONFLICT DO NOTHING;
        PERFORM {schema}.put_warm(wanted, checkpoint.warm);
    END IF;
    -- Our caller may have given up long ago, and others have gone on: what these rows replace, or were replaced by, may be
    -- collected by now. So the newest checkpoint is looked at again, in a statement with a snapshot of its own; and none is
    -- completed from here until our end, after which a collection sees our rows. Not by the head's lock: commits pass.
    IF is_last THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('litefleet.checkpoint.{schema}', wanted));
    ELSE
        PERFORM pg_advisory_xact_lock_shared(hashtextextended('litefleet.checkpoint.{schema}', wanted));
    END IF;
    SELECT h.checkpoint INTO newest FROM {schema}.heads h WHERE h.id = wanted;
    IF newest > at THEN
        RAISE EXCEPTION USING ERRCODE = 'serialization_failure',
            MESSAGE = format('checkpoint %s came late: %s was completed meanwhile', at, newest);
    END IF;
    IF is_last THEN
        -- Last, so that a commit waits no longer than for the end of this transaction.
        UPDATE {schema}.heads h SET checkpoint = greatest(h.checkpoint, at) WHERE h.id = wanted;
    END IF;
    RETURN ARRAY[0, head.epoch, head.txid, head.checkpoint];
END $$;
