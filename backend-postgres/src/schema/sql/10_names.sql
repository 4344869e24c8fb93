-- Names.

-- A name without a head is listed too: it is damaged, and whoever looks after the fleet must see it. The range has an upper end
-- always: with "or there is none" in the condition no index would know where to stop.
CREATE FUNCTION {schema}.list(
    prefix text, below text, after text, most bigint,
    OUT name text, OUT database bigint, OUT numbers bigint[], OUT commit_id uuid, OUT holder uuid, OUT label text
) RETURNS SETOF record
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
        SELECT n.name, n.database,
            ARRAY[
                h.epoch, h.txid, h.size, h.checkpoint, h.horizon, h.generation, (h.entry IS NOT NULL)::integer,
                CASE WHEN s.id IS NULL OR s.ended THEN 0
                    ELSE greatest(0, extract(epoch FROM s.expires - clock_timestamp()) * 1000000)::bigint END
            ],
            h.commit_id, h.holder, coalesce(s.label, '')
        FROM {schema}.names n LEFT JOIN {schema}.heads h ON h.id = n.database
            LEFT JOIN {schema}.sessions s ON s.id = h.holder
        WHERE n.name >= prefix AND n.name > after AND n.name < below
        ORDER BY n.name LIMIT most;
END $$;

-- Outcomes as in 03, and 10: another database has the name.
CREATE FUNCTION {schema}.rename(wanted bigint, epoch bigint, name text) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    head {schema}.heads;
    outcome integer;
BEGIN
    SELECT * INTO head FROM {schema}.heads h WHERE h.id = wanted FOR NO KEY UPDATE;
    IF head.id IS NOT NULL AND EXISTS (SELECT FROM {schema}.names n WHERE n.database = wanted AND n.name = rename.name) THEN
        -- It was done by a try whose answer was lost, whoever has the lease now.
        RETURN ARRAY[0, head.epoch, head.txid];
    END IF;
    outcome := {schema}.fence(head, rename.epoch);
    IF outcome = 0 THEN
        BEGIN
            UPDATE {schema}.names n SET name = rename.name WHERE n.database = wanted;
        EXCEPTION WHEN unique_violation THEN
            outcome := 10;
        END;
    END IF;
    RETURN ARRAY[outcome, coalesce(head.epoch, 0), coalesce(head.txid, 0)];
END $$;

CREATE FUNCTION {schema}.delete(wanted bigint, epoch bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    head {schema}.heads;
    outcome integer;
BEGIN
    SELECT * INTO head FROM {schema}.heads h WHERE h.id = wanted FOR UPDATE;
    outcome := {schema}.fence(head, delete.epoch);
    -- A head that cannot be read has no epoch that anybody could know.
    IF least(head.epoch, head.txid, head.size, head.checkpoint, head.horizon, head.generation) < 0 THEN outcome := 0; END IF;
    IF head.id IS NULL THEN
        -- A name without a head is damage, and this its only mend.
        DELETE FROM {schema}.names n WHERE n.database = wanted;
        IF FOUND THEN
            INSERT INTO {schema}.condemned VALUES (wanted) ON CONFLICT DO NOTHING;
            outcome := 0;
        ELSE
            -- For whoever asks again, this says that it is deleted. That rests on what was seen, which its synchronous standby
            -- may not have yet: so there is something to write, which comes later in the server's log, and waits for the standby.
            PERFORM pg_logical_emit_message(true, 'litefleet', '');
        END IF;
    ELSIF outcome = 0 THEN
        INSERT INTO {schema}.condemned VALUES (wanted);
        DELETE FROM {schema}.names n WHERE n.database = wanted;
        DELETE FROM {schema}.heads h WHERE h.id = wanted;
    END IF;
    RETURN ARRAY[outcome, greatest(head.epoch, 0), greatest(head.txid, 0)];
END $$;
