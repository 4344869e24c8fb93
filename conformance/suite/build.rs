//! On a real FoundationDB cluster the client library comes from the folder that we were linked against: cargo puts the
//! folder of the stand-in before others otherwise.

fn main() {
    println!("cargo::rerun-if-env-changed=LITEFLEET_FDB_LIBRARY_DIR");
    let real = std::env::var("LITEFLEET_FDB_LIBRARY_DIR").ok().filter(|directory| !directory.is_empty());
    if let Some(directory) = real.filter(|_| std::env::var_os("CARGO_FEATURE_FDB").is_some()) {
        println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{directory}");
    }
}
