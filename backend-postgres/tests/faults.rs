//! A proxy between the store and the server breaks connections where it hurts: nothing acknowledged is lost, nothing is
//! done twice, nothing is reported wrong.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use litefleet::FleetSettings;
use litefleet_conformance::faults::Process;
use litefleet_postgres::testing::{Cut, Proxy, pause, wait_until};
use litefleet_postgres::{PostgresConfig, Prepared};
use rusqlite::Connection;
use support::{connect, fresh_schema, server};
use tokio_postgres::NoTls;

/// Patient enough for a few broken connections in a row.
fn settings() -> FleetSettings {
    let mut settings = Process::small();
    settings.database.store_timeout = Duration::from_secs(5);
    settings
}

/// A process whose connections go through a proxy, and one whose do not.
struct Place {
    proxy: Proxy,
    schema: String,
    process: Process,
}

impl Place {
    fn new(call_timeout: Duration, settings: FleetSettings) -> Self {
        Self::with(Prepared::Off, call_timeout, settings)
    }

    fn with(prepared: Prepared, call_timeout: Duration, settings: FleetSettings) -> Self {
        let (proxy, schema) = (Proxy::start(server().port()), fresh_schema());
        let change = |config: PostgresConfig| config.prepared(prepared).call_timeout(call_timeout).pool_size(3);
        let store = connect(&proxy.url(), &schema, change);
        Self { process: Process::new(Arc::new(store), settings), proxy, schema }
    }

    fn other(&self) -> Process {
        Process::new(Arc::new(connect(&server().url(), &self.schema, |config| config)), settings())
    }

    /// A function of the schema as it stands in a request.
    fn call(&self, function: &str) -> String {
        format!("\"{}\".{function}(", self.schema)
    }
}

fn values(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT v FROM t ORDER BY rowid").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

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
            let place = Place::with(Prepared::On, Duration::from_secs(5), settings());
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
    let functions =
        ["commit", "open", "release", "stage", "discard", "checkpoint", "collect", "read_pages", "start_session"];
    for cut in [Cut::Before, Cut::After] {
        for function in functions {
            let mut fired = 0;
            for skip in 0..3 {
                let place = Place::new(Duration::from_secs(5), settings());
                place.proxy.arm(cut, &place.call(function), skip, 2);
                fired += work_through(place, &format!("{cut:?} {function}, {skip}"));
            }
            assert!(fired > 0, "{function} was never called");
        }
    }
}

/// The answer of a commit stalls, past the time-out of the call and past the lease. The server did it: so it must say.
#[test]
fn commit_whose_answer_stalls_past_the_lease_is_found_done() {
    let settings = FleetSettings { session_lifetime: Duration::from_secs(3), ..settings() };
    let place = Place::new(Duration::from_secs(1), settings);
    let connection = place.process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1)").unwrap();
    place.proxy.arm(Cut::HoldAnswer, &place.call("commit"), 0, 1);
    connection.execute("INSERT INTO t VALUES (2)", []).expect("its id tells that it was done");
    assert_eq!(place.proxy.fired(), 1);
    place.proxy.resume();
    connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
    assert_eq!(values(&connection), [1, 2, 3]);
    drop(connection);
    assert_eq!(values(&place.other().open("a", "")), [1, 2, 3]);
}

/// The request of a commit stalls past the time-out: it is made certain that it can never arrive, and sent again. When it
/// then does arrive, it does nothing.
#[test]
fn commit_whose_request_stalls_is_done_once() {
    let place = Place::new(Duration::from_secs(1), settings());
    let connection = place.process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1)").unwrap();
    place.proxy.arm(Cut::HoldRequest, &place.call("commit"), 0, 1);
    connection.execute("INSERT INTO t VALUES (2)", []).unwrap();
    place.proxy.resume();
    connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
    assert_eq!(values(&connection), [1, 2, 3]);
    drop(connection);
    assert_eq!(values(&place.other().open("a", "")), [1, 2, 3]);
}

/// Everything stalls until the lease is over and another process has written. The first one's commit did not happen, and
/// it says why.
#[test]
fn process_that_stalls_past_its_lease_is_fenced() {
    let settings = FleetSettings {
        session_lifetime: Duration::from_secs(2),
        session_margin: Duration::from_millis(500),
        ..settings()
    };
    let place = Place::new(Duration::from_secs(1), settings);
    let connection = place.process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1)").unwrap();
    // From now on nothing gets through: neither commits nor renewals, on old connections or new ones.
    place.proxy.arm(Cut::HoldRequest, "", 0, u64::MAX);
    let (sender, receiver) = sync_channel(1);
    let waiting = std::thread::spawn(move || {
        sender.send(connection.execute("INSERT INTO t VALUES (2)", []).map_err(|error| error.to_string())).unwrap();
        connection
    });
    let other = place.other();
    let taken = other.open("a", "");
    wait_until("the lease runs out", Duration::from_secs(20), || {
        taken.execute("INSERT INTO t VALUES (10)", []).is_ok()
    });
    let refused = receiver.recv_timeout(Duration::from_secs(30)).unwrap().unwrap_err();
    place.proxy.resume();
    let connection = waiting.join().unwrap();
    connection.execute("INSERT INTO t VALUES (3)", []).unwrap_err();
    let reason: String = connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap();
    assert!(reason.contains("database a"), "{refused}: {reason}");
    // What was held back has arrived by now, and done nothing.
    assert_eq!(values(&taken), [1, 10]);
    taken.execute("INSERT INTO t VALUES (11)", []).unwrap();
    assert_eq!(other.problems("a"), Vec::<String>::new());
}

/// The server is gone, and says so at once; when it is back, the fleet goes on.
#[test]
fn server_that_cannot_be_reached_is_reported_promptly() {
    let mut settings = settings();
    settings.database.store_timeout = Duration::from_millis(300);
    let place = Place::new(Duration::from_secs(5), settings);
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
        let place = Place::with(prepared, Duration::from_secs(30), settings);
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
