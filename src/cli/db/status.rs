//! `paxflow db status`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::FromRow;
use sqlx::postgres::PgConnection;

use crate::cli::{database, say};
use crate::config::Config;
use crate::db::migrate::MIGRATOR;
use crate::db::revisions::{self, Revision, Standing, State};
use crate::db::{self, reference};

/// Exit code of a schema that this program cannot work with as it is.
const NOT_IN_SYNC: u8 = 2;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Status {
    address: String,
    #[serde(flatten)]
    server: Server,
    current: Option<Revision>,
    latest_revision: i64,
    in_sync: bool,
    /// Whether all that is missing is the airports of this version.
    lacks_airports: bool,
    behind: usize,
    ahead: usize,
    dirty: Vec<i64>,
    edited: Vec<i64>,
    pool: Pool,
}

#[derive(Debug, Serialize, FromRow)]
struct Server {
    user_name: String,
    server_version: String,
    max_connections: i32,
    reserved_connections: i32,
}

#[derive(Debug, Serialize)]
struct Pool {
    size: u32,
    max_overflow: u32,
    recycle_secs: u64,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    let mut connection = database(config, "status").await?;
    let standing = revisions::standing(&mut connection, &MIGRATOR).await?;
    let status = status(&mut connection, &standing, config).await?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&status).context("cannot write the status")?;
        say!("{text}");
    } else {
        print(&status)?;
    }
    Ok(if status.in_sync {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_IN_SYNC)
    })
}

async fn status(
    connection: &mut PgConnection,
    standing: &Standing,
    config: &Config,
) -> Result<Status> {
    let numbers = |state| {
        let revisions = standing.in_state(state);
        revisions
            .map(|revision| revision.version)
            .collect::<Vec<_>>()
    };
    let lacks_airports = standing.in_sync() && !reference::is_loaded(connection).await?;
    Ok(Status {
        address: db::address(&db::options(config.direct_url()?, "status")?),
        server: sqlx::query_as(include_str!("server.sql"))
            .fetch_one(connection)
            .await
            .context("cannot read the server's settings")?,
        current: standing.current().cloned(),
        latest_revision: revisions::latest(&MIGRATOR),
        in_sync: standing.in_sync() && !lacks_airports,
        lacks_airports,
        behind: numbers(State::Pending).len(),
        ahead: numbers(State::Unknown).len(),
        dirty: numbers(State::Dirty),
        edited: numbers(State::Edited),
        pool: Pool {
            size: config.pool.size,
            max_overflow: config.pool.max_overflow,
            recycle_secs: config.pool.recycle.as_secs(),
        },
    })
}

fn print(status: &Status) -> std::io::Result<()> {
    let Status { server, pool, .. } = status;
    say!("connection  {}@{}", server.user_name, status.address);
    say!("server      PostgreSQL {}", server.server_version);
    match &status.current {
        None => say!("current     none: the database is empty"),
        Some(Revision {
            version,
            message,
            applied_at,
            ..
        }) => {
            let applied = applied_at.map(|at| format!(", applied {}", crate::cli::utc(at)));
            say!(
                "current     {version} {message}{}",
                applied.unwrap_or_default()
            );
        }
    }
    say!("latest      {}", status.latest_revision);
    say!("state       {}", state(status));
    say!(
        "pool        {} connections and {} more under load, each replaced after {} s",
        pool.size,
        pool.max_overflow,
        pool.recycle_secs
    );
    say!(
        "            the server allows {}, {} of them reserved for administrators",
        server.max_connections,
        server.reserved_connections
    );
    Ok(())
}

/// What is the matter, and what to do.
fn state(status: &Status) -> String {
    let Status {
        behind,
        ahead,
        dirty,
        edited,
        ..
    } = status;
    let mut findings = Vec::new();
    if *behind > 0 {
        findings.push(format!("{behind} behind: paxflow db migrate upgrade"));
    }
    if *ahead > 0 {
        findings.push(format!("{ahead} ahead: run a newer paxflow"));
    }
    for version in dirty {
        findings.push(format!("revision {version} is dirty: it did not finish"));
    }
    for version in edited {
        findings.push(format!(
            "revision {version} was edited after it was applied: restore its file"
        ));
    }
    if status.lacks_airports {
        findings.push(
            "the airports of this version are not loaded: paxflow db migrate upgrade".to_owned(),
        );
    }
    if findings.is_empty() {
        findings.push("in sync".to_owned());
    }
    findings.join("; ")
}
