//! Processes that are killed.

use std::io::{BufReader, Read};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{child, open, workload};

/// A process is killed again and again amid its work. What it said was done, is done.
#[test]
#[expect(clippy::disallowed_methods, reason = "a process is killed after a while of real time")]
fn killed_processes_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let mut said = String::new();
    for round in 0..12 {
        let mut child = child::command("commit", directory.path(), round, u64::MAX).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).unwrap();
            text
        });
        std::thread::sleep(Duration::from_millis(random.random_range(50..700)));
        child.kill().unwrap();
        child.wait().unwrap();
        let text = reader.join().unwrap();
        // What is torn of a child's last line is dropped with it.
        said.push_str(text.rsplit_once('\n').map_or("", |(whole, _)| whole));
        said.push('\n');
        drop(workload::check(open(directory.path()), &workload::acks(&said)));
    }
    assert!(workload::acks(&said).values().sum::<u64>() > 50, "the children did some work");
}
