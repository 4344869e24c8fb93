//! A result that will come: what `FDBFuture` points to.
#![expect(unsafe_code, reason = "results are pointers into memory that the future owns, callbacks are the caller's")]

use std::ffi::{c_int, c_void};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::task::AbortHandle;

use super::network;
use crate::code::{self, Code};

pub(crate) type Callback = unsafe extern "C" fn(*mut FdbFuture, *mut c_void);

/// What a future holds when it is ready.
#[derive(Debug)]
pub(crate) enum Output {
    Nothing,
    Number(i64),
    Real(f64),
    Key(Bytes),
    Value(Option<Bytes>),
    Rows(RowArray),
    Keys(KeyArray),
    Strings(StringArray),
}

/// A key and a value as the C interface lays them out.
#[derive(Debug)]
#[repr(C, packed(4))]
pub(crate) struct CKeyValue {
    pub(crate) key: *const u8,
    pub(crate) key_length: c_int,
    pub(crate) value: *const u8,
    pub(crate) value_length: c_int,
}

/// A key as the C interface lays it out.
#[derive(Debug)]
#[repr(C, packed(4))]
pub(crate) struct CKey {
    pub(crate) key: *const u8,
    pub(crate) key_length: c_int,
}

/// Rows, and the array of pointers into them. Moving a `Bytes` does not move what it points to.
#[derive(Debug)]
pub(crate) struct RowArray {
    pub(crate) array: Vec<CKeyValue>,
    pub(crate) more: bool,
    _rows: Vec<(Bytes, Bytes)>,
}

#[derive(Debug)]
pub(crate) struct KeyArray {
    pub(crate) array: Vec<CKey>,
    _keys: Vec<Bytes>,
}

#[derive(Debug)]
pub(crate) struct StringArray {
    pub(crate) array: Vec<*const std::ffi::c_char>,
    _strings: Vec<std::ffi::CString>,
}

// SAFETY: the pointers lead into the buffers that lie beside them, which are never changed after they were made.
unsafe impl Send for RowArray {}
// SAFETY: as above.
unsafe impl Send for KeyArray {}
// SAFETY: as above.
unsafe impl Send for StringArray {}

/// Lengths are bounded by the limits for keys and values, far below this.
pub(crate) fn c_length(length: usize) -> c_int {
    c_int::try_from(length).unwrap_or(c_int::MAX)
}

impl RowArray {
    pub(crate) fn new(rows: Vec<(Bytes, Bytes)>, more: bool) -> Self {
        let array = rows
            .iter()
            .map(|(key, value)| CKeyValue {
                key: key.as_ptr(),
                key_length: c_length(key.len()),
                value: value.as_ptr(),
                value_length: c_length(value.len()),
            })
            .collect();
        Self { array, more, _rows: rows }
    }
}

impl KeyArray {
    pub(crate) fn new(keys: Vec<Bytes>) -> Self {
        let array = keys.iter().map(|key| CKey { key: key.as_ptr(), key_length: c_length(key.len()) }).collect();
        Self { array, _keys: keys }
    }
}

impl StringArray {
    pub(crate) fn new(strings: Vec<std::ffi::CString>) -> Self {
        Self { array: strings.iter().map(|string| string.as_ptr()).collect(), _strings: strings }
    }
}

#[derive(Debug, Default)]
pub(crate) struct FdbFuture {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<Output, Code>>,
    callback: Option<(Callback, Argument)>,
    task: Option<AbortHandle>,
    released: bool,
}

/// The argument that a caller gave for its callback; it is the caller's business which thread may use it.
#[derive(Debug, Clone, Copy)]
struct Argument(*mut c_void);
// SAFETY: the C interface documents that callbacks run on the network thread: the caller hands over a pointer for that.
unsafe impl Send for Argument {}

impl FdbFuture {
    /// A future whose result the network thread works out.
    pub(crate) fn start(work: impl Future<Output = Result<Output, Code>> + Send + 'static) -> Arc<Self> {
        let future = Arc::new(Self::default());
        let Some(network) = network::handle() else {
            future.complete(Err(code::NETWORK_NOT_SETUP));
            return future;
        };
        let completed = Arc::clone(&future);
        let task = network.spawn(async move { completed.complete(work.await) });
        future.lock().task = Some(task.abort_handle());
        future
    }

    /// As [`start`](Self::start), for work that goes on when nobody waits for it.
    pub(crate) fn start_lasting(work: impl Future<Output = Result<Output, Code>> + Send + 'static) -> Arc<Self> {
        let future = Self::start(work);
        future.lock().task = None;
        future
    }

    pub(crate) fn ready(result: Result<Output, Code>) -> Arc<Self> {
        let future = Arc::new(Self::default());
        future.complete(result);
        future
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the result, unless there is one, and calls the callback.
    fn complete(self: &Arc<Self>, result: Result<Output, Code>) {
        let callback = {
            let mut state = self.lock();
            if state.result.is_some() {
                return;
            }
            state.result = Some(result);
            state.callback.take()
        };
        self.ready.notify_all();
        if let Some((callback, argument)) = callback {
            self.call(callback, argument);
        }
    }

    fn call(self: &Arc<Self>, callback: Callback, argument: Argument) {
        // SAFETY: whoever set the callback vouches for it and its argument; the future is alive, this is a reference.
        unsafe { callback(Arc::as_ptr(self).cast_mut(), argument.0) };
    }

    /// Ends the wait with `operation_cancelled`; the callback is called on the network thread, as for any result.
    pub(crate) fn cancel(self: &Arc<Self>) {
        let task = {
            let mut state = self.lock();
            if state.result.is_some() {
                return;
            }
            state.task.take()
        };
        if let Some(task) = task {
            task.abort();
        }
        let cancelled = Arc::clone(self);
        let complete = move || cancelled.complete(Err(code::OPERATION_CANCELLED));
        let waiting = self.lock().callback.is_some();
        match network::handle() {
            Some(network) if waiting => drop(network.spawn(async move { complete() })),
            _ => complete(),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.lock().result.is_some()
    }

    pub(crate) fn error(&self) -> Code {
        match &self.lock().result {
            None => code::FUTURE_NOT_SET,
            Some(Ok(_)) => code::SUCCESS,
            Some(Err(code)) => *code,
        }
    }

    /// Calls back when the result is there: at once, when it is there already.
    pub(crate) fn set_callback(self: &Arc<Self>, callback: Callback, argument: *mut c_void) -> Code {
        let argument = Argument(argument);
        {
            let mut state = self.lock();
            if state.result.is_none() {
                if state.callback.is_some() {
                    return code::CLIENT_INVALID_OPERATION;
                }
                state.callback = Some((callback, argument));
                return code::SUCCESS;
            }
        }
        self.call(callback, argument);
        code::SUCCESS
    }

    pub(crate) fn block_until_ready(&self) -> Code {
        let state = self.lock();
        if state.result.is_some() {
            return code::SUCCESS;
        }
        if network::is_network_thread() {
            return code::BLOCKED_FROM_NETWORK_THREAD;
        }
        drop(self.ready.wait_while(state, |state| state.result.is_none()));
        code::SUCCESS
    }

    /// Gives the result's memory back; from then on the result is `future_released`.
    pub(crate) fn release_memory(&self) {
        let mut state = self.lock();
        if state.result.is_some() {
            state.released = true;
        }
        if let Some(Ok(output)) = &mut state.result {
            *output = Output::Nothing;
        }
    }

    /// Looks at the result. What `look` returns may point into it: it stays until the memory is released.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Output) -> Option<T>) -> Result<T, Code> {
        let state = self.lock();
        match &state.result {
            None => Err(code::FUTURE_NOT_SET),
            Some(Err(code)) => Err(*code),
            Some(Ok(_)) if state.released => Err(code::FUTURE_RELEASED),
            // The documentation calls the outcome of asking for another type undefined: here it is an error.
            Some(Ok(output)) => look(output).ok_or(code::CLIENT_INVALID_OPERATION),
        }
    }
}
