//! The stores under test: one for each run of a program, which finds it through its environment.

use std::path::Path;
use std::process::Command;

use crate::run::Settings;
use crate::server::Server;
use crate::{Locking, Store};

/// What a program finds its store by: see `conformance/suite-vfs`.
const STORE: &str = "LITEFLEET_SUITE_STORE";
const SETTINGS: &str = "LITEFLEET_SUITE_SETTINGS";

/// A store of its own for one run; what it takes of a server is given back with this value.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    url: String,
    part: Option<(&'a Server, String)>,
}

impl<'a> Place<'a> {
    /// A new store. A file of an embedded one is in `folder`.
    pub(crate) fn new(settings: &'a Settings, folder: &Path) -> Self {
        match &settings.server {
            Some(server) => {
                let part = server.part();
                Self { url: server.url(&part), part: Some((server, part)) }
            }
            None if settings.store == Store::Memory => Self { url: "memory".into(), part: None },
            None => Self { url: format!("embedded:{}", folder.display()), part: None },
        }
    }

    /// Tells a program that is about to start.
    pub(crate) fn tell(&self, command: &mut Command) {
        command.env(STORE, &self.url);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some((server, part)) = &self.part {
            server.remove(part);
        }
    }
}

/// The settings of the databases, as the environment has them. Processes that share a store take turns at each database.
pub(crate) fn settings(store: Store, locking: Locking) -> (&'static str, String) {
    let lease = if store.is_shared() { "&lease=transaction" } else { "" };
    (SETTINGS, format!("locking={}{lease}", locking.name()))
}
