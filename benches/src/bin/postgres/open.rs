//! Opening one of many.

use std::time::Instant;

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::report::{Goal, Row, median};
use crate::rig::Rig;

/// Databases that are opened in both stores.
const REAL: u64 = 100;

pub(crate) fn rows(rig: &Rig) -> Result<Vec<Row>> {
    let many = rig.scale(100_000, 20_000);
    for schema in ["open_few", "open_many"] {
        let side = rig.side(schema)?;
        for index in 0..REAL {
            let connection = side.connect(&format!("tenant-{:06}", index * (many / REAL)))?;
            connection
                .execute_batch("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'one')")?;
            drop(connection);
        }
        side.close()?;
    }
    fill("open_many", many, rig);
    rig.server.sql("VACUUM ANALYZE");
    rig.server.sql("CHECKPOINT");
    let (few, most) = (rig.side("open_few")?, rig.side("open_many")?);
    let mut random = SmallRng::seed_from_u64(7);
    let (mut ratios, mut base) = (Vec::new(), Vec::new());
    for _ in 0..rig.rounds * 2 {
        let (mut us, mut them) = (Vec::new(), Vec::new());
        for _ in 0..rig.scale(300, 100) {
            let name = format!("tenant-{:06}", random.random_range(0..REAL) * (many / REAL));
            for (side, taken) in [(&most, &mut us), (&few, &mut them)] {
                let begin = Instant::now();
                let connection = side.connect(&name)?;
                let found: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?;
                taken.push(begin.elapsed().as_secs_f64() * 1000.0);
                assert_eq!(found, 1);
                drop(connection);
            }
        }
        let (us, them) = (median(us), median(them));
        ratios.push(us / them);
        base.push(them);
    }
    few.close()?;
    most.close()?;
    let what = format!("opening and reading one database among {many}, against one among {REAL}");
    Ok(vec![Row::pairs(what, "ms", ratios, base, Goal::RatioAtMost(1.3))])
}

/// The others, as rows like those of the first real one: only the tables have to be as large, nobody opens them.
fn fill(schema: &str, many: u64, rig: &Rig) {
    let step = many / REAL;
    rig.server.sql(&format!(
        "WITH model AS (SELECT h.* FROM {schema}.heads h ORDER BY id LIMIT 1), \
         new AS (INSERT INTO {schema}.names SELECT 'tenant-' || lpad(i::text, 6, '0'), nextval('{schema}.database_ids') \
             FROM generate_series(0, {many} - 1) i WHERE i % {step} <> 0 RETURNING database), \
         heads AS (INSERT INTO {schema}.heads SELECT n.database, m.epoch, NULL, m.txid, m.commit_id, m.size, m.checkpoint, \
             m.horizon, m.log_start, m.generation, NULL, 0 FROM new n, model m), \
         log AS (INSERT INTO {schema}.log SELECT n.database, l.txid, l.record FROM new n, {schema}.log l, model m \
             WHERE l.database = m.id), \
         warm AS (INSERT INTO {schema}.warm SELECT n.database, w.pages FROM new n, {schema}.warm w, model m \
             WHERE w.database = m.id), \
         ends AS (INSERT INTO {schema}.epoch_ends SELECT n.database, e.epoch, e.txid, e.commit_id, e.at \
             FROM new n, {schema}.epoch_ends e, model m WHERE e.database = m.id) \
         INSERT INTO {schema}.pages SELECT n.database, p.page, p.txid, p.base, p.kind, p.bytes \
             FROM new n, {schema}.pages p, model m WHERE p.database = m.id"
    ));
}
