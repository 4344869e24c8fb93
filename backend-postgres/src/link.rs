//! A connection that is driven by whoever waits for its answer.
//!
//! A `tokio_postgres::Connection` is usually given to a task, and then a request and its answer go from thread to thread
//! twice. Here the caller's own future moves the bytes: the request is written on the caller's thread, and the answer wakes
//! it directly. Between calls nobody moves anything; what the server said meanwhile is read before the next one.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Client, Connection};

use crate::error::chain;

type Message = Option<Result<AsyncMessage, tokio_postgres::Error>>;

/// A connection of any sort of socket.
trait Wire: Send {
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Message>;
}

impl<S, T> Wire for Connection<S, T>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Message> {
        Self::poll_message(self, context)
    }
}

/// An open connection, and what can be asked on it.
pub(crate) struct Link {
    client: Client,
    /// None once it has ended: then whoever waits for an answer is told.
    wire: Option<Box<dyn Wire>>,
}

impl Link {
    pub(crate) fn new<S, T>(client: Client, connection: Connection<S, T>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self { client, wire: Some(Box::new(connection)) }
    }

    /// Asks, and moves the bytes until the answer is there.
    pub(crate) async fn ask<'a, T>(&'a mut self, ask: impl FnOnce(&'a Client) -> BoxFuture<'a, T>) -> T {
        let Self { client, wire } = self;
        let mut answer = ask(client);
        poll_fn(|context| {
            // The first time this is what sends the request.
            if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                return Poll::Ready(answer);
            }
            drive(wire, context);
            answer.as_mut().poll(context)
        })
        .await
    }

    /// Whether it can still be used, as far as it has been heard.
    pub(crate) fn is_alive(&mut self) -> bool {
        drive(&mut self.wire, &mut Context::from_waker(Waker::noop()));
        self.wire.is_some() && !self.client.is_closed()
    }

    /// Moves the bytes until the server has answered all that it was asked, or the connection has ended.
    pub(crate) async fn answered(mut self) {
        // An empty statement, behind what was asked: its answer is the last.
        let _answered_or_ended = self.ask(|client| client.batch_execute("").boxed()).await;
    }

    /// For what takes several statements: a task moves the bytes from here on.
    pub(crate) fn into_client(self) -> Client {
        let Self { client, mut wire } = self;
        tokio::spawn(poll_fn(move |context| {
            drive(&mut wire, context);
            if wire.is_some() { Poll::Pending } else { Poll::Ready(()) }
        }));
        client
    }
}

/// Moves what can be moved now.
fn drive(wire: &mut Option<Box<dyn Wire>>, context: &mut Context<'_>) {
    while let Some(connection) = wire {
        match connection.poll_message(context) {
            Poll::Pending => return,
            Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) if gave_up_on_standby(&notice) => {
                // What comes next would look like success. Without it the call is in doubt, and its outcome found out.
                tracing::warn!(notice = notice.message(), "a commit did not wait for its synchronous standby");
                *wire = None;
            }
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(error = %chain(&error), "a connection to Postgres ended");
                *wire = None;
            }
            Poll::Ready(None) => *wire = None,
        }
    }
}

/// Somebody ended a transaction's wait for its synchronous standby, with `pg_cancel_backend` for example: it is committed
/// here, but a failover may lose it. The words are in the server's language; the place in its source is not.
fn gave_up_on_standby(notice: &DbError) -> bool {
    notice.routine() == Some("SyncRepWaitForLSN")
}
