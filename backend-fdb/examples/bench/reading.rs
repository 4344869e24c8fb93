//! Opening, scanning and looking up, each cold, beside bare reads of as much: by turns.

use std::time::Duration;

use litefleet::clock::Randomness;
use litefleet::store::{LeaseRequest, Lineage, OpenRequest, PageStore as _, SessionRequest};
use litefleet::{DatabaseName, PageNo, PageRange, SessionId};

use crate::bare::Bare;
use crate::latencies::Latencies;
use crate::page::Page;
use crate::rig::{Rig, Timer, fill};

/// Bytes of the database that is scanned.
const SCANNED: u32 = 50 << 20;
/// How often that is done.
const TURNS: u32 = 3;
/// How often the lookups are: they take less time, and differ more.
const LOOKUP_TURNS: u32 = 9;
/// How many databases are opened.
const OPENED: u32 = 40;
const LOOKUPS: u32 = 1_000;

pub(crate) fn measure(rig: &Rig, bare: &Bare, page: &mut Page) {
    let rows = SCANNED / 1_000 / rig.scale;
    {
        let fleet = rig.fleet();
        fill(&fleet.open("cold"), rows, 900);
        for index in 0..OPENED {
            fill(&fleet.open(&format!("small-{index}")), 100, 100);
        }
    }
    page.head(&["cold", "p50 ms", "bare", "of bare", "against"]);
    opening(rig, bare, page);
    let (mut scans, mut ranges) = (Latencies::default(), Latencies::default());
    for _ in 0..TURNS {
        let (scan, bytes) = scan(rig);
        scans.add(scan);
        ranges.add(bare.scan(bytes));
    }
    let ratio = compare(page, "scan of 50 MB", &scans, &ranges, "range reads of as much");
    page.at_most("cold scan of 50 MB, of a range read's time", 3.0, Some(ratio));
    let (mut lookups, mut gets, mut newest) = (Latencies::default(), Latencies::default(), Latencies::default());
    let mut pages = Latencies::default();
    for turn in 0..LOOKUP_TURNS {
        lookups.add(look_up(rig, rows, turn));
        gets.add(bare.gets(LOOKUPS / rig.scale, turn));
        newest.add(bare.newest(LOOKUPS / rig.scale, turn));
        pages.add(read_pages(rig, rows, turn));
    }
    let ratio = compare(page, "1,000 lookups by an index", &lookups, &gets, "1,000 gets, one after another");
    compare(page, "the same", &lookups, &newest, "1,000 range reads backwards of one value");
    compare(page, "their pages by the store's own call", &pages, &gets, "1,000 gets, one after another");
    page.at_most("1,000 cold index lookups, of 1,000 gets' time", 1.0, Some(ratio));
}

fn compare(page: &mut Page, what: &str, ours: &Latencies, theirs: &Latencies, against: &str) -> f64 {
    let (ours, theirs) = (ours.percentile(50), theirs.percentile(50));
    let ratio = ours / theirs;
    page.row(&[what, &format!("{ours:.2}"), &format!("{theirs:.2}"), &format!("{ratio:.2}"), against]);
    ratio
}

/// In a process that has the store open, and has never seen the database.
fn opening(rig: &Rig, bare: &Bare, page: &mut Page) {
    let fleet = rig.fleet();
    fleet.open("other").execute_batch("CREATE TABLE IF NOT EXISTS t(x)").expect("made");
    let (mut ours, mut versions, mut commits) = (Latencies::default(), Latencies::default(), Latencies::default());
    let (mut again, mut commits_again) = (Latencies::default(), Latencies::default());
    for index in 0..OPENED {
        let name = format!("small-{index}");
        ours.add(open_and_query(&fleet, &name));
        versions.add(bare.read_version());
        commits.add(bare.commit());
    }
    for index in 0..OPENED {
        // Closed again, and given back: the name is known now.
        again.add(open_and_query(&fleet, &format!("small-{index}")));
        commits_again.add(bare.commit());
    }
    let ratio = compare(page, "open and first query", &ours, &commits, "read version, get, commit: three round trips");
    page.at_most("open and first query, of three round trips' time", 1.0, Some(ratio));
    compare(page, "the same", &ours, &versions, "one read version");
    compare(page, "the same, name known", &again, &commits_again, "read version, get, commit: three round trips");
}

fn open_and_query(fleet: &crate::rig::Process, name: &str) -> Duration {
    let timer = Timer::start();
    let connection = fleet.open(name);
    let first: u32 = connection.query_row("SELECT n FROM t WHERE k = 1", (), |row| row.get(0)).expect("a row");
    let took = timer.elapsed();
    assert_eq!(first, 0);
    connection.execute_batch("PRAGMA litefleet_release").ok();
    took
}

fn scan(rig: &Rig) -> (Duration, usize) {
    let fleet = rig.fleet();
    let connection = fleet.open("cold");
    let timer = Timer::start();
    let bytes: u32 = connection.query_row("SELECT sum(length(v)) FROM t", (), |row| row.get(0)).expect("a sum");
    (timer.elapsed(), usize::try_from(bytes).expect("it fits"))
}

fn look_up(rig: &Rig, rows: u32, turn: u32) -> Duration {
    let fleet = rig.fleet();
    let connection = fleet.open("cold");
    let mut lookup = connection.prepare("SELECT length(v) FROM t WHERE n2 = ?1").expect("valid");
    let timer = Timer::start();
    for index in 0..LOOKUPS / rig.scale {
        let key = (index + turn * LOOKUPS).wrapping_mul(7919) % rows + 1;
        let length: u32 = lookup.query_row([key], |row| row.get(0)).expect("a row");
        assert_eq!(length, 900);
    }
    timer.elapsed()
}

/// As many pages as the lookups miss, without SQLite and the engine.
fn read_pages(rig: &Rig, rows: u32, turn: u32) -> Duration {
    let fleet = rig.fleet();
    fleet.block_on(async |store| {
        let name = DatabaseName::new("cold").expect("a name");
        let session = SessionId(Randomness::from_os().id());
        let started = SessionRequest { session, label: "bench".into(), lifetime: Duration::from_secs(60) };
        store.start_session(started).await.expect("a session");
        let lease = Some(LeaseRequest { session, force: true });
        let request = OpenRequest { name, create: false, lease, known: None, tail_bytes: 4 << 20 };
        let opened = store.open(request).await.expect("it is there");
        let last = u32::try_from(opened.head.size / 4096).expect("it fits");
        let lineage = [Lineage { database: opened.database, max_txid: opened.head.txid }];
        let timer = Timer::start();
        for index in 0..LOOKUPS / rig.scale {
            let page = PageNo((index + turn * LOOKUPS).wrapping_mul(7919) % last.min(rows) + 1);
            let read = store.read_pages(&lineage, &[PageRange::new(page, page)], opened.head.txid).await;
            read.expect("a page");
        }
        let took = timer.elapsed();
        store.end_session(session).await.expect("its end");
        took
    })
}
