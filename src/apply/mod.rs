//! The one transaction of a batch: flights, bookings, what they change in MarketData, what is set aside,
//! and the count of it all.
//!
//! A *twin* is another one at work on the same database: a worker, a replay or an import.
//!
//! It takes three steps, each one question to the database where a batch is small, since every question is a round trip: what
//! is new is inserted (`insert`), what is stored is locked and read (`stored`), and what that leaves to write is written
//! (`conclude`).
//!
//! Locks are taken in one global order: new flights, the turn of those who take one (`insertion`), new bookings, stored
//! flights, stored bookings, flight_demand, quarantined_events, rows in ascending order of their keys. A committer's row of
//! worker_progress is nobody else's. Rows are never deleted from `flights` and `bookings`, so a batch that holds a key it
//! inserted makes its twins wait in their own insert, before they hold any key of the second step: no circle is possible.
//! That holds for bookings that are copied as for those that are inserted. Tables are locked in that order too, flights
//! first, also by a batch that has none.

mod booking_rows;
mod conclude;
mod flight_rows;
mod insert;
mod insertion;
mod quarantine;
mod replay;
mod rows;
mod stored;

pub use insertion::end_frozen;
pub use quarantine::{discard, forget};
pub use replay::{CellChange, Preview, Replayed, StillRejected, preview, replay};

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::batch::{self, ByKey, Folded, Newest, Verdict, VerdictCounts};
use crate::config::Pooler;
use crate::db::{Fault, fault_of};
use crate::event::{Booking, Delivery, Reason, Rejected};
use crate::market::{Counted, Rollup};

use conclude::Conclusion;
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

/// What becomes of the entities of one kind.
struct Kind<'b, T> {
    table: &'static str,
    states: &'b ByKey<'b, T>,
    /// States whose keys were not stored.
    new: Vec<&'b Newest<'b, T>>,
    /// The other keys.
    known: Vec<&'b str>,
    counts: VerdictCounts,
    /// Deliveries that conflict with what is stored, or with what came before them.
    conflicts: Vec<usize>,
}

impl<'b, T> Kind<'b, T> {
    /// Settles what is new.
    fn inserted(table: &'static str, states: &'b ByKey<'b, T>, is_new: &[bool]) -> Self {
        let mut kind = Self {
            table,
            states,
            new: Vec::new(),
            known: Vec::new(),
            counts: VerdictCounts::default(),
            conflicts: Vec::new(),
        };
        for ((key, newest), is_new) in states.iter().zip(is_new) {
            if *is_new {
                kind.settle(newest, None);
                kind.new.push(newest);
            } else {
                kind.known.push(key);
            }
        }
        kind
    }

    /// Settles the others, given their locked rows. Returns the states that are newer, each with what `read` takes from the row
    /// it replaces.
    fn newer<R>(
        &mut self,
        stored: &[PgRow],
        read: impl Fn(&PgRow) -> sqlx::Result<R>,
    ) -> sqlx::Result<Vec<(&'b Newest<'b, T>, R)>> {
        let (mut newer, mut settled) = (Vec::new(), 0);
        for row in stored {
            let Some(newest) = self.states.get(row.try_get::<&str, _>(0)?) else {
                continue;
            };
            let kept = (row.try_get("version")?, row.try_get("content_hash")?);
            if self.settle(newest, Some(kept)) {
                newer.push((newest, read(row)?));
            }
            settled += 1;
        }
        ensure_stored(self.table, settled, self.known.len())?;
        Ok(newer)
    }

    /// Settles all deliveries of a key, given the version and content hash that are stored; tells whether the newest state is to
    /// be written.
    fn settle(&mut self, newest: &Newest<'_, T>, stored: Option<(i64, &[u8])>) -> bool {
        let mut is_newer = false;
        newest.judge(stored, |delivery, verdict| match verdict {
            Verdict::Quarantined => self.conflicts.push(delivery),
            settled => {
                is_newer |= settled == Verdict::Applied;
                self.counts.count(settled);
            }
        });
        is_newer
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

/// The part has committed if the committer's count of batches has reached `batches`.
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
            if self.settle_unanswered(connection, committer).await? {
                continue;
            }
            let folded = self.folded.take().unwrap_or_else(|| batch::fold(part));
            let Err(error) = self
                .commit_next(connection, committer, part, folded, None)
                .await
            else {
                continue;
            };
            match fault_of(&error) {
                _ if insert::is_collision(&error) => committer.inserting.met_a_twin(),
                Fault::Data { sqlstate } if part.len() == 1 => {
                    let refused = Folded {
                        rejected: vec![(0, refused_by_database())],
                        ..Folded::default()
                    };
                    self.commit_next(connection, committer, part, refused, Some(&sqlstate))
                        .await?;
                }
                Fault::Data { .. } => self.halve_next(),
                Fault::Transient | Fault::Permanent => return Err(error),
            }
        }
        Ok(())
    }

    /// Settles the next part if it has committed although its COMMIT was not answered; tells whether it had.
    async fn settle_unanswered(
        &mut self,
        connection: &mut PgConnection,
        committer: &Committer,
    ) -> sqlx::Result<bool> {
        let Some(Unanswered { batches, counts }) = self.unanswered else {
            return Ok(false);
        };
        let has_committed = committed_batches(connection, committer).await? >= batches;
        self.unanswered = None;
        if has_committed {
            self.settle_next(counts);
        }
        Ok(has_committed)
    }

    /// Commits the next part, folded as given, and settles it.
    async fn commit_next(
        &mut self,
        connection: &mut PgConnection,
        committer: &Committer,
        part: &[Delivery],
        folded: Folded<'_>,
        sqlstate: Option<&str>,
    ) -> sqlx::Result<()> {
        let insertion = committer.inserting.next(folded.bookings.len());
        let mut transaction = committer.pooler.begin(connection).await?;
        let Effect {
            counts,
            rejected,
            batches,
        } = write(&mut transaction, committer, folded, insertion).await?;
        quarantine::set_aside(
            &mut transaction,
            committer.pooler,
            part,
            &rejected,
            sqlstate,
        )
        .await?;
        self.unanswered = Some(Unanswered { batches, counts });
        transaction.commit().await?;
        self.settle_next(counts);
        Ok(())
    }

    fn halve_next(&mut self) {
        if let Some(part) = self.left.pop() {
            let (first, second) = part.split_at(part.len() / 2);
            self.left.extend([second, first]);
        }
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
    /// All deliveries.
    counts: VerdictCounts,
    /// Deliveries that break a rule or conflict with another, by their place in the batch.
    rejected: Vec<(usize, Rejected)>,
    /// Which of the committer's batches it is.
    batches: i64,
}

/// Writes flights and bookings, what they change in MarketData, and the count of all verdicts.
async fn write(
    connection: &mut PgConnection,
    committer: &Committer,
    mut folded: Folded<'_>,
    insertion: Insertion,
) -> sqlx::Result<Effect> {
    let pooler = committer.pooler;
    let new = insert::insert(connection, pooler, &folded, insertion).await?;
    let mut flights = Kind::inserted("flights", &folded.flights, &new.flights);
    let mut bookings = Kind::inserted("bookings", &folded.bookings, &new.bookings);
    let stored = stored::lock(connection, pooler, &flights.known, &bookings.known).await?;
    let newer_flights = flights.newer(&stored.flights, |_| Ok(()))?;
    let newer_bookings = bookings.newer(&stored.bookings, stored::counted)?;
    let rollup = rollup_of(&bookings.new, &newer_bookings);
    let conflicts = flights.conflicts.iter().chain(&bookings.conflicts);
    folded
        .rejected
        .extend(conflicts.map(|delivery| (*delivery, batch::conflict())));
    let mut counts = flights.counts + bookings.counts;
    counts.quarantined += folded.rejected.len() as u64;
    let conclusion = Conclusion {
        flights: states(&newer_flights),
        bookings: states(&newer_bookings),
        rollup,
        last_event_at: folded.last_event_at,
        counts,
    };
    let batches = conclude::conclude(connection, committer, conclusion).await?;
    Ok(Effect {
        counts,
        rejected: folded.rejected,
        batches,
    })
}

fn states<'b, T, R>(newer: &[(&'b Newest<'b, T>, R)]) -> Vec<&'b Newest<'b, T>> {
    newer.iter().map(|(newest, _)| *newest).collect()
}

/// What new bookings add to MarketData, and what newer ones change there, each of which replaces one that may have counted.
fn rollup_of<'a>(
    new: &[&'a Newest<'a, Booking<'a>>],
    newer: &'a [(&'a Newest<'a, Booking<'a>>, Option<Counted>)],
) -> Rollup<'a> {
    let mut rollup = Rollup::default();
    for (newest, replaced) in newer {
        if let Some(counted) = replaced {
            rollup.retract(counted, newest.event_at);
        }
    }
    let newer = newer.iter().map(|(newest, _)| newest);
    for newest in new.iter().chain(newer) {
        if let (Some(booking), _) = newest.revision.state.parts() {
            rollup.add(booking, newest.event_at);
        }
    }
    rollup
}
