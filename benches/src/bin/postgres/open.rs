//! Opening one of many.
//!
//! Among the many are real ones at equal distances, made while the tables fill, so that their rows lie all over them, and the
//! same ones alone in another schema. Cold: each is opened once after a restart of the server, whose own cache is empty then (the
//! system's is not). Hot: some of them again and again.

use std::time::Instant;

use anyhow::Result;
use litefleet::FleetSettings;
use litefleet_postgres::testing::{Server, ServerOptions};
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use crate::report::{Goal, Row, median};
use crate::rig::{Rig, Side};

/// One in so many is a real one.
const STEP: u64 = 100;
/// So many of them are hot.
const HOT: usize = 100;
const SCHEMAS: [&str; 2] = ["open_many", "open_few"];

/// Ratios of each round, and the other side's times.
#[derive(Default)]
struct Measured {
    ratios: Vec<f64>,
    base: Vec<f64>,
}

impl Measured {
    /// Opens these in both stores, in turn.
    fn round(&mut self, [most, few]: &[Side; 2], names: &[String]) -> Result<()> {
        let (mut us, mut them) = (Vec::new(), Vec::new());
        for (index, name) in names.iter().enumerate() {
            let mut sides = [(most, &mut us), (few, &mut them)];
            // Neither is always the second, which finds the processor's caches as the first has left them.
            if index % 2 == 1 {
                sides.reverse();
            }
            for (side, taken) in sides {
                let begin = Instant::now();
                let connection = side.connect(name)?;
                let found: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?;
                taken.push(begin.elapsed().as_secs_f64() * 1000.0);
                assert_eq!(found, 1);
                drop(connection);
            }
        }
        let (us, them) = (median(us), median(them));
        self.ratios.push(us / them);
        self.base.push(them);
        Ok(())
    }

    fn row(self, what: String, goal: Goal) -> Row {
        Row::pairs(what, "ms", self.ratios, self.base, goal)
    }
}

pub(crate) fn rows(rig: &Rig) -> Result<Vec<Row>> {
    let many = rig.scale(100_000, 20_000);
    let real: Vec<String> = (0..many / STEP).map(|index| name(index * STEP)).collect();
    // A server of its own, since it is restarted.
    let options = ServerOptions { durable: true, parent: Some(rig.folder.clone()), ..ServerOptions::default() };
    let mut server = Server::start(&options);
    let client = rig.bare_at(&server.url())?;
    let sides = both(rig, &server)?;
    for (index, name) in (0..).zip(&real) {
        for side in &sides {
            side.connect(name)?
                .execute_batch("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'one')")?;
        }
        fill(rig, &client, index * STEP)?;
    }
    sides.into_iter().try_for_each(Side::close)?;
    drop(client);
    server.sql("VACUUM ANALYZE");
    server.sql("CHECKPOINT");
    let mut random = SmallRng::seed_from_u64(7);
    let (mut cold, mut hot) = (Measured::default(), Measured::default());
    for _ in 0..rig.rounds {
        server.stop();
        server.resume();
        let sides = both(rig, &server)?;
        // Its connections and its session are there.
        for side in &sides {
            side.connect("warm-up")?.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        }
        let mut order = real.clone();
        order.shuffle(&mut random);
        cold.round(&sides, &order)?;
        let often: Vec<String> = order.choose_multiple(&mut random, HOT).cloned().collect();
        let times = rig.scale(600, 200) as usize;
        let again: Vec<String> =
            (0..times).filter_map(|_| often.get(random.random_range(0..often.len())).cloned()).collect();
        hot.round(&sides, &again)?;
        sides.into_iter().try_for_each(Side::close)?;
    }
    let alone = real.len();
    let what = format!("opening and reading one database among {many}, against one among {alone}");
    Ok(vec![
        hot.row(format!("{what}: {HOT} of them, often"), Goal::RatioAtMost(1.3)),
        cold.row(format!("{what}: each once, after a restart of the server"), Goal::None),
    ])
}

fn name(index: u64) -> String {
    format!("tenant-{index:06}")
}

fn both(rig: &Rig, server: &Server) -> Result<[Side; 2]> {
    let [many, few] = SCHEMAS.map(|schema| rig.side_at(&server.url(), schema, FleetSettings::default()));
    Ok([many?, few?])
}

/// Those between a real one and the next, as rows like its own: only the tables have to be as large, nobody opens them.
fn fill(rig: &Rig, client: &Client, real: u64) -> Result<()> {
    let [schema, _] = SCHEMAS;
    let (first, last, model) = (real + 1, real + STEP - 1, name(real));
    rig.runtime.block_on(client.batch_execute(&format!(
        "WITH model AS (SELECT h.* FROM {schema}.heads h JOIN {schema}.names n ON n.database = h.id WHERE n.name = '{model}'), \
         new AS (INSERT INTO {schema}.names SELECT 'tenant-' || lpad(i::text, 6, '0'), nextval('{schema}.database_ids') \
             FROM generate_series({first}, {last}) i RETURNING database), \
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
    )))?;
    Ok(())
}
