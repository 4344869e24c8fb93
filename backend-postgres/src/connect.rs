//! Connecting: which server of several, and what it is.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::FutureExt;
use litefleet::ErrorKind;
use rand::seq::SliceRandom;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::NoTls;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{PostgresConfig, Prepared};
use crate::error::{Fault, Outcome, TLS_FAILED, server_kind};
use crate::link::Link;
use crate::wire::column;

/// The server has as many connections as it takes: `too_many_connections`.
const TOO_MANY: &str = "53300";

/// A socket of either kind.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// A server to try.
#[derive(Clone, Debug)]
enum Place {
    Tcp { name: String, address: Option<IpAddr>, port: u16 },
    Unix { folder: PathBuf, port: u16 },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { name, port, .. } => write!(f, "{name}:{port}"),
            Self::Unix { folder, port } => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

/// A connection to a server that is what was asked for.
pub(crate) struct Connected {
    pub(crate) link: Link,
    /// Statements can be prepared on it, and settings made: it leads to the server itself.
    pub(crate) prepares: bool,
}

/// Tries the servers of the URL in their order, or in any if it says so; but the one that was right the last time first.
/// A silent one gets its share of the time that is left, so that the next one has its turn too.
pub(crate) async fn connect(
    config: &PostgresConfig,
    tls: Option<&MakeRustlsConnect>,
    last: &AtomicUsize,
    deadline: Instant,
) -> Outcome<Connected> {
    let mut places: Vec<(usize, Place)> = places(config).into_iter().enumerate().collect();
    if config.server.get_load_balance_hosts() == LoadBalanceHosts::Random {
        places.shuffle(&mut rand::rng());
    } else {
        let last = last.load(Ordering::Relaxed);
        places.sort_by_key(|(index, _)| *index != last);
    }
    let count = places.len();
    let (mut failures, mut crowded, mut left) = (Vec::new(), false, count);
    for (index, place) in places {
        let until = share(deadline, left, config);
        left -= 1;
        let (message, kind) = match timeout_at(until, try_place(&place, config, tls, until).boxed()).await {
            Ok(Ok(connected)) => {
                last.store(index, Ordering::Relaxed);
                return Ok(connected);
            }
            Ok(Err(Fault::Connect { message, kind })) => (message, kind),
            Ok(Err(fault)) => {
                if let Fault::Server(error) = &fault
                    && error.code().code() == TOO_MANY
                {
                    crowded = true;
                }
                let kind = match &fault {
                    Fault::Server(error) => server_kind(error.code().code()),
                    Fault::Lost(error) => handshake_kind(error),
                    _ => ErrorKind::Unavailable,
                };
                (fault.to_string(), kind)
            }
            Err(_) => {
                // Those that say no are quick: the next connection begins behind the silent one.
                let _moved_by_another =
                    last.compare_exchange(index, (index + 1) % count, Ordering::Relaxed, Ordering::Relaxed);
                ("no answer in time".to_owned(), ErrorKind::Unavailable)
            }
        };
        failures.push((format!("{place}: {message}"), kind));
    }
    // As long as one of them may come back it is worth trying again.
    let hopeful = failures.iter().find(|(_, kind)| *kind == ErrorKind::Unavailable).or(failures.first());
    let kind = hopeful.map_or(ErrorKind::Invalid, |(_, kind)| *kind);
    let messages: Vec<String> = failures.into_iter().map(|(message, _)| message).collect();
    let message = format!("cannot connect to Postgres at {}", messages.join(", nor at "));
    Err(if crowded { Fault::Crowded(message) } else { Fault::Connect { message, kind } })
}

/// Until when to wait for the first of so many that may be silent.
fn share(deadline: Instant, left: usize, config: &PostgresConfig) -> Instant {
    let now = Instant::now();
    let share = deadline.saturating_duration_since(now) / u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    now + share.min(config.connect_timeout)
}

fn places(config: &PostgresConfig) -> Vec<Place> {
    let (hosts, addresses, ports) =
        (config.server.get_hosts(), config.server.get_hostaddrs(), config.server.get_ports());
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let place = |index: usize| match (hosts.get(index), addresses.get(index)) {
        (Some(Host::Unix(folder)), _) => Some(Place::Unix { folder: folder.clone(), port: port(index) }),
        (Some(Host::Tcp(name)), address) => {
            Some(Place::Tcp { name: name.clone(), address: address.copied(), port: port(index) })
        }
        (None, Some(address)) => {
            Some(Place::Tcp { name: address.to_string(), address: Some(*address), port: port(index) })
        }
        (None, None) => None,
    };
    (0..hosts.len().max(addresses.len())).filter_map(place).collect()
}

async fn try_place(
    place: &Place,
    config: &PostgresConfig,
    tls: Option<&MakeRustlsConnect>,
    until: Instant,
) -> Outcome<Connected> {
    match place {
        Place::Unix { folder, port } => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            let socket = UnixStream::connect(&path).await.map_err(unreachable)?;
            #[cfg(any(target_os = "linux", target_os = "android"))]
            let socket = crate::socket::Socket::unix(socket).map_err(unreachable)?;
            // Nobody listens in on a Unix socket, and the server refuses TLS there.
            let mut server = config.server.clone();
            server.ssl_mode(SslMode::Disable);
            let (client, connection) = server.connect_raw(socket, NoTls).boxed().await?;
            finish(Link::new(client, connection), config, None).await
        }
        Place::Tcp { name, address, port } => {
            let addresses: Vec<SocketAddr> = match address {
                Some(address) => vec![(*address, *port).into()],
                None => lookup_host((name.as_str(), *port)).await.map_err(unreachable)?.collect(),
            };
            let (mut last, mut left) = (None, addresses.len());
            for address in addresses {
                let share = share(until, left, config);
                left -= 1;
                let attempt = try_address(name, address, config, tls).boxed();
                let outcome = if left == 0 {
                    attempt.await
                } else {
                    let silent = |_| Err(unreachable(io::ErrorKind::TimedOut.into()));
                    timeout_at(share, attempt).await.unwrap_or_else(silent)
                };
                match outcome {
                    Ok(connected) => return Ok(connected),
                    Err(fault) => last = Some(fault),
                }
            }
            Err(last.unwrap_or_else(|| unreachable(io::Error::other("the name has no address"))))
        }
    }
}

async fn try_address(
    name: &str,
    address: SocketAddr,
    config: &PostgresConfig,
    tls: Option<&MakeRustlsConnect>,
) -> Outcome<Connected> {
    let socket = TcpStream::connect(address).await.map_err(unreachable)?;
    let local = tune(&socket, config).map_err(unreachable)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let socket = crate::socket::Socket::tcp(socket).map_err(unreachable)?;
    let socket: Box<dyn Socket> = Box::new(socket);
    let link = match tls {
        None => {
            let (client, connection) = config.server.connect_raw(socket, NoTls).boxed().await?;
            Link::new(client, connection)
        }
        Some(tls) => {
            let mut tls = tls.clone();
            let Ok(handshake) = MakeTlsConnect::<Box<dyn Socket>>::make_tls_connect(&mut tls, name);
            let (client, connection) = config.server.connect_raw(socket, handshake).boxed().await?;
            Link::new(client, connection)
        }
    };
    finish(link, config, Some((local, address))).await
}

fn tune(socket: &TcpStream, config: &PostgresConfig) -> io::Result<SocketAddr> {
    socket.set_nodelay(true)?;
    let reference = SockRef::from(socket);
    if config.server.get_keepalives() {
        let mut keepalive = TcpKeepalive::new().with_time(config.server.get_keepalives_idle());
        if let Some(interval) = config.server.get_keepalives_interval() {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(retries) = config.server.get_keepalives_retries() {
            keepalive = keepalive.with_retries(retries);
        }
        reference.set_tcp_keepalive(&keepalive)?;
    }
    #[cfg(target_os = "linux")]
    if let Some(limit) = config.server.get_tcp_user_timeout() {
        reference.set_tcp_user_timeout(Some(*limit))?;
    }
    socket.local_addr()
}

/// Asks the server what it is.
async fn finish(mut link: Link, config: &PostgresConfig, ends: Option<(SocketAddr, SocketAddr)>) -> Outcome<Connected> {
    const QUESTION: &str = "SELECT current_setting('transaction_read_only') = 'on', \
        host(inet_client_addr()), inet_client_port(), host(inet_server_addr()), inet_server_port(), \
        current_setting('default_transaction_isolation')";
    let rows = link.ask(|client| client.query_typed(QUESTION, &[]).boxed()).await?;
    let row = rows.first().ok_or(Fault::Malformed("no row"))?;
    let read_only: bool = column(row, 0)?;
    let wanted = config.server.get_target_session_attrs();
    let refusal = match (wanted, read_only) {
        (TargetSessionAttrs::ReadWrite, true) => "it is a read-only standby, and target_session_attrs=read-write",
        (TargetSessionAttrs::ReadOnly, false) => "it can be written to, and target_session_attrs=read-only",
        _ => "",
    };
    if !refusal.is_empty() {
        return Err(Fault::Connect { message: refusal.to_owned(), kind: ErrorKind::Unavailable });
    }
    // What waits for a lock must then see what the other has done.
    let isolation: &str = column(row, 5)?;
    if isolation != "read committed" {
        let message = format!(
            "this user's transactions are '{isolation}': set default_transaction_isolation to 'read committed' for it"
        );
        return Err(Fault::Connect { message, kind: ErrorKind::Invalid });
    }
    let prepares = match (config.prepared, ends) {
        (Prepared::On, _) => true,
        (Prepared::Off, _) | (Prepared::Auto, None) => false,
        // A pooler in between has sockets of its own to both sides.
        (Prepared::Auto, Some((ours, theirs))) => {
            let same = |address: Option<&str>, port: Option<i32>, of: SocketAddr| {
                address.is_some_and(|a| a == of.ip().to_canonical().to_string()) && port == Some(of.port().into())
            };
            same(column(row, 1)?, column(row, 2)?, ours) && same(column(row, 3)?, column(row, 4)?, theirs)
        }
    };
    Ok(Connected { link, prepares })
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn unreachable(error: io::Error) -> Fault {
    Fault::Connect { message: error.to_string(), kind: ErrorKind::Unavailable }
}

/// A certificate that is not trusted stays so, and a server without TLS has none the next time; anything else may be
/// different then. A connection that breaks in the middle of the handshake says nothing of either.
fn handshake_kind(error: &tokio_postgres::Error) -> ErrorKind {
    let mut broken = false;
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        let io = cause.downcast_ref::<io::Error>();
        let inner = io.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner.or(cause.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)) => return ErrorKind::Invalid,
            Some(_) => {}
            None => broken |= io.is_some_and(|io| io.kind() != io::ErrorKind::InvalidInput),
        }
        next = cause.source();
    }
    match error.to_string().as_str() {
        // The server has no TLS, or asks for a password that we do not have: no time will mend it.
        TLS_FAILED | "invalid configuration" | "authentication error" if !broken => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    }
}
