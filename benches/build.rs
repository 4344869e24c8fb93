//! Compiles SQLite's speedtest1.c into the program when `LITEFLEET_SPEEDTEST1_C` names it (see `speedtest1.sh`), against
//! the same SQLite that everything else here is linked to.

use std::env;

fn main() {
    println!("cargo::rerun-if-env-changed=LITEFLEET_SPEEDTEST1_C");
    println!("cargo::rustc-check-cfg=cfg(speedtest1)");
    let Some(source) = env::var_os("LITEFLEET_SPEEDTEST1_C").filter(|path| !path.is_empty()) else { return };
    println!("cargo::rerun-if-changed={}", source.to_string_lossy());
    let mut build = cc::Build::new();
    // Set by libsqlite3-sys: where the header of the SQLite is that it links.
    if let Some(include) = env::var_os("DEP_SQLITE3_INCLUDE") {
        build.include(include);
    }
    build.file(source).define("main", "speedtest1_main").warnings(false).compile("speedtest1");
    println!("cargo::rustc-cfg=speedtest1");
}
