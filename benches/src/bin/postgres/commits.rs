//! 64 databases that commit at once, against 64 connections that insert.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use litefleet::FleetSettings;
use litefleet_postgres::testing::pause;

use crate::report::{Goal, Row};
use crate::rig::Rig;

const DATABASES: usize = 64;
const BODY: [u8; 100] = [0x5a; 100];

/// What one side did in one round.
struct Round {
    rate: f64,
    flushes_each: f64,
    server_micros_each: f64,
}

pub(crate) fn rows(rig: &Rig) -> Result<Vec<Row>> {
    let time = Duration::from_millis(rig.scale(4000, 1500));
    let (mut ours, mut ones, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    rig.server.sql("CREATE TABLE commits_bare (id bigserial PRIMARY KEY, body bytea NOT NULL)");
    for round in 0..rig.rounds {
        if round % 2 == 0 {
            ours.push(litefleet(rig, time, None)?);
            theirs.push(bare(rig, time)?);
            ones.push(litefleet(rig, time, Some(1))?);
        } else {
            ones.push(litefleet(rig, time, Some(1))?);
            theirs.push(bare(rig, time)?);
            ours.push(litefleet(rig, time, None)?);
        }
    }
    let mut rows = Vec::new();
    for (mine, how) in [(&ours, ""), (&ones, ", commit_calls=1")] {
        let row = |what: &str, unit, number: fn(&Round) -> f64, goal| {
            let ratios: Vec<f64> = mine.iter().zip(&theirs).map(|(us, them)| number(us) / number(them)).collect();
            let what = format!("{DATABASES} databases at once{how}: {what}");
            Row::pairs(what, unit, ratios, theirs.iter().map(number).collect(), goal)
        };
        rows.push(row("transactions", "/s", |r| r.rate, Goal::RatioAtLeast(1.0)));
        rows.push(row("WAL flushes per transaction", "", |r| r.flushes_each, Goal::RatioAtMost(0.125)));
        rows.push(row("server's CPU per transaction", "µs", |r| r.server_micros_each, Goal::RatioAtMost(0.7)));
    }
    Ok(rows)
}

fn flushes(rig: &Rig) -> Result<f64> {
    // Each process tells its counts when it has been idle for a second.
    pause(Duration::from_millis(1500));
    rig.number(if rig.number("SHOW server_version_num")? < 180_000.0 {
        "SELECT wal_sync FROM pg_stat_wal"
    } else {
        "SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'"
    })
}

fn measured(rig: &Rig, count: &AtomicU64, run: impl FnOnce() -> Result<()>) -> Result<Round> {
    let (flushes_before, seconds_before) = (flushes(rig)?, rig.server_seconds()?);
    let begin = Instant::now();
    run()?;
    let seconds = begin.elapsed().as_secs_f64();
    let server = rig.server_seconds()? - seconds_before;
    let flushed = flushes(rig)? - flushes_before;
    let done = count.load(Ordering::Relaxed) as f64;
    Ok(Round { rate: done / seconds, flushes_each: flushed / done, server_micros_each: server * 1e6 / done })
}

fn litefleet(rig: &Rig, time: Duration, commit_calls: Option<usize>) -> Result<Round> {
    let settings = FleetSettings { commit_calls, ..FleetSettings::default() };
    let side = rig.side_at(&rig.server.url(), "commits", settings)?;
    let mut connections = Vec::new();
    for index in 0..DATABASES {
        let connection = side.connect(&format!("commits-{index}"))?;
        connection.execute_batch("CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
        connections.push(connection);
    }
    let (count, start) = (AtomicU64::new(0), Barrier::new(DATABASES));
    let round = measured(rig, &count, || {
        thread::scope(|scope| {
            for connection in &mut connections {
                let (count, start) = (&count, &start);
                scope.spawn(move || {
                    let Ok(mut insert) = connection.prepare("INSERT INTO entries (body) VALUES (?)") else { return };
                    start.wait();
                    let begin = Instant::now();
                    while begin.elapsed() < time && insert.execute([BODY.as_slice()]).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Ok(())
    })?;
    drop(connections);
    side.close()?;
    Ok(round)
}

fn bare(rig: &Rig, time: Duration) -> Result<Round> {
    let mut clients = Vec::new();
    for _ in 0..DATABASES {
        let client = rig.bare()?;
        let statement = rig.runtime.block_on(client.prepare("INSERT INTO commits_bare (body) VALUES ($1)"))?;
        clients.push((client, statement));
    }
    let count = std::sync::Arc::new(AtomicU64::new(0));
    let shared = std::sync::Arc::clone(&count);
    measured(rig, &count, || {
        rig.runtime.block_on(async {
            let mut tasks = Vec::new();
            for (client, statement) in clients {
                let count = std::sync::Arc::clone(&shared);
                tasks.push(tokio::spawn(async move {
                    let begin = Instant::now();
                    while begin.elapsed() < time && client.execute(&statement, &[&BODY.as_slice()]).await.is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }));
            }
            for task in tasks {
                task.await?;
            }
            Ok(())
        })
    })
}
