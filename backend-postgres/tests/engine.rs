//! SQLite over the engine over Postgres, directly and through PgBouncer in transaction mode.
#![cfg(feature = "servers")]

mod support;

use std::sync::Arc;

use litefleet::FleetSettings;
use litefleet::store::PageStore;
use litefleet_conformance::engine_cases::EngineHarness;
use litefleet_conformance::engine_tests;
use support::{Stores, bouncer, fresh_schema, server};

impl EngineHarness for Stores {
    fn store(&self) -> Arc<dyn PageStore> {
        Arc::new(self.open(&fresh_schema()))
    }

    fn settings(&self) -> FleetSettings {
        FleetSettings::default()
    }
}

engine_tests!(postgres, Stores::at(server().url()));
engine_tests!(postgres_bouncer, Stores::at(bouncer().url()));
