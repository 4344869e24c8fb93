//! A process that writes to an embedded store is killed at any moment; the next one finds every acknowledged commit, and
//! of the one that was on its way all or nothing. `LITEFLEET_KILL_ROUNDS` says how often.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use litefleet::ErrorKind;
use litefleet::store::PageStore;
use litefleet_conformance::faults::{Ledger, Process, Workload, examine, pause};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const PATH: &str = "LITEFLEET_KILL_PATH";
const FIRST: &str = "LITEFLEET_KILL_FIRST";
/// Pairs of databases, each with a thread that writes to it.
const PAIRS: [[&str; 2]; 3] = [["a0", "b0"], ["a1", "b1"], ["a2", "b2"]];
/// Numbers of transactions that one thread may use in one round.
const SPAN: u64 = 100_000;
/// After so many rounds a new store is begun: it is the crashes that count, not the size.
const ROUNDS_OF_A_STORE: u64 = 15;

fn open(path: &Path) -> Arc<dyn PageStore> {
    for _ in 0..500 {
        // Memory so small that tables are written all the time.
        match EmbeddedStore::open(EmbeddedConfig::new(path).memtable_bytes(256 << 10)) {
            Ok(store) => return Arc::new(store),
            // The one before is being closed in the background.
            Err(error) if error.kind() == ErrorKind::LeaseHeld || error.kind() == ErrorKind::Unavailable => {
                pause(Duration::from_millis(2));
            }
            Err(error) => panic!("the store cannot be opened: {error}"),
        }
    }
    panic!("the store stays locked");
}

fn report(words: &str, n: u64, pair: usize, both: bool) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{words} {n} {pair} {}", u8::from(both)).and_then(|()| out.flush()).expect("the parent listens");
}

/// Runs in the process that is killed.
#[test]
#[ignore = "the other side of the tests in this file"]
fn child() {
    let path = std::env::var(PATH).expect("started by the other side");
    let first: u64 = std::env::var(FIRST).expect("started by the other side").parse().unwrap();
    let process = Process::new(open(Path::new(&path)), Process::small());
    report("open", 0, 0, false);
    std::thread::scope(|scope| {
        for (pair, names) in PAIRS.into_iter().enumerate() {
            let process = &process;
            scope.spawn(move || write(process, names, pair, first + SPAN * pair as u64));
        }
    });
}

fn write(process: &Process, names: [&str; 2], pair: usize, first: u64) {
    let mut workload = Workload::on(process, names, first);
    assert!(workload.create(), "{:?}", workload.errors);
    let mut rng = StdRng::seed_from_u64(first);
    loop {
        let n = workload.next();
        let kind = rng.random_range(0..12);
        let both = kind == 0 || kind == 1;
        report(if matches!(kind, 4 | 6 | 7 | 8) { "idle" } else { "try" }, n, pair, both);
        match kind {
            0 => workload.both(1),
            1 => workload.both(80),
            2 | 3 => workload.large(),
            4 => workload.large_rolled_back(),
            5 => workload.remove(),
            6 => workload.run("VACUUM"),
            7 => workload.run("PRAGMA litefleet_checkpoint"),
            8 => workload.close(),
            _ => workload.small(),
        }
        if !workload.errors.is_empty() {
            // What this process sees, and what is stored.
            let seen = |process: &Process| {
                let connection = process.follow(names[0]);
                let check = connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
                (check, process.problems(names[0]))
            };
            let own = process.open(names[0], "").query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
            let fresh = Process::light(Arc::clone(process.fleet().store()), Process::small());
            panic!(
                "{kind}: {:?}; own {own:?}, as a follower {:?}, stored {:?}",
                workload.errors,
                seen(process),
                seen(&fresh)
            );
        }
        if workload.ledger.has(n) {
            report("done", n, pair, both);
        }
    }
}

/// Starts a child, kills it, and notes what it had reported.
fn round(path: &Path, first: u64, rng: &mut StdRng, ledger: &mut Ledger) -> usize {
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .envs([(PATH, path.to_str().unwrap()), (FIRST, &first.to_string())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, receiver) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if let Some(words) = line.strip_prefix('@') {
                let _closed = sender.send(words.to_owned());
            }
        }
    });
    let mut lines = Vec::new();
    // Some while it opens the store, most while it writes.
    if rng.random_range(0..6) > 0 {
        lines.extend(receiver.recv_timeout(Duration::from_secs(60)).ok());
        pause(Duration::from_micros(rng.random_range(0..120_000)));
    } else {
        pause(Duration::from_micros(rng.random_range(0..30_000)));
    }
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_none(), "the child ended by itself: {complaints}");
    assert!(!complaints.contains("panicked"), "{complaints}");
    reader.join().unwrap();
    lines.extend(receiver);
    let mut done = 0;
    for line in lines {
        let parts: Vec<&str> = line.split(' ').collect();
        let [words, n, pair, both] = parts[..] else { panic!("{line}") };
        let names = &PAIRS[pair.parse::<usize>().unwrap()][..=both.parse::<usize>().unwrap()];
        match words {
            "try" => ledger.doubt(names, n.parse().unwrap()),
            "done" => {
                ledger.acknowledge(names, n.parse().unwrap());
                done += 1;
            }
            _ => {}
        }
    }
    done
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let rounds = std::env::var("LITEFLEET_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20u64);
    let seed = std::env::var("LITEFLEET_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random::<u64>());
    let mut rng = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut in_flight, mut survived) = (0, 0, 0);
    let mut ledger = Ledger::default();
    for index in 0..rounds {
        if index % ROUNDS_OF_A_STORE == 0 {
            ledger = Ledger::default();
        }
        let path = directory.path().join(format!("store-{}", index / ROUNDS_OF_A_STORE));
        acknowledged += round(&path, (index + 1) * SPAN * 10, &mut rng, &mut ledger);
        in_flight += ledger.doubts();
        let process = Process::new(open(&path), Process::small());
        let seen = examine(&process, &ledger);
        let seen = seen.unwrap_or_else(|wrong| panic!("round {index}, LITEFLEET_SEED={seed}: {wrong}"));
        let before = ledger.acknowledged_anywhere();
        ledger.settle(seen);
        survived += ledger.acknowledged_anywhere() - before;
    }
    eprintln!(
        "{rounds} kills: {acknowledged} acknowledged transactions, none lost; {in_flight} were on their way, of which \
         {survived} happened"
    );
}
