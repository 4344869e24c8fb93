//! A proxy between the store and the server holds requests and answers back, for longer than calls and leases last: nothing
//! acknowledged is lost, nothing is done twice, nothing is reported wrong. Each in both forms that a commit has.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use litefleet::FleetSettings;
use litefleet_conformance::faults::Process;
use litefleet_postgres::Prepared;
use litefleet_postgres::testing::{Cut, wait_until};
use rusqlite::Connection;
use support::place::{FORMS, Place, settings, values};

const PATIENCE: Duration = Duration::from_secs(60);

/// The answer of a commit stalls, past the time-out of the call. The server did it: so it must say.
#[test]
fn commit_whose_answer_stalls_is_found_done() {
    for prepared in FORMS {
        let settings = FleetSettings { session_lifetime: Duration::from_secs(3), ..settings() };
        let place = Place::new(prepared, Duration::from_secs(1), settings);
        let connection = place.process.open("a", "");
        connection.execute_batch("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1)").unwrap();
        place.proxy.arm(Cut::HoldAnswer, &place.commit(), 0, 1);
        connection.execute("INSERT INTO t VALUES (2)", []).expect("its id tells that it was done");
        assert_eq!(place.proxy.fired(), 1, "{prepared:?}");
        place.proxy.resume();
        connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
        assert_eq!(values(&connection), [1, 2, 3]);
        drop(connection);
        assert_eq!(values(&place.other().open("a", "")), [1, 2, 3], "{prepared:?}");
    }
}

/// The request of a commit stalls past the time-out: it is made certain that it can never arrive, and sent again. When it
/// then does arrive, it does nothing.
#[test]
fn commit_whose_request_stalls_is_done_once() {
    for prepared in FORMS {
        let place = Place::new(prepared, Duration::from_secs(1), settings());
        let connection = place.process.open("a", "");
        connection.execute_batch("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1)").unwrap();
        place.proxy.arm(Cut::HoldRequest, &place.commit(), 0, 1);
        connection.execute("INSERT INTO t VALUES (2)", []).unwrap();
        assert_eq!(place.proxy.fired(), 1, "{prepared:?}");
        place.proxy.resume();
        connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
        assert_eq!(values(&connection), [1, 2, 3]);
        drop(connection);
        assert_eq!(values(&place.other().open("a", "")), [1, 2, 3], "{prepared:?}");
    }
}

/// A writer whose commit waits while nothing gets through, and the process that took its lease meanwhile.
struct Deposed {
    place: Place,
    waiting: JoinHandle<Connection>,
    outcome: Receiver<Result<usize, String>>,
    other: Process,
    taken: Connection,
}

impl Deposed {
    /// `cut` is what becomes of the commit; of the rest no request arrives: neither commits nor renewals, on old connections
    /// or new ones.
    fn new(prepared: Prepared, cut: Cut) -> Self {
        let mut settings = FleetSettings {
            session_lifetime: Duration::from_secs(4),
            session_margin: Duration::from_secs(1),
            ..settings()
        };
        settings.database.store_timeout = PATIENCE;
        let place = Place::new(prepared, Duration::from_secs(1), settings);
        let connection = place.process.open("a", "");
        connection.execute_batch("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1)").unwrap();
        place.proxy.arm(cut, &place.commit(), 0, 1);
        place.proxy.arm(Cut::HoldRequest, "", 0, u64::MAX);
        let (sender, outcome) = sync_channel(1);
        let waiting = std::thread::spawn(move || {
            sender.send(connection.execute("INSERT INTO t VALUES (2)", []).map_err(|error| error.to_string())).unwrap();
            connection
        });
        let other = place.other();
        let taken = other.open("a", "");
        wait_until("the lease runs out", PATIENCE, || taken.execute("INSERT INTO t VALUES (10)", []).is_ok());
        Self { place, waiting, outcome, other, taken }
    }

    /// What the first is told when the way is free again. It then writes nothing more, and says why.
    fn told(self, there: &[i64]) -> Result<usize, String> {
        assert_eq!(self.outcome.try_recv(), Err(TryRecvError::Empty), "nobody could know");
        self.place.proxy.resume();
        let told = self.outcome.recv_timeout(PATIENCE).unwrap();
        let connection = self.waiting.join().unwrap();
        connection.execute("INSERT INTO t VALUES (3)", []).unwrap_err();
        let reason: String = connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap();
        assert!(reason.contains("database a") && reason.contains("lease"), "{told:?}: {reason}");
        // What was held back has arrived by now, and done nothing.
        assert_eq!(values(&self.taken), there);
        self.taken.execute("INSERT INTO t VALUES (11)", []).unwrap();
        assert_eq!(self.other.problems("a"), Vec::<String>::new());
        told
    }
}

/// Everything stalls until the lease is over and another process has written, the request of a commit too. It did not
/// happen, and that is said.
#[test]
fn commit_whose_request_stalls_past_the_lease_did_not_happen() {
    for prepared in FORMS {
        let told = Deposed::new(prepared, Cut::HoldRequest).told(&[1, 10]);
        told.unwrap_err();
    }
}

/// The server did the commit, and its answer stalls past the lease, until another process has written after it. It
/// happened, and that is said, though the database is another's.
#[test]
fn commit_whose_answer_stalls_past_the_lease_is_told_done() {
    for prepared in FORMS {
        let told = Deposed::new(prepared, Cut::HoldAnswer).told(&[1, 2, 10]);
        assert_eq!(told, Ok(1), "{prepared:?}");
    }
}

/// The server is gone, and says so at once; when it is back, the fleet goes on.
#[test]
fn server_that_cannot_be_reached_is_reported_promptly() {
    FORMS.into_iter().for_each(cannot_be_reached);
}

fn cannot_be_reached(prepared: Prepared) {
    let mut settings = settings();
    settings.database.store_timeout = Duration::from_millis(300);
    let place = Place::new(prepared, Duration::from_secs(5), settings);
    let connection = place.process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1)").unwrap();
    place.proxy.refuse(true);
    place.proxy.arm(Cut::Before, "", 0, u64::MAX);
    let error = |connection: &Connection| -> String {
        connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap()
    };
    let begin = tokio::time::Instant::now();
    // Its request was lost on the way, and nobody can be asked.
    connection.execute("INSERT INTO t VALUES (2)", []).unwrap_err();
    assert!(error(&connection).contains("may or may not have happened"), "{}", error(&connection));
    let another = place.process.open("b", "");
    another.execute_batch("CREATE TABLE t (v INTEGER)").unwrap_err();
    assert!(error(&another).contains("cannot connect to Postgres"), "{}", error(&another));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    place.proxy.refuse(false);
    place.proxy.resume();
    another.execute_batch("CREATE TABLE t (v INTEGER)").unwrap();
    drop(connection);
    let connection = place.process.open("a", "");
    assert_eq!(values(&connection), [1], "the request never arrived");
    connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
    assert_eq!(values(&connection), [1, 3]);
}
