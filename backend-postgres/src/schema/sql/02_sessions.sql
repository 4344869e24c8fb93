-- Sessions. A session lives while it has not ended and its time has not come, by this server's clock: clock_timestamp(),
-- since now() stands still within a transaction, also while it waits for a lock.

CREATE FUNCTION {schema}.start_session(session uuid, label text, micros bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    span interval := micros * interval '1 microsecond';
BEGIN
    INSERT INTO {schema}.sessions AS s
    VALUES (session, start_session.label, span, clock_timestamp() + span)
    ON CONFLICT (id) DO UPDATE
        SET label = excluded.label, lifetime = excluded.lifetime, expires = clock_timestamp() + excluded.lifetime
        WHERE NOT s.ended AND s.expires > clock_timestamp();
    RETURN FOUND;
END $$;

CREATE FUNCTION {schema}.renew_session(session uuid) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {schema}.sessions s SET expires = clock_timestamp() + s.lifetime
    WHERE s.id = renew_session.session AND NOT s.ended AND s.expires > clock_timestamp();
    RETURN FOUND;
END $$;

CREATE FUNCTION {schema}.end_session(session uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {schema}.sessions s SET ended = true WHERE s.id = end_session.session AND NOT s.ended;
END $$;
