//! Round trips, counted by a proxy on the wire.

use std::time::Duration;

use anyhow::Result;
use litefleet::FleetSettings;
use litefleet_postgres::testing::Proxy;

use crate::report::{Goal, Row};
use crate::rig::Rig;

pub(crate) fn rows(rig: &Rig) -> Result<Vec<Row>> {
    let proxy = Proxy::start(rig.server.port());
    // Renewals are round trips too, every few seconds for the whole process: they are not what is counted here.
    let settings = || FleetSettings { session_lifetime: Duration::from_secs(3600), ..FleetSettings::default() };
    let side = rig.side_at(&proxy.url(), "trips", settings())?;
    let connection = side.connect("a")?;
    connection.execute_batch(
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) \
         INSERT INTO t SELECT i, randomblob(3000) FROM n",
    )?;
    let read = |connection: &rusqlite::Connection, key: i64| -> Result<i64> {
        Ok(connection.query_row("SELECT length(v) FROM t WHERE k = ?", [key], |row| row.get(0))?)
    };
    read(&connection, 1)?;
    drop(connection);
    // What is read first is what the next open gets along with it.
    let connection = side.connect("a")?;
    read(&connection, 1)?;
    drop(connection);
    side.close()?;
    // Another process, whose cache is empty; its connections are there, and its session.
    let side = rig.side_at(&proxy.url(), "trips", settings())?;
    drop(side.connect("warm-up")?.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())));
    let mut rows = Vec::new();
    let mut before = proxy.round_trips();
    let mut note = |what: &str| {
        let now = proxy.round_trips();
        rows.push(Row::alone(format!("round trips on the wire: {what}"), (now - before) as f64, Goal::AtMost(1.0)));
        before = now;
    };
    let connection = side.connect("a")?;
    read(&connection, 1)?;
    note("open for write with warm pages, and read them");
    read(&connection, 200)?;
    note("miss");
    connection.execute("UPDATE t SET v = 'x' WHERE k = 1", [])?;
    note("commit");
    connection.execute_batch("PRAGMA litefleet_checkpoint")?;
    note("(checkpoint, for the close that follows)");
    drop(connection);
    note("close");
    rows.retain(|row| !row.what.contains("checkpoint"));
    side.close()?;
    Ok(rows)
}
