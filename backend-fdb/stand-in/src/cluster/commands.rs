//! Commands of tests to the stand-in: what no real cluster has.

use std::time::Duration;

use super::protocol::{Reply, Version};
use super::{Cluster, WINDOW};
use crate::cluster::counters::Counters;
use crate::code::{self, Code};

impl Cluster {
    /// Does what `README.md` of this crate lists; a command that it does not know fails, and is named on standard error.
    pub(crate) fn command(&self, command: &str) -> Result<Reply, Code> {
        self.run(command).map(|()| Reply::Done).map_err(|problem| {
            eprintln!("litefleet stand-in: command '{command}': {problem}");
            code::CLIENT_INVALID_OPERATION
        })
    }

    pub(crate) fn counter(&self, name: &str) -> Result<u64, Code> {
        self.lock().counters.get(name).ok_or(code::CLIENT_INVALID_OPERATION)
    }

    fn run(&self, command: &str) -> Result<(), String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            ["faults", settings @ ..] => self.lock().faults.set(settings)?,
            ["next", faults @ ..] => self.lock().faults.tell(faults)?,
            ["latency", settings @ ..] => self.set_latency(settings)?,
            ["restart"] => self.restart(),
            ["advance", versions] => self.lock().ahead += number(versions)?,
            ["window", "default"] => self.lock().window = WINDOW,
            ["window", versions] => self.lock().window = number(versions)?,
            ["gather", commits] => {
                self.lock().gather = usize::try_from(number(commits)?).map_err(|error| error.to_string())?;
            }
            ["reply", "default"] => self.lock().store.set_reply_bytes(None),
            ["reply", bytes] => {
                let bytes = usize::try_from(number(bytes)?).map_err(|error| error.to_string())?;
                self.lock().store.set_reply_bytes(Some(bytes));
            }
            ["reset"] => self.lock().counters = Counters::default(),
            _ => return Err("unknown".to_owned()),
        }
        Ok(())
    }

    fn set_latency(&self, settings: &[&str]) -> Result<(), String> {
        let mut state = self.lock();
        for setting in settings {
            let (name, micros) = setting.split_once('=').ok_or_else(|| format!("no value in '{setting}'"))?;
            let time = Duration::from_micros(number(micros)?.unsigned_abs());
            match name {
                "version" => state.latency.read_version = time,
                "read" => state.latency.read = time,
                "commit" => state.latency.commit = time,
                "late" => state.latency.late = time,
                _ => return Err(format!("unknown latency '{name}'")),
            }
        }
        Ok(())
    }
}

fn number(word: &str) -> Result<Version, String> {
    word.parse().ok().filter(|number| *number >= 0).ok_or_else(|| format!("'{word}' is no number"))
}
