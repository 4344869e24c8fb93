//! Whether the engine has let go of its journals.
//!
//! Closing the engine waits for its workers, but takes one for gone before that has dropped what it holds. Whoever drops the
//! journal last writes to it what is left of a write that failed. Were the store open again by then, that would stand over
//! a later commit, or behind it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use litefleet::clock::{Clock, SystemClock};
use litefleet::{Error, Result};
use rustix::io::Errno;

use crate::engine::pause;

/// For so long is looked: it is a matter of microseconds. With many descriptors one look takes some milliseconds itself.
const BOUND: Duration = Duration::from_secs(1);
/// For so long is waited where it cannot be seen.
const BLIND: Duration = Duration::from_millis(100);

/// What a look has shown.
#[derive(Debug)]
enum Look {
    Free,
    Held,
    /// Nothing, for want of a descriptor or of memory: a later one may show it.
    Hindered(io::Error),
    /// Nothing, as ever: everywhere but on Linux, and in a process that may not look at itself.
    Blind,
}

/// Waits until nobody in this process has a journal open.
pub(crate) fn await_release(data: &Path) -> Result<()> {
    await_free(data, BOUND, || look(data))
}

fn await_free(data: &Path, bound: Duration, mut look: impl FnMut() -> Look) -> Result<()> {
    let clock = SystemClock::default();
    let start = clock.monotonic();
    loop {
        let seen = look();
        let waited = clock.monotonic().saturating_sub(start);
        let data = data.display();
        match seen {
            Look::Free => return Ok(()),
            Look::Blind if waited >= BLIND => return Ok(()),
            Look::Held if waited >= bound => {
                return Err(Error::unavailable(format!(
                    "a thread of this process still has a journal in {data} open: try again"
                )));
            }
            Look::Hindered(error) if waited >= bound => {
                return Err(Error::unavailable(format!(
                    "whether a thread of this process still has a journal in {data} open cannot be seen in /proc/self/fd \
                     ({error}): raise the limit of open files, or close some, and try again"
                ))
                .with_source(error));
            }
            _ => pause(),
        }
    }
}

fn look(data: &Path) -> Look {
    match is_held(data) {
        Ok(true) => Look::Held,
        Ok(false) => Look::Free,
        Err(error) => failed(error),
    }
}

fn failed(error: io::Error) -> Look {
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Look::Hindered(error),
        _ => Look::Blind,
    }
}

fn is_held(data: &Path) -> io::Result<bool> {
    for descriptor in fs::read_dir("/proc/self/fd")? {
        // One that is closed meanwhile leads nowhere.
        let Ok(file) = fs::read_link(descriptor?.path()) else { continue };
        if file.parent() == Some(data) && file.extension().is_some_and(|extension| extension == "jnl") {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use litefleet::ErrorKind;

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
            assert!(matches!(look(&directory.data()), Look::Held));
            drop(engine);
            await_release(&directory.data()).unwrap();
            assert!(matches!(look(&directory.data()), Look::Free));
        }
    }

    /// So many looks were taken, however long one took: with thousands of descriptors that was many times the bound.
    #[test]
    fn looks_that_take_long_are_fewer() {
        let mut looks = 0;
        let waited = await_free(Path::new("data"), Duration::from_millis(1), || {
            looks += 1;
            pause();
            Look::Held
        });
        assert_eq!(waited.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(looks, 1);
    }

    fn too_many_files() -> Look {
        failed(Errno::MFILE.into())
    }

    /// It was taken for a system where nothing is to be seen: after a tenth of a second the store was opened unseen.
    #[test]
    fn a_process_without_a_free_descriptor_does_not_open_unseen() {
        let refused = await_free(Path::new("data"), 2 * BLIND, too_many_files).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.message().contains("open files"), "{refused}");
        // It is seen as soon as there is one.
        let mut looks = [Look::Free, Look::Held, too_many_files()].into_iter().collect::<Vec<_>>();
        await_free(Path::new("data"), Duration::MAX, || looks.pop().unwrap()).unwrap();
        assert!(looks.is_empty());
    }

    /// As where there is no such folder: it is waited a little, and then opened.
    #[test]
    fn where_nothing_is_ever_seen_it_goes_on() {
        let nothing = || failed(io::ErrorKind::NotFound.into());
        await_free(Path::new("data"), Duration::ZERO, nothing).unwrap();
    }
}
