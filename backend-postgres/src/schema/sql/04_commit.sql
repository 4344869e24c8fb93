-- Commits. One statement, one transaction, whatever the number of databases; the caller gives them in order of their ids,
-- and so heads are locked in that order.
--
-- The answer has three numbers for each request: 0 applied, 1 it was applied before, 2 no such database, 3 another
-- epoch, 4 released, 5 another txid, 17 another commit at that txid, 6 another staging entry, 7 its staging entry is gone,
-- 13 a part of it is; then the head's epoch and txid.

CREATE FUNCTION {schema}.judge_commit(
    head {schema}.heads, epoch bigint, expected bigint, followed uuid, commit_id uuid, staged bigint, last bigint
) RETURNS integer
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF head.id IS NULL THEN RETURN 2; END IF;
    IF head.epoch = epoch AND head.txid - 1 = expected AND head.commit_id = judge_commit.commit_id THEN RETURN 1; END IF;
    IF head.epoch <> epoch THEN RETURN 3; END IF;
    IF head.holder IS NULL THEN RETURN 4; END IF;
    IF head.txid <> expected THEN RETURN 5; END IF;
    IF head.commit_id <> followed THEN RETURN 17; END IF;
    IF head.entry IS NULL THEN RETURN CASE WHEN staged IS NULL THEN 0 ELSE 7 END; END IF;
    IF staged IS NULL OR head.entry <> head.generation OR staged <> head.generation THEN RETURN 6; END IF;
    RETURN CASE WHEN head.sequence = last THEN 0 ELSE 13 END;
END $$;

CREATE FUNCTION {schema}.commit(
    databases bigint[], epochs bigint[], expecteds bigint[], followeds uuid[], commit_ids uuid[], sizes bigint[],
    records bytea[], stageds bigint[], lasts bigint[], releases boolean[], atomic boolean
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    head {schema}.heads;
    outcome integer;
    answer bigint[] := '{}';
    refused boolean := false;
    count integer := cardinality(databases);
BEGIN
    IF atomic THEN
        FOR i IN 1 .. count LOOP
            SELECT * INTO head FROM {schema}.heads h WHERE h.id = databases[i] FOR NO KEY UPDATE;
            outcome := {schema}.judge_commit(head, epochs[i], expecteds[i], followeds[i], commit_ids[i], stageds[i], lasts[i]);
            refused := refused OR outcome > 1;
            answer := answer || ARRAY[outcome, coalesce(head.epoch, 0), coalesce(head.txid, 0)];
        END LOOP;
        IF refused THEN RETURN answer; END IF;
        answer := '{}';
    END IF;
    FOR i IN 1 .. count LOOP
        LOOP
            UPDATE {schema}.heads h SET
                txid = h.txid + 1, commit_id = commit_ids[i], size = sizes[i],
                holder = CASE WHEN releases[i] THEN NULL ELSE h.holder END,
                generation = CASE WHEN h.entry IS NULL THEN h.generation ELSE h.generation + 1 END, entry = NULL
            WHERE h.id = databases[i] AND h.epoch = epochs[i] AND h.txid = expecteds[i] AND h.commit_id = followeds[i]
                AND h.holder IS NOT NULL AND CASE WHEN h.entry IS NULL THEN stageds[i] IS NULL
                    ELSE h.entry = h.generation AND stageds[i] = h.generation AND lasts[i] = h.sequence END;
            IF FOUND THEN
                INSERT INTO {schema}.log VALUES (databases[i], expecteds[i] + 1, records[i]);
                answer := answer || ARRAY[0::bigint, epochs[i], expecteds[i] + 1];
                EXIT;
            END IF;
            -- The head's own words, and with its lock: else it might have become what was asked for meanwhile.
            SELECT * INTO head FROM {schema}.heads h WHERE h.id = databases[i] FOR NO KEY UPDATE;
            outcome := {schema}.judge_commit(head, epochs[i], expecteds[i], followeds[i], commit_ids[i], stageds[i], lasts[i]);
            CONTINUE WHEN outcome = 0;
            answer := answer || ARRAY[outcome, coalesce(head.epoch, 0), coalesce(head.txid, 0)];
            EXIT;
        END LOOP;
    END LOOP;
    RETURN answer;
END $$;
