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
