//! Measures the store beside bare transactions on the same cluster, in the same run, side by side:
//!
//! ```sh
//! LITEFLEET_FDB_CLUSTER_FILE=… LITEFLEET_FDB_LIBRARY_DIR=… cargo run --release -p litefleet-fdb --example bench -- --page docs/benchmarks-fdb.md
//! ```
//!
//! With `--page` the tables are written between the two marks of that page too. With `--only reading` it opens, scans and looks
//! up, and leaves the commits out: then there is no page to write.
//!
//! Without a cluster it runs on the stand-in, where times say little, and requests and bytes are counted.

#![expect(clippy::print_stdout, reason = "a person reads it")]

mod bare;
mod commits;
mod cpu;
mod latencies;
mod page;
mod reading;
mod rig;

use std::path::PathBuf;

use litefleet_fdb_stand_in_control::is_stand_in;

use bare::Bare;
use page::Page;
use rig::Rig;

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (written, all): (Option<PathBuf>, bool) = match arguments.as_slice() {
        [] => (None, true),
        ["--page", path] => (Some(path.into()), true),
        ["--only", "reading"] => (None, false),
        _ => return Err("usage: bench [--page FILE | --only reading]".into()),
    };
    let rig = Rig::new();
    let mut page = Page::default();
    page.machine();
    if is_stand_in() {
        page.line("On the stand-in: times are the stand-in's, and everything is a twentieth as large.");
    }
    let bare = Bare::new(&rig);
    if all {
        commits::measure(&rig, &bare, &mut page);
        bytes(&rig, &mut page);
    }
    reading::measure(&rig, &bare, &mut page);
    page.goals();
    written.map_or(Ok(()), |path| page.write_to(&path))
}

/// What a one-row update of a database of 100 MB writes, checkpoints included.
fn bytes(rig: &Rig, page: &mut Page) {
    let (rows, updates) = (100_000 / rig.scale, 5_000 / rig.scale);
    let fleet = rig.fleet();
    let connection = fleet.open("bytes");
    rig::fill(&connection, rows, 900);
    connection.execute_batch("PRAGMA litefleet_checkpoint").expect("a checkpoint");
    let before = fleet.written();
    let mut update = connection.prepare("UPDATE t SET n = n + 1 WHERE k = ?1").expect("valid");
    for index in 0..updates {
        // Rows far apart, in an order that comes again.
        update.execute([index.wrapping_mul(7919) % rows + 1]).expect("a commit");
    }
    drop(update);
    connection.execute_batch("PRAGMA litefleet_checkpoint").expect("a checkpoint");
    let after = fleet.written();
    let each = |before: u64, after: u64| u32::try_from(after - before).map_or(f64::NAN, f64::from) / f64::from(updates);
    let bytes = each(before.bytes, after.bytes);
    page.head(&["an update of one row in 100 MB", "bytes", "keys", "transactions"]);
    page.row(&[
        "on average, with checkpoints",
        &format!("{bytes:.0}"),
        &format!("{:.2}", each(before.keys, after.keys)),
        &format!("{:.2}", each(before.transactions, after.transactions)),
    ]);
    page.at_most("bytes per one-row update of 100 MB, checkpoints included", 500.0, Some(bytes));
}
