//! Tests on a real cluster load the client library from the folder that they were linked against: cargo puts the folder
//! of the stand-in before others otherwise. And those that count requests or inject faults are ignored then, visibly.
//! Nothing is done for anybody else.

fn main() {
    println!("cargo::rerun-if-env-changed=LITEFLEET_FDB_LIBRARY_DIR");
    println!("cargo::rustc-check-cfg=cfg(real_cluster)");
    if let Some(directory) = std::env::var("LITEFLEET_FDB_LIBRARY_DIR").ok().filter(|directory| !directory.is_empty()) {
        println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{directory}");
        println!("cargo::rustc-cfg=real_cluster");
    }
}
