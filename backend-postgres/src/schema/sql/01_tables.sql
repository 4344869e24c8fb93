-- What is stored. {schema} stands for the schema's name, {partition} for the clause of page_partitions.

CREATE TABLE {schema}.version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version integer NOT NULL,
    partitions integer NOT NULL
);

-- One row per database: what is true of it. Nothing but the id is indexed, so that an update stays on its page (HOT);
-- the free half of each page is what the next versions go to.
CREATE TABLE {schema}.heads (
    id bigint PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    holder uuid,
    txid bigint NOT NULL DEFAULT 0,
    commit_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    size bigint NOT NULL DEFAULT 0,
    checkpoint bigint NOT NULL DEFAULT 0,
    horizon bigint NOT NULL DEFAULT 0,
    -- All records after it are in the log.
    log_start bigint NOT NULL DEFAULT 0,
    generation bigint NOT NULL DEFAULT 0,
    -- The generation that the staging entry was made under; null when there is none. Once it is below the generation the
    -- entry is being discarded.
    entry bigint,
    -- The last request to stage that was applied to the entry.
    sequence bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE SEQUENCE {schema}.database_ids;

CREATE TABLE {schema}.names (
    name text COLLATE "C" PRIMARY KEY,
    database bigint NOT NULL UNIQUE
);

-- The pages that the next open gets along with the head.
CREATE TABLE {schema}.warm (
    database bigint PRIMARY KEY,
    pages bigint[] NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE {schema}.sessions (
    id uuid PRIMARY KEY,
    label text NOT NULL,
    lifetime interval NOT NULL,
    expires timestamptz NOT NULL,
    ended boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- How epochs ended: for a day, so that a deposed writer can learn what became of its commit.
CREATE TABLE {schema}.epoch_ends (
    database bigint NOT NULL,
    epoch bigint NOT NULL,
    txid bigint NOT NULL,
    commit_id uuid NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (database, epoch)
);
CREATE INDEX epoch_ends_at ON {schema}.epoch_ends (at);

CREATE TABLE {schema}.log (
    database bigint NOT NULL,
    txid bigint NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (database, txid)
) {partition};

-- Our bytes are compressed already, and one row fits on a page of the table: it stays in the table as it is. The settings
-- for that (STORAGE EXTERNAL, toast_tuple_target) are made by schema/mod.rs, on the partitions if there are any.
--
-- kind: 0 zeros, 1 a whole image, 2 a delta to the image at txid base.
CREATE TABLE {schema}.pages (
    database bigint NOT NULL,
    page bigint NOT NULL,
    txid bigint NOT NULL,
    base bigint,
    kind smallint NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (database, page, txid)
) {partition};

-- What an open large transaction has staged, one row per request.
CREATE TABLE {schema}.staged (
    database bigint NOT NULL,
    generation bigint NOT NULL,
    sequence bigint NOT NULL,
    pages bigint[] NOT NULL,
    PRIMARY KEY (database, generation, sequence)
);

-- The completed checkpoints from the horizon on; at is in milliseconds since 1970, by the clock of who wrote it.
CREATE TABLE {schema}.checkpoints (
    database bigint NOT NULL,
    txid bigint NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (database, txid)
);

-- How many pieces of its last checkpoint in several have come, but for the one that completes it. Not in the head: a piece
-- would make commits wait.
CREATE TABLE {schema}.pieces (
    database bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    attempt bigint NOT NULL,
    txid bigint NOT NULL,
    count bigint NOT NULL
) WITH (fillfactor = 50);

-- Who has locked a database for reading. It means something while the session lives.
--
-- The tables of locks are not logged: they are empty after a crash of the server, and on a standby. Nothing but the wish to be
-- alone rests on them, and so all locks end together; of a server that kept some, a lock that was given back might come back,
-- and keep out others for as long as its session lives.
CREATE UNLOGGED TABLE {schema}.shared_locks (
    database bigint NOT NULL,
    session uuid NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (database, session, number)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX shared_locks_session ON {schema}.shared_locks (session);

-- The epoch whose holder has locked exclusively, 0 when it has unlocked. It means something while that is the head's, held by a
-- session that lives: so whatever ends the lease ends the lock. Not in the head, which has one version for each commit.
CREATE UNLOGGED TABLE {schema}.exclusive_locks (
    database bigint PRIMARY KEY,
    epoch bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

-- Deleted databases whose rows are still to be removed.
CREATE TABLE {schema}.condemned (
    database bigint PRIMARY KEY
);
