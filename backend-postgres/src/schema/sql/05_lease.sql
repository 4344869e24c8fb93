-- Leases.

CREATE FUNCTION {schema}.session_lives(session uuid) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT EXISTS (SELECT FROM {schema}.sessions s WHERE s.id = $1 AND NOT s.ended AND s.expires > clock_timestamp())
$$;

-- Gives a session the lease of a database: raises the epoch. 0 when that was done, 1 when the name does not mean that
-- database any more, 11 when the session is over, 12 with the holder's label and microseconds when somebody holds it.
--
-- The head is locked FOR UPDATE, which waits for every write that has seen the old epoch (they hold it FOR KEY SHARE or
-- more) and makes every later one see the new. The holder's session is locked too: a renewal that is under way counts,
-- and one that comes later finds the session ended. So a holder that was renewed in time is never taken for dead.
CREATE FUNCTION {schema}.grant_lease(
    called text, wanted bigint, session uuid, force boolean, OUT refusal smallint, OUT label text, OUT numbers bigint[]
)
LANGUAGE plpgsql AS $$
DECLARE
    head {schema}.heads;
    held {schema}.sessions;
BEGIN
    refusal := 0;
    IF NOT {schema}.session_lives(session) THEN
        refusal := 11;
        RETURN;
    END IF;
    IF NOT force THEN
        -- Whoever waits for a lease asks often: a refusal takes no lock and writes nothing.
        SELECT s.* INTO held FROM {schema}.heads h JOIN {schema}.sessions s ON s.id = h.holder
        WHERE h.id = wanted AND h.holder <> session AND NOT s.ended AND s.expires > clock_timestamp();
        IF FOUND THEN
            refusal := 12;
        END IF;
    END IF;
    IF refusal = 0 THEN
        SELECT * INTO head FROM {schema}.heads h WHERE h.id = wanted FOR UPDATE;
        IF NOT FOUND OR NOT EXISTS (SELECT FROM {schema}.names n WHERE n.name = called AND n.database = wanted) THEN
            refusal := 1;
            RETURN;
        END IF;
        IF head.holder <> session THEN
            SELECT * INTO held FROM {schema}.sessions s WHERE s.id = head.holder FOR NO KEY UPDATE;
            IF NOT force AND NOT held.ended AND held.expires > clock_timestamp() THEN
                refusal := 12;
            END IF;
        END IF;
        -- Locks were waited for, and the session may be over by now: its process would rely on a lease that anybody may take.
        IF refusal = 0 AND NOT {schema}.session_lives(session) THEN
            refusal := 11;
            RETURN;
        END IF;
        IF refusal = 0 AND NOT held.ended THEN
            -- Over for good, also if the server's clock is set back; and one whose lease was taken by force learns it.
            UPDATE {schema}.sessions s SET ended = true WHERE s.id = head.holder;
        END IF;
    END IF;
    IF refusal = 12 THEN
        label := held.label;
        numbers := ARRAY[greatest(0, extract(epoch FROM held.expires - clock_timestamp()) * 1000000)::bigint];
        RETURN;
    END IF;
    INSERT INTO {schema}.epoch_ends VALUES (wanted, head.epoch, head.txid, head.commit_id, clock_timestamp());
    UPDATE {schema}.heads h SET epoch = h.epoch + 1, holder = session WHERE h.id = wanted;
END $$;
