//! The side that uses a cluster of another process.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{ToClient, ToServer, frame, parse, read_frame};
use crate::cluster::protocol::{Reply, Request};
use crate::code::{self, Code};

/// How long to wait before the next attempt to connect: like the real client, this one tries for ever.
const RECONNECT: Duration = Duration::from_millis(50);

type Replies = HashMap<u64, oneshot::Sender<Result<Reply, Code>>>;

/// Who waits for which reply; `None` when the connection has broken.
type Waiting = Mutex<Option<Replies>>;

#[derive(Debug)]
pub(crate) struct Remote {
    address: SocketAddr,
    connection: tokio::sync::Mutex<Option<Arc<Connection>>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Connection {
    outgoing: UnboundedSender<Vec<u8>>,
    waiting: Arc<Waiting>,
}

/// Tells the server when nobody waits for a request any more.
struct Asked<'a> {
    connection: &'a Connection,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let waited = lock(&self.connection.waiting).as_mut().and_then(|waiting| waiting.remove(&self.id));
        if waited.is_none() {
            return;
        }
        if let Ok(cancel) = frame(&ToServer::Cancel(self.id)) {
            self.connection.outgoing.send(cancel).ok();
        }
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, Option<Replies>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remote {
    pub(crate) fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { address, connection: tokio::sync::Mutex::new(None), next: AtomicU64::new(0) })
    }

    /// One exchange. When the connection breaks, a commit has an unknown result, and everything else is asked again.
    pub(crate) async fn call(&self, request: Request) -> Result<Reply, Code> {
        loop {
            let connection = self.connected().await;
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let (reply, answered) = oneshot::channel();
            if let Some(waiting) = lock(&connection.waiting).as_mut() {
                waiting.insert(id, reply);
            }
            let asked = Asked { connection: &connection, id };
            let message = frame(&ToServer::Request(id, request.clone())).map_err(|_| code::OPERATION_FAILED)?;
            let sent = connection.outgoing.send(message).is_ok();
            if sent && let Ok(answer) = answered.await {
                return answer;
            }
            drop(asked);
            self.disconnect(&connection).await;
            if sent && matches!(request, Request::Commit(_)) {
                return Err(code::COMMIT_UNKNOWN_RESULT);
            }
        }
    }

    async fn connected(&self) -> Arc<Connection> {
        let mut current = self.connection.lock().await;
        if let Some(connection) = &*current {
            return Arc::clone(connection);
        }
        loop {
            if let Ok(stream) = TcpStream::connect(self.address).await {
                stream.set_nodelay(true).ok();
                return Arc::clone(current.insert(connection(stream)));
            }
            sleep(RECONNECT).await;
        }
    }

    async fn disconnect(&self, broken: &Arc<Connection>) {
        let mut current = self.connection.lock().await;
        if current.as_ref().is_some_and(|connection| Arc::ptr_eq(connection, broken)) {
            *current = None;
        }
    }

    /// One exchange on a connection of its own, for callers outside the network thread.
    pub(crate) fn ask(&self, request: Request) -> Result<Reply, Code> {
        self.try_ask(request).unwrap_or(Err(code::OPERATION_FAILED))
    }

    fn try_ask(&self, request: Request) -> std::io::Result<Result<Reply, Code>> {
        let mut stream = std::net::TcpStream::connect(self.address)?;
        stream.write_all(&frame(&ToServer::Request(0, request))?)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::try_from(u32::from_le_bytes(length)).map_err(std::io::Error::other)?];
        stream.read_exact(&mut bytes)?;
        let ToClient(_, reply) = parse(&bytes)?;
        Ok(reply)
    }
}

/// Starts the two tasks of a connection: one writes what is sent, one hands out what comes.
fn connection(stream: TcpStream) -> Arc<Connection> {
    let (mut reader, mut writer) = stream.into_split();
    let (outgoing, mut frames) = unbounded_channel::<Vec<u8>>();
    let waiting = Arc::new(Mutex::new(Some(Replies::new())));
    tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
    });
    let answered = Arc::clone(&waiting);
    tokio::spawn(async move {
        while let Ok(ToClient(id, reply)) = read_frame(&mut reader).await {
            let asked = lock(&answered).as_mut().and_then(|waiting| waiting.remove(&id));
            if let Some(asked) = asked {
                asked.send(reply).ok();
            }
        }
        // Dropping the senders tells those who wait that the connection broke.
        *lock(&answered) = None;
    });
    Arc::new(Connection { outgoing, waiting })
}
