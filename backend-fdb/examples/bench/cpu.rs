//! The time that the cluster's processes have run on this machine's cores.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The processes of the cluster, when they run on this machine.
pub(crate) struct Cluster(Vec<PathBuf>);

impl Cluster {
    /// `LITEFLEET_FDB_SERVER_PIDS`, separated by commas, or else every process here whose name is `fdbserver`.
    pub(crate) fn find() -> Self {
        if let Ok(named) = std::env::var("LITEFLEET_FDB_SERVER_PIDS") {
            return Self(named.split(',').map(|id| Path::new("/proc").join(id.trim())).collect());
        }
        let is_server = |process: &PathBuf| {
            std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "fdbserver")
        };
        let all = std::fs::read_dir("/proc").map(|all| all.filter_map(Result::ok).map(|entry| entry.path()).collect());
        Self(all.unwrap_or_else(|_| Vec::new()).into_iter().filter(is_server).collect())
    }

    /// How long they have run by now, if they are here.
    pub(crate) fn time(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| self.0.iter().map(|process| time_of(process)).sum())
    }
}

/// How long a process has run, all of its threads: the first number of `schedstat` is nanoseconds on a core.
fn time_of(process: &Path) -> Duration {
    let Ok(threads) = std::fs::read_dir(process.join("task")) else { return Duration::ZERO };
    let run = |thread: PathBuf| {
        let text = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        text.split(' ')
            .next()
            .and_then(|nanoseconds| nanoseconds.parse().ok())
            .map_or(Duration::ZERO, Duration::from_nanos)
    };
    threads.filter_map(Result::ok).map(|thread| run(thread.path())).sum()
}

/// How long this process has run, the threads that have ended included: by the clock's ticks, of which there are a hundred
/// in a second.
pub(crate) fn own_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
