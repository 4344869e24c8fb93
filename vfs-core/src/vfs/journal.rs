//! Rollback journals. They never reach the store: after a crash it holds a committed state. They are kept in memory, past
//! a bound in a local temporary file without a name.
//!
//! SQLite finalises its journal after the commit point, when nothing may fail any more. So truncating to nothing, and
//! overwriting the header, touch only memory. What the journal held is of no use from then on, and is given up: SQLite takes
//! zeros in the place of old records for their end (file format, 3).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::Vfs;
use crate::error::{Error, Result};

/// Bytes kept in memory.
const IN_MEMORY: usize = 1 << 20;

/// What SQLite overwrites the header with in a journal that it keeps.
const NO_HEADER: [u8; 28] = [0; 28];

/// One rollback journal.
#[derive(Debug, Default)]
pub struct Journal {
    /// The first bytes.
    memory: Vec<u8>,
    /// The bytes after [`IN_MEMORY`].
    rest: Option<File>,
    size: u64,
    /// Who is told when it is finalised, and its name.
    vfs: Option<(Arc<Vfs>, String)>,
}

impl Journal {
    pub(super) fn new(vfs: Arc<Vfs>, name: &str) -> Self {
        Self { vfs: Some((vfs, name.to_owned())), ..Self::default() }
    }

    /// Its size.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads at an offset. Returns how many bytes there were; the rest of `out` is zeros.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        out.fill(0);
        let there = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let out = &mut out[..there];
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.memory.len());
        let near = &self.memory[start..];
        let count = near.len().min(out.len());
        out[..count].copy_from_slice(&near[..count]);
        let far_from = IN_MEMORY.saturating_sub(usize::try_from(offset).unwrap_or(usize::MAX)).min(there);
        if far_from < there
            && let Some(file) = &self.rest
        {
            let at = (offset + far_from as u64).saturating_sub(IN_MEMORY as u64);
            read_fully(file, &mut out[far_from..], at).map_err(|e| local(&e).with_source(e))?;
        }
        Ok(there)
    }

    /// Writes at an offset.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset == 0 && bytes == NO_HEADER {
            self.finalise();
            self.size = self.size.max(NO_HEADER.len() as u64);
            return Ok(());
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let near = IN_MEMORY.saturating_sub(start).min(bytes.len());
        let (first, second) = bytes.split_at(near);
        if !second.is_empty() {
            if self.rest.is_none() {
                self.rest = Some(tempfile::tempfile().map_err(|e| local(&e).with_source(e))?);
            }
            if let Some(file) = &self.rest {
                let at = (offset + near as u64).saturating_sub(IN_MEMORY as u64);
                file.write_all_at(second, at).map_err(|e| local(&e).with_source(e))?;
            }
        }
        if !first.is_empty() {
            let end = start + first.len();
            if self.memory.len() < end {
                self.memory.resize(end, 0);
            }
            self.memory[start..end].copy_from_slice(first);
        }
        self.size = self.size.max(offset + bytes.len() as u64);
        Ok(())
    }

    /// Sets the size. Never fails, and never touches the disk.
    pub fn truncate(&mut self, size: u64) {
        self.size = size;
        self.memory.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        if size == 0 {
            self.finalise();
        }
    }

    /// Frees the memory and the room on disk: all that is there reads as zeros. Closing the file cannot fail.
    fn finalise(&mut self) {
        self.memory = Vec::new();
        self.rest = None;
        if let Some((vfs, name)) = &self.vfs {
            vfs.journal_finalised(name);
        }
    }
}

fn read_fully(file: &File, out: &mut [u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], at + done as u64) {
            // A hole at the end: zeros, as everywhere.
            Ok(0) => return Ok(()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn local(error: &io::Error) -> Error {
    let words = format!("the temporary file of a large rollback journal: {error}");
    if error.kind() == io::ErrorKind::StorageFull || error.kind() == io::ErrorKind::QuotaExceeded {
        Error::full(words)
    } else {
        Error::unavailable(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_journal_is_a_file(ops in prop::collection::vec((0u64..3, 0u64..2_500_000, 1usize..70_000, any::<u8>()), 1..25)) {
            let mut journal = Journal::default();
            let mut model: Vec<u8> = Vec::new();
            for (op, at, len, byte) in ops {
                let start = usize::try_from(at).unwrap();
                if op == 0 && byte < 60 {
                    // SQLite truncates journals to nothing, and then writes them from the start.
                    journal.truncate(0);
                    model.clear();
                } else if op == 0 && byte < 120 {
                    // Or it overwrites the header of one that it keeps: the rest counts no more.
                    journal.write(0, &NO_HEADER).unwrap();
                    model.fill(0);
                    model.resize(model.len().max(28), 0);
                    prop_assert!(journal.rest.is_none() && journal.memory.capacity() == 0);
                } else {
                    // It never leaves holes that it reads.
                    let start = start.min(model.len());
                    journal.write(start as u64, &vec![byte; len]).unwrap();
                    model.resize(model.len().max(start + len), 0);
                    model[start..start + len].fill(byte);
                }
                let mut out = vec![1; len];
                let count = journal.read(at, &mut out).unwrap();
                let start = start.min(model.len());
                let mut want = model[start..model.len().min(start + len)].to_vec();
                if start as u64 != at {
                    want.clear();
                }
                prop_assert_eq!(count, want.len());
                want.resize(len, 0);
                prop_assert!(out == want);
                prop_assert_eq!(journal.size(), model.len() as u64);
            }
        }
    }

    /// The file may be on a full disk, or gone: what SQLite does after its commit point does not touch it.
    #[test]
    fn finalising_never_touches_the_file() {
        let page = vec![9; 70_000];
        for overwrites in [false, true] {
            let mut journal = Journal::default();
            for at in 0..40 {
                journal.write(at * 70_000, &page).unwrap();
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &page).unwrap();
            // Every change of it fails.
            journal.rest = Some(File::open(file.path()).unwrap());
            journal.write(IN_MEMORY as u64, &page).unwrap_err();
            if overwrites {
                journal.write(0, &NO_HEADER).unwrap();
                assert_eq!(journal.size(), 2_800_000);
            } else {
                journal.truncate(0);
                assert_eq!(journal.size(), 0);
            }
            assert_eq!(std::fs::read(file.path()).unwrap(), page);
            assert!(journal.rest.is_none() && journal.memory.capacity() == 0);
            let mut header = [1; 28];
            assert_eq!(journal.read(0, &mut header).unwrap(), if overwrites { 28 } else { 0 });
            assert_eq!(header, NO_HEADER);
            journal.write(0, &page).unwrap();
            journal.read(0, &mut header).unwrap();
            assert_eq!(header, [9; 28]);
        }
    }
}
