//! The schema: its tables and functions, and how they come to be.
//!
//! Each version is a list of SQL files that is run once, in one transaction, under a lock of the database: two processes
//! that start at the same moment migrate once. A later version only adds files; what was released is never edited.

use std::fmt::Write as _;

use futures_util::future::FutureExt;
use litefleet::Error;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::config::PostgresConfig;
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
    include_str!("sql/11_plans.sql"),
]];

/// The tables that are divided by `page_partitions`.
const DIVIDED: [&str; 2] = ["log", "pages"];

/// The oldest server that has all that is used.
const OLDEST_SERVER: i32 = 140_000;

/// Checks the schema, and makes or migrates it where that is needed and allowed.
pub(crate) async fn prepare(client: &mut Client, config: &PostgresConfig) -> Outcome<()> {
    check_server(client).await?;
    let schema = &config.schema;
    let newest = MIGRATIONS.len();
    let found = version(client, schema).await?;
    if found == newest {
        return Ok(());
    }
    if found > newest {
        return Err(Error::invalid(format!(
            "the schema {schema} is at version {found}, and this program knows versions up to {newest}: use a newer program"
        ))
        .into());
    }
    if !config.migrate {
        return Err(Error::invalid(format!(
            "the schema {schema} {}, and migrate=off: connect once with migrate=on and a role that may create it",
            if found == 0 { "does not exist".to_owned() } else { format!("is at version {found} of {newest}") }
        ))
        .into());
    }
    migrate(client, config).boxed().await
}

async fn check_server(client: &Client) -> Outcome<()> {
    const QUESTION: &str =
        "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding')";
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
async fn version(client: &Client, schema: &str) -> Outcome<usize> {
    // By the catalogue's rows: `to_regclass` may answer from a cache that is not refreshed within a transaction.
    const QUESTION: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'version')";
    let exists = client.query_typed(QUESTION, &[(&schema, Type::TEXT)]).await?;
    if !column::<bool>(exists.first().ok_or(Fault::Malformed("no row"))?, 0)? {
        return Ok(0);
    }
    let rows = client.query_typed(&format!("SELECT version FROM {schema}.version"), &[]).await?;
    let version: i32 = rows.first().map_or(Ok(0), |row| column(row, 0))?;
    usize::try_from(version).map_err(|_| Fault::Malformed("a version below zero"))
}

async fn migrate(client: &mut Client, config: &PostgresConfig) -> Outcome<()> {
    let schema = &config.schema;
    let transaction = client.transaction().await?;
    // Until the end of the transaction, so that it works through a pooler too.
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('litefleet.migrate.' || $1, 0))";
    transaction.query_typed(lock, &[(schema, Type::TEXT)]).await?;
    let found = version(transaction.client(), schema).await?;
    for (done, files) in MIGRATIONS.iter().enumerate().skip(found) {
        let mut script = String::new();
        if done == 0 {
            let _written = writeln!(script, "CREATE SCHEMA IF NOT EXISTS {schema};");
        }
        for file in *files {
            script.push_str(&file.replace("{schema}", schema).replace("{partition}", partition(config)));
        }
        if done == 0 {
            script.push_str(&storage(config));
            let partitions = config.page_partitions;
            let _written =
                writeln!(script, "INSERT INTO {schema}.version (version, partitions) VALUES (1, {partitions});");
        } else {
            let _written = writeln!(script, "UPDATE {schema}.version SET version = {};", done + 1);
        }
        transaction.batch_execute(&script).await?;
        tracing::info!(schema, version = done + 1, "schema migrated");
    }
    Ok(transaction.commit().await?)
}

fn partition(config: &PostgresConfig) -> &'static str {
    if config.page_partitions > 1 { "PARTITION BY HASH (database)" } else { "" }
}

/// The partitions, and the settings that can only be made on tables that have rows.
fn storage(config: &PostgresConfig) -> String {
    let schema = &config.schema;
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
