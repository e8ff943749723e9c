//! `paxflow db`: the database by hand.

mod check;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say in one line whether the database answers: exit 0 if it does, 1 if not
    #[command(after_help = "Example:\n  paxflow db check && paxflow run")]
    Check,
}

pub(super) async fn run(command: &Command, config: &Config) -> Result<ExitCode> {
    match command {
        Command::Check => check::run(config).await,
    }
}
