//! A proxy between the client and the server: it counts round trips on the wire, and breaks connections where it hurts.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The connection breaks before the server has it.
    Before,
    /// The connection breaks when the server has answered, before the client has the answer.
    After,
    /// The request goes on, and the answer is held back until [`Proxy::resume`].
    HoldAnswer,
    /// The request is held back until [`Proxy::resume`], and then goes on.
    HoldRequest,
}

#[derive(Debug)]
struct Armed {
    cut: Cut,
    pattern: Vec<u8>,
    /// Requests that match and are let through first.
    skip: u64,
    times: u64,
}

#[derive(Debug, Default)]
struct Shared {
    round_trips: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    armed: Mutex<Vec<Armed>>,
    fired: AtomicU64,
    held: Mutex<bool>,
    freed: Condvar,
    refusing: AtomicBool,
    /// Connections before this one pass nothing on any more.
    silent_before: AtomicU64,
    accepted: AtomicU64,
    closed: AtomicBool,
}

/// A proxy to one server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts a proxy to a port of this machine.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.closed.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(client) = client else { continue };
                if accepting.refusing.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                Link::start(&accepting, &client, &server);
            }
        });
        Self { address, shared }
    }

    /// A URL through the proxy, for the user and the database `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres?sslmode=disable", self.address)
    }

    /// How often the direction has changed: one for each question that was answered, whatever was in it.
    pub fn round_trips(&self) -> u64 {
        self.shared.round_trips.load(Ordering::SeqCst)
    }

    /// Bytes to the server and to the client.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.to_server.load(Ordering::SeqCst), self.shared.to_client.load(Ordering::SeqCst))
    }

    /// Does something to the next requests that have these bytes in them (any, when there are none), after letting some
    /// through. What was armed before comes first.
    pub fn arm(&self, cut: Cut, pattern: &str, skip: u64, times: u64) {
        *self.shared.held.lock().unwrap() = true;
        let armed = Armed { cut, pattern: pattern.as_bytes().to_vec(), skip, times };
        self.shared.armed.lock().unwrap().push(armed);
    }

    /// How often that has happened since the proxy was started.
    pub fn fired(&self) -> u64 {
        self.shared.fired.load(Ordering::SeqCst)
    }

    /// Lets go what is held back, and does nothing more to requests.
    pub fn resume(&self) {
        self.shared.armed.lock().unwrap().clear();
        *self.shared.held.lock().unwrap() = false;
        self.shared.freed.notify_all();
    }

    /// From now on the connections that are open pass nothing on, and nobody is told: as when the way to the server has
    /// changed. New ones work.
    pub fn silence(&self) {
        self.shared.silent_before.store(self.shared.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.resume();
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _woken = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// One connection through the proxy.
struct Link {
    shared: Arc<Shared>,
    number: u64,
    /// Whether the last bytes came from the client.
    asked: AtomicBool,
    /// What is to happen to the next answer.
    answer: Mutex<Option<Cut>>,
    client: TcpStream,
    server: TcpStream,
}

impl Link {
    fn start(shared: &Arc<Shared>, client: &TcpStream, server: &TcpStream) {
        for socket in [client, server] {
            let _slower = socket.set_nodelay(true);
        }
        let (Ok(client), Ok(server)) = (client.try_clone(), server.try_clone()) else { return };
        let link = Arc::new(Self {
            shared: Arc::clone(shared),
            number: shared.accepted.fetch_add(1, Ordering::SeqCst),
            asked: AtomicBool::new(false),
            answer: Mutex::default(),
            client,
            server,
        });
        let other = Arc::clone(&link);
        thread::spawn(move || link.requests());
        thread::spawn(move || other.answers());
    }

    fn close(&self) {
        for socket in [&self.client, &self.server] {
            let _closed = socket.shutdown(Shutdown::Both);
        }
    }

    /// What is to happen to a request with these bytes in it.
    fn fate(&self, bytes: &[u8]) -> Option<Cut> {
        let mut armed = self.shared.armed.lock().unwrap();
        let matches = |armed: &Armed| {
            let length = armed.pattern.len();
            length == 0 || bytes.windows(length).any(|window| window == armed.pattern)
        };
        let place = armed.iter().position(matches)?;
        let found = armed.get_mut(place)?;
        if found.skip > 0 {
            found.skip -= 1;
            return None;
        }
        let cut = found.cut;
        found.times -= 1;
        if found.times == 0 {
            armed.remove(place);
        }
        self.shared.fired.fetch_add(1, Ordering::SeqCst);
        Some(cut)
    }

    fn wait_until_freed(&self) {
        let mut held = self.shared.held.lock().unwrap();
        while *held {
            held = self.shared.freed.wait(held).unwrap();
        }
    }

    fn requests(&self) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count) = (&self.client).read(&mut buffer) {
            let bytes = &buffer[..count];
            if count == 0 {
                break;
            }
            if self.number < self.shared.silent_before.load(Ordering::SeqCst) {
                continue;
            }
            if !self.asked.swap(true, Ordering::SeqCst) {
                self.shared.round_trips.fetch_add(1, Ordering::SeqCst);
            }
            self.shared.to_server.fetch_add(count as u64, Ordering::SeqCst);
            match self.fate(bytes) {
                Some(Cut::Before) => break,
                Some(Cut::HoldRequest) => self.wait_until_freed(),
                cut @ Some(Cut::After | Cut::HoldAnswer) => *self.answer.lock().unwrap() = cut,
                None => {}
            }
            if (&self.server).write_all(bytes).is_err() {
                break;
            }
        }
        self.close();
    }

    fn answers(&self) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count) = (&self.server).read(&mut buffer) {
            if count == 0 {
                break;
            }
            self.asked.store(false, Ordering::SeqCst);
            self.shared.to_client.fetch_add(count as u64, Ordering::SeqCst);
            match *self.answer.lock().unwrap() {
                // Not a byte of it; the server has done it all.
                Some(Cut::After) => break,
                Some(Cut::HoldAnswer) => self.wait_until_freed(),
                _ => {}
            }
            if (&self.client).write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        self.close();
    }
}
