//! Damage to what a large transaction has left over is in nobody's way: nobody needs it any more.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use litefleet::store::{
    CheckpointRequest, CommitMode, CommitRequest, Opened, PageRow, PageStore, RowKind, SessionRequest, StageRequest,
    Staged,
};
use litefleet::{DatabaseName, PageNo, Result, SessionId, UnixMillis};
use litefleet_embedded::EmbeddedStore;
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::listing::{commit_id, config, flip, in_a_table, open, request};
use crate::now;

/// More than the table of the heads has room for in memory, and less than twice as many: the first of them come into a file, the
/// only one. Were there so many that the engine merged them, it would meet the damage as well.
const REQUESTS: u64 = 1000;
/// Of those that are in the file, and that the commit does not clear away.
const DAMAGED: Range<u64> = 400..500;

pub(crate) const SESSION: SessionId = SessionId([1; 16]);

pub(crate) struct Databases {
    pub(crate) store: EmbeddedStore,
    /// With staging entries that are left over, and damaged.
    large: Opened,
    pub(crate) other: Opened,
}

impl Databases {
    fn open(path: &Path) -> Self {
        let store = EmbeddedStore::open(config(path)).unwrap();
        let session = SESSION;
        let lifetime = Duration::from_secs(3600);
        now(store.start_session(SessionRequest { session, label: "test".into(), lifetime })).unwrap();
        let [large, other] = ["large", "other"].map(|name| open(&store, DatabaseName::new(name).unwrap(), session));
        Self { store, large, other }
    }

    /// With one of the entries damaged that a commit leaves over.
    pub(crate) fn damaged(path: &Path) -> Self {
        let mut all = Self::open(path);
        for sequence in 1..=REQUESTS {
            all.stage(sequence);
        }
        let commit = all.staged_commit(REQUESTS);
        now(all.store.commit(vec![commit], CommitMode::Independent)).unwrap().remove(0).unwrap();
        while !in_a_table(path, &listed(DAMAGED.end)) {
            std::thread::yield_now();
        }
        // The file is complete then.
        drop(all);
        flip(path, DAMAGED, listed, 1);
        Self::open(path)
    }

    fn stage(&mut self, sequence: u64) {
        let opened = &self.large;
        let row = PageRow {
            page: page(sequence),
            txid: opened.head.txid.next(),
            kind: RowKind::Image,
            bytes: Bytes::from_static(b"image"),
        };
        let request = StageRequest {
            database: opened.database,
            epoch: opened.head.epoch,
            expected: opened.head.txid,
            generation: opened.head.generation,
            sequence,
            after: sequence - 1,
            rows: vec![row],
        };
        now(self.store.stage(request)).unwrap();
    }

    fn staged_commit(&self, last: u64) -> CommitRequest {
        let staged = Staged { generation: self.large.head.generation, last };
        CommitRequest { staged: Some(staged), ..request(&self.large, commit_id(last)) }
    }

    fn checkpoint(&self) -> Result<()> {
        now(self.store.checkpoint(CheckpointRequest {
            database: self.large.database,
            epoch: self.large.head.epoch,
            txid: self.large.head.txid,
            since: self.large.head.checkpoint,
            attempt: 0,
            piece: 0,
            rows: Vec::new(),
            last: false,
            time: UnixMillis(0),
            warm: Vec::new(),
        }))
    }
}

/// Like nothing else in the store's files.
fn page(sequence: u64) -> PageNo {
    PageNo(0x5EED_0000 + u32::try_from(sequence).unwrap())
}

/// What its entry has in it.
fn listed(sequence: u64) -> Vec<u8> {
    [page(sequence).get().to_le_bytes(); 2].concat()
}

/// No checkpoint of the database was made any more, nothing of it was collected, and its log grew.
#[test]
fn a_checkpoint_is_made_past_damage_to_what_is_left_over() {
    let folder = tempfile::tempdir().unwrap();
    let all = Databases::damaged(folder.path());
    // The first clears away all that can be read.
    for _ in 0..2 {
        all.checkpoint().unwrap();
    }
    drop(all);
    let engine = fjall::Database::builder(folder.path().join("data")).open().unwrap();
    let heads = engine.keyspace("heads", fjall::KeyspaceCreateOptions::default).unwrap();
    let ends = [heads.prefix(b"s").next(), heads.prefix(b"s").next_back()];
    let ends = ends.map(|entry| entry.unwrap().into_inner());
    assert!(ends.iter().all(Result::is_err), "only what is damaged is left: {ends:?}");
}

/// The words of the warnings of a thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target().starts_with("litefleet_embedded")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            if field.name() == "message" {
                self.0.lock().unwrap().push(format!("{value:?}"));
            }
        });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Each checkpoint, and each commit of a large transaction, said it again, for ever.
#[test]
fn what_cannot_be_removed_is_told_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Databases::damaged(folder.path());
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || {
        for _ in 0..3 {
            all.checkpoint().unwrap();
        }
        all.stage(1);
        let commit = all.staged_commit(1);
        now(all.store.commit(vec![commit], CommitMode::Independent)).unwrap().remove(0).unwrap();
    });
    let told = warnings.0.lock().unwrap();
    assert_eq!(told.iter().filter(|words| words.contains("left over")).count(), 1, "{told:?}");
}

/// It failed, and with it those of other databases that came in the same call.
#[test]
fn a_staged_commit_is_made_past_damage_to_what_is_left_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Databases::damaged(folder.path());
    all.stage(1);
    let commits = vec![all.staged_commit(1), request(&all.other, commit_id(0))];
    let outcome = now(all.store.commit(commits, CommitMode::Independent)).unwrap();
    assert!(outcome.iter().all(Result::is_ok), "{outcome:?}");
}
