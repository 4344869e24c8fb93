//! Stores for tests: on the stand-in, each on a cluster of its own, or on a real cluster, each under a prefix of its own
//! that is cleared when the test is over.
#![allow(dead_code, reason = "each test file uses some of it")]

pub(crate) mod holder;

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use litefleet::FleetSettings;
use litefleet::clock::{Clock, ManualClock, SystemClock};
use litefleet::store::{PageStore, StoreLimits};
use litefleet_conformance::Harness;
use litefleet_conformance::engine_cases::EngineHarness;
use litefleet_fdb::{FdbConfig, FdbStore};
use litefleet_fdb_stand_in_control::{StandIn, real_cluster};
use tempfile::TempDir;

/// The smallest limits that the cases are written for, or nearly: each a little odd, so that nothing divides evenly.
pub(crate) const TINY: StoreLimits = StoreLimits {
    read_pages: 3,
    record_bytes: 37,
    atomic_databases: 3,
    atomic_bytes: 101,
    write_rows: 2,
    collect_pages: 2,
    log_bytes: 50,
};

/// A number that no other call in this process returns.
fn number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::SeqCst)
}

/// What `LITEFLEET_SEED` moves all seeds by.
fn moved() -> u64 {
    static MOVED: OnceLock<u64> = OnceLock::new();
    *MOVED.get_or_init(|| match std::env::var("LITEFLEET_SEED").as_deref() {
        Ok("random") => {
            let seed: u32 = rand::random();
            // Past the harness, which shows what a test prints only where that test fails.
            writeln!(std::io::stderr(), "LITEFLEET_SEED={seed}").expect("somebody listens");
            seed.into()
        }
        Ok(seed) => seed.parse().expect("LITEFLEET_SEED is a number, or 'random'"),
        Err(_) => 0,
    })
}

/// The command for faults of every kind: of 10,000 commits, `rate` meet each kind of fault that says nothing of the
/// outcome, and so forth. Only commits meet a time-out: what else does is over, and not tried again.
pub(crate) fn faults(seed: u64, rate: u32) -> String {
    let seed = seed.wrapping_add(moved().wrapping_mul(1_000));
    let (often, seldom) = (rate, rate.div_ceil(30));
    // Some transactions have hundreds of reads, and each that fails fails them all.
    let rarely = rate.div_ceil(60);
    let faults = [
        ("commit.not_committed", often),
        ("commit.1021", often),
        ("commit.1021.done", often),
        ("commit.1021.late", seldom),
        ("commit.1039.done", seldom),
        ("commit.1039.late", seldom),
        ("commit.1007", often),
        ("commit.1037", seldom),
        ("read.1007", rarely),
        ("read.1009", rarely),
        ("read.1037", rarely),
        ("version.1037", seldom),
        ("version.slow.5", seldom),
        ("read.slow.5", seldom),
        ("commit.slow.5", seldom),
        ("commit.restart", seldom),
        ("range.cut", often),
        ("commit.1031", seldom),
        ("commit.1031.done", seldom),
        ("commit.1031.late", seldom),
        ("commit.1039", seldom),
        ("commit.1042", seldom),
        ("read.1039", rarely),
        ("version.1039", seldom),
        ("version.1042", seldom),
        ("version.1051", seldom),
        ("version.1078", seldom),
        ("version.1213", seldom),
        ("watch.1039", often),
        ("watch.1101", often),
        ("watch.slow.5", often),
    ];
    let faults: Vec<String> = faults.iter().map(|(fault, rate)| format!("{fault}={rate}")).collect();
    format!("faults seed={seed} {}", faults.join(" "))
}

/// A place for stores: a cluster, or a part of one.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) cluster_file: PathBuf,
    pub(crate) prefix: Vec<u8>,
    pub(crate) stand_in: Option<StandIn>,
    /// Whether the test has moved the clock of versions, or had commits arrive seconds late.
    moves_time: AtomicBool,
    _directory: Option<TempDir>,
}

/// The longest prefix that a store may have.
pub(crate) const LONGEST_PREFIX: usize = 1_000;

impl Place {
    pub(crate) fn new() -> Self {
        let prefix = format!("litefleet-test/{}/{}/", std::process::id(), number()).into_bytes();
        let moves_time = AtomicBool::new(false);
        if let Some(cluster_file) = real_cluster() {
            return Self { cluster_file, prefix, stand_in: None, moves_time, _directory: None };
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let stand_in = StandIn::create(directory.path(), &format!("test{}", number())).expect("a cluster file");
        let cluster_file = stand_in.cluster_file().into();
        Self { cluster_file, prefix, stand_in: Some(stand_in), moves_time, _directory: Some(directory) }
    }

    pub(crate) fn command(&self, command: &str) {
        let moves_time = ["advance", "window", "latency"].iter().any(|word| command.starts_with(word));
        self.moves_time.fetch_or(moves_time, Ordering::SeqCst);
        self.stand_in.as_ref().expect("only the stand-in takes commands").command(command);
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.stand_in.as_ref().expect("only the stand-in counts").counter(name)
    }

    pub(crate) fn config(&self) -> FdbConfig {
        FdbConfig::new(&self.cluster_file).prefix(self.prefix.clone()).timeout(Duration::from_secs(60))
    }

    /// The calls that the client refused because of a size. None ever should be.
    fn check(&self) {
        if let Some(stand_in) = &self.stand_in {
            assert_eq!(stand_in.counter("refused_for_size"), 0, "a size limit of FoundationDB was hit");
            assert!(stand_in.counter("largest_value") < 100_000);
            assert!(stand_in.counter("largest_key") < 2_000);
            // As docs/operations.md says.
            assert!(stand_in.counter("largest_commit") < 700_000, "{}", stand_in.counter("largest_commit"));
            if !self.moves_time.load(Ordering::SeqCst) {
                // FoundationDB allows five seconds.
                for name in ["oldest_read", "oldest_commit"] {
                    assert!(stand_in.counter(name) < 4_500_000, "{name}: {}", stand_in.counter(name));
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.stand_in.is_some() {
            if !std::thread::panicking() {
                self.check();
            }
            return;
        }
        let config = self.config();
        let (file, prefix) = (self.cluster_file.clone(), self.prefix.clone());
        // The test's runtime may be ending: this one is its own.
        let cleared = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                // The first store of a process starts the client's network thread. Here all may have been of others.
                let _store = FdbStore::open(config).await;
                clear(&file, &prefix).await;
            });
        });
        // A second panic while one is under way would end the process, and hide the first.
        assert!(cleared.join().is_ok() || std::thread::panicking(), "the prefix is not cleared");
    }
}

async fn clear(file: &std::path::Path, prefix: &[u8]) {
    let database = foundationdb::Database::from_path(file.to_str().expect("UTF-8")).expect("a database");
    let mut end = prefix.to_vec();
    end.push(0xff);
    let end = end.as_slice();
    let cleared = database.run(|trx, _| async move {
        trx.clear_range(prefix, end);
        Ok(())
    });
    cleared.await.expect("the prefix is cleared");
}

/// Changes keys under the prefix as nobody should.
pub(crate) async fn by_hand(
    place: &Place,
    change: impl Fn(&foundationdb::Transaction, &dyn Fn(&[u8]) -> Vec<u8>) + Send + Sync,
) {
    let database = foundationdb::Database::from_path(place.cluster_file.to_str().expect("UTF-8")).expect("a database");
    let trx = database.create_trx().expect("a transaction");
    change(&trx, &|key| [place.prefix.as_slice(), key].concat());
    trx.commit().await.expect("it is written");
}

/// How many keys there are between two.
pub(crate) async fn keys_between(place: &Place, first: &[u8], end: &[u8]) -> usize {
    let database = foundationdb::Database::from_path(place.cluster_file.to_str().expect("UTF-8")).expect("a database");
    let (first, end) = ([place.prefix.as_slice(), first].concat(), [place.prefix.as_slice(), end].concat());
    let trx = database.create_trx().expect("a transaction");
    let mode = foundationdb::options::StreamingMode::WantAll;
    let range = foundationdb::RangeOption { mode, ..(first.as_slice(), end.as_slice()).into() };
    trx.get_range(&range, 1, true).await.expect("it can be read").len()
}

/// Keeps a test's paused time from going on, which it does where nothing else is left to do, for as long as this lives.
pub(crate) fn standing_still() -> tokio::task::JoinSet<()> {
    let mut busy = tokio::task::JoinSet::new();
    busy.spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    busy
}

/// Waits for something that should be so at once, where the test's own time stands still.
pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    let clock = SystemClock::default();
    while !done() {
        assert!(clock.monotonic() < Duration::from_secs(60), "it does not come");
        tokio::task::yield_now().await;
    }
}

/// Makes stores for the cases.
#[derive(Debug, Default)]
pub(crate) struct Fdb {
    clock: Arc<ManualClock>,
    limits: Option<StoreLimits>,
    /// How many bytes the prefix has at the least.
    prefix_bytes: usize,
    /// What the stand-in is told before each store is opened.
    commands: Vec<String>,
    /// The places of the stores, by the stores' addresses; given up with the harness.
    places: Mutex<HashMap<usize, Place>>,
}

impl Fdb {
    pub(crate) fn tiny() -> Self {
        Self { limits: Some(TINY), ..Self::default() }
    }

    /// With a prefix of so many bytes.
    pub(crate) fn with_prefix(bytes: usize) -> Self {
        Self { prefix_bytes: bytes, ..Self::default() }
    }

    pub(crate) fn with(command: &str) -> Self {
        Self::default().and(command)
    }

    pub(crate) fn and(mut self, command: &str) -> Self {
        self.commands.push(command.to_owned());
        self
    }

    async fn open(&self, place: &Place) -> FdbStore {
        let mut prefix = place.prefix.clone();
        prefix.resize(prefix.len().max(self.prefix_bytes), b'p');
        let mut config = place.config().prefix(prefix).clock(self.clock.clone());
        if let Some(limits) = self.limits {
            config = config.limits(limits);
        }
        FdbStore::open(config).await.expect("the store opens")
    }

    async fn give(&self, place: Place) -> Arc<dyn PageStore> {
        let store: Arc<dyn PageStore> = Arc::new(self.open(&place).await);
        for command in &self.commands {
            place.command(command);
        }
        self.places.lock().expect("no test panics with it").insert(address(&store), place);
        store
    }
}

fn address(store: &Arc<dyn PageStore>) -> usize {
    Arc::as_ptr(store).cast::<()>().addr()
}

#[async_trait]
impl Harness for Fdb {
    async fn store(&self) -> Arc<dyn PageStore> {
        self.give(Place::new()).await
    }

    async fn reopen(&self, store: Arc<dyn PageStore>) -> Option<Arc<dyn PageStore>> {
        assert_eq!(Arc::strong_count(&store), 1, "another handle is still open");
        let place = self.places.lock().expect("no test panics with it").remove(&address(&store));
        drop(store);
        Some(self.give(place.expect("a store of this harness")).await)
    }

    fn advance(&self, by: Duration) -> bool {
        self.clock.advance(by);
        true
    }
}

/// Makes stores for the engine's cases.
#[derive(Debug, Default)]
pub(crate) struct FdbEngine {
    commands: Vec<String>,
    places: Mutex<Vec<Place>>,
}

impl FdbEngine {
    pub(crate) fn with(command: &str) -> Self {
        Self { commands: vec![command.to_owned()], ..Self::default() }
    }
}

impl EngineHarness for FdbEngine {
    fn store(&self) -> Arc<dyn PageStore> {
        let place = Place::new();
        let store = FdbStore::open_blocking(place.config()).expect("the store opens");
        for command in &self.commands {
            place.command(command);
        }
        self.places.lock().expect("no test panics with it").push(place);
        Arc::new(store)
    }

    fn settings(&self) -> FleetSettings {
        FleetSettings::default()
    }
}
