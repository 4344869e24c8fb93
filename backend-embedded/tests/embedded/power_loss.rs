//! Power failures: what was not synced is lost, or kept in part.
//!
//! A child works under a recorder (`record.c`, preloaded) that writes down everything it does to files. From the record
//! the directory is rebuilt as it could be after a power failure at any moment: what an fsync covered is there; of the
//! writes after it each 4 KiB piece is there or not; of the names made, moved and removed in a directory since that
//! directory was synced, the first few are done. Then the store is opened from that and checked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{child, open, workload};

const PIECE: u64 = 4096;

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Create(String, u64),
    Mkdir(String),
    Write(u64, u64, Vec<u8>),
    Truncate(u64, u64),
    Sync(u64),
    /// An fsync that failed.
    Lost(u64),
    Rename(String, String),
    Remove(String),
    SyncDirectory(String),
}

pub(crate) fn parse(mut rest: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<37>() {
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        let length = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()) as usize;
        let (inode, a) = (number(1), number(9));
        let (first, tail) = tail.split_at(length(25));
        let (second, tail) = tail.split_at(length(29));
        let (data, tail) = tail.split_at(length(33));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        events.push(match head[0] {
            1 => Event::Create(text(first), inode),
            2 => Event::Mkdir(text(first)),
            3 => Event::Write(inode, a, data.to_vec()),
            4 => Event::Truncate(inode, a),
            5 => Event::Sync(inode),
            6 => Event::Rename(text(first), text(second)),
            7 | 8 => Event::Remove(text(first)),
            9 => Event::SyncDirectory(text(first)),
            10 => Event::Lost(inode),
            other => panic!("an entry of kind {other}"),
        });
        rest = tail;
    }
    assert!(rest.is_empty(), "the record ends in the middle of an entry");
    events
}

#[derive(Clone, Debug, Default)]
struct Content {
    pieces: BTreeMap<u64, Vec<u8>>,
    length: u64,
}

impl Content {
    fn write(&mut self, mut at: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let inside = usize::try_from(at % PIECE).unwrap();
            let n = data.len().min(4096 - inside);
            let piece = self.pieces.entry(at / PIECE).or_insert_with(|| vec![0; 4096]);
            piece[inside..inside + n].copy_from_slice(&data[..n]);
            at += n as u64;
            data = &data[n..];
        }
        self.length = self.length.max(at);
    }

    fn truncate(&mut self, length: u64) {
        if length < self.length {
            self.pieces.retain(|piece, _| piece * PIECE < length);
            if let Some(piece) = self.pieces.get_mut(&(length / PIECE)) {
                piece[usize::try_from(length % PIECE).unwrap()..].fill(0);
            }
        }
        self.length = length;
    }

    fn save(&self, path: &Path) {
        let mut file = File::create(path).unwrap();
        for (piece, bytes) in &self.pieces {
            file.seek(SeekFrom::Start(piece * PIECE)).unwrap();
            file.write_all(bytes).unwrap();
        }
        file.set_len(self.length).unwrap();
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Clone, Debug)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Clone, Debug)]
enum Naming {
    Make(String, Node),
    Move(String, String),
    Remove(String),
}

fn directory_of(path: &str) -> String {
    path.rsplit_once('/').map_or(String::new(), |(directory, _)| directory.to_owned())
}

fn name(names: &mut BTreeMap<String, Node>, naming: &Naming) {
    match naming {
        Naming::Make(path, node) => {
            names.insert(path.clone(), node.clone());
        }
        Naming::Move(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
        Naming::Remove(path) => {
            names.remove(path);
        }
    }
}

/// What is durable, and what is not yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: Vec<(Content, Vec<Change>)>,
    /// Which file an inode is now: numbers are used again.
    inodes: BTreeMap<u64, usize>,
    names: BTreeMap<String, Node>,
    pending: BTreeMap<String, Vec<Naming>>,
}

impl Disk {
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Create(path, inode) => {
                self.files.push(Default::default());
                self.inodes.insert(*inode, self.files.len() - 1);
                self.naming(path, Naming::Make(path.clone(), Node::File(self.files.len() - 1)));
            }
            Event::Mkdir(path) => self.naming(path, Naming::Make(path.clone(), Node::Directory)),
            Event::Rename(from, to) => {
                assert_eq!(directory_of(from), directory_of(to), "moves between directories are not modelled");
                self.naming(to, Naming::Move(from.clone(), to.clone()));
            }
            Event::Remove(path) => self.naming(path, Naming::Remove(path.clone())),
            Event::Write(inode, at, data) => self.changes(*inode).push(Change::Write(*at, data.clone())),
            Event::Truncate(inode, length) => self.changes(*inode).push(Change::Truncate(*length)),
            Event::Sync(inode) => {
                let (content, changes) = &mut self.files[self.inodes[inode]];
                for change in changes.drain(..) {
                    match change {
                        Change::Write(at, data) => content.write(at, &data),
                        Change::Truncate(length) => content.truncate(length),
                    }
                }
            }
            // What was written is no longer pending. A new length is not data.
            Event::Lost(inode) => self.changes(*inode).retain(|change| matches!(change, Change::Truncate(_))),
            Event::SyncDirectory(path) => {
                for naming in self.pending.remove(path).unwrap_or_default() {
                    name(&mut self.names, &naming);
                }
            }
        }
    }

    fn naming(&mut self, path: &str, naming: Naming) {
        self.pending.entry(directory_of(path)).or_default().push(naming);
    }

    fn changes(&mut self, inode: u64) -> &mut Vec<Change> {
        &mut self.files[self.inodes[&inode]].1
    }

    /// Writes a directory as it may be after a power failure now: what is not durable survives with this likelihood.
    pub(crate) fn save(&self, root: &Path, random: &mut StdRng, likelihood: f64) {
        let mut names = self.names.clone();
        for pending in self.pending.values() {
            for naming in pending.iter().take_while(|_| random.random_bool(likelihood)) {
                name(&mut names, naming);
            }
        }
        fs::create_dir_all(root).unwrap();
        for (path, node) in &names {
            let path = root.join(path);
            // A directory whose own making is lost takes its content with it.
            if !path.parent().unwrap().is_dir() {
                continue;
            }
            match node {
                Node::Directory => fs::create_dir_all(path).unwrap(),
                Node::File(file) => {
                    let (content, changes) = &self.files[*file];
                    let mut content = content.clone();
                    for change in changes {
                        survive(&mut content, change, random, likelihood);
                    }
                    content.save(&path);
                }
            }
        }
    }
}

fn survive(content: &mut Content, change: &Change, random: &mut StdRng, likelihood: f64) {
    match change {
        Change::Truncate(length) => {
            if random.random_bool(likelihood) {
                content.truncate(*length);
            }
        }
        Change::Write(at, data) => {
            let (mut at, mut data) = (*at, &data[..]);
            while !data.is_empty() {
                let n = data.len().min(usize::try_from(PIECE - at % PIECE).unwrap());
                if random.random_bool(likelihood) {
                    content.write(at, &data[..n]);
                }
                at += n as u64;
                data = &data[n..];
            }
        }
    }
}

pub(crate) fn compile(directory: &Path) -> std::path::PathBuf {
    let library = directory.join("record.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/embedded/record.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(&library)
        .arg(source)
        .args(["-ldl", "-lpthread"])
        .status()
        .expect("the test needs a C compiler named cc");
    assert!(status.success());
    library
}

fn record(directory: &Path, seed: u64, rounds: u64) -> Vec<Event> {
    let root = directory.join("recorded");
    fs::create_dir(&root).unwrap();
    let log = directory.join("record");
    let out = child::command("record", &root, seed, rounds)
        .env("LD_PRELOAD", compile(directory))
        .env("RECORD_ROOT", &root)
        .env("RECORD_LOG", &log)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    let events = parse(&fs::read(&log).unwrap());
    // The record is complete: what it leads to is what is there.
    let mut disk = Disk::default();
    for event in &events {
        disk.apply(event);
    }
    let rebuilt = directory.join("rebuilt");
    disk.save(&rebuilt, &mut StdRng::seed_from_u64(0), 1.0);
    let status = Command::new("diff").arg("-r").arg(&root).arg(&rebuilt).status().unwrap();
    assert!(status.success(), "the recorder has missed something");
    events
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the recorder is preloaded as on Linux")]
fn power_failures_lose_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let seed = std::env::var("LITEFLEET_SEED").map_or(1, |seed| seed.parse().unwrap());
    let images: u64 = std::env::var("LITEFLEET_IMAGES").map_or(60, |images| images.parse().unwrap());
    let events = record(directory.path(), seed, 400);
    let mut random = StdRng::seed_from_u64(seed);
    // A tenth of the failures are early ones, while the store is being made.
    let mut moments: Vec<usize> =
        (0..images).map(|n| random.random_range(0..if n % 10 == 0 { 200 } else { events.len() })).collect();
    moments.sort_unstable();
    let syncs = events.iter().filter(|event| matches!(event, Event::Sync(_))).count();
    let journals: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Create(path, inode) if Path::new(path).extension().is_some_and(|it| it == "jnl") => Some(*inode),
            _ => None,
        })
        .collect();
    let is_shortened = |event: &&Event| matches!(event, Event::Truncate(inode, 0) if journals.contains(inode));
    let shortened = events.iter().filter(is_shortened).count();
    println!("{} events, {syncs} of them fsyncs; the journal was shortened {shortened} times", events.len());
    assert!(shortened > 4, "as the store was closed");
    let mut disk = Disk::default();
    let mut acks = String::new();
    let mut acks_inode = None;
    let mut done = 0;
    for moment in moments {
        for event in &events[done..moment] {
            match event {
                Event::Create(path, inode) if path == "acks" => acks_inode = Some(*inode),
                Event::Write(inode, _, data) if Some(*inode) == acks_inode => {
                    acks.push_str(std::str::from_utf8(data).unwrap());
                }
                _ => {}
            }
            disk.apply(event);
        }
        done = moment;
        let likelihood = [0.0, 0.3, 0.7, 0.95, 1.0][random.random_range(0..5)];
        let image = directory.path().join(format!("image-{moment}"));
        disk.save(&image, &mut random, likelihood);
        println!("power failure after event {moment}, {likelihood} of the rest survives");
        drop(workload::check(open(&image.join("store")), &workload::acks(&acks)));
        fs::remove_dir_all(&image).unwrap();
    }
    assert!(workload::acks(&acks).values().sum::<u64>() > 100, "there were commits");
}
