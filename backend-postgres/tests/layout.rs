//! How things lie on the server, and what goes over the wire.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{
    CheckpointRequest, CommitMode, CommitRequest, HeadRequest, LeaseRequest, Lineage, OpenRequest, PageRow, PageStore,
    RowKind, SessionRequest, SharedLock, SharedRequest, StageRequest,
};
use litefleet::{CommitId, DatabaseName, PageNo, PageRange, SessionId, Txid, UnixMillis};
use litefleet_postgres::testing::{Bouncer, Proxy, Server, ServerOptions, wait_until};
use litefleet_postgres::{PostgresStore, Prepared};
use support::{connect, fresh_schema, server};
use tokio::runtime::Runtime;

/// A database that somebody holds.
struct Held {
    runtime: Runtime,
    store: Arc<PostgresStore>,
    opened: litefleet::store::Opened,
    session: SessionId,
    txid: Txid,
    last: CommitId,
}

impl Held {
    fn new(store: PostgresStore) -> Self {
        let (runtime, store, session) = (Runtime::new().unwrap(), Arc::new(store), SessionId(rand::random()));
        let request = SessionRequest { session, label: "test".into(), lifetime: Duration::from_secs(600) };
        runtime.block_on(store.start_session(request)).unwrap();
        let opened = runtime.block_on(store.open(Self::request(session))).unwrap();
        Self { runtime, store, opened, session, txid: Txid(0), last: CommitId::default() }
    }

    fn request(session: SessionId) -> OpenRequest {
        let lease = Some(LeaseRequest { session, force: false });
        OpenRequest { name: DatabaseName::new("a").unwrap(), create: true, lease, known: None, tail_bytes: 1 << 20 }
    }

    fn commit(&mut self) {
        let request = CommitRequest {
            database: self.opened.database,
            epoch: self.opened.head.epoch,
            expected: self.txid,
            follows: self.last,
            commit_id: CommitId(rand::random()),
            size: 4096,
            record: vec![7; 200].into(),
            staged: None,
            release: false,
        };
        let id = request.commit_id;
        let outcome = self.runtime.block_on(self.store.commit(vec![request], CommitMode::Independent));
        outcome.unwrap().pop().unwrap().unwrap();
        (self.txid, self.last) = (self.txid.next(), id);
    }

    fn checkpoint(&self, rows: Vec<PageRow>) {
        let request = CheckpointRequest {
            database: self.opened.database,
            epoch: self.opened.head.epoch,
            txid: self.txid,
            since: Txid(0),
            attempt: 0,
            piece: 0,
            rows,
            last: true,
            time: UnixMillis(1),
            warm: Vec::new(),
        };
        self.runtime.block_on(self.store.checkpoint(request)).unwrap();
    }

    fn row(&self, page: u32, kind: RowKind, bytes: usize) -> PageRow {
        let fill = u8::try_from(self.txid.get() % 251).unwrap();
        PageRow { page: PageNo(page), txid: self.txid, kind, bytes: vec![fill; bytes].into() }
    }

    fn read(&self, first: u32, last: u32, at: u64) -> Vec<PageRow> {
        let lineage = [Lineage { database: self.opened.database, max_txid: Txid::MAX }];
        let pages = [PageRange::new(PageNo(first), PageNo(last))];
        let reply = self.runtime.block_on(self.store.read_pages(&lineage, &pages, Txid(at))).unwrap();
        reply.rows.into_iter().map(|read| read.row).collect()
    }
}

/// Pages with more versions than a walk takes are found all the same, at every snapshot, with their bases.
#[test]
fn pages_with_many_versions_are_read() {
    let mut held = Held::new(connect(&server().url(), &fresh_schema(), |config| config));
    for txid in 1..=60 {
        held.commit();
        let base = Txid(txid - txid % 10);
        let kind = if txid % 10 == 0 || txid < 10 { RowKind::Image } else { RowKind::Delta { base } };
        held.checkpoint((1..=5).map(|page| held.row(page, kind, 20)).collect());
    }
    for at in [1, 9, 10, 11, 19, 20, 41, 60] {
        let rows = held.read(1, 6, at);
        let base = if at > 10 && at % 10 > 0 { Some(at - at % 10) } else { None };
        let expected: Vec<(u32, u64)> =
            (1..=5).flat_map(|page| [Some((page, at)), base.map(|base| (page, base))]).flatten().collect();
        let found: Vec<(u32, u64)> = rows.iter().map(|row| (row.page.get(), row.txid.get())).collect();
        assert_eq!(found, expected, "at {at}");
        assert!(rows.iter().all(|row| row.bytes == vec![u8::try_from(row.txid.get()).unwrap(); 20]));
    }
}

/// The longest page row stays in the table, and heads are updated in place.
#[test]
fn rows_stay_out_of_toast_and_heads_in_place() {
    let schema = fresh_schema();
    let mut held = Held::new(connect(&server().url(), &schema, |config| config));
    for _ in 0..300 {
        held.commit();
    }
    held.checkpoint((1..=200).map(|page| held.row(page, RowKind::Image, 4106)).collect());
    let toast = server().sql(&format!(
        "SELECT sum(pg_relation_size(reltoastrelid)) FROM pg_class WHERE oid IN ('{schema}.pages'::regclass, '{schema}.log'::regclass)"
    ));
    assert_eq!(toast, "0");
    let statistics = format!(
        "SELECT n_tup_upd >= 300 AND n_tup_hot_upd >= 0.95 * n_tup_upd FROM pg_stat_user_tables \
         WHERE schemaname = '{schema}' AND relname = 'heads'"
    );
    wait_until("heads are updated in place", Duration::from_secs(20), || server().sql(&statistics) == "t");
}

/// A listing read all names after its prefix, and so took the longer the more there were.
#[test]
fn listing_reads_what_it_lists() {
    let schema = fresh_schema();
    let (runtime, store) = (Runtime::new().unwrap(), connect(&server().url(), &schema, |config| config));
    server().sql(&format!(
        "INSERT INTO {schema}.names SELECT 'tenant-' || to_char(n, 'FM00000'), n FROM generate_series(1, 10000) n; \
         INSERT INTO {schema}.heads (id) SELECT n FROM generate_series(1, 10000) n"
    ));
    let listed = |prefix, most| runtime.block_on(store.list(prefix, None, most)).unwrap().len();
    assert_eq!(listed("tenant-00001", 1000), 1);
    assert_eq!(listed("", 10), 10);
    // The server counts what a connection has read when it ends, or before.
    drop(store);
    let by_name = format!(
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = '{schema}' AND indexrelname = 'names_pkey'"
    );
    let number = |sql: &str| server().sql(sql).parse::<u64>().unwrap();
    wait_until("it is counted", Duration::from_secs(60), || number(&by_name) >= 11);
    let read = format!(
        "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = '{schema}') + \
         (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = '{schema}')"
    );
    assert!(number(&read) < 100, "{} rows", number(&read));
}

/// Each call is one exchange, prepared or not.
#[test]
fn calls_take_one_round_trip() {
    for prepared in [Prepared::On, Prepared::Off, Prepared::Auto] {
        let proxy = Proxy::start(server().port());
        let mut held = Held::new(connect(&proxy.url(), &fresh_schema(), |config| config.prepared(prepared)));
        let (database, epoch) = (held.opened.database, held.opened.head.epoch);
        let mut before = proxy.round_trips();
        let mut trip = |what: &str| {
            let now = proxy.round_trips();
            assert_eq!(now - before, 1, "{what}, {prepared:?}");
            before = now;
        };
        held.commit();
        trip("commit");
        held.checkpoint(vec![held.row(1, RowKind::Image, 4000)]);
        trip("checkpoint");
        held.read(1, 500, 1);
        trip("read");
        let ask = HeadRequest { database, known: Txid(0), epoch: Some(epoch), tail_bytes: 1 << 20 };
        held.runtime.block_on(held.store.head(ask)).unwrap();
        trip("head");
        let lock = SharedLock { session: held.session, number: u64::MAX };
        held.runtime.block_on(held.store.lock_shared(SharedRequest { lock, head: ask })).unwrap();
        trip("lock for reading");
        held.runtime.block_on(held.store.unlock_shared(database, lock)).unwrap();
        trip("unlock for reading");
        held.runtime.block_on(held.store.lock_exclusive(database, epoch)).unwrap();
        trip("lock exclusively");
        held.runtime.block_on(held.store.unlock_exclusive(database, epoch)).unwrap();
        trip("unlock exclusively");
        let row = PageRow { page: PageNo(1), txid: Txid(2), kind: RowKind::Image, bytes: vec![1; 100].into() };
        let (expected, rows) = (held.txid, vec![row]);
        let stage = StageRequest { database, epoch, expected, generation: 0, sequence: 1, after: 0, rows };
        held.runtime.block_on(held.store.stage(stage)).unwrap();
        trip("stage");
        held.runtime.block_on(held.store.release(database, epoch, vec![PageNo(1)])).unwrap();
        trip("release");
        let opened = held.runtime.block_on(held.store.open(Held::request(held.session))).unwrap();
        trip("open");
        assert_eq!(opened.warm.len(), 1);
        held.runtime.block_on(held.store.list("", None, 10)).unwrap();
        trip("list");
        held.runtime.block_on(held.store.renew_session(held.session)).unwrap();
        trip("renewal");
    }
}

/// On the server itself statements are prepared; behind a pooler, which has other addresses, they are not.
#[test]
fn statements_are_prepared_on_the_server_itself_only() {
    let server =
        Server::start(&ServerOptions { settings: vec!["log_statement = 'all'".into()], ..ServerOptions::default() });
    let bouncer = Bouncer::start(&server);
    let named = |url: &str| {
        let before = server.log().len();
        let mut held = Held::new(connect(url, &fresh_schema(), |config| config));
        held.commit();
        held.runtime.block_on(held.store.release(held.opened.database, held.opened.head.epoch, vec![])).unwrap();
        let log = server.log().split_off(before);
        let release = log.lines().find(|line| line.contains(".release($1")).expect("it was logged").to_owned();
        !release.contains("<unnamed>")
    };
    assert!(named(&server.url()), "directly");
    assert!(!named(&bouncer.url()), "through the pooler");
}
