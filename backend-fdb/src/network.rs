//! FoundationDB's network thread: one per process. It can be started once and never again, so it runs from the first
//! open until the process ends, whatever stores are opened and closed meanwhile.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foundationdb::FdbError;
use foundationdb::api::{FdbApiBuilder, NetworkAutoStop, get_max_api_version};
use foundationdb::options::NetworkOption;
use litefleet::{Error, Result};

use crate::error::code;
use crate::tls;

/// The interface that is spoken: that of 7.1, which every client library from 7.1 to 7.4 has.
pub(crate) const API_VERSION: i32 = 710;

/// Settings of the network thread. They hold for the whole process: the first store that is opened decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The folder for the client's trace files. None are written without it.
    pub trace_directory: Option<PathBuf>,
    /// `xml` (the default) or `json`.
    pub trace_format: Option<String>,
    /// Names this application in the trace files.
    pub trace_log_group: Option<String>,
    /// The certificate chain that this client shows, as a PEM file.
    pub tls_certificate: Option<PathBuf>,
    /// Its private key, as a PEM file.
    pub tls_key: Option<PathBuf>,
    /// The key's password.
    pub tls_password: Option<String>,
    /// The certificate authorities that the cluster is checked against, as a PEM file.
    pub tls_ca: Option<PathBuf>,
    /// What is demanded of the cluster's certificates, as in `Check.Valid=1`.
    pub tls_verify_peers: Option<String>,
    /// A folder with client libraries of other versions, for a cluster that is being upgraded.
    pub external_client_directory: Option<PathBuf>,
    /// Knobs as `name=value`, for FoundationDB's experts.
    pub knobs: Vec<String>,
    /// The application itself selects the API version, starts the network thread before it opens a store, and stops it
    /// at its end. Then nothing of the above is used.
    pub run_by_application: bool,
}

impl NetworkConfig {
    /// Whether the settings can be, as far as the client library would say so at once. It can be asked only once.
    pub(crate) fn check(&self) -> Result<()> {
        if self.run_by_application {
            return Ok(());
        }
        let wrong = |message: String| Err(Error::invalid(message));
        if let Some(format) = &self.trace_format
            && !["xml", "json"].iter().any(|known| format.eq_ignore_ascii_case(known))
        {
            return wrong(format!("trace_format={format}: FoundationDB has xml and json"));
        }
        if let Some(knob) = self.knobs.iter().find(|knob| !knob.contains('=')) {
            return wrong(format!("knob={knob}: expected a name, a '=' and a value"));
        }
        options(self).map(|_| ())
    }
}

enum State {
    Idle,
    Running {
        config: Box<NetworkConfig>,
        _thread: NetworkAutoStop,
    },
    /// It could not be started, or was stopped at the end of the process.
    Over(Error),
}

static STATE: Mutex<State> = Mutex::new(State::Idle);

/// The process that the network thread was started in, or should be; 0 before.
static STARTED_IN: AtomicU32 = AtomicU32::new(0);

/// Whether this process was forked from the one that has started the network thread. It has the state of that one, and
/// perhaps its lock, which nobody will give back; the thread it does not have.
fn is_forked() -> bool {
    let process = STARTED_IN.load(Ordering::SeqCst);
    process != 0 && process != std::process::id()
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the network thread unless it runs.
///
/// `Invalid` when it runs with other settings, when those for TLS cannot work, when the client library is too old, and in a
/// process that was forked from one that has started it.
pub(crate) fn start(wanted: &NetworkConfig) -> Result<()> {
    if wanted.run_by_application {
        return Ok(());
    }
    if is_forked() {
        return Err(Error::invalid(format!(
            "process {} was forked from one that has used FoundationDB, whose client works in that one alone: fork before \
             the first store is opened, or start processes without a fork",
            std::process::id()
        )));
    }
    let mut state = lock();
    match &*state {
        State::Running { config, .. } if **config == *wanted => Ok(()),
        State::Running { .. } => Err(Error::invalid(
            "the network settings of FoundationDB (TLS, tracing, knobs) hold for the whole process, and another store of \
             this process was opened with different ones",
        )),
        State::Over(error) => Err(error.clone()),
        State::Idle => {
            // Files that it has read already may be about to be replaced.
            tls::check(wanted)?;
            STARTED_IN.store(std::process::id(), Ordering::SeqCst);
            match boot(wanted) {
                Ok(thread) => {
                    *state = State::Running { config: Box::new(wanted.clone()), _thread: thread };
                    drop(state);
                    stop_at_exit();
                    Ok(())
                }
                Err(error) => {
                    *state = State::Over(error.clone());
                    Err(error)
                }
            }
        }
    }
}

fn boot(config: &NetworkConfig) -> Result<NetworkAutoStop> {
    let newest = get_max_api_version();
    if newest < API_VERSION {
        return Err(Error::invalid(format!(
            "the FoundationDB client library of this machine speaks API version {newest} at most, and {API_VERSION} is \
             needed: install the client of FoundationDB 7.1 or later"
        )));
    }
    // A second selection is a panic.
    let selected = std::panic::catch_unwind(|| FdbApiBuilder::default().set_runtime_version(API_VERSION).build());
    let network = selected.unwrap_or_else(|_| Err(FdbError::from_code(code::API_VERSION_ALREADY_SET)));
    if network.as_ref().is_err_and(|error| error.code() == code::API_VERSION_ALREADY_SET) {
        return Err(Error::invalid(
            "this process has selected an API version of FoundationDB already: where the application runs the network \
             thread itself, the store must be told (NetworkConfig::run_by_application)",
        ));
    }
    let mut network = network.map_err(failed)?;
    for (name, option) in options(config)? {
        network = network.set_option(option).map_err(|error| refused(name, error))?;
    }
    #[expect(unsafe_code, reason = "the client library can only be started this way")]
    // SAFETY: the thread must be stopped before the process ends. `stop_at_exit` sees to that; a process that is aborted
    // or killed need not.
    unsafe { network.boot() }.map_err(failed)
}

fn failed(error: FdbError) -> Error {
    Error::unavailable(format!("the FoundationDB client cannot be started: {error} (code {})", error.code()))
}

/// Why an option could not be set. Its value is not said: it may be a password.
fn refused(name: &str, error: FdbError) -> Error {
    if error.code() == code::INVALID_OPTION_VALUE {
        return Error::invalid(format!(
            "the FoundationDB client refuses what {name} is set to: correct it, and start the process anew, since the client \
             can be started only once"
        ));
    }
    failed(error)
}

/// The options that are set, by their names in a store's URL.
fn options(config: &NetworkConfig) -> Result<Vec<(&'static str, NetworkOption)>> {
    let path = |path: &PathBuf| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| Error::invalid(format!("{} is not UTF-8, as FoundationDB needs it", path.display())))
    };
    let mut options = Vec::new();
    if let Some(folder) = &config.trace_directory {
        options.push(("trace", NetworkOption::TraceEnable(path(folder)?)));
    }
    options.extend(config.trace_format.clone().map(|format| ("trace_format", NetworkOption::TraceFormat(format))));
    options.extend(config.trace_log_group.clone().map(|name| ("trace_log_group", NetworkOption::TraceLogGroup(name))));
    if let Some(file) = &config.tls_certificate {
        options.push(("tls_certificate", NetworkOption::TLSCertPath(path(file)?)));
    }
    // The password must be there before the key is read.
    options.extend(config.tls_password.clone().map(|password| ("tls_password", NetworkOption::TLSPassword(password))));
    if let Some(file) = &config.tls_key {
        options.push(("tls_key", NetworkOption::TLSKeyPath(path(file)?)));
    }
    if let Some(file) = &config.tls_ca {
        options.push(("tls_ca", NetworkOption::TLSCaPath(path(file)?)));
    }
    let rules = config.tls_verify_peers.clone().map(String::into_bytes);
    options.extend(rules.map(|rules| ("tls_verify_peers", NetworkOption::TLSVerifyPeers(rules))));
    if let Some(folder) = &config.external_client_directory {
        options.push(("external_clients", NetworkOption::ExternalClientDirectory(path(folder)?)));
    }
    options.extend(config.knobs.iter().cloned().map(|knob| ("knob", NetworkOption::Knob(knob))));
    Ok(options)
}

/// How many exit handlers there are at the most: by then the client library has made whatever it makes.
const EXIT_HANDLERS: u32 = 32;

/// Has the thread stopped when the process ends by returning from `main` or by `exit`: when it was started, and again
/// whenever a store was opened or is closed, the first times.
///
/// The client library makes objects when they are first used, and has them destroyed by exit handlers of its own, the
/// newest first. The thread must have stopped before any of them goes: so a handler is registered after they were made.
pub(crate) fn stop_at_exit() {
    static REGISTERED: AtomicU32 = AtomicU32::new(0);
    if is_forked() || !matches!(&*lock(), State::Running { .. }) {
        return;
    }
    if REGISTERED.load(Ordering::SeqCst) >= EXIT_HANDLERS {
        return;
    }
    REGISTERED.fetch_add(1, Ordering::SeqCst);
    #[expect(unsafe_code, reason = "there is no safe way to run something at the end of a process")]
    // SAFETY: `stop` is a function of this program that takes nothing and returns nothing, as `atexit` demands, and does
    // nothing the second time, nor in a process that was forked.
    let outcome = unsafe { libc::atexit(stop) };
    if outcome != 0 {
        tracing::warn!("the network thread of FoundationDB will not be stopped cleanly at the end of the process");
    }
}

extern "C" fn stop() {
    // A forked process inherits the handlers.
    if is_forked() {
        return;
    }
    // A panic must not cross into C.
    let _stopped = std::panic::catch_unwind(|| {
        // Whoever calls a store from now on is told.
        let over = State::Over(Error::unavailable("the process is ending"));
        let running = std::mem::replace(&mut *lock(), over);
        if !matches!(running, State::Running { .. }) {
            return;
        }
        // Dropping stops the thread and waits for it. Not on this thread: what the client library keeps for each thread is
        // destroyed before the exit handlers of the thread that ends the process run, and stopping needs it.
        let stopping = std::thread::Builder::new().name("litefleet-fdb-stop".into());
        // Where there can be no thread, it is dropped here all the same.
        if let Ok(stopping) = stopping.spawn(move || drop(running)) {
            stopping.join().ok();
        }
    });
}

#[cfg(test)]
mod tests {
    use litefleet::ErrorKind;

    use super::*;

    #[test]
    fn an_option_that_the_client_refuses_is_named() {
        let error = refused("tls_verify_peers", FdbError::from_code(code::INVALID_OPTION_VALUE));
        assert!(error.kind() == ErrorKind::Invalid && error.message().contains("tls_verify_peers"), "{error}");
        assert_eq!(refused("trace", FdbError::from_code(1510)).kind(), ErrorKind::Unavailable, "a disk that fails");
    }
}
