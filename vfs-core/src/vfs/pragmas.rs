//! Pragmas for a person at a prompt.

use std::fmt::Write as _;

use super::locks::LockLevel;
use super::main_file::MainFile;
use crate::config::LeaseMode;
use crate::error::{Error, Result};

impl MainFile {
    /// Answers a pragma. `None`: it is not ours.
    pub fn pragma(&mut self, name: &str, argument: Option<&str>) -> Option<Result<String>> {
        let name = name.to_ascii_lowercase();
        if name == "locking_mode"
            && argument.is_some_and(|argument| argument.eq_ignore_ascii_case("exclusive"))
            && self.database().settings().lease == LeaseMode::Transaction
        {
            return Some(Err(Error::invalid(
                "locking_mode=EXCLUSIVE keeps the lock between transactions, lease=transaction gives it back: open the \
                 database with lease=exclusive",
            )));
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
            None => line("holder", &"not this process"),
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
        let released = self.vfs().fleet().release(self.database())?;
        Ok(if released { "released" } else { "the lease was not held" }.to_owned())
    }
}
