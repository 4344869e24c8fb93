//! Tests of pages that are staged while their transaction goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::{CHUNK, WORTH_GOING_ON};
use crate::clock::SystemClock;
use crate::config::FleetSettings;
use crate::engine::database::{Database, Snapshot};
use crate::engine::meanwhile::Meanwhile;
use crate::engine::{Fleet, Role, TransactionBuffer};
use crate::error::{ErrorKind, Result};
use crate::store::{Effect, Fault, FaultLayer, FaultPlan, MemoryStore, Operation, PageStore, StoreLimits};
use crate::types::{DatabaseName, PAGE_SIZE};

/// Pages that the buffer holds before some are sent.
const BUFFERED: usize = 5 * WORTH_GOING_ON;
const PAGES: usize = 2 * BUFFERED;
const _: () = assert!(CHUNK >= WORTH_GOING_ON, "else no transaction goes on");

/// A fleet with one database, a plan of faults beneath it, and what the database should hold.
struct Rig {
    store: Arc<dyn PageStore>,
    plan: Arc<FaultPlan>,
    fleet: Fleet,
    name: DatabaseName,
    file: Vec<u8>,
    random: u64,
    page: usize,
}

fn fleet_over(store: Arc<dyn PageStore>, mut settings: FleetSettings) -> Fleet {
    settings.database.transaction_bytes = BUFFERED * PAGE_SIZE;
    Fleet::builder(store).settings(settings).build().unwrap()
}

impl Rig {
    fn new(seed: u64) -> Self {
        Self::with(seed, FleetSettings::default())
    }

    fn with(seed: u64, settings: FleetSettings) -> Self {
        let plan = Arc::new(FaultPlan::default());
        let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
        let faulty = FaultLayer::new(Arc::clone(&store), Arc::clone(&plan));
        let fleet = fleet_over(Arc::new(faulty), settings);
        Self { store, plan, fleet, name: DatabaseName::new("a").unwrap(), file: Vec::new(), random: seed, page: 0 }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap() % bound
    }

    /// One after another, from the beginning again at the end.
    fn next_page(&mut self) -> usize {
        self.page = (self.page + 1) % PAGES;
        self.page
    }

    /// Writes or cuts at random, and the same in `file`.
    fn change(&mut self, database: &Database, buffer: &mut TransactionBuffer, file: &mut Vec<u8>) -> Result<()> {
        if self.below(100) == 0 {
            let size = file.len() - self.below(file.len() / 4 + 1);
            database.truncate(buffer, size as u64)?;
            file.truncate(size);
            return Ok(());
        }
        let (start, len) = match self.below(8) {
            0 => (self.below(PAGES * PAGE_SIZE), 1 + self.below(2 * PAGE_SIZE)),
            _ => (self.next_page() * PAGE_SIZE, PAGE_SIZE),
        };
        let bytes = vec![u8::try_from(1 + self.below(255)).unwrap(); len];
        database.write(buffer, start as u64, &bytes)?;
        file.resize(file.len().max(start + len), 0);
        file[start..start + len].copy_from_slice(&bytes);
        Ok(())
    }

    /// A few pages as the transaction sees them.
    fn look(&mut self, database: &Database, buffer: &TransactionBuffer, file: &[u8]) {
        assert_eq!(buffer.size(), file.len() as u64);
        for _ in 0..3 {
            let start = self.below(file.len().max(1));
            let mut bytes = vec![0; (2 * PAGE_SIZE).min(file.len() - start)];
            assert_eq!(database.read_buffered(buffer, start as u64, &mut bytes).unwrap(), bytes.len());
            assert!(bytes == file[start..start + bytes.len()], "at {start}");
        }
    }

    /// A transaction of random changes, up to the first that fails.
    fn transaction(
        &mut self,
        database: &Database,
        changes: usize,
    ) -> (TransactionBuffer, Snapshot, Vec<u8>, Result<()>) {
        let snapshot = database.begin_read().unwrap();
        let mut buffer = database.begin_write(snapshot, false).unwrap();
        buffer.set_foreign();
        let mut file = self.file.clone();
        let mut flew = false;
        for _ in 0..changes {
            if let Err(error) = self.change(database, &mut buffer, &mut file) {
                return (buffer, snapshot, file, Err(error));
            }
            flew |= buffer.flight.is_some();
            self.look(database, &buffer, &file);
        }
        assert!(flew, "none was staged beside the transaction");
        (buffer, snapshot, file, Ok(()))
    }

    /// What a process finds that has nothing in its caches.
    fn check(&self) {
        let fleet = Fleet::builder(Arc::clone(&self.store)).build().unwrap();
        let database = fleet.connect(&self.name, Role::Writer, false);
        let snapshot = database.begin_read().unwrap();
        assert_eq!(snapshot.size, self.file.len() as u64);
        let mut bytes = vec![0; self.file.len()];
        database.read(snapshot, 0, &mut bytes).unwrap();
        for (index, (found, wanted)) in bytes.chunks(PAGE_SIZE).zip(self.file.chunks(PAGE_SIZE)).enumerate() {
            assert!(found == wanted, "page {}", index + 1);
        }
        database.unpin(snapshot);
        fleet.disconnect(&database);
    }
}

#[test]
fn transactions_go_on_while_pages_are_staged() {
    for seed in 1..=4 {
        let mut rig = Rig::new(seed);
        // Replies come late, or not.
        if seed % 2 == 0 {
            rig.plan.arm(Fault {
                operation: Some(Operation::Stage),
                after: 0,
                times: u64::MAX,
                effect: Effect::Delay(20),
            });
        }
        let database = rig.fleet.connect(&rig.name, Role::Writer, true);
        for round in 0..4 {
            let (mut buffer, mut snapshot, file, changed) = rig.transaction(&database, PAGES);
            changed.unwrap();
            if round % 2 == 0 {
                snapshot = database.commit(&mut buffer, snapshot).unwrap();
                rig.file = file;
            }
            database.end_write(&mut buffer);
            database.unpin(snapshot);
        }
        rig.fleet.disconnect(&database);
        rig.check();
    }
}

/// Each request to stage in turn fails, with and without effect: the transaction fails or commits as a whole, and the next one
/// does not suffer from it.
#[test]
fn requests_that_fail_on_their_way_lose_nothing() {
    for effect in [Effect::Refuse, Effect::LoseRequest, Effect::LoseReply, Effect::Full] {
        for after in 0..6 {
            // Nothing is tried again: each fault is one that the transaction meets.
            let mut settings = FleetSettings::default();
            settings.database.store_timeout = Duration::ZERO;
            let mut rig = Rig::with(after + 1, settings);
            let database = rig.fleet.connect(&rig.name, Role::Writer, true);
            let fault = Fault { operation: Some(Operation::Stage), after, times: 1, effect };
            rig.plan.arm(fault);
            let (mut failed, mut committed) = (0, 0);
            for _ in 0..2 {
                let (mut buffer, mut snapshot, file, changed) = rig.transaction(&database, PAGES);
                match changed.and_then(|()| database.commit(&mut buffer, snapshot)) {
                    Ok(done) => {
                        (snapshot, rig.file) = (done, file);
                        committed += 1;
                    }
                    Err(error) => {
                        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Full), "{error}");
                        failed += 1;
                    }
                }
                database.end_write(&mut buffer);
                database.unpin(snapshot);
            }
            assert_eq!((failed, committed), (1, 1), "{effect:?} after {after}");
            assert_eq!(rig.plan.hits(), 1, "{effect:?} after {after}");
            rig.fleet.disconnect(&database);
            rig.check();
        }
    }
}

/// A transaction that is given up waits for what is on its way: a request that is late would be refused, but it need not be made.
#[test]
fn a_rollback_waits_for_what_is_on_its_way() {
    let mut rig = Rig::new(7);
    rig.plan.arm(Fault { operation: Some(Operation::Stage), after: 0, times: u64::MAX, effect: Effect::Delay(20) });
    let database = rig.fleet.connect(&rig.name, Role::Writer, true);
    let (mut buffer, snapshot, _, changed) = rig.transaction(&database, PAGES);
    changed.unwrap();
    assert!(buffer.flight.is_some(), "the last one is on its way");
    database.rewind(&mut buffer);
    assert!(buffer.flight.is_none() && !buffer.is_dirty());
    database.end_write(&mut buffer);
    database.unpin(snapshot);
    rig.fleet.disconnect(&database);
    rig.check();
}

/// A call that is torn off by a panic may have taken effect. The next transaction staged under the same generation, its first
/// request counted as late, and its commit made the rows of the one before visible.
#[test]
fn a_request_that_was_torn_off_does_not_pass_for_that_of_the_next_transaction() {
    // Too much for a record, and not for the buffer: all of it is staged at the commit.
    let limits = StoreLimits { record_bytes: 24 * PAGE_SIZE, ..MemoryStore::default().limits() };
    let store = MemoryStore::with_limits(Arc::new(SystemClock::default()), limits);
    let (store, meanwhile) = Meanwhile::around(Arc::new(store));
    let mut rig = Rig { fleet: fleet_over(Arc::clone(&store), FleetSettings::default()), store, ..Rig::new(1) };
    let database = rig.fleet.connect(&rig.name, Role::Writer, true);
    let transaction = |byte: u8| {
        let snapshot = database.begin_read().unwrap();
        let mut buffer = database.begin_write(snapshot, false).unwrap();
        buffer.set_foreign();
        let file = vec![byte; 32 * PAGE_SIZE];
        database.write(&mut buffer, 0, &file).unwrap();
        assert!(buffer.staged.is_empty(), "nothing is staged early");
        let committed = catch_unwind(AssertUnwindSafe(|| database.commit(&mut buffer, snapshot).unwrap()));
        database.end_write(&mut buffer);
        database.unpin(*committed.as_ref().unwrap_or(&snapshot));
        committed.map(|_| file)
    };
    meanwhile.arm(Operation::Stage, || panic!("the store fails after it has staged"));
    assert!(transaction(1).is_err() && meanwhile.is_done());
    rig.file = transaction(2).unwrap();
    rig.fleet.disconnect(&database);
    rig.check();
}
