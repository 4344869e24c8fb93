-- What stands between a request and the head. The answers are numbers, as in src/store/outcome.rs:
-- 0 go on, 2 no such database, 3 another epoch, 4 the lease was released.

CREATE FUNCTION {schema}.fence(head {schema}.heads, epoch bigint) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN head.id IS NULL THEN 2 WHEN head.epoch <> fence.epoch THEN 3 WHEN head.holder IS NULL THEN 4 ELSE 0 END
$$;
