//! The one transaction of a batch: flights, bookings, what they change in MarketData, what is set aside,
//! and the count of it all.
//!
//! Locks are taken in one global order: flights, the turn of those who take one (`insertion`), bookings,
//! flight_demand, quarantined_events, rows in ascending order of their keys. Rows are never deleted from `flights` and
//! `bookings`, so a batch that holds a key it inserted makes its twins wait in their own insert, before they hold any
//! key of the second step: no circle is possible. That holds for bookings that are copied as for those that are
//! inserted.

mod booking_rows;
mod bookings;
mod demand;
mod flights;
mod insertion;
mod quarantine;
mod replay;
mod rows;

pub use insertion::end_frozen;
pub use quarantine::forget;
pub use replay::{CellChange, Preview, Replayed, StillRejected, preview, replay};

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::batch::{self, ByKey, Delivery, Folded, Newest, Verdict, VerdictCounts};
use crate::config::Pooler;
use crate::db::{Fault, fault_of};
use crate::event::{Reason, Rejected};
use crate::market::Rollup;

use insertion::{Inserting, Insertion};

/// Who commits: a worker, a replay or an import, with its row of `worker_progress`.
#[derive(Debug, Clone)]
pub struct Committer {
    /// Unique over all workers and restarts.
    pub id: String,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// What its connections lead to.
    pub pooler: Pooler,
    inserting: Inserting,
}

impl Committer {
    /// Who has met no twin yet.
    pub fn new(id: String, started_at: DateTime<Utc>, pooler: Pooler) -> Self {
        Self {
            id,
            started_at,
            pooler,
            inserting: Inserting::new(),
        }
    }
}

/// What became of the entities of one kind.
#[derive(Debug, Default)]
struct Written {
    counts: VerdictCounts,
    /// Deliveries that conflict with what is stored, or with what came before them.
    conflicts: Vec<usize>,
    /// How many keys are settled.
    keys: u64,
}

impl Written {
    /// Settles all deliveries of a key, given the version and content hash that are stored; tells whether the newest state is to
    /// be written.
    fn settle<T>(&mut self, newest: &Newest<'_, T>, stored: Option<(i64, &[u8])>) -> bool {
        let mut is_newer = false;
        newest.judge(stored, |delivery, verdict| match verdict {
            Verdict::Quarantined => self.conflicts.push(delivery),
            settled => {
                is_newer |= settled == Verdict::Applied;
                self.counts.count(settled);
            }
        });
        self.keys += 1;
        is_newer
    }

    /// Settles the states whose keys are stored, given the locked rows with the key in front. Returns those that are newer, each
    /// with the row it replaces.
    fn newer<'b, 's, T>(
        &mut self,
        states: &'b ByKey<'b, T>,
        stored: &'s [PgRow],
    ) -> sqlx::Result<Vec<(&'b Newest<'b, T>, &'s PgRow)>> {
        let mut newer = Vec::new();
        for row in stored {
            let Some(newest) = states.get(row.try_get::<&str, _>(0)?) else {
                continue;
            };
            let kept = (row.try_get("version")?, row.try_get("content_hash")?);
            if self.settle(newest, Some(kept)) {
                newer.push((newest, row));
            }
        }
        Ok(newer)
    }
}

/// What is stored has to be all that was sent: a trigger or row security keeps rows back without an error.
fn ensure_stored(table: &str, stored: u64, sent: usize) -> sqlx::Result<()> {
    if stored == sent as u64 {
        return Ok(());
    }
    let problem = format!(
        "{stored} of {sent} rows were stored: look for triggers and row security on {table}"
    );
    Err(sqlx::Error::Decode(problem.into()))
}

/// Applies a batch in one go and returns the verdicts: see [`Batch::apply`].
///
/// # Errors
/// As there.
pub async fn apply(
    connection: &mut PgConnection,
    committer: &Committer,
    deliveries: &[Delivery],
) -> sqlx::Result<VerdictCounts> {
    let mut batch = Batch::of(deliveries);
    batch.apply(connection, committer).await?;
    Ok(batch.committed)
}

/// A batch on its way into the database. It outlives a failed try: what has committed by then is neither
/// applied nor counted again.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The parts that are not committed yet, the next one last.
    left: Vec<&'a [Delivery]>,
    /// What the next part comes to, unless it was tried already.
    folded: Option<Folded<'a>>,
    /// Verdicts of what has committed.
    pub committed: VerdictCounts,
    /// The next part, if its COMMIT was not answered.
    unanswered: Option<Unanswered>,
}

/// A part that has committed, if so many batches of the worker have.
#[derive(Debug, Clone, Copy)]
struct Unanswered {
    batches: i64,
    counts: VerdictCounts,
}

impl<'a> Batch<'a> {
    /// Decodes and folds a batch, of which nothing has committed.
    pub fn of(deliveries: &'a [Delivery]) -> Self {
        Self {
            left: vec![deliveries],
            folded: Some(batch::fold(deliveries)),
            committed: VerdictCounts::default(),
            unanswered: None,
        }
    }

    /// Deliveries that are not committed yet.
    pub fn left(&self) -> u64 {
        self.left.iter().map(|part| part.len() as u64).sum()
    }

    /// Commits what is left. A message whose row the database refuses is set aside
    /// with its SQLSTATE and the others commit: the batch is halved until the message stands alone.
    ///
    /// # Errors
    /// Whatever fault is not the data's: see [`fault_of`].
    pub async fn apply(
        &mut self,
        connection: &mut PgConnection,
        committer: &Committer,
    ) -> sqlx::Result<()> {
        while let Some(part) = self.left.last().copied() {
            if let Some(Unanswered { batches, counts }) = self.unanswered {
                let has_committed = committed_batches(connection, committer).await? >= batches;
                self.unanswered = None;
                if has_committed {
                    self.settle_next(counts);
                    continue;
                }
            }
            let folded = self.folded.take().unwrap_or_else(|| batch::fold(part));
            let unanswered = &mut self.unanswered;
            match commit(connection, committer, part, folded, None, unanswered).await {
                Ok(counts) => self.settle_next(counts),
                Err(error) if bookings::is_collision(&error) => committer.inserting.met_a_twin(),
                Err(error) => match fault_of(&error) {
                    Fault::Data { sqlstate } if part.len() == 1 => {
                        let refused = Folded {
                            rejected: vec![(0, refused_by_database())],
                            ..Folded::default()
                        };
                        let sqlstate = Some(sqlstate.as_str());
                        let counts =
                            commit(connection, committer, part, refused, sqlstate, unanswered);
                        let counts = counts.await?;
                        self.settle_next(counts);
                    }
                    Fault::Data { .. } => {
                        let (first, second) = part.split_at(part.len() / 2);
                        self.left.pop();
                        self.left.extend([second, first]);
                    }
                    Fault::Transient | Fault::Permanent => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn settle_next(&mut self, counts: VerdictCounts) {
        self.left.pop();
        self.unanswered = None;
        self.committed = self.committed + counts;
    }
}

fn refused_by_database() -> Rejected {
    Rejected {
        reason: Reason::RefusedByDatabase,
        path: "$".to_owned(),
        detail: "the database refused the row; see sqlstate".to_owned(),
    }
}

async fn commit(
    connection: &mut PgConnection,
    committer: &Committer,
    deliveries: &[Delivery],
    folded: Folded<'_>,
    sqlstate: Option<&str>,
    unanswered: &mut Option<Unanswered>,
) -> sqlx::Result<VerdictCounts> {
    let last_event_at = folded.last_event_at;
    let pooler = committer.pooler;
    let insertion = committer.inserting.next(folded.bookings.len());
    let mut transaction = pooler.begin(connection).await?;
    let Effect {
        mut counts,
        rejected,
    } = write(&mut transaction, pooler, folded, insertion).await?;
    quarantine::set_aside(&mut transaction, pooler, deliveries, &rejected, sqlstate).await?;
    for _ in &rejected {
        counts.count(Verdict::Quarantined);
    }
    let batches = count(&mut transaction, committer, last_event_at, counts).await?;
    *unanswered = Some(Unanswered { batches, counts });
    transaction.commit().await?;
    Ok(counts)
}

async fn committed_batches(
    connection: &mut PgConnection,
    committer: &Committer,
) -> sqlx::Result<i64> {
    let mut transaction = committer.pooler.begin(connection).await?;
    let batches = committer
        .pooler
        .query(include_str!("committed_batches.sql"))
        .bind(&committer.id)
        .bind(committer.started_at)
        .fetch_one(&mut *transaction)
        .await?
        .try_get(0)?;
    transaction.rollback().await?;
    Ok(batches)
}

/// What a folded batch came to.
struct Effect {
    /// All deliveries but the rejected.
    counts: VerdictCounts,
    /// Deliveries that break a rule or conflict with another, by their place in the batch.
    rejected: Vec<(usize, Rejected)>,
}

/// Writes flights and bookings, and what they change in MarketData.
async fn write(
    connection: &mut PgConnection,
    pooler: Pooler,
    mut folded: Folded<'_>,
    insertion: Insertion,
) -> sqlx::Result<Effect> {
    let flights = flights::write(connection, pooler, &folded.flights).await?;
    let (bookings, replaced) =
        bookings::write(connection, pooler, &folded.bookings, insertion).await?;
    let mut rollup = Rollup::default();
    for change in &replaced {
        if let Some(counted) = &change.stored {
            rollup.retract(counted, change.event_at);
        }
        if let Some(booking) = change.booking {
            rollup.add(booking, change.event_at);
        }
    }
    demand::add(connection, pooler, &rollup).await?;
    let conflicts = flights.conflicts.iter().chain(&bookings.conflicts);
    folded
        .rejected
        .extend(conflicts.map(|delivery| (*delivery, batch::conflict())));
    Ok(Effect {
        counts: flights.counts + bookings.counts,
        rejected: folded.rejected,
    })
}

/// Counts a batch; returns which of the worker's it is.
async fn count(
    connection: &mut PgConnection,
    committer: &Committer,
    last_event_at: Option<DateTime<Utc>>,
    counts: VerdictCounts,
) -> sqlx::Result<i64> {
    committer
        .pooler
        .query(include_str!("progress.sql"))
        .bind(&committer.id)
        .bind(committer.started_at)
        .bind(last_event_at)
        .bind(counts.total() as i64)
        .bind(counts.applied as i64)
        .bind(counts.duplicate as i64)
        .bind(counts.stale as i64)
        .bind(counts.folded as i64)
        .bind(counts.quarantined as i64)
        .fetch_one(connection)
        .await?
        .try_get(0)
}
