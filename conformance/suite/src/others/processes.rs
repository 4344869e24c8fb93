//! `mptester`: processes that write one database, each told by a script what to do and what it must find; some are killed in
//! the middle. Only a store that several processes share can be asked.

use crate::Result;

use super::process::{Output, Scene, last_line};
use super::{Other, Verdict};

const SCRIPTS: &[&str] = &["multiwrite01", "crash01", "config01", "config02"];
/// It begins with `--if vfsname() GLOB 'unix'`.
const UNIX: &str = "config01";
const SHORT: &[&str] = &["multiwrite01"];

pub(super) fn cases(scene: &Scene) -> Result<Vec<Other>> {
    let mut results = Vec::new();
    for script in if scene.is_short() { SHORT } else { SCRIPTS } {
        let verdict = if *script == UNIX {
            Verdict::NotApplicable("the script does nothing over a VFS of another name than unix".into())
        } else if scene.store().is_shared() {
            one(scene, script)?
        } else {
            Verdict::NotApplicable("several processes need a store that they share, such as Postgres".into())
        };
        results.push(Other::new("mptester", script, verdict));
    }
    Ok(results)
}

fn one(scene: &Scene, script: &str) -> Result<Verdict> {
    let path = scene.tree.path.join(format!("mptest/{script}.test")).display().to_string();
    let run = |ours: bool| {
        let mut arguments = vec!["mp.db", path.as_str()];
        if ours {
            arguments.extend(["--vfs", "litefleet-suite"]);
        }
        scene.stage(ours)?.run("mptester", &arguments)
    };
    let (stock, ours) = std::thread::scope(|scope| {
        let stock = scope.spawn(|| run(false));
        let ours = run(true);
        (stock.join(), ours)
    });
    let (stock, ours) = (stock.map_err(|_| "a run panicked")??, ours?);
    Ok(match (summary(&stock), summary(&ours)) {
        (Err(words), _) => Verdict::Failed(format!("with SQLite's own VFS: {words}")),
        (_, Err(words)) => Verdict::Failed(words),
        (Ok(stock), Ok(ours)) if stock == ours => Verdict::Passed,
        (Ok(stock), Ok(ours)) => Verdict::Failed(format!("{ours} instead of {stock}")),
    })
}

/// The line that counts errors and tests: how many matches were checked is a part of what must be the same.
fn summary(output: &Output) -> Result<String> {
    let line = output.text.lines().find(|line| line.starts_with("Summary: "));
    match line {
        Some(line) if line.starts_with("Summary: 0 errors") && output.ended.is_none() => Ok(line.to_owned()),
        _ => {
            let errors: Vec<&str> = output.text.lines().filter(|line| line.contains("ERROR")).take(3).collect();
            let words = if errors.is_empty() { last_line(&output.text).to_owned() } else { errors.join("; ") };
            Err(format!("{}: {words}", line.unwrap_or(output.ended.as_deref().unwrap_or("no summary"))))
        }
    }
}
