//! Whatever is logged, no password is in it.
#![cfg(feature = "servers")]

mod support;

use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use litefleet::ErrorKind;
use litefleet_postgres::testing::{Server, ServerOptions};
use litefleet_postgres::{PostgresConfig, PostgresStore};
use support::writer::Writer;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

const PASSWORD: &str = "s3cret w0rd";
const IN_URL: &str = "s3cret%20w0rd";

/// All that was logged in this process, at every level, by `tracing` and by `log`, which others use.
static LOGGED: Mutex<String> = Mutex::new(String::new());

fn logged() -> MutexGuard<'static, String> {
    LOGGED.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Fields;

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _written = write!(logged(), " {}={value:?}", field.name());
    }
}

struct All;

impl Subscriber for All {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        attributes.record(&mut Fields);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Fields);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let _written = write!(logged(), "\n{}:", event.metadata().target());
        event.record(&mut Fields);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl log::Log for All {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let _written = write!(logged(), "\n{}: {}", record.target(), record.args());
    }

    fn flush(&self) {}
}

/// Connecting that works and that fails, work, and connections that end.
#[test]
fn no_password_is_logged() {
    tracing::subscriber::set_global_default(All).unwrap();
    log::set_logger(&All).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let mut server = Server::start(&ServerOptions {
        access: vec![
            "host all plain 127.0.0.1/32 password".into(),
            "host all hashed 127.0.0.1/32 md5".into(),
            "host all guarded 127.0.0.1/32 scram-sha-256".into(),
        ],
        ..ServerOptions::default()
    });
    for (role, how) in [("plain", "scram-sha-256"), ("hashed", "md5"), ("guarded", "scram-sha-256")] {
        server.sql(&format!(
            "SET password_encryption = '{how}'; CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; \
             CREATE SCHEMA {role} AUTHORIZATION {role}"
        ));
    }
    let connect = |role: &str, password: &str| {
        let url = format!("postgres://{role}:{password}@127.0.0.1:{}/postgres?schema={role}", server.port());
        PostgresStore::connect_blocking(PostgresConfig::from_url(&url)?)
    };
    let mut writers = Vec::new();
    for role in ["plain", "hashed", "guarded"] {
        let error = connect(role, &format!("{IN_URL}-not")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{role}: {error}");
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{role}: {error}");
        let mut writer = Writer::new(connect(role, IN_URL).unwrap(), "a");
        writer.commit(10).unwrap();
        writers.push(writer);
    }
    server.stop();
    for writer in &mut writers {
        let error = writer.commit(10).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}");
    }
    let text = logged().clone();
    for target in ["litefleet_postgres", "tokio_postgres"] {
        assert!(text.contains(&format!("\n{target}::")), "nothing was heard of {target}: {text}");
    }
    for secret in [PASSWORD.to_owned(), IN_URL.to_owned(), format!("{:?}", PASSWORD.as_bytes())] {
        let line = text.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "a password is logged");
    }
}
