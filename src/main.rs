//! Boot and dispatch.

use std::process::ExitCode;

use clap::Parser;
use paxflow::cli::{self, Cli};

fn main() -> ExitCode {
    cli::dispatch(Cli::parse())
}
