-- Plans. They are made once per connection, for any arguments, and by the indexes whatever the tables' statistics say: a
-- plan that was made when a table was small would otherwise read all of it when it has grown. Settings cost a call one or
-- two µs (docs/decisions/0009), so the hottest function has the fewest.

ALTER FUNCTION {schema}.commit SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION {schema}.commit SET enable_seqscan = off;
-- Twice that is less than clients wait for an answer (src/pool.rs, LOCK_TIMEOUT): a head that somebody has locked must not keep
-- the others of the call in doubt, and locked by a transaction that nobody waits for any more.
ALTER FUNCTION {schema}.commit SET lock_timeout = '1200ms';

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['open', 'release', 'head', 'settled_head', 'read_pages', 'read_log', 'scan', 'stage',
        'discard', 'checkpoint', 'collect', 'purge', 'list', 'rename', 'delete', 'start_session', 'renew_session', 'end_session',
        'lock_shared', 'unlock_shared', 'lock_exclusive', 'unlock_exclusive']
    LOOP
        EXECUTE format('ALTER FUNCTION {schema}.%I SET plan_cache_mode = force_generic_plan', name);
        EXECUTE format('ALTER FUNCTION {schema}.%I SET enable_seqscan = off', name);
        EXECUTE format('ALTER FUNCTION {schema}.%I SET jit = off', name);
    END LOOP;
    -- Joins with a list of pages are made page by page: never by reading all pages of a database.
    FOREACH name IN ARRAY ARRAY['read_pages', 'open', 'collect', 'purge'] LOOP
        EXECUTE format('ALTER FUNCTION {schema}.%I SET enable_hashjoin = off', name);
        EXECUTE format('ALTER FUNCTION {schema}.%I SET enable_mergejoin = off', name);
    END LOOP;
END $$;
