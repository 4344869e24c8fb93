//! A one-row transaction, one after the other.

use std::time::Instant;

use anyhow::Result;

use crate::report::{Goal, Row, median};
use crate::rig::Rig;

const BODY: [u8; 100] = [0x5a; 100];

pub(crate) fn rows(rig: &Rig) -> Result<Vec<Row>> {
    let count = rig.scale(600, 300);
    let side = rig.side("latency")?;
    let ours = side.connect("latency")?;
    ours.execute_batch("CREATE TABLE entries (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    let bare = rig.bare()?;
    rig.runtime
        .block_on(bare.batch_execute("CREATE TABLE latency_bare (id bigserial PRIMARY KEY, body bytea NOT NULL)"))?;
    let statement = rig.runtime.block_on(bare.prepare("INSERT INTO latency_bare (body) VALUES ($1)"))?;
    let mut mine = ours.prepare("INSERT INTO entries (body) VALUES (?)")?;
    let (mut their_medians, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..rig.rounds * 2 {
        let (mut us, mut them) = (Vec::new(), Vec::new());
        // A few of each in turn: whatever else the machine does, it does to both.
        for _ in 0..count / 20 {
            for _ in 0..20 {
                let begin = Instant::now();
                mine.execute([BODY.as_slice()])?;
                us.push(begin.elapsed().as_secs_f64() * 1000.0);
            }
            for _ in 0..20 {
                let begin = Instant::now();
                rig.runtime.block_on(bare.execute(&statement, &[&BODY.as_slice()]))?;
                them.push(begin.elapsed().as_secs_f64() * 1000.0);
            }
        }
        let (us, them) = (median(us), median(them));
        their_medians.push(them);
        ratios.push(us / them);
    }
    drop(mine);
    drop(ours);
    side.close()?;
    let what = "median latency of a one-row transaction, against a bare INSERT";
    Ok(vec![Row::pairs(what, "ms", ratios, their_medians, Goal::RatioAtMost(1.25))])
}
