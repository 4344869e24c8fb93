//! A layer for tests: something happens when a call, or the reply to it, is on its way.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::error::{Error, Result};
use crate::store::{Call, Deferred, Interceptor, Layer, Operation, PageStore, Verdict};

type Deed = Box<dyn FnOnce() + Send>;

/// Which of the two is on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// What happens once, at the first call of an operation from then on.
pub(super) struct Meanwhile(Mutex<Option<(Operation, Way, Deed)>>);

impl Meanwhile {
    /// A store with the layer around it.
    pub(super) fn around(store: Arc<dyn PageStore>) -> (Arc<dyn PageStore>, Arc<Self>) {
        let meanwhile = Arc::new(Self(Mutex::default()));
        (Arc::new(Layer::new(store, Arc::clone(&meanwhile))), meanwhile)
    }

    /// The deed is done on a thread of its own, as another connection would. The reply waits for its end, and is lost in a panic
    /// when it panics.
    pub(super) fn arm(&self, operation: Operation, deed: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some((operation, Way::Back, Box::new(deed)));
    }

    /// The same before the store has got the call.
    pub(super) fn arm_before(&self, operation: Operation, deed: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some((operation, Way::There, Box::new(deed)));
    }

    fn pass(&self, operation: Operation, way: Way) {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let deed = armed.take_if(|(of, on, _)| *of == operation && *on == way);
        drop(armed);
        if let Some((_, _, deed)) = deed {
            thread::spawn(deed).join().unwrap();
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Interceptor for Meanwhile {
    fn before(&self, call: Call) -> Verdict {
        self.pass(call.operation, Way::There);
        Verdict::Proceed
    }

    fn after(&self, call: Call, _: Result<u64, &Error>) {
        self.pass(call.operation, Way::Back);
    }

    fn refused(&self, _: Call, _: &Error) {}

    fn defer(&self, _: Deferred) {}
}
