//! `paxflow status`: one screen.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgConnection;
use sqlx::{FromRow, Row};

use super::say;
use crate::audit::{self, Newest};
use crate::broker::{self, Topology};
use crate::config::Config;
use crate::db::migrate::MIGRATOR;
use crate::db::revisions;

/// How long the rate is measured for.
const RATE_OVER: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Status {
    schema_revision: i64,
    latest_revision: i64,
    queue: Queue,
    workers: Workers,
    events_per_second: f64,
    quarantine_open: i64,
    last_verify: Option<Newest>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Queue {
    Seen {
        name: String,
        ready: u32,
        consumers: u32,
        /// Those that were delivered too often; none where their queue cannot be seen.
        dead_letters: Option<u32>,
    },
    Unseen {
        name: String,
        problem: String,
    },
}

#[derive(Debug, Serialize, FromRow)]
struct Workers {
    received: i64,
    applied: i64,
    duplicate: i64,
    stale: i64,
    folded: i64,
    quarantined: i64,
    batches: i64,
    last_commit_at: Option<DateTime<Utc>>,
    /// Time of the newest committed event.
    last_event_at: Option<DateTime<Utc>>,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<ExitCode> {
    let mut connection = super::database(config, "status").await?;
    let status = look(&mut connection, config).await?;
    if arguments.json {
        say!(
            "{}",
            serde_json::to_string_pretty(&status).context("cannot write the status")?
        );
    } else {
        print(&status, Utc::now())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn look(connection: &mut PgConnection, config: &Config) -> Result<Status> {
    let schema_revision = super::require_schema(connection).await?;
    let before = workers(connection).await?;
    tokio::time::sleep(RATE_OVER).await;
    let workers = workers(connection).await?;
    let quarantine = "SELECT count(*) FROM quarantined_events WHERE state = 'open'";
    Ok(Status {
        schema_revision,
        latest_revision: revisions::latest(&MIGRATOR),
        queue: queue(config).await?,
        events_per_second: (workers.received - before.received) as f64 / RATE_OVER.as_secs_f64(),
        workers,
        quarantine_open: sqlx::query(quarantine)
            .fetch_one(&mut *connection)
            .await?
            .try_get(0)?,
        last_verify: audit::newest(connection).await?,
    })
}

async fn workers(connection: &mut PgConnection) -> Result<Workers> {
    sqlx::query_as(include_str!("workers.sql"))
        .fetch_one(connection)
        .await
        .context("cannot read worker_progress")
}

async fn queue(config: &Config) -> Result<Queue> {
    let (url, topology) = (config.amqp_url()?, Topology::of(config));
    let problem = match broker::queue_state(url, &topology.queue).await {
        Ok(Some(queue)) => {
            let dead_letters = broker::queue_state(url, &topology.dead_letters()).await;
            return Ok(Queue::Seen {
                name: topology.queue,
                ready: queue.ready,
                consumers: queue.consumers,
                dead_letters: dead_letters.ok().flatten().map(|queue| queue.ready),
            });
        }
        Ok(None) => "does not exist yet".to_owned(),
        Err(error) => error.to_string(),
    };
    Ok(Queue::Unseen {
        name: topology.queue,
        problem,
    })
}

fn print(status: &Status, now: DateTime<Utc>) -> std::io::Result<()> {
    let Status { workers: w, .. } = status;
    say!(
        "schema      revision {} of {}",
        status.schema_revision,
        status.latest_revision
    );
    match &status.queue {
        Queue::Seen {
            name,
            ready,
            consumers,
            dead_letters,
        } => {
            let dead = dead_letters.map_or("no queue for".to_owned(), |count| count.to_string());
            say!("queue       {name}: {ready} ready, {consumers} consumers, {dead} dead letters");
        }
        Queue::Unseen { name, problem } => say!("queue       {name}: {problem}"),
    }
    say!("rate        {:.0} events/s", status.events_per_second);
    say!("commit      {}", ago(w.last_commit_at, now));
    say!(
        "lag         newest committed event {}",
        ago(w.last_event_at, now)
    );
    say!("received    {} in {} batches", w.received, w.batches);
    say!("  applied      {:>12}", w.applied);
    say!("  duplicate    {:>12}", w.duplicate);
    say!("  stale        {:>12}", w.stale);
    say!("  folded       {:>12}", w.folded);
    say!("  quarantined  {:>12}", w.quarantined);
    say!("quarantine  {} open", status.quarantine_open);
    match &status.last_verify {
        None => say!("verify      never"),
        Some(verify) => {
            let when = ago(Some(verify.finished_at), now);
            say!(
                "verify      {} rows, {} differ, {when}",
                verify.row_count,
                verify.drift_count
            );
        }
    }
    Ok(())
}

fn ago(then: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    let Some(then) = then else {
        return "never".to_owned();
    };
    let seconds = (now - then).num_seconds();
    let time = super::utc(then);
    match seconds {
        ..0 => time,
        0..120 => format!("{time} ({seconds} s ago)"),
        120..7200 => format!("{time} ({} min ago)", seconds / 60),
        7200..172_800 => format!("{time} ({} h ago)", seconds / 3600),
        _ => format!("{time} ({} days ago)", seconds / 86_400),
    }
}
