//! `threadtest3`: threads that use databases all at once, for a time, and look for errors. What they do differs from run to
//! run; that there is no error must not.

use crate::Result;

use super::process::{Output, Scene, last_line};
use super::{Other, Verdict};

const TESTS: &[&str] = &[
    "cgt_pager_1",
    "dynamic_triggers",
    "create_drop_index_1",
    "lookaside1",
    "vacuum1",
    "stress1",
    "stress2",
    "shared1",
    "walthread1",
    "walthread2",
    "walthread3",
    "walthread4",
    "walthread5",
    "checkpoint_starvation_1",
    "checkpoint_starvation_2",
];
/// Those that end soon.
const SHORT: &[&str] = &["cgt_pager_1", "walthread5"];
/// They look at the write-ahead log itself, or rely on a checkpoint of it.
const OF_WAL: &[&str] = &["walthread2", "walthread5", "checkpoint_starvation_1", "checkpoint_starvation_2"];

pub(super) fn cases(scene: &Scene) -> Result<Vec<Other>> {
    let mut results = Vec::new();
    for test in if scene.is_short() { SHORT } else { TESTS } {
        let verdict = if OF_WAL.contains(test) {
            Verdict::NotApplicable("it is about the write-ahead log, which databases in a store have not".into())
        } else {
            one(scene, test)?
        };
        results.push(Other::new("threadtest3", test, verdict));
    }
    Ok(results)
}

fn one(scene: &Scene, test: &str) -> Result<Verdict> {
    let run = |ours: bool| scene.stage(ours)?.run("threadtest3", &[test]);
    // Both spend most of the test's time waiting: they run side by side.
    let (stock, ours) = std::thread::scope(|scope| {
        let stock = scope.spawn(|| run(false));
        let ours = run(true);
        (stock.join(), ours)
    });
    let (stock, ours) = (stock.map_err(|_| "a run panicked")??, ours?);
    Ok(match (errors(&stock), errors(&ours)) {
        (Some(words), _) => Verdict::Failed(format!("with SQLite's own VFS: {words}")),
        (None, Some(words)) => Verdict::Failed(words),
        (None, None) => Verdict::Passed,
    })
}

fn errors(output: &Output) -> Option<String> {
    if output.ended.is_none() && output.text.contains("0 errors out of 1 tests") {
        return None;
    }
    let lines: Vec<&str> = output.text.lines().filter(|line| line.contains("rror")).take(3).collect();
    let how = output.ended.as_deref().unwrap_or("ended");
    Some(format!("{how}: {}", if lines.is_empty() { last_line(&output.text).to_owned() } else { lines.join("; ") }))
}
