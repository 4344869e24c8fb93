//! The URL that the settings are read from.

use std::time::Duration;

use litefleet::{Error, Result};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};

use super::{PostgresConfig, Prepared, Verify};

const SSL_MODES: &str = "disable, allow, prefer, require, verify-ca or verify-full";

/// The parameters that are read here, and not by `tokio-postgres`.
const OWN: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "target_session_attrs",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives_count",
    "schema",
    "pool_size",
    "call_timeout",
    "statement_timeout",
    "watch_interval",
    "page_partitions",
    "migrate",
    "prepared_statements",
];

/// Those that are.
const THEIRS: &[&str] = &[
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "options",
    "application_name",
    "sslnegotiation",
    "channel_binding",
    "load_balance_hosts",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
];

impl PostgresConfig {
    /// Reads a URL as libpq has them: `postgres://user:password@host:port,host:port/database?parameter=value&…`.
    ///
    /// Besides libpq's parameters that `tokio-postgres` knows, it has `sslmode` up to `verify-full`, `sslrootcert`,
    /// `sslcert`, `sslkey`, `target_session_attrs=primary`, and those named at the fields of this type. `PGPASSWORD` is
    /// used when the URL has no password. `Invalid` for what cannot be read; the message has no part of the URL in it
    /// that could be a password.
    pub fn from_url(url: &str) -> Result<Self> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        if !address.starts_with("postgres://") && !address.starts_with("postgresql://") {
            return Err(Error::invalid("a Postgres URL begins with postgres:// or postgresql://"));
        }
        check_signs(address, query)?;
        let mut own = Vec::new();
        let mut rest = Vec::new();
        for (index, parameter) in query.split('&').filter(|parameter| !parameter.is_empty()).enumerate() {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if OWN.contains(&name) {
                own.push((name, decode(name, value)?));
            } else if name == "host" {
                // A list of them, as libpq has it, would be taken for one name.
                let hosts = value.replace("%2C", ",").replace("%2c", ",");
                rest.extend(hosts.split(',').map(|host| format!("host={host}")));
            } else if THEIRS.contains(&name) {
                rest.push(parameter.to_owned());
            } else {
                // What is taken for its name may be a piece of a password.
                return Err(Error::invalid(format!(
                    "parameter {} of the Postgres URL has a name that nobody knows; there are {}, {}; in a password ? is \
                     written %3F, and & %26",
                    index + 1,
                    OWN.join(", "),
                    THEIRS.join(", ")
                )));
            }
        }
        for (name, value) in OTHERWISE {
            if !rest.iter().any(|parameter| parameter.split('=').next() == Some(*name)) {
                rest.push(format!("{name}={value}"));
            }
        }
        let server = format!("{address}?{}", rest.join("&"));
        let server: tokio_postgres::Config = server.parse().map_err(|error: tokio_postgres::Error| {
            Error::invalid(format!("the Postgres URL cannot be read: {}", crate::error::chain(&error)))
        })?;
        let mut config = Self::of_server(server);
        for (name, value) in &own {
            config.set(name, value)?;
        }
        let last = |wanted| own.iter().rev().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str());
        if last("sslrootcert") == Some("system") {
            config.trust_system(last("sslmode"))?;
        }
        config.finish()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let wrong =
            |expected: &str| Error::invalid(format!("parameter {name} of the Postgres URL: expected {expected}"));
        let number = || value.parse::<u32>().map_err(|_| wrong("a whole number"));
        let millis = || number().map(|n| Duration::from_millis(n.into()));
        match name {
            "sslmode" => self.set_ssl_mode(value).ok_or_else(|| wrong(SSL_MODES))?,
            "sslrootcert" => self.root_certificates = (value != "system").then(|| value.into()),
            "sslcert" => self.client_certificate.get_or_insert_default().0 = value.into(),
            "sslkey" => self.client_certificate.get_or_insert_default().1 = value.into(),
            "target_session_attrs" => {
                self.server.target_session_attrs(match value {
                    "any" => TargetSessionAttrs::Any,
                    "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
                    "read-only" | "standby" => TargetSessionAttrs::ReadOnly,
                    _ => return Err(wrong("any, read-write, primary, read-only or standby")),
                });
            }
            "connect_timeout" => {
                let seconds = value.parse::<i32>().map_err(|_| wrong("a whole number"))?;
                // As libpq has it: zero or less is no limit. That of the call stays.
                let limit = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
                self.connect_timeout = limit.map_or(Duration::MAX, Duration::from_secs);
            }
            // In milliseconds, as libpq has it; 0 is what the system has.
            "tcp_user_timeout" => _ = self.server.tcp_user_timeout(millis()?),
            // libpq's name; 0 is what the system has.
            "keepalives_count" => match number()? {
                0 => {}
                count => _ = self.server.keepalives_retries(count),
            },
            "schema" => value.clone_into(&mut self.schema),
            "pool_size" => self.pool_size = number()?.max(1) as usize,
            "call_timeout" => self.call_timeout = millis()?,
            "statement_timeout" => self.statement_timeout = Some(millis()?),
            "watch_interval" => self.watch_interval = millis()?.max(Duration::from_millis(1)),
            "page_partitions" => self.page_partitions = number()?.clamp(1, 1024),
            "migrate" => self.migrate = flag(value).ok_or_else(|| wrong("on or off"))?,
            "prepared_statements" => {
                self.prepared = match value {
                    "auto" => Prepared::Auto,
                    _ if flag(value) == Some(true) => Prepared::On,
                    _ if flag(value) == Some(false) => Prepared::Off,
                    _ => return Err(wrong("auto, on or off")),
                }
            }
            _ => return Err(Error::internal(format!("parameter {name} is listed and not read"))),
        }
        Ok(())
    }

    fn set_ssl_mode(&mut self, value: &str) -> Option<()> {
        let (mode, verify) = match value {
            "disable" => (SslMode::Disable, Verify::Nothing),
            // libpq's "allow" prefers no encryption; nobody who writes it minds some.
            "allow" | "prefer" => (SslMode::Prefer, Verify::Nothing),
            "require" => (SslMode::Require, Verify::Nothing),
            "verify-ca" => (SslMode::Require, Verify::Authority),
            "verify-full" => (SslMode::Require, Verify::Full),
            _ => return None,
        };
        self.server.ssl_mode(mode);
        self.verify = verify;
        Some(())
    }

    /// `sslrootcert=system`, as libpq has it since version 16: any server has a certificate of some public authority, so that
    /// it says nothing unless the host's name is checked.
    fn trust_system(&mut self, mode: Option<&str>) -> Result<()> {
        match mode {
            None | Some("verify-full") => {
                self.set_ssl_mode("verify-full");
                Ok(())
            }
            Some(weaker) => Err(Error::invalid(format!(
                "parameter sslrootcert=system of the Postgres URL goes with sslmode=verify-full, and not with {weaker}: leave \
                 sslmode out, or name a file of authorities"
            ))),
        }
    }

    fn finish(mut self) -> Result<Self> {
        self.check()?;
        if self.client_certificate.as_ref().is_some_and(|(c, k)| c.as_os_str().is_empty() || k.as_os_str().is_empty()) {
            return Err(Error::invalid("sslcert and sslkey of the Postgres URL belong together: give both or none"));
        }
        // As libpq does: a file of authorities is there to be used.
        if self.root_certificates.is_some()
            && self.verify == Verify::Nothing
            && self.server.get_ssl_mode() == SslMode::Require
        {
            self.verify = Verify::Authority;
        }
        if self.server.get_hosts().is_empty() && self.server.get_hostaddrs().is_empty() {
            return Err(Error::invalid(
                "the Postgres URL names no host; a folder of a Unix socket is written %2Flike%2Fthis",
            ));
        }
        if self.server.get_application_name().is_none() {
            self.server.application_name("litefleet");
        }
        if self.server.get_user().is_none() {
            let user = std::env::var("PGUSER").or_else(|_| std::env::var("USER"));
            self.server.user(user.unwrap_or_else(|_| "postgres".to_owned()));
        }
        if self.server.get_password().is_none()
            && let Ok(password) = std::env::var("PGPASSWORD")
        {
            self.server.password(password);
        }
        Ok(self)
    }
}

/// Of those, what is otherwise here than they have it: a connection whose call was given up is waited for until the server has
/// answered, or is known to be out of reach, and within two hours that would be late.
const OTHERWISE: &[(&str, &str)] = &[("keepalives_idle", "30"), ("keepalives_interval", "10")];

/// Refuses what would be read otherwise than it was meant: the rest of a password would be taken for a host's name, and be
/// shown in errors.
fn check_signs(address: &str, query: &str) -> Result<()> {
    let wrong = |what: &str| Err(Error::invalid(format!("the Postgres URL has {what}")));
    match address.matches('@').count() {
        0 if query.contains('@') => wrong(
            "an @ behind a ?, and none before it: in a password ? is written %3F, and in a parameter @ is written %40",
        ),
        0 | 1 => Ok(()),
        _ => wrong("more than one @: in a user's name or a password it is written %40"),
    }
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "on" | "1" | "true" | "yes" => Some(true),
        "off" | "0" | "false" | "no" => Some(false),
        _ => None,
    }
}

/// Resolves `%xx`.
fn decode(name: &str, value: &str) -> Result<String> {
    let wrong =
        || Error::invalid(format!("parameter {name} of the Postgres URL: a % that no two hexadecimal digits follow"));
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16)).ok_or_else(wrong);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(out).map_err(|_| wrong())
}
