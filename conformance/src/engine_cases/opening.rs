//! Opening: names, URI parameters, followers, pragmas, and the threads that SQLite is called on.

use litefleet::DatabaseName;
use litefleet::vfs::{OpenMode, Vfs};
use rusqlite::{Connection, OpenFlags};

use super::bench::{Bench, EngineHarness, code, error_code, fill, number, run, text, try_run};

const READONLY: i32 = 8;
const CANTOPEN: i32 = 14;

/// What a connection answers at its first use: the store is asked then.
fn first_use(connection: rusqlite::Result<Connection>) -> i32 {
    let used = connection.and_then(|connection| try_run(&connection, "SELECT count(*) FROM sqlite_schema"));
    used.map_or_else(|error| error_code(&error), |()| 0)
}

/// A parameter with a value that it cannot have is refused, not passed over.
pub fn bad_parameters_are_refused(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    for bad in [
        "lease=sometimes",
        "takeover=perhaps",
        "busy=soon",
        "staleness=-1",
        "checkpoint_records=many",
        "compression=zip",
        "transaction_bytes=1e6",
        "store_timeout=",
    ] {
        let code = first_use(bench.try_open("a", bad));
        assert_eq!(code & 0xff, CANTOPEN, "{bad}");
    }
    assert!(!bench.fleet.exists(&DatabaseName::new("a").unwrap()).unwrap(), "nothing was created");
    let good = "lease=exclusive&busy=10&staleness=0&checkpoint_records=100&compression=none&transaction_bytes=100000";
    run(&bench.open_with("a", good), "CREATE TABLE t(x)");
}

/// A misspelt parameter is refused. SQLite's own are not ours to refuse, nor those that nobody here knows.
pub fn misspelt_parameters_are_refused(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    for bad in ["leese=transaction", "busy=10&Takeover=1", "checkpoints_records=3&mode=rw"] {
        let code = first_use(bench.try_open("a", bad));
        assert_eq!(code & 0xff, CANTOPEN, "{bad}");
    }
    assert!(!bench.fleet.exists(&DatabaseName::new("a").unwrap()).unwrap(), "nothing was created");
    let vfs = Vfs::new(bench.fleet.clone());
    let error = vfs.open(&DatabaseName::new("a").unwrap(), OpenMode::Create, [("leese", "transaction")]).unwrap_err();
    assert!(error.message().contains("did you mean lease?"), "{error}");
    let sqlites = "mode=rwc&cache=private&psow=1&nolock=0&immutable=0&modeof=/tmp&8_3_names=1&busy=10&colour=red&x=";
    run(&bench.open_with("a", sqlites), "CREATE TABLE t(x)");
}

/// SQLite reads the header when it opens a file. The store is not asked for it; a database that is open in the process has
/// it at hand.
pub fn page_size_is_known_before_the_first_read(harness: &dyn EngineHarness) {
    let bench = Bench::plain(harness);
    let first = bench.open("a");
    run(&first, "PRAGMA page_size=8192; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    let before = bench.trips();
    assert_eq!(number(&bench.open("a"), "PRAGMA page_size"), 8192);
    assert_eq!(bench.trips(), before);
    drop(first);
    let before = bench.trips();
    let second = bench.open("a");
    assert_eq!((number(&second, "PRAGMA page_size"), bench.trips()), (4096, before), "it takes no trip to open");
    assert_eq!(number(&second, "SELECT count(*) FROM t"), 1);
    assert_eq!(number(&second, "PRAGMA page_size"), 8192, "since the first read");
    // A wish that comes before the first read changes nothing that is there.
    let third = bench.another().open("a");
    drop(second);
    run(&third, "PRAGMA page_size=512; INSERT INTO t VALUES(2)");
    assert_eq!(number(&third, "PRAGMA page_size"), 8192);
    drop(third);
    bench.check("a");
}

/// Names are checked, and any other character may stand in them.
pub fn names_are_checked(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    assert_eq!(first_use(bench.try_open(&"x".repeat(513), "")) & 0xff, CANTOPEN);
    assert_eq!(first_use(bench.try_open("%FF%FE", "")) & 0xff, CANTOPEN, "not UTF-8");
    let longest = "y".repeat(512);
    for name in ["customers/acme/main", "a b", "\u{e9}\u{1F600}", "a%3Fb%23c", "dots..and", longest.as_str()] {
        let connection = bench.open(name);
        run(&connection, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
        drop(connection);
        assert_eq!(number(&bench.open(name), "SELECT count(*) FROM t"), 1, "{name}");
    }
    assert!(bench.fleet.exists(&DatabaseName::new("a?b#c").unwrap()).unwrap());
    assert!(bench.fleet.exists(&DatabaseName::new("customers/acme/main").unwrap()).unwrap());
}

/// Without the wish to create, a database that does not exist cannot be opened, and is not created.
pub fn missing_database_cannot_be_opened(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    for mode in ["mode=rw", "mode=ro"] {
        assert_eq!(first_use(bench.try_open("a", mode)) & 0xff, CANTOPEN, "{mode}");
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI;
    assert_eq!(first_use(Connection::open_with_flags(bench.uri("a", ""), flags)) & 0xff, CANTOPEN);
    assert!(!bench.fleet.exists(&DatabaseName::new("a").unwrap()).unwrap());
    run(&bench.open_with("a", "mode=rwc"), "CREATE TABLE t(x)");
    assert_eq!(first_use(bench.try_open("a", "mode=rw")), 0);
}

/// A follower sees each commit of another process, and cannot write.
pub fn follower_sees_commits_and_cannot_write(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let writer = bench.open("a");
    fill(&writer, "t", 20, 500);
    let other = bench.another();
    let follower = other.open_with("a", "mode=ro");
    for round in 0..20 {
        run(&writer, &format!("INSERT INTO t(v) VALUES(zeroblob({round} * 300)); DELETE FROM t WHERE k = {round}"));
        assert_eq!(number(&follower, "SELECT count(*) FROM t"), number(&writer, "SELECT count(*) FROM t"));
        assert_eq!(text(&follower, "PRAGMA integrity_check"), "ok");
    }
    assert_eq!(code(&follower, "INSERT INTO t(v) VALUES(1)") & 0xff, READONLY);
    assert_eq!(code(&follower, "CREATE TABLE u(x)") & 0xff, READONLY);
    // A read transaction stays at its snapshot, whatever is committed and checkpointed.
    run(&follower, "BEGIN");
    let count = number(&follower, "SELECT count(*) FROM t");
    run(&writer, "DELETE FROM t WHERE k > 12");
    assert_eq!(number(&follower, "SELECT count(*) FROM t"), count);
    run(&follower, "COMMIT");
    assert!(number(&follower, "SELECT count(*) FROM t") < count);
}

/// The pragmas for a person at a prompt.
pub fn pragmas_answer(harness: &dyn EngineHarness) {
    let bench = Bench::keeping(harness);
    let connection = bench.open("a");
    run(&connection, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    let status = text(&connection, "PRAGMA litefleet_status");
    for line in ["database: a", "role: writer", "txid: 2", "epoch: ", "size_bytes: 8192"] {
        assert!(status.lines().any(|found| found.starts_with(line)), "{line} in {status}");
    }
    assert_eq!(text(&connection, "PRAGMA litefleet_checkpoint"), "checkpoint at txid 2");
    assert!(text(&connection, "PRAGMA litefleet_status").contains("checkpoint: 2"));
    assert_eq!(text(&connection, "PRAGMA litefleet_release"), "released");
    let other = bench.another();
    run(&other.open("a"), "INSERT INTO t VALUES(2)");
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), 2, "what another process wrote meanwhile");
    assert_eq!(text(&connection, "PRAGMA litefleet_error"), "");
    assert_eq!(code(&connection, "PRAGMA litefleet_status=1"), 1);
    run(&connection, "BEGIN IMMEDIATE");
    assert_eq!(code(&connection, "PRAGMA litefleet_release"), 1, "not within a write transaction");
    run(&connection, "COMMIT");
}

/// SQLite may be called on any thread, a worker of Tokio included.
pub fn tokio_workers_may_call(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let work = |name: &str| {
        let connection = bench.open(name);
        fill(&connection, "t", 100, 2000);
        assert_eq!(number(&connection, "SELECT count(*) FROM t"), 100);
    };
    let current = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    current.block_on(async { work("current") });
    let multi = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let connection = bench.open("multi");
    let task = multi.spawn(async move {
        fill(&connection, "t", 100, 2000);
        number(&connection, "SELECT count(*) FROM t")
    });
    assert_eq!(multi.block_on(task).unwrap(), 100);
    multi.block_on(async { work("outside") });
    multi.shutdown_background();
}

/// The fleet works on the application's runtime, and SQLite is called on that one's only worker, in a `LocalSet` on it, and in
/// another runtime. The cache is so small that a commit waits for pages in the middle of its own wait: there it panicked.
pub fn tokio_workers_of_the_fleets_own_runtime_may_call(harness: &dyn EngineHarness) {
    let multi = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bench = Bench::on_runtime(harness, multi.handle(), |settings| settings.cache_bytes = 0);
    let work = |connection: &Connection| {
        fill(connection, "t", 30, 3000);
        run(connection, "UPDATE t SET v = substr(v, 1, 2999) || 'x' WHERE length(v) = 3000");
        number(connection, "SELECT count(*) FROM t WHERE substr(v, 3000) = 'x'")
    };
    let current = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(current.block_on(async { work(&bench.open("current")) }), 30);
    assert_eq!(multi.block_on(async { work(&bench.open("outside")) }), 30);
    let local = tokio::task::LocalSet::new();
    let connection = bench.open("local");
    let task = local.spawn_local(async move { work(&connection) });
    multi.block_on(local);
    assert_eq!(current.block_on(task).unwrap(), 30);
    let connection = bench.open("worker");
    let task = multi.spawn(async move { work(&connection) });
    assert_eq!(multi.block_on(task).unwrap(), 30);
    for name in ["current", "outside", "local", "worker"] {
        bench.check(name);
    }
    drop(bench);
    multi.shutdown_background();
}

/// Taking the VFS back leaves open connections as they are.
pub fn unregistering_leaves_open_connections(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    run(&connection, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    bench.fleet.unregister(&bench.vfs).unwrap();
    assert!(bench.try_open("a", "").is_err(), "no new connection finds it");
    run(&connection, "INSERT INTO t VALUES(2); BEGIN; INSERT INTO t VALUES(3); ROLLBACK");
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), 2);
}

/// A VFS that is registered again knows the files of its connections that stayed open: a transaction over several of them
/// was refused, since its super-journal was made through a new VFS.
pub fn registering_again_knows_open_connections(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    run(&connection, "ATTACH 'b' AS b; CREATE TABLE main.t(x); CREATE TABLE b.t(x)");
    bench.fleet.unregister(&bench.vfs).unwrap();
    bench.fleet.register(&bench.vfs, false).unwrap();
    run(&connection, "BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO b.t VALUES(1); COMMIT");
    assert_eq!(number(&bench.open("b"), "SELECT x FROM t"), 1);
}

/// Connections of a fleet go on when another one has its name. Their transactions over several databases were refused: the
/// super-journal was made at the other fleet.
pub fn name_taken_by_another_fleet_leaves_open_connections(harness: &dyn EngineHarness) {
    let benches = [(); 3].map(|()| Bench::new(harness));
    let name = benches[0].vfs.clone();
    let mut connections = Vec::new();
    for bench in &benches {
        bench.fleet.register(&name, false).unwrap();
        let connection = benches[0].open("a");
        run(&connection, "ATTACH 'b' AS b; CREATE TABLE main.t(x); CREATE TABLE b.t(x)");
        connections.push(connection);
        for (index, connection) in connections.iter().enumerate() {
            run(connection, "BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO b.t VALUES(1); COMMIT");
            let rows = i64::try_from(connections.len() - index).unwrap();
            assert_eq!(number(connection, "SELECT count(*) FROM b.t"), rows);
        }
        bench.fleet.unregister(&name).unwrap();
    }
}
