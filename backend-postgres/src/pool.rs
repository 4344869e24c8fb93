//! The connections, and how a call uses one.
//!
//! A call has a connection for itself while it runs: on the server, statements of one connection run one after the other,
//! and a commit must not stand behind a long read. Sessions have a connection of their own besides, so that a renewal
//! never waits for a free one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, join_all};
use rand::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::PostgresConfig;
use crate::connect::connect;
use crate::error::{Fault, Outcome};
use crate::statements::{Call, Statements};
use crate::wire::Param;

/// How often a call that was in another's way is tried again at once.
const TRIES: usize = 6;
/// How long to wait for a connection to come back when the server takes no more.
const CROWDED: Duration = Duration::from_millis(5);
/// A connection that was not needed for so long is closed.
const IDLE: Duration = Duration::from_secs(300);

/// An open connection.
struct Connection {
    client: Client,
    prepared: HashMap<Call, Statement>,
    used: Instant,
}

/// The connections of one sort of work.
pub(crate) struct Pool {
    config: Arc<PostgresConfig>,
    tls: Option<MakeRustlsConnect>,
    statements: Arc<Statements>,
    size: usize,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("size", &self.size).field("idle", &self.idle().len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("prepared", &self.prepared.len()).finish_non_exhaustive()
    }
}

/// A connection in use. It goes back to the pool unless it is dropped.
struct InUse {
    connection: Connection,
    /// Whether it was used before: then the server may have closed it since.
    reused: bool,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(
        config: Arc<PostgresConfig>,
        tls: Option<MakeRustlsConnect>,
        statements: Arc<Statements>,
        size: usize,
    ) -> Self {
        Self { config, tls, statements, size, permits: Arc::new(Semaphore::new(size)), idle: Mutex::default() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls a function of the schema. Its effect, if it has one, must be the same when it is called twice.
    pub(crate) async fn call(&self, call: Call, params: &[Param]) -> Outcome<Vec<Row>> {
        self.run(call, params, true).await
    }

    /// As [`call`](Self::call), but a lost answer is reported, never tried again.
    pub(crate) async fn call_once(&self, call: Call, params: &[Param]) -> Outcome<Vec<Row>> {
        self.run(call, params, false).await
    }

    async fn run(&self, call: Call, params: &[Param], repeatable: bool) -> Outcome<Vec<Row>> {
        let deadline = Instant::now() + self.config.call_timeout;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut in_use = self.acquire(deadline).await?;
            let answer = timeout_at(deadline, in_use.connection.ask(&self.statements, call, params)).await;
            let fault = match answer {
                Ok(Ok(rows)) => {
                    self.give_back(in_use.connection);
                    return Ok(rows);
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::Silent(self.config.call_timeout),
            };
            // The server was restarted, or failed over, since the connection was used last: the others are as dead.
            let stale = in_use.reused && fault.ends_connection() && !matches!(fault, Fault::Silent(_));
            if fault.is_read_only() {
                self.idle().clear();
            } else if stale {
                self.idle().retain(|connection| !connection.client.is_closed());
            }
            if !fault.ends_connection() {
                self.give_back(in_use.connection);
            }
            if fault.is_passing() && tries < TRIES {
                let pause = rand::rng().random_range(1..=2_u64 << tries);
                sleep(Duration::from_millis(pause)).await;
                continue;
            }
            if stale && (repeatable || !fault.leaves_doubt()) && tries <= self.size {
                continue;
            }
            return Err(fault);
        }
    }

    async fn acquire(&self, deadline: Instant) -> Outcome<InUse> {
        let busy = |_| Fault::Busy(self.size, self.config.call_timeout);
        let permit = timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await.map_err(busy)?;
        let permit = permit.map_err(|_| Fault::Malformed("the pool is closed"))?;
        loop {
            if let Some(connection) = self.take_idle() {
                return Ok(InUse { connection, reused: true, _permit: permit });
            }
            match timeout_at(deadline, self.open()).await {
                Ok(Ok(connection)) => return Ok(InUse { connection, reused: false, _permit: permit }),
                // The server takes no more: wait for one of those that we have.
                Ok(Err(Fault::Crowded(_))) if self.others_are_in_use() && Instant::now() + CROWDED < deadline => {
                    sleep(CROWDED).await;
                }
                Ok(Err(fault)) => return Err(fault),
                Err(_) => {
                    return Err(Fault::Connect {
                        message: format!("no connection to Postgres within {:?}", self.config.call_timeout),
                        kind: litefleet::ErrorKind::Unavailable,
                    });
                }
            }
        }
    }

    /// Whether anybody but the caller, who has a permit, uses a connection or is about to.
    fn others_are_in_use(&self) -> bool {
        self.size.saturating_sub(self.permits.available_permits()) > 1
    }

    /// The one that was used last, so that those that are not needed grow old.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(connection) = idle.pop() {
            if !connection.client.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn give_back(&self, mut connection: Connection) {
        if connection.client.is_closed() {
            return;
        }
        connection.used = Instant::now();
        let mut idle = self.idle();
        idle.push(connection);
        let old = idle.iter().take_while(|connection| connection.used.elapsed() > IDLE).count();
        idle.drain(..old);
    }

    /// Boxed, as [`Connection::ask`] is: the compiler cannot see through these futures that they may change threads.
    fn open(&self) -> BoxFuture<'_, Outcome<Connection>> {
        self.open_now().boxed()
    }

    async fn open_now(&self) -> Outcome<Connection> {
        let connected = connect(&self.config, self.tls.as_ref()).await?;
        let mut connection = Connection { client: connected.client, prepared: HashMap::new(), used: Instant::now() };
        if connected.prepares {
            connection.prepare(&self.statements).await?;
        }
        Ok(connection)
    }

    /// A connection of one's own, for what takes several statements.
    pub(crate) async fn client(&self) -> Outcome<Client> {
        Ok(connect(&self.config, self.tls.as_ref()).await?.client)
    }
}

impl Connection {
    /// Prepares what is used often, all at once.
    async fn prepare(&mut self, statements: &Statements) -> Outcome<()> {
        let mut waiting = Vec::new();
        for call in Call::OFTEN {
            let text = statements.of(*call);
            waiting.push(self.client.prepare_typed(&text.text, text.types));
        }
        let prepared = join_all(waiting).await;
        for (call, statement) in Call::OFTEN.iter().zip(prepared) {
            self.prepared.insert(*call, statement?);
        }
        Ok(())
    }

    /// One round trip, prepared or not.
    fn ask<'a>(
        &'a mut self,
        statements: &'a Statements,
        call: Call,
        params: &'a [Param],
    ) -> BoxFuture<'a, Outcome<Vec<Row>>> {
        self.ask_now(statements, call, params).boxed()
    }

    async fn ask_now(&mut self, statements: &Statements, call: Call, params: &[Param]) -> Outcome<Vec<Row>> {
        if let Some(statement) = self.prepared.get(&call) {
            let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|(value, _)| &**value as _).collect();
            return Ok(self.client.query(statement, &params).await?);
        }
        let params: Vec<(&(dyn ToSql + Sync), Type)> =
            params.iter().map(|(value, of)| (&**value as _, of.clone())).collect();
        Ok(self.client.query_typed(&statements.of(call).text, &params).await?)
    }
}
