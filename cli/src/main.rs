//! The `litefleet` command: imports, exports, queries, verifies and manages the databases of a store.

mod args;
mod cancel;
mod commands;
mod copy;
mod failure;
mod output;
mod params;
mod partial;
mod session;
mod source;
mod store_url;

use std::io::Write;
use std::process::ExitCode;

use crate::args::Cli;

fn main() -> ExitCode {
    let cli = Cli::read();
    cancel::install();
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(line) = failure.line() {
                // Nothing is left to report to when even this cannot be written.
                let _ = writeln!(std::io::stderr().lock(), "litefleet: {line}");
            }
            failure.exit().into()
        }
    }
}
