//! A worker of the engine that is held where chance would have to stop it: by the lines that the engine logs as it works.

use std::fs;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};

/// What the engine calls the threads of its workers.
pub(crate) const NAME: &str = "fjall:worker";

/// Far beyond what a busy machine needs: whoever waits so long waits for what never comes.
pub(crate) const NEVER: Duration = Duration::from_secs(120);

/// In this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Armed,
    /// The worker is about to sync the journal.
    BeforeItsSync,
    MaySync,
    /// Its sync has failed. It has let go of the journal, and nobody else knows of it yet.
    HasFailed,
    /// The store has begun to sync the journal, and waits until the worker has told the engine of its failure.
    MayTell,
    HasTold,
}

pub(crate) struct HeldWorker {
    step: Mutex<Step>,
    moved: Condvar,
}

static HELD: HeldWorker = HeldWorker { step: Mutex::new(Step::Nothing), moved: Condvar::new() };

/// Holds the first worker from here on that is to write out a table. Once in a process.
pub(crate) fn hold() -> &'static HeldWorker {
    log::set_logger(&HELD).unwrap();
    log::set_max_level(LevelFilter::Trace);
    HELD.go_on(Step::Armed);
    &HELD
}

impl HeldWorker {
    pub(crate) fn await_its_sync(&self) {
        drop(self.wait(Step::BeforeItsSync));
    }

    /// Returns when it has.
    pub(crate) fn let_its_sync_fail(&self) {
        self.go_on(Step::MaySync);
        drop(self.wait(Step::HasFailed));
    }

    pub(crate) fn assert_it_has_told(&self) {
        assert_eq!(*self.step.lock().unwrap(), Step::HasTold);
    }

    fn go_on(&self, step: Step) {
        *self.step.lock().unwrap() = step;
        self.moved.notify_all();
    }

    fn wait(&self, wanted: Step) -> MutexGuard<'_, Step> {
        let step = self.step.lock().unwrap();
        let (step, over) = self.moved.wait_timeout_while(step, NEVER, |step| *step != wanted).unwrap();
        assert!(!over.timed_out(), "{wanted:?} has never come, only {:?}", *step);
        step
    }
}

impl Log for HeldWorker {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        let is_worker = thread::current().name() == Some(NAME);
        let step = *self.step.lock().unwrap();
        match step {
            Step::Armed if is_worker && text.contains("to maybe rotate journal") => {
                self.go_on(Step::BeforeItsSync);
                drop(self.wait(Step::MaySync));
            }
            Step::MaySync if is_worker && text.contains("crashed") => {
                self.go_on(Step::HasFailed);
                drop(self.wait(Step::MayTell));
            }
            // By then the engine has looked whether it may write.
            Step::HasFailed if !is_worker && text.contains("SyncData") => {
                let before = workers();
                self.go_on(Step::MayTell);
                // It tells of its failure, and ends.
                while workers() == before {
                    thread::yield_now();
                }
                self.go_on(Step::HasTold);
            }
            _ => {}
        }
    }

    fn flush(&self) {}
}

/// How many workers there are, of all engines in this process.
fn workers() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    // One that ends meanwhile has no name any more.
    let names = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim() == NAME).count()
}
