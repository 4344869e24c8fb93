//! The network: one thread of the program, on which everything asynchronous happens.
//!
//! Source: FoundationDB documentation, "C API", API versioning and network: the version is selected once, the network
//! is set up once, runs once, and cannot be started again.
#![expect(unsafe_code, reason = "hooks are functions of the caller, and the loader calls one of ours")]

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

use super::options;
use crate::code::{self, Code};

/// The newest API version that can be selected; the oldest is the oldest that the library's rules are right for.
const MAX_API_VERSION: i32 = 740;
const MIN_API_VERSION: i32 = 710;

/// The newest API version of this library: an older one on demand, so that it can pass for an older release.
pub(crate) fn max_api_version() -> i32 {
    let wanted = std::env::var("LITEFLEET_STAND_IN_API_VERSION").ok().and_then(|version| version.parse().ok());
    wanted.map_or(MAX_API_VERSION, |version: i32| version.min(MAX_API_VERSION))
}

pub(crate) type Hook = unsafe extern "C" fn(*mut c_void);

#[derive(Debug, Default)]
struct Network {
    api_version: Option<i32>,
    runtime: Option<Runtime>,
    stop: Arc<Notify>,
    has_run: bool,
    hooks: Vec<(Hook, usize)>,
}

static NETWORK: Mutex<Option<Network>> = Mutex::new(None);
static HANDLE: OnceLock<Handle> = OnceLock::new();

thread_local! {
    static IS_NETWORK_THREAD: Cell<bool> = const { Cell::new(false) };
}

fn lock() -> MutexGuard<'static, Option<Network>> {
    NETWORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where work is sent, once the network is set up. Nothing of it is done before the network runs.
pub(crate) fn handle() -> Option<&'static Handle> {
    HANDLE.get()
}

pub(crate) fn is_network_thread() -> bool {
    IS_NETWORK_THREAD.get()
}

/// `fdb_select_api_version_impl`. Versions below 7.1's have other rules (versionstamps, ranges, system keys), which are
/// not here: they are refused, as the real library refuses versions that it does not know.
pub(crate) fn select_api_version(runtime: i32, header: i32) -> Code {
    let mut network = lock();
    if network.as_ref().is_some_and(|network| network.api_version.is_some()) {
        return code::API_VERSION_ALREADY_SET;
    }
    if runtime > header {
        return code::API_VERSION_INVALID;
    }
    if header > max_api_version() || runtime < MIN_API_VERSION {
        return code::API_VERSION_NOT_SUPPORTED;
    }
    network.get_or_insert_default().api_version = Some(runtime);
    code::SUCCESS
}

/// Whether a version has been selected.
pub(crate) fn has_api_version() -> bool {
    lock().as_ref().is_some_and(|network| network.api_version.is_some())
}

/// `fdb_network_set_option`: what has the right form is accepted before the network is set up, and changes nothing here.
pub(crate) fn set_option(option: i32, value: Option<&[u8]>) -> Code {
    match lock().as_ref() {
        None => code::API_VERSION_UNSET,
        // Of some options the real library accepts a change later on: the documentation promises it for none.
        Some(_) if HANDLE.get().is_some() => code::INVALID_OPTION,
        Some(_) => options::check(options::NETWORK, option, value)
            .and_then(|()| options::check_network(option, value.unwrap_or_default()))
            .err()
            .unwrap_or(code::SUCCESS),
    }
}

pub(crate) fn setup() -> Code {
    let mut network = lock();
    let Some(network) = network.as_mut().filter(|network| network.api_version.is_some()) else {
        return code::API_VERSION_UNSET;
    };
    if HANDLE.get().is_some() {
        return code::NETWORK_ALREADY_SETUP;
    }
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return code::OPERATION_FAILED };
    HANDLE.set(runtime.handle().clone()).ok();
    network.runtime = Some(runtime);
    code::SUCCESS
}

/// Runs until [`stop`] is called. What is not finished by then stays so.
pub(crate) fn run() -> Code {
    let (runtime, stop) = {
        let mut network = lock();
        let Some(network) = network.as_mut() else { return code::API_VERSION_UNSET };
        if network.has_run {
            return code::NETWORK_CANNOT_BE_RESTARTED;
        }
        let Some(runtime) = network.runtime.take() else { return code::NETWORK_NOT_SETUP };
        network.has_run = true;
        (runtime, Arc::clone(&network.stop))
    };
    IS_NETWORK_THREAD.set(true);
    runtime.block_on(stop.notified());
    runtime.shutdown_background();
    IS_NETWORK_THREAD.set(false);
    let hooks = lock().as_mut().map(|network| std::mem::take(&mut network.hooks)).unwrap_or_default();
    for (hook, argument) in hooks {
        // SAFETY: whoever added the hook vouches for it and its argument, which is its own pointer.
        unsafe { hook(argument as *mut c_void) };
    }
    code::SUCCESS
}

/// What the library keeps for each thread. The real one has such objects on the thread that loads it, and uses them to
/// stop: seen on 7.3.79, where stopping from an exit handler of the main thread ends the process with a fault, since they
/// are destroyed before exit handlers run.
struct OfThread;

impl Drop for OfThread {
    fn drop(&mut self) {
        // What has nothing to destroy is never destroyed.
        std::hint::black_box(self);
    }
}

thread_local! {
    static OF_THREAD: OfThread = const { OfThread };
}

#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;

extern "C" fn loaded() {
    OF_THREAD.with(|_| ());
}

pub(crate) fn stop() -> Code {
    if OF_THREAD.try_with(|_| ()).is_err() {
        // As bad, and easier to understand.
        std::process::abort();
    }
    match lock().as_ref() {
        Some(network) if HANDLE.get().is_some() => {
            network.stop.notify_one();
            code::SUCCESS
        }
        _ => code::NETWORK_NOT_SETUP,
    }
}

pub(crate) fn add_hook(hook: Hook, argument: *mut c_void) -> Code {
    match lock().as_mut() {
        Some(network) if HANDLE.get().is_some() => {
            network.hooks.push((hook, argument as usize));
            code::SUCCESS
        }
        _ => code::NETWORK_NOT_SETUP,
    }
}
