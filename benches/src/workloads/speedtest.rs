//! SQLite's own benchmark, speedtest1.

use anyhow::Result;

use super::Workload;
use crate::report::{Goal, Row};
use crate::runner::{Plan, Runner};

pub(super) const WORKLOAD: Workload = Workload {
    name: "speedtest1",
    about: "SQLite's own benchmark, `speedtest1 --size 100`, over the memory store; stock SQLite works on a file in the \
            operating system's cache with `synchronous=OFF` and `journal_mode=MEMORY`. The time is that of the whole \
            program, the close and its checkpoint included.",
    rows,
    child,
};

fn rows(runner: &Runner) -> Result<Vec<Row>> {
    if !cfg!(speedtest1) {
        return Ok(vec![Row::left_out(
            "speedtest1",
            "built without `LITEFLEET_SPEEDTEST1_C`: see benches/speedtest1.sh",
        )]);
    }
    let size = runner.options.scale(100, 20);
    let mut rows = Vec::new();
    for (same_journal, what) in
        [(0, "speedtest1, Litefleet as it comes"), (1, "speedtest1, both with a journal in memory")]
    {
        let plan = Plan {
            workload: WORKLOAD.name,
            parameters: vec![("size", size), ("same_journal", same_journal)],
            prepare: false,
            fsync_micros: None,
        };
        let rounds = runner.compare(&plan)?;
        let goal = if same_journal == 0 { Goal::RatioAtMost(1.25) } else { Goal::None };
        rows.push(Row::of(what, "s", "seconds", goal, rounds)?.with_traffic("round_trips", "sent")?);
    }
    Ok(rows)
}

#[cfg(not(speedtest1))]
fn child(_: &crate::child::Task) -> Result<crate::sample::Sample> {
    anyhow::bail!("built without LITEFLEET_SPEEDTEST1_C")
}

#[cfg(speedtest1)]
use linked::child;

#[cfg(speedtest1)]
mod linked {
    use std::ffi::{CString, c_char, c_int};
    use std::time::Instant;

    use anyhow::{Result, bail};
    use litefleet::FleetSettings;

    use crate::child::{Side, Task};
    use crate::engine::{Engine, Stock, Store, VFS};
    use crate::sample::{Sample, sample};

    #[expect(unsafe_code, reason = "speedtest1 is a C program, linked in with its main renamed")]
    mod program {
        use super::{CString, c_char, c_int};

        unsafe extern "C" {
            fn speedtest1_main(count: c_int, arguments: *mut *mut c_char) -> c_int;
        }

        /// Runs the program. It may end the process.
        pub(super) fn run(arguments: Vec<CString>) -> c_int {
            let mut pointers: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
            let count = c_int::try_from(pointers.len()).unwrap_or(0);
            pointers.push(std::ptr::null_mut());
            // SAFETY: the array has `count` strings and a null, which live for ever: `into_raw` leaked them.
            unsafe { speedtest1_main(count, pointers.as_mut_ptr()) }
        }
    }

    pub(super) fn child(task: &Task) -> Result<Sample> {
        let mut arguments = vec!["speedtest1".to_owned(), "--size".to_owned(), task.parameter("size")?.to_string()];
        let mut option = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        if task.side == Side::Stock {
            option(&["--nosync", "--journal", "memory", &task.directory.join("speedtest1.db").to_string_lossy()]);
        } else {
            if task.parameter("same_journal")? == 1 {
                option(&["--nosync", "--journal", "memory"]);
            }
            option(&["--vfs", VFS, "speedtest1"]);
        }
        let arguments = arguments.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let engine = Engine::open(task, Store::Memory, Stock::Default, FleetSettings::default())?;
        let start = Instant::now();
        let code = program::run(arguments);
        let seconds = start.elapsed().as_secs_f64();
        if code != 0 {
            bail!("speedtest1 ended with {code}");
        }
        let traffic = engine.traffic();
        engine.close()?;
        Ok(sample([("seconds", seconds), ("round_trips", traffic.round_trips as f64), ("sent", traffic.sent as f64)]))
    }
}
