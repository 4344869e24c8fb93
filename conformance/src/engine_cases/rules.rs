//! The rules of the design that are easy to break: each case fails when its rule is taken out.

use std::ops::ControlFlow;
use std::time::Duration;

use litefleet::codec::{Compression, encode_image};
use litefleet::store::{Effect, OpenRequest, Operation};
use litefleet::vfs::LockLevel;
use litefleet::{DatabaseName, PageNo};

use crate::faults::replace_rows;

use super::bench::{Bench, EngineHarness, code, dump, fill, number, run};

/// The warm pages that come with an open are those of the checkpoint: where a page was staged since, they are not what
/// the page is.
pub fn open_after_a_staged_commit_reads_the_staged_pages(harness: &dyn EngineHarness) {
    let bench = Bench::with(harness, |settings| {
        settings.database.transaction_bytes = 64 << 10;
        settings.database.checkpoint_records = usize::MAX;
        settings.database.checkpoint_pages = usize::MAX;
        settings.database.checkpoint_bytes = usize::MAX;
    });
    let connection = bench.open("a");
    fill(&connection, "t", 30, 3000);
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), 30);
    drop(connection);
    // Closed: the first pages that were read come along with each open from now on.
    let connection = bench.open("a");
    assert_eq!(number(&connection, "SELECT sum(length(v)) FROM t"), 90_000);
    run(&connection, "PRAGMA litefleet_release");
    run(&connection, "UPDATE t SET v = zeroblob(4000) || k");
    fill(&connection, "t", 100, 3000);
    run(&connection, "INSERT INTO t(v) VALUES('small')");
    let expected = dump(&connection);
    let other = bench.another();
    assert!(dump(&other.open_with("a", "mode=ro")) == expected);
    bench.check("a");
}

/// What was cut off and has grown again is zeros, in this process, in another, and after a checkpoint.
pub fn file_that_grows_again_starts_as_zeros(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let mut file = bench.raw("a");
    for (round, (cut, grown)) in [(0, 40_960), (4096, 20_000), (5000, 40_960), (12_288, 12_289)].into_iter().enumerate()
    {
        file.lock(LockLevel::Exclusive).unwrap();
        file.write(0, &vec![0xaa; 50_000]).unwrap();
        file.commit_point(None).unwrap();
        file.truncate(cut).unwrap();
        file.truncate(grown).unwrap();
        file.write(grown, b"end").unwrap();
        file.commit_point(None).unwrap();
        file.unlock(LockLevel::None);
        let mut expected = vec![0xaa; usize::try_from(cut).unwrap()];
        expected.resize(usize::try_from(grown).unwrap(), 0);
        expected.extend_from_slice(b"end");
        let other = bench.another();
        for checkpointed in [false, true] {
            let mut read = vec![1; expected.len()];
            bench.read("a", 0, &mut read);
            assert!(read == expected, "round {round}, checkpointed {checkpointed}");
            other.read("a", 0, &mut read);
            assert!(read == expected, "round {round}, checkpointed {checkpointed}, another process");
            bench.fleet.checkpoint(file.database()).unwrap();
        }
        bench.verify("a");
    }
}

/// A snapshot that was collected is too old: an error that asks to begin again, never zeros in place of what is gone.
pub fn collected_snapshot_is_too_old(harness: &dyn EngineHarness) {
    let bench = Bench::with(harness, |settings| settings.database.retention = Duration::ZERO);
    let writer = bench.open("a");
    fill(&writer, "t", 100, 3000);
    run(&writer, "PRAGMA litefleet_checkpoint");
    let other = bench.another_with(|settings| settings.cache_bytes = 0);
    let follower = other.open_with("a", "mode=ro");
    run(&follower, "PRAGMA cache_size=1; BEGIN");
    assert_eq!(number(&follower, "SELECT length(v) FROM t WHERE k = 1"), 3000);
    run(&writer, "UPDATE t SET v = 'new'; PRAGMA litefleet_checkpoint; VACUUM; PRAGMA litefleet_checkpoint");
    assert_eq!(code(&follower, "SELECT sum(length(v)) FROM t"), 517, "begin again");
    run(&follower, "ROLLBACK");
    assert_eq!(number(&follower, "SELECT sum(length(v)) FROM t"), 300);
}

/// A stage request that arrives after the rollback of its transaction must not spoil the next one.
pub fn late_stage_after_a_rollback_does_no_harm(harness: &dyn EngineHarness) {
    let bench = Bench::with(harness, |settings| {
        settings.database.transaction_bytes = 64 << 10;
        settings.database.store_timeout = Duration::ZERO;
    });
    let connection = bench.open("a");
    run(&connection, "PRAGMA cache_size=5");
    fill(&connection, "t", 60, 3000);
    let before = dump(&connection);
    for late in 0..3 {
        bench.arm(Operation::Stage, late, 1, Effect::Late);
        let failed = code(&connection, "BEGIN; UPDATE t SET v = randomblob(3000); COMMIT");
        assert_ne!(failed, 0, "the store could not be reached");
        if !connection.is_autocommit() {
            run(&connection, "ROLLBACK");
        }
        bench.faults.disarm();
        assert!(dump(&connection) == before);
        if late == 2 {
            // The next transaction stages before it arrives.
            run(&connection, "BEGIN; UPDATE t SET v = zeroblob(3001) || k; UPDATE t SET v = v || 'x'");
        }
        assert_eq!(Bench::wait(bench.faults.deliver()), 1);
        if late == 2 {
            run(&connection, "COMMIT");
            assert_eq!(number(&connection, "SELECT count(*) FROM t WHERE v = zeroblob(3001) || k || 'x'"), 60);
        } else {
            assert!(dump(&connection) == before);
            run(&connection, "UPDATE t SET v = v WHERE k = 1");
        }
        bench.check("a");
    }
}

/// A patch on a wrong base is caught by its checksum: that database answers `SQLITE_CORRUPT`, the others go on.
pub fn patch_on_a_wrong_base_is_caught(harness: &dyn EngineHarness) {
    let bench = Bench::plain(harness);
    let (one, two) = (bench.open("a"), bench.open("b"));
    for connection in [&one, &two] {
        fill(connection, "t", 60, 3000);
        run(connection, "PRAGMA litefleet_checkpoint; UPDATE t SET v = replace(v, 'A', 'a')");
    }
    let opened = Bench::wait(bench.store.open(OpenRequest {
        name: DatabaseName::new("a").unwrap(),
        create: false,
        lease: None,
        known: None,
        tail_bytes: 0,
    }))
    .unwrap();
    // A row that passes its own checks, and is not the one that the patches of the log were made on.
    let (database, txid) = (opened.database, opened.head.checkpoint);
    for page in 2..50 {
        let rows = vec![encode_image(database, PageNo(page), txid, &[7; 4096], Compression::None)];
        Bench::wait(replace_rows(&bench.store, &opened, rows)).unwrap();
    }
    let other = bench.another();
    let follower = other.open_with("a", "mode=ro");
    assert_eq!(code(&follower, "SELECT sum(length(v)) FROM t"), 11, "SQLITE_CORRUPT");
    let report = other.fleet.verify(&DatabaseName::new("a").unwrap(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(!report.problems.is_empty());
    assert_eq!(number(&other.open_with("b", "mode=ro"), "SELECT sum(length(v)) FROM t"), 180_000);
    run(&two, "INSERT INTO t(v) VALUES(1)");
    bench.check("b");
}
