//! A workload whose every byte can be computed from where it stands, and the check that goes with it.
//!
//! Databases come in pairs, which commit atomically together. Every fifth commit is a staged transaction of four pages.
//! Checkpoints write six pages of their own. So whoever knows a head knows what must be there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use litefleet::store::{
    CheckpointRequest, CollectRequest, CommitMode, CommitRequest, DiscardRequest, HeadRequest, LeaseRequest, Lineage,
    OpenRequest, Opened, PageRow, PageStore, RowKind, SessionRequest, StageRequest, Staged, Tail,
};
use litefleet::{CommitId, DatabaseId, DatabaseName, PageNo, PageRange, SessionId, Txid, UnixMillis};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::now;

const PAIRS: u64 = 3;
const CHECKPOINT_PAGES: std::ops::RangeInclusive<u32> = 1..=6;
const STAGED_PAGES: std::ops::RangeInclusive<u32> = 20..=23;
const STAGED_EVERY: u64 = 5;

/// Bytes that follow from their place, and do not compress.
fn pattern(what: u8, database: u64, page: u32, txid: u64, length: usize) -> Bytes {
    let mut seed = [what; 32];
    seed[1..9].copy_from_slice(&database.to_le_bytes());
    seed[9..13].copy_from_slice(&page.to_le_bytes());
    seed[13..21].copy_from_slice(&txid.to_le_bytes());
    let mut bytes = vec![0; length];
    StdRng::from_seed(seed).fill(&mut bytes[..]);
    bytes.into()
}

fn record(database: u64, txid: u64) -> Bytes {
    let length = match txid % 7 {
        0 => 9000,
        3 => 0,
        n => usize::try_from(60 * n).expect("small"),
    };
    pattern(b'r', database, 0, txid, length)
}

fn commit_id(database: u64, txid: u64) -> CommitId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&database.to_be_bytes());
    id[8..].copy_from_slice(&txid.to_be_bytes());
    CommitId(id)
}

fn row(database: u64, page: u32, txid: u64) -> PageRow {
    PageRow {
        page: PageNo(page),
        txid: Txid(txid),
        kind: RowKind::Image,
        bytes: pattern(b'p', database, page, txid, 2000 + usize::try_from(txid % 3).expect("small") * 1000),
    }
}

fn name(index: u64) -> DatabaseName {
    DatabaseName::new(&format!("pair-{}/{}", index / 2, index % 2)).expect("a name")
}

/// The workload, at work.
pub(crate) struct Workload {
    store: Arc<EmbeddedStore>,
    random: StdRng,
    session: SessionId,
    open: BTreeMap<u64, Opened>,
}

impl Workload {
    pub(crate) fn start(store: Arc<EmbeddedStore>, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let session = SessionId(random.random());
        let lifetime = std::time::Duration::from_secs(3600);
        now(store.start_session(SessionRequest { session, label: "workload".into(), lifetime })).expect("it starts");
        let open = BTreeMap::new();
        let mut workload = Self { store, random, session, open };
        for index in 0..PAIRS * 2 {
            workload.open(index);
        }
        workload
    }

    fn open(&mut self, index: u64) {
        let request = OpenRequest {
            name: name(index),
            create: true,
            lease: Some(LeaseRequest { session: self.session, force: true }),
            known: None,
            tail_bytes: usize::MAX,
        };
        let mut opened = now(self.store.open(request)).expect("it opens");
        if opened.head.staged {
            let request = DiscardRequest {
                database: opened.database,
                epoch: opened.head.epoch,
                expected: opened.head.txid,
                generation: opened.head.generation,
                limit: 3,
            };
            let mut discarded = now(self.store.discard_staged(request)).expect("it is discarded");
            while !discarded.done {
                discarded = now(self.store.discard_staged(request)).expect("it is discarded");
            }
            opened.head.generation = discarded.generation;
        }
        self.open.insert(index, opened);
    }

    fn random_pair(&mut self) -> [u64; 2] {
        let pair = self.random.random_range(0..PAIRS);
        [pair * 2, pair * 2 + 1]
    }

    /// One step. What is acknowledged is told to `say`.
    pub(crate) fn round(&mut self, say: &mut dyn FnMut(&str)) {
        match self.random.random_range(0..20) {
            0..14 => {
                let pair = self.random_pair();
                self.commit(&pair, say);
            }
            14..17 => {
                for index in self.random_pair() {
                    self.checkpoint(index);
                }
            }
            17..19 => {
                for index in self.random_pair() {
                    self.collect(index);
                }
            }
            _ => {
                for index in self.random_pair() {
                    self.open(index);
                }
            }
        }
    }

    fn commit(&mut self, pair: &[u64], say: &mut dyn FnMut(&str)) {
        let mut requests = Vec::new();
        for index in pair {
            let opened = &self.open[index];
            let database = opened.database;
            let txid = opened.head.txid.get() + 1;
            let last = STAGED_PAGES.count() as u64;
            let staged = Staged { generation: opened.head.generation, last };
            let staged = txid.is_multiple_of(STAGED_EVERY).then_some(staged);
            if let Some(Staged { generation, .. }) = staged {
                for (sequence, page) in (1..).zip(STAGED_PAGES) {
                    let request = StageRequest {
                        database,
                        epoch: opened.head.epoch,
                        expected: opened.head.txid,
                        generation,
                        sequence,
                        after: sequence - 1,
                        rows: vec![row(database.get(), page, txid)],
                    };
                    now(self.store.stage(request)).expect("it is staged");
                }
            }
            requests.push(CommitRequest {
                database,
                epoch: opened.head.epoch,
                expected: opened.head.txid,
                follows: opened.head.commit_id,
                commit_id: commit_id(database.get(), txid),
                size: txid * 4096,
                record: record(database.get(), txid),
                staged,
                release: false,
            });
        }
        for outcome in now(self.store.commit(requests, CommitMode::Atomic)).expect("it commits") {
            outcome.expect("it commits");
        }
        for index in pair {
            let opened = self.open.get_mut(index).expect("it is open");
            opened.head.txid = opened.head.txid.next();
            opened.head.commit_id = commit_id(opened.database.get(), opened.head.txid.get());
            if opened.head.txid.get().is_multiple_of(STAGED_EVERY) {
                opened.head.generation += 1;
            }
            say(&format!("ack {} {}", opened.database, opened.head.txid));
        }
    }

    fn checkpoint(&mut self, index: u64) {
        let opened = self.open.get_mut(&index).expect("it is open");
        let (database, txid) = (opened.database, opened.head.txid);
        // Two calls; sometimes the second never comes.
        let pages: Vec<u32> = CHECKPOINT_PAGES.collect();
        let complete = self.random.random_bool(0.8);
        for (part, pages) in pages.chunks(3).enumerate() {
            let last = part == 1;
            if last && !complete {
                return;
            }
            let request = CheckpointRequest {
                database,
                epoch: opened.head.epoch,
                txid,
                since: Txid(0),
                attempt: 0,
                piece: 0,
                rows: pages.iter().map(|page| row(database.get(), *page, txid.get())).collect(),
                last,
                time: UnixMillis(txid.get()),
                warm: Vec::new(),
            };
            now(self.store.checkpoint(request)).expect("it is checkpointed");
        }
        opened.head.checkpoint = txid;
    }

    fn collect(&mut self, index: u64) {
        let opened = &self.open[&index];
        let request = CollectRequest {
            database: opened.database,
            epoch: opened.head.epoch,
            at_most: Txid(opened.head.checkpoint.get().saturating_sub(3)),
            completed_before: UnixMillis(u64::MAX),
            pages: vec![PageRange::new(PageNo(1), PageNo(30))],
            log_through: opened.head.checkpoint,
        };
        now(self.store.collect(request)).expect("it is collected");
    }
}

/// Checks that everything acknowledged is there, and that everything there is right; then goes on with the work.
pub(crate) fn check(store: EmbeddedStore, acks: &BTreeMap<u64, u64>) -> Arc<EmbeddedStore> {
    let mut heads = BTreeMap::new();
    for entry in now(store.list("", None, 100)).expect("a list") {
        let listed = entry.state.expect("it is whole");
        let id = listed.database;
        let head = now(store.head(HeadRequest {
            database: id,
            known: listed.head.checkpoint,
            epoch: None,
            tail_bytes: usize::MAX,
        }))
        .expect("a head");
        assert_eq!(head.name, entry.name);
        let Tail::Complete(tail) = head.tail else { panic!("the tail of {id} is {:?}", head.tail) };
        let head = head.head;
        assert_eq!(tail.len() as u64, head.txid.get() - head.checkpoint.get(), "the tail has no gap");
        for log in &tail {
            assert_eq!(log.record, record(id.get(), log.txid.get()), "record {} of {id}", log.txid);
        }
        if head.txid.get() > 0 {
            assert_eq!(head.commit_id, commit_id(id.get(), head.txid.get()));
            assert_eq!(head.size, head.txid.get() * 4096);
        }
        assert!(head.horizon <= head.checkpoint && head.checkpoint <= head.txid);
        check_rows(&store, id, head.checkpoint, head.txid);
        heads.insert(entry.name.as_str().to_owned(), (id.get(), head.txid.get()));
    }
    for (id, acknowledged) in acks {
        let found = heads.values().find(|(found, _)| found == id);
        let (_, txid) = found.unwrap_or_else(|| panic!("database {id} is gone, it had {acknowledged} commits"));
        assert!(txid >= acknowledged, "database {id} is at {txid}, {acknowledged} was acknowledged");
    }
    for pair in 0..PAIRS {
        let txid = |half: u64| heads.get(name(pair * 2 + half).as_str()).map_or(0, |(_, txid)| *txid);
        assert_eq!(txid(0), txid(1), "pair {pair} was committed by halves");
    }
    let store = Arc::new(store);
    let mut workload = Workload::start(store.clone(), 99);
    for opened in workload.open.values() {
        let rows = now(store.scan(opened.database, None, usize::MAX)).expect("a scan");
        let above = rows.iter().find(|row| row.txid > opened.head.txid);
        assert!(above.is_none(), "a staged row is left over: {above:?}");
    }
    for _ in 0..20 {
        workload.round(&mut |_| {});
    }
    store
}

fn check_rows(store: &EmbeddedStore, id: DatabaseId, checkpoint: Txid, head: Txid) {
    let lineage = [Lineage { database: id, max_txid: Txid::MAX }];
    let read = |pages: std::ops::RangeInclusive<u32>, at: Txid| {
        let range = PageRange::new(PageNo(*pages.start()), PageNo(*pages.end()));
        let rows = now(store.read_pages(&lineage, &[range], at)).expect("rows").rows;
        for found in &rows {
            assert_eq!(found.row, row(id.get(), found.row.page.get(), found.row.txid.get()));
        }
        rows.iter().map(|found| found.row.txid.get()).collect::<Vec<_>>()
    };
    if checkpoint.get() > 0 {
        assert_eq!(read(CHECKPOINT_PAGES, checkpoint), [checkpoint.get(); 6], "checkpoint of {id}");
    }
    read(CHECKPOINT_PAGES, head);
    let staged = head.get() / STAGED_EVERY * STAGED_EVERY;
    let expected = if staged == 0 { vec![] } else { vec![staged; 4] };
    assert_eq!(read(STAGED_PAGES, head), expected, "staged rows of {id} at {head}");
}

/// The acknowledgements in what a child said.
pub(crate) fn acks(text: &str) -> BTreeMap<u64, u64> {
    let mut acks = BTreeMap::new();
    // The last line may be torn.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.lines() {
        // The test program's own first words end without a line break.
        let Some(at) = line.find("ack ") else { continue };
        let mut words = line[at + 4..].split(' ').map(|word| word.parse::<u64>().expect("a number"));
        let (id, txid) = (words.next().expect("an id"), words.next().expect("a txid"));
        let newest = acks.entry(id).or_insert(txid);
        *newest = txid.max(*newest);
    }
    acks
}

/// Writes `megabytes` of page rows, in checkpoints with commits in between, and says how much memory that took.
pub(crate) fn fill(path: &Path, megabytes: u64) {
    let config = EmbeddedConfig::new(path).cache_bytes(8 << 20);
    let store = Arc::new(EmbeddedStore::open(config).expect("the store opens"));
    let mut workload = Workload::start(store.clone(), 1);
    let opened = workload.open[&0].clone();
    let id = opened.database;
    let mut txid = opened.head.txid;
    let image = pattern(b'i', 0, 0, 0, 4096);
    for chunk in 0..megabytes {
        workload.commit(&[0], &mut |_| {});
        txid = txid.next();
        let rows = (0..256).map(|n| PageRow {
            page: PageNo(u32::try_from(chunk % 64 * 256 + n).expect("small") + 100),
            txid,
            kind: RowKind::Image,
            bytes: image.clone(),
        });
        let request = CheckpointRequest {
            database: id,
            epoch: opened.head.epoch,
            txid,
            since: Txid(0),
            attempt: 0,
            piece: 0,
            rows: rows.collect(),
            last: true,
            time: UnixMillis(0),
            warm: Vec::new(),
        };
        now(store.checkpoint(request)).expect("it is checkpointed");
    }
    println!("peak {}", peak_kib());
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
