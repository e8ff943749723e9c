//! `paxflow db`: the database by hand.

mod check;
mod drop;
mod init;
mod migrate;
mod revision;
mod status;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::confirm;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Connection, revisions and pool: exit 0 if the schema is in sync with this program, 2 if not
    #[command(after_help = "Example:\n  paxflow db status --json")]
    Status(status::Arguments),
    /// Say in one line whether the database answers: exit 0 if it does, 1 if not
    #[command(after_help = "Example:\n  paxflow db check && paxflow run")]
    Check,
    /// Create what is missing: database, schema, airports
    #[command(after_help = "Example:\n  paxflow db init --sample")]
    Init(init::Arguments),
    /// Drop everything that belongs to paxflow and create it again, empty
    #[command(after_help = "Example:\n  paxflow db reset --yes")]
    Reset(drop::Arguments),
    /// Drop everything that belongs to paxflow
    #[command(after_help = "Example:\n  paxflow db drop --yes")]
    Drop(drop::Arguments),
    /// Revisions of the schema: show, apply, take back, write
    #[command(after_help = "Example:\n  paxflow db migrate upgrade --dry-run")]
    Migrate(migrate::Arguments),
}

pub(super) async fn run(command: &Command, config: &Config) -> Result<ExitCode> {
    match command {
        Command::Status(arguments) => status::run(arguments, config).await,
        Command::Check => check::run(config).await,
        Command::Init(arguments) => init::run(arguments, config).await,
        Command::Reset(arguments) => drop::reset(arguments, config).await,
        Command::Drop(arguments) => drop::run(arguments, config).await,
        Command::Migrate(arguments) => migrate::run(arguments, config).await,
    }
}
