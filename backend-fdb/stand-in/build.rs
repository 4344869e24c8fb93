//! Lets the tests run with the real library when they were linked against it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LITEFLEET_FDB_LIBRARY_DIR");
    println!("cargo::rustc-check-cfg=cfg(real_cluster)");
    if let Some(directory) = std::env::var("LITEFLEET_FDB_LIBRARY_DIR").ok().filter(|directory| !directory.is_empty()) {
        // The path in the program must win over LD_LIBRARY_PATH, where cargo names the folder with the stand-in: the old
        // form of the tag does.
        println!("cargo::rustc-link-arg-tests=-Wl,--disable-new-dtags,-rpath,{directory}");
        println!("cargo::rustc-cfg=real_cluster");
    }
}
