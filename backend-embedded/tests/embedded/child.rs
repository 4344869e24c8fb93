//! Child processes: this test program again, told by the environment what to do.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};

use crate::workload::{self, Workload};

const ROLE: &str = "LITEFLEET_TEST_ROLE";
const PATH: &str = "LITEFLEET_TEST_PATH";
const SEED: &str = "LITEFLEET_TEST_SEED";
const ROUNDS: &str = "LITEFLEET_TEST_ROUNDS";

/// A child that does `role` on the store in a directory.
pub(crate) fn command(role: &str, path: &Path, seed: u64, rounds: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command
        .args(["--exact", "child::the_child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(PATH, path)
        .env(SEED, seed.to_string())
        .env(ROUNDS, rounds.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

#[test]
#[ignore = "not a test: what the other tests run as a child process"]
fn the_child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let text = |name: &str| std::env::var(name).expect("the parent sets it");
    let path = PathBuf::from(text(PATH));
    let number = |name: &str| text(name).parse::<u64>().expect("a number");
    let (seed, rounds) = (number(SEED), number(ROUNDS));
    match role.as_str() {
        "hold" => {
            let _store = crate::open(&path);
            println!("holding");
            std::io::stdin().read_line(&mut String::new()).expect("the parent ends it");
            loop {
                std::thread::park();
            }
        }
        "commit" => {
            let store = Arc::new(crate::open(&path));
            let mut workload = Workload::start(store, seed);
            for _ in 0..rounds {
                workload.round(&mut |line| say(&mut std::io::stdout(), line));
            }
        }
        "record" => {
            // Small tables, so that flushes and compactions happen meanwhile; and several openings, each of which leaves a
            // shortened journal to the next.
            const OPENINGS: u64 = 8;
            let config = EmbeddedConfig::new(path.join("store")).memtable_bytes(256 << 10);
            let mut acks = std::fs::File::create(path.join("acks")).expect("a file");
            for opening in 0..OPENINGS {
                let store = Arc::new(EmbeddedStore::open(config.clone()).expect("the store opens"));
                let mut workload = Workload::start(store, seed + opening);
                for _ in 0..rounds / OPENINGS {
                    workload.round(&mut |line| say(&mut acks, line));
                }
            }
        }
        "failed-sync" => crate::failed_sync::child(&path, seed),
        #[cfg(unix)]
        "fork" => crate::fork::child(&path),
        "full-reserve" => crate::full_disk::child(&path, 6 << 20),
        "full-engine" => crate::full_disk::child(&path, 0),
        "merging" => crate::merging::child(&path),
        "memory" => workload::fill(&path, rounds),
        other => panic!("no role {other}"),
    }
}

/// One write per line, so that a line is there as a whole or not at all.
fn say(out: &mut impl Write, line: &str) {
    out.write_all(format!("{line}\n").as_bytes()).expect("the parent listens");
}
