//! A look at the engine's lists of its tables before it opens them.
//!
//! Each keyspace names the version of its list in `current`, with a checksum that the engine does not look at: over a damaged list
//! it fails with whatever it meets, or panics while it panics, which ends the process.
//!
//! `current` is `version: u64, xxh3 of the file v<version>: u128, 0: u8`, all little-endian: the format of lsm-tree 3.1. It is
//! replaced when that file is whole and durable.

use std::fs;
use std::io;
use std::path::Path;

use litefleet::{Error, Result};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::io_error;

const KEYSPACES: &str = "keyspaces";
const CURRENT: &str = "current";
const XXH3: u8 = 0;

/// `Corrupt` when a list of tables in the engine's directory is not what was written.
pub(crate) fn check(data: &Path) -> Result<()> {
    let folder = data.join(KEYSPACES);
    let failed = |error| io_error(&format!("cannot read the lists of tables in {}", folder.display()), error);
    for keyspace in unless_missing(fs::read_dir(&folder)).map_err(failed)?.into_iter().flatten() {
        let keyspace = keyspace.map_err(failed)?.path();
        let path = keyspace.join(CURRENT);
        // One whose making was interrupted has none yet.
        let Some(current) = unless_missing(fs::read(&path)).map_err(failed)? else { continue };
        let named = parse(&current).ok_or_else(|| damaged(&path))?;
        let path = keyspace.join(format!("v{}", named.version));
        let list = unless_missing(fs::read(&path)).map_err(failed)?;
        if list.is_none_or(|list| xxh3_128(&list) != named.checksum) {
            return Err(damaged(&path));
        }
    }
    Ok(())
}

struct Named {
    version: u64,
    checksum: u128,
}

fn parse(current: &[u8]) -> Option<Named> {
    let (version, rest) = current.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let named = Named { version: u64::from_le_bytes(*version), checksum: u128::from_le_bytes(*checksum) };
    (rest.first() == Some(&XXH3)).then_some(named)
}

fn damaged(path: &Path) -> Error {
    Error::corrupt(format!("{} is damaged: restore the store from a backup", path.display()))
}

fn unless_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        found => found.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use litefleet::ErrorKind;

    use super::*;
    use crate::config::EmbeddedConfig;
    use crate::store::EmbeddedStore;

    /// The engine panicked in a panic, which ended the process; or it could not read, and the store was said to be out of reach.
    #[test]
    fn each_flipped_byte_of_a_list_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let open = || EmbeddedStore::open(EmbeddedConfig::new(folder.path()));
        drop(open().unwrap());
        let mut flipped = 0;
        for keyspace in fs::read_dir(folder.path().join("data/keyspaces")).unwrap() {
            let keyspace = keyspace.unwrap().path();
            let current = keyspace.join(CURRENT);
            let list = format!("v{}", parse(&fs::read(&current).unwrap()).unwrap().version);
            // An older one may be there still, of which nothing is needed.
            for file in [current, keyspace.join(list)] {
                let whole = fs::read(&file).unwrap();
                for at in (0..whole.len()).step_by(7) {
                    let mut bytes = whole.clone();
                    bytes[at] ^= 0x10;
                    fs::write(&file, bytes).unwrap();
                    let error = open().map(drop).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{} at {at}: {error}", file.display());
                    flipped += 1;
                }
                fs::write(&file, whole).unwrap();
            }
        }
        assert!(flipped > 100, "{flipped}");
        open().unwrap();
    }
}
