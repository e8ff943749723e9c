//! Boot and dispatch.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use paxflow::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli::dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            writeln!(std::io::stderr(), "paxflow: {}", cli::told(&error)).ok();
            ExitCode::FAILURE
        }
    }
}
