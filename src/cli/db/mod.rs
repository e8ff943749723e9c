//! `paxflow db`: the database by hand.

mod backup;
mod check;
mod create;
mod drop;
mod init;
mod migrate;
mod restore;
mod status;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

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
    /// Write a backup with pg_dump, in its custom format, and read it back; also while workers run
    #[command(
        after_help = "Needs pg_dump and pg_restore of the server's version or a newer one (package postgresql-client). \
        The file holds personal data: only its owner may read it. It stands there when it is complete and not before; \
        until then it is FILE.partial. Roles and rights are no part of it: deploy/roles.sql.\n\n\
        Example:\n  paxflow db backup market-$(date +%F).dump"
    )]
    Backup(backup::Arguments),
    /// Restore a backup into an empty database, then verify it
    #[command(
        after_help = "One transaction: it happens as a whole or not at all. Rows are counted, an older schema is upgraded, \
        and MarketData is compared with its recompute: exit 0 if it is exact, 1 if not. It goes to DATABASE_DIRECT_URL \
        where that is set, and not to DATABASE_URL.\n\n\
        Example:\n  DATABASE_URL=postgres://paxflow@db/fresh paxflow db restore market-2026-08-01.dump"
    )]
    Restore(restore::Arguments),
}

pub(super) async fn run(command: &Command, config: &Config) -> Result<ExitCode> {
    match command {
        Command::Status(arguments) => status::run(arguments, config).await,
        Command::Check => check::run(config).await,
        Command::Init(arguments) => init::run(arguments, config).await,
        Command::Reset(arguments) => drop::reset(arguments, config).await,
        Command::Drop(arguments) => drop::run(arguments, config).await,
        Command::Migrate(arguments) => migrate::run(arguments, config).await,
        Command::Backup(arguments) => backup::run(arguments, config).await,
        Command::Restore(arguments) => restore::run(arguments, config).await,
    }
}

/// SIGINT or SIGTERM, from this call on: they no longer end the process by themselves.
fn interrupted() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
