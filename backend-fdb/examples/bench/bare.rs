//! The same on the client library alone.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use foundationdb::options::{StreamingMode, TransactionOption};
use foundationdb::{Database, RangeOption};
use tokio::runtime::Runtime;

use crate::latencies::Latencies;
use crate::rig::{Rig, Timer};

/// What one range read is asked for.
const PIECE_BYTES: usize = 80_000;

/// Bare transactions.
pub(crate) struct Bare {
    place: Place,
    runtime: Runtime,
    /// How many values there are for reading.
    filled: Cell<usize>,
}

/// Where they are made.
#[derive(Clone)]
struct Place {
    database: Arc<Database>,
    prefix: Vec<u8>,
}

impl Place {
    fn key(&self, index: usize) -> Vec<u8> {
        [self.prefix.as_slice(), &index.to_be_bytes()].concat()
    }

    /// A commit of 300 bytes that takes a read version and reads its key first.
    async fn commit(&self, index: usize) -> Duration {
        let (key, one) = (self.key(index), Timer::start());
        let key = key.as_slice();
        let committed = self.database.run(|trx, _| async move {
            trx.get(key, false).await?;
            trx.set(key, &[7; 300]);
            Ok(())
        });
        committed.await.expect("a commit");
        one.elapsed()
    }
}

impl Bare {
    pub(crate) fn new(rig: &Rig) -> Self {
        // A store starts the network thread.
        drop(rig.fleet());
        let file = rig.cluster_file.to_str().expect("UTF-8");
        let database = Arc::new(Database::from_path(file).expect("a database"));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let place = Place { database, prefix: [rig.prefix.as_slice(), b"\x7fbare/"].concat() };
        Self { place, runtime, filled: Cell::new(0) }
    }

    /// Committers of 300 bytes under a key of their own, each of which takes a read version and reads the key first.
    pub(crate) fn commits(&self, count: usize, run: Duration) -> Latencies {
        let tasks: Vec<_> = (0..count)
            .map(|index| {
                let place = self.place.clone();
                self.runtime.spawn(async move {
                    let (all, mut latencies) = (Timer::start(), Latencies::default());
                    while all.elapsed() < run {
                        latencies.add(place.commit(index).await);
                    }
                    latencies
                })
            })
            .collect();
        let done = tasks.into_iter().map(|task| self.runtime.block_on(task).expect("no panic"));
        done.fold(Latencies::default(), Latencies::and)
    }

    /// One exchange.
    pub(crate) fn read_version(&self) -> Duration {
        self.runtime.block_on(async {
            let one = Timer::start();
            let trx = self.place.database.create_trx().expect("a transaction");
            trx.get_read_version().await.expect("a version");
            one.elapsed()
        })
    }

    /// Three exchanges: a read version, a get, a commit.
    pub(crate) fn commit(&self) -> Duration {
        self.runtime.block_on(self.place.commit(0))
    }

    /// A range read of about as many bytes, of values of 4,096 bytes.
    pub(crate) fn scan(&self, bytes: usize) -> Duration {
        let values = bytes.div_ceil(4096);
        if self.filled.replace(values) < values {
            self.fill(values);
        }
        let (begin, end) = (self.place.key(0), self.place.key(values));
        self.runtime.block_on(async {
            let timer = Timer::start();
            let trx = self.place.database.create_trx().expect("a transaction");
            let mut range = Some(RangeOption {
                mode: StreamingMode::WantAll,
                target_bytes: PIECE_BYTES,
                ..RangeOption::from((begin, end))
            });
            let mut sum = 0;
            while let Some(next) = range {
                let piece = trx.get_range(&next, 1, true).await.expect("a piece");
                sum += piece.iter().map(|pair| pair.value().len()).sum::<usize>();
                range = next.next_range(&piece);
            }
            assert!(sum >= bytes, "all of it");
            timer.elapsed()
        })
    }

    /// Gets of some of the values of [`scan`](Self::scan), one after another, in no order.
    pub(crate) fn gets(&self, count: u32, turn: u32) -> Duration {
        self.one_by_one(count, turn, &async |trx: &foundationdb::Transaction, key: Vec<u8>| {
            let value = trx.get(&key, true).await.expect("a get");
            value.map(|value| value.len())
        })
    }

    /// The same values, each as the newest up to its key: a range read backwards of one.
    pub(crate) fn newest(&self, count: u32, turn: u32) -> Duration {
        self.one_by_one(count, turn, &async |trx: &foundationdb::Transaction, key: Vec<u8>| {
            let end = [key.as_slice(), &[0]].concat();
            let range = RangeOption {
                limit: Some(1),
                mode: StreamingMode::WantAll,
                reverse: true,
                ..RangeOption::from((key, end))
            };
            let found = trx.get_range(&range, 1, true).await.expect("a range read");
            found.first().map(|pair| pair.value().len())
        })
    }

    fn one_by_one(
        &self,
        count: u32,
        turn: u32,
        read: &impl AsyncFn(&foundationdb::Transaction, Vec<u8>) -> Option<usize>,
    ) -> Duration {
        let values = self.filled.get();
        self.runtime.block_on(async {
            let trx = self.place.database.create_trx().expect("a transaction");
            trx.set_option(TransactionOption::ReadYourWritesDisable).expect("an option");
            trx.get_read_version().await.expect("a version");
            let timer = Timer::start();
            for index in turn * count..(turn + 1) * count {
                let index = usize::try_from(index).expect("it fits").wrapping_mul(7919) % values;
                assert_eq!(read(&trx, self.place.key(index)).await, Some(4096));
            }
            timer.elapsed()
        })
    }

    fn fill(&self, values: usize) {
        self.runtime.block_on(async {
            for first in (0..values).step_by(64) {
                let keys: Vec<Vec<u8>> = (first..values.min(first + 64)).map(|index| self.place.key(index)).collect();
                let keys = keys.as_slice();
                let written = self.place.database.run(|trx, _| async move {
                    for key in keys {
                        trx.set(key, &[7; 4096]);
                    }
                    Ok(())
                });
                written.await.expect("written");
            }
        });
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // All of the run's prefix.
        let begin = self.place.prefix.strip_suffix(b"\x7fbare/").unwrap_or(&self.place.prefix);
        let mut end = begin.to_vec();
        end.push(0xff);
        let end = end.as_slice();
        let cleared = self.place.database.run(|trx, _| async move {
            trx.clear_range(begin, end);
            Ok(())
        });
        if let Err(error) = self.runtime.block_on(cleared) {
            println!("the prefix was not cleared: {error}");
        }
    }
}
