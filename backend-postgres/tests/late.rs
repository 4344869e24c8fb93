//! Pieces of a checkpoint that are late: who sent them has given up, and they go on in the server.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{CheckpointRequest, CollectRequest, Lineage, PageRow, PageStore as _, RowKind};
use litefleet::{ErrorKind, PageNo, PageRange, Result, Txid, UnixMillis};
use litefleet_postgres::testing::wait_until;
use support::writer::Writer;
use support::{connect, fresh_schema, server};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

const PATIENCE: Duration = Duration::from_secs(60);
const PAGE: PageNo = PageNo(5);

/// A database with three commits, and somebody who can hold up what is written as of txid 1.
struct Place {
    schema: String,
    writer: Writer,
    gate: Client,
}

impl Place {
    /// `trigger` says when it is held up.
    fn new(trigger: &str) -> Self {
        let schema = fresh_schema();
        // They wait for as long as the test does.
        let url = format!("{}&options=-c%20lock_timeout%3D60s", server().url());
        let mut writer = Writer::new(connect(&url, &schema, |config| config), "a");
        for _ in 0..3 {
            writer.commit(10).unwrap();
        }
        server().sql(&format!(
            "CREATE FUNCTION {schema}.waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NEW.txid = 1 THEN PERFORM pg_advisory_xact_lock_shared(hashtext('{schema}')); END IF; RETURN NEW; END $$; \
             CREATE {trigger} FOR EACH ROW EXECUTE FUNCTION {schema}.waits()",
            trigger = trigger.replace("S.", &format!("{schema}."))
        ));
        let (gate, connection) = writer.runtime.block_on(tokio_postgres::connect(&server().url(), NoTls)).unwrap();
        writer.runtime.spawn(connection);
        Self { schema, writer, gate }
    }

    fn at_gate(&self, what: &str) {
        self.writer
            .runtime
            .block_on(self.gate.batch_execute(&format!("SELECT pg_{what}(hashtext('{}'))", self.schema)))
            .unwrap();
    }

    /// Only calls of this test: other tests use the server at the same time.
    fn waiting(&self) -> String {
        server().sql(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
            self.schema
        ))
    }

    /// A checkpoint of the page as of a txid.
    fn checkpoint(&self, txid: u64, kind: RowKind, last: bool) -> JoinHandle<Result<()>> {
        let (store, txid) = (Arc::clone(&self.writer.store), Txid(txid));
        let bytes = if kind == RowKind::Zero { Vec::new() } else { b"old".to_vec() };
        let request = CheckpointRequest {
            database: self.writer.database,
            epoch: self.writer.epoch,
            txid,
            since: Txid(0),
            attempt: 1,
            piece: 0,
            rows: vec![PageRow { page: PAGE, txid, kind, bytes: bytes.into() }],
            last,
            time: UnixMillis(0),
            warm: Vec::new(),
        };
        self.writer.runtime.spawn(async move { store.checkpoint(request).await })
    }

    fn end(&self, call: JoinHandle<Result<()>>) -> Result<()> {
        self.writer.runtime.block_on(call).unwrap()
    }

    /// Collects what is dead as of the newest checkpoint, which is `at`.
    fn collect(&self, at: u64) {
        let request = CollectRequest {
            database: self.writer.database,
            epoch: self.writer.epoch,
            at_most: Txid(at),
            completed_before: UnixMillis(u64::MAX / 2),
            pages: vec![PageRange::new(PAGE, PAGE)],
            log_through: Txid(0),
        };
        let collected = self.writer.runtime.block_on(self.writer.store.collect(request)).unwrap();
        assert_eq!(collected.horizon, Txid(at));
    }

    fn read(&self) -> Vec<PageRow> {
        let lineage = [Lineage { database: self.writer.database, max_txid: Txid::MAX }];
        let pages = [PageRange::new(PAGE, PAGE)];
        let read = self.writer.store.read_pages(&lineage, &pages, self.writer.txid);
        self.writer.runtime.block_on(read).unwrap().rows.into_iter().map(|read| read.row).collect()
    }
}

/// The page is zeros as of the checkpoint that came meanwhile, and so has no row. The late one's would have been its newest.
#[test]
fn late_piece_brings_back_no_row_that_was_collected() {
    for last in [false, true] {
        let place = Place::new("TRIGGER waits BEFORE INSERT ON S.pages");
        place.at_gate("advisory_lock");
        let late = place.checkpoint(1, RowKind::Image, last);
        wait_until("it is held up", PATIENCE, || place.waiting() == "1");
        place.end(place.checkpoint(2, RowKind::Zero, true)).unwrap();
        place.collect(2);
        assert_eq!(place.read(), []);
        place.at_gate("advisory_unlock");
        assert_eq!(place.end(late).map_err(|error| error.kind()), Err(ErrorKind::Conflict), "last: {last}");
        assert_eq!(place.read(), [], "last: {last}");
    }
}

/// It has looked for the last time already, and is about to be committed: the checkpoint that would replace it waits.
#[test]
fn checkpoint_waits_for_a_late_piece_that_is_about_to_be_committed() {
    for last in [false, true] {
        let place = Place::new("CONSTRAINT TRIGGER waits AFTER INSERT ON S.pages DEFERRABLE INITIALLY DEFERRED");
        place.at_gate("advisory_lock");
        let late = place.checkpoint(1, RowKind::Image, last);
        wait_until("it is held up", PATIENCE, || place.waiting() == "1");
        let next = place.checkpoint(2, RowKind::Zero, true);
        wait_until("the next is held up or done", PATIENCE, || place.waiting() == "2" || next.is_finished());
        assert!(!next.is_finished(), "what it writes may be collected before the late row is there");
        place.at_gate("advisory_unlock");
        place.end(late).unwrap();
        place.end(next).unwrap();
        place.collect(2);
        assert_eq!(place.read(), [], "last: {last}");
    }
}

/// What transactions that were committed had listed is removed some at a time: a checkpoint must end in time after any import.
#[test]
fn checkpoint_removes_a_bounded_number_of_left_over_entries() {
    let place = Place::new("TRIGGER waits BEFORE INSERT ON S.pages");
    let (schema, database) = (&place.schema, place.writer.database);
    server().sql(&format!(
        "UPDATE {schema}.heads SET generation = 1; \
         INSERT INTO {schema}.staged SELECT {database}, 0, n, '{{1}}' FROM generate_series(1, 2500) n"
    ));
    let left = |txid| {
        place.end(place.checkpoint(txid, RowKind::Image, true)).unwrap();
        server().sql(&format!("SELECT count(*) FROM {schema}.staged"))
    };
    assert_eq!([1, 2, 3].map(left), ["1476", "452", "0"]);
}
