//! Commits as the store sends them, and nothing of an engine: what of their time is the server's.

use bytes::Bytes;
use litefleet::store::CommitRequest;
use litefleet::{CommitId, DatabaseId, Epoch, Txid};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

use crate::config::PostgresConfig;
use crate::pool::settings;
use crate::statements::{Call, Statements};
use crate::store::scalars;
use crate::wire::number;

/// A database without a name, and the statement that commits to it, prepared on one connection.
#[derive(Debug)]
pub struct BareCommits {
    client: Client,
    statement: Statement,
    database: DatabaseId,
    txid: Txid,
    last: CommitId,
}

impl BareCommits {
    /// Makes the database in the schema of a store that is there, and the connection what the store makes its own.
    pub async fn start(client: Client, config: &PostgresConfig) -> Result<Self, Error> {
        client.batch_execute(&settings(config)).await?;
        let schema = config.quoted_schema();
        let make = format!(
            "INSERT INTO {schema}.heads (id, epoch, holder) VALUES (nextval('{schema}.database_ids'), 1, gen_random_uuid()) \
             RETURNING id"
        );
        let id: i64 = client.query_one(&make, &[]).await?.try_get(0)?;
        let statements = Statements::new(&schema);
        let text = statements.of(Call::CommitOne);
        let statement = client.prepare_typed(&text.text, text.types).await?;
        Ok(Self {
            client,
            statement,
            database: DatabaseId(number(id).unwrap()),
            txid: Txid(0),
            last: CommitId::default(),
        })
    }

    /// The next commit.
    pub async fn commit(&mut self, record: Bytes) -> Result<(), Error> {
        let request = CommitRequest {
            database: self.database,
            epoch: Epoch(1),
            expected: self.txid,
            follows: self.last,
            commit_id: CommitId(rand::random()),
            size: 8192,
            record,
            staged: None,
            release: false,
        };
        let params = scalars(&request);
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|(value, _)| &**value as _).collect();
        let done = self.client.query(&self.statement, &params).await?;
        assert_eq!(done.len(), 1, "nobody else commits to it");
        (self.txid, self.last) = (self.txid.next(), request.commit_id);
        Ok(())
    }
}
