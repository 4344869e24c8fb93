//! Flipped bytes in the files: an error or the right answer, never a wrong one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use litefleet::store::{Lineage, PageStore, Tail};
use litefleet::{DatabaseId, ErrorKind, PageNo, PageRange, Txid};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::workload::Workload;
use crate::{now, open};

pub(crate) fn files(path: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.metadata().is_ok_and(|found| found.len() > 0) {
            out.push(path);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Everything that can be read of each database: a line for each answer.
fn read_all(store: &EmbeddedStore, ids: &[(DatabaseId, Txid)]) -> Vec<Result<String, ErrorKind>> {
    let mut out = Vec::new();
    for (id, at) in ids {
        let at = *at;
        let head = now(store.head(litefleet::store::HeadRequest {
            database: *id,
            known: Txid(0),
            epoch: None,
            tail_bytes: usize::MAX,
        }));
        out.push(
            head.map(|reply| format!("{} {} {:?}", reply.head.txid, reply.head.size, reply.head.commit_id))
                .map_err(|e| e.kind()),
        );
        let lineage = [Lineage { database: *id, max_txid: Txid::MAX }];
        for page in 1..30 {
            let range = PageRange::single(PageNo(page));
            let rows = now(store.read_pages(&lineage, &[range], at));
            out.push(rows.map(|rows| format!("{rows:?}")).map_err(|e| e.kind()));
        }
        out.push(now(store.scan(*id, None, 1000)).map(|rows| format!("{rows:?}")).map_err(|e| e.kind()));
        out.push(now(store.read_log(&lineage, Txid(0), at)).map(|rows| format!("{rows:?}")).map_err(|e| e.kind()));
    }
    out
}

#[test]
fn flipped_bytes_are_never_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let config = |path: &Path| EmbeddedConfig::new(path).memtable_bytes(1 << 16);
    // The first leaves tables alone behind: its journal is emptied. The second leaves all that it has written in the journal.
    for (seed, rounds, config) in [(5, 75, config(&whole)), (6, 15, EmbeddedConfig::new(&whole))] {
        let store = Arc::new(EmbeddedStore::open(config).unwrap());
        let mut workload = Workload::start(store, seed);
        for _ in 0..rounds {
            workload.round(&mut |_| {});
        }
    }
    let store = open(&whole);
    let ids: Vec<(DatabaseId, Txid)> = now(store.list("", None, 100))
        .unwrap()
        .into_iter()
        .map(|entry| entry.state.unwrap())
        .map(|it| (it.database, it.head.txid))
        .collect();
    let right = read_all(&store, &ids);
    assert!(right.iter().filter(|answer| answer.is_ok()).count() > 100);
    drop(store);
    // The preallocated end of the journal is not worth copying again and again.
    let mut targets = Vec::new();
    files(&whole, &mut targets);
    let journal = targets.iter().find(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    let journal = fs::read(journal.unwrap()).unwrap();
    assert!(
        journal.iter().rposition(|byte| *byte != 0).is_some_and(|last| last > 30_000),
        "the second left it to be replayed"
    );
    let mut random = StdRng::seed_from_u64(3);
    let (mut refused, mut noticed, mut unseen) = (0, 0, 0);
    for round in 0..40 {
        let damaged = directory.path().join(format!("damaged-{round}"));
        copy(&whole, &damaged);
        let target = &targets[round % targets.len()];
        let path = damaged.join(target.strip_prefix(&whole).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        // Damage to the very end of a journal cannot be told from a torn write.
        let journal = path.extension().is_some_and(|extension| extension == "jnl");
        let used = if journal { used * 9 / 10 } else { used };
        let at = random.random_range(0..used);
        bytes[at] ^= 1 << random.random_range(0..8);
        fs::write(&path, bytes).unwrap();
        let what = format!("{} at {at}", target.strip_prefix(&whole).unwrap().display());
        match EmbeddedStore::open(config(&damaged)) {
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid | ErrorKind::Internal),
                    "{what}: {error}"
                );
                refused += 1;
            }
            Ok(store) => {
                let mut errors = 0;
                for (expected, found) in right.iter().zip(read_all(&store, &ids)) {
                    match found {
                        Ok(found) => assert_eq!(Ok(&found), expected.as_ref(), "{what}"),
                        Err(ErrorKind::Corrupt | ErrorKind::Internal) => errors += 1,
                        Err(kind) => assert_eq!(Err(&kind), expected.as_ref(), "{what}"),
                    }
                }
                if errors > 0 {
                    noticed += 1;
                } else {
                    unseen += 1;
                }
                assert!(errors < right.len() / 2, "{what}: {errors} of {} answers are errors", right.len());
            }
        }
        fs::remove_dir_all(&damaged).unwrap();
    }
    println!("refused to open: {refused}, noticed when read: {noticed}, without effect: {unseen}");
    assert!(refused + noticed > 0, "some flip must have been noticed");
}

/// The engine would cut a damaged journal off there, and with it every commit behind it, without a word.
#[test]
fn a_journal_damaged_in_the_middle_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let mut workload = Workload::start(store.clone(), 5);
    for _ in 0..15 {
        workload.round(&mut |_| {});
    }
    drop((workload, store));
    let journal = fs::read_dir(directory.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .unwrap();
    let good = fs::read(&journal).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(used > 30_000, "{used} bytes were left in the journal");
    for (from, to) in [(used / 3, used / 3 + 1), (used / 3, used / 3 + 5000), (used / 2, used / 2 + 400), (0, 100)] {
        let mut bytes = good.clone();
        bytes[from..to].iter_mut().for_each(|byte| *byte = !*byte);
        fs::write(&journal, &bytes).unwrap();
        let error = EmbeddedStore::open(EmbeddedConfig::new(directory.path())).expect_err("commits would be lost");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("journal"), "{error}");
        assert_eq!(fs::read(&journal).unwrap(), bytes, "nothing was cut off");
    }
    // A torn end is none.
    let mut torn = good.clone();
    torn[used - 40..used - 20].fill(0);
    fs::write(&journal, torn).unwrap();
    drop(open(directory.path()));
    fs::write(&journal, good).unwrap();
    let store = open(directory.path());
    for entry in now(store.list("", None, 10)).unwrap() {
        let entry = entry.state.unwrap();
        let request = litefleet::store::HeadRequest {
            database: entry.database,
            known: entry.head.checkpoint,
            epoch: None,
            tail_bytes: usize::MAX,
        };
        assert!(matches!(now(store.head(request)).unwrap().tail, Tail::Complete(_)));
    }
}
