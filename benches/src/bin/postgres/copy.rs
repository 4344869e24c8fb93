//! Reading and writing much, against COPY.

use std::pin::pin;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use litefleet::FleetSettings;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::report::{Goal, Row, median};
use crate::rig::{Rig, Side};

/// Bytes that do not compress, so that both sides move the same.
fn source(rig: &Rig, name: &str, bytes: u64) -> Result<Connection> {
    let connection = Connection::open(rig.folder.join(name))?;
    connection.execute_batch("PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF")?;
    let rows = bytes / 4100;
    connection.execute_batch(&format!(
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB NOT NULL); \
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {rows}) \
         INSERT INTO t SELECT i, randomblob(4040) FROM c"
    ))?;
    Ok(connection)
}

fn import_into(side: &Side, from: &Connection, name: &str) -> Result<()> {
    let mut to = side.connect(name)?;
    let backup = Backup::new(from, &mut to)?;
    while backup.step(10_000)? != StepResult::Done {}
    Ok(())
}

/// A cold scan.
pub(crate) fn scan(rig: &Rig) -> Result<Vec<Row>> {
    let bytes = rig.scale(50 << 20, 10 << 20);
    let from = source(rig, "scan.db", bytes)?;
    let side = rig.side("scan")?;
    import_into(&side, &from, "scan")?;
    side.connect("scan")?.execute_batch("PRAGMA litefleet_checkpoint")?;
    side.close()?;
    let client = rig.bare()?;
    rig.runtime.block_on(client.batch_execute("VACUUM ANALYZE scan.pages"))?;
    let (mut ratios, mut base, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rig.rounds {
        let settings = FleetSettings { cache_bytes: 256 << 20, ..FleetSettings::default() };
        let side = rig.side_at(&rig.server.url(), "scan", settings)?;
        let connection = side.connect("scan")?;
        let before = side.fleet.counters().round_trips();
        let begin = Instant::now();
        let found: i64 = connection.query_row("SELECT sum(length(v)) FROM t", [], |row| row.get(0))?;
        let us = begin.elapsed().as_secs_f64() * 1000.0;
        trips.push((side.fleet.counters().round_trips() - before) as f64);
        assert!(found > 0);
        drop(connection);
        side.close()?;
        let begin = Instant::now();
        let moved = rig.runtime.block_on(async {
            let copy = client.copy_out("COPY (SELECT bytes FROM scan.pages) TO STDOUT (FORMAT binary)").await?;
            let mut copy = pin!(copy);
            let mut moved = 0;
            while let Some(piece) = copy.next().await {
                moved += piece?.len();
            }
            anyhow::Ok(moved)
        })?;
        let them = begin.elapsed().as_secs_f64() * 1000.0;
        assert!(moved as u64 > bytes * 9 / 10);
        ratios.push(us / them);
        base.push(them);
    }
    let what = format!("cold scan of {} MiB", bytes >> 20);
    let against = format!("{what}, against COPY of the same bytes");
    Ok(vec![
        Row::pairs(against, "ms", ratios, base, Goal::RatioAtMost(2.0)),
        Row::alone(format!("{what}: round trips"), median(trips), Goal::AtMost(40.0)),
    ])
}

/// An import.
pub(crate) fn import(rig: &Rig) -> Result<Vec<Row>> {
    let bytes = rig.scale(1 << 30, 64 << 20);
    let from = source(rig, "import.db", bytes)?;
    let client = rig.bare()?;
    let rounds = rig.rounds.min(2);
    let (mut ratios, mut base) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        rig.server.sql("CHECKPOINT");
        // The schema is made before the clock runs, as the other side's table is.
        let side = rig.side("import")?;
        let begin = Instant::now();
        import_into(&side, &from, &format!("import-{round}"))?;
        let us = bytes as f64 / 1e6 / begin.elapsed().as_secs_f64();
        side.close()?;
        rig.server.sql("DROP SCHEMA import CASCADE");
        rig.server.sql("CHECKPOINT");
        rig.server.sql(
            "DROP TABLE IF EXISTS import_bare; CREATE TABLE import_bare (page bigint PRIMARY KEY, image bytea NOT NULL); \
             ALTER TABLE import_bare ALTER image SET STORAGE EXTERNAL; \
             ALTER TABLE import_bare SET (toast_tuple_target = 8160)",
        );
        let begin = Instant::now();
        rig.runtime.block_on(copy_in(&client, &rig.folder.join("import.db")))?;
        let them = bytes as f64 / 1e6 / begin.elapsed().as_secs_f64();
        ratios.push(us / them);
        base.push(them);
        rig.server.sql("DROP TABLE import_bare");
    }
    let what = format!("import of {} MiB, against COPY of the same bytes", bytes >> 20);
    Ok(vec![Row::pairs(what, "MB/s", ratios, base, Goal::RatioAtLeast(0.5))])
}

async fn copy_in(client: &tokio_postgres::Client, file: &std::path::Path) -> Result<()> {
    use std::io::Read;
    const PAGE: usize = 4096;
    let sink = client.copy_in("COPY import_bare FROM STDIN (FORMAT binary)").await?;
    let mut sink = pin!(sink);
    let mut head = b"PGCOPY\n\xff\r\n\0".to_vec();
    head.extend([0; 8]);
    sink.send(Bytes::from(head)).await?;
    let mut input = std::fs::File::open(file)?;
    let mut buffer = vec![0; 256 * PAGE];
    let mut page = 0_i64;
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let mut piece = Vec::with_capacity(count + count / 100);
        for image in buffer.get(..count).context("within it")?.chunks(PAGE) {
            page += 1;
            piece.extend(2_i16.to_be_bytes());
            piece.extend(8_i32.to_be_bytes());
            piece.extend(page.to_be_bytes());
            piece.extend(i32::try_from(image.len())?.to_be_bytes());
            piece.extend(image);
        }
        sink.send(Bytes::from(piece)).await?;
    }
    sink.send(Bytes::from_static(&[0xff, 0xff])).await?;
    sink.as_mut().finish().await?;
    Ok(())
}
