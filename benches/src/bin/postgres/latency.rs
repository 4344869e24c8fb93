//! A one-row transaction, one after the other; and of it the server's part, by the very statement of a commit.

use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use litefleet_postgres::PostgresConfig;
use litefleet_postgres::testing::BareCommits;

use crate::report::{Goal, Row, median};
use crate::rig::Rig;

const BODY: [u8; 100] = [0x5a; 100];
const SCHEMA: &str = "latency";

pub(crate) fn rows(rig: &Rig) -> Result<Vec<Row>> {
    let count = rig.scale(600, 300);
    let side = rig.side(SCHEMA)?;
    let ours = side.connect("latency")?;
    ours.execute_batch("CREATE TABLE entries (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    let bare = rig.bare()?;
    rig.runtime
        .block_on(bare.batch_execute("CREATE TABLE latency_bare (id bigserial PRIMARY KEY, body bytea NOT NULL)"))?;
    let statement = rig.runtime.block_on(bare.prepare("INSERT INTO latency_bare (body) VALUES ($1)"))?;
    let mut mine = ours.prepare("INSERT INTO entries (body) VALUES (?)")?;
    for _ in 0..5 {
        mine.execute([BODY.as_slice()])?;
    }
    // As long as those of the engine.
    let length = rig.number(&format!("SELECT octet_length(record) FROM {SCHEMA}.log ORDER BY txid DESC LIMIT 1"))?;
    let record = Bytes::from(vec![0x5a; length as usize]);
    let config = PostgresConfig::from_url(&rig.server.url())?.schema(SCHEMA);
    let mut commits = rig.runtime.block_on(BareCommits::start(rig.bare()?, &config))?;
    let (mut their_medians, mut ratios, mut server_ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rig.rounds * 2 {
        let (mut us, mut server, mut them) = (Vec::new(), Vec::new(), Vec::new());
        // A few of each in turn: whatever else the machine does, it does to all.
        for _ in 0..count / 20 {
            for _ in 0..20 {
                us.push(millis(|| Ok(mine.execute([BODY.as_slice()]).map(drop)?))?);
            }
            for _ in 0..20 {
                server.push(millis(|| Ok(rig.runtime.block_on(commits.commit(record.clone()))?))?);
            }
            for _ in 0..20 {
                them.push(millis(|| {
                    rig.runtime.block_on(bare.execute(&statement, &[&BODY.as_slice()]))?;
                    Ok(())
                })?);
            }
        }
        let (us, server, them) = (median(us), median(server), median(them));
        their_medians.push(them);
        ratios.push(us / them);
        server_ratios.push(server / them);
    }
    drop(mine);
    drop(ours);
    side.close()?;
    let what = "median latency of a one-row transaction, against a bare INSERT";
    let part = "of it the statement of a commit, by bare tokio-postgres, against the same";
    Ok(vec![
        Row::pairs(what, "ms", ratios, their_medians.clone(), Goal::RatioAtMost(1.25)),
        Row::pairs(part, "ms", server_ratios, their_medians, Goal::None),
    ])
}

fn millis(run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    run()?;
    Ok(begin.elapsed().as_secs_f64() * 1000.0)
}
