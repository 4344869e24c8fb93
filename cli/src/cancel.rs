//! Ctrl-C and termination: the first interrupts what runs and lets the command clean up, the second ends the process.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use litefleet::clock::{Clock, SystemClock};
use rusqlite::{Connection, InterruptHandle};

static STATE: Mutex<State> = Mutex::new(State { requested: false, idle: false, running: None });
static CHANGED: Condvar = Condvar::new();

struct State {
    requested: bool,
    idle: bool,
    running: Option<InterruptHandle>,
}

fn state() -> std::sync::MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to listen. Where signals cannot be listened to, they end the process, which leaves nothing half done either.
pub(crate) fn install() {
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else {
            return;
        };
        std::thread::spawn(move || {
            for signal in signals.forever() {
                request(signal == SIGTERM);
            }
        });
    }
}

#[cfg(unix)]
fn request(terminate: bool) {
    let mut state = state();
    if state.requested || (state.idle && terminate) {
        std::process::exit(i32::from(crate::failure::Exit::Interrupted as u8));
    }
    state.requested = true;
    if let Some(running) = &state.running {
        running.interrupt();
    }
    CHANGED.notify_all();
}

/// Whether the user wants to stop.
pub(crate) fn requested() -> bool {
    state().requested
}

/// Forgets the wish: the prompt does this after an interrupted statement.
pub(crate) fn reset() {
    state().requested = false;
}

/// Waits, but not longer than until the user wants to stop. Returns whether that is so.
pub(crate) fn wait(time: Duration) -> bool {
    CHANGED
        .wait_timeout_while(state(), time, |state| !state.requested)
        .map_or_else(|poisoned| poisoned.into_inner().0.requested, |(state, _)| state.requested)
}

/// Instructions of SQLite's virtual machine between two looks whether the user wants to stop.
const LOOK_EVERY: i32 = 1000;

/// Makes the statements of a connection end when the user wants to stop, also one that begins only then: an interruption is
/// forgotten by a connection on which no statement runs.
pub(crate) fn stop_when_asked(connection: &mut Connection) -> rusqlite::Result<()> {
    stop_when(connection, requested)
}

fn stop_when(connection: &mut Connection, asked: impl FnMut() -> bool + Send + 'static) -> rusqlite::Result<()> {
    connection.progress_handler(LOOK_EVERY, Some(asked))
}

/// While it lives, Ctrl-C interrupts the statement that runs on the connection at once.
#[derive(Debug)]
pub(crate) struct Interruptible(());

impl Interruptible {
    pub(crate) fn new(connection: &Connection) -> Self {
        state().running = Some(connection.get_interrupt_handle());
        Self(())
    }
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        state().running = None;
    }
}

/// While it lives the process waits for the user, with nothing to clean up: termination ends it at once.
#[derive(Debug)]
pub(crate) struct Idle(());

impl Idle {
    pub(crate) fn new() -> Self {
        state().idle = true;
        Self(())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        state().idle = false;
    }
}

/// Makes a connection wait for locks, but not longer than until the user wants to stop.
pub(crate) fn wait_for_locks(connection: &mut Connection, time: Duration) -> rusqlite::Result<()> {
    let clock = SystemClock::default();
    let mut since = clock.monotonic();
    connection.busy_handler(Some(move |attempt: i32| {
        if attempt == 0 {
            since = clock.monotonic();
        }
        let left = time.saturating_sub(clock.monotonic().saturating_sub(since));
        // Short at first, as most locks are.
        let pause = Duration::from_millis(u64::from(attempt.unsigned_abs().clamp(1, 50)));
        !left.is_zero() && !wait(pause.min(left))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signal between the look whether there was one and the statement interrupted nothing: it ran to its end.
    #[test]
    fn a_statement_that_begins_after_the_signal_ends() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.get_interrupt_handle().interrupt();
        stop_when(&mut connection, || true).unwrap();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let error = connection.query_row(endless, [], |_| Ok(())).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::OperationInterrupted));
    }
}
