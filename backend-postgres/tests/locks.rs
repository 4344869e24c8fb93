//! What locks cost others, and what becomes of those that nobody gives back.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{HeadRequest, PageStore as _, SessionRequest, SharedLock, SharedRequest};
use litefleet::{ErrorKind, Result, SessionId, Txid};
use litefleet_postgres::PostgresConfig;
use litefleet_postgres::testing::{Cut, Proxy, Server, ServerOptions, wait_until};
use support::writer::Writer;
use support::{connect, fresh_schema, server, synchronous_pair};
use tokio_postgres::{Client, NoTls};

const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody who writes to a database, and somebody who reads it.
struct Place {
    schema: String,
    writer: Writer,
    reader: SessionId,
}

impl Place {
    fn new() -> Self {
        Self::at(server(), &fresh_schema(), |config| config)
    }

    fn at(server: &Server, schema: &str, change: impl FnOnce(PostgresConfig) -> PostgresConfig) -> Self {
        let writer = Writer::new(connect(&server.url(), schema, change), "a");
        let reader = Self::session(&writer);
        Self { schema: schema.to_owned(), writer, reader }
    }

    fn session(writer: &Writer) -> SessionId {
        let session = SessionId(rand::random());
        let request = SessionRequest { session, label: "the reader".into(), lifetime: Duration::from_secs(600) };
        writer.runtime.block_on(writer.store.start_session(request)).unwrap();
        session
    }

    fn request(&self, session: SessionId, number: u64) -> SharedRequest {
        let head = HeadRequest { database: self.writer.database, known: Txid(0), epoch: None, tail_bytes: 1 << 20 };
        SharedRequest { lock: SharedLock { session, number }, head }
    }

    fn look(&self) -> Result<()> {
        let head = self.request(self.reader, 0).head;
        self.writer.runtime.block_on(self.writer.store.head(head)).map(drop)
    }

    fn lock_shared(&self, number: u64) -> Result<()> {
        let request = self.request(self.reader, number);
        self.writer.runtime.block_on(self.writer.store.lock_shared(request)).map(drop)
    }

    fn unlock_shared(&self, number: u64) -> Result<()> {
        let lock = SharedLock { session: self.reader, number };
        self.writer.runtime.block_on(self.writer.store.unlock_shared(self.writer.database, lock))
    }

    fn lock_exclusive(&self) -> Result<()> {
        self.writer.runtime.block_on(self.writer.store.lock_exclusive(self.writer.database, self.writer.epoch))
    }

    fn unlock_exclusive(&self) -> Result<()> {
        self.writer.runtime.block_on(self.writer.store.unlock_exclusive(self.writer.database, self.writer.epoch))
    }

    /// A transaction of somebody else that is under way.
    fn begin(&self, statement: &str) -> Client {
        let (client, connection) =
            self.writer.runtime.block_on(tokio_postgres::connect(&server().url(), NoTls)).unwrap();
        self.writer.runtime.spawn(connection);
        let statement = statement.replace("S.", &format!("{}.", self.schema));
        self.writer.runtime.block_on(client.batch_execute(&format!("BEGIN; {statement}"))).unwrap();
        client
    }

    fn end(&self, transaction: &Client) {
        self.writer.runtime.block_on(transaction.batch_execute("COMMIT")).unwrap();
    }

    fn sql(&self, sql: &str) -> String {
        server().sql(&sql.replace("S.", &format!("{}.", self.schema)))
    }

    /// The session's time is over; whoever renews it has not heard of that.
    fn expire(&self, session: SessionId, ago: &str) {
        self.sql(&format!(
            "UPDATE S.sessions SET expires = clock_timestamp() - interval '{ago}' WHERE id = '{session}'"
        ));
    }

    /// Until a call that locks waits for somebody.
    fn wait_until_asked(&self) {
        let asked = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%\"{}\".lock_%'",
            self.schema
        );
        wait_until("it waits", PATIENCE, || server().sql(&asked) == "1");
    }

    fn shared_locks(&self) -> String {
        self.sql("SELECT count(*) FROM S.shared_locks")
    }
}

/// The pool sent the call again on another connection, and whoever had asked did not know that the first might yet arrive: after the
/// second was refused, or what it had locked given back.
#[test]
fn a_call_without_an_answer_is_told_and_not_made_again() {
    let proxy = Proxy::start(server().port());
    let writer = Writer::new(connect(&proxy.url(), &fresh_schema(), |config| config), "a");
    let reader = Place::session(&writer);
    let place = Place { schema: String::new(), writer, reader };
    let calls: [fn(&Place) -> Result<()>; 4] =
        [|place| place.lock_shared(1), |place| place.unlock_shared(1), Place::lock_exclusive, Place::unlock_exclusive];
    for (index, call) in calls.into_iter().enumerate() {
        for cut in [Cut::Before, Cut::After] {
            // On a connection that was used before.
            place.look().unwrap();
            let fired = proxy.fired();
            proxy.arm(cut, "", 0, 1);
            let told = call(&place).map_err(|error| error.kind());
            assert_eq!((told, proxy.fired() - fired), (Err(ErrorKind::Unavailable), 1), "call {index}, {cut:?}");
        }
        call(&place).unwrap();
    }
}

/// A commit has its head's row locked until it is on the disk, and a piece of a checkpoint until its pages are: nobody who
/// locks waits for that.
#[test]
fn locks_do_not_wait_for_those_who_write() {
    let place = Place::new();
    for under_way in ["UPDATE S.heads SET size = size", "SELECT FROM S.heads FOR KEY SHARE"] {
        let other = place.begin(under_way);
        for number in [1, 2] {
            place.lock_shared(number).unwrap_or_else(|error| panic!("{under_way}: {error}"));
            place.unlock_shared(number).unwrap_or_else(|error| panic!("{under_way}: {error}"));
        }
        place.lock_exclusive().unwrap_or_else(|error| panic!("{under_way}: {error}"));
        place.unlock_exclusive().unwrap_or_else(|error| panic!("{under_way}: {error}"));
        place.end(&other);
    }
    assert_eq!(place.shared_locks(), "0");
}

/// Nor does a commit wait for anybody who locks, and readers do not wait for each other.
#[test]
fn those_who_write_do_not_wait_for_locks() {
    let mut place = Place::new();
    let (database, epoch, reader) = (place.writer.database, place.writer.epoch, place.reader);
    let shared = place.begin(&format!("SELECT S.lock_shared({database}, '{reader}', 1, 0, NULL, 0)"));
    place.writer.commit(10).expect("beside one who locks for reading");
    place.lock_shared(2).expect("beside one who locks for reading");
    place.end(&shared);
    let refusal = place.lock_exclusive().unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::LeaseHeld, "{refusal}");
    assert_eq!(refusal.message(), "a is locked for reading by the reader");
    place.unlock_shared(1).unwrap();
    place.unlock_shared(2).unwrap();
    let exclusive = place.begin(&format!("SELECT S.lock_exclusive({database}, {epoch})"));
    place.writer.commit(10).expect("beside one who locks exclusively");
    place.end(&exclusive);
    let refusal = place.lock_shared(3).unwrap_err();
    assert_eq!(refusal.message(), "a is locked exclusively by test");
}

/// One who asks while the other's answer is not there yet waits for it, and heeds it.
#[test]
fn readers_and_the_writer_wait_for_each_other() {
    let place = Place::new();
    let (database, epoch, reader) = (place.writer.database, place.writer.epoch, place.reader);
    let shared = place.begin(&format!("SELECT S.lock_shared({database}, '{reader}', 1, 0, NULL, 0)"));
    let store = Arc::clone(&place.writer.store);
    let asked = place.writer.runtime.spawn(async move { store.lock_exclusive(database, epoch).await });
    place.wait_until_asked();
    place.end(&shared);
    assert_eq!(place.writer.runtime.block_on(asked).unwrap().unwrap_err().kind(), ErrorKind::LeaseHeld);
    place.unlock_shared(1).unwrap();
    place.unlock_exclusive().unwrap();
    let exclusive = place.begin(&format!("SELECT S.lock_exclusive({database}, {epoch})"));
    let (store, request) = (Arc::clone(&place.writer.store), place.request(reader, 2));
    let asked = place.writer.runtime.spawn(async move { store.lock_shared(request).await });
    place.wait_until_asked();
    place.end(&exclusive);
    assert_eq!(place.writer.runtime.block_on(asked).unwrap().unwrap_err().kind(), ErrorKind::LeaseHeld);
    assert_eq!(place.shared_locks(), "0");
}

/// A renewal that was in time, but is not committed yet, counts: its process goes on.
#[test]
fn locks_of_a_session_whose_renewal_is_under_way_hold() {
    let place = Place::new();
    let (database, epoch, reader) = (place.writer.database, place.writer.epoch, place.reader);
    let renewal = |session| format!("UPDATE S.sessions SET expires = now() + interval '1 hour' WHERE id = '{session}'");
    place.lock_shared(1).unwrap();
    place.expire(reader, "1 second");
    let renewing = place.begin(&renewal(reader));
    place.writer.runtime.block_on(place.writer.store.purge(100)).unwrap();
    let store = Arc::clone(&place.writer.store);
    let asked = place.writer.runtime.spawn(async move { store.lock_exclusive(database, epoch).await });
    place.wait_until_asked();
    place.end(&renewing);
    assert_eq!(place.writer.runtime.block_on(asked).unwrap().unwrap_err().kind(), ErrorKind::LeaseHeld);
    place.unlock_shared(1).unwrap();
    place.lock_exclusive().unwrap();
    let holder = SessionId(uuid(&place.sql("SELECT holder FROM S.heads")));
    place.expire(holder, "1 second");
    let renewing = place.begin(&renewal(holder));
    let (store, request) = (Arc::clone(&place.writer.store), place.request(reader, 2));
    let asked = place.writer.runtime.spawn(async move { store.lock_shared(request).await });
    place.wait_until_asked();
    place.end(&renewing);
    assert_eq!(place.writer.runtime.block_on(asked).unwrap().unwrap_err().kind(), ErrorKind::LeaseHeld);
    // One that was in nobody's time is over for good.
    place.expire(holder, "1 second");
    place.lock_shared(3).unwrap();
    let revived = place.writer.runtime.block_on(place.writer.store.renew_session(holder));
    assert_eq!(revived.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(place.sql(&format!("SELECT ended FROM S.sessions WHERE id = '{holder}'")), "t");
}

fn uuid(text: &str) -> [u8; 16] {
    let number = u128::from_str_radix(&text.replace('-', ""), 16).unwrap();
    number.to_be_bytes()
}

/// A process that has ended gives nothing back: what its session had locked is removed some at a time, and of a database that
/// was deleted all of it.
#[test]
fn purge_removes_locks_of_sessions_that_are_over() {
    let place = Place::new();
    let purge = |most| {
        let purged = place.writer.runtime.block_on(place.writer.store.purge(most)).unwrap();
        (purged.removed, purged.done)
    };
    let [ended, expired, recent] = [(); 3].map(|()| Place::session(&place.writer));
    for (session, locks) in [(ended, 250), (expired, 30), (recent, 4), (place.reader, 5)] {
        place.sql(&format!(
            "INSERT INTO S.shared_locks SELECT {}, '{session}', n FROM generate_series(1, {locks}) n",
            place.writer.database
        ));
    }
    place.sql("INSERT INTO S.shared_locks SELECT 77, gen_random_uuid(), n FROM generate_series(1, 10) n");
    place.writer.runtime.block_on(place.writer.store.end_session(ended)).unwrap();
    place.expire(expired, "2 hours");
    place.expire(recent, "1 second");
    assert_eq!([purge(100), purge(100), purge(100)], [(100, false), (100, false), (90, true)]);
    assert_eq!(place.shared_locks(), "9", "of those that live, or may");
    assert_eq!(place.lock_exclusive().unwrap_err().kind(), ErrorKind::LeaseHeld);
    for number in 1..=5 {
        place.unlock_shared(number).unwrap();
    }
    place.lock_exclusive().unwrap();
    assert_eq!(place.shared_locks(), "0", "who wants to be alone removes those that do not live");
    place.unlock_exclusive().unwrap();
    place.lock_shared(6).unwrap();
    assert_eq!(place.lock_exclusive().unwrap_err().kind(), ErrorKind::LeaseHeld);
    place.writer.runtime.block_on(place.writer.store.delete(place.writer.database, place.writer.epoch)).unwrap();
    assert!(purge(100).1);
    assert_eq!(
        place.sql("SELECT (SELECT count(*) FROM S.shared_locks) + (SELECT count(*) FROM S.exclusive_locks)"),
        "0"
    );
}

/// Else one that was given back just before might have come back with the crash, and nobody would ever give it back again.
#[test]
fn crash_of_the_server_ends_all_locks() {
    let mut server = Server::start(&ServerOptions { durable: true, ..ServerOptions::default() });
    let place = Place::at(&server, "litefleet", |config| config);
    place.lock_shared(1).unwrap();
    assert_eq!(place.lock_exclusive().unwrap_err().kind(), ErrorKind::LeaseHeld);
    // On the disk, with all that came before.
    server.sql("CREATE TABLE waits ()");
    server.kill();
    server.resume();
    place.lock_exclusive().unwrap();
    server.kill();
    server.resume();
    place.lock_shared(2).unwrap();
}

/// Locks are of no use to anybody after a failover: nobody waits for a standby with them. But whoever asks along with one what
/// became of a commit is told what the standby has.
#[test]
fn locks_do_not_wait_for_a_standby() {
    let (primary, mut standby) = synchronous_pair();
    let place = Place::at(&primary, "litefleet", |config| config.call_timeout(PATIENCE));
    standby.stop();
    for round in 0..10 {
        place.lock_shared(round).unwrap();
        place.unlock_shared(round).unwrap();
        place.lock_exclusive().unwrap();
        place.unlock_exclusive().unwrap();
    }
    let mut request = place.request(place.reader, 100);
    request.head.epoch = Some(place.writer.epoch);
    let store = Arc::clone(&place.writer.store);
    let asked = place.writer.runtime.spawn(async move { store.lock_shared(request).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%.lock_shared(%'";
    wait_until("it waits for the standby", PATIENCE, || asked.is_finished() || primary.sql(waits) == "1");
    assert!(!asked.is_finished(), "it was answered without a standby");
    standby.resume();
    place.writer.runtime.block_on(asked).unwrap().unwrap();
}

/// The server's numbers end at 2^63, and what is above was taken for that.
#[test]
fn each_number_is_a_lock_of_its_own() {
    let place = Place::new();
    place.lock_shared(u64::MAX).unwrap();
    place.lock_shared(u64::MAX - 1).unwrap();
    place.unlock_shared(u64::MAX).unwrap();
    assert_eq!(place.lock_exclusive().unwrap_err().kind(), ErrorKind::LeaseHeld);
}
