//! Moments that only come about when two things happen at once: here they are brought about by holding calls back.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use litefleet::store::{Call, Deferred, Interceptor, Layer, Operation, Verdict};
use litefleet::{DatabaseName, Error, Role};

use super::bench::{Bench, EngineHarness, dump, fill, run};

/// Holds one reply back, after the store has made it.
#[derive(Debug, Default)]
struct Hold(Mutex<Option<Held>>);

#[derive(Debug)]
struct Held {
    operation: Operation,
    skip: usize,
    arrived: Sender<()>,
    released: Receiver<()>,
}

impl Hold {
    /// The next reply to this operation but `skip` waits. Returns where its arrival is told, and what releases it.
    fn next(&self, operation: Operation, skip: usize) -> (Receiver<()>, Sender<()>) {
        let ((arrived, arrival), (release, released)) = (channel(), channel());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Held { operation, skip, arrived, released });
        (arrival, release)
    }
}

impl Interceptor for Hold {
    fn before(&self, _: Call) -> Verdict {
        Verdict::Proceed
    }

    fn after(&self, call: Call, _: Result<u64, &Error>) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take_if(|held| {
            let due = held.operation == call.operation && held.skip == 0;
            if held.operation == call.operation && !due {
                held.skip -= 1;
            }
            due
        });
        if let Some(held) = held {
            held.arrived.send(()).unwrap();
            // An error says that the case is over.
            let _over = held.released.recv();
        }
    }

    fn refused(&self, _: Call, _: &Error) {}

    fn defer(&self, _: Deferred) {}
}

/// A checkpoint that is completed while a read is under way takes records from the tail that the rows which were read
/// still need.
pub fn checkpoint_completes_while_a_page_is_read(harness: &dyn EngineHarness) {
    let hold = Arc::new(Hold::default());
    let bench = Bench::layered(
        harness,
        |store| Arc::new(Layer::new(store, Arc::clone(&hold))),
        |settings| {
            settings.cache_bytes = 0;
            // None but those that the case makes.
            settings.database.checkpoint_records = usize::MAX;
            settings.database.checkpoint_pages = usize::MAX;
        },
    );
    let writer = bench.open("a");
    fill(&writer, "t", 100, 3000);
    run(&writer, "PRAGMA litefleet_checkpoint");
    let database = bench.fleet.connect(&DatabaseName::new("a").unwrap(), Role::Writer, false);
    for skip in 0..12 {
        for round in 0..5 {
            run(&writer, &format!("UPDATE t SET v = 'round {skip} {round}' WHERE k <= 20"));
        }
        run(&writer, "SELECT sum(length(v)) FROM t WHERE k > 20");
        let expected = dump(&writer);
        let reader = bench.open("a");
        // What was written last is in the fleet's cache; what is read last puts it out.
        dump(&bench.open("a"));
        let (arrival, release) = hold.next(Operation::ReadPages, skip);
        std::thread::scope(|scope| {
            let read = scope.spawn(move || dump(&reader));
            arrival.recv().unwrap();
            bench.fleet.checkpoint(&database).unwrap();
            drop(release);
            assert!(read.join().unwrap() == expected, "the page after {skip} others");
        });
    }
    bench.fleet.disconnect(&database);
    bench.check("a");
}

/// Work in the background that outlives its last connection must not take the lease again: it would fence who opened the
/// database since.
pub fn closed_database_takes_no_lease(harness: &dyn EngineHarness) {
    let bench = Bench::with(harness, |settings| settings.database.checkpoint_records = 2);
    for round in 0..150 {
        let connection = bench.open("a");
        run(&connection, "CREATE TABLE IF NOT EXISTS t(x)");
        for commit in 0..3 {
            run(&connection, &format!("INSERT INTO t VALUES({round} * 10 + {commit})"));
        }
    }
    bench.check("a");
}
