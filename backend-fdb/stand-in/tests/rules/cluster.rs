//! What every test begins with: the network, a database, a prefix of its own.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use foundationdb::api::{FdbApiBuilder, NetworkAutoStop};
use foundationdb::future::FdbValues;
use foundationdb::options::StreamingMode;
use foundationdb::{Database, FdbError, FdbResult, KeySelector, RangeOption, Transaction};
use litefleet_fdb_stand_in_control::{StandIn, real_cluster};

/// A cluster for one test: on the stand-in one of its own, on a real cluster a prefix of its own.
pub(crate) struct Cluster {
    pub(crate) database: Database,
    pub(crate) prefix: Vec<u8>,
    pub(crate) file: String,
    stand_in: Option<StandIn>,
    _directory: tempfile::TempDir,
}

/// The network runs until the process ends: it is never stopped, because tests end in any order.
fn start_network() {
    static NETWORK: OnceLock<NetworkAutoStop> = OnceLock::new();
    NETWORK.get_or_init(|| {
        let network = FdbApiBuilder::default().build().expect("an API version that the library has");
        // SAFETY: the process ends without unloading the library; the value is never dropped.
        unsafe { network.boot() }.expect("a network thread")
    });
}

impl Cluster {
    fn open() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        start_network();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir().expect("a temporary directory");
        if let Some(file) = real_cluster() {
            let file = file.to_str().expect("a path in UTF-8").to_owned();
            let database = Database::from_path(&file).expect("the real cluster");
            let prefix = format!("litefleet-stand-in-test/{}/{serial}/", std::process::id()).into_bytes();
            return Self { database, prefix, file, stand_in: None, _directory: directory };
        }
        let stand_in = StandIn::create(directory.path(), &format!("test{serial}")).expect("a cluster file");
        let file = stand_in.cluster_file().to_owned();
        let database = Database::from_path(&file).expect("a cluster of the stand-in");
        Self { database, prefix: b"p/".to_vec(), file, stand_in: Some(stand_in), _directory: directory }
    }

    pub(crate) fn stand_in(&self) -> &StandIn {
        self.stand_in.as_ref().expect("this test is left out on a real cluster")
    }

    pub(crate) fn key(&self, name: &str) -> Vec<u8> {
        [&self.prefix[..], name.as_bytes()].concat()
    }

    pub(crate) fn begin(&self) -> Transaction {
        self.database.create_trx().expect("a transaction")
    }

    /// Writes some keys in a transaction of their own.
    pub(crate) async fn put(&self, pairs: &[(&str, &str)]) {
        let transaction = self.begin();
        for (key, value) in pairs {
            transaction.set(&self.key(key), value.as_bytes());
        }
        transaction.commit().await.expect("a commit without conflict");
    }

    /// The value of a key, in a transaction of its own.
    pub(crate) async fn value(&self, key: &str) -> Option<String> {
        get(&self.begin(), &self.key(key)).await.expect("a read")
    }

    /// All keys of this test with their values.
    pub(crate) async fn all(&self) -> Vec<(String, String)> {
        let transaction = self.begin();
        let range = RangeOption {
            begin: KeySelector::first_greater_or_equal(self.prefix.clone()),
            end: KeySelector::first_greater_or_equal(self.key("\u{10ffff}")),
            mode: StreamingMode::WantAll,
            ..RangeOption::default()
        };
        self.rows(&transaction, &range, false).await.expect("a range read").0
    }

    /// The keys of a range as the test wrote them, with their values, and whether there may be more. A reply may end
    /// where a shard does, which on a real cluster is anywhere: then the next one goes on.
    pub(crate) async fn rows(
        &self,
        transaction: &Transaction,
        range: &RangeOption<'_>,
        snapshot: bool,
    ) -> FdbResult<(Vec<(String, String)>, bool)> {
        let mut next = Some(range.clone());
        let (mut all, mut more, mut iteration) = (Vec::new(), false, 1);
        while let Some(range) = next {
            let rows = transaction.get_range(&range, iteration, snapshot).await?;
            assert!(!rows.more() || !rows.is_empty(), "{range:?}: nobody could go on from there");
            more = rows.more();
            next = range.next_range(&rows);
            all.extend(self.shown(&rows));
            iteration += 1;
        }
        Ok((all, more))
    }

    /// As [`rows`](Self::rows), but what one reply has of them.
    pub(crate) async fn reply(
        &self,
        transaction: &Transaction,
        range: &RangeOption<'_>,
        snapshot: bool,
    ) -> FdbResult<(Vec<(String, String)>, bool)> {
        let rows = transaction.get_range(range, 1, snapshot).await?;
        Ok((self.shown(&rows), rows.more()))
    }

    fn shown(&self, rows: &FdbValues) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        rows.iter().map(|row| (text(&row.key()[self.prefix.len()..]), text(row.value()))).collect()
    }

    async fn clean_up(&self) {
        let transaction = self.begin();
        transaction.clear_range(&self.prefix, &self.key("\u{10ffff}"));
        if let Err(error) = transaction.commit().await {
            eprintln!("the keys under {:?} are left behind: {}", String::from_utf8_lossy(&self.prefix), *error);
        }
    }
}

pub(crate) async fn get(transaction: &Transaction, key: &[u8]) -> FdbResult<Option<String>> {
    Ok(transaction.get(key, false).await?.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

/// The code of an error that must have come.
pub(crate) fn code<T>(result: Result<T, impl Into<FdbError>>) -> i32 {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.into().code(),
    }
}

/// Runs a test on a cluster, and removes its keys, also when it failed.
pub(crate) fn test(body: impl AsyncFnOnce(&Cluster)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let cluster = runtime.block_on(async { Cluster::open() });
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(body(&cluster))));
    runtime.block_on(cluster.clean_up());
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}
