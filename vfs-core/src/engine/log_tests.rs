//! Tests of reading the log where a server answers that is behind the one that told of the head.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::config::FleetSettings;
use crate::engine::{Database, Fleet, Progress, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Call, Deferred, Interceptor, Layer, MemoryStore, Operation, PageStore, Standby, Verdict};
use crate::types::{DatabaseName, Txid};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Servers of which one, that is behind, answers all readings of the log.
#[derive(Default)]
struct Servers {
    behind: Option<Standby>,
    newest: Option<Standby>,
}

struct Spread {
    memory: Arc<MemoryStore>,
    servers: Mutex<Servers>,
}

impl Spread {
    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap()
    }

    /// That server gets nothing more.
    fn fall_behind(&self) {
        self.servers().behind = Some(self.memory.standby());
    }

    fn catch_up(&self) {
        self.servers().behind = None;
    }
}

impl std::fmt::Debug for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spread")
    }
}

impl Interceptor for Spread {
    fn before(&self, call: Call) -> Verdict {
        let mut servers = self.servers();
        if let (Operation::ReadLog, Some(behind)) = (call.operation, servers.behind.clone()) {
            servers.newest = Some(self.memory.standby());
            self.memory.fail_over_to(behind);
        }
        Verdict::Proceed
    }

    fn after(&self, _: Call, _: Result<u64, &Error>) {
        if let Some(newest) = self.servers().newest.take() {
            self.memory.fail_over_to(newest);
        }
    }

    fn refused(&self, _: Call, _: &Error) {}

    fn defer(&self, _: Deferred) {}
}

/// A process that writes, and one that reads from several servers.
struct Place {
    memory: Arc<MemoryStore>,
    spread: Arc<Spread>,
    writing: Fleet,
    writer: Arc<Database>,
    reading: Fleet,
}

fn name() -> DatabaseName {
    DatabaseName::new("a").unwrap()
}

fn fleet(store: Arc<dyn PageStore>) -> Fleet {
    let mut settings = FleetSettings { session_lifetime: DAY, ..FleetSettings::default() };
    settings.database.store_timeout = Duration::from_millis(50);
    settings.database.checkpoint_idle = DAY;
    settings.database.checkpoint_bytes = 1 << 30;
    Fleet::builder(store).settings(settings).build().unwrap()
}

impl Place {
    fn new() -> Self {
        let memory = Arc::new(MemoryStore::default());
        let spread = Arc::new(Spread { memory: Arc::clone(&memory), servers: Mutex::default() });
        let writing = fleet(Arc::clone(&memory) as _);
        let writer = writing.connect(&name(), Role::Writer, true);
        let reading = fleet(Arc::new(Layer::new(Arc::clone(&memory) as _, Arc::clone(&spread))));
        Self { memory, spread, writing, writer, reading }
    }

    fn commit(&self, bytes: &[u8]) {
        let snapshot = self.writer.begin_read().unwrap();
        let mut buffer = self.writer.begin_write(snapshot, false).unwrap();
        buffer.set_foreign();
        self.writer.write(&mut buffer, 0, bytes).unwrap();
        let committed = self.writer.commit(&mut buffer, snapshot).unwrap();
        self.writer.end_write(&mut buffer);
        self.writer.unpin(committed);
    }

    fn verify(&self) -> Result<Vec<String>> {
        let report = self.reading.verify(&name(), &mut |_: Progress| ControlFlow::Continue(()))?;
        assert!(report.complete);
        Ok(report.problems)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.writing.disconnect(&self.writer);
    }
}

/// Bytes that do not compress.
fn noise(mut seed: u64, len: usize) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The record of the last commit was not there yet: the database was told to be damaged.
#[test]
fn verify_tells_of_no_damage_where_a_server_is_behind() {
    let place = Place::new();
    place.commit(&[7; 100]);
    place.spread.fall_behind();
    place.commit(&[8; 100]);
    let error = place.verify().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    place.spread.catch_up();
    assert_eq!(place.verify().unwrap(), <[String; 0]>::default());
}

/// It is damage where the server that has the head has no record of it.
#[test]
fn verify_tells_of_records_that_are_lost() {
    let place = Place::new();
    for byte in [7, 8, 9] {
        place.commit(&[byte; 100]);
    }
    place.writing.wait(place.writer.checkpoint()).unwrap();
    place.memory.lose_records(place.writer.status().database.unwrap(), Txid(2)).unwrap();
    assert_eq!(place.verify().unwrap(), ["the log has no record after txid 2 up to 3, the head is 3"]);
}

/// What was committed since was too much to come with the head, and its end was not there yet: "database disk image is
/// malformed".
#[test]
fn follower_takes_no_server_that_is_behind_for_a_damaged_log() {
    let place = Place::new();
    place.commit(&[7; 100]);
    let follower = place.reading.connect(&name(), Role::Follower, false);
    let old = follower.begin_read().unwrap();
    for seed in 0..6 {
        place.commit(&noise(seed, 1 << 20));
    }
    place.spread.fall_behind();
    place.commit(&[8; 100]);
    let error = follower.begin_read().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    place.spread.catch_up();
    let newest = follower.begin_read().unwrap();
    assert_eq!(newest.txid, place.writer.status().txid);
    for snapshot in [old, newest] {
        follower.unpin(snapshot);
    }
    place.reading.disconnect(&follower);
}
