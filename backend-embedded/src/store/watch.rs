//! Waiting for commits.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use litefleet::{DatabaseId, Result, Txid};
use tokio::sync::Notify;

use super::{EmbeddedStore, stored};

/// Who waits for which database.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<HashMap<DatabaseId, Arc<Notify>>>);

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, HashMap<DatabaseId, Arc<Notify>>> {
        // Every change is one step, so a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has happened to a database.
    pub(super) fn wake(&self, database: DatabaseId) {
        if let Some(waiting) = self.lock().get(&database) {
            waiting.notify_waiters();
        }
    }

    fn wait(&self, database: DatabaseId) -> Waiting<'_> {
        let notify = Arc::clone(self.lock().entry(database).or_default());
        Waiting { watchers: self, database, notify }
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
        // One is the map's, one is this one's.
        if Arc::strong_count(&self.notify) <= 2 {
            all.remove(&self.database);
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
