use tokio_postgres::config::SslMode;

use super::*;

/// A password with signs that mean something in a URL was taken apart, and its pieces were shown in errors.
#[test]
fn passwords_are_taken_whole_or_refused_without_showing_them() {
    for wrong in [
        "me:pa@ssw0rd@db/x",
        "me:pa?ssw0rd@db/x",
        "me:pa?ssw0rd=1@db/x",
        "me:p@pa?ssw0rd@db/x",
        "me:pa/ssw0rd?x@db/x",
        "db/x?user=me&password=pa&ssw0rd=1",
        "me:pa@db/x?ssw0rd",
        "me:1ssw0rd",
    ] {
        let error = PostgresConfig::from_url(&format!("postgres://{wrong}")).unwrap_err();
        assert_eq!(error.kind(), litefleet::ErrorKind::Invalid);
        assert!(!format!("{error} {error:?}").contains("ssw0rd"), "{wrong}: {error}");
    }
    for (right, password) in [
        ("me:pa%40ss%3Fw%26rd@db/x", "pa@ss?w&rd"),
        ("me:pa/ss:w#rd@db/x", "pa/ss:w#rd"),
        ("db/x?password=pa%26ss%40w", "pa&ss@w"),
        ("me:pass@db/x?application_name=a@b", "pass"),
    ] {
        let config = PostgresConfig::from_url(&format!("postgres://{right}")).unwrap();
        assert_eq!(config.server.get_password(), Some(password.as_bytes()), "{right}");
        assert_eq!(config.server.get_hosts(), [tokio_postgres::config::Host::Tcp("db".into())], "{right}");
    }
}

fn parsed(parameters: &str) -> Result<PostgresConfig> {
    PostgresConfig::from_url(&format!("postgres://me@db/x?{parameters}"))
}

/// It meant that nothing at all was verified.
#[test]
fn authorities_of_the_system_verify_fully_or_are_refused() {
    for right in
        ["sslrootcert=system", "sslrootcert=system&sslmode=verify-full", "sslmode=verify-full&sslrootcert=system"]
    {
        let config = parsed(right).unwrap();
        assert_eq!(config.verify, Verify::Full, "{right}");
        assert_eq!(config.server.get_ssl_mode(), SslMode::Require, "{right}");
        assert_eq!(config.root_certificates, None, "{right}");
    }
    for weaker in ["disable", "allow", "prefer", "require", "verify-ca"] {
        for url in [format!("sslrootcert=system&sslmode={weaker}"), format!("sslmode={weaker}&sslrootcert=system")] {
            let error = parsed(&url).unwrap_err();
            assert_eq!(error.kind(), litefleet::ErrorKind::Invalid, "{url}");
            assert!(error.message().contains("verify-full"), "{url}: {error}");
        }
    }
    // The last word counts.
    let config = parsed("sslrootcert=system&sslrootcert=a.pem&sslmode=require").unwrap();
    assert_eq!((config.verify, config.root_certificates), (Verify::Authority, Some("a.pem".into())));
}

/// It accepted the certificate of any server that has one of a public authority, for whatever name.
#[test]
fn authorities_of_the_system_say_nothing_without_a_name() {
    let error = parsed("sslmode=verify-ca").unwrap_err();
    assert_eq!(error.kind(), litefleet::ErrorKind::Invalid);
    assert!(error.message().contains("sslrootcert"), "{error}");
    let config = parsed("sslmode=verify-ca&sslrootcert=a.pem").unwrap();
    assert_eq!((config.verify, config.root_certificates), (Verify::Authority, Some("a.pem".into())));
    // However the settings were made.
    let mut config = parsed("sslmode=require").unwrap();
    config.verify = Verify::Authority;
    assert_eq!(config.check().unwrap_err().kind(), litefleet::ErrorKind::Invalid);
}

/// A list of hosts among the parameters was taken for the name of one.
#[test]
fn hosts_among_the_parameters_are_a_list() {
    use tokio_postgres::config::Host;
    for list in ["host=a,b", "host=a%2Cb", "host=a&host=b"] {
        let config = PostgresConfig::from_url(&format!("postgres:///x?{list}&port=1,2")).unwrap();
        assert_eq!(config.server.get_hosts(), [Host::Tcp("a".into()), Host::Tcp("b".into())], "{list}");
        assert_eq!(config.server.get_ports(), [1, 2], "{list}");
    }
    let config = PostgresConfig::from_url("postgres:///x?host=%2Ftmp,b").unwrap();
    assert_eq!(config.server.get_hosts(), [Host::Unix("/tmp".into()), Host::Tcp("b".into())]);
}

/// libpq's name of it was refused.
#[test]
fn keepalives_are_counted_as_libpq_says() {
    for (parameters, retries) in
        [("keepalives_count=7", Some(7)), ("keepalives_count=0", None), ("keepalives_retries=3", Some(3))]
    {
        assert_eq!(parsed(parameters).unwrap().server.get_keepalives_retries(), retries, "{parameters}");
    }
    parsed("keepalives_count=few").unwrap_err();
}

/// "For ever" became one second.
#[test]
fn connecting_without_a_limit() {
    for (parameters, limit) in [
        ("connect_timeout=0", Duration::MAX),
        ("connect_timeout=-1", Duration::MAX),
        ("connect_timeout=7", Duration::from_secs(7)),
        ("schema=a", Duration::from_secs(5)),
    ] {
        assert_eq!(parsed(parameters).unwrap().connect_timeout, limit, "{parameters}");
    }
    parsed("connect_timeout=soon").unwrap_err();
}

/// A connection whose way is lost, and whose call was given up, would hold its place in the pool for two hours. And libpq counts
/// `tcp_user_timeout` in milliseconds; it was taken for seconds.
#[test]
fn lost_ways_are_found_out_soon() {
    for (parameters, idle, unacknowledged) in [
        ("schema=a", 30, 10_000),
        ("keepalives_idle=7&tcp_user_timeout=2500", 7, 2500),
        ("keepalives_idle=0&tcp_user_timeout=0", 7200, 0),
    ] {
        let server = parsed(parameters).unwrap().server;
        assert_eq!(server.get_keepalives_idle(), Duration::from_secs(idle), "{parameters}");
        assert_eq!(server.get_tcp_user_timeout(), Some(&Duration::from_millis(unacknowledged)), "{parameters}");
    }
}

/// It was told to the server as the URL had it, whatever had been set since.
#[test]
fn statement_timeout_is_told_as_it_is_in_the_end() {
    let told = |parameters: &str, set: Option<Duration>| {
        let mut config = parsed(parameters).unwrap();
        config.statement_timeout = set;
        config.tell_statement_timeout();
        config.server.get_options().map(str::to_owned)
    };
    let (one, two) = (Duration::from_secs(1), Duration::from_secs(2));
    assert_eq!(parsed("statement_timeout=1000").unwrap().statement_timeout, Some(one));
    assert_eq!(told("statement_timeout=1000", None), None);
    assert_eq!(told("schema=a", Some(two)).as_deref(), Some("-c statement_timeout=2000"));
    let options = "options=-c%20geqo%3Doff&statement_timeout=1000";
    assert_eq!(told(options, Some(two)).as_deref(), Some("-c geqo=off -c statement_timeout=2000"));
}
