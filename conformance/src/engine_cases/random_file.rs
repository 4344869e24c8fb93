//! Random operations on files below SQLite, against a model of bytes per txid.

use std::collections::BTreeMap;

use litefleet::Txid;
use litefleet::vfs::{LockLevel, MainFile};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::bench::{Bench, EngineHarness, seeds};

/// The largest file.
const LARGEST: usize = 120_000;

/// One file of ours, and what it must read.
struct Open {
    file: MainFile,
    /// The snapshot of its read transaction.
    at: Option<Txid>,
    /// What its write transaction has made of that.
    written: Option<Vec<u8>>,
}

struct Model {
    random: StdRng,
    files: Vec<Open>,
    /// The bytes of every commit.
    commits: BTreeMap<Txid, Vec<u8>>,
    seed: u64,
    step: u32,
}

impl Model {
    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    fn head(&self) -> Txid {
        self.commits.last_key_value().map_or(Txid(0), |(txid, _)| *txid)
    }

    /// A place in the file, often where a page ends or a size is odd.
    fn place(&mut self) -> usize {
        match self.below(3) {
            0 => self.below(LARGEST / 4096) * 4096,
            1 => self.below(LARGEST / 512) * 512,
            _ => self.below(LARGEST),
        }
    }

    fn begin(&mut self, index: usize) {
        let head = self.head();
        self.files[index].file.lock(LockLevel::Shared).unwrap();
        self.files[index].at = Some(head);
    }

    /// Asks for the write lock, which is granted to one file at a time, on the newest snapshot.
    fn begin_write(&mut self, index: usize) {
        let free = self.files.iter().all(|open| open.written.is_none());
        let current = self.files[index].at == Some(self.head());
        let open = &mut self.files[index];
        // EXCLUSIVE from SHARED at once is for a journal that was left, and refused while others read.
        let granted = open.file.lock(LockLevel::Reserved).is_ok();
        assert_eq!(granted, free && current, "seed {}, step {}: the write lock", self.seed, self.step);
        if granted {
            open.file.lock(LockLevel::Exclusive).unwrap();
            open.written = Some(self.commits.get(&open.at.unwrap()).cloned().unwrap_or_default());
        }
    }

    fn write(&mut self, index: usize) {
        let (at, byte): (usize, u8) = (self.place(), self.random.random());
        let len = if self.below(4) == 0 { self.below(40_000) } else { self.below(5000) } + 1;
        let bytes: Vec<u8> = (0..len).map(|i| if i % 97 == 0 { byte } else { byte.wrapping_mul(3) }).collect();
        let open = &mut self.files[index];
        let written = open.written.as_mut().unwrap();
        open.file.write(at as u64, &bytes).unwrap();
        written.resize(written.len().max(at + len), 0);
        written[at..at + len].copy_from_slice(&bytes);
    }

    fn truncate(&mut self, index: usize) {
        let size = self.place();
        let open = &mut self.files[index];
        open.file.truncate(size as u64).unwrap();
        open.written.as_mut().unwrap().resize(size, 0);
    }

    fn commit(&mut self, index: usize) {
        let open = &mut self.files[index];
        open.file.commit_point(None).unwrap();
        let written = open.written.clone().unwrap();
        let txid = open.file.database().status().txid;
        // A transaction that changed nothing is no commit.
        if self.commits.last_key_value().is_none_or(|(last, _)| *last < txid) {
            self.commits.insert(txid, written);
        } else {
            assert!(self.commits[&txid] == written, "seed {}: something was changed", self.seed);
        }
        self.files[index].at = Some(txid);
    }

    fn end(&mut self, index: usize) {
        let open = &mut self.files[index];
        open.file.unlock(LockLevel::None);
        open.at = None;
        open.written = None;
    }

    fn step(&mut self, bench: &Bench) {
        self.step += 1;
        let count = self.files.len();
        let index = self.below(count);
        let (reading, writing) = (self.files[index].at.is_some(), self.files[index].written.is_some());
        match (self.below(20), reading, writing) {
            (0, ..) => {
                bench.fleet.checkpoint(self.files[index].file.database()).unwrap();
            }
            (_, false, _) => self.begin(index),
            (1..9, true, false) => self.begin_write(index),
            (1..9, _, true) => self.write(index),
            (9..12, _, true) => self.truncate(index),
            (12..18, _, true) => self.commit(index),
            (_, true, _) => self.end(index),
        }
    }

    /// Every open snapshot reads exactly the bytes of the model.
    fn check(&mut self) {
        let (seed, step) = (self.seed, self.step);
        let nothing = Vec::new();
        for (index, open) in self.files.iter_mut().enumerate() {
            let Some(at) = open.at else { continue };
            let committed = self.commits.get(&at).unwrap_or(&nothing);
            let expected = open.written.as_ref().unwrap_or(committed);
            let size = open.file.size();
            assert_eq!(size, expected.len() as u64, "seed {seed}, step {step}, file {index}: the size");
            let mut read = vec![1; expected.len() + 10];
            assert_eq!(open.file.read(0, &mut read).unwrap(), expected.len());
            let wrong = read.iter().zip(expected).position(|(a, b)| a != b);
            assert_eq!(wrong, None, "seed {seed}, step {step}, file {index} at txid {at}: first wrong byte");
        }
    }
}

/// Three files of one database: locks, writes, truncations, commits, rollbacks, checkpoints in between.
pub fn random_file_operations_match_the_model(harness: &dyn EngineHarness) {
    for seed in seeds(0..4) {
        let bench = Bench::with(harness, |settings| {
            if seed % 2 == 0 {
                settings.database.transaction_bytes = 64 << 10;
            }
        });
        let files = (0..3).map(|_| Open { file: bench.raw("a"), at: None, written: None }).collect();
        let random = StdRng::seed_from_u64(seed);
        let mut model = Model { random, files, commits: BTreeMap::new(), seed, step: 0 };
        for _ in 0..250 {
            model.step(&bench);
            model.check();
        }
        bench.verify("a");
        let other = bench.another();
        let newest = model.commits.last_key_value().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let mut read = vec![1; newest.len()];
        other.read("a", 0, &mut read);
        assert!(read == newest, "seed {seed}: another process");
    }
}
