//! Store URLs: which back end, and where. The only file that knows the back ends.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etcetera::BaseStrategy;
use litefleet::ErrorKind;
use litefleet::clock::{Clock, SystemClock};
use litefleet::store::{MemoryStore, PageStore};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use litefleet_postgres::{PostgresConfig, PostgresStore};

use crate::cancel;
use crate::failure::{Exit, Failure, Result};

/// What exists, for messages: each is explained in [`HELP`].
const FORMS: &str = "embedded:/folder, a plain folder, postgres://host/database, fdb:/cluster.file, or memory:";

/// What exists, for people who ask.
pub(crate) const HELP: &str = "\
Stores:
  embedded:/folder           a folder of this machine, used by one process at a time (a plain path means the same)
  postgres://host/database   tables of a PostgreSQL server
  fdb:/cluster.file          FoundationDB, where this program was built with it
  memory:                    in this process and gone with it";

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// A folder of this machine.
    Embedded(PathBuf),
    /// Tables of a Postgres server.
    Postgres(SecretUrl),
    /// In this process, gone with it.
    Memory,
    /// A prefix of a FoundationDB cluster.
    #[cfg(feature = "fdb")]
    Fdb(SecretUrl),
}

/// A URL that may have a password in it, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretUrl(String);

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl StoreUrl {
    /// Reads a URL or a path.
    pub(crate) fn parse(text: &OsStr) -> Result<Self> {
        let usage = |message: String| Err(Failure::new(Exit::Usage, message));
        if text.is_empty() {
            return usage(format!("the store's URL is empty; expected {FORMS}"));
        }
        // A path that is not UTF-8 cannot begin with one of our schemes and be anything but a path.
        let Some((scheme, rest)) = text.to_str().and_then(split_scheme) else {
            return Ok(Self::Embedded(text.into()));
        };
        match scheme {
            "embedded" if rest.is_empty() => {
                usage("embedded: needs a folder, as in embedded:/var/lib/litefleet".into())
            }
            "embedded" => {
                Ok(Self::Embedded(rest.strip_prefix("//").filter(|p| p.starts_with('/')).unwrap_or(rest).into()))
            }
            "postgres" | "postgresql" => {
                PostgresConfig::from_url(text.to_str().unwrap_or_default()).map_err(Failure::from)?;
                Ok(Self::Postgres(SecretUrl(format!("{scheme}:{rest}"))))
            }
            "memory" if rest.is_empty() => Ok(Self::Memory),
            "memory" => usage(format!("memory: takes nothing after it, and here is '{rest}'")),
            #[cfg(feature = "fdb")]
            "fdb" => {
                litefleet_fdb::FdbConfig::from_url(&format!("fdb:{rest}")).map_err(Failure::from)?;
                Ok(Self::Fdb(SecretUrl(format!("fdb:{rest}"))))
            }
            #[cfg(not(feature = "fdb"))]
            "fdb" => usage("this program was built without FoundationDB; build it with --features fdb".into()),
            _ => usage(format!(
                "there is no store of the kind '{scheme}:'; expected {FORMS} (a folder with a colon in its name: ./{scheme}:…)"
            )),
        }
    }

    /// The embedded store in the user's data folder.
    pub(crate) fn user_default() -> Result<Self> {
        let base = etcetera::choose_base_strategy().map_err(|e| {
            Failure::failed(format!("there is no home folder to keep a store in ({e}); name a store with --store"))
        })?;
        Ok(Self::Embedded(base.data_dir().join("litefleet")))
    }

    /// Opens the store. Without `create` a folder or schema that is not there is an error, so that a typing mistake makes no
    /// store.
    pub(crate) fn open(&self, create: bool, wait: Duration) -> Result<Arc<dyn PageStore>> {
        match self {
            Self::Memory => Ok(Arc::new(MemoryStore::new(Arc::new(SystemClock::default())))),
            #[cfg(feature = "fdb")]
            Self::Fdb(SecretUrl(url)) => {
                let config = litefleet_fdb::FdbConfig::from_url(url);
                let store = config.and_then(litefleet_fdb::FdbStore::open_blocking);
                Ok(Arc::new(store.map_err(Failure::from)?))
            }
            Self::Postgres(SecretUrl(url)) => {
                let mut config = PostgresConfig::from_url(url)?;
                config.migrate &= create;
                let schema = config.schema.clone();
                let store = PostgresStore::connect_blocking(config).map_err(|e| match e.kind() {
                    ErrorKind::NotFound if !create => Failure::new(
                        Exit::NotFound,
                        format!(
                            "there is no store in the schema '{schema}' of that database; 'litefleet import' makes one, \
                             schema= in the URL names another"
                        ),
                    ),
                    _ => Failure::from(e),
                });
                Ok(Arc::new(store?))
            }
            Self::Embedded(folder) => {
                if !create && !folder.exists() {
                    return Err(Failure::new(
                        Exit::NotFound,
                        format!(
                            "there is no store in {}; 'litefleet import' makes one, --store names another",
                            folder.display()
                        ),
                    ));
                }
                if folder.exists() && !folder.is_dir() {
                    return Err(Failure::failed(format!("{} is a file; a store is a folder", folder.display())));
                }
                Ok(Arc::new(embedded(folder, wait)?))
            }
        }
    }

    /// For people: without a password.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Memory => "memory:".to_owned(),
            #[cfg(feature = "fdb")]
            Self::Fdb(_) => "the FoundationDB store that --store names".to_owned(),
            Self::Postgres(_) => "the Postgres store that --store names".to_owned(),
            Self::Embedded(folder) => format!("embedded:{}", folder.display()),
        }
    }

    /// As it can be given to another process, in its environment: arguments can be seen by everybody.
    pub(crate) fn to_variable(&self) -> OsString {
        match self {
            Self::Memory => "memory:".into(),
            #[cfg(feature = "fdb")]
            Self::Fdb(SecretUrl(url)) => url.into(),
            Self::Postgres(SecretUrl(url)) => url.into(),
            Self::Embedded(folder) => {
                let mut argument = OsString::from("embedded:");
                argument.push(folder);
                argument
            }
        }
    }
}

/// Opens an embedded store; waits for another process that has it open.
fn embedded(folder: &Path, wait: Duration) -> Result<EmbeddedStore> {
    let clock = SystemClock::default();
    loop {
        match EmbeddedStore::open(EmbeddedConfig::new(folder)) {
            Err(e) if e.kind() == ErrorKind::Unavailable && clock.monotonic() < wait => {
                if cancel::wait(Duration::from_millis(50)) {
                    return Err(Failure::interrupted("the store was not opened"));
                }
            }
            outcome => {
                return outcome.map_err(|e| {
                    Failure::from(e).context(format_args!("cannot open the store in {}", folder.display()))
                });
            }
        }
    }
}

/// Splits `scheme:rest`. One letter before the colon is a drive, not a scheme.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme.then_some((scheme, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedded(path: &str) -> StoreUrl {
        StoreUrl::Embedded(path.into())
    }

    #[test]
    fn urls() {
        let parse = |text: &str| StoreUrl::parse(OsStr::new(text)).map_err(|f| (f.exit(), f.line().unwrap()));
        assert_eq!(parse("/a/b").unwrap(), embedded("/a/b"));
        assert_eq!(parse("a").unwrap(), embedded("a"));
        assert_eq!(parse("embedded:a").unwrap(), embedded("a"));
        assert_eq!(parse("embedded:///a").unwrap(), embedded("/a"));
        assert_eq!(parse("./x:y").unwrap(), embedded("./x:y"));
        assert_eq!(parse("c:\\x").unwrap(), embedded("c:\\x"));
        assert_eq!(parse("memory:").unwrap(), StoreUrl::Memory);
        let postgres = parse("postgres://me:hidden@h/d?schema=s").unwrap();
        assert_eq!(postgres.to_variable(), "postgres://me:hidden@h/d?schema=s");
        assert!(!format!("{postgres:?} {}", postgres.shown()).contains("hidden"));
        assert!(!parse("postgres://me:hidden@h/d?nonsense=1").unwrap_err().1.contains("hidden"));
        for bad in ["", "embedded:", "memory:x", "mysql://h/d"] {
            assert_eq!(parse(bad).unwrap_err().0, Exit::Usage, "{bad}");
        }
        assert!(parse("mysql://h/d").unwrap_err().1.contains("memory:"));
        #[cfg(feature = "fdb")]
        assert_eq!(parse("fdb:/a?prefix=b").unwrap(), StoreUrl::Fdb(SecretUrl("fdb:/a?prefix=b".into())));
        #[cfg(feature = "fdb")]
        assert!(parse("fdb:/a?prefix=").unwrap_err().1.contains("prefix"));
        #[cfg(not(feature = "fdb"))]
        assert!(parse("fdb:/a").unwrap_err().1.contains("--features fdb"));
    }
}
