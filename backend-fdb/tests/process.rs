//! What holds for a whole process, each case in one of its own: which client libraries will do, and who runs the network.

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use foundationdb::api::FdbApiBuilder;
use litefleet::store::PageStore;
use litefleet::{ErrorKind, Result};
use litefleet_fdb::{FdbConfig, FdbStore, NetworkConfig};

use common::{Place, holder};

/// Where a child may leave files.
const FOLDER: &str = "LITEFLEET_TEST_FOLDER";

/// Runs one of the ignored tests of this file in a process of its own. Returns what it wrote to standard error.
#[track_caller]
fn in_a_child(test: &str, environment: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().expect("this test's program"));
    child.args(["--exact", test, "--ignored", "--nocapture"]).envs(environment.iter().copied());
    let output = child.output().expect("a child");
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{test} {environment:?}: {said}{error}");
    error.into_owned()
}

/// The rules for TLS that a child has.
const RULES: &str = "LITEFLEET_TEST_RULES";
/// What a forked process does with the store that it has inherited, if not nothing.
const FORKED: &str = "LITEFLEET_TEST_FORKED";

async fn use_a_store(place: &Place, config: FdbConfig) -> Result<Arc<FdbStore>> {
    let store = Arc::new(FdbStore::open(config).await?);
    let session = holder::session(&store, holder::LONG).await;
    let mut holder = holder::Holder::new(&store, session, "a").await;
    holder.commit(b"record").await?;
    holder.checkpoint(vec![holder::image(1, holder.txid)], true).await?;
    assert_eq!(holder.read(1, 1).await?.len(), 1, "{}", place.cluster_file.display());
    Ok(store)
}

#[test]
fn a_process_that_has_used_a_store_ends_well() {
    // By returning from `main`, long after the store was closed.
    in_a_child("child_opens_a_store", &[]);
}

#[test]
fn a_forked_process_ends_well_and_is_told_that_it_can_have_no_store() {
    // As by Python's os.fork() and sys.exit(): the exit handlers are inherited, the network thread is not.
    for forked in ["leaves it", "drops it"] {
        let error = in_a_child("child_forks_with_a_store_open", &[(FORKED, forked)]);
        assert_eq!(error, "", "{forked}");
    }
}

#[test]
#[ignore = "run by a_forked_process_ends_well_and_is_told_that_it_can_have_no_store"]
fn child_forks_with_a_store_open() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = runtime.block_on(use_a_store(&place, place.config())).expect("the library will do");
    let drops = std::env::var(FORKED).is_ok_and(|what| what == "drops it");
    #[expect(unsafe_code, reason = "as an application would")]
    // SAFETY: what the new process does needs no thread of this one, nor a lock that one may have held.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        if drops {
            drop(store);
        }
        let refused = FdbStore::open_blocking(place.config()).map(drop).map_err(|error| error.kind());
        let status = i32::from(refused != Err(ErrorKind::Invalid));
        #[expect(unsafe_code, reason = "as an application would")]
        // SAFETY: it is the only thread of this process.
        unsafe {
            libc::exit(status)
        }
    }
    let ended = async {
        let mut status = -1;
        #[expect(unsafe_code, reason = "as an application would")]
        // SAFETY: `status` is valid for writes.
        while unsafe { libc::waitpid(forked, &raw mut status, libc::WNOHANG) } == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        status
    };
    let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), ended).await });
    let Ok(status) = ended else {
        #[expect(unsafe_code, reason = "it must not outlive the test")]
        // SAFETY: it is a child of this process that was not waited for yet.
        unsafe {
            libc::kill(forked, libc::SIGKILL)
        };
        panic!("it does not end");
    };
    assert_eq!(status, 0, "it was refused as invalid, and ended with that");
    let listed = runtime.block_on(store.list("", None, 10)).expect("here it is open as before");
    assert_eq!(listed.len(), 1);
}

#[test]
#[cfg_attr(real_cluster, ignore = "a real client library has one version")]
fn client_libraries_of_7_1_to_7_4_will_do() {
    for version in ["710", "720", "730", "740"] {
        in_a_child("child_opens_a_store", &[("LITEFLEET_STAND_IN_API_VERSION", version)]);
    }
    in_a_child("child_is_told_that_its_library_is_too_old", &[("LITEFLEET_STAND_IN_API_VERSION", "700")]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_process_that_has_used_a_store_ends_well and others"]
async fn child_opens_a_store() {
    let place = Place::new();
    use_a_store(&place, place.config()).await.expect("the library will do");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by client_libraries_of_7_1_to_7_4_will_do"]
async fn child_is_told_that_its_library_is_too_old() {
    let place = Place::new();
    for _ in 0..2 {
        let error = use_a_store(&place, place.config()).await.expect_err("too old");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("700") && error.message().contains("7.1 or later"), "{error}");
    }
}

#[test]
fn an_application_may_run_the_network_itself() {
    in_a_child("child_runs_the_network_itself", &[]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by an_application_may_run_the_network_itself"]
async fn child_runs_the_network_itself() {
    let network = FdbApiBuilder::default().build().expect("a version that the library has");
    #[expect(unsafe_code, reason = "as an application would")]
    // SAFETY: the guard lives until the test is over, and the process ends after it.
    let guard = unsafe { network.boot() }.expect("a network thread");
    let place = Place::new();
    let error = use_a_store(&place, place.config()).await.expect_err("it cannot be started twice");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("run_by_application"), "{error}");
    let network = NetworkConfig { run_by_application: true, ..NetworkConfig::default() };
    use_a_store(&place, FdbConfig { network, ..place.config() }).await.expect("it runs");
    drop(place);
    drop(guard);
}

#[test]
fn every_option_reaches_the_client_library() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    in_a_child("child_sets_every_option", &[(FOLDER, folder.path().to_str().expect("UTF-8"))]);
    if cfg!(real_cluster) {
        let traces = std::fs::read_dir(folder.path()).expect("the folder").filter_map(std::result::Result::ok);
        let traces: Vec<_> = traces.map(|file| file.file_name()).collect();
        assert!(traces.iter().any(|name| name.to_string_lossy().ends_with(".json")), "a trace in JSON: {traces:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by every_option_reaches_the_client_library"]
async fn child_sets_every_option() {
    let folder = std::env::var(FOLDER).expect("a folder");
    let folder = Path::new(&folder);
    // What is in them is looked at when a connection with TLS is made: the cluster of the tests has none.
    let pem = |name: &str, kind: &str| {
        let path = folder.join(name);
        std::fs::write(&path, format!("-----BEGIN {kind}-----\n")).expect("it is written");
        Some(path)
    };
    let network = NetworkConfig {
        trace_directory: Some(folder.into()),
        trace_format: Some("json".into()),
        trace_log_group: Some("litefleet-test".into()),
        tls_certificate: pem("certificate.pem", "CERTIFICATE"),
        tls_key: pem("key.pem", "PRIVATE KEY"),
        tls_password: Some("secret".into()),
        tls_ca: pem("ca.pem", "CERTIFICATE"),
        tls_verify_peers: Some("Check.Valid=1".into()),
        external_client_directory: None,
        knobs: vec!["max_trace_lines=1000000".into()],
        run_by_application: false,
    };
    let place = Place::new();
    let config = FdbConfig {
        tags: ["a", "b", "c", "d", "sixteen-bytes-00"].map(str::to_owned).to_vec(),
        retry_limit: Some(20),
        max_retry_delay: Duration::from_millis(100),
        datacenter: Some("dc".into()),
        machine: Some("machine".into()),
        max_watches: 17,
        network,
        ..place.config()
    };
    let store = FdbStore::open(config.clone()).await.expect("every option is one");
    let opened = store.open(holder::open_request("b", None)).await.expect("created");
    store.watch(opened.database, opened.head.txid).await.expect("there is nothing to see, in time");
    use_a_store(&place, config.clone()).await.expect("it works with them");
    // While certificates are being replaced. Nothing reads them: the network thread runs.
    for file in ["certificate.pem", "key.pem", "ca.pem"] {
        std::fs::remove_file(folder.join(file)).expect("it was there");
    }
    FdbStore::open(config).await.expect("the settings are the same");
}

/// It was said to be unavailable, and so was every store from then on, whatever its settings.
#[test]
fn settings_that_cannot_be_are_told_and_can_be_corrected() {
    in_a_child("child_corrects_its_settings", &[]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by settings_that_cannot_be_are_told_and_can_be_corrected"]
async fn child_corrects_its_settings() {
    use std::os::unix::ffi::OsStrExt as _;

    let place = Place::new();
    let no_text = Path::new(std::ffi::OsStr::from_bytes(b"/tmp/\xff")).to_path_buf();
    let right = NetworkConfig::default;
    for (word, wrong) in [
        ("UTF-8", NetworkConfig { trace_directory: Some(no_text), ..right() }),
        ("trace_format=yaml", NetworkConfig { trace_format: Some("yaml".into()), ..right() }),
        ("knob=max_trace_lines", NetworkConfig { knobs: vec!["max_trace_lines".into()], ..right() }),
    ] {
        let error = FdbStore::open(FdbConfig { network: wrong, ..place.config() }).await.expect_err("it cannot be");
        assert!(error.kind() == ErrorKind::Invalid && error.message().contains(word), "{word}: {error}");
    }
    use_a_store(&place, place.config()).await.expect("the settings are right");
}

#[test]
#[cfg_attr(not(real_cluster), ignore = "the stand-in has no TLS")]
fn tls_rules_that_are_accepted_are_read_by_the_client_library() {
    let right = ["", "Check.Valid=1,", r"S.CN=\ a b\ |Check.Valid=0", r"S.O=a\,", r"O=a\, b \7c c\3b=|I.CN>=x"];
    for rules in right {
        in_a_child("child_connects_by_tls", &[(RULES, rules)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by tls_rules_that_are_accepted_are_read_by_the_client_library"]
async fn child_connects_by_tls() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it is written");
        path
    };
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["a".into()]).expect("a name").self_signed(&key);
    let certificate = file("certificate.pem", certificate.expect("a certificate").pem());
    let network = NetworkConfig {
        tls_certificate: Some(certificate.clone()),
        tls_ca: Some(certificate),
        tls_key: Some(file("key.pem", key.serialize_pem())),
        tls_verify_peers: Some(std::env::var(RULES).expect("rules")),
        ..NetworkConfig::default()
    };
    // Nobody listens there. The rules are read before that is known: one that has no end for the client would hang it here.
    let cluster = file("fdb.cluster", "test:test@127.0.0.1:1:tls".into());
    let config = FdbConfig { network, ..FdbConfig::new(cluster) }.timeout(Duration::from_secs(2));
    let opened = tokio::time::timeout(Duration::from_secs(30), FdbStore::open(config)).await;
    let Ok(opened) = opened else {
        // Its network thread hangs, and the end of the process would wait for it.
        std::process::abort()
    };
    let error = opened.expect_err("there is no cluster");
    assert!(
        error.kind() == ErrorKind::Unavailable && error.message().contains("1031"),
        "it was asked for in vain: {error}"
    );
}
