//! The databases that are open in this process.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::database::{Database, Role};
use super::fleet::FleetInner;
use crate::types::{DatabaseId, DatabaseName};

/// Open databases by name and role.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<(DatabaseName, Role), Weak<Database>>>);

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<(DatabaseName, Role), Weak<Database>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open database of that name, or a new one where there is none, or only one that has stopped.
    pub(super) fn connect(
        &self,
        fleet: &Arc<FleetInner>,
        name: &DatabaseName,
        role: Role,
        create: bool,
    ) -> Arc<Database> {
        let mut open = self.lock();
        let key = (name.clone(), role);
        let running = open.get(&key).and_then(Weak::upgrade).filter(|database| database.stopped().is_none());
        let database = running.unwrap_or_else(|| {
            let new = Database::new(Arc::clone(fleet), name.clone(), role);
            open.insert(key, Arc::downgrade(&new));
            new
        });
        database.connect();
        if create {
            database.create.store(true, Ordering::Release);
        }
        database
    }

    /// Whether somebody here uses the lease of a database, other than `but`. `None` when somebody may be about to: it is
    /// being taken by one that is, or may become, a connection to it.
    pub(super) fn uses_lease(&self, id: DatabaseId, but: Option<&Database>) -> Option<bool> {
        let mut about_to = false;
        for database in self.all().into_iter().filter(|database| database.role == Role::Writer) {
            if but.is_some_and(|but| std::ptr::eq(but, Arc::as_ptr(&database))) {
                continue;
            }
            let taking = database.acquiring.try_lock();
            let core = database.core();
            if core.stopped.is_some() || core.database.is_some_and(|other| other != id) {
                continue;
            }
            if core.lease.is_some() && core.database.is_some() {
                return Some(true);
            }
            about_to |= taking.is_err();
        }
        if about_to { None } else { Some(false) }
    }

    /// Whether somebody here uses the lease of a database of this name, or is taking it.
    pub(super) fn is_used(&self, name: &DatabaseName, id: DatabaseId) -> bool {
        self.all().into_iter().filter(|database| database.role == Role::Writer).any(|database| {
            let taking = database.acquiring.try_lock().is_err();
            let core = database.core();
            let is_it = core.database.map_or(database.name == *name, |known| known == id);
            is_it && core.stopped.is_none() && (taking || core.lease.is_some())
        })
    }

    /// Forgets a database that nobody uses any more.
    pub(super) fn forget(&self, database: &Arc<Database>) {
        let mut open = self.lock();
        let key = (database.name.clone(), database.role);
        // One reference is the caller's: whoever had another would connect through it again.
        if open.get(&key).is_some_and(|weak| weak.as_ptr() == Arc::as_ptr(database)) && !database.is_connected() {
            open.remove(&key);
        }
    }

    /// Whether a name is that of an open database.
    pub(super) fn is_open(&self, name: &str) -> bool {
        self.lock().iter().any(|((open, _), weak)| open.as_str() == name && weak.strong_count() > 0)
    }

    /// All that are open.
    pub(super) fn all(&self) -> Vec<Arc<Database>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }
}
