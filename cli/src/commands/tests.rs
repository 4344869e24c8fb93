//! What commands do to one store, in one process: no file of the store is needed, so that these run over the memory store.

use std::ops::ControlFlow;
use std::path::Path;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use litefleet::store::{
    CheckpointRequest, CommitMode, CommitRequest, LeaseRequest, OpenRequest, PageRow, RowKind, SessionRequest,
};
use litefleet::{CommitId, DatabaseName, FleetSettings, PageNo, SessionId, UnixMillis};
use rusqlite::Connection;

use super::demo::data::{Fingerprint, SAMPLE};
use super::script::Script;
use super::{export, gc, import, watch};
use crate::args::{Format, GcArgs, WatchArgs};
use crate::failure::{Exit, Result};
use crate::session::{Access, Session};
use crate::source;
use crate::store_url::StoreUrl;

const WAIT: Duration = Duration::from_secs(5);

fn in_memory(body: impl FnOnce(&Session, &Path, &DatabaseName) -> Result<()>) {
    let folder = tempfile::tempdir().unwrap();
    let name = DatabaseName::new("//a?b#c%41").unwrap();
    Session::run(&StoreUrl::Memory, false, WAIT, FleetSettings::default(), |s| body(s, folder.path(), &name)).unwrap();
}

fn sample(folder: &Path, more: &str) -> Connection {
    let path = folder.join("source.db");
    let _ = std::fs::remove_file(&path);
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(SAMPLE).unwrap();
    connection.execute_batch(more).unwrap();
    drop(connection);
    source::open(&path, WAIT).unwrap()
}

/// Imports the sample. Returns what it was imported from.
fn imported(session: &Session, folder: &Path, name: &DatabaseName) -> Result<Connection> {
    let from = sample(folder, "");
    import::database(session, &from, name, false, String::new())?;
    Ok(from)
}

/// A verification finds nothing.
fn is_whole(session: &Session, name: &DatabaseName) -> Result<()> {
    let report = session.fleet.verify(name, &mut |_| ControlFlow::Continue(()))?;
    assert_eq!(report.problems, [""; 0]);
    Ok(())
}

/// What an export has in it.
fn exported(session: &Session, folder: &Path, name: &DatabaseName) -> Result<Connection> {
    let file = folder.join("exported.db");
    export::database(session, name, &file, false)?;
    Ok(Connection::open(&file).unwrap())
}

/// Runs a call of the memory store to its end.
fn now<T>(call: impl Future<Output = T>) -> T {
    match std::pin::pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a call of the memory store does all its work in one poll"),
    }
}

/// What fails its check.
#[derive(Clone, Copy, PartialEq)]
enum Damaged {
    /// A record at the end of the log.
    Record,
    /// The row of the first page.
    Page,
}

fn damage(session: &Session, name: &DatabaseName, what: Damaged) {
    let store = session.fleet.store();
    let id = SessionId([what as u8; 16]);
    let request = SessionRequest { session: id, label: "damage".into(), lifetime: Duration::from_secs(3600) };
    now(store.start_session(request)).unwrap();
    let lease = Some(LeaseRequest { session: id, force: false });
    let open = OpenRequest { name: name.clone(), create: false, lease, known: None, tail_bytes: 0 };
    let opened = now(store.open(open)).unwrap();
    let (database, epoch, txid) = (opened.database, opened.head.epoch, opened.head.txid);
    if what == Damaged::Page {
        let bytes = b"not a row".as_slice().into();
        let rows = vec![PageRow { page: PageNo::FIRST, txid, kind: RowKind::Image, bytes }];
        let warm = Vec::new();
        let request = CheckpointRequest {
            database,
            epoch,
            txid,
            since: litefleet::Txid(0),
            attempt: 0,
            piece: 0,
            rows,
            last: false,
            time: UnixMillis(0),
            warm,
        };
        now(store.checkpoint(request)).unwrap();
    } else {
        let commit = CommitRequest {
            database,
            epoch,
            expected: txid,
            follows: opened.head.commit_id,
            commit_id: CommitId([7; 16]),
            size: opened.head.size,
            record: b"not a record".as_slice().into(),
            staged: None,
            release: true,
        };
        now(store.commit(vec![commit], CommitMode::Independent)).unwrap().remove(0).unwrap();
    }
    now(store.end_session(id)).unwrap();
}

fn fingerprint(session: &Session, name: &DatabaseName) -> Fingerprint {
    Fingerprint::of(&session.connect(name, Access::Follow).unwrap()).unwrap()
}

#[test]
fn round_trip() {
    in_memory(|session, folder, name| {
        let from = imported(session, folder, name)?;
        let expected = Fingerprint::of(&from).unwrap();
        assert_eq!(fingerprint(session, name), expected);

        let again = import::database(session, &from, name, false, String::new()).unwrap_err();
        assert_eq!(again.exit(), Exit::Failed);

        let exported = exported(session, folder, name)?;
        assert_eq!(Fingerprint::of(&exported).unwrap(), expected);
        let ok: String = exported.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(ok, "ok");
        Ok(())
    });
}

#[test]
fn replaced_by_another_page_size() {
    in_memory(|session, folder, name| {
        for more in ["", "DELETE FROM orders; PRAGMA page_size = 16384; VACUUM", "PRAGMA page_size = 512; VACUUM"] {
            let from = sample(folder, more);
            import::database(session, &from, name, true, String::new())?;
            assert_eq!(fingerprint(session, name), Fingerprint::of(&from).unwrap(), "{more}");
            is_whole(session, name)?;
        }
        Ok(())
    });
}

#[test]
fn larger_than_what_a_transaction_buffers() {
    in_memory(|session, folder, name| {
        let more = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30)
            INSERT INTO orders (customer, note) SELECT 1, randomblob(1000000) FROM n";
        let from = sample(folder, more);
        let expected = Fingerprint::of(&from).unwrap();
        import::database(session, &from, name, false, String::new())?;
        assert_eq!(fingerprint(session, name), expected);
        let exported = exported(session, folder, name)?;
        assert_eq!(Fingerprint::of(&exported).unwrap(), expected);
        is_whole(session, name)?;
        Ok(())
    });
}

#[test]
fn a_wal_source_is_stored_in_rollback_mode() {
    in_memory(|session, folder, name| {
        let from = sample(folder, "PRAGMA journal_mode = WAL; DELETE FROM settings");
        import::database(session, &from, name, false, String::new())?;
        let stored = session.connect(name, Access::Write)?;
        let mode: String = stored.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "delete");
        assert_eq!(Fingerprint::of(&stored).unwrap(), Fingerprint::of(&from).unwrap());
        Ok(())
    });
}

#[test]
fn a_failed_import_changes_nothing() {
    in_memory(|session, folder, name| {
        let path = folder.join("damaged.db");
        Connection::open(&path).unwrap().execute_batch(SAMPLE).unwrap();
        let from = source::open(&path, WAIT).unwrap();
        // Behind SQLite's back, after it has looked at the size.
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(20_000).unwrap();
        let outcome = import::database(session, &from, name, false, String::new());
        if outcome.is_err() {
            assert!(session.info_if_exists(name)?.is_none());
        }
        Ok(())
    });
}

/// It could not be opened, and so not be replaced.
#[test]
fn a_damaged_database_is_replaced() {
    in_memory(|session, folder, name| {
        let from = imported(session, folder, name)?;
        for damaged in [Damaged::Record, Damaged::Page] {
            damage(session, name, damaged);
            let refused = import::database(session, &from, name, false, String::new()).unwrap_err();
            assert_eq!(refused.exit(), Exit::Failed, "not without --replace");
            import::database(session, &from, name, true, String::new())?;
            assert_eq!(fingerprint(session, name), Fingerprint::of(&from).unwrap());
            assert_eq!(session.fleet.list("", None, 10)?.len(), 1, "no other is left");
            is_whole(session, name)?;
        }
        Ok(())
    });
}

/// The first that was damaged ended the collection of all.
#[test]
fn collection_goes_on_past_a_damaged_database() {
    in_memory(|session, folder, name| {
        let removed = DatabaseName::new("removed")?;
        for name in [name, &removed] {
            imported(session, folder, name)?;
        }
        damage(session, name, Damaged::Record);
        session.fleet.remove(&removed, false)?;
        let damaged = gc::run(session, &GcArgs { names: Vec::new(), force: false, json: false }).unwrap_err();
        assert_eq!(damaged.exit(), Exit::Corrupt);
        assert_eq!(session.fleet.purge(&mut |_| ControlFlow::Continue(()))?, 0, "what was removed is gone");
        let named = GcArgs { names: vec![name.clone()], force: false, json: true };
        assert_eq!(gc::run(session, &named).unwrap_err().exit(), Exit::Corrupt);
        Ok(())
    });
}

#[test]
fn another_holder_is_waited_for_and_named() {
    in_memory(|session, folder, name| {
        imported(session, folder, name)?;
        let writer = session.connect(name, Access::Write)?;
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let second = session.connect(name, Access::Write)?;
        second.busy_timeout(Duration::from_millis(50)).unwrap();
        let error = second.execute_batch("BEGIN IMMEDIATE").unwrap_err();
        assert_eq!(crate::failure::Failure::sqlite(Some(&second), &error).exit(), Exit::Busy);
        Ok(())
    });
}

/// An error of SQLite's own was told in the words of an older one, and with its exit code.
#[test]
fn old_words_are_not_those_of_a_new_error() {
    in_memory(|session, _, name| {
        let writer = session.connect(name, Access::Create)?;
        writer.execute_batch("CREATE TABLE t (v); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
        let second = session.connect(name, Access::Write)?;
        second.busy_timeout(Duration::from_millis(1)).unwrap();
        let mut script = Script::new(&second, &[], Format::Table);
        let mut run = |line: &str| script.line(line, &mut Vec::new()).map(|_| ());
        assert_eq!(run("INSERT INTO t VALUES (2);").unwrap_err().exit(), Exit::Busy);
        let own = run("SELECT zeroblob(1500000000);").unwrap_err();
        assert_eq!((own.exit(), own.line().as_deref()), (Exit::Failed, Some("string or blob too big")));
        Ok(())
    });
}

#[test]
fn maintenance() {
    in_memory(|session, folder, name| {
        let from = imported(session, folder, name)?;
        session.fleet.collect(name, false)?;
        let other = DatabaseName::new("other")?;
        session.fleet.rename(name, &other, false)?;
        assert!(session.info_if_exists(name)?.is_none());
        assert_eq!(fingerprint(session, &other), Fingerprint::of(&from).unwrap());
        session.fleet.remove(&other, false)?;
        assert_eq!(session.connect(&other, Access::Write).unwrap_err().exit(), Exit::NotFound);
        session.fleet.purge(&mut |_| ControlFlow::Continue(()))?;
        Ok(())
    });
}

#[test]
fn commits_are_waited_for() {
    in_memory(|session, _, name| {
        let writer = session.connect(name, Access::Create)?;
        writer.execute_batch("CREATE TABLE t (v)").unwrap();
        let args = WatchArgs { name: name.clone(), after: None, count: Some(3), timeout: None, json: false };
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| watch::run(session, &args));
            // It may begin to watch after the first of them.
            while !watching.is_finished() {
                writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
            }
            watching.join().unwrap()
        })
    });
}
