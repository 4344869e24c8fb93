//! The `litefleet` command on a FoundationDB store, each run of it a process of its own. It must have been built before,
//! with the feature `fdb`; the environment variable `LITEFLEET_COMMAND` names it. So `test.sh` does it.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::Place;

/// Where the command finds the cluster, and the client library.
struct Shell {
    store: String,
    libraries: Option<PathBuf>,
    program: PathBuf,
    _place: Place,
    _directory: tempfile::TempDir,
}

impl Shell {
    fn new() -> Self {
        let program =
            std::env::var_os("LITEFLEET_COMMAND").expect("LITEFLEET_COMMAND names the litefleet command").into();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = Place::new();
        let prefix = String::from_utf8(place.prefix.clone()).expect("text");
        let file = match &place.stand_in {
            Some(stand_in) => stand_in.serve(directory.path()).cluster_file().to_owned(),
            None => place.cluster_file.to_str().expect("UTF-8").to_owned(),
        };
        let libraries = std::env::var_os("LITEFLEET_FDB_LIBRARY_DIR").filter(|folder| !folder.is_empty());
        let libraries = libraries.map(PathBuf::from);
        Self { store: format!("fdb:{file}?prefix={prefix}"), libraries, program, _place: place, _directory: directory }
    }

    /// Runs it, and returns what it says. It must succeed.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        command.arg("--store").arg(&self.store).args(arguments);
        if let Some(libraries) = &self.libraries {
            // Cargo has named the folder with the stand-in.
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let output = command.output().expect("it starts");
        let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {:?} {said}{error}", output.status);
        said.into_owned()
    }
}

#[test]
#[ignore = "needs the litefleet command, built with the feature fdb: test.sh runs it"]
fn the_command_works_on_a_cluster() {
    let shell = Shell::new();
    shell.run(&["sql", "--create", "--", "tenants/a", "CREATE TABLE t(v TEXT); INSERT INTO t VALUES('one')"]);
    for round in 0..3 {
        shell.run(&["sql", "--", "tenants/a", &format!("INSERT INTO t VALUES('round {round}')")]);
    }
    let rows = shell.run(&["sql", "--format", "csv", "--", "tenants/a", "SELECT count(*), max(v) FROM t"]);
    assert_eq!(rows.lines().nth(1), Some("4,round 2"), "{rows}");
    shell.run(&["sql", "--create", "--", "tenants/b", "CREATE TABLE t(v)"]);
    let list = shell.run(&["ls"]);
    assert!(list.contains("tenants/a") && list.contains("tenants/b"), "{list}");
    shell.run(&["gc"]);
    shell.run(&["verify"]);
    shell.run(&["mv", "tenants/b", "tenants/c"]);
    shell.run(&["rm", "tenants/a"]);
    let list = shell.run(&["ls"]);
    assert!(!list.contains("tenants/a") && list.contains("tenants/c"), "{list}");
    shell.run(&["gc"]);
    shell.run(&["verify"]);
}
