//! A socket that the thread that waits for it looks at itself.
//!
//! It is read and written at once. Where it would block, SQLite's thread is asked to look at it
//! ([`wake_when_ready`]); on a task of the runtime it is registered with the runtime, but only for as long as it is used
//! there, so that what arrives for SQLite's thread wakes no other. A connection is used in both ways, now in one, now in the
//! other.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use litefleet::store::sockets::{Interest, wake_when_ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;

/// At most so much is read at once: what is read into is filled with zeroes before.
const READ: usize = 64 << 10;

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).read(buffer),
            Self::Unix(stream) => (&*stream).read(buffer),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).write(bytes),
            Self::Unix(stream) => (&*stream).write(bytes),
        }
    }

    fn shut_down(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Of the same socket.
    fn register(&self) -> io::Result<Registered> {
        // Without one it would panic.
        Handle::try_current().map_err(io::Error::other)?;
        Ok(match self {
            Self::Tcp(stream) => Box::new(tokio::net::TcpStream::from_std(stream.try_clone()?)?),
            Self::Unix(stream) => Box::new(tokio::net::UnixStream::from_std(stream.try_clone()?)?),
        })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

trait ReadWrite: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> ReadWrite for T {}
type Registered = Box<dyn ReadWrite>;

/// Both directions are polled by one future at a time.
pub(crate) struct Socket {
    stream: Arc<Stream>,
    /// While it is used on the runtime.
    registered: Option<Registered>,
    /// As far as is known nothing is there to be read: the thread is asked first.
    drained: bool,
}

impl Socket {
    pub(crate) fn tcp(stream: tokio::net::TcpStream) -> io::Result<Self> {
        Ok(Self::new(Stream::Tcp(stream.into_std()?)))
    }

    pub(crate) fn unix(stream: tokio::net::UnixStream) -> io::Result<Self> {
        Ok(Self::new(Stream::Unix(stream.into_std()?)))
    }

    fn new(stream: Stream) -> Self {
        Self { stream: Arc::new(stream), registered: None, drained: false }
    }

    /// Asks the thread that polls this to look at the socket, if it will.
    fn asks_thread(&mut self, context: &Context<'_>, interest: Interest) -> bool {
        let will = wake_when_ready(&self.stream, interest, context.waker());
        if will {
            self.registered = None;
        }
        will
    }

    /// The runtime looks at it.
    fn registered(&mut self) -> io::Result<Pin<&mut Registered>> {
        Ok(Pin::new(match &mut self.registered {
            Some(registered) => registered,
            none => none.insert(self.stream.register()?),
        }))
    }
}

/// Nobody is to be woken.
fn only_looks(context: &Context<'_>) -> bool {
    context.waker().will_wake(Waker::noop())
}

fn would_block<T>(done: &io::Result<T>) -> bool {
    done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        let only_looks = only_looks(context);
        if !only_looks {
            let ask_first = std::mem::take(&mut socket.drained) || socket.registered.is_some();
            if ask_first && socket.asks_thread(context, Interest::Read) {
                return Poll::Pending;
            }
            if let Some(registered) = &mut socket.registered {
                return Pin::new(registered).poll_read(context, buffer);
            }
        }
        let into = buffer.initialize_unfilled_to(buffer.remaining().min(READ));
        let done = socket.stream.read(into);
        if would_block(&done) {
            if only_looks {
                socket.drained = true;
            } else if !socket.asks_thread(context, Interest::Read) {
                return socket.registered()?.poll_read(context, buffer);
            }
            return Poll::Pending;
        }
        socket.drained = done.as_ref().is_ok_and(|count| (1..into.len()).contains(count));
        Poll::Ready(done.map(|count| buffer.advance(count)))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let done = socket.stream.write(bytes);
        if !would_block(&done) {
            return Poll::Ready(done);
        }
        if only_looks(context) || socket.asks_thread(context, Interest::Write) {
            return Poll::Pending;
        }
        socket.registered()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.stream.shut_down() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }
}
