//! A look at the engine's journals before it opens them.
//!
//! After a power failure the end of the newest journal may be torn: whatever was written after the last fsync can be
//! there in part. The engine cuts off what it cannot parse, but it also does so in the middle of a damaged file, where
//! acknowledged commits would vanish without a word; and a torn batch that happens to parse makes it refuse to open.
//! So the journals are checked here first. Every durable batch carries a mark with its number. A torn end holds no mark
//! beyond the first number that is missing: whoever wrote the next one had seen the first become durable. Such an end is
//! cut off; anything else is reported as damage.
//!
//! A batch is `1, items: u32, sequence: u64`, then its items `2, type: u8, compression: u8, keyspace: u64, key length:
//! u16, value length: u32, stored length: u32, key, value` or `4, keyspace: u64`, then `3, xxh3 of the items: u64,
//! "FJL", 3`, all little-endian: the format of fjall 3.1.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use litefleet::{Error, Result};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use crate::directory::sync_directories;
use crate::error::io_error;
use crate::keys::{self, Kind};

const BUFFER: usize = 1 << 20;
const TRAILER: &[u8] = b"FJL\x03";
/// Number and checksum.
const MARK_BYTES: usize = 16;

/// Makes and recognises the marks of one store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    seed: u64,
}

impl Marks {
    /// Those of the store with this id: content of a database cannot pass for one without knowing it.
    pub(crate) fn new(store: [u8; 16]) -> Self {
        Self { seed: xxh3_64(&store) }
    }

    /// The value under the key of [`Kind::Sync`].
    pub(crate) fn encode(self, number: u64) -> [u8; MARK_BYTES] {
        let mut out = [0; MARK_BYTES];
        out[..8].copy_from_slice(&number.to_le_bytes());
        out[8..].copy_from_slice(&self.checksum(number).to_le_bytes());
        out
    }

    pub(crate) fn decode(self, value: &[u8]) -> Option<u64> {
        let number = u64::from_le_bytes(*value.first_chunk::<8>()?);
        let sum = u64::from_le_bytes(*value.get(8..)?.first_chunk::<8>()?);
        (sum == self.checksum(number)).then_some(number)
    }

    fn checksum(self, number: u64) -> u64 {
        xxh3_64_with_seed(&number.to_le_bytes(), self.seed)
    }
}

/// Checks the journals in the engine's directory, oldest first, and cuts a torn end off the newest that holds anything. Returns
/// how many bytes of batches they hold.
pub(crate) fn check(data: &Path, marks: Marks) -> Result<u64> {
    let failed = |error| io_error(&format!("cannot read the journals in {}", data.display()), error);
    let mut journals = list(data).map_err(failed)?;
    // The engine may begin a journal after a write to the one before has failed in its middle, and then writes nothing
    // to it: the torn end is the one before it.
    while let Some(last) = journals.last()
        && only_zeros(&mut BufReader::new(File::open(last).map_err(failed)?)).map_err(failed)?
    {
        journals.pop();
    }
    let newest = journals.pop();
    let mut last = None;
    let mut held = 0;
    for path in journals {
        let walk = Walk::over(&path, marks, last).map_err(failed)?;
        last = walk.last_mark;
        let valid = walk.valid;
        held += valid;
        if !walk.rest_is_zero().map_err(failed)? {
            return Err(damaged(&path, valid));
        }
    }
    let Some(path) = newest else { return Ok(held) };
    let walk = Walk::over(&path, marks, last).map_err(failed)?;
    let length = walk.length;
    let valid = walk.valid;
    held += valid;
    if valid == length {
        return Ok(held);
    }
    if walk.something_durable_is_behind().map_err(failed)? {
        return Err(damaged(&path, valid));
    }
    let cut = || {
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(valid)?;
        file.sync_all()
    };
    cut().map_err(failed)?;
    Ok(held)
}

/// Writes what the journals show once more, where it stands, and syncs it. After an fsync has failed the operating system
/// may show bytes that never reached the disk, and that it will not write again by itself.
///
/// In place it needs no room on a full disk, and whatever of it is done when the power fails does no harm. Blocks of
/// zeros are left out: those of a journal were never written, and may have no room of their own.
///
/// The engine may be open, but must have stopped. One of its workers may still remove a journal that nobody needs.
///
/// The engine's other files are synced by who writes them before another file names them, and one whose sync has failed
/// is named by none. So their directories are all that is left to be synced.
pub(crate) fn rewrite(data: &Path) -> Result<()> {
    list(data)
        .and_then(|journals| {
            journals.iter().try_for_each(|path| match write_again(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                written => written,
            })
        })
        .and_then(|()| sync_directories(data))
        .map_err(|error| io_error(&format!("cannot write the journals in {} again", data.display()), error))
}

/// Cuts all but the last batch off the journal, which is nothing but a mark: of the others nothing is needed any more, since all is
/// in the engine's tables, and durable. The mark stays, so that damage to what comes after it is told from a torn end.
///
/// Whatever of that is done when the power fails does no harm: what is replayed is in the tables already. The engine must be
/// closed. Where there are several journals it has its reasons, and they stay.
pub(crate) fn shorten(data: &Path, marks: Marks) -> io::Result<()> {
    let journals = list(data)?;
    let [path] = journals.as_slice() else { return Ok(()) };
    let Some(last) = Walk::over(path, marks, None)?.last else { return Ok(()) };
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut batch = Vec::new();
    file.seek(SeekFrom::Start(last.start))?;
    Read::by_ref(&mut file).take(last.end - last.start).read_to_end(&mut batch)?;
    file.set_len(0)?;
    // What is written next must not stand before what was cut off.
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&batch)?;
    file.sync_all()
}

fn write_again(path: &Path) -> io::Result<()> {
    const BLOCK: usize = 4096;
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut buffer = Vec::with_capacity(BUFFER);
    let (mut at, mut zeros) = (0, 0);
    loop {
        buffer.clear();
        file.seek(SeekFrom::Start(at))?;
        Read::by_ref(&mut file).take(BUFFER as u64).read_to_end(&mut buffer)?;
        if buffer.is_empty() {
            return file.sync_all();
        }
        for block in buffer.chunks(BLOCK) {
            if is_zero(block) {
                zeros += block.len();
            } else {
                // Those before it were written too, with what is here.
                file.seek(SeekFrom::Start(at - zeros as u64))?;
                while zeros > 0 {
                    let some = ZEROS.get(..zeros).unwrap_or(&ZEROS);
                    file.write_all(some)?;
                    zeros -= some.len();
                }
                file.write_all(block)?;
            }
            at += block.len() as u64;
        }
    }
}

fn damaged(path: &Path, at: u64) -> Error {
    Error::corrupt(format!(
        "the journal {} is damaged at offset {at}, and commits that were acknowledged stand behind it; \
         restore the store from a backup",
        path.display()
    ))
}

/// The journals, oldest first.
fn list(data: &Path) -> io::Result<Vec<PathBuf>> {
    if !data.try_exists()? {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(data)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number
            && path.extension().is_some_and(|extension| extension == "jnl")
        {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The number of a mark, where there is one.
type Mark = Option<u64>;

/// A walk over the batches of a journal, up to the first that is not whole.
struct Walk {
    reader: BufReader<File>,
    marks: Marks,
    length: u64,
    position: u64,
    /// Where the last whole batch ends.
    valid: u64,
    /// The newest mark in whole batches.
    last_mark: Option<u64>,
    /// Where the last whole batch is.
    last: Option<Range<u64>>,
}

impl Walk {
    fn over(path: &Path, marks: Marks, last_mark: Option<u64>) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let reader = BufReader::with_capacity(BUFFER, file);
        let mut walk = Self { reader, marks, length, position: 0, valid: 0, last_mark, last: None };
        while let Some(mark) = walk.batch()? {
            walk.last = Some(walk.valid..walk.position);
            walk.valid = walk.position;
            walk.last_mark = mark.or(walk.last_mark);
        }
        Ok(walk)
    }

    /// Reads one batch; its mark, if it has one. `None` when it is not whole.
    fn batch(&mut self) -> io::Result<Option<Mark>> {
        let Some(start) = self.take::<13>()? else {
            return Ok(None);
        };
        let [1, a, b, c, d, ..] = start else {
            return Ok(None);
        };
        let mut hash = Xxh3::new();
        let mut mark = None;
        for _ in 0..u32::from_le_bytes([a, b, c, d]) {
            match self.item(&mut hash)? {
                Some(found) => mark = found.or(mark),
                None => return Ok(None),
            }
        }
        let Some(end) = self.take::<13>()? else {
            return Ok(None);
        };
        let sum = hash.digest().to_le_bytes();
        let whole = end[0] == 3 && end[1..9] == sum && &end[9..] == TRAILER;
        Ok(whole.then_some(mark))
    }

    fn item(&mut self, hash: &mut Xxh3) -> io::Result<Option<Mark>> {
        let Some([tag]) = self.take::<1>()? else {
            return Ok(None);
        };
        hash.update(&[tag]);
        if tag == 4 {
            let keyspace = self.take::<8>()?;
            return Ok(keyspace.map(|bytes| {
                hash.update(&bytes);
                None
            }));
        }
        let (2, Some(header)) = (tag, self.take::<20>()?) else {
            return Ok(None);
        };
        hash.update(&header);
        let [_, _, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, v0, v1, v2, v3] = header;
        let key_bytes = u64::from(u16::from_le_bytes([k0, k1]));
        let value_bytes = u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
        if key_bytes + value_bytes > self.length - self.position {
            return Ok(None);
        }
        let mark_key = keys::singleton(Kind::Sync);
        let small = key_bytes == mark_key.len() as u64 && value_bytes == MARK_BYTES as u64;
        let mut start = Vec::new();
        let mut left = key_bytes + value_bytes;
        while left > 0 {
            let buffer = self.reader.fill_buf()?;
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else {
                return Ok(None);
            };
            hash.update(bytes);
            if small {
                start.extend_from_slice(bytes);
            }
            self.reader.consume(n);
            self.position += n as u64;
            left -= n as u64;
        }
        let mark = start.strip_prefix(mark_key.as_slice()).and_then(|value| self.marks.decode(value));
        Ok(Some(mark))
    }

    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.length - self.position < N as u64 {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.position += N as u64;
        Ok(Some(bytes))
    }

    fn rest_is_zero(mut self) -> io::Result<bool> {
        self.reader.seek(SeekFrom::Start(self.valid))?;
        only_zeros(&mut self.reader)
    }

    /// Whether a mark behind the last whole batch says that a durable batch is missing there.
    fn something_durable_is_behind(mut self) -> io::Result<bool> {
        let key = keys::singleton(Kind::Sync);
        let width = key.len() + MARK_BYTES;
        self.reader.seek(SeekFrom::Start(self.valid))?;
        let mut window: Vec<u8> = Vec::with_capacity(BUFFER + width);
        let mut smallest = u64::MAX;
        let mut largest = None;
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            window.extend_from_slice(buffer);
            let n = buffer.len();
            self.reader.consume(n);
            // Most of it is zeros that were never written.
            if is_zero(&window) {
                window.clear();
                continue;
            }
            for found in window.windows(width) {
                if let Some(value) = found.strip_prefix(key.as_slice())
                    && let Some(number) = self.marks.decode(value)
                {
                    smallest = smallest.min(number);
                    largest = largest.max(Some(number));
                }
            }
            let keep = window.len().saturating_sub(width - 1);
            window.drain(..keep);
        }
        // The first that is missing may be torn; where it is not known, the first that is found may be.
        let torn = self.last_mark.map_or(smallest, |last| last.saturating_add(1));
        Ok(largest.is_some_and(|largest| largest > torn))
    }
}

/// Whether nothing but zeros is left to be read.
fn only_zeros(reader: &mut BufReader<File>) -> io::Result<bool> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() || !is_zero(buffer) {
            return Ok(buffer.is_empty());
        }
        let n = buffer.len();
        reader.consume(n);
    }
}

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|chunk| Some(chunk) == ZEROS.get(..chunk.len()))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
