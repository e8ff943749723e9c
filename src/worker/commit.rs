//! A batch on its way into the database: decoded, and tried until it is committed or given up.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use metrics::{counter, gauge, histogram};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::Worker;
use crate::apply::Batch;
use crate::backoff::Backoff;
use crate::batch::VerdictCounts;
use crate::db::pool::Lease;
use crate::db::{self, Fault, fault_of};
use crate::event::Delivery;
use crate::stop::Stop;
use crate::telemetry;

/// A database that says nothing for this long within one try of a batch is gone: a lost network path
/// sends no reset. Far more than a batch takes, also one that waits for a repair.
const TRY_MAX: Duration = Duration::from_secs(60);

/// What became of a batch.
pub(super) enum Outcome {
    Committed {
        last_tag: u64,
        events: u64,
    },
    /// The database was away for too long, or we were told to stop meanwhile: this many have no verdict.
    Held {
        events: u64,
    },
}

/// What one batch passes to the next: permission to begin, and its connection.
pub(super) struct Handover {
    /// Comes when the previous batch has committed. If that was given up instead, so is this one.
    pub(super) from_previous: Option<oneshot::Receiver<Lease>>,
    pub(super) previous_is_at_work: bool,
    pub(super) to_next: oneshot::Sender<Lease>,
}

/// Decodes a batch and, once it is its turn, commits it, however long the database is away, up to the worker's `hold_max`.
pub(super) async fn commit(
    worker: Worker,
    batch: Vec<Delivery>,
    handover: Handover,
    mut stop: Stop,
) -> Result<Outcome> {
    let events = batch.len() as u64;
    let last_tag = batch.last().map_or(0, |delivery| delivery.tag);
    let mut batch = decode(&batch, handover.previous_is_at_work);
    let mut lease = None;
    if let Some(previous) = handover.from_previous {
        match previous.await {
            Ok(handed_on) => lease = Some(handed_on),
            Err(_) => return Ok(Outcome::Held { events }),
        }
    }
    let started = Instant::now();
    let mut backoff = Backoff::default();
    worker.health.committing(Some(started));
    let mut is_held = false;
    let outcome = loop {
        let error = match apply_once(&worker, &mut batch, &mut lease).await {
            Ok(()) => {
                note_commit(events, started);
                if is_held {
                    let held_ms = started.elapsed().as_millis() as u64;
                    info!(events, held_ms, "committed the batch that was held");
                }
                break Outcome::Committed { last_tag, events };
            }
            Err(error) => error,
        };
        if fault_of(&error) != Fault::Transient {
            error!(
                events,
                reason = db::told(&error),
                "cannot commit; nothing of the batch is acknowledged"
            );
            return Err(db::explain(error)).context("the database refuses the batch");
        }
        counter!(telemetry::RETRIES).increment(1);
        worker.health.held(db::told(&error));
        is_held = true;
        let wait = backoff.next_wait();
        warn!(
            events,
            reason = db::told(&error),
            retry_in_ms = wait.as_millis() as u64,
            "holding a batch for the database"
        );
        if started.elapsed() > worker.hold_max || stop.requested_within(wait).await {
            // The parts of it that have committed go back with the rest.
            counter!(telemetry::ACKS_LOST).increment(batch.committed.total());
            break Outcome::Held {
                events: batch.left(),
            };
        }
    };
    note_verdicts(&batch.committed);
    worker.health.set_aside(batch.committed.quarantined);
    worker.health.committing(None);
    // A batch that was given up has none to hand on, and there need not be one behind that would take it.
    if let Some(lease) = lease {
        handover.to_next.send(lease).ok();
    }
    Ok(outcome)
}

/// Behind another batch, it decodes aside from the one thread of the runtime: that batch needs it at each answer of the database.
fn decode(batch: &[Delivery], previous_is_at_work: bool) -> Batch<'_> {
    if previous_is_at_work {
        tokio::task::block_in_place(|| Batch::of(batch))
    } else {
        Batch::of(batch)
    }
}

/// Tries once; the connection goes on only if it went well.
async fn apply_once(
    worker: &Worker,
    batch: &mut Batch<'_>,
    kept: &mut Option<Lease>,
) -> sqlx::Result<()> {
    let mut lease = Lease::renewed(kept.take(), &worker.pool).await?;
    let applied = batch.apply(&mut lease.connection, &worker.committer);
    let Ok(applied) = tokio::time::timeout(TRY_MAX, applied).await else {
        return Err(db::pool::abandon(lease.connection, TRY_MAX));
    };
    if applied.is_err() {
        // A session keeps what it was opened with: it stays read-only where the database no longer is.
        lease.connection.close_on_drop();
    } else {
        worker.health.database(Ok(()));
        *kept = Some(lease);
    }
    applied
}

/// Counts what was settled; each verdict is there from the first time on.
pub(super) fn note_verdicts(counts: &VerdictCounts) {
    for (verdict, count) in [
        ("applied", counts.applied),
        ("duplicate", counts.duplicate),
        ("stale", counts.stale),
        ("folded", counts.folded),
        ("quarantined", counts.quarantined),
    ] {
        counter!(telemetry::VERDICTS, "verdict" => verdict).increment(count);
    }
}

fn note_commit(events: u64, started: Instant) {
    counter!(telemetry::BATCHES).increment(1);
    histogram!(telemetry::BATCH_EVENTS).record(events as f64);
    histogram!(telemetry::COMMIT_SECONDS).record(started.elapsed());
    gauge!(telemetry::LAST_COMMIT).set(chrono::Utc::now().timestamp() as f64);
}
