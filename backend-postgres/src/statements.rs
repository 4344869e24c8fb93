//! The statements: each calls one function of the schema, so that each is one short text and one round trip. Commits have
//! two more forms, without a function around them, for where they are prepared: they cost the server half as much. They
//! say what they did; why they did not do the rest, the function tells.
//!
//! In the texts `S` is the schema, and `W` what is set until the end of a transaction that writes, since a pooler's session may
//! be set to anything: the server tells its warnings, by one of which a commit is known that did not wait for its standby
//! (`link.rs`), and waits no longer for a lock than somebody waits for the call. The two forms of a commit do without, since
//! where they are used that is set for the session. What stands beside `W` is joined so that `W` is first.

use tokio_postgres::types::Type;

use crate::pool::LOCK_TIMEOUT;

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident $text:literal [$($kind:ident)*];)*) => {
        /// What is asked of the server.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Call {
            $($(#[$doc])* $name,)*
        }

        impl Call {
            const ALL: &[(Self, &'static str, &'static [Type])] = &[
                $((Self::$name, $text, &[$(Type::$kind),*]),)*
            ];
        }
    };
}

calls! {
    StartSession "SELECT S.start_session($1, $2, $3) FROM W" [UUID TEXT INT8];
    RenewSession "SELECT S.renew_session($1) FROM W" [UUID];
    EndSession "SELECT S.end_session($1) FROM W" [UUID];
    Open "SELECT o.* FROM W LEFT JOIN S.open($1, $2, $3, $4, $5, $6, $7) o ON true" [TEXT BOOL UUID BOOL INT8 INT8 INT8];
    Release "SELECT S.release($1, $2, $3) FROM W" [INT8 INT8 INT8_ARRAY];
    Head "SELECT * FROM S.head($1, $2, $3, $4)" [INT8 INT8 INT8 INT8];
    SettledHead "SELECT o.* FROM W LEFT JOIN S.settled_head($1, $2, $3, $4) o ON true" [INT8 INT8 INT8 INT8];
    ReadPages "SELECT * FROM S.read_pages($1, $2, $3, $4, $5, $6)"
        [INT8_ARRAY INT8_ARRAY INT8_ARRAY INT8_ARRAY INT8_ARRAY INT8_ARRAY];
    ReadLog "SELECT * FROM S.read_log($1, $2, $3, $4, $5)" [INT8_ARRAY INT8_ARRAY INT8 INT8 INT8];
    Commit "SELECT S.commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) FROM W"
        [INT8_ARRAY INT8_ARRAY INT8_ARRAY UUID_ARRAY UUID_ARRAY INT8_ARRAY BYTEA_ARRAY INT8_ARRAY INT8_ARRAY BOOL_ARRAY BOOL];
    CommitOne "WITH h AS (UPDATE S.heads h SET txid = h.txid + 1, commit_id = $5, size = $6, \
            holder = CASE WHEN $10 THEN NULL ELSE h.holder END, \
            generation = CASE WHEN h.entry IS NULL THEN h.generation ELSE h.generation + 1 END, entry = NULL \
        WHERE h.id = $1 AND h.epoch = $2 AND h.txid = $3 AND h.commit_id = $4 AND h.holder IS NOT NULL AND CASE \
            WHEN h.entry IS NULL THEN $8::bigint IS NULL \
            ELSE h.entry = h.generation AND $8 = h.generation AND $9 = h.sequence END \
        RETURNING h.id, h.txid) INSERT INTO S.log SELECT h.id, h.txid, $7 FROM h RETURNING database"
        [INT8 INT8 INT8 UUID UUID INT8 BYTEA INT8 INT8 BOOL];
    CommitMany "WITH r AS MATERIALIZED (SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
            r(id, epoch, expected, follows, commit_id, size, record, staged, last, release)), \
        h AS (UPDATE S.heads h SET txid = h.txid + 1, commit_id = r.commit_id, size = r.size, \
            holder = CASE WHEN r.release THEN NULL ELSE h.holder END, \
            generation = CASE WHEN h.entry IS NULL THEN h.generation ELSE h.generation + 1 END, entry = NULL FROM r \
        WHERE h.id = r.id AND h.epoch = r.epoch AND h.txid = r.expected AND h.commit_id = r.follows \
            AND h.holder IS NOT NULL AND CASE \
            WHEN h.entry IS NULL THEN r.staged IS NULL \
            ELSE h.entry = h.generation AND r.staged = h.generation AND r.last = h.sequence END \
        RETURNING h.id, h.txid, r.record) INSERT INTO S.log SELECT h.id, h.txid, h.record FROM h RETURNING database"
        [INT8_ARRAY INT8_ARRAY INT8_ARRAY UUID_ARRAY UUID_ARRAY INT8_ARRAY BYTEA_ARRAY INT8_ARRAY INT8_ARRAY BOOL_ARRAY];
    /// Its transaction ends without waiting for a disk: what rests on it says so, and is refused where it was lost. It is set for the transaction alone, and so by the statement itself: set at the function it would be back before
    /// the end. A commit must never share a transaction with it.
    Stage "SELECT S.stage($1, $2, $3, $4, $5, $6, $7, $8, $9) FROM W, set_config('synchronous_commit', 'off', true) a"
        [INT8 INT8 INT8 INT8 INT8 INT8 INT8_ARRAY INT2_ARRAY BYTEA_ARRAY];
    Discard "SELECT S.discard($1, $2, $3, $4, $5) FROM W" [INT8 INT8 INT8 INT8 INT8];
    Checkpoint "SELECT S.checkpoint($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) FROM W"
        [INT8 INT8 INT8 INT8 INT8 INT8 BOOL INT8 INT8_ARRAY INT2_ARRAY INT8_ARRAY BYTEA_ARRAY INT8_ARRAY];
    Collect "SELECT S.collect($1, $2, $3, $4, $5, $6, $7) FROM W" [INT8 INT8 INT8 INT8 INT8_ARRAY INT8_ARRAY INT8];
    Purge "SELECT o.* FROM W LEFT JOIN S.purge($1) o ON true" [INT8];
    List "SELECT * FROM S.list($1, $2, $3, $4)" [TEXT TEXT TEXT INT8];
    Rename "SELECT S.rename($1, $2, $3) FROM W" [INT8 INT8 TEXT];
    Delete "SELECT S.delete($1, $2) FROM W" [INT8 INT8];
    Scan "SELECT * FROM S.scan($1, $2, $3, $4)" [INT8 INT8 INT8 INT8];
    /// As with staging, nobody waits for a disk with the locks: their tables are not logged, and so it is of no use. But whoever
    /// asks what became of a commit ($5) waits as with `SettledHead`.
    LockShared "SELECT o.* FROM W CROSS JOIN set_config('synchronous_commit', \
            CASE WHEN $5::bigint IS NULL THEN 'off' ELSE current_setting('synchronous_commit') END, true) a \
        LEFT JOIN S.lock_shared($1, $2, $3, $4, $5, $6) o ON true" [INT8 UUID INT8 INT8 INT8 INT8];
    UnlockShared "SELECT S.unlock_shared($1, $2, $3) FROM W, set_config('synchronous_commit', 'off', true) a" [INT8 UUID INT8];
    LockExclusive "SELECT o.* FROM W CROSS JOIN set_config('synchronous_commit', 'off', true) a \
        LEFT JOIN S.lock_exclusive($1, $2) o ON true" [INT8 INT8];
    UnlockExclusive "SELECT S.unlock_exclusive($1, $2) FROM W, set_config('synchronous_commit', 'off', true) a" [INT8 INT8];
    Heads "SELECT id, txid FROM S.heads WHERE id = ANY ($1)" [INT8_ARRAY];
}

impl Call {
    /// Those that are prepared when a connection is opened, where it can prepare.
    pub(crate) const OFTEN: &[Self] = &[
        Self::RenewSession,
        Self::Open,
        Self::Release,
        Self::Head,
        Self::ReadPages,
        Self::ReadLog,
        Self::Commit,
        Self::CommitOne,
        Self::CommitMany,
        Self::Stage,
        Self::Checkpoint,
        Self::Collect,
        Self::LockShared,
        Self::UnlockShared,
        Self::LockExclusive,
        Self::UnlockExclusive,
        Self::Heads,
    ];
}

const SET: &str = "FROM (SELECT set_config('client_min_messages', 'warning', true), \
    set_config('lock_timeout', CASE current_setting('lock_timeout') WHEN '0' THEN 'L' \
        ELSE current_setting('lock_timeout') END, true)) w";

/// A statement with its types.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) types: &'static [Type],
}

/// All statements, for one schema.
#[derive(Debug)]
pub(crate) struct Statements(Vec<Text>);

impl Statements {
    pub(crate) fn new(quoted_schema: &str) -> Self {
        let set = SET.replace("'L'", &format!("'{LOCK_TIMEOUT}'"));
        let text = |(_, text, types): &(Call, &'static str, &'static [Type])| Text {
            text: text.replace("FROM W", &set).replace("S.", &format!("{quoted_schema}.")),
            types,
        };
        Self(Call::ALL.iter().map(text).collect())
    }

    pub(crate) fn of(&self, call: Call) -> &Text {
        // The list has them in the order of the enum.
        #[expect(clippy::indexing_slicing, reason = "one entry for each variant, by the macro")]
        &self.0[call as usize]
    }
}
