//! Transactions that several calls read pages through, one for each version: a page that is missing is then one request to the
//! cluster, and no transaction that is made, told its options and its version, and given up again for it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Outcome;
use crate::transact::{Cluster, Tx};

/// How many there are. Each database has pages read at a version of its own, or at one that it shares with others.
const READERS: usize = 64;

/// The newest of them, the newest last.
#[derive(Default)]
pub(super) struct Readers(Mutex<VecDeque<(i64, Tx)>>);

impl Readers {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(i64, Tx)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that reads at this version. Nothing may be written in it.
    pub(super) fn at(&self, version: i64, cluster: &Cluster) -> Outcome<Tx> {
        let mut readers = self.lock();
        if let Some((_, tx)) = readers.iter().find(|(of, _)| *of == version) {
            return Ok(tx.clone());
        }
        let tx = cluster.reading_at(version)?;
        if readers.len() >= READERS {
            readers.pop_front();
        }
        readers.push_back((version, tx.clone()));
        Ok(tx)
    }

    /// It has failed: the next call must not meet the same.
    pub(super) fn forget(&self, version: i64) {
        self.lock().retain(|(of, _)| *of != version);
    }
}
