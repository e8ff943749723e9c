//! What operators see: log lines and metrics. Every name is declared here.

use std::io::IsTerminal;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Config, LogFormat};
use crate::{broker, db};

/// Deliveries received from the broker, by this process.
pub const RECEIVED: &str = "paxflow_deliveries_received_total";
/// Deliveries settled by a commit, by verdict.
pub const VERDICTS: &str = "paxflow_deliveries_settled_total";
/// Deliveries that went back to the broker without a verdict.
pub const REQUEUED: &str = "paxflow_deliveries_requeued_total";
/// Acknowledgements that did not reach the broker.
pub const ACKS_LOST: &str = "paxflow_acks_lost_total";
/// Committed batches.
pub const BATCHES: &str = "paxflow_batches_committed_total";
/// Events in a batch.
pub const BATCH_EVENTS: &str = "paxflow_batch_events";
/// Seconds from the first try of a batch to its commit.
pub const COMMIT_SECONDS: &str = "paxflow_batch_commit_seconds";
/// Tries of a batch that failed.
pub const RETRIES: &str = "paxflow_batch_retries_total";
/// Connections made to the broker.
pub const BROKER_SESSIONS: &str = "paxflow_broker_sessions_total";
/// Deliveries that ended the connection because they cannot be read.
pub const UNREADABLE: &str = "paxflow_deliveries_unreadable_total";
/// Whether broker and database are connected.
pub const UP: &str = "paxflow_connection_up";
/// Time of the last commit.
pub const LAST_COMMIT: &str = "paxflow_last_commit_timestamp_seconds";
/// Open database connections.
pub const POOL_OPEN: &str = "paxflow_database_connections_open";
/// Moment through which MarketData has been verified to be exact.
pub const VERIFIED_THROUGH: &str = "paxflow_verified_through_timestamp_seconds";
/// Rows that differed in the newest verification.
pub const DRIFT_ROWS: &str = "paxflow_drift_rows";

/// The counters without labels, and what operators read of them.
const COUNTERS: [(&str, &str); 7] = [
    (
        RECEIVED,
        "Deliveries received from the broker: the sum of settled, requeued and in hand",
    ),
    (
        REQUEUED,
        "Deliveries that went back to the broker without a verdict",
    ),
    (
        ACKS_LOST,
        "Acknowledgements of committed deliveries that did not reach the broker: these come again",
    ),
    (BATCHES, "Committed batches"),
    (RETRIES, "Tries of a batch that failed for a passing reason"),
    (BROKER_SESSIONS, "Connections made to the broker"),
    (
        UNREADABLE,
        "Deliveries that could not be read and ended the connection: the broker dead-letters such a message in the end",
    ),
];

const WRONG_FILTER: &str = "PAXFLOW_LOG has a wrong value: expected a filter such as info or paxflow=debug (default: info)";

/// How often what was recorded is summed up: a few thousand batches at most.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(5);

/// Starts logging to stderr.
///
/// # Errors
/// If `PAXFLOW_LOG` is not a filter.
pub fn start_logging(config: &Config) -> Result<()> {
    // The filter would take another word for a target that never logs.
    let is_level_or_rule =
        |part: &str| part.contains(['=', '[']) || LevelFilter::from_str(part).is_ok();
    // Of nothing it would make a log of nothing.
    let says_nothing = config.log.trim().is_empty();
    ensure!(
        !says_nothing && config.log.split(',').map(str::trim).all(is_level_or_rule),
        WRONG_FILTER
    );
    let filter = EnvFilter::try_new(format!(
        "{},{},{}",
        broker::LIBRARY_LOG,
        db::LIBRARY_LOG,
        config.log
    ))
    .context(WRONG_FILTER)?;
    let on_terminal = std::io::stderr().is_terminal();
    let format = config.log_format.unwrap_or(if on_terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that cannot be written would be told on stderr, which is that log: a panic of whoever logs.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(on_terminal).with_target(false).init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init(),
    }
    Ok(())
}

/// Installs the recorder of metrics and describes each of them. Needs a runtime, on which it keeps house.
///
/// # Errors
/// If it is installed already.
pub fn start_metrics() -> Result<PrometheusHandle> {
    let seconds = [
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    ];
    let events = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(COMMIT_SECONDS.to_owned()), &seconds)?
        .set_buckets_for_metric(Matcher::Full(BATCH_EVENTS.to_owned()), &events)?
        .install_recorder()
        .context("metrics are recorded already")?;
    describe();
    tokio::spawn(keep_house(handle.clone()));
    Ok(handle)
}

/// What histograms have recorded is kept one by one until it is asked for: of a worker that nobody scrapes, for ever.
async fn keep_house(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(HOUSEKEEPING_EVERY).await;
        metrics.run_upkeep();
    }
}

fn describe() {
    for (counter, help) in COUNTERS {
        describe_counter!(counter, Unit::Count, help);
        // Who watches for the first of something rare has to see that there was none.
        counter!(counter).increment(0);
    }
    describe_counter!(
        VERDICTS,
        Unit::Count,
        "Deliveries settled by a commit, by verdict"
    );
    describe_histogram!(BATCH_EVENTS, Unit::Count, "Deliveries in a committed batch");
    describe_histogram!(
        COMMIT_SECONDS,
        Unit::Seconds,
        "Time from the first try of a batch to its commit, retries included"
    );
    describe_gauge!(
        UP,
        Unit::Count,
        "Whether the broker or the database is connected: 1 or 0"
    );
    describe_gauge!(
        LAST_COMMIT,
        Unit::Seconds,
        "Time of the last commit, as Unix time"
    );
    describe_gauge!(POOL_OPEN, Unit::Count, "Open database connections");
    describe_gauge!(
        VERIFIED_THROUGH,
        Unit::Seconds,
        "Snapshot of the newest verification that found MarketData exact, by any worker or command, as Unix time"
    );
    describe_gauge!(
        DRIFT_ROWS,
        Unit::Count,
        "Rows of MarketData that differed in the newest verification; 0 is exact"
    );
}
