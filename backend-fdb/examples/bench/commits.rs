//! Commits per second of as many databases at once, beside as many bare committers: by turns, several times, since a
//! machine is not always as busy.

use std::sync::Barrier;
use std::time::Duration;

use rusqlite::Connection;

use crate::bare::Bare;
use crate::cpu::{Cluster, own_time};
use crate::latencies::{Latencies, median};
use crate::page::Page;
use crate::rig::{Rig, Timer};

/// How long each turn takes.
const TURN: Duration = Duration::from_secs(2);
const TURNS: usize = 5;

/// What came of the turns of one kind.
#[derive(Default)]
struct Side {
    latencies: Latencies,
    /// Of each turn: commits per second, microseconds of the cluster's processes for each commit, and of this one.
    rates: Vec<f64>,
    cluster: Vec<f64>,
    own: Vec<f64>,
}

/// What our turns wrote for each commit.
#[derive(Default)]
struct Each {
    transactions: f64,
    keys: f64,
    bytes: f64,
}

impl Side {
    fn turn(&mut self, cluster: &Cluster, length: Duration, turn: impl FnOnce() -> Latencies) {
        let (before, own) = (cluster.time(), own_time());
        let done = turn();
        let (after, own) = (cluster.time(), own_time().saturating_sub(own));
        let count = done.count();
        self.rates.push(count / length.as_secs_f64());
        self.own.push(own.as_secs_f64() * 1e6 / count);
        if let (Some(before), Some(after)) = (before, after) {
            self.cluster.push(after.saturating_sub(before).as_secs_f64() * 1e6 / count);
        }
        self.latencies = std::mem::take(&mut self.latencies).and(done);
    }
}

pub(crate) fn measure(rig: &Rig, bare: &Bare, page: &mut Page) {
    let cluster = Cluster::find();
    let heads = [
        "commits/s",
        "bare",
        "p50 ms",
        "bare",
        "p99 ms",
        "bare",
        "cluster us",
        "bare",
        "own us",
        "bare",
        "transactions",
        "keys",
        "bytes",
    ];
    page.head(&[["databases"].as_slice(), &heads].concat());
    for count in [1, 16, 64, 256] {
        let (ours, theirs, each) = turns(rig, bare, &cluster, count);
        let number = |number: f64| format!("{number:.0}");
        let latency = |side: &Side, percent| format!("{:.2}", side.latencies.percentile(percent));
        page.row(&[
            &count.to_string(),
            &number(median(&ours.rates)),
            &number(median(&theirs.rates)),
            &latency(&ours, 50),
            &latency(&theirs, 50),
            &latency(&ours, 99),
            &latency(&theirs, 99),
            &number(median(&ours.cluster)),
            &number(median(&theirs.cluster)),
            &number(median(&ours.own)),
            &number(median(&theirs.own)),
            &format!("{:.3}", each.transactions),
            &format!("{:.2}", each.keys),
            &number(each.bytes),
        ]);
        match count {
            1 => {
                let ratio = ours.latencies.percentile(50) / theirs.latencies.percentile(50);
                page.at_most("one database: median latency, of a bare commit's", 1.1, Some(ratio));
            }
            64 => {
                let ratio = median(&ours.rates) / median(&theirs.rates);
                page.at_least("64 databases: commits, of as many bare committers'", 0.8, Some(ratio));
                let ratio = median(&ours.cluster) / median(&theirs.cluster);
                let known = Some(ratio).filter(|ratio| ratio.is_finite());
                page.at_most("64 databases: the cluster's CPU time per commit, of bare ones'", 0.25, known);
            }
            _ => {}
        }
    }
}

fn turns(rig: &Rig, bare: &Bare, cluster: &Cluster, count: usize) -> (Side, Side, Each) {
    let fleet = rig.fleet();
    let mut connections: Vec<Connection> = (0..count)
        .map(|index| {
            let connection = fleet.open(&format!("commits-{count}-{index}"));
            let make = "CREATE TABLE t(k INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 0)";
            connection.execute_batch(make).expect("made");
            connection
        })
        .collect();
    let (mut ours, mut theirs) = (Side::default(), Side::default());
    let length = TURN / rig.scale;
    let before = fleet.written();
    for _ in 0..TURNS {
        ours.turn(cluster, length, || updates(&mut connections, length));
        theirs.turn(cluster, length, || bare.commits(count, length));
    }
    let (after, count) = (fleet.written(), ours.latencies.count());
    let each = |before: u64, after: u64| u32::try_from(after - before).map_or(f64::NAN, f64::from) / count;
    let each = Each {
        transactions: each(before.transactions, after.transactions),
        keys: each(before.keys, after.keys),
        bytes: each(before.bytes, after.bytes),
    };
    (ours, theirs, each)
}

/// Updates of one row, in a thread for each database, for the time of a turn.
fn updates(connections: &mut [Connection], length: Duration) -> Latencies {
    let start = Barrier::new(connections.len());
    let start = &start;
    std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter_mut()
            .map(|connection| {
                scope.spawn(move || {
                    let mut update = connection.prepare("UPDATE t SET v = v + 1 WHERE k = 1").expect("valid");
                    start.wait();
                    let (run, mut latencies) = (Timer::start(), Latencies::default());
                    while run.elapsed() < length {
                        let one = Timer::start();
                        update.execute(()).expect("a commit");
                        latencies.add(one.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).fold(Latencies::default(), Latencies::and)
    })
}
