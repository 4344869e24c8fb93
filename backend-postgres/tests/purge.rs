//! Removing what deleted databases left.
#![cfg(feature = "servers")]

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use litefleet::ErrorKind;
use litefleet::store::PageStore;
use litefleet_conformance::faults::Process;
use support::writer::Writer;
use support::{connect, fresh_schema, server};

/// A database whose lease went from hand to hand all day has left more ends of epochs than can be removed before the call is
/// given up: each call began with them, and nothing was purged any more.
#[test]
fn a_purge_of_many_ends_of_epochs_goes_step_by_step() {
    let schema = fresh_schema();
    let writer = Writer::new(connect(&server().url(), &schema, |config| config), "a");
    let database = writer.database.get();
    server().sql(&format!(
        "INSERT INTO {schema}.epoch_ends SELECT {database}, n + 10, 0, gen_random_uuid(), now() FROM generate_series(1, 1000) n; \
         INSERT INTO {schema}.checkpoints SELECT {database}, n, 0 FROM generate_series(1, 1000) n; \
         INSERT INTO {schema}.staged SELECT {database}, 1, n, '{{}}' FROM generate_series(1, 1000) n"
    ));
    writer.runtime.block_on(writer.store.delete(writer.database, writer.epoch)).unwrap();
    let (mut removed, mut calls) = (0, 0);
    loop {
        let purged = writer.runtime.block_on(writer.store.purge(100)).unwrap();
        assert!(purged.removed <= 100, "{} at once", purged.removed);
        removed += purged.removed;
        calls += 1;
        if purged.done {
            break;
        }
        assert!(calls < 100, "it comes to an end");
    }
    assert!(removed >= 3000, "{removed}");
    let left = format!(
        "SELECT (SELECT count(*) FROM {schema}.epoch_ends) + (SELECT count(*) FROM {schema}.checkpoints) \
         + (SELECT count(*) FROM {schema}.staged) + (SELECT count(*) FROM {schema}.condemned)"
    );
    assert_eq!(server().sql(&left), "0");
}

/// Beside another purge, which had all that was left in its hands, one said that nothing was left.
#[test]
fn a_purge_beside_another_is_not_done() {
    let schema = fresh_schema();
    let store = Arc::new(connect(&server().url(), &schema, |config| config));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    server().sql(&format!("INSERT INTO {schema}.condemned VALUES (7)"));
    let (other, connection) =
        runtime.block_on(tokio_postgres::connect(&server().url(), tokio_postgres::NoTls)).unwrap();
    runtime.spawn(connection);
    runtime.block_on(other.batch_execute(&format!("BEGIN; SELECT FROM {schema}.condemned FOR UPDATE"))).unwrap();
    assert!(!runtime.block_on(store.purge(100)).unwrap().done, "the other may yet fail");
    // Whoever waits for it waits no longer than they say, and only for as long as they like.
    let mut settings = Process::small();
    settings.database.store_timeout = Duration::from_millis(200);
    let process = Process::new(Arc::clone(&store) as Arc<dyn PageStore>, settings);
    let error = process.fleet().purge(&mut |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(process.fleet().purge(&mut |_| ControlFlow::Break(())).unwrap(), 0);
    runtime.block_on(other.batch_execute("ROLLBACK")).unwrap();
    assert!(runtime.block_on(store.purge(100)).unwrap().done);
}
