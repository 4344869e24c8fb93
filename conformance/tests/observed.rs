//! What a program sees of the work: metrics by a recorder of its own, spans by a subscriber of its own.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litefleet::clock::ManualClock;
use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, MemoryStore, Operation, PageStore};
use litefleet::{DatabaseName, Fleet, Role};
use litefleet_conformance::faults::{Process, pause};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use rusqlite::Connection;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

#[derive(Default)]
struct Number(AtomicU64);

impl CounterFn for Number {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::SeqCst);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }
}

impl HistogramFn for Number {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Counts: histograms, how often something was recorded.
#[derive(Default)]
struct Numbers(Mutex<BTreeMap<String, Arc<Number>>>);

impl Numbers {
    fn number(&self, key: &Key) -> Arc<Number> {
        let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    fn get(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).map_or(0, |number| number.0.load(Ordering::SeqCst))
    }
}

impl Recorder for Numbers {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.number(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.number(key))
    }
}

#[test]
fn calls_are_timed_and_refused_commits_are_errors() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let (process, other) = (Process::new(Arc::clone(&store), Process::small()), Process::new(store, Process::small()));
    let numbers = Numbers::default();
    metrics::with_local_recorder(&numbers, || {
        let connection = process.open("a", "");
        connection.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(numbers.get("litefleet_store_seconds{operation=commit}"), 2);
        assert_eq!(numbers.get("litefleet_store_seconds{operation=open}"), 1);
        let refused = "litefleet_store_errors_total{operation=commit,kind=fenced}";
        assert_eq!(numbers.get(refused), 0);
        other.open("a", "&takeover=1").execute_batch("INSERT INTO t VALUES (2)").unwrap();
        connection.execute_batch("INSERT INTO t VALUES (3)").unwrap_err();
        assert_eq!(numbers.get(refused), 1, "{:?}", numbers.0.lock().unwrap().keys());
    });
}

/// Commits of several databases were neither timed nor counted when they failed.
#[test]
fn commits_of_several_databases_are_timed_and_counted() {
    let plan = Arc::new(FaultPlan::default());
    let store = FaultLayer::new(Arc::new(MemoryStore::default()), Arc::clone(&plan));
    let process = Process::new(Arc::new(store), Process::small());
    let numbers = Numbers::default();
    metrics::with_local_recorder(&numbers, || {
        let connection = process.open("a", "");
        connection.execute(&format!("ATTACH '{}' AS b", process.uri("b", "")), []).unwrap();
        connection.execute_batch("CREATE TABLE main.t (v); CREATE TABLE b.t (v)").unwrap();
        let both = "BEGIN; INSERT INTO main.t VALUES (1); INSERT INTO b.t VALUES (1); COMMIT";
        let timed = || numbers.get("litefleet_commit_seconds{}");
        assert_eq!(timed(), 2);
        connection.execute_batch(both).unwrap();
        assert_eq!(timed(), 3);
        assert_eq!(numbers.get("litefleet_tail_bytes{}"), 4, "after each record of each database");
        plan.arm(Fault { operation: Some(Operation::Commit), after: 0, times: 1, effect: Effect::Full });
        connection.execute_batch(both).unwrap_err();
        assert_eq!((timed(), numbers.get("litefleet_commits_failed_total{kind=full}")), (3, 1));
    });
}

/// What the cache does is counted once a second, on a thread of the fleet's.
#[test]
fn hits_and_misses_of_the_cache_are_told() {
    let numbers: &'static Numbers = Box::leak(Box::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(|| {
            // For as long as the thread lives.
            Box::leak(Box::new(metrics::set_default_local_recorder(numbers)));
        })
        .build()
        .unwrap();
    let fleet = Fleet::builder(Arc::new(MemoryStore::default())).runtime(runtime.handle().clone()).build().unwrap();
    let database = fleet.connect(&DatabaseName::new("a").unwrap(), Role::Writer, true);
    let snapshot = database.begin_read().unwrap();
    let mut buffer = database.begin_write(snapshot, false).unwrap();
    database.write(&mut buffer, 0, &vec![1; 5 * 4096]).unwrap();
    let snapshot = database.commit(&mut buffer, snapshot).unwrap();
    database.end_write(&mut buffer);
    let mut page = [0; 4096];
    for at in [0, 4096, 4096] {
        database.read(snapshot, at, &mut page).unwrap();
    }
    let counted = fleet.cache();
    assert!(counted.hits >= 3);
    let told = || (numbers.get("litefleet_cache_hits_total{}"), numbers.get("litefleet_cache_misses_total{}"));
    while told() != (counted.hits, counted.misses) {
        pause(Duration::from_millis(20));
    }
    // Once each, however often it is looked.
    pause(Duration::from_millis(1200));
    assert_eq!(told(), (counted.hits, counted.misses));
    database.unpin(snapshot);
    fleet.disconnect(&database);
    drop((database, fleet));
    runtime.shutdown_background();
}

/// Who has the lease was shown only where it was this process.
#[test]
fn the_status_names_the_holder_that_was_last_heard_of() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let [one, two] = ["one", "two"].map(|label| {
        let settings = litefleet::FleetSettings { label: label.to_owned(), ..Process::small() };
        Process::new(Arc::clone(&store), settings)
    });
    let holder = |connection: &Connection| {
        let status: String = connection.query_row("PRAGMA litefleet_status", [], |row| row.get(0)).unwrap();
        status.lines().find_map(|line| line.strip_prefix("holder: ")).unwrap().to_owned()
    };
    let writer = one.open("a", "");
    assert_eq!(holder(&writer), "none, as last heard");
    writer.execute_batch("CREATE TABLE t (v)").unwrap();
    assert_eq!(holder(&writer), "one");
    let follower = two.follow("a");
    let read = || follower.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
    read();
    assert_eq!(holder(&follower), "one, as last heard");
    writer.query_row("PRAGMA litefleet_release", [], |_| Ok(())).unwrap();
    assert_eq!(holder(&writer), "none, as last heard");
    read();
    assert_eq!(holder(&follower), "none, as last heard");
}

/// The names of spans, with the database that they name.
#[derive(Default)]
struct Spans(Mutex<BTreeSet<String>>);

struct Name(Option<String>);

impl Visit for Name {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "database" {
            self.0 = Some(format!("{value:?}"));
        }
    }
}

struct Collector(Arc<Spans>);

impl Subscriber for Collector {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut name = Name(None);
        attributes.record(&mut name);
        let span = format!("{} {}", attributes.metadata().name(), name.0.unwrap_or_default());
        self.0.0.lock().unwrap().insert(span);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn work_on_a_database_is_in_a_span_that_names_it() {
    let spans = Arc::new(Spans::default());
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let [process, other] = [(); 2].map(|()| Process::new(Arc::clone(&store), Process::small()));
    tracing::subscriber::with_default(Collector(Arc::clone(&spans)), || {
        let connection = process.open("tenant", "");
        // More pages than come along with an open.
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)";
        let fill = format!("CREATE TABLE t (v); INSERT INTO t {rows} SELECT zeroblob(3000) FROM n");
        connection.execute_batch(&fill).unwrap();
        connection.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(())).unwrap();
        let reader = other.follow("tenant");
        assert_eq!(reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 100);
        connection.execute(&format!("ATTACH '{}' AS b", process.uri("second", "")), []).unwrap();
        connection.execute_batch("BEGIN; CREATE TABLE main.u (v); CREATE TABLE b.u (v); COMMIT").unwrap();
    });
    let seen = spans.0.lock().unwrap().clone();
    let expected =
        ["checkpoint tenant", "collect tenant", "commit of several ", "commit tenant", "open tenant", "read tenant"];
    assert!(expected.iter().all(|span| seen.contains(*span)), "{seen:?}");
}

fn small() -> litefleet::FleetSettings {
    let mut settings = Process::small();
    settings.session_lifetime = Duration::from_secs(1_000_000);
    settings.database.checkpoint_records = 1_000_000;
    settings.database.checkpoint_idle = Duration::from_secs(1_000_000);
    settings.database.retention = Duration::from_secs(60);
    settings
}

/// What a checkpoint had made garbage waited for the next one, and so for ever when nothing was written any more.
#[test]
fn garbage_is_collected_when_its_retention_is_over() {
    let clock = Arc::new(ManualClock::default());
    let store = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
    let process = Process::with_clock(store, small(), Arc::<ManualClock>::clone(&clock));
    let connection = process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    connection.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(())).unwrap();
    let name = litefleet::DatabaseName::new("a").unwrap();
    let head = || process.fleet().info(&name).unwrap().head;
    assert_eq!((head().checkpoint.get(), head().horizon.get()), (2, 0));
    clock.advance(Duration::from_secs(61));
    // Idle databases are looked at once a second.
    while head().horizon.get() < 2 {
        pause(Duration::from_millis(20));
    }
}

/// A database that is only ever open for a short time was never collected.
#[test]
fn garbage_of_earlier_checkpoints_is_collected_at_close() {
    let clock = Arc::new(ManualClock::default());
    let store = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
    let process = Process::with_clock(store, small(), Arc::<ManualClock>::clone(&clock));
    let name = litefleet::DatabaseName::new("a").unwrap();
    process.open("a", "").execute_batch("CREATE TABLE t (v)").unwrap();
    for round in 1..5u64 {
        clock.advance(Duration::from_secs(100));
        process.open("a", "").execute_batch("INSERT INTO t VALUES (1)").unwrap();
        let head = process.fleet().info(&name).unwrap().head;
        assert_eq!((head.checkpoint.get(), head.horizon.get()), (round + 1, round), "the one before is old enough");
    }
}

/// Each close looked for dead rows among all that are still readable: thousands, in a database that is opened and closed all the
/// time. What is garbage waits now until it is a part of them that pays.
#[test]
fn a_close_collects_when_it_pays() {
    let clock = Arc::new(ManualClock::default());
    let store = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
    let process = Process::with_clock(store, small(), Arc::<ManualClock>::clone(&clock));
    let name = litefleet::DatabaseName::new("a").unwrap();
    let numbers = Numbers::default();
    metrics::with_local_recorder(&numbers, || {
        process.open("a", "").execute_batch("CREATE TABLE t (v)").unwrap();
        for _ in 0..200 {
            clock.advance(Duration::from_secs(1));
            process.open("a", "").execute_batch("INSERT INTO t VALUES (1)").unwrap();
        }
    });
    let horizon = process.fleet().info(&name).unwrap().head.horizon.get();
    assert_eq!(horizon, 141, "the newest that was 60 s old, of 201");
    let (looked, records) = (
        numbers.get("litefleet_store_seconds{operation=read_log}"),
        numbers.get("litefleet_collected_records_total{}"),
    );
    // 60 are readable.
    assert!((10..=horizon / 7).contains(&looked), "{looked} looks for {records} records");
    assert!(records > horizon - 8 && records < horizon, "{records} records are gone");
    let rest = process.fleet().collect(&name, false).unwrap().records;
    assert_eq!(records + rest, horizon, "who asks for it gets all");
}
