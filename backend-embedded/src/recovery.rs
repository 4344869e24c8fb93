//! Keeps an engine open: after an error that ends its taking writes it is closed and opened again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, RwLock};

use litefleet::{Error, Result};

use crate::config::EmbeddedConfig;
use crate::directory::Directory;
use crate::engine::Engine;
use crate::error::{Fault, Outcome, says_full};
use crate::journal;

/// The place of the open engine.
#[derive(Debug)]
pub(crate) struct Slot {
    /// `None` while it could not be opened again. Before `directory`, whose lock must outlive it.
    engine: RwLock<Option<Engine>>,
    config: EmbeddedConfig,
    directory: Directory,
}

impl Slot {
    pub(crate) fn open(config: EmbeddedConfig) -> Result<Self> {
        let (directory, new) = Directory::open(&config.path)?;
        let engine = open_engine(&directory, &config)?;
        if new {
            directory.finish()?;
        }
        Ok(Self { engine: RwLock::new(Some(engine)), config, directory })
    }

    pub(crate) fn config(&self) -> &EmbeddedConfig {
        &self.config
    }

    /// Runs something on the engine, which it keeps open meanwhile; opens it first when it is closed.
    pub(crate) fn with<T>(&self, run: impl FnOnce(&Engine) -> Outcome<T>) -> Outcome<T> {
        let guard = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = guard.as_ref() {
            return guarded(|| run(engine));
        }
        drop(guard);
        self.open_if_closed()?;
        let guard = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        match guard.as_ref() {
            Some(engine) => guarded(|| run(engine)),
            // Another caller's reopening has failed in between.
            None => Err(Fault::Stopped),
        }
    }

    /// Closes the engine after `cause`, and opens it again: what the journal holds is the truth from then on.
    pub(crate) fn reopen(&self, cause: &Fault) -> Outcome<()> {
        tracing::warn!(
            path = %self.directory.path().display(),
            error = cause as &dyn std::error::Error,
            "opening the store again after an error"
        );
        let mut guard = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        // Every handle must go before the files can be opened again.
        *guard = None;
        let rewrite = match cause {
            Fault::Write(error) => !says_full(error),
            _ => false,
        };
        if rewrite {
            journal::rewrite(&self.directory.data()).map_err(Fault::Closed)?;
        }
        *guard = Some(open_engine(&self.directory, &self.config).map_err(Fault::Closed)?);
        Ok(())
    }

    fn open_if_closed(&self) -> Outcome<()> {
        let mut guard = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(open_engine(&self.directory, &self.config).map_err(Fault::Closed)?);
        }
        Ok(())
    }
}

fn open_engine(directory: &Directory, config: &EmbeddedConfig) -> Result<Engine> {
    catch_unwind(AssertUnwindSafe(|| Engine::open(directory, config))).unwrap_or_else(|_| {
        Err(Error::corrupt(format!(
            "the storage engine panicked when it opened {}: its files are probably damaged",
            directory.data().display()
        )))
    })
}

/// The engine panics on some damaged files, where it trusts what it reads.
fn guarded<T>(run: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Fault::Panicked))
}
