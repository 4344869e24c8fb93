//! A proxy between the store and the server breaks connections where it hurts: nothing acknowledged is lost, nothing is
//! done twice, nothing is reported wrong.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use litefleet::{DatabaseName, ErrorKind, FleetSettings};
use litefleet_conformance::faults::Process;
use litefleet_postgres::Prepared;
use litefleet_postgres::testing::{Cut, pause, wait_until};
use rusqlite::Connection;
use support::place::{FORMS, Place, settings, values};
use support::{connect, server};
use tokio_postgres::NoTls;

/// What an application does to one database, every call of the store included. Says what was acknowledged.
fn work(process: &Process, from: i64) -> Vec<i64> {
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        let connection = process.open("a", "");
        // A cache so small that large transactions spill, and are staged before they end.
        connection.execute_batch("PRAGMA cache_size = 5").unwrap();
        if connection.execute_batch("CREATE TABLE IF NOT EXISTS t (v INTEGER, pad BLOB)").is_err() {
            continue;
        }
        for step in 0..8 {
            let value = from + round * 100 + step;
            // Every fourth is so large that it is staged.
            let pad = if step % 4 == 3 { 200_000 } else { 10 };
            if connection.execute("INSERT INTO t VALUES (?1, randomblob(?2))", [value, pad]).is_ok() {
                acknowledged.push(value);
            }
        }
        let _may_fail = connection.execute_batch("PRAGMA litefleet_checkpoint");
        let _may_fail = connection.execute_batch(
            "BEGIN; WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 60) \
             INSERT INTO t SELECT -1, randomblob(4000) FROM c; ROLLBACK",
        );
        let _may_fail = process.follow("a").query_row("SELECT count(*) FROM t", [], |_| Ok(()));
    }
    acknowledged
}

/// Works while the proxy breaks connections, and afterwards; nothing acknowledged is lost, and nothing else is there.
/// Says how many it broke.
fn work_through(place: Place, what: &str) -> u64 {
    let acknowledged = work(&place.process, 0);
    let fired = place.proxy.fired();
    place.proxy.resume();
    let more = work(&place.process, 1000);
    drop(place.process);
    let other = Process::new(Arc::new(connect(&server().url(), &place.schema, |config| config)), settings());
    let connection = other.open("a", "&takeover=1");
    let expected: Vec<i64> = acknowledged.iter().chain(&more).copied().collect();
    // An engine that cannot tell stops the database, so that what is not acknowledged did not happen.
    assert_eq!(values(&connection), expected, "{what}");
    assert_eq!(more.len(), 16, "all is well afterwards: {what}");
    assert_eq!(other.problems("a"), Vec::<String>::new(), "{what}");
    fired
}

/// Where statements are prepared, requests do not have the names of functions in them: every third request is broken.
#[test]
fn connections_that_prepare_break_at_every_request() {
    for cut in [Cut::Before, Cut::After] {
        let mut broken = 0;
        for skip in (0..).step_by(3) {
            let place = Place::new(Prepared::On, Duration::from_secs(5), settings());
            place.proxy.arm(cut, "", skip, 2);
            if work_through(place, &format!("{cut:?} {skip}")) == 0 {
                break;
            }
            broken += 1;
        }
        assert!(broken > 10, "{broken} requests");
    }
}

#[test]
fn connections_break_at_every_call() {
    let functions = [
        "commit",
        "open",
        "release",
        "stage",
        "discard",
        "checkpoint",
        "collect",
        "read_pages",
        "read_log",
        "head",
        "start_session",
    ];
    for cut in [Cut::Before, Cut::After] {
        for function in functions {
            let mut fired = 0;
            for skip in 0..3 {
                let place = Place::new(Prepared::Off, Duration::from_secs(5), settings());
                place.proxy.arm(cut, &place.call(function), skip, 2);
                fired += work_through(place, &format!("{cut:?} {function}, {skip}"));
            }
            assert!(fired > 0, "{function} was never called");
        }
    }
}

/// A commit's answer is lost, and then the way breaks again while its outcome is looked for.
#[test]
fn connections_break_while_an_outcome_is_looked_for() {
    for (prepared, cut) in FORMS.into_iter().flat_map(|form| [(form, Cut::Before), (form, Cut::After)]) {
        for (skip, lost) in [(0, Cut::After), (1, Cut::After), (1, Cut::Before)] {
            let place = Place::new(prepared, Duration::from_secs(5), settings());
            place.proxy.arm(lost, &place.commit(), skip, 1);
            place.proxy.arm(cut, &place.call("settled_head"), 0, 2);
            let what = format!("{prepared:?} {lost:?} {skip}, {cut:?}");
            assert_eq!(work_through(place, &what), 3, "{what}");
        }
    }
}

/// Renewals of a session break, twice in a row: the next one is in time.
#[test]
fn connections_break_at_renewals() {
    for (prepared, cut) in FORMS.into_iter().flat_map(|form| [(form, Cut::Before), (form, Cut::After)]) {
        let settings = FleetSettings { session_lifetime: Duration::from_secs(6), ..settings() };
        let place = Place::new(prepared, Duration::from_secs(5), settings);
        let connection = place.process.open("a", "");
        connection.execute_batch("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1)").unwrap();
        // Prepared or not, it has no other parameter than the session's id.
        place.proxy.arm(cut, "\0\u{1}\0\u{1}\0\u{1}\0\0\0\u{10}", 0, 2);
        wait_until("two are broken", Duration::from_secs(60), || place.proxy.fired() == 2);
        let renewed = format!("SELECT expires FROM {}.sessions", place.schema);
        let before = server().sql(&renewed);
        wait_until("the next one is not", Duration::from_secs(60), || server().sql(&renewed) > before);
        connection.execute("INSERT INTO t VALUES (2)", []).unwrap();
        assert_eq!(values(&connection), [1, 2], "{prepared:?} {cut:?}");
        drop(connection);
        assert_eq!(server().sql(&format!("SELECT epoch FROM {}.heads", place.schema)), "1", "it kept its lease");
    }
}

/// The answer to a removal is lost, and it is asked for again: it was reported as "no such database".
#[test]
fn removal_whose_answer_is_lost_is_done() {
    for cut in [Cut::Before, Cut::After] {
        let place = Place::new(Prepared::Off, Duration::from_secs(5), settings());
        let connection = place.process.open("a", "");
        connection.execute_batch("CREATE TABLE t (v INTEGER)").unwrap();
        drop(connection);
        place.proxy.arm(cut, &place.call("delete"), 0, 1);
        let name = DatabaseName::new("a").unwrap();
        place.process.fleet().remove(&name, false).unwrap();
        assert_eq!(place.proxy.fired(), 1, "{cut:?}");
        let error = place.process.fleet().remove(&name, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

/// Databases of a process whose commits are made to come in one statement.
struct Together {
    place: Place,
    /// What a commit's request has in it. Nothing that is known where statements are prepared.
    request: String,
    connections: [Connection; 4],
}

impl Together {
    /// With triggers that count the records of the first three, and may fail.
    fn new(prepared: Prepared, fails: &str) -> Self {
        let mut settings = FleetSettings::default();
        // Nothing is tried again: who fails fails.
        settings.database.store_timeout = Duration::ZERO;
        let place = Place::new(prepared, Duration::from_secs(30), settings);
        let connections = ["a", "b", "c", "d"].map(|name| place.process.open(name, ""));
        for connection in &connections {
            connection.execute_batch("CREATE TABLE t (v INTEGER)").unwrap();
        }
        let schema = &place.schema;
        server().sql(&format!(
            "CREATE SEQUENCE {schema}.seen; \
             CREATE FUNCTION {schema}.fails() RETURNS trigger LANGUAGE plpgsql AS $$ \
             DECLARE called text := (SELECT name FROM {schema}.names WHERE database = NEW.database); \
             BEGIN IF called <> 'd' THEN PERFORM nextval('{schema}.seen'); END IF; {fails} RETURN NEW; END $$; \
             CREATE TRIGGER fails BEFORE INSERT ON {schema}.log FOR EACH ROW EXECUTE FUNCTION {schema}.fails()"
        ));
        let request = if prepared == Prepared::On { String::new() } else { place.call("commit") };
        Self { place, request, connections }
    }

    /// How many records of the first three were inserted, undone or not.
    fn seen(&self) -> i64 {
        let schema = &self.place.schema;
        let text = server().sql(&format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {schema}.seen"));
        text.parse().unwrap()
    }

    /// Commits to all four; the last one is held back until the others have come, which takes so long.
    fn commit(&mut self, long: Duration) -> Vec<Result<usize, String>> {
        let (proxy, fired) = (&self.place.proxy, self.place.proxy.fired());
        proxy.arm(Cut::HoldRequest, &self.request, 0, 1);
        std::thread::scope(|scope| {
            let write = |connection: &mut Connection| {
                let written = connection.execute("INSERT INTO t VALUES (1)", []);
                written.map_err(|_| connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap())
            };
            let mut commits = Vec::new();
            for connection in self.connections.iter_mut().rev() {
                commits.push(scope.spawn(move || write(connection)));
                wait_until("the first is held back", Duration::from_secs(20), || proxy.fired() > fired);
            }
            pause(long);
            proxy.resume();
            commits.into_iter().rev().map(|commit| commit.join().unwrap()).collect()
        })
    }
}

/// One of three databases cannot commit, for a reason that the server has. The others, whose commits came in the same
/// statement, can.
fn one_cannot_commit(prepared: Prepared) {
    let mut four = Together::new(prepared, "IF called = 'c' THEN RAISE EXCEPTION 'not this one'; END IF;");
    // Until all three were in one statement, which is then sent in parts: six records.
    let together = (1..=20).any(|round| {
        let before = four.seen();
        let outcomes = four.commit(Duration::from_millis(100 * round));
        let [a, b, c, d] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert_eq!([a, b, d], [&Ok(1); 3], "{c:?}");
        assert!(c.as_ref().unwrap_err().contains("not this one"), "{c:?}");
        four.seen() - before == 6
    });
    assert!(together, "they never came in one statement");
}

#[test]
fn database_that_cannot_commit_holds_up_no_other() {
    one_cannot_commit(Prepared::Off);
}

#[test]
fn database_that_cannot_commit_holds_up_no_other_where_statements_are_prepared() {
    one_cannot_commit(Prepared::On);
}

/// Somebody has locked the head of one of three databases. All three commits were in doubt, and the head before it in the
/// statement was locked as well.
fn one_is_locked(prepared: Prepared) {
    let mut four = Together::new(prepared, "");
    let schema = four.place.schema.clone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (locker, connection) = runtime.block_on(tokio_postgres::connect(&server().url(), NoTls)).unwrap();
    runtime.spawn(connection);
    let lock = format!(
        "BEGIN; SELECT FROM {schema}.heads WHERE id = (SELECT database FROM {schema}.names WHERE name = 'b') FOR UPDATE"
    );
    // Until all three were in one statement: the first one's record was inserted, undone, and inserted again.
    let together = (1..=20).any(|round| {
        runtime.block_on(locker.batch_execute(&lock)).unwrap();
        let before = four.seen();
        let outcomes = four.commit(Duration::from_millis(100 * round));
        runtime.block_on(locker.batch_execute("ROLLBACK")).unwrap();
        let [a, b, c, d] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert_eq!([a, c, d], [&Ok(1); 3], "{b:?}");
        let words = b.as_ref().unwrap_err();
        assert!(words.contains("55P03") && words.contains("pg_blocking_pids()"), "{words}");
        four.seen() - before == 3
    });
    assert!(together, "they never came in one statement");
}

#[test]
fn database_that_is_locked_holds_up_no_other() {
    one_is_locked(Prepared::Off);
}

#[test]
fn database_that_is_locked_holds_up_no_other_where_statements_are_prepared() {
    one_is_locked(Prepared::On);
}
