//! Measures the store beside bare transactions on the same cluster, in the same run, side by side:
//!
//! ```sh
//! LITEFLEET_FDB_CLUSTER_FILE=… LITEFLEET_FDB_LIBRARY_DIR=… cargo run --release -p litefleet-fdb --example bench
//! ```
//!
//! Without a cluster it runs on the stand-in, where times say little, and requests and bytes are counted.

#![expect(clippy::print_stdout, reason = "a person reads it")]

mod bare;
mod rig;
mod table;

use std::sync::Barrier;
use std::time::Duration;

use litefleet_fdb_stand_in_control::is_stand_in;

use bare::Bare;
use rig::{Rig, Timer};
use table::{Latencies, row};

/// How long each measurement of commits takes.
const RUN: Duration = Duration::from_secs(3);

/// Bytes of the database that is scanned.
const SCANNED: usize = 50 << 20;

fn main() {
    let rig = Rig::new();
    println!("{}", if is_stand_in() { "the stand-in: times are the stand-in's" } else { "a real cluster" });
    println!();
    let bare = Bare::new(&rig);
    commits(&rig, &bare);
    bytes(&rig);
    reading(&rig, &bare);
}

/// Commits per second of as many databases at once, beside as many bare committers.
fn commits(rig: &Rig, bare: &Bare) {
    row(&["commits", "per second", "p50 ms", "p99 ms", "bare per s", "bare p50 ms", "of bare", "of its p50"]);
    for count in [1, 16, 64, 256] {
        let fleet = rig.fleet();
        let names: Vec<String> = (0..count).map(|index| format!("commits-{count}-{index}")).collect();
        for name in &names {
            let connection = fleet.open(name);
            connection
                .execute_batch("CREATE TABLE t(k INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 0)")
                .expect("made");
        }
        let start = Barrier::new(count);
        let ours = std::thread::scope(|scope| {
            let threads: Vec<_> = names
                .iter()
                .map(|name| {
                    let (fleet, start) = (&fleet, &start);
                    scope.spawn(move || {
                        let connection = fleet.open(name);
                        let mut update = connection.prepare("UPDATE t SET v = v + 1 WHERE k = 1").expect("valid");
                        update.execute(()).expect("the first takes the lease");
                        start.wait();
                        let (run, mut latencies) = (Timer::start(), Latencies::default());
                        while run.elapsed() < RUN {
                            let one = Timer::start();
                            update.execute(()).expect("a commit");
                            latencies.add(one.elapsed());
                        }
                        latencies
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .fold(Latencies::default(), Latencies::and)
        });
        let theirs = bare.commits(count, RUN);
        let (rate, bare_rate) = (ours.per_second(RUN), theirs.per_second(RUN));
        row(&[
            &format!("{count} databases"),
            &format!("{rate:.0}"),
            &format!("{:.2}", ours.percentile(50)),
            &format!("{:.2}", ours.percentile(99)),
            &format!("{bare_rate:.0}"),
            &format!("{:.2}", theirs.percentile(50)),
            &format!("{:.2}", rate / bare_rate),
            &format!("{:.2}", ours.percentile(50) / theirs.percentile(50)),
        ]);
    }
    println!();
}

/// What a one-row update of a database of 100 MB writes, checkpoints included.
fn bytes(rig: &Rig) {
    const ROWS: u32 = 100_000;
    let fleet = rig.fleet();
    let connection = fleet.open("bytes");
    rig::fill(&connection, ROWS, 900);
    connection.execute_batch("PRAGMA litefleet_checkpoint").expect("a checkpoint");
    let before = rig.written();
    let updates = 5_000_u32;
    let mut update = connection.prepare("UPDATE t SET n = n + 1 WHERE k = ?1").expect("valid");
    for index in 0..updates {
        // Rows far apart, in an order that comes again.
        update.execute([index.wrapping_mul(7919) % ROWS + 1]).expect("a commit");
    }
    drop(update);
    connection.execute_batch("PRAGMA litefleet_checkpoint").expect("a checkpoint");
    row(&["an update of one row in 100 MB", "bytes", "keys", "requests to commit"]);
    match (before, rig.written()) {
        (Some(before), Some(after)) => row(&[
            "on average, with checkpoints",
            &format!("{:.0}", after.bytes_since(&before) / f64::from(updates)),
            &format!("{:.2}", after.keys_since(&before) / f64::from(updates)),
            &format!("{:.2}", after.commits_since(&before) / f64::from(updates)),
        ]),
        _ => row(&["on average, with checkpoints", "counted on the stand-in only", "", ""]),
    }
    println!();
}

/// Opening, scanning and looking up, each cold, beside bare reads of as much.
fn reading(rig: &Rig, bare: &Bare) {
    let rows = u32::try_from(SCANNED / 1_000).expect("it fits");
    {
        let fleet = rig.fleet();
        rig::fill(&fleet.open("cold"), rows, 900);
    }
    row(&["cold", "ms", "bare", "bare ms", "of bare"]);
    let compare = |what: &str, ours: Duration, against: &str, theirs: Duration| {
        let (ours, theirs) = (ours.as_secs_f64() * 1e3, theirs.as_secs_f64() * 1e3);
        row(&[what, &format!("{ours:.2}"), against, &format!("{theirs:.2}"), &format!("{:.2}", ours / theirs)]);
    };
    let exchange = bare.read_version();
    let fleet = rig.fleet();
    // The process has the store open, and a session; the database it has never seen.
    fleet.open("other").execute_batch("CREATE TABLE IF NOT EXISTS t(x)").expect("made");
    let timer = Timer::start();
    let connection = fleet.open("cold");
    let first: u32 = connection.query_row("SELECT n FROM t WHERE k = 1", (), |row| row.get(0)).expect("a row");
    compare("open and first query", timer.elapsed(), "a read version", exchange);
    assert_eq!(first, 0);
    drop((connection, fleet));

    let fleet = rig.fleet();
    let connection = fleet.open("cold");
    let timer = Timer::start();
    let bytes: u32 = connection.query_row("SELECT sum(length(v)) FROM t", (), |row| row.get(0)).expect("a sum");
    let bytes = usize::try_from(bytes).expect("it fits");
    let scan = timer.elapsed();
    drop((connection, fleet));
    let (range, as_many) = bare.scan(bytes);
    compare(&format!("scan of {} MB", bytes >> 20), scan, &format!("ranges of {} MB", as_many >> 20), range);

    let fleet = rig.fleet();
    let connection = fleet.open("cold");
    let mut lookup = connection.prepare("SELECT length(v) FROM t WHERE n2 = ?1").expect("valid");
    let timer = Timer::start();
    for index in 0..1_000_u32 {
        let length: u32 = lookup.query_row([index.wrapping_mul(7919) % rows + 1], |row| row.get(0)).expect("a row");
        assert_eq!(length, 900);
    }
    compare("1,000 lookups by an index", timer.elapsed(), "1,000 gets", bare.gets(1_000));
}
