//! `paxflow run`: boot, work, stop.

use std::process::ExitCode;

use anyhow::{Context, Result};
use chrono::Utc;
use sqlx::postgres::PgConnectOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::broker::{self, Topology};
use crate::config::Config;
use crate::db::{self, Fault, fault_of};
use crate::health::Health;
use crate::upkeep::{self, Upkeep};
use crate::worker::{self, Stop, Worker};
use crate::{apply, http, telemetry};

/// Exit code of a worker that was told twice to stop.
const STOPPED_AT_ONCE: i32 = 130;

pub(super) async fn run(config: Config) -> Result<ExitCode> {
    let metrics = telemetry::start_metrics()?;
    let health = Health::default();
    let stop = stop_on_signals()?;
    let listener = http::bind(config.http_addr).await?;
    let serving = listener
        .local_addr()
        .context("cannot tell where it serves")?;
    tokio::spawn(http::serve(listener, health.clone(), metrics));

    let options = db::options(config.database_url()?, "worker")?;
    let amqp_url = config.amqp_url()?.clone();
    info!(
        database = db::address(&options),
        broker = broker::address(&amqp_url),
        http = %serving,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    if !migrate(&options, &health, &mut stop.clone()).await? {
        return Ok(ExitCode::SUCCESS);
    }
    let upkeep = Upkeep {
        database: db::options(config.database_url()?, "upkeep")?,
        verify_every: config.verify_every,
        quarantine_days: config.quarantine_days,
    };
    let worker = Worker {
        identity: identity(),
        amqp_url,
        topology: Topology {
            exchange: config.exchange,
            queue: config.queue,
        },
        pool: db::pool::open(options, config.pool),
        health,
        batch_max: config.batch_max,
        batch_linger: config.batch_linger,
        prefetch: config.prefetch,
    };
    let upkeep = tokio::spawn(upkeep::run(upkeep));
    let ended = worker::run(&worker, stop).await;
    upkeep.abort();
    ended?;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Brings the schema up to date, waiting for a database that is not there yet; `false` if told to
/// stop meanwhile.
async fn migrate(options: &PgConnectOptions, health: &Health, stop: &mut Stop) -> Result<bool> {
    let mut backoff = Backoff::default();
    while let Err(error) = db::migrate::migrate(options).await {
        let cause = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<sqlx::Error>());
        if cause.map(fault_of) != Some(Fault::Transient) {
            return Err(error.context(format!("database at {}", db::address(options))));
        }
        let reason = format!("{error:#}");
        let wait = backoff.next_wait();
        warn!(
            database = db::address(options),
            reason,
            retry_in_ms = wait.as_millis() as u64,
            "waiting for the database"
        );
        health.database(Err(reason));
        if stop.requested_within(wait).await {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A name that no other worker has or had.
pub(super) fn identity() -> apply::Worker {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let started_at = Utc::now();
    let id = format!(
        "{}-{}-{}",
        host.trim(),
        std::process::id(),
        started_at.timestamp_millis()
    );
    apply::Worker { id, started_at }
}

/// SIGTERM or SIGINT requests a stop; a second one ends the process where it stands, which loses
/// nothing: what is not committed is not acknowledged.
fn stop_on_signals() -> Result<Stop> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let (request, stop): (watch::Sender<bool>, Stop) = Stop::new();
    tokio::spawn(async move {
        for again in [false, true] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if again {
                warn!(signal = name, "told twice to stop: leaving at once");
                std::process::exit(STOPPED_AT_ONCE);
            }
            info!(signal = name, "told to stop");
            request.send_replace(true);
        }
    });
    Ok(stop)
}
