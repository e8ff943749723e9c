//! The commands: one file each.

mod check;
mod confirm;
mod db;
mod demo;
mod docs;
mod doctor;
mod generate;
mod lines;
mod publish;
mod quarantine;
mod rebuild;
mod run;
mod schema;
mod status;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use clap::{Parser, Subcommand};
use sqlx::postgres::PgConnection;
use tracing::warn;

use crate::config::{Config, SETTINGS};
use crate::db::migrate::MIGRATOR;
use crate::db::revisions;
use crate::telemetry;

/// Exit code of a command whose output nobody reads on, as if SIGPIPE had ended it.
const NOBODY_READS: u8 = 141;
/// Exit code of `verify` where it could not compare.
const NOT_VERIFIED: u8 = 2;

/// Booking and flight events in, exact MarketData out.
#[derive(Debug, Parser)]
#[command(version, about, after_long_help = configuration_help(), propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch it work: private servers, the sample events, the top markets and the proof
    #[command(after_help = "Example:\n  paxflow demo --keep")]
    Demo(demo::Arguments),
    /// The worker: migrate, consume, apply, until SIGTERM or SIGINT
    #[command(
        after_help = "Example:\n  DATABASE_URL=postgres://paxflow:...@db/market AMQP_URL=amqp://paxflow:...@mq paxflow run"
    )]
    Run,
    /// Validate events and publish them with confirms
    #[command(
        after_help = "Example:\n  paxflow publish --skip-invalid events.ndjson\n  paxflow generate --events 1000 --seed 1 | paxflow publish -"
    )]
    Publish(publish::Arguments),
    /// Validate events: for producers; exit 1 if one is rejected
    #[command(after_help = "Example:\n  paxflow check events.ndjson")]
    Check(check::Arguments),
    /// Write a seeded sample world as NDJSON: the same bytes for the same arguments
    #[command(
        after_help = "Example:\n  paxflow generate --events 100000 --seed 7 --bad-ratio 0.01 > events.ndjson"
    )]
    Generate(generate::Arguments),
    /// Print the JSON Schemas of the events, or the AsyncAPI 3 document
    #[command(after_help = "Example:\n  paxflow schema asyncapi > asyncapi.json")]
    Schema(schema::Arguments),
    /// Recompute what is stored, market_data, market_fares and market_activity, and compare: exit 0 if exact, 1 if a cell
    /// differs, 2 if they could not be compared
    #[command(after_help = "Example:\n  paxflow verify --repair")]
    Verify(verify::Arguments),
    /// Rebuild MarketData beside the live rows while events flow: exit 0 if exact
    #[command(after_help = "Example:\n  paxflow rebuild")]
    Rebuild(rebuild::Arguments),
    /// Look at the events that were set aside, replay or discard them
    #[command(
        subcommand,
        after_help = "Example:\n  paxflow quarantine list\n  paxflow quarantine replay --reason refused_by_database --dry-run"
    )]
    Quarantine(quarantine::Command),
    /// One screen: schema, queue, verdicts, rates, quarantine, last verify
    #[command(after_help = "Example:\n  paxflow status --json")]
    Status(status::Arguments),
    /// Check broker and database for what could lose messages or block: exit 1 if any
    #[command(after_help = "Example:\n  paxflow doctor --json")]
    Doctor(doctor::Arguments),
    /// Manage the database: revisions, reference data, backups
    #[command(subcommand, after_help = "Example:\n  paxflow db status")]
    Db(db::Command),
    /// Print shell completions
    #[command(after_help = "Example:\n  paxflow completions bash > /etc/bash_completion.d/paxflow")]
    Completions(docs::Completions),
    /// Write the man pages into a directory
    #[command(after_help = "Example:\n  paxflow man /usr/local/share/man/man1")]
    Man(docs::Man),
}

/// Writes a line to stdout. Unlike `println!` it does not panic when nobody reads on, as with head:
/// `dispatch` ends the command quietly then.
macro_rules! say {
    ($($text:tt)*) => {
        std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($text)*)))?
    };
}
use say;

fn configuration_help() -> String {
    let mut help = String::from(
        "Configuration, from the environment or a .env file in the working directory:\n",
    );
    for setting in SETTINGS {
        let default = if setting.default.is_empty() {
            String::new()
        } else {
            format!(" [default: {}]", setting.default)
        };
        help.push_str(&format!(
            "  {}={}{default}\n      {}\n",
            setting.name, setting.form, setting.meaning
        ));
    }
    help
}

/// Runs a command. One that fails says in one line on stderr what failed, where, and what to do.
pub fn dispatch(cli: Cli) -> ExitCode {
    let failure = match &cli.command {
        // For `verify`, 1 is an answer.
        Command::Verify(_) => ExitCode::from(NOT_VERIFIED),
        _ => ExitCode::FAILURE,
    };
    run_command(cli.command).unwrap_or_else(|error| {
        let cause = error.downcast_ref::<std::io::Error>();
        if cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe) {
            return ExitCode::from(NOBODY_READS);
        }
        writeln!(std::io::stderr(), "paxflow: {}", told(&error)).ok();
        failure
    })
}

/// An error and its causes in one line, each said once.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain() {
        let refusal = match cause.downcast_ref() {
            Some(sqlx::Error::Database(refusal)) => Some(refusal.message()),
            _ => None,
        };
        let said = refusal.map_or_else(|| cause.to_string(), str::to_owned);
        if told.is_empty() {
            told = said;
        } else if !told.contains(&said) {
            told = format!("{told}: {said}");
        }
        // The driver's own words for it name a line of the server's source.
        if refusal.is_some() {
            break;
        }
    }
    told
}

fn run_command(command: Command) -> Result<ExitCode> {
    match command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Completions(arguments) => docs::completions(&arguments),
        Command::Man(arguments) => docs::man(&arguments),
        Command::Demo(arguments) => {
            with_runtime(async |config| demo::run(&arguments, config).await)
        }
        Command::Run => {
            run::with_deep_stacks();
            with_runtime(run::run)
        }
        Command::Publish(arguments) => {
            with_runtime(async |config| publish::run(&arguments, &config).await)
        }
        Command::Verify(arguments) => {
            with_runtime(async |config| verify::run(&arguments, &config).await)
        }
        Command::Rebuild(arguments) => {
            with_runtime(async |config| rebuild::run(&arguments, &config).await)
        }
        Command::Quarantine(command) => {
            with_runtime(async |config| quarantine::run(&command, &config).await)
        }
        Command::Status(arguments) => {
            with_runtime(async |config| status::run(&arguments, &config).await)
        }
        Command::Doctor(arguments) => {
            with_runtime(async |config| doctor::run(&arguments, &config).await)
        }
        Command::Db(command) => with_runtime(async |config| db::run(&command, &config).await),
    }
}

/// Runs a command beside one thread for the tasks it starts: a second one would be woken for what the first is about to do,
/// and each wake waits for a processor.
fn with_runtime(command: impl AsyncFnOnce(Config) -> Result<ExitCode>) -> Result<ExitCode> {
    let config = Config::from_env()?;
    telemetry::start_logging(&config)?;
    for (setting, parameter) in config.ignored_parameters() {
        warn!(
            setting,
            parameter, "the URL has a parameter that is not known, and ignored"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(command(config));
    // A name server that says nothing is waited for on a thread of its own, which nothing can interrupt.
    runtime.shutdown_background();
    ended
}

/// 0 where all is well, 1 where a command has found what is not.
fn exit_code(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A time as it is shown to people.
fn utc(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Connects a command to a database that has our schema.
async fn database_with_schema(config: &Config, purpose: &str) -> Result<PgConnection> {
    let mut connection = database(config, purpose).await?;
    require_schema(&mut connection).await?;
    Ok(connection)
}

/// The revision of the schema, which is the latest that this program knows, or one of a later program.
async fn require_schema(connection: &mut PgConnection) -> Result<i64> {
    let standing = revisions::standing(connection, &MIGRATOR).await?;
    let (current, latest) = (standing.current_version(), revisions::latest(&MIGRATOR));
    ensure!(
        current >= latest,
        "the schema is at revision {current} and this program knows {latest}: see paxflow db status"
    );
    Ok(current)
}

/// Connects a command to the database.
async fn database(config: &Config, purpose: &str) -> Result<PgConnection> {
    let options = crate::db::options(config.direct_url()?, purpose)?;
    let connected = crate::db::connect(&options).await;
    connected.map_err(crate::db::explain).with_context(|| {
        format!(
            "cannot connect to the database at {} ({})",
            crate::db::address(&options),
            config.direct_setting()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_command_ends_though_a_name_server_says_nothing() {
        let (_silent, answer) = mpsc::channel::<()>();
        let before = Instant::now();
        let ended = with_runtime(async |_| {
            let (began, begun) = tokio::sync::oneshot::channel();
            // As the runtime looks names up.
            tokio::task::spawn_blocking(move || {
                began.send(()).ok();
                answer.recv_timeout(Duration::from_secs(60)).ok();
            });
            begun.await?;
            Ok(ExitCode::SUCCESS)
        });
        assert_eq!(ended.unwrap(), ExitCode::SUCCESS);
        assert!(before.elapsed() < Duration::from_secs(10));
    }
}
