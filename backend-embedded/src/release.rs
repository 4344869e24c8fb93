//! Whether the engine has let go of its journals.
//!
//! Closing the engine waits for its workers, but takes one for gone before that has dropped what it holds. Whoever drops the
//! journal last writes to it what is left of a write that failed. Were the store open again by then, that would stand over
//! a later commit, or behind it.

use std::fs;
use std::path::Path;

use litefleet::{Error, Result};

use crate::engine::pause;

/// How often is looked, two milliseconds apart: it is a matter of microseconds.
const LOOKS: u32 = 500;
/// How often is waited for where it cannot be seen.
const BLIND: u32 = 50;

/// Waits until nobody in this process has a journal open.
pub(crate) fn await_release(data: &Path) -> Result<()> {
    for look in 0..LOOKS {
        match is_held(data) {
            Some(false) => return Ok(()),
            None if look >= BLIND => return Ok(()),
            _ => pause(),
        }
    }
    Err(Error::unavailable(format!(
        "a thread of this process still has a journal in {} open: try again",
        data.display()
    )))
}

/// `None` where that is not to be seen: everywhere but on Linux.
fn is_held(data: &Path) -> Option<bool> {
    let descriptors = fs::read_dir("/proc/self/fd").ok()?;
    // One that is closed meanwhile leads nowhere.
    let mut files = descriptors.filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok());
    Some(files.any(|file| file.parent() == Some(data) && file.extension().is_some_and(|extension| extension == "jnl")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EmbeddedConfig;
    use crate::directory::Directory;
    use crate::engine::Engine;

    /// Else nothing would ever be waited for.
    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "it cannot be seen there")]
    fn the_journal_of_an_open_engine_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(folder.path());
        let (directory, _) = Directory::open(&config.path).unwrap();
        for _ in 0..2 {
            // Made, and found.
            let engine = Engine::open(&directory, &config).unwrap();
            assert_eq!(is_held(&directory.data()), Some(true));
            drop(engine);
            await_release(&directory.data()).unwrap();
            assert_eq!(is_held(&directory.data()), Some(false));
        }
    }
}
