//! The engine cases over the embedded store.

#![allow(clippy::unwrap_used, reason = "a test that cannot open its store has failed")]

use std::sync::Arc;

use litefleet::FleetSettings;
use litefleet::store::PageStore;
use litefleet_conformance::engine_cases::EngineHarness;
use litefleet_conformance::engine_tests;
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use tempfile::TempDir;

#[derive(Debug)]
struct Embedded {
    folder: TempDir,
}

impl Embedded {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }
}

impl EngineHarness for Embedded {
    fn store(&self) -> Arc<dyn PageStore> {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        Arc::new(EmbeddedStore::open(EmbeddedConfig::new(folder)).unwrap())
    }

    fn settings(&self) -> FleetSettings {
        FleetSettings::default()
    }
}

engine_tests!(embedded, Embedded::new());
