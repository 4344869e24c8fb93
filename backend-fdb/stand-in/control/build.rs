//! Says where `libfdb_c` is: the real one, or the stand-in that cargo has built beside us.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=LITEFLEET_FDB_LIBRARY_DIR");
    // The folder is not where it was when the whole target folder has moved: then what this says is no longer true.
    println!("cargo::rerun-if-changed={}", std::env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let real = std::env::var("LITEFLEET_FDB_LIBRARY_DIR").ok().filter(|dir| !dir.is_empty());
    let directory = real.as_ref().map_or_else(beside_us, PathBuf::from);
    println!("cargo::rustc-link-search=native={}", directory.display());
    println!("cargo::rustc-env=LITEFLEET_FDB_LINKED={}", if real.is_some() { "real" } else { "stand-in" });
}

/// `…/PROFILE/deps`: shared libraries among the dependencies lie there, under their plain names.
fn beside_us() -> PathBuf {
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let profile = Path::new(&out).ancestors().nth(3).expect("OUT_DIR is PROFILE/build/PACKAGE/out");
    profile.join("deps")
}
