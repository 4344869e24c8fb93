//! The schema: its tables and functions, and how they come to be.
//!
//! Each version is a list of SQL files that is run once, in one transaction, under a lock of the database: two processes
//! that start at the same moment migrate once. A later version only adds files; what was released is never edited.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::FutureExt;
use litefleet::Error;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use crate::config::{PostgresConfig, server_millis};
use crate::error::{Fault, Outcome};
use crate::wire::column;

/// What each version adds to the one before.
const MIGRATIONS: &[&[&str]] = &[&[
    include_str!("sql/01_tables.sql"),
    include_str!("sql/02_sessions.sql"),
    include_str!("sql/03_fence.sql"),
    include_str!("sql/04_commit.sql"),
    include_str!("sql/05_lease.sql"),
    include_str!("sql/06_open.sql"),
    include_str!("sql/07_read.sql"),
    include_str!("sql/08_write.sql"),
    include_str!("sql/09_collect.sql"),
    include_str!("sql/10_names.sql"),
    include_str!("sql/11_locks.sql"),
    include_str!("sql/12_plans.sql"),
]];

/// The tables that are divided by `page_partitions`.
const DIVIDED: [&str; 2] = ["log", "pages"];

/// The number of the lock that is held while a schema is made or migrated. $1 is its name.
const LOCK: &str = "hashtextextended('litefleet.migrate.' || $1, 0)";

/// How long migrating may take, once it has begun.
const WORK: Duration = Duration::from_secs(600);

/// The oldest server that has all that is used.
const OLDEST_SERVER: i32 = 140_000;

/// Checks the schema, and makes or migrates it where that is needed and allowed.
pub(crate) async fn prepare(client: &mut Client, config: &PostgresConfig) -> Outcome<()> {
    let schema = &config.schema;
    let newest = MIGRATIONS.len();
    let look = async {
        check_server(client).await?;
        version(client, config).await
    };
    let found = within(config.call_timeout, look).await?;
    if found == newest {
        return Ok(());
    }
    if found > newest {
        return Err(Error::invalid(format!(
            "the schema {schema} is at version {found}, and this program knows versions up to {newest}: use a newer program"
        ))
        .into());
    }
    let advice = "connect once with migrate=on and a role that may";
    match (config.migrate, found) {
        (true, _) => migrate(client, config).boxed().await,
        (false, 0) => Err(Error::not_found(format!(
            "the schema {schema} does not exist, and migrate=off: {advice} create it, or name another with schema="
        ))
        .into()),
        (false, _) => Err(Error::invalid(format!(
            "the schema {schema} is at version {found} of {newest}, and migrate=off: {advice} change it"
        ))
        .into()),
    }
}

/// Waits for an answer so long.
async fn within<T>(limit: Duration, call: impl Future<Output = Outcome<T>> + Send) -> Outcome<T> {
    timeout(limit, call.boxed()).await.unwrap_or(Err(Fault::Silent(limit)))
}

async fn check_server(client: &Client) -> Outcome<()> {
    const QUESTION: &str = "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding')";
    let rows = client.query_typed(QUESTION, &[]).await?;
    let row = rows.first().ok_or(Fault::Malformed("no row"))?;
    let (number, encoding): (i32, String) = (column(row, 0)?, column(row, 1)?);
    if number < OLDEST_SERVER {
        return Err(Error::invalid(format!("Postgres 14 or newer is needed, this server is {number}")).into());
    }
    if encoding != "UTF8" {
        return Err(Error::invalid(format!(
            "the database's encoding is {encoding}: names need UTF8, as CREATE DATABASE … ENCODING 'UTF8' makes it"
        ))
        .into());
    }
    Ok(())
}

/// The schema's version; 0 when there is none.
async fn version(client: &Client, config: &PostgresConfig) -> Outcome<usize> {
    // By the catalogue's rows: `to_regclass` may answer from a cache that is not refreshed within a transaction.
    const QUESTION: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'version')";
    let exists = client.query_typed(QUESTION, &[(&config.schema, Type::TEXT)]).await?;
    if !column::<bool>(exists.first().ok_or(Fault::Malformed("no row"))?, 0)? {
        return Ok(0);
    }
    let rows = client.query_typed(&format!("SELECT version FROM {}.version", config.quoted_schema()), &[]).await?;
    let version: i32 = rows.first().map_or(Ok(0), |row| column(row, 0))?;
    usize::try_from(version).map_err(|_| Fault::Malformed("a version below zero"))
}

async fn migrate(client: &mut Client, config: &PostgresConfig) -> Outcome<()> {
    let limit = config.call_timeout;
    let transaction = within(limit, async { Ok(client.transaction().await?) }).await?;
    let locked = within(limit.saturating_mul(2), lock(&transaction, config)).await;
    if let Err(Fault::Server(error)) = &locked
        && *error.code() == SqlState::LOCK_NOT_AVAILABLE
    {
        within(limit, async { Ok(transaction.rollback().await?) }).await?;
        return Err(within(limit, busy(client, config)).await?.into());
    }
    locked?;
    within(WORK, apply(transaction, config)).await
}

/// Takes the lock of those that migrate. Also for whatever else is waited for there is a limit from then on.
async fn lock(transaction: &Transaction<'_>, config: &PostgresConfig) -> Outcome<()> {
    transaction
        .batch_execute(&format!("SET LOCAL lock_timeout = {}", server_millis(config.call_timeout).max(1)))
        .await?;
    // Until the end of the transaction, so that it works through a pooler too.
    let lock = format!("SELECT pg_advisory_xact_lock({LOCK})");
    transaction.query_typed(&lock, &[(&config.schema, Type::TEXT)]).await?;
    Ok(())
}

/// Who has the lock.
async fn busy(client: &Client, config: &PostgresConfig) -> Outcome<Error> {
    let question = format!(
        "SELECT l.pid, concat_ws(', ', 'user ' || a.usename, 'application ' || a.application_name, \
            'from ' || host(a.client_addr), a.state, 'its transaction began ' || a.xact_start) \
        FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
            AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) \
            AND (l.classid::bigint << 32 | l.objid::bigint) = {LOCK}"
    );
    let rows = client.query_typed(&question, &[(&config.schema, Type::TEXT)]).await?;
    let who = match rows.first() {
        Some(row) => {
            let (pid, more): (i32, String) = (column(row, 0)?, column(row, 1)?);
            format!("process {pid} of the server ({more}); if it hangs, end it with pg_terminate_backend({pid})")
        }
        None => "somebody who has just finished".to_owned(),
    };
    let (schema, limit) = (&config.schema, config.call_timeout);
    Ok(Error::unavailable(format!(
        "the schema {schema} has been locked for longer than {limit:?} by another process that makes or migrates it: {who}"
    )))
}

/// Runs what is missing.
async fn apply(transaction: Transaction<'_>, config: &PostgresConfig) -> Outcome<()> {
    let (schema, quoted) = (&config.schema, config.quoted_schema());
    let found = version(transaction.client(), config).await?;
    for (done, files) in MIGRATIONS.iter().enumerate().skip(found) {
        let mut script = String::new();
        // One that is there is used by roles that may create none.
        if done == 0 && !exists(transaction.client(), schema).await? {
            let _written = writeln!(script, "CREATE SCHEMA {quoted};");
        }
        for file in *files {
            script.push_str(&file.replace("{schema}", &quoted).replace("{partition}", partition(config)));
        }
        if done == 0 {
            script.push_str(&storage(config));
            let partitions = config.page_partitions;
            let _written =
                writeln!(script, "INSERT INTO {quoted}.version (version, partitions) VALUES (1, {partitions});");
        } else {
            let _written = writeln!(script, "UPDATE {quoted}.version SET version = {};", done + 1);
        }
        transaction.batch_execute(&script).await?;
        tracing::info!(schema, version = done + 1, "schema migrated");
    }
    Ok(transaction.commit().await?)
}

async fn exists(client: &Client, schema: &str) -> Outcome<bool> {
    const QUESTION: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = $1)";
    let rows = client.query_typed(QUESTION, &[(&schema, Type::TEXT)]).await?;
    column(rows.first().ok_or(Fault::Malformed("no row"))?, 0)
}

fn partition(config: &PostgresConfig) -> &'static str {
    if config.page_partitions > 1 { "PARTITION BY HASH (database)" } else { "" }
}

/// The partitions, and the settings that can only be made on tables that have rows.
fn storage(config: &PostgresConfig) -> String {
    let schema = config.quoted_schema();
    let mut script = String::new();
    for table in DIVIDED {
        let column = if table == "log" { "record" } else { "bytes" };
        let mut leaves = Vec::new();
        if config.page_partitions > 1 {
            for number in 0..config.page_partitions {
                let leaf = format!("{schema}.{table}_{number}");
                let _written = writeln!(
                    script,
                    "CREATE TABLE {leaf} PARTITION OF {schema}.{table} FOR VALUES WITH (MODULUS {}, REMAINDER {number});",
                    config.page_partitions
                );
                leaves.push(leaf);
            }
        } else {
            leaves.push(format!("{schema}.{table}"));
        }
        for leaf in leaves {
            let _written = writeln!(
                script,
                "ALTER TABLE {leaf} ALTER COLUMN {column} SET STORAGE EXTERNAL; \
                 ALTER TABLE {leaf} SET (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0.05, \
                 autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.2);"
            );
        }
    }
    script
}
