//! Waiting for commits.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use litefleet::{DatabaseId, Result, Txid};
use tokio::sync::Notify;

use super::{EmbeddedStore, stored};

/// Who waits for which database.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<HashMap<DatabaseId, Watched>>);

/// A database that somebody waits for.
#[derive(Debug, Default)]
struct Watched {
    notify: Arc<Notify>,
    /// How many wait. They are counted here, under the lock.
    waiting: usize,
}

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, HashMap<DatabaseId, Watched>> {
        // Every change is one step, so a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has happened to a database.
    pub(super) fn wake(&self, database: DatabaseId) {
        if let Some(watched) = self.lock().get(&database) {
            watched.notify.notify_waiters();
        }
    }

    fn wait(&self, database: DatabaseId) -> Waiting<'_> {
        let mut all = self.lock();
        let watched = all.entry(database).or_default();
        watched.waiting += 1;
        Waiting { watchers: self, database, notify: Arc::clone(&watched.notify) }
    }
}

/// One who waits. The last of a database takes its entry away.
struct Waiting<'a> {
    watchers: &'a Watchers,
    database: DatabaseId,
    notify: Arc<Notify>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut all = self.watchers.lock();
        if let Some(watched) = all.get_mut(&self.database) {
            watched.waiting -= 1;
            if watched.waiting == 0 {
                all.remove(&self.database);
            }
        }
    }
}

impl EmbeddedStore {
    pub(super) async fn watch_head(&self, database: DatabaseId, known: Txid) -> Result<Txid> {
        let waiting = self.watchers.wait(database);
        loop {
            let mut woken = pin!(waiting.notify.notified());
            // From here on no call of `wake` is missed.
            woken.as_mut().enable();
            let txid = self.read(|engine| Ok(stored::head(&engine.view(), database)?.txid))?;
            if txid > known {
                return Ok(txid);
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    /// Each of the last two saw the other still waiting when they ended at the same moment, and the entry stayed.
    #[test]
    fn the_last_who_waits_leaves_nothing_behind() {
        let watchers = Watchers::default();
        let both = Barrier::new(2);
        let wait_and_end = || {
            for number in 0..300_000 {
                let waiting = watchers.wait(DatabaseId(number));
                both.wait();
                drop(waiting);
            }
        };
        thread::scope(|scope| {
            scope.spawn(wait_and_end);
            wait_and_end();
        });
        assert!(watchers.lock().is_empty(), "{} are left", watchers.lock().len());
    }
}
