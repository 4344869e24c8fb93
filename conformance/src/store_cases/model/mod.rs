//! The oracle of the random histories: what every page holds at every txid, and which rows and records must be stored.

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use litefleet::store::{PageRow, PageStore, RowKind};
use litefleet::{ErrorKind, PageRange, Txid, UnixMillis};
use rand::Rng;
use rand::rngs::StdRng;

use super::fencing::{attempts, refuse_all};
use crate::fixture::{Writer, image, lease_request, refused, singles};

/// Pages 1 to this.
const PAGES: u32 = 7;

/// What a page holds: a number, of which 0 means zeros.
type Content = BTreeMap<u32, u16>;

pub(crate) struct Model {
    store: Arc<dyn PageStore>,
    writer: Writer,
    deposed: Option<Writer>,
    /// The content at each txid, from 0 on.
    history: Vec<Content>,
    /// The pages that each commit touched.
    touched: Vec<BTreeSet<u32>>,
    rows: BTreeMap<(u32, u64), (RowKind, Bytes)>,
    log: BTreeMap<u64, Bytes>,
    log_start: u64,
    horizon: u64,
    checkpoint: u64,
    /// Completed checkpoints, and when they were completed.
    completed: BTreeMap<u64, u64>,
    time: u64,
    generation: u64,
}

fn bytes(value: u16) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

fn value(bytes: &[u8]) -> u16 {
    bytes.try_into().map_or(0, u16::from_be_bytes)
}

/// Page and value of each change, three bytes each.
fn encode(changes: &Content) -> Vec<u8> {
    let one = |(page, value): (&u32, &u16)| {
        let [high, low] = value.to_be_bytes();
        [u8::try_from(*page).expect("few pages"), high, low]
    };
    changes.iter().flat_map(one).collect()
}

fn decode(record: &[u8]) -> Content {
    let changes = record.chunks_exact(3).map(|change| match change {
        [page, high, low] => (u32::from(*page), u16::from_be_bytes([*high, *low])),
        _ => unreachable!("the chunks have three bytes"),
    });
    changes.collect()
}

impl Model {
    pub(crate) async fn new(store: &Arc<dyn PageStore>, name: &str) -> Self {
        Self {
            store: Arc::clone(store),
            writer: Writer::new(store, name).await,
            deposed: None,
            history: vec![Content::new()],
            touched: vec![BTreeSet::new()],
            rows: BTreeMap::new(),
            log: BTreeMap::new(),
            log_start: 0,
            horizon: 0,
            checkpoint: 0,
            completed: BTreeMap::new(),
            time: 1000,
            generation: 0,
        }
    }

    fn txid(&self) -> u64 {
        self.writer.txid.get()
    }

    fn content(&self, txid: u64) -> &Content {
        usize::try_from(txid).ok().and_then(|at| self.history.get(at)).expect("a txid of the history")
    }

    fn changes(rng: &mut StdRng, zeros: bool) -> Content {
        let count = rng.random_range(1..=5);
        let value = |rng: &mut StdRng| match rng.random_range(0..4) {
            0 if zeros => 0,
            _ => rng.random_range(1..=u16::MAX),
        };
        (0..count).map(|_| (rng.random_range(1..=PAGES), value(rng))).collect()
    }

    /// Takes note of a commit that succeeded.
    fn committed(&mut self, changes: Content, record: Vec<u8>) {
        let mut content = self.history.last().cloned().unwrap_or_default();
        self.touched.push(changes.keys().copied().collect());
        content.extend(changes);
        content.retain(|_, value| *value != 0);
        self.history.push(content);
        self.log.insert(self.txid(), Bytes::from(record));
    }

    pub(crate) async fn commit(&mut self, rng: &mut StdRng) -> &'static str {
        let changes = Self::changes(rng, true);
        let record = encode(&changes);
        self.writer.commit(&record).await;
        self.committed(changes, record);
        "a commit"
    }

    /// Stages some pages, a few of them again, and commits them with a record that changes others.
    pub(crate) async fn staged_commit(&mut self, rng: &mut StdRng) -> &'static str {
        let next = self.txid() + 1;
        let mut staged = Content::new();
        let mut generation = 0;
        for _ in 0..rng.random_range(1..4) {
            let some = Self::changes(rng, false);
            let rows: Vec<PageRow> = some.iter().map(|(page, value)| image(*page, next, &bytes(*value))).collect();
            generation = self.writer.stage(&rows).await;
            staged.extend(some);
        }
        let mut changes = Self::changes(rng, true);
        changes.retain(|page, _| !staged.contains_key(page));
        let record = encode(&changes);
        let mut request = self.writer.request(&record);
        request.staged = Some(self.writer.staged(generation));
        let commit = self.writer.try_commit(request).await;
        commit.expect("it is its own staging");
        for (page, value) in &staged {
            self.rows.insert((*page, next), (RowKind::Image, bytes(*value)));
        }
        changes.extend(staged);
        self.committed(changes, record);
        "a staged commit"
    }

    async fn stage_some(&mut self, rng: &mut StdRng) {
        let next = self.txid() + 1;
        let rows: Vec<PageRow> =
            Self::changes(rng, false).iter().map(|(page, value)| image(*page, next, &bytes(*value))).collect();
        self.writer.stage(&rows).await;
    }

    pub(crate) async fn stage_and_discard(&mut self, rng: &mut StdRng) -> &'static str {
        self.stage_some(rng).await;
        if rng.random::<bool>() {
            self.checkpoint(rng, true).await;
            self.collect(rng).await;
        }
        self.writer.discard().await;
        "a discard"
    }

    pub(crate) async fn stage_and_lose_the_lease(&mut self, rng: &mut StdRng) -> &'static str {
        self.stage_some(rng).await;
        let mut flip = self.writer.request(b"");
        flip.staged = Some(self.writer.staged(self.writer.head().await.generation));
        let mut old = self.writer.clone();
        self.take_over().await;
        let late = old.try_commit(flip).await;
        refused(late, ErrorKind::Fenced, "the deposed holder's flip");
        self.writer.discard().await;
        "a takeover in the midst of a staged transaction"
    }

    pub(crate) async fn checkpoint(&mut self, rng: &mut StdRng, complete: bool) -> &'static str {
        if self.checkpoint == self.txid() {
            return "nothing: the checkpoint is at the head";
        }
        let txid = rng.random_range(self.checkpoint + 1..=self.txid());
        let touched: BTreeSet<u32> = (self.checkpoint + 1..=txid)
            .filter_map(|txid| self.touched.get(usize::try_from(txid).ok()?))
            .flatten()
            .copied()
            .collect();
        let mut rows = Vec::new();
        for page in touched {
            let there = self.rows.contains_key(&(page, txid));
            if there || (!complete && rng.random::<bool>()) {
                continue;
            }
            let value = self.content(txid).get(&page).copied().unwrap_or_default();
            let kind = self.choose_kind(rng, page, txid, value);
            let bytes = if kind == RowKind::Zero { Bytes::new() } else { bytes(value) };
            self.rows.insert((page, txid), (kind, bytes.clone()));
            let (page, txid) = (litefleet::PageNo(page), Txid(txid));
            rows.push(PageRow { page, txid, kind, bytes });
        }
        self.time += rng.random_range(0..1000);
        let done = self.writer.try_checkpoint(txid, &rows, complete, self.time);
        done.await.expect("the holder can");
        if complete {
            self.checkpoint = txid;
            self.completed.insert(txid, self.time);
            "a checkpoint"
        } else {
            "half a checkpoint"
        }
    }

    fn choose_kind(&self, rng: &mut StdRng, page: u32, txid: u64, value: u16) -> RowKind {
        if value == 0 {
            return RowKind::Zero;
        }
        let images: Vec<u64> = self
            .rows
            .range((page, 0)..(page, txid))
            .filter(|(_, (kind, _))| *kind == RowKind::Image)
            .map(|((_, txid), _)| *txid)
            .collect();
        match images.len() {
            0 => RowKind::Image,
            _ if rng.random::<bool>() => RowKind::Image,
            count => RowKind::Delta { base: Txid(images.get(rng.random_range(0..count)).copied().unwrap_or_default()) },
        }
    }

    pub(crate) async fn collect(&mut self, rng: &mut StdRng) -> &'static str {
        let at_most = match rng.random_range(0..4) {
            0 => u64::MAX,
            _ => rng.random_range(0..=self.txid() + 1),
        };
        let before = match rng.random_range(0..3) {
            0 => rng.random_range(0..=self.time),
            _ => self.time,
        };
        let through = rng.random_range(0..=self.txid());
        let pages: Vec<u32> = (1..=PAGES).filter(|_| rng.random_range(0..3) > 0).collect();
        let allowed = self
            .completed
            .iter()
            .filter(|(txid, time)| **txid <= at_most && **time <= before)
            .map(|(txid, _)| *txid)
            .max();
        self.horizon = self.horizon.max(allowed.unwrap_or_default());
        let dead: Vec<(u32, u64)> = pages.iter().flat_map(|page| self.dead(*page)).collect();
        for place in &dead {
            self.rows.remove(place);
        }
        self.log_start = self.log_start.max(through.min(self.horizon));
        let kept = self.log.split_off(&(self.log_start + 1));
        let gone = std::mem::replace(&mut self.log, kept).len() as u64;

        let (mut rows, mut records) = (0, 0);
        let mut chunks: Vec<Vec<PageRange>> = pages.chunks(self.store.limits().collect_pages).map(singles).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        for chunk in chunks {
            let mut request = self.writer.collect_request(at_most, chunk);
            request.completed_before = UnixMillis(before);
            request.log_through = Txid(through);
            let reply = self.store.collect(request).await.expect("the holder can");
            assert_eq!(reply.horizon, Txid(self.horizon));
            assert_eq!(reply.log_start, Txid(self.log_start));
            rows += reply.rows;
            records += reply.records;
        }
        assert_eq!((rows, records), (dead.len() as u64, gone));
        "a collection"
    }

    /// The dead rows of a page.
    fn dead(&self, page: u32) -> Vec<(u32, u64)> {
        let rows = || self.rows.range((page, 0)..=(page, u64::MAX));
        let below = |txid: &u64| *txid <= self.horizon;
        let Some(newest) = rows().map(|((_, txid), _)| *txid).filter(below).max() else {
            return Vec::new();
        };
        let bases: BTreeSet<u64> = rows()
            .filter(|((_, txid), _)| *txid >= newest)
            .filter_map(|(_, (kind, _))| match kind {
                RowKind::Delta { base } => Some(base.get()),
                RowKind::Image | RowKind::Zero => None,
            })
            .collect();
        let hides = bases.iter().any(|base| *base < newest);
        rows()
            .filter(|((_, txid), (kind, _))| {
                let zero = *kind == RowKind::Zero && *txid == newest && !hides;
                zero || (*txid < newest && !bases.contains(txid))
            })
            .map(|(place, _)| *place)
            .collect()
    }

    pub(crate) async fn take_over(&mut self) -> &'static str {
        let new = self.writer.take_over().await;
        self.deposed = Some(std::mem::replace(&mut self.writer, new));
        "a takeover"
    }

    pub(crate) async fn release_and_reopen(&mut self) -> &'static str {
        let (session, name) = (self.writer.session, self.writer.name.clone());
        let warm: Vec<u32> = (1..=PAGES).collect();
        self.writer.release(&warm).await.expect("the holder can");
        let opened = self.store.open(lease_request(&name, session, false)).await;
        let opened = opened.expect("the lease is free");
        let expected = self.expected(self.checkpoint);
        let found: Vec<PageRow> = opened.warm.into_iter().map(|read| read.row).collect();
        assert_eq!(found, expected);
        self.writer.epoch = opened.head.epoch;
        "a release and an open"
    }

    pub(crate) async fn write_as_the_deposed(&mut self) -> &'static str {
        if let Some(deposed) = &self.deposed {
            refuse_all(attempts(deposed), ErrorKind::Fenced, "by a deposed holder").await;
        }
        "late writes"
    }

    /// The rows that a read of all pages must bring.
    fn expected(&self, snapshot: u64) -> Vec<PageRow> {
        let mut rows = Vec::new();
        for page in 1..=PAGES {
            let newest = self.rows.range((page, 0)..=(page, snapshot)).next_back();
            let Some(((_, txid), (kind, bytes))) = newest else {
                continue;
            };
            let mut add = |txid: u64, kind: RowKind, bytes: &Bytes| {
                rows.push(PageRow { page: litefleet::PageNo(page), txid: Txid(txid), kind, bytes: bytes.clone() });
            };
            add(*txid, *kind, bytes);
            if let RowKind::Delta { base } = kind {
                let row = self.rows.get(&(page, base.get()));
                let (kind, bytes) = row.expect("a base is kept");
                add(base.get(), *kind, bytes);
            }
        }
        rows
    }
}
