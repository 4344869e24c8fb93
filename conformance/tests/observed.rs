//! What a program sees of the work: metrics by a recorder of its own, spans by a subscriber of its own.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litefleet::clock::ManualClock;
use litefleet::store::{MemoryStore, PageStore};
use litefleet_conformance::faults::{Process, pause};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
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
    let process = Process::new(Arc::new(MemoryStore::default()), Process::small());
    tracing::subscriber::with_default(Collector(Arc::clone(&spans)), || {
        let connection = process.open("tenant", "");
        connection.execute_batch("CREATE TABLE t (v)").unwrap();
        connection.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(())).unwrap();
    });
    let seen = spans.0.lock().unwrap().clone();
    let expected = ["checkpoint tenant", "collect tenant", "commit tenant", "open tenant"];
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
