//! The connections, and how a call uses one.
//!
//! A call has a connection for itself while it runs: on the server, statements of one connection run one after the other,
//! and a commit must not stand behind a long read. Sessions have a connection of their own besides, so that a renewal
//! never waits for a free one; where the server takes no more, it is one of those that the calls have already. A connection
//! whose call was given up counts as long as the server has not answered (`unanswered.rs`).

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, join, try_join_all};
use litefleet::store::deadline;
use rand::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{FOREVER, PostgresConfig, server_millis};
use crate::connect::connect;
use crate::error::{Fault, Outcome};
use crate::link::Link;
use crate::statements::{Call, Statements};
use crate::unanswered::Unanswered;
use crate::wire::Param;

/// For how long a call is tried at least, however little its caller waits: longer than the server waits for a lock, twice, so
/// that a commit that meets one is known to be undone, and not in doubt.
const SHORTEST: Duration = Duration::from_secs(3);
/// How long the server waits for a lock, where nobody has set it. That counts for each wait by itself, and there are two for a row
/// that somebody has locked and another waits for already.
pub(crate) const LOCK_TIMEOUT: &str = "1200ms";
/// How often a call that was in another's way is tried again at once.
const TRIES: usize = 6;
/// How long to wait for a connection to come back when the server takes no more.
const CROWDED: Duration = Duration::from_millis(5);
/// A connection that was not needed for so long is closed.
const IDLE: Duration = Duration::from_secs(300);

/// On a connection that leads to the server itself: what the schema's functions ask for, `commit` first of all
/// (`schema/sql/12_plans.sql`), so that the frequent statements need no function around them; what the statements rely on,
/// which the server may be told to change while the connection is open; and warnings, by one of which a commit is known that
/// did not wait for its standby.
const SETTINGS: &str = "SET plan_cache_mode = force_generic_plan; SET jit = off; SET enable_seqscan = off; \
    SET enable_hashjoin = off; SET enable_mergejoin = off; SET default_transaction_isolation = 'read committed'; \
    SET client_min_messages = warning;";

/// All that is set on such a connection.
pub(crate) fn settings(config: &PostgresConfig) -> String {
    let mut settings = SETTINGS.to_owned();
    settings.push_str(&unless_set("lock_timeout", LOCK_TIMEOUT));
    if config.statement_timeout.is_none() {
        // Nobody waits any longer, so the server need not go on. It does not end the wait of a commit for its standbys.
        let most = server_millis(config.call_timeout).max(1).to_string();
        settings.push_str(&unless_set("statement_timeout", &most));
    }
    settings
}

/// A time-out where none is set, for the role or in the URL's options: what somebody has set stays.
fn unless_set(name: &str, value: &str) -> String {
    format!(" SELECT set_config('{name}', '{value}', false) WHERE current_setting('{name}') = '0';")
}

/// An open connection.
struct Connection {
    link: Link,
    /// What can be prepared, if anything can.
    prepared: HashMap<Call, Statement>,
    used: Instant,
}

/// What is asked.
enum Asked<'a> {
    This(Call, &'a [Param]),
    /// What suits the connection.
    Suited(&'a Form<'a>),
}

/// What came of a call.
pub(crate) struct Answered {
    /// Which it was, in the form that suited the connection.
    pub(crate) call: Call,
    pub(crate) rows: Vec<Row>,
    /// It was sent before, and that may have taken effect.
    pub(crate) again: bool,
}

/// A call in the form that suits a connection: the `bool` says whether statements are prepared there.
pub(crate) type Form<'a> = dyn Fn(bool) -> (Call, Vec<Param>) + Sync + 'a;

/// The connections of one sort of work.
pub(crate) struct Pool {
    config: Arc<PostgresConfig>,
    tls: Option<MakeRustlsConnect>,
    statements: Arc<Statements>,
    size: usize,
    /// How long to wait for an answer.
    patience: Duration,
    permits: Arc<Semaphore>,
    unanswered: Arc<Unanswered>,
    idle: Mutex<Vec<Connection>>,
    /// Which of several servers was right the last time.
    last: Arc<AtomicUsize>,
    /// Whose connections may be taken over when the server takes no more.
    lender: Option<Arc<Pool>>,
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
    permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(
        config: Arc<PostgresConfig>,
        tls: Option<MakeRustlsConnect>,
        statements: Arc<Statements>,
        size: usize,
        patience: Duration,
        last: Arc<AtomicUsize>,
    ) -> Self {
        let patience = patience.min(config.call_timeout);
        Self {
            config,
            tls,
            statements,
            size,
            patience,
            permits: Arc::new(Semaphore::new(size)),
            unanswered: Unanswered::new(0),
            idle: Mutex::default(),
            last,
            lender: None,
        }
    }

    /// With so many connections more, for the time that calls which were given up have no answer.
    pub(crate) fn with_spare(mut self, spare: usize) -> Self {
        self.unanswered = Unanswered::new(spare);
        self
    }

    /// With another pool, whose connections it may take over when the server takes no more.
    pub(crate) fn with_lender(mut self, lender: &Arc<Self>) -> Self {
        self.lender = Some(Arc::clone(lender));
        self
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls a function of the schema. Its effect, if it has one, must be the same when it is called twice.
    pub(crate) async fn call(&self, call: Call, params: &[Param]) -> Outcome<Vec<Row>> {
        Ok(self.call_knowing(call, params).await?.rows)
    }

    /// As [`call`](Self::call), and says whether it was called twice.
    pub(crate) async fn call_knowing(&self, call: Call, params: &[Param]) -> Outcome<Answered> {
        self.run(Asked::This(call, params), true).await
    }

    /// As [`call`](Self::call), but a lost answer is reported, never tried again: the caller must know that the first request may yet
    /// arrive.
    pub(crate) async fn call_telling(&self, call: Call, params: &[Param]) -> Outcome<Vec<Row>> {
        Ok(self.run(Asked::This(call, params), false).await?.rows)
    }

    /// As [`call`](Self::call), but in the form that suits the connection, and a lost answer is reported, never tried again.
    pub(crate) async fn call_once(&self, form: &Form<'_>) -> Outcome<Answered> {
        self.run(Asked::Suited(form), false).await
    }

    async fn run(&self, asked: Asked<'_>, repeatable: bool) -> Outcome<Answered> {
        let begun = Instant::now();
        let waits = deadline::left().map_or(FOREVER, |left| left.max(SHORTEST));
        let (patience, limit) = (self.patience.min(waits), self.config.call_timeout.min(waits));
        let (mut tries, mut again) = (0, false);
        loop {
            tries += 1;
            let mut in_use = self.acquire(begun, limit).await?;
            let suited;
            let (call, params) = match &asked {
                Asked::This(call, params) => (*call, *params),
                Asked::Suited(form) => {
                    suited = form(!in_use.connection.prepared.is_empty());
                    (suited.0, suited.1.as_slice())
                }
            };
            let answer = timeout(patience, in_use.connection.ask(&self.statements, call, params)).await;
            let fault = match answer {
                Ok(Ok(rows)) => {
                    self.give_back(in_use.connection);
                    return Ok(Answered { call, rows, again });
                }
                Ok(Err(fault)) => fault,
                Err(_) => {
                    // Perhaps no word of the others will ever arrive either: only those are known to be well that answered
                    // since this call began.
                    self.idle().retain(|connection| connection.used > begun);
                    self.unanswered.see_out(in_use.connection.link, in_use.permit);
                    return Err(Fault::Silent(patience));
                }
            };
            // The server was restarted, or failed over, since the connection was used last: the others are as dead.
            let stale = in_use.reused && fault.ends_connection();
            if fault.is_read_only() {
                self.idle().clear();
            } else if stale {
                self.idle().retain_mut(|connection| connection.link.is_alive());
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
                again |= fault.leaves_doubt();
                continue;
            }
            return Err(fault);
        }
    }

    async fn acquire(&self, begun: Instant, limit: Duration) -> Outcome<InUse> {
        let deadline = begun + limit;
        let busy = |_| Fault::Busy { size: self.size, limit, unanswered: self.unanswered.count() };
        let permit = timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await.map_err(busy)?;
        let permit = permit.map_err(|_| Fault::Malformed("the pool is closed"))?;
        loop {
            if let Some(connection) = self.take_idle() {
                return Ok(InUse { connection, reused: true, permit });
            }
            match timeout_at(deadline, self.open(deadline)).await {
                Ok(Ok(connection)) => return Ok(InUse { connection, reused: false, permit }),
                Ok(Err(Fault::Crowded(message))) => {
                    // The server takes no more: one of those that we have must do.
                    if let Some(connection) = self.lender.as_ref().and_then(|lender| lender.take_idle()) {
                        return Ok(InUse { connection, reused: true, permit });
                    }
                    if !self.one_may_come_back() || Instant::now() + CROWDED >= deadline {
                        return Err(Fault::Crowded(message));
                    }
                    sleep(CROWDED).await;
                }
                Ok(Err(fault)) => return Err(fault),
                Err(_) => {
                    return Err(Fault::Connect {
                        message: format!("no connection to Postgres within {limit:?}"),
                        kind: litefleet::ErrorKind::Unavailable,
                    });
                }
            }
        }
    }

    /// Whether anybody but the caller, who has a permit, uses a connection, or has just given it back: that is before its
    /// permit is free again.
    fn one_may_come_back(&self) -> bool {
        self.in_use() > 1
            || !self.idle().is_empty()
            || self.lender.as_ref().is_some_and(|lender| lender.in_use() > 0 || !lender.idle().is_empty())
    }

    /// By calls that somebody waits for.
    fn in_use(&self) -> usize {
        self.size.saturating_sub(self.permits.available_permits() + self.unanswered.in_the_way())
    }

    /// The one that was used last, so that those that are not needed grow old.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(mut connection) = idle.pop() {
            if connection.link.is_alive() {
                return Some(connection);
            }
        }
        None
    }

    /// It is looked at before it is used again.
    fn give_back(&self, mut connection: Connection) {
        connection.used = Instant::now();
        let mut idle = self.idle();
        idle.push(connection);
        let old = idle.iter().take_while(|connection| connection.used.elapsed() > IDLE).count();
        idle.drain(..old);
    }

    /// Boxed, as [`Connection::ask`] is: the compiler cannot see through these futures that they may change threads.
    fn open(&self, deadline: Instant) -> BoxFuture<'_, Outcome<Connection>> {
        self.open_now(deadline).boxed()
    }

    async fn open_now(&self, deadline: Instant) -> Outcome<Connection> {
        let connected = connect(&self.config, self.tls.as_ref(), &self.last, deadline).await?;
        let mut connection = Connection { link: connected.link, prepared: HashMap::new(), used: Instant::now() };
        if connected.prepares {
            connection.prepare(&self.statements, &self.config).await?;
        }
        Ok(connection)
    }

    /// A connection of one's own, for what takes several statements.
    pub(crate) async fn client(&self) -> Outcome<Client> {
        let deadline = Instant::now() + self.config.call_timeout.min(FOREVER);
        Ok(connect(&self.config, self.tls.as_ref(), &self.last, deadline).await?.link.into_client())
    }
}

impl Connection {
    /// Makes the settings, and prepares what is used often, all at once.
    async fn prepare(&mut self, statements: &Statements, config: &PostgresConfig) -> Outcome<()> {
        let settings = settings(config);
        let prepared = self.link.ask(|client| prepare_all(client, statements, settings).boxed()).await?;
        self.prepared = Call::OFTEN.iter().copied().zip(prepared).collect();
        Ok(())
    }

    /// One round trip, prepared or not.
    fn ask<'a>(
        &'a mut self,
        statements: &'a Statements,
        call: Call,
        params: &'a [Param],
    ) -> BoxFuture<'a, Outcome<Vec<Row>>> {
        let prepared = self.prepared.get(&call);
        let asked = self.link.ask(move |client| {
            if let Some(statement) = prepared {
                let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|(value, _)| &**value as _).collect();
                return async move { client.query(statement, &params).await }.boxed();
            }
            let params: Vec<(&(dyn ToSql + Sync), Type)> =
                params.iter().map(|(value, of)| (&**value as _, of.clone())).collect();
            async move { client.query_typed(&statements.of(call).text, &params).await }.boxed()
        });
        async move { Ok(asked.await?) }.boxed()
    }
}

async fn prepare_all(
    client: &Client,
    statements: &Statements,
    settings: String,
) -> Result<Vec<Statement>, tokio_postgres::Error> {
    let prepare = |call: &Call| {
        let text = statements.of(*call);
        client.prepare_typed(&text.text, text.types)
    };
    let (settled, prepared) =
        join(client.batch_execute(&settings), try_join_all(Call::OFTEN.iter().map(prepare))).await;
    settled?;
    prepared
}
