//! Which database a name meant the last time. Only ever a guess: what is read of the guessed database counts only when
//! the name, read in the same transaction, says the same.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use litefleet::{DatabaseId, DatabaseName};

/// How many names are remembered.
const NAMES: usize = 4_096;

/// Names that were opened.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<DatabaseName, DatabaseId>>);

impl Names {
    pub(super) fn recall(&self, name: &DatabaseName) -> Option<DatabaseId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    pub(super) fn remember(&self, name: &DatabaseName, id: DatabaseId) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES && !names.contains_key(name) {
            // A guess is cheap to do without.
            names.clear();
        }
        names.insert(name.clone(), id);
    }
}
