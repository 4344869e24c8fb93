//! The same on the client library alone.

use std::sync::Arc;
use std::time::Duration;

use foundationdb::options::StreamingMode;
use foundationdb::{Database, RangeOption};
use tokio::runtime::Runtime;

use crate::rig::{Rig, Timer};
use crate::table::Latencies;

/// What one range read is asked for.
const PIECE_BYTES: usize = 80_000;

/// Bare transactions.
pub(crate) struct Bare {
    database: Arc<Database>,
    prefix: Vec<u8>,
    runtime: Runtime,
}

impl Bare {
    pub(crate) fn new(rig: &Rig) -> Self {
        // A store starts the network thread.
        drop(rig.fleet());
        let file = rig.cluster_file.to_str().expect("UTF-8");
        let database = Arc::new(Database::from_path(file).expect("a database"));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        Self { database, prefix: [rig.prefix.as_slice(), b"\x7fbare/"].concat(), runtime }
    }

    fn key(&self, index: usize) -> Vec<u8> {
        [self.prefix.as_slice(), &index.to_be_bytes()].concat()
    }

    /// Committers of 300 bytes under a key of their own, each of which takes a read version and reads the key first.
    pub(crate) fn commits(&self, count: usize, run: Duration) -> Latencies {
        let tasks: Vec<_> = (0..count)
            .map(|index| {
                let (database, key) = (Arc::clone(&self.database), self.key(index));
                self.runtime.spawn(async move {
                    let (all, mut latencies) = (Timer::start(), Latencies::default());
                    while all.elapsed() < run {
                        let one = Timer::start();
                        let key = key.as_slice();
                        let committed = database.run(|trx, _| async move {
                            trx.get(key, false).await?;
                            trx.set(key, &[7; 300]);
                            Ok(())
                        });
                        committed.await.expect("a commit");
                        latencies.add(one.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        let done = tasks.into_iter().map(|task| self.runtime.block_on(task).expect("no panic"));
        done.fold(Latencies::default(), Latencies::and)
    }

    /// One exchange: the median of some.
    pub(crate) fn read_version(&self) -> Duration {
        let mut latencies = Latencies::default();
        self.runtime.block_on(async {
            for _ in 0..100 {
                let one = Timer::start();
                let trx = self.database.create_trx().expect("a transaction");
                trx.get_read_version().await.expect("a version");
                latencies.add(one.elapsed());
            }
        });
        Duration::from_secs_f64(latencies.percentile(50) / 1e3)
    }

    /// A range read of about as many bytes, of values of 4,096 bytes. Says how many.
    pub(crate) fn scan(&self, bytes: usize) -> (Duration, usize) {
        let values = bytes / 4096;
        self.fill(values);
        let end = self.key(values);
        self.runtime.block_on(async {
            let timer = Timer::start();
            let trx = self.database.create_trx().expect("a transaction");
            let mut range = Some(RangeOption {
                mode: StreamingMode::WantAll,
                target_bytes: PIECE_BYTES,
                ..RangeOption::from((self.key(0), end))
            });
            let mut sum = 0;
            while let Some(next) = range {
                let piece = trx.get_range(&next, 1, true).await.expect("a piece");
                sum += piece.iter().map(|pair| pair.value().len()).sum::<usize>();
                range = next.next_range(&piece);
            }
            (timer.elapsed(), sum)
        })
    }

    /// Gets of some of the values of [`scan`](Self::scan), one after another.
    pub(crate) fn gets(&self, count: usize) -> Duration {
        self.runtime.block_on(async {
            let trx = self.database.create_trx().expect("a transaction");
            let timer = Timer::start();
            for index in 0..count {
                let value = trx.get(&self.key(index * 7), true).await.expect("a get");
                assert!(value.is_some());
            }
            timer.elapsed()
        })
    }

    fn fill(&self, values: usize) {
        self.runtime.block_on(async {
            for first in (0..values).step_by(64) {
                let keys: Vec<Vec<u8>> = (first..values.min(first + 64)).map(|index| self.key(index)).collect();
                let keys = keys.as_slice();
                let written = self.database.run(|trx, _| async move {
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
        let begin = self.prefix.strip_suffix(b"\x7fbare/").unwrap_or(&self.prefix);
        let mut end = begin.to_vec();
        end.push(0xff);
        let end = end.as_slice();
        let cleared = self.database.run(|trx, _| async move {
            trx.clear_range(begin, end);
            Ok(())
        });
        if let Err(error) = self.runtime.block_on(cleared) {
            println!("the prefix was not cleared: {error}");
        }
    }
}
