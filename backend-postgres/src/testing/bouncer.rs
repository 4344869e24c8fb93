//! A PgBouncer of one's own, in transaction mode.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use super::supervised::{Supervised, as_user, folder, give};
use super::{Server, free_port, wait_until};

/// A pooler in front of a server; removed with this value.
#[derive(Debug)]
pub struct Bouncer {
    port: u16,
    log: PathBuf,
    _running: Supervised,
}

impl Bouncer {
    /// Starts one with so few connections to the server that they are always shared.
    pub fn start(server: &Server) -> Self {
        let folder = folder(None);
        let port = free_port();
        let users = folder.join("users");
        fs::write(&users, "\"postgres\" \"\"\n").unwrap();
        give(&users);
        let settings = folder.join("pgbouncer.ini");
        let text = format!(
            "[databases]\npostgres = host=127.0.0.1 port={0} dbname=postgres\n\
             single = host=127.0.0.1 port={0} dbname=postgres pool_size=1\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {1}\npool_mode = transaction\n\
             default_pool_size = 4\nmax_client_conn = 1000\nserver_reset_query_always = 0\n\
             server_login_retry = 1\n",
            server.port(),
            users.display()
        );
        fs::write(&settings, text).unwrap();
        give(&settings);
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| fs::exists(path).unwrap());
        let program = program.expect("no PgBouncer here: install Debian's package pgbouncer").to_owned();
        let log = folder.join("log");
        let running = Supervised::start(&folder, "KILL", &log, &as_user(&[program, settings.display().to_string()]));
        wait_until("PgBouncer is ready", Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, log, _running: running }
    }

    /// Its URL, for the user `postgres` and the database `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// The URL of a database of its that is the same one, over a single connection.
    pub fn single_url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/single?sslmode=disable", self.port)
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}
