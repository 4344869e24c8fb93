//! Write-ahead log of the server per one-row update, against an upsert of the whole pages that changed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rusqlite::Connection;

use crate::report::{Goal, Row};
use crate::rig::Rig;

const ROW: usize = 200;
const PAGE: usize = 4096;

pub(crate) fn rows(rig: &Rig) -> Result<Vec<Row>> {
    let bytes = rig.scale(100 << 20, 20 << 20);
    let rows = bytes / (ROW as u64 + 12);
    let updates = rig.scale(3000, 500);
    let fill = format!(
        "CREATE TABLE t (k INTEGER PRIMARY KEY, n INTEGER NOT NULL, v BLOB NOT NULL); \
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {rows}) \
         INSERT INTO t SELECT i, 0, randomblob({ROW}) FROM c"
    );
    let side = rig.side("wal")?;
    let ours = side.connect("wal")?;
    ours.execute_batch(&fill)?;
    ours.execute_batch("PRAGMA litefleet_checkpoint")?;
    let our_bytes = wal(rig, || {
        update(&ours, rows, updates, || Ok(()))?;
        ours.execute_batch("PRAGMA litefleet_checkpoint")?;
        Ok(())
    })?;
    drop(ours);
    side.close()?;

    // The other side: the same updates by stock SQLite; its write-ahead log says which pages each one changed.
    let file = rig.folder.join("wal.db");
    let stock = Connection::open(&file)?;
    stock.execute_batch("PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF;")?;
    stock.execute_batch(&fill)?;
    let client = rig.bare()?;
    rig.runtime.block_on(client.batch_execute(
        "CREATE TABLE wal_bare (page bigint PRIMARY KEY, image bytea NOT NULL); \
         ALTER TABLE wal_bare ALTER image SET STORAGE EXTERNAL; ALTER TABLE wal_bare SET (toast_tuple_target = 8160)",
    ))?;
    load(rig, &client, &file)?;
    stock.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF;")?;
    let upsert = "INSERT INTO wal_bare VALUES ($1, $2) ON CONFLICT (page) DO UPDATE SET image = excluded.image";
    let upsert = rig.runtime.block_on(client.prepare(upsert))?;
    let mut frames = Frames { path: rig.folder.join("wal.db-wal"), at: 32 };
    let mut pages = 0_u64;
    let their_bytes = wal(rig, || {
        update(&stock, rows, updates, || {
            let changed = frames.read()?;
            pages += changed.len() as u64;
            rig.runtime.block_on(async {
                client.batch_execute("BEGIN").await?;
                for (page, image) in changed {
                    client.execute(&upsert, &[&i64::from(page), &image]).await?;
                }
                client.batch_execute("COMMIT").await
            })?;
            Ok(())
        })
    })?;
    let each = updates as f64;
    let what = format!("WAL per one-row update of {} MiB, with the checkpoint, against upserts", bytes >> 20);
    let ratio = our_bytes / their_bytes;
    let mut row = Row::pairs(what, "bytes", vec![ratio], vec![their_bytes / each], Goal::RatioAtMost(0.2));
    row.note = format!("{:.1} pages per update", pages as f64 / each);
    Ok(vec![row])
}

/// Bytes of the server's log that something makes.
fn wal(rig: &Rig, run: impl FnOnce() -> Result<()>) -> Result<f64> {
    rig.server.sql("CHECKPOINT");
    let before = rig.number("SELECT pg_current_wal_lsn() - '0/0'")?;
    run()?;
    Ok(rig.number("SELECT pg_current_wal_lsn() - '0/0'")? - before)
}

fn update(connection: &Connection, rows: u64, updates: u64, mut after: impl FnMut() -> Result<()>) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(1);
    let mut statement = connection.prepare("UPDATE t SET n = n + 1 WHERE k = ?")?;
    for _ in 0..updates {
        statement.execute([i64::try_from(random.random_range(1..=rows))?])?;
        after()?;
    }
    Ok(())
}

fn load(rig: &Rig, client: &tokio_postgres::Client, file: &Path) -> Result<()> {
    let mut input = File::open(file)?;
    let mut buffer = vec![0; 256 * PAGE];
    let mut page = 0_i64;
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let images: Vec<&[u8]> = buffer.get(..count).context("within it")?.chunks(PAGE).collect();
        let numbers: Vec<i64> = (page + 1..).take(images.len()).collect();
        page += i64::try_from(images.len())?;
        let insert = "INSERT INTO wal_bare SELECT * FROM unnest($1::bigint[], $2::bytea[])";
        rig.runtime.block_on(client.execute(insert, &[&numbers, &images]))?;
    }
}

/// The frames of stock SQLite's log, as they come.
struct Frames {
    path: std::path::PathBuf,
    at: u64,
}

impl Frames {
    fn read(&mut self) -> Result<Vec<(u32, Vec<u8>)>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.at))?;
        let mut found = Vec::new();
        let mut frame = vec![0; 24 + PAGE];
        while file.read_exact(&mut frame).is_ok() {
            let (header, image) = frame.split_at(24);
            let page = u32::from_be_bytes(header.get(..4).context("a header")?.try_into()?);
            found.push((page, image.to_vec()));
            self.at += frame.len() as u64;
        }
        Ok(found)
    }
}
