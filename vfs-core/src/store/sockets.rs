//! Sockets that a thread that waits looks at itself.
//!
//! SQLite's thread polls a store's future itself, and sleeps in between. Where the future waits for a socket that is
//! registered with the runtime, the answer wakes a thread of the runtime, and that one SQLite's. A store may ask the thread
//! that polls it to look at the socket itself instead, which spares the first of the two. On Linux and Android.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};

thread_local! {
    /// The sockets of the wait whose future is being polled on this thread; none outside of such a poll.
    static POLLED: Cell<Option<Watched>> = const { Cell::new(None) };
    /// Made when it is first needed.
    static BELL: RefCell<Option<Bell>> = const { RefCell::new(None) };
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// That there is something to read, the end or an error included.
    Read,
    /// That something can be written.
    Write,
}

/// Asks the thread that polls the caller to wake this waker when the socket is ready, or has failed: once, and perhaps
/// without reason. False where it will not: nobody sleeps in front of sockets there, and the runtime is to be asked.
///
/// To be called when the socket has said that it would block, and each time that it does. The last waker counts; whoever
/// polls the same socket elsewhere later need not undo anything. The socket may be dropped at any time.
///
/// The thread looks when the poll is over. So who blocks within one until another future is ready that asks here (with a
/// runtime of its own, say) waits for ever; a call of SQLite's within one does not.
pub fn wake_when_ready<S>(socket: &Arc<S>, interest: Interest, waker: &Waker) -> bool
where
    S: AsFd + Send + Sync + 'static,
{
    // Clones and drops of wakers and sockets are others' code: none runs while this is out of its place.
    let (socket, waker): (Weak<S>, _) = (Arc::downgrade(socket), waker.clone());
    let Ok(Some(mut watched)) = POLLED.try_with(Cell::take) else {
        return false;
    };
    let watches = watched.has_bell();
    let before = if watches { watched.add(socket, interest, waker) } else { Some(waker) };
    POLLED.set(Some(watched));
    drop(before);
    watches
}

struct Entry {
    /// Weak, so that a socket is closed when its owner drops it.
    socket: Weak<dyn AsFd + Send + Sync>,
    read: Option<Waker>,
    write: Option<Waker>,
}

impl Entry {
    fn flags(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.read.is_some());
        flags.set(PollFlags::OUT, self.write.is_some());
        flags
    }

    /// The wakers of those who wait for this.
    fn take(&mut self, ready: PollFlags) -> impl Iterator<Item = Waker> {
        let failed = ready.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
        let read = if failed || ready.contains(PollFlags::IN) { self.read.take() } else { None };
        let write = if failed || ready.contains(PollFlags::OUT) { self.write.take() } else { None };
        read.into_iter().chain(write)
    }
}

/// The sockets that one wait is to look at.
#[derive(Default)]
pub(crate) struct Watched {
    entries: Vec<Entry>,
    bell: Option<Bell>,
}

impl Watched {
    /// Runs a poll, whose futures can ask for their sockets to be watched.
    pub(crate) fn during<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        let _asked = Asked::begin(self);
        poll()
    }

    /// What ends the sleep in front of the sockets, if there are any.
    pub(crate) fn bell(&self) -> Option<Bell> {
        if self.entries.is_empty() { None } else { self.bell.clone() }
    }

    fn has_bell(&mut self) -> bool {
        if self.bell.is_none() {
            self.bell = Bell::of_this_thread();
        }
        self.bell.is_some()
    }

    /// Returns the waker that was there before.
    fn add(&mut self, socket: Weak<dyn AsFd + Send + Sync>, interest: Interest, waker: Waker) -> Option<Waker> {
        let known = self.entries.iter_mut().find(|entry| std::ptr::addr_eq(entry.socket.as_ptr(), socket.as_ptr()));
        match (known, interest) {
            (Some(entry), Interest::Read) => entry.read.replace(waker),
            (Some(entry), Interest::Write) => entry.write.replace(waker),
            (None, interest) => {
                let mut entry = Entry { socket, read: None, write: None };
                match interest {
                    Interest::Read => entry.read = Some(waker),
                    Interest::Write => entry.write = Some(waker),
                }
                self.entries.push(entry);
                None
            }
        }
    }

    /// Sleeps until a socket is ready or the bell rings, or so long, or for no reason less. Returns the wakers of what is
    /// ready, and forgets them: they ask again, so a socket that stays ready does not wake those who do not look at it.
    pub(crate) fn sleep(&mut self, bell: &Bell, most: Duration) -> Vec<Waker> {
        let mut sockets = Vec::with_capacity(self.entries.len());
        self.entries.retain(|entry| match entry.socket.upgrade() {
            Some(socket) if !entry.flags().is_empty() => {
                sockets.push(socket);
                true
            }
            _ => false,
        });
        let mut fds = Vec::with_capacity(sockets.len() + 1);
        fds.push(PollFd::new(&bell.0, PollFlags::IN));
        let wanted = sockets.iter().zip(&self.entries);
        fds.extend(wanted.map(|(socket, entry)| PollFd::from_borrowed_fd(socket.as_fd(), entry.flags())));
        let slept = poll(&mut fds, Timespec::try_from(most).ok().as_ref());
        let failed = slept.is_err_and(|error| error != Errno::INTR);
        let mut ready = fds.iter().map(|fd| if failed { PollFlags::ERR } else { fd.revents() });
        if ready.next().is_some_and(|rung| !rung.is_empty()) {
            bell.silence();
        }
        self.entries.iter_mut().zip(ready).flat_map(|(entry, ready)| entry.take(ready)).collect()
    }
}

/// Has a wait's sockets where its future finds them, for as long as it lives, in place of those of the wait around it.
struct Asked<'a> {
    watched: &'a mut Watched,
    around: Option<Watched>,
}

impl<'a> Asked<'a> {
    fn begin(watched: &'a mut Watched) -> Self {
        let around = POLLED.try_with(|polled| polled.replace(Some(std::mem::take(watched)))).ok().flatten();
        Self { watched, around }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Ok(Some(watched)) = POLLED.try_with(|polled| polled.replace(self.around.take())) {
            *self.watched = watched;
        }
    }
}

/// Ends a thread's sleep in front of its sockets.
#[derive(Clone)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    /// None where there can be no further file descriptor, or the thread is about to end.
    fn of_this_thread() -> Option<Self> {
        let make = |bell: &mut Option<Self>| {
            if bell.is_none() {
                let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
                *bell = Some(Self(Arc::new(fd)));
            }
            bell.clone()
        };
        BELL.try_with(|bell| make(&mut bell.borrow_mut())).ok().flatten()
    }

    pub(crate) fn ring(&self) {
        // It fails only when it has been rung so often that it is still to be heard.
        let _rung = write(&self.0, &1_u64.to_ne_bytes());
    }

    fn silence(&self) {
        // It fails only when it has not been rung.
        let _count = read(&self.0, &mut [0_u8; 8]);
    }
}
