//! A process that is forked from one that has a store open.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use litefleet::ErrorKind;
use litefleet::store::PageStore;
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{child, now};

/// It waited for ever for the engine's workers, which are the other process's.
#[test]
fn a_forked_process_that_drops_the_store_ends_and_leaves_it_to_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let out = child::command("fork", directory.path(), 0, 0).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.contains("it ended well"), "{said}");
}

pub(crate) fn child(path: &Path) {
    let store = Arc::new(Mutex::new(Some(crate::open(path))));
    let inherited = Arc::clone(&store);
    let in_the_forked = move || {
        // In place of going on for ever.
        let seconds = Some(5);
        setrlimit(Resource::Cpu, Rlimit { current: seconds, maximum: seconds })?;
        let store = inherited.lock().map_err(|_| io::ErrorKind::Other)?.take();
        drop(store);
        Ok(())
    };
    let mut forked = Command::new("true");
    #[expect(unsafe_code, reason = "what a fork does can only be seen in one")]
    // SAFETY: no other thread of this program holds a lock now that the store's end takes.
    unsafe {
        forked.pre_exec(in_the_forked)
    };
    assert!(forked.status().unwrap().success());
    let store = store.lock().unwrap();
    now(store.as_ref().unwrap().list("", None, 1)).unwrap();
    let again = EmbeddedStore::open(EmbeddedConfig::new(path)).map(drop);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Unavailable, "the store is still locked");
    println!("it ended well");
}
