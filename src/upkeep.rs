//! What a worker does beside its batches: it has MarketData verified on a schedule, tells the newest result,
//! forgets quarantined events that are settled for long, and ends sessions of workers that hold up the others. On a
//! connection of its own, or two where batches have another login, so that it never takes one from a batch.

use std::time::{Duration, Instant};

use metrics::gauge;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tracing::{debug, error, info, warn};

use crate::audit::{self, Newest};
use crate::db::{self, Fault, fault_of};
use crate::{apply, telemetry};

/// How soon a worker knows of a result that another one has found.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Where nobody has ever verified, a worker does so once it has run for a while.
const FIRST_AUDIT_AFTER: Duration = Duration::from_secs(60);
/// A database that says nothing for this long is gone: a lost network path sends no reset. More than a verification may take.
const ROUND_MAX: Duration = Duration::from_secs(900);
/// How often settled events are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// Events that are forgotten in one statement.
const FORGET_MAX: u32 = 1000;

/// What a worker keeps up.
#[derive(Debug, Clone)]
pub struct Upkeep {
    /// The database.
    pub database: PgConnectOptions,
    /// The database as batches reach it, if with another login: only that one sees and ends the sessions of their workers.
    pub as_batches: Option<PgConnectOptions>,
    /// How often MarketData is verified by one of all workers.
    pub verify_every: Option<Duration>,
    /// How many days settled events are kept; 0 is for ever.
    pub quarantine_days: u16,
}

/// When each of its tasks is due next.
struct Due {
    audit: Instant,
    forget: Instant,
}

/// Does it until it is dropped. A failure is logged, once while it stays the same, and tried again: no batch depends on it.
pub async fn run(upkeep: Upkeep) {
    let started = Instant::now();
    let mut due = Due {
        audit: started,
        forget: started,
    };
    let look_every = upkeep
        .verify_every
        .map_or(LOOK_EVERY, |every| every.min(LOOK_EVERY));
    let mut connection = None;
    let mut told = None;
    loop {
        tokio::time::sleep(look_every).await;
        let round = round(connection.take(), &upkeep, started, &mut due);
        let Ok(done) = tokio::time::timeout(ROUND_MAX, round).await else {
            let waited_s = ROUND_MAX.as_secs();
            warn!(
                waited_s,
                "the database does not answer the upkeep, which begins anew"
            );
            continue;
        };
        match done {
            Ok(open) => {
                connection = Some(open);
                told = None;
            }
            Err(error) if fault_of(&error) == Fault::Transient => {
                debug!(
                    reason = db::told(&error),
                    "the upkeep waits for the database"
                );
            }
            Err(error) => {
                let reason = Some(db::told(&error));
                if told != reason {
                    warn!(reason, "the upkeep failed, and is tried again");
                    told = reason;
                }
            }
        }
    }
}

async fn end_frozen(connection: &mut PgConnection, upkeep: &Upkeep) -> sqlx::Result<i64> {
    let Some(as_batches) = &upkeep.as_batches else {
        return apply::end_frozen(connection).await;
    };
    let ended = async {
        let mut connection = db::connect(as_batches).await?;
        let ended = apply::end_frozen(&mut connection).await;
        connection.close().await.ok();
        ended
    };
    // The rest of the round is another login's.
    Ok(ended.await.unwrap_or_else(|error| {
        debug!(
            reason = db::told(&error),
            "cannot look for workers that are frozen"
        );
        0
    }))
}

/// Does what is due, on a new connection where there is none; returns it.
async fn round(
    open: Option<PgConnection>,
    upkeep: &Upkeep,
    started: Instant,
    due: &mut Due,
) -> sqlx::Result<PgConnection> {
    let mut connection = match open {
        Some(open) => open,
        None => db::connect(&upkeep.database).await?,
    };
    let sessions = end_frozen(&mut connection, upkeep).await?;
    if sessions > 0 {
        warn!(
            sessions,
            "ended what stood in a COPY for 15 s without a word of its worker: others waited for its locks"
        );
    }
    let newest = audit::newest(&mut connection).await?;
    tell(newest.as_ref());
    if let Some(every) = upkeep.verify_every
        && due.audit <= Instant::now()
        && is_due(
            newest.map(|newest| newest.age_secs),
            every,
            started.elapsed(),
        )
    {
        // Whatever comes of it, this worker does not try again before the next time.
        due.audit = Instant::now() + every;
        verify(&mut connection, every).await?;
        tell(audit::newest(&mut connection).await?.as_ref());
    }
    if upkeep.quarantine_days > 0 && due.forget <= Instant::now() {
        due.forget = Instant::now() + FORGET_EVERY;
        while apply::forget(&mut connection, upkeep.quarantine_days, FORGET_MAX).await?
            == u64::from(FORGET_MAX)
        {}
    }
    Ok(connection)
}

fn is_due(age_secs: Option<f64>, every: Duration, running: Duration) -> bool {
    match age_secs {
        Some(age_secs) => age_secs >= every.as_secs_f64(),
        None => running >= every.min(FIRST_AUDIT_AFTER),
    }
}

async fn verify(connection: &mut PgConnection, every: Duration) -> sqlx::Result<()> {
    let started = Instant::now();
    match audit::verify_unless_recent(connection, every).await {
        Ok(None) => {}
        Ok(Some(report)) if report.is_exact() => {
            let ms = started.elapsed().as_millis() as u64;
            info!(rows = report.rows, ms, "verified: MarketData is exact");
        }
        Ok(Some(report)) => error!(
            rows = report.rows,
            rows_different = report.rows_different,
            first = report.differences.first().map(ToString::to_string),
            "DRIFT in MarketData: run paxflow verify --repair, and find out who else writes to these tables"
        ),
        Err(error) if audit::is_cut_off(&error) => warn!(
            "the background verification took too long and was given up: run paxflow verify at a quiet time"
        ),
        Err(error) => {
            // An outage is told by who commits batches; this may be the upkeep's alone, where it goes to a standby for instance.
            if fault_of(&error) == Fault::Transient {
                let reason = db::told(&error);
                warn!(
                    reason,
                    "the background verification failed, and waits for its next time"
                );
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Sets the metrics to the newest result, whoever found it.
fn tell(newest: Option<&Newest>) {
    let Some(newest) = newest else { return };
    gauge!(telemetry::DRIFT_ROWS).set(newest.drift_count as f64);
    if let Some(verified_through) = newest.verified_through {
        gauge!(telemetry::VERIFIED_THROUGH).set(verified_through.timestamp() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verification_is_due_once_the_newest_is_old_enough() {
        let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
        assert!(!is_due(Some(3599.9), hour, hour));
        assert!(is_due(Some(3600.0), hour, Duration::ZERO));
        assert!(!is_due(None, hour, minute / 2));
        assert!(is_due(None, hour, minute));
        assert!(is_due(None, minute / 2, minute / 2));
    }
}
