//! Watching heads: one look at all that are watched, every so often, for the whole process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litefleet::{DatabaseId, Error, Txid};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Inner;
use crate::error::Outcome;
use crate::statements::Call;
use crate::wire::{bigints, column, number};

/// How long one call waits before it says that there is nothing new.
const PATIENCE: Duration = Duration::from_secs(3);

/// What was seen last of a head.
#[derive(Clone, Debug)]
enum Seen {
    Nothing,
    Txid(Txid),
    /// There is no such database.
    Gone,
    Failed(Error),
}

#[derive(Debug, Default)]
struct State {
    watched: HashMap<DatabaseId, watch::Sender<Seen>>,
    /// Somebody looks.
    looking: bool,
}

/// The heads that are watched.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<State>);

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that somebody still watches. None: whoever looks may stop.
    fn watched(&self) -> Vec<DatabaseId> {
        let mut state = self.lock();
        state.watched.retain(|_, sender| sender.receiver_count() > 0);
        state.looking = !state.watched.is_empty();
        state.watched.keys().copied().collect()
    }

    fn tell(&self, database: DatabaseId, seen: Seen) {
        if let Some(sender) = self.lock().watched.get(&database) {
            sender.send_replace(seen);
        }
    }
}

impl Inner {
    pub(super) async fn watch(self: &Arc<Self>, database: DatabaseId, known: Txid) -> Outcome<Txid> {
        let (mut receiver, begin) = {
            let mut state = self.watchers.lock();
            let sender = state.watched.entry(database).or_insert_with(|| watch::Sender::new(Seen::Nothing));
            let receiver = sender.subscribe();
            let begin = !std::mem::replace(&mut state.looking, true);
            (receiver, begin)
        };
        if begin {
            tokio::spawn(look(Arc::clone(self)));
        }
        let news = receiver.wait_for(|seen| match seen {
            Seen::Nothing => false,
            Seen::Txid(txid) => *txid > known,
            Seen::Gone | Seen::Failed(_) => true,
        });
        let seen = match timeout(PATIENCE, news).await {
            Ok(Ok(seen)) => seen.clone(),
            // Nothing new in time.
            Ok(Err(_)) | Err(_) => return Ok(known),
        };
        match seen {
            Seen::Txid(txid) => Ok(txid),
            Seen::Nothing => Ok(known),
            Seen::Gone => Err(Error::not_found(format!("there is no database with id {database}")).into()),
            Seen::Failed(error) => Err(error.into()),
        }
    }
}

/// Looks at the heads until nobody watches any.
async fn look(inner: Arc<Inner>) {
    loop {
        let watched = inner.watchers.watched();
        if watched.is_empty() {
            return;
        }
        match heads(&inner, &watched).await {
            Ok(found) => {
                for database in watched {
                    inner.watchers.tell(database, found.get(&database).cloned().unwrap_or(Seen::Gone));
                }
            }
            Err(fault) => {
                let error = Error::from(fault);
                for database in watched {
                    inner.watchers.tell(database, Seen::Failed(error.clone()));
                }
            }
        }
        sleep(inner.config.watch_interval).await;
    }
}

async fn heads(inner: &Inner, watched: &[DatabaseId]) -> Outcome<HashMap<DatabaseId, Seen>> {
    let rows = inner.control.call(Call::Heads, &[bigints(watched.iter().map(|id| id.get()))]).await?;
    let seen = |row| {
        let (database, txid) = (DatabaseId(number(column(row, 0)?)?), number(column(row, 1)?));
        // What is damaged is one database's misfortune.
        let seen = txid.map_or_else(
            |fault| Seen::Failed(Error::corrupt(format!("database with id {database}: its head is damaged: {fault}"))),
            |txid| Seen::Txid(Txid(txid)),
        );
        Ok((database, seen))
    };
    rows.iter().map(seen).collect()
}
