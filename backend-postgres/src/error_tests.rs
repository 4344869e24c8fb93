use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use tokio_postgres::NoTls;

use super::*;

/// A message of the protocol.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

/// What becomes of a call that is answered with an error of these fields.
fn answered_with(fields: &[&str]) -> Fault {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut error: Vec<u8> = fields.iter().flat_map(|field| [field.as_bytes(), b"\0"].concat()).collect();
    error.push(0);
    let server = std::thread::spawn(move || {
        let mut request = [0; 1000];
        let _startup = theirs.read(&mut request).unwrap();
        theirs.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat()).unwrap();
        let _question = theirs.read(&mut request).unwrap();
        theirs.write_all(&message(b'E', &error)).unwrap();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fault = runtime.block_on(async {
        let socket = tokio::net::UnixStream::from_std(ours).unwrap();
        let mut config = tokio_postgres::Config::new();
        let (client, connection) = config.user("me").connect_raw(socket, NoTls).await.unwrap();
        tokio::spawn(connection);
        Fault::from(client.query_typed("SELECT 1", &[]).await.unwrap_err())
    });
    server.join().unwrap();
    fault
}

/// PgBouncer up to 1.15 reports a connection to the server that it has lost as a mere error, in the words of old servers: a
/// commit that was on its way was taken for undone.
#[test]
fn errors_that_are_not_the_servers_leave_doubt() {
    let severities: [(&[&str], bool); 4] = [
        (&["SERROR", "VERROR"], false),
        (&["SFEHLER", "VERROR"], false),
        (&["SFATAL", "VFATAL"], true),
        (&["SERROR"], true),
    ];
    for (severity, doubt) in severities {
        let fields = [severity, &["C57014", "Mcancelled"]].concat();
        let fault = answered_with(&fields);
        assert_eq!((fault.leaves_doubt(), fault.ends_connection()), (doubt, doubt), "{fields:?}: {fault}");
    }
    // Whatever its severity: something has happened to the connection behind this one.
    for code in ["C08P01", "C08006"] {
        let fault = answered_with(&["SERROR", "VERROR", code, "Mserver conn crashed?"]);
        assert!(fault.leaves_doubt() && fault.ends_connection(), "{fault}");
    }
    assert!(!answered_with(&["SERROR", "VERROR", "C40001", "Mtry again"]).leaves_doubt());
    assert!(answered_with(&["SERROR", "VERROR", "C40001", "Mtry again"]).is_passing());
}
