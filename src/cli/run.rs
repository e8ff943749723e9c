//! `paxflow run`: boot, work, stop.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use chrono::Utc;
use sqlx::postgres::PgConnectOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::broker::{self, Topology};
use crate::config::{Config, Pooler};
use crate::db::{self, Fault, fault_of};
use crate::health::Health;
use crate::stop::Stop;
use crate::upkeep::{self, Upkeep};
use crate::worker::{self, Worker};
use crate::{apply, http, telemetry};

/// Exit code of a worker that was told twice to stop.
const STOPPED_AT_ONCE: i32 = 130;

/// Where Rust's threads take the size of their stacks from.
const STACK_VARIABLE: &str = "RUST_MIN_STACK";
/// Enough for headers that are nested as deep as a frame of 128 KiB has room for: 26,000 levels. The pages
/// are taken only when they are used.
const STACK_MIB: usize = if cfg!(debug_assertions) { 512 } else { 64 };

/// Starts the program anew, as the same process, with room for deeply nested headers: the AMQP library
/// reads them by recursion, on a thread of its own that takes the size of its stack from the environment
/// alone. With the usual 2 MiB one message of 12 KB would abort the process.
pub(super) fn with_deep_stacks() {
    if crate::config::is_set(STACK_VARIABLE) {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // Returns only if it fails; then the program goes on as it is.
        let _ = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(STACK_VARIABLE, (STACK_MIB << 20).to_string())
            .exec();
    }
}

pub(super) async fn run(config: Config) -> Result<ExitCode> {
    let metrics = telemetry::start_metrics()?;
    let health = Health::default();
    let stop = stop_on_signals()?;
    let listener = http::bind(config.http_addr).await?;
    let serving = listener
        .local_addr()
        .context("cannot tell where it serves")?;
    tokio::spawn(http::serve(listener, health.clone(), metrics));

    let pooler = config.pool.pooler;
    let options = pooler.options(config.database_url()?, "worker")?;
    let direct = config.direct_url().ok();
    let direct = direct.map(|url| db::options(url, "worker")).transpose()?;
    let amqp_url = config.amqp_url()?.clone();
    broker::check_url(&amqp_url)?;
    info!(
        database = db::address(&options),
        broker = broker::address(&amqp_url),
        http = %serving,
        copies = db::sockets::is_possible(),
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    let databases = Databases {
        pooled: &options,
        direct: direct.as_ref(),
        direct_setting: config.direct_setting(),
    };
    if !migrate(&databases, &health, &mut stop.clone()).await? {
        info!("stopped before the schema was up to date");
        return Ok(ExitCode::SUCCESS);
    }
    let as_batches = options.clone().application_name("paxflow upkeep");
    let worker = Worker {
        committer: committer(pooler),
        amqp_url,
        topology: Topology::of(&config),
        pool: db::pool::open(options, config.pool),
        health,
        batch_max: config.batch_max,
        batch_linger: config.batch_linger,
        prefetch: config.prefetch,
        hold_max: worker::HOLD_MAX,
    };
    if direct.is_none() {
        warn!("no DATABASE_DIRECT_URL: this worker verifies nothing and forgets nothing");
    }
    let upkeep = direct.map(|database| {
        let is_another = as_batches.get_username() != database.get_username();
        tokio::spawn(upkeep::run(Upkeep {
            as_batches: is_another.then_some(as_batches),
            database: database.application_name("paxflow upkeep"),
            verify_every: config.verify_every,
            quarantine_days: config.quarantine_days,
        }))
    });
    // On the thread that commits: each batch would wake this one for a moment otherwise.
    let ended = tokio::spawn(async move { worker::run(&worker, stop).await });
    let ended = ended.await.context("the worker failed")?;
    if let Some(upkeep) = upkeep {
        upkeep.abort();
    }
    ended?;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Where a worker works.
struct Databases<'a> {
    /// Where its batches go.
    pooled: &'a PgConnectOptions,
    /// PostgreSQL itself, if anything leads there.
    direct: Option<&'a PgConnectOptions>,
    /// What leads there.
    direct_setting: &'static str,
}

impl Databases<'_> {
    /// Brings the schema up to date, or sees that it is if nothing leads to PostgreSQL itself, and that the role may work on it.
    ///
    /// # Errors
    /// What is wrong, after where.
    async fn migrate(&self) -> Result<(), (String, anyhow::Error)> {
        let at = |options, setting| format!("{} ({setting})", db::address(options));
        let of_batches = || at(self.pooled, "DATABASE_URL");
        match self.direct {
            Some(direct) => db::migrate::migrate(direct)
                .await
                .map_err(|error| (at(direct, self.direct_setting), error))?,
            None => db::migrate::require_latest(self.pooled)
                .await
                .map_err(|error| (of_batches(), error))?,
        }
        let required = db::rights::require(self.pooled).await;
        required.map_err(|error| (of_batches(), error))
    }
}

/// Makes the databases ready, waiting for one that is not there yet; `false` if told to stop meanwhile.
async fn migrate(databases: &Databases<'_>, health: &Health, stop: &mut Stop) -> Result<bool> {
    let mut backoff = Backoff::default();
    loop {
        let (database, error) = tokio::select! {
            migrated = databases.migrate() => match migrated {
                Ok(()) => return Ok(true),
                Err(problem) => problem,
            },
            // Its connection goes with it, and a revision that is not done goes back as a whole.
            () = stop.requested() => return Ok(false),
        };
        let cause = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<sqlx::Error>());
        if cause.map(fault_of) != Some(Fault::Transient) {
            return Err(error.context(format!("database at {database}")));
        }
        let reason = super::told(&error);
        let wait = backoff.next_wait();
        warn!(
            database,
            reason,
            retry_in_ms = wait.as_millis() as u64,
            "waiting for the database"
        );
        health.database(Err(reason));
        if stop.requested_within(wait).await {
            return Ok(false);
        }
    }
}

/// Under a name that no other worker has or had: in containers hosts and processes may be called alike.
pub(super) fn committer(pooler: Pooler) -> apply::Committer {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let started_at = Utc::now();
    let id = format!(
        "{}-{}-{}-{:08x}",
        host.trim(),
        std::process::id(),
        started_at.timestamp_millis(),
        rand::random::<u32>()
    );
    apply::Committer::new(id, started_at, pooler)
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
            request.send_replace(true);
            info!(signal = name, "told to stop");
        }
    });
    Ok(stop)
}
