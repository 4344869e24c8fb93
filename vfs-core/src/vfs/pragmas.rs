//! Pragmas for a person at a prompt.

use std::fmt::Write as _;

use super::locks::LockLevel;
use super::main_file::MainFile;
use crate::engine::Role;
use crate::error::{Error, Result};

/// What pragmas have told SQLite about a file.
#[derive(Debug)]
pub(super) struct Modes {
    pub(super) exclusive: bool,
    journal: &'static str,
}

impl Default for Modes {
    fn default() -> Self {
        Self { exclusive: false, journal: "delete" }
    }
}

impl MainFile {
    /// Answers a pragma. `None`: it is not ours.
    pub fn pragma(&mut self, name: &str, argument: Option<&str>) -> Option<Result<String>> {
        let name = name.to_ascii_lowercase();
        match (name.as_str(), argument) {
            ("locking_mode", Some(mode)) => return self.locking_mode(mode),
            ("journal_mode", Some(mode)) => return self.journal_mode(mode).map(Ok),
            _ => {}
        }
        let known = ["litefleet_status", "litefleet_checkpoint", "litefleet_release", "litefleet_error"];
        if !known.contains(&name.as_str()) {
            return None;
        }
        if let Some(argument) = argument {
            return Some(Err(Error::invalid(format!("PRAGMA {name} takes no argument, and was given {argument:?}"))));
        }
        Some(match name.as_str() {
            "litefleet_checkpoint" => self.checkpoint_now(),
            "litefleet_release" => self.release_now(),
            "litefleet_error" => {
                self.learn_failure();
                Ok(self.last_error().map(ToString::to_string).unwrap_or_default())
            }
            _ => Ok(self.status_text()),
        })
    }

    /// SQLite is about to change the locking mode. Its lock stays between transactions then, and the lease with it. A follower
    /// keeps nobody from writing, and would never see another commit: the answer in SQLite's place is the mode that stays.
    fn locking_mode(&mut self, mode: &str) -> Option<Result<String>> {
        let exclusive = mode.eq_ignore_ascii_case("exclusive");
        if !exclusive && !mode.eq_ignore_ascii_case("normal") {
            return None;
        }
        if exclusive && self.database().role() == Role::Follower {
            return Some(Ok("normal".to_owned()));
        }
        self.set_exclusive(exclusive).err().map(Err)
    }

    /// SQLite is about to change the journal mode: the answer in its place for a WAL under `locking_mode=EXCLUSIVE`, where it
    /// would not ask for shared memory, and then not be able to open the WAL. As without EXCLUSIVE, nothing changes.
    fn journal_mode(&mut self, mode: &str) -> Option<String> {
        let mode = mode.to_ascii_lowercase();
        // As SQLite does, in its order: the first that begins so.
        let known = ["delete", "persist", "off", "truncate", "memory", "wal"];
        let found = known.into_iter().find(|known| known.starts_with(&mode))?;
        let modes = self.modes();
        if found != "wal" {
            modes.journal = found;
            return None;
        }
        modes.exclusive.then(|| modes.journal.to_owned())
    }

    fn status_text(&self) -> String {
        let status = self.database().status();
        let fleet = self.vfs().fleet();
        let cache = fleet.cache();
        let mut text = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            // Writing to a string cannot fail.
            let _written = writeln!(text, "{key}: {value}");
        };
        line("database", &self.database().name());
        line("id", &status.database.map_or_else(|| "not opened yet".to_owned(), |id| id.to_string()));
        line("role", &format!("{:?}", self.database().role()).to_lowercase());
        line("txid", &status.txid);
        line("checkpoint", &status.checkpoint);
        line("horizon", &status.horizon);
        match status.epoch {
            Some(epoch) => {
                line("epoch", &epoch);
                line("holder", &fleet.settings().label);
            }
            None => match &status.holder {
                Some(label) => line("holder", &format_args!("{label}, as last heard")),
                None => line("holder", &"none, as last heard"),
            },
        }
        line("size_bytes", &status.size);
        line("tail_records", &status.tail_records);
        line("tail_bytes", &status.tail_bytes);
        line("snapshots", &status.snapshots);
        line("cache_hits", &cache.hits);
        line("cache_misses", &cache.misses);
        line("cache_pages", &cache.entries);
        line("store_round_trips", &fleet.counters().round_trips());
        if let Some(error) = status.stopped {
            line("stopped", &error);
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn checkpoint_now(&mut self) -> Result<String> {
        let database = self.database();
        let txid = self.vfs().fleet().checkpoint(database)?;
        Ok(format!("checkpoint at txid {txid}"))
    }

    fn release_now(&mut self) -> Result<String> {
        if self.level() > LockLevel::Shared || self.database().has_writer() {
            return Err(Error::invalid("end the write transaction before the lease is given back"));
        }
        if self.database().needs_lease() {
            let words =
                "a connection has locked the database exclusively: PRAGMA locking_mode=NORMAL, and a read, end that";
            return Err(Error::invalid(words));
        }
        let released = self.vfs().fleet().release(self.database())?;
        Ok(if released { "released" } else { "the lease was not held" }.to_owned())
    }
}
