//! Waits for sockets that nobody but the waiting thread looks at.
//!
//! The futures here are polled only when their own waker was woken, as by combinators that hold many: that the thread polls
//! again after a while helps none of them, and one that is forgotten runs into the limit.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Wake;
use std::thread;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::*;
use crate::store::sockets::{Interest, wake_when_ready};

const LIMIT: Duration = Duration::from_secs(60);

/// Passes wake-ups on, and remembers them.
struct Remembered {
    woken: AtomicBool,
    outer: Mutex<Waker>,
}

impl Wake for Remembered {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.outer.lock().unwrap().wake_by_ref();
    }
}

/// Polls only when it was woken.
async fn when_woken<F: Future>(future: F) -> F::Output {
    let outer = Mutex::new(Waker::noop().clone());
    let remembered = Arc::new(Remembered { woken: AtomicBool::new(true), outer });
    let waker = Waker::from(Arc::clone(&remembered));
    let mut future = pin!(future);
    poll_fn(move |context| {
        remembered.outer.lock().unwrap().clone_from(context.waker());
        if !remembered.woken.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

/// Two ends; only ours does not block.
fn pair() -> (Arc<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Arc::new(ours), theirs)
}

/// Does it when it does not block; says when the thread was asked to look, and stops where it will not.
async fn act(
    socket: &Arc<UnixStream>,
    interest: Interest,
    asked: &Sender<()>,
    mut act: impl FnMut(&UnixStream) -> io::Result<usize>,
) -> io::Result<usize> {
    let done = when_woken(poll_fn(|context| match act(socket) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            assert!(wake_when_ready(socket, interest, context.waker()), "the thread will not look");
            asked.send(()).unwrap();
            Poll::Pending
        }
        done => Poll::Ready(done),
    }));
    timeout(LIMIT, done).await.expect("the thread did not look")
}

async fn read(socket: &Arc<UnixStream>, asked: &Sender<()>) -> io::Result<usize> {
    act(socket, Interest::Read, asked, |mut socket| socket.read(&mut [0; 100])).await
}

/// On a thread that does so much once the other was asked so often.
fn then(asked: Receiver<()>, times: usize, act: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        (0..times).for_each(|_| asked.recv().unwrap());
        act();
    })
}

#[test]
fn a_thread_looks_at_the_socket_it_waits_for() {
    let bridge = Bridge::start(1).unwrap();
    let (ours, mut theirs) = pair();
    let (asks, asked) = channel();
    let writer = then(asked, 1, move || {
        theirs.write_all(b"answer").unwrap();
        drop(theirs);
    });
    let ends = bridge.wait(async { (read(&ours, &asks).await.unwrap(), read(&ours, &asks).await.unwrap()) });
    assert_eq!(ends, (6, 0));
    writer.join().unwrap();
}

/// They are ready in another order than they asked in, and a timer and a message of another thread come in between.
#[test]
fn of_several_sockets_each_wakes_its_own_future() {
    let bridge = Bridge::start(1).unwrap();
    let ((one, mut to_one), (two, mut to_two), (three, mut to_three)) = (pair(), pair(), pair());
    let (asks, asked) = channel();
    let (message, told) = oneshot::channel();
    let writer = then(asked, 3, move || {
        to_three.write_all(b"333").unwrap();
        to_one.write_all(b"1").unwrap();
        message.send(()).unwrap();
        // The last one is written to by the future below.
        drop((to_one, to_three));
    });
    let last = async {
        when_woken(told).await.unwrap();
        when_woken(sleep(Duration::from_millis(1))).await;
        to_two.write_all(b"22").unwrap();
    };
    let (one, two, three, ()) =
        bridge.wait(async { tokio::join!(read(&one, &asks), read(&two, &asks), read(&three, &asks), last) });
    assert_eq!((one.unwrap(), two.unwrap(), three.unwrap()), (1, 2, 3));
    writer.join().unwrap();
}

#[test]
fn a_socket_that_can_be_written_to_again_wakes_its_thread() {
    let bridge = Bridge::start(1).unwrap();
    let (ours, mut theirs) = pair();
    let (asks, asked) = channel();
    let reader = then(asked, 1, move || {
        let mut bytes = vec![0; 1 << 20];
        theirs.read_exact(&mut bytes).unwrap();
    });
    let (mut left, mut blocked) = (1 << 20, 0);
    bridge.wait(async {
        // After the first time nobody listens.
        let (ignored, _ignored) = channel();
        while left > 0 {
            let asks = if blocked == 0 { &asks } else { &ignored };
            left -= act(&ours, Interest::Write, asks, |mut socket| {
                let written = socket.write(&vec![0; left]);
                blocked += usize::from(written.is_err());
                written
            })
            .await
            .unwrap();
        }
    });
    assert!(blocked > 0, "it never blocked");
    reader.join().unwrap();
}

/// Whoever waits to write is told as well that nobody reads any more.
#[test]
fn a_socket_that_fails_wakes_its_thread() {
    let bridge = Bridge::start(1).unwrap();
    let (ours, theirs) = pair();
    while (&*ours).write(&[0; 4096]).is_ok() {}
    let (asks, asked) = channel();
    let closer = then(asked, 1, move || drop(theirs));
    let failed = bridge.wait(act(&ours, Interest::Write, &asks, |mut socket| socket.write(&[0])));
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    closer.join().unwrap();
}

/// It is ready all the time, and nobody reads it: the thread must not be woken by it over and over.
#[test]
fn a_socket_that_stays_ready_wakes_once() {
    let mut watched = Watched::default();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"!").unwrap();
    assert!(watched.during(|| wake_when_ready(&ours, Interest::Read, Waker::noop())));
    let bell = watched.bell().unwrap();
    assert_eq!(watched.sleep(&bell, LIMIT).len(), 1);
    assert_eq!(watched.sleep(&bell, Duration::ZERO).len(), 0);
    assert!(watched.bell().is_none(), "there is nothing left to look at");
}

/// The other end is told at once, and a file descriptor of the same number is another's affair.
#[test]
fn a_socket_that_is_dropped_meanwhile_is_closed_and_not_looked_at() {
    let bridge = Bridge::start(1).unwrap();
    let ((dropped, mut to_dropped), (ours, mut theirs)) = (pair(), pair());
    let (asks, asked) = channel();
    let writer = then(asked, 2, move || {
        assert_eq!(to_dropped.read(&mut [0]).unwrap(), 0);
        theirs.write_all(b"!").unwrap();
    });
    let read_on = async {
        let first = timeout(Duration::ZERO, read(&dropped, &asks)).await;
        assert!(first.is_err(), "nobody has written");
        drop(dropped);
        read(&ours, &asks).await
    };
    assert_eq!(bridge.wait(read_on).unwrap(), 1);
    writer.join().unwrap();
}

/// Another wait of the same thread comes in between, and what the outer one waits for becomes ready meanwhile.
#[test]
fn waits_within_waits_look_at_their_own_sockets() {
    let bridge = Bridge::start(1).unwrap();
    let ((outer, mut to_outer), (inner, mut to_inner)) = (pair(), pair());
    let (asks, asked) = channel();
    let writer = then(asked, 2, move || {
        to_outer.write_all(b"!").unwrap();
        to_inner.write_all(b"!!").unwrap();
    });
    let within = async { bridge.wait(read(&inner, &asks)) };
    let (outer, inner) = bridge.wait(async { tokio::join!(read(&outer, &asks), within) });
    assert_eq!((outer.unwrap(), inner.unwrap()), (1, 2));
    writer.join().unwrap();
}

/// Whoever asks where nobody looks is told so, and goes to the runtime.
#[test]
fn only_a_thread_that_waits_looks() {
    let (ours, _theirs) = pair();
    let looks = move || wake_when_ready(&ours, Interest::Read, Waker::noop());
    assert!(!looks());
    let multi = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bridge = Bridge::on(multi.handle().clone()).unwrap();
    let task = async {
        let looks = looks.clone();
        let within = tokio::spawn(async move { looks() });
        (within.await.unwrap(), when_woken(async { 7 }).await)
    };
    assert_eq!(bridge.wait(task), (false, 7));
    assert!(bridge.wait(async { looks() }));
    assert!(!looks(), "the wait is over");
    // On a worker too, before and after another has taken its place.
    let bridge = Arc::new(bridge);
    let worker = async move {
        let inner = async { (looks(), tokio::task::yield_now().await, looks()) };
        (looks(), bridge.wait(inner), looks())
    };
    assert_eq!(multi.block_on(async { tokio::spawn(worker).await.unwrap() }), (false, (true, (), true), false));
}

/// A future that panics leaves nothing behind.
#[test]
fn a_panic_ends_the_looking() {
    let bridge = Bridge::start(1).unwrap();
    let (ours, _theirs) = pair();
    let panics = || bridge.wait(async { panic!("injected {}", wake_when_ready(&ours, Interest::Read, Waker::noop())) });
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    assert!(!wake_when_ready(&ours, Interest::Read, Waker::noop()));
}

/// As of a connection that its thread keeps to its end.
#[test]
fn a_thread_that_ends_can_still_wait() {
    struct AtTheEnd(Bridge, Sender<u32>);

    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let (ours, mut theirs) = pair();
            let wait = async {
                // It may look, or not any more.
                let _looks = wake_when_ready(&ours, Interest::Read, Waker::noop());
                theirs.write_all(b"!").unwrap();
                sleep(Duration::from_millis(1)).await;
                7
            };
            self.1.send(self.0.wait(wait)).unwrap();
        }
    }

    thread_local! {
        static LAST: std::cell::RefCell<Option<AtTheEnd>> = const { std::cell::RefCell::new(None) };
    }

    for waits_before in [false, true] {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            let bridge = Bridge::start(1).unwrap();
            if waits_before {
                bridge.wait(async {});
                LAST.set(Some(AtTheEnd(bridge, sender)));
            } else {
                LAST.set(Some(AtTheEnd(bridge, sender)));
                LAST.with_borrow(|last| last.as_ref().unwrap().0.wait(async {}));
            }
        })
        .join()
        .unwrap();
        assert_eq!(receiver.recv().unwrap(), 7);
    }
}

/// Woken between the poll and the sleep, a thread does not fall asleep; woken in its sleep, it wakes up, whatever it
/// sleeps in front of.
#[test]
fn no_wake_up_is_lost() {
    let (silent, _theirs) = pair();
    for watches in [false, true] {
        let mut wait = Wait::new();
        let waker = Waker::from(Arc::clone(&wait.alarm));
        let (sender, receiver) = channel::<Waker>();
        let other = thread::spawn(move || receiver.into_iter().for_each(Waker::wake));
        for round in 0..2000 {
            let mut context = Context::from_waker(&waker);
            let poll = poll_fn(|_| {
                if watches {
                    wake_when_ready(&silent, Interest::Read, Waker::noop());
                }
                if round % 2 == 0 {
                    sender.send(waker.clone()).unwrap();
                } else {
                    waker.wake_by_ref();
                }
                Poll::<()>::Pending
            });
            assert!(wait.poll(pin!(poll), &mut context).is_pending());
            // It ends by the wake-up alone: the rest of the time would be years.
            wait.sleep(Duration::from_secs(1 << 30));
        }
        drop(sender);
        other.join().unwrap();
    }
}
