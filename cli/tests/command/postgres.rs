//! The command with a store on Postgres.

#[cfg(not(feature = "servers"))]
#[test]
#[ignore = "it is left out: run ./test.sh postgres, or cargo test -p litefleet-cli --features servers"]
fn tests_on_a_server() {}

#[cfg(feature = "servers")]
mod on_a_server {
    use std::ffi::OsStr;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::Stdio;

    use litefleet_postgres::testing::{Server, ServerOptions};

    use crate::setup::{Place, dump_file, dump_of, sample, signal, wait};

    #[test]
    fn a_file_goes_in_is_changed_and_comes_out() {
        let server = Server::start(&ServerOptions::default());
        let place = Place::at(&server.url());
        let file = place.file("source.db");
        let source = sample(&file);
        place.import(&file, "a/1");
        assert_eq!(dump_of(&place, "a/1"), dump_file(&file));
        let change = "UPDATE many SET t = t || '!' WHERE i % 3 = 0; DELETE FROM many WHERE i > 4000";
        place.run(["sql", "a/1", change]).ok();
        source.execute_batch(change).unwrap();
        assert_eq!(dump_of(&place, "a/1"), dump_file(&file));
        place.create("b", "CREATE TABLE t (v); INSERT INTO t VALUES ('x')");
        assert_eq!(place.value("b", "SELECT v FROM t"), "x");
        let listed = place.run(["ls"]).ok();
        assert!(listed.lines().count() == 3 && listed.contains(" a/1\n") && listed.ends_with(" b\n"), "{listed}");
        let verified = place.run(["verify"]).ok();
        assert!(verified.contains("a/1"), "{verified}");
        place.run(["mv", "b", "c"]).ok();
        place.run(["gc"]).ok();
        place.run(["rm", "c"]).ok();
        place.run(["info", "c"]).fails(3, "not found");
        assert_eq!(dump_of(&place, "a/1"), dump_file(&file));
        let damage =
            server.sql("UPDATE litefleet.pages SET bytes = overlay(bytes PLACING '\\x00' FROM 9) WHERE page = 1");
        assert_eq!(damage, "");
        place.run(["verify", "a/1"]).fails(5, "");
    }

    /// Ctrl-C was noticed when the wait for the lease was over.
    #[test]
    fn waiting_for_a_busy_database_stops_at_once() {
        let server = Server::start(&ServerOptions::default());
        let place = Place::at(&server.url());
        place.create("a", "CREATE TABLE t (v)");
        let mut holder = place.command().args(["sql", "a"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = holder.stdin.take().unwrap();
        input.write_all(b"BEGIN IMMEDIATE; SELECT 'held';\n").unwrap();
        let mut output = BufReader::new(holder.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        for waiting in [&["rm", "a"][..], &["mv", "a", "b"], &["gc", "a"]] {
            let sessions = "SELECT count(*) FROM litefleet.sessions";
            let before = server.sql(sessions);
            let child = place.command().args(["--wait", "600"]).args(waiting).stdin(Stdio::null()).spawn().unwrap();
            // It has one when it asks for the lease.
            while server.sql(sessions) == before {
                std::thread::yield_now();
            }
            signal(&child, "-INT");
            wait(child).fails(130, "interrupted");
        }
        input.write_all(b"COMMIT;\n").unwrap();
        drop(input);
        output.read_to_end(&mut Vec::new()).unwrap();
        wait(holder).ok();
        assert_eq!(place.run(["ls"]).ok().matches(" a\n").count(), 1);
    }

    /// A name with a typing mistake in it made a new, empty store there.
    #[test]
    fn reading_makes_no_schema() {
        let server = Server::start(&ServerOptions::default());
        let place = Place::at(&(server.url() + "&schema=typo"));
        let file = place.file("a.db");
        let file = file.to_str().unwrap();
        for reading in [
            &["ls"][..],
            &["info", "a"],
            &["sql", "a", "SELECT 1"],
            &["export", "a", file],
            &["verify"],
            &["watch", "a", "--timeout", "0"],
            &["rm", "a"],
            &["mv", "a", "b"],
            &["gc"],
        ] {
            place.run(reading).fails(3, "there is no store in the schema 'typo'");
        }
        assert_eq!(server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'typo'"), "0");
        place.create("a", "CREATE TABLE t (v)");
        place.run([OsStr::new("ls")]).ok();
    }
}
